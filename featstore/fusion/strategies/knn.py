"""Nearest neighbours by cosine on the concatenated vectors: a floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.neighbors import NearestNeighbors

from featstore.errors import UsageError
from featstore.fusion.linear import rescale, standardise
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block


class Knn(FusionStrategy):
    """Floor: the share of each class among the `n_neighbors` most similar training rows.

    Similarity is the cosine on standardised columns and weighed blocks (as in `ConcatLogreg`). Nothing is
    learned: a fusion that does not beat it is not worth its trouble. Views of one image are similar to each
    other, so with v views `n_neighbors` rows are about ``n_neighbors / v`` images. The price is paid later: the
    model keeps the vectors of all training rows, so its bundle is large, and it carries patients' features
    wherever it goes.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    n_neighbors
        Rows to ask, 1 or more; all where there are fewer. An odd number avoids ties of two classes; in a tie
        the first in `classes_` wins.

    Attributes
    ----------
    rows_
        ``(n, d)`` float32 weighed training rows.
    labels_
        ``(n,)`` their class numbers.
    mean_, scale_
        ``(d,)`` what new rows are standardised by.

    References
    ----------
    Cover & Hart 1967, IEEE Trans. Information Theory 13(1); as a measure of frozen features: Wu, Xiong, Yu &
    Lin 2018, CVPR.
    """

    level: ClassVar[str] = "floor"
    price: ClassVar[float] = 0.2
    copies: ClassVar[float] = 3.7
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1
    is_smooth: ClassVar[bool] = False

    def __init__(self, blocks: tuple[Block, ...] | None = None, n_neighbors: int = 15) -> None:
        self.blocks = blocks
        self.n_neighbors = n_neighbors

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        if self.n_neighbors < 1:
            raise UsageError(f"n_neighbors={self.n_neighbors} asks nobody.", "Set n_neighbors=15.")
        self.mean_, self.scale_ = standardise(X, self.blocks_)
        self.rows_, self.labels_ = rescale(X, self.mean_, self.scale_), y

    def _predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        count = min(self.n_neighbors, len(self.rows_))
        index = NearestNeighbors(n_neighbors=count, algorithm="brute", metric="cosine").fit(self.rows_)
        neighbours = index.kneighbors(rescale(X, self.mean_, self.scale_), return_distance=False)
        votes = self.labels_[neighbours][:, :, None] == np.arange(len(self.classes_))
        share: NDArray[np.float64] = votes.mean(axis=1)
        return share
