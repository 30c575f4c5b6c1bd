"""Nearest class mean of centred, L2-normalised vectors (SimpleShot): a floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.linear import probabilities, scaled_block, standardise
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]


class Simpleshot(FusionStrategy):
    """Floor for few images: the class whose mean is nearest once every vector has length one.

    The vector of each backbone is centred by the training mean and brought to length one, so that all backbones count
    alike in every image and a bright image is no longer far from all others; then the class means decide by
    Euclidean distance. Columns are standardised first, as everywhere here. Nothing is tuned: a fusion that does not
    beat it, or `NearestCentroid`, has learned nothing worth having. Logits are squared distances in units of the mean
    squared distance of a training row to its own class mean: an order, and no calibrated chance. Classes count
    alike, however frequent. The price is one pass over the rows.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.

    Attributes
    ----------
    prototypes_
        ``(n_classes, d)`` class means of the normalised rows.
    spread_
        Mean squared distance of a training row to its own class mean.
    mean_, scale_
        ``(d,)`` what new rows are standardised by.

    References
    ----------
    Wang, Chao, Weinberger & van der Maaten 2019, "SimpleShot", arXiv 1911.04623, variant CL2N.
    """

    level: ClassVar[str] = "floor"
    price: ClassVar[float] = 0.3
    copies: ClassVar[float] = 2.0
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1
    is_smooth: ClassVar[bool] = False

    def __init__(self, blocks: tuple[Block, ...] | None = None) -> None:
        self.blocks = blocks

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        self.mean_, self.scale_ = standardise(X, self.blocks_)
        labels = range(len(self.classes_))
        self.prototypes_ = np.empty((len(labels), X.shape[1]))
        spread = 0.0
        for block in self.blocks_:
            unit = self._unit(X, block)
            means = np.stack([unit[y == label].mean(axis=0) for label in labels])
            spread += float(((unit - means[y]) ** 2).sum()) / len(X)
            self.prototypes_[:, block.start : block.stop] = means
        self.spread_ = max(spread, float(np.finfo(np.float32).eps))

    def _predict_proba(self, X: NDArray[Any]) -> Floats:
        near = np.zeros((len(X), len(self.classes_)))
        for block in self.blocks_:
            near += 2 * self._unit(X, block) @ self.prototypes_[:, block.start : block.stop].T
        near -= (self.prototypes_**2).sum(axis=1)
        proba: Floats = probabilities(near / self.spread_)
        return proba

    def _unit(self, X: NDArray[Any], block: Block) -> Floats:
        """Columns of one block ``(n, width)``, every row of length one; a row that is the mean stays nought."""
        scaled = scaled_block(X, block, self.mean_, self.scale_)
        length = np.linalg.norm(scaled, axis=1, keepdims=True)
        unit: Floats = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
        return unit
