"""Linear discriminant analysis of the concatenated vectors, the covariance shrunk by Ledoit and Wolf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.linear import LinearModel, LinearStrategy, scaled_block, standardise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]

LEAST_SHRINKAGE = 1e-4
"""So much is shrunk at least: with fewer rows than columns the covariance itself has no inverse."""


class Lda(LinearStrategy):
    """Feature-level fusion by linear discriminant analysis with a shrunk covariance; nothing is tuned.

    Classes are normal clouds of one shape around their means. The covariance within the classes is moved towards a
    multiple of the identity, by as much as Ledoit and Wolf's formula says from the same rows: no penalty is chosen,
    nobody held out. Columns and blocks are weighed as in `ConcatLogreg`. scikit-learn's own shrinkage works in d
    dimensions, 1.6 GB for 14,144 columns; with fewer rows than columns it is done here in the Gram matrix of the
    rows, with the same result. Rows that are views of one image are taken for independent, so that with many views
    the covariance is shrunk too little; and chances are the nearer to 0 and 1 the less normal the clouds are. The
    price is one Gram matrix and one factorisation.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.

    Attributes
    ----------
    shrinkage_
        From 0 (the covariance as it is) to 1 (the identity alone).
    model_
        The discriminants as a `LinearModel` over all columns.

    References
    ----------
    Fisher 1936, Annals of Eugenics 7; shrinkage: Ledoit & Wolf 2004, J. Multivariate Analysis 88(2).
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 0.6
    copies: ClassVar[float] = 6.2
    squares: ClassVar[float] = 1.0
    min_blocks: ClassVar[int] = 1

    def __init__(self, blocks: tuple[Block, ...] | None = None) -> None:
        self.blocks = blocks

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        mean, scale = standardise(X, self.blocks_)
        one_hot = np.eye(len(self.classes_))[y]
        average = one_hot / one_hot.sum(axis=0)
        Z = np.concatenate([scaled_block(X, block, mean, scale) for block in self.blocks_], axis=1)
        means = average.T @ Z
        Z -= means[y]
        self.shrinkage_, axes = shrunk_discriminants(Z, means, max(1, int(np.count_nonzero(scale))))
        intercept = np.log(one_hot.mean(axis=0)) - (axes * means).sum(axis=1) / 2
        if len(means) == 2:  # noqa: PLR2004
            axes, intercept = axes[1:] - axes[:1], intercept[1:] - intercept[:1]
        self.model_ = LinearModel(axes, intercept, mean, scale)


def shrunk_discriminants(residuals: Floats, means: Floats, n_columns: int) -> tuple[float, Floats]:
    """Shrinkage, and the inverse of the shrunk covariance times each class mean.

    Parameters
    ----------
    residuals
        ``(n, d)`` rows less the means of their classes.
    means
        ``(n_classes, d)``.
    n_columns
        Number of columns that vary.

    Returns
    -------
    Shrinkage, and ``(n_classes, d)``.
    """
    rows = len(residuals)
    inside = len(residuals) < residuals.shape[1]
    products = residuals @ residuals.T if inside else residuals.T @ residuals
    lengths = np.einsum("nd,nd->n", residuals, residuals)
    variance = float(lengths.sum()) / rows / n_columns
    if variance <= np.finfo(float).tiny:
        return 1.0, means / float(np.finfo(np.float32).eps)
    # The Frobenius norm of the covariance is that of the Gram matrix, so one formula serves both.
    square = float((products**2).sum()) / rows**2
    spread = square - n_columns * variance**2
    noise = (float((lengths**2).sum()) / rows - square) / rows
    shrinkage = 1.0 if noise >= spread else max(noise / spread, LEAST_SHRINKAGE)
    ridge = shrinkage * variance
    products *= (1 - shrinkage) / rows
    products.flat[:: len(products) + 1] += ridge
    if not inside:
        direct = np.asarray(np.linalg.solve(products, means.T).T, np.float64)
        return shrinkage, direct
    seen = np.linalg.solve(products, residuals @ means.T)
    axes: Floats = (means - (1 - shrinkage) / rows * (seen.T @ residuals)) / ridge
    return shrinkage, axes
