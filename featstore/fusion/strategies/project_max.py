"""Rotate the backbones into one common space, take the maximum, then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from featstore.fusion.linear import ProcrustesStrategy

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ProjectMax(ProcrustesStrategy):
    """Feature-level fusion: on each axis of a common space, the highest score any backbone gives.

    The space is that of `ProjectMean`. The maximum lets one backbone that sees something be heard; it also lets
    one backbone's noise through. The sign of an axis is arbitrary, so each axis is taken both ways round, as the
    maximum and the minimum. The price is a PCA per backbone.

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
        The `LinearModel` of the extreme scores.

    References
    ----------
    The common space: Gower 1975, "Generalized Procrustes analysis", Psychometrika 40(1). Projecting each frozen
    network and taking the maximum, there with learned projections: BioFuse.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.9
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 0.0
    kernels: ClassVar[float] = 1.3
    min_blocks: ClassVar[int] = 2

    def _merge(self, scores: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate([np.max(scores, axis=0), np.min(scores, axis=0)], axis=1)
