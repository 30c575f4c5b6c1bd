"""Sugeno fuzzy integral over the backbones' probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.optimize import brentq

from featstore.errors import UsageError
from featstore.fusion.decision import TrainedDecisionStrategy, balanced_accuracies, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]


class SugenoIntegral(TrainedDecisionStrategy):
    """Decision-level fusion: the strongest support for a class that a sufficiently trusted coalition agrees on.

    Every backbone has a trust g (fuzzy density), its balanced accuracy on inner folds over groups, scaled so
    that all sum to `total`. Sugeno's lambda makes a measure of coalitions out of them. For a class the
    backbones are sorted by probability; the integral is the largest ``min(probability of the i-th, trust of the
    first i)``: a weighted median where `total` is 1, nearer to the most confident backbone where it is larger.
    Integrals are normalised to sum one; they are scores and no calibrated chances, and ties are common because
    trusts take few values. The price is `inner_folds` more fits per backbone.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, whose order of classes stands.
    C
        As in `ConcatLogreg`, for each backbone.
    inner_folds
        Folds over groups inside the training rows.
    random_state
        Seed of the inner folds.
    total
        Sum of the trusts, above 0; no single trust exceeds 1.

    Attributes
    ----------
    models_
        One `LinearModel` per block.
    trusts_
        ``(n_blocks,)`` fuzzy densities.
    interaction_
        Sugeno's lambda, above -1: negative where backbones repeat each other, positive where they add up.

    References
    ----------
    Sugeno 1977, "Fuzzy measures and fuzzy integrals"; densities from accuracies: Cho & Kim 1995, IEEE Trans.
    SMC 25(2); on CNNs for CT: Kundu, Singh, Mirjalili & Sarkar 2021, Computers in Biology and Medicine
    138:104895.
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 4.4
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 3.5
    min_blocks: ClassVar[int] = 2

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        inner_folds: int = 3,
        random_state: int | np.random.RandomState | None = 0,
        total: float = 1.0,
    ) -> None:
        super().__init__(blocks, C, inner_folds, random_state)
        self.total = total

    def _fit_combiner(self, logits: Floats, y: NDArray[np.intp]) -> None:
        if not 0 < self.total < np.inf:
            raise UsageError(f"total={self.total} is no sum of trusts.", "Set total=1.")
        accuracies = np.maximum(balanced_accuracies(softmax(logits), y), 0.5 / len(y))
        self.trusts_ = np.minimum(self.total * accuracies / accuracies.sum(), 1.0)
        self.interaction_ = solve_lambda(self.trusts_)

    def _combine(self, logits: Floats) -> Floats:
        support = integrate(softmax(logits), self.trusts_, self.interaction_)
        support /= support.sum(axis=1, keepdims=True)
        return support


def solve_lambda(trusts: Floats) -> float:
    """Root above -1, and not 0, of ``prod(1 + lambda g) = 1 + lambda``; 0 where the trusts sum to one.

    One trust alone cannot be balanced; it gets 0.
    """
    excess = trusts.sum() - 1
    if len(trusts) == 1 or abs(excess) < 1e-9:  # noqa: PLR2004
        return 0.0
    if trusts.max() >= 1:
        return -1.0

    def gap(value: float) -> float:
        return float(np.log1p(value * trusts).sum() - np.log1p(value))

    if excess > 0:
        return float(brentq(gap, -1 + 1e-12, -1e-9 * excess))
    upper = 1.0
    while gap(upper) < 0:
        upper *= 2
    return float(brentq(gap, 1e-9 * -excess, upper))


def integrate(proba: Floats, trusts: Floats, interaction: float) -> Floats:
    """Sugeno integral ``(n, n_classes)`` of ``(n, n_blocks, n_classes)`` over the blocks."""
    order = np.argsort(-proba, axis=1, kind="stable")
    sorted_trusts = trusts[order]
    coalition = np.zeros_like(proba)
    reached = np.zeros((len(proba), proba.shape[2]))
    for i in range(proba.shape[1]):
        added = sorted_trusts[:, i]
        reached = reached + added + interaction * reached * added
        coalition[:, i] = reached
    agreed: Floats = np.minimum(np.take_along_axis(proba, order, axis=1), coalition).max(axis=1)
    return agreed
