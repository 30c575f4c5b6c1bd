"""Mean of the backbones' logits, a geometric mean of their odds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from featstore.fusion.decision import DecisionStrategy
from featstore.fusion.linear import probabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MeanLogit(DecisionStrategy):
    """Decision-level fusion: average the logits, then turn them into probabilities.

    The logarithmic opinion pool: the normalised geometric mean of the probabilities. A backbone that is sure weighs
    more than in `SoftVote`, for better or worse: one that is sure and wrong can carry the day. The price is one
    logistic regression per backbone.

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
    Genest & Zidek 1986, "Combining probability distributions", Statistical Science 1(1); as a rule for classifiers
    (product rule): Kittler et al. 1998, IEEE TPAMI 20(3).
    """

    level: ClassVar[str] = "decision"
    min_blocks: ClassVar[int] = 2

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities(logits.mean(axis=1))
