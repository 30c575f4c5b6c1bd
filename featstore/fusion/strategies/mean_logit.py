"""Mean of the backbones' logits, a geometric mean of their odds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featstore.fusion.decision import DecisionStrategy
from featstore.fusion.linear import LinearModel, join_models, probabilities

if TYPE_CHECKING:
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
    price: ClassVar[float] = 1.8
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 2.0
    min_blocks: ClassVar[int] = 2

    def linear_logits(self) -> LinearModel:
        """Its logits are a linear function of the columns: the mean of those of the backbones."""
        check_is_fitted(self)
        n_logits, share = len(self.models_[0].coef), 1 / len(self.models_)
        return join_models(self.models_, [share * np.eye(n_logits)] * len(self.models_), np.zeros(n_logits))

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities(logits.mean(axis=1))
