"""A common space for all backbones: generalised Procrustes analysis of their principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.fusion.linear import standardise
from featstore.fusion.projection import Projection, fit_merged, principal_parts, project, weight_of
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.fusion.blocks import Block

    Floats = NDArray[np.float64]

TURNS = 100
SETTLED = 1e-12


class ConsensusStrategy(FusionStrategy):
    """Base of the strategies that bring every backbone into one space of `n_components` axes.

    The principal components of each backbone are rotated, never stretched one against another, until axis i means
    the same in every backbone; subclasses say how the scores are then merged.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        Inverse strength of the penalty on the merged scores, which together have variance one.
    n_components
        Axes of the common space, at most the rank of the smallest block.
    random_state
        Seed of the randomised PCA of large blocks. The default 0 makes two fits the same bytes.
    """

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        n_components: int = 64,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.C = C
        self.n_components = n_components
        self.random_state = random_state

    def _learn(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        mean, scale = standardise(X, self.blocks_)
        axes, scores = principal_parts(X, self.blocks_, mean, scale, self.n_components, self.random_state)
        shared = min(part.shape[1] for part in scores)
        weights = [weight_of(part[:, :shared]) for part in scores]
        leading = [part[:, :shared] * weight for part, weight in zip(scores, weights, strict=True)]
        self.projections_ = tuple(
            Projection(
                axis[:, :shared] @ turn * weight,
                mean[block.start : block.stop],
                scale[block.start : block.stop],
            )
            for axis, turn, weight, block in zip(axes, align(leading), weights, self.blocks_, strict=True)
        )
        self.model_ = fit_merged(self._merge(project(X, self.blocks_, self.projections_)), y, self.C)

    def _fuse(self, X: NDArray[Any]) -> Floats:
        return self.model_.proba(self._merge(project(X, self.blocks_, self.projections_)))

    def _merge(self, scores: list[Floats]) -> Floats:
        """Features ``(n, k)`` of aligned scores ``(n, m)``, one array per block."""
        raise NotImplementedError


def align(scores: Sequence[Floats]) -> list[Floats]:
    """Rotations ``(m, m)`` that bring centred scores ``(n, m)`` as near to their mean as rotations can.

    Each is turned to the mean of all, and the mean taken again, until it settles (Gower 1975). At the end all are
    turned together to the principal axes of the mean, so that the outcome does not hang on which one came first.
    """
    turns = [np.eye(scores[0].shape[1])] * len(scores)
    mean: Floats = scores[0]
    for _ in range(TURNS):
        turns = [_rotation(part.T @ mean) for part in scores]
        before, mean = mean, np.mean([part @ turn for part, turn in zip(scores, turns, strict=True)], axis=0)
        if ((mean - before) ** 2).sum() <= SETTLED * (mean**2).sum():
            break
    _, _, principal = np.linalg.svd(mean, full_matrices=False)
    final = principal.T * np.where(principal.sum(axis=1) < 0, -1.0, 1.0)
    return [turn @ final for turn in turns]


def _rotation(product: Floats) -> Floats:
    left, _, right = np.linalg.svd(product)
    rotation: Floats = left @ right
    return rotation
