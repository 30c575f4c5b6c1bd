"""Greedy ensemble selection with replacement, on out-of-fold probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from featstore.errors import UsageError
from featstore.fusion.decision import TrainedDecisionStrategy, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block


# A team and the same team twice have the same loss but for rounding.
ROUNDING = 1e-12


class EnsembleSelection(TrainedDecisionStrategy):
    """Decision-level fusion: a soft vote of a team that is picked one backbone at a time.

    Each round adds the backbone, chosen before or not, with which the mean of the team's out-of-fold
    probabilities has the lowest log-loss; where two are level, the first. The team of the best round stands,
    and a backbone's weight is how often it was picked. So one that only repeats others, or knows nothing, is
    left out. The price is `inner_folds` more fits per backbone; the choice itself costs nothing.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, whose answer stands.
    C
        As in `ConcatLogreg`, for each backbone.
    inner_folds
        Folds over groups inside the training rows.
    random_state
        Seed of the inner folds.
    rounds
        Largest size of the team, 1 or more.

    Attributes
    ----------
    models_
        One `LinearModel` per block.
    weights_
        ``(n_blocks,)``, summing to one.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection from libraries of models", ICML,
    10.1145/1015330.1015432. Its bagging of the library is left out: there are few backbones.
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
        rounds: int = 50,
    ) -> None:
        super().__init__(blocks, C, inner_folds, random_state)
        self.rounds = rounds

    def _fit_combiner(self, logits: NDArray[np.float64], y: NDArray[np.intp]) -> None:
        if self.rounds < 1:
            raise UsageError(f"rounds={self.rounds} picks nobody.", "Set rounds=50.")
        of_truth = softmax(logits)[np.arange(len(y)), :, y]
        ensemble = select_ensemble(of_truth, self.rounds)
        self.weights_ = np.bincount(ensemble, minlength=len(self.blocks_)) / len(ensemble)

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = np.einsum("nbc,b->nc", softmax(logits), self.weights_)
        return mean


def select_ensemble(of_truth: NDArray[np.float64], rounds: int) -> list[int]:
    """Members of the best team as they were picked, from the probabilities ``(n, n_blocks)`` of the true class."""
    ensemble: list[int] = []
    losses: list[float] = []
    total = np.zeros((len(of_truth), 1))
    for size in range(1, rounds + 1):
        mean = np.maximum((total + of_truth) / size, np.finfo(float).tiny)
        loss = -np.log(mean).mean(axis=0)
        ensemble.append(int(loss.argmin()))
        losses.append(float(loss.min()))
        total += of_truth[:, ensemble[-1], None]
    level = np.array(losses) <= min(losses) + ROUNDING
    return ensemble[: int(level.argmax()) + 1]
