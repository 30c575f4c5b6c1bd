"""Fuzzy ranks by the Gompertz function, summed over the backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from featstore.errors import UsageError
from featstore.fusion.decision import DecisionStrategy, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block


class GompertzRank(DecisionStrategy):
    """Decision-level fusion: each probability p becomes a fuzzy rank ``1 - exp(-exp(-2 p))``, low is good.

    In each backbone's answer the classes below the `top` most probable count as p = 0 (rank 0.632). A class's
    final score is the sum of its ranks times ``1 - mean p``; the smallest wins. The paper stops there. Here the
    distance of each score from the worst possible one, normalised to sum one, stands for a probability: the
    same order, but a score and no calibrated chance. With two classes the winner is nearly always that of
    `SoftVote`. The price is one logistic regression per backbone.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, whose order of classes stands.
    C
        As in `ConcatLogreg`, for each backbone.
    top
        Number of classes that keep their rank, 1 or more; 2 in the paper.

    Attributes
    ----------
    models_
        One `LinearModel` per block.

    References
    ----------
    Kundu, Basak, Singh, Ahmadian, Ferrara & Sarkar 2021, "Fuzzy rank-based fusion of CNN models using Gompertz
    function for screening COVID-19 CT-scans", Scientific Reports 11:14133.
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 1.9
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 2.0
    min_blocks: ClassVar[int] = 2
    is_smooth: ClassVar[bool] = False

    def __init__(self, blocks: tuple[Block, ...] | None = None, C: float = 5.0, top: int = 2) -> None:
        super().__init__(blocks, C)
        self.top = top

    def _fit(self, X: NDArray[np.float64], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        if self.top < 1:
            raise UsageError(f"top={self.top} leaves no class.", "Set top=2, as in the paper.")
        super()._fit(X, y, groups)

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        score = fuzzy_score(softmax(logits), self.top)
        worst = fuzzy_score(np.zeros((1, *logits.shape[1:2], 1)), 1)
        credit: NDArray[np.float64] = worst - score
        credit /= credit.sum(axis=1, keepdims=True)
        return credit


def fuzzy_score(confidence: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """Final score ``(n, n_classes)`` of ``(n, n_blocks, n_classes)`` confidences; the smallest is the best."""
    n_out = max(confidence.shape[2] - top, 0)
    cut = np.sort(confidence, axis=2)[:, :, n_out, None]
    kept = np.where(confidence >= cut, confidence, 0.0)
    ranks = 1 - np.exp(-np.exp(-2 * kept))
    score: NDArray[np.float64] = ranks.sum(axis=1) * (1 - kept.mean(axis=1))
    return score
