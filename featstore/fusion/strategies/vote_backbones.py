"""One logistic regression per backbone; the backbones vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.blocks import Block, split
from featstore.fusion.linear import fit_logistic
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class VoteBackbones(FusionStrategy):
    """Decision-level fusion: the majority's class, with the majority's probability.

    Each backbone votes for its most probable class. The class with most votes wins; where classes are level, the
    one among them with the highest mean probability over *all* backbones; where those are level too, the first in
    `classes_`. The probability is the mean over the backbones that voted with the majority, renormalised to one;
    those outvoted do not count. `predict` is always the argmax of `predict_proba`. The price of the method:
    probabilities jump where the majority turns, so they rank images less finely than a mean would.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, and a vote of one.
    C
        As in `ConcatLogreg`, for each backbone.

    Attributes
    ----------
    models_
        One `LinearModel` per block.

    References
    ----------
    "Probability of the majority": Ji et al. 2020, medRxiv 10.1101/2020.12.09.20246371. The tie rule is ours.
    """

    min_blocks: ClassVar[int] = 2

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
    ) -> None:
        self.blocks = blocks
        self.C = C

    def votes(self, X: ArrayLike) -> NDArray[np.intp]:
        """Class number ``(n, n_blocks)`` that each backbone votes for; an index into `classes_`."""
        ballots: NDArray[np.intp] = self.block_proba(X).argmax(axis=2)
        return ballots

    def block_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities ``(n, n_blocks, n_classes)`` of each backbone alone."""
        return self._ask(self._read(X))

    def _learn(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        self.models_ = tuple(
            fit_logistic(part, y, (Block(block.name, 0, block.width),), self.C)
            for block, part in zip(self.blocks_, split(X, self.blocks_), strict=True)
        )

    def _fuse(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return elect(self._ask(X))

    def _ask(self, X: NDArray[Any]) -> NDArray[np.float64]:
        parts = zip(self.models_, split(X, self.blocks_), strict=True)
        return np.stack([model.proba(part) for model, part in parts], axis=1)


def elect(block_proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the majority ``(n, n_classes)`` from ``(n, n_voters, n_classes)``, as `VoteBackbones` says."""
    votes = block_proba.argmax(axis=2)
    counts = (votes[:, :, None] == np.arange(block_proba.shape[2])).sum(axis=1)
    leading = counts == counts.max(axis=1, keepdims=True)
    winner = np.where(leading, block_proba.mean(axis=1), -1.0).argmax(axis=1)
    majority = votes == winner[:, None]
    total = (block_proba * majority[:, :, None]).sum(axis=1)
    probability: NDArray[np.float64] = total / total.sum(axis=1, keepdims=True)
    return probability
