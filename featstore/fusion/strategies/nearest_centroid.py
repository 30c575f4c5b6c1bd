"""Distance to the class means on the concatenated vectors: a floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.linear import LinearModel, LinearStrategy, scaled_block, standardise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block


class NearestCentroid(LinearStrategy):
    """Floor: the class whose mean is nearest, by Euclidean distance on standardised columns and weighed blocks.

    Nothing is tuned and hardly anything can be overfitted, so a fusion that does not beat it has learned
    nothing worth having. Columns and blocks are weighed as in `ConcatLogreg`. The logits are squared distances
    in units of the mean squared distance of a training row to its own class mean: an order, and no calibrated
    chance. Classes count alike, however frequent. The price is one pass over the rows.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.

    Attributes
    ----------
    model_
        The distances as a `LinearModel` over all columns.

    References
    ----------
    Rocchio 1971; Tibshirani, Hastie, Narasimhan & Chu 2002, PNAS 99(10), without shrinkage.
    """

    level: ClassVar[str] = "floor"
    price: ClassVar[float] = 0.2
    copies: ClassVar[float] = 1.6
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1

    def __init__(self, blocks: tuple[Block, ...] | None = None) -> None:
        self.blocks = blocks

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        mean, scale = standardise(X, self.blocks_)
        labels = range(len(self.classes_))
        centroids = np.empty((len(labels), X.shape[1]))
        spread = 0.0
        for block in self.blocks_:
            scaled = scaled_block(X, block, mean, scale)
            part = np.stack([scaled[y == label].mean(axis=0) for label in labels])
            spread += float(((scaled - part[y]) ** 2).sum()) / len(X)
            centroids[:, block.start : block.stop] = part
        unit = max(spread, float(np.finfo(np.float32).eps))
        coef, intercept = 2 * centroids / unit, -(centroids**2).sum(axis=1) / unit
        if len(labels) == 2:  # noqa: PLR2004
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.model_ = LinearModel(coef, intercept, mean, scale)
