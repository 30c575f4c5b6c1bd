"""Rotate the backbones into one common space, take the mean, then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featstore.fusion.linear import LinearModel, ProcrustesStrategy

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ProjectMean(ProcrustesStrategy):
    """Feature-level fusion: the mean of the backbones' scores in a common space.

    The space is the consensus of a generalised Procrustes analysis of their principal components; it looks at no
    label. The mean keeps what the backbones agree on and averages out the rest, and its size does not grow with
    their number. What only one backbone sees is diluted. The price is a PCA per backbone.

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

    Attributes
    ----------
    projections_
        One `Projection` into the common space per block.
    model_
        The `LinearModel` of the mean scores.

    References
    ----------
    The common space: Gower 1975, "Generalized Procrustes analysis", Psychometrika 40(1). Projecting each frozen
    network and taking the mean, there with learned projections: BioFuse.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.9
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 0.0
    kernels: ClassVar[float] = 1.3
    min_blocks: ClassVar[int] = 2

    def linear_logits(self) -> LinearModel:
        """Its logits are a linear function of the columns: one of the mean of projections."""
        check_is_fitted(self)
        weights = self.model_.coef * self.model_.scale
        share = weights / len(self.projections_)
        return LinearModel(
            np.concatenate([share @ projection.axes.T for projection in self.projections_], axis=1),
            self.model_.intercept - weights @ self.model_.mean,
            np.concatenate([projection.mean for projection in self.projections_]),
            np.concatenate([projection.scale for projection in self.projections_]),
        )

    def _merge(self, scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = np.mean(scores, axis=0)
        return mean
