"""Canonical variates that the backbones share, concatenated, then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.errors import UsageError
from featstore.fusion.linear import LinearStrategy, fit_concatenated, principal_parts, standardise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]


class CcaConcat(LinearStrategy):
    """Feature-level fusion: keep of each backbone what the other backbones see too.

    Regularised generalised canonical correlation analysis (MAXVAR): find shared variates that every backbone
    can reproduce, and each backbone's best reproduction of them. For two backbones these are the classical
    canonical variates; any number are treated alike, without an order or pairs. It looks at no label, and it
    throws away what only one backbone knows: it helps where backbones are noisy in different ways and hurts
    where they complement each other. Correlations overfit with more columns than rows, hence principal
    components first, and a ridge. The price is a PCA per backbone and one small SVD.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, for which this is a PCA with whitened scores.
    C
        As in `ConcatLogreg`; every block's variates together have variance one.
    n_components
        Principal components per backbone that take part.
    n_variates
        Shared variates, at most the principal components of all backbones.
    ridge
        Added to the variance of each principal component, in units of their mean; 0 or more.
    random_state
        Seed of the randomised PCA of large blocks. The default 0 makes two fits the same bytes.

    Attributes
    ----------
    model_
        Projections and regression as one `LinearModel` over all columns.

    References
    ----------
    MAXVAR: Kettenring 1971, Biometrika 58(3). As fusion of two feature sets, concatenated: Haghighat,
    Abdel-Mottaleb & Alhalabi 2016, Expert Systems with Applications 47. Ridge: Vinod 1976, J. Econometrics 4.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.2
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 4.5
    min_blocks: ClassVar[int] = 2

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        n_components: int = 64,
        n_variates: int = 32,
        ridge: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.C = C
        self.n_components = n_components
        self.n_variates = n_variates
        self.ridge = ridge
        self.random_state = random_state

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        if self.n_variates < 1 or self.ridge < 0:
            raise UsageError(
                f"n_variates={self.n_variates}, ridge={self.ridge} is out of range.", "Set at least 1 and 0."
            )
        mean, scale = standardise(X, self.blocks_)
        axes, scores = principal_parts(X, self.blocks_, mean, scale, self.n_components, self.random_state)
        rotations = canonical_rotations(scores, self.n_variates, self.ridge)
        variates = [part @ turn for part, turn in zip(scores, rotations, strict=True)]
        canonical = [axis @ turn for axis, turn in zip(axes, rotations, strict=True)]
        self.model_ = fit_concatenated(variates, canonical, y, self.C, mean, scale)


def canonical_rotations(scores: Sequence[Floats], n_variates: int, ridge: float) -> list[Floats]:
    """Matrices ``(m, r)`` that take each block's centred, uncorrelated scores ``(n, m)`` to the shared variates."""
    spreads = [(part**2).sum(axis=0) for part in scores]
    damped = [np.maximum(spread + ridge * spread.mean(), np.finfo(float).tiny) for spread in spreads]
    white = [part / np.sqrt(spread) for part, spread in zip(scores, damped, strict=True)]
    left, strength, _ = np.linalg.svd(np.concatenate(white, axis=1), full_matrices=False)
    kept = strength[:n_variates] > 1e-7 * max(strength[0], 1e-7)
    shared = left[:, :n_variates][:, kept] if kept.any() else left[:, :1]
    return [(part.T @ shared) / spread[:, None] for part, spread in zip(scores, damped, strict=True)]
