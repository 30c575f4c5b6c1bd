"""Stacking: a small logistic regression on the backbones' out-of-fold logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featstore.fusion.decision import TrainedDecisionStrategy
from featstore.fusion.linear import LinearModel, fit_logistic, join_models
from featstore.types import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stacking(TrainedDecisionStrategy):
    """Decision-level fusion: a second logistic regression learns how to read the first ones.

    It sees each backbone's logits for groups that the backbone was not fitted to, so it learns whom to trust,
    how much, and whose errors are shared; it also calibrates. The price is `inner_folds` more fits per
    backbone, and a second model that can overfit where groups are few.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, which is then recalibrated.
    C
        As in `ConcatLogreg`, for each backbone.
    inner_folds
        Folds over groups inside the training rows.
    random_state
        Seed of the inner folds.
    stack_C
        The same for the second regression, over the standardised logits of all backbones as one block.

    Attributes
    ----------
    models_
        One `LinearModel` per block.
    stack_
        The `LinearModel` over the logits of all backbones side by side.

    References
    ----------
    Wolpert 1992, "Stacked generalization", Neural Networks 5; on probabilities rather than labels: Ting &
    Witten 1999, JAIR 10.
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 4.6
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 3.5
    min_blocks: ClassVar[int] = 2

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        inner_folds: int = 3,
        random_state: int | np.random.RandomState | None = 0,
        stack_C: float = 5.0,
    ) -> None:
        super().__init__(blocks, C, inner_folds, random_state)
        self.stack_C = stack_C

    def linear_logits(self) -> LinearModel:
        """Its logits are a linear function of the columns: one of logits that are."""
        check_is_fitted(self)
        weights = self.stack_.coef * self.stack_.scale
        mixes = np.split(weights, len(self.models_), axis=1)
        return join_models(self.models_, mixes, self.stack_.intercept - weights @ self.stack_.mean)

    def _fit_combiner(self, logits: NDArray[np.float64], y: NDArray[np.intp]) -> None:
        rows = _flat(logits)
        self.stack_ = fit_logistic(rows, y, (Block("logits", 0, rows.shape[1]),), self.stack_C)

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.stack_.proba(_flat(logits))


def _flat(logits: NDArray[Any]) -> NDArray[Any]:
    return logits.reshape(len(logits), -1)
