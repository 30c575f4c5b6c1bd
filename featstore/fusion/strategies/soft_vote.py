"""Mean of the backbones' probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from featstore.fusion.decision import DecisionStrategy, softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SoftVote(DecisionStrategy):
    """Decision-level fusion: the mean of the backbones' class probabilities.

    Nothing is learned about the backbones, so nothing can be overfitted; a poor one counts as much as a good one.
    Errors that the backbones do not share average out. The price is one logistic regression per backbone.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, whose answer stands.
    C
        As in `ConcatLogreg`, for each backbone.

    Attributes
    ----------
    models_
        One `LinearModel` per block.

    References
    ----------
    The sum rule: Kittler, Hatef, Duin & Matas 1998, "On combining classifiers", IEEE TPAMI 20(3).
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 1.9
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 2.0
    min_blocks: ClassVar[int] = 2

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = softmax(logits).mean(axis=1)
        return mean
