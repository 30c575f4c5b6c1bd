"""Mean of the backbones' probabilities, weighted by accuracy on held-out groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from featstore.fusion.decision import TrainedDecisionStrategy, balanced_accuracies, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WeightedVote(TrainedDecisionStrategy):
    """Decision-level fusion: a soft vote in which each backbone weighs as much as it proved to know.

    The weight is the logarithm of the odds of being right, against those of chance: ``log(p (k-1) / (1-p))``, with p
    the balanced accuracy on inner folds over groups and k classes. It is the best weight for independent voters, and
    zero for a backbone that is no better than chance. Backbones are not independent, so good ones that
    make the same errors count double; `EnsembleSelection` looks at that. The price is `inner_folds` more fits per
    backbone, and weights that are noisy with few groups.

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

    Attributes
    ----------
    models_
        One `LinearModel` per block.
    weights_
        ``(n_blocks,)``, summing to one; equal where no backbone beats chance.

    References
    ----------
    Log-odds weights: Shapley & Grofman 1984, Public Choice 43; Kuncheva 2004, "Combining pattern classifiers",
    section 4.3. For more than two classes: Zhu, Zou, Rosset & Hastie 2009 (SAMME), Statistics and Its Interface 2.
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 4.5
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 4.0
    min_blocks: ClassVar[int] = 2

    def _fit_combiner(self, logits: NDArray[np.float64], y: NDArray[np.intp]) -> None:
        accuracies = balanced_accuracies(softmax(logits), y)
        self.weights_ = log_odds_weights(accuracies, len(self.classes_), len(y))

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = np.einsum("nbc,b->nc", softmax(logits), self.weights_)
        return mean


def log_odds_weights(accuracies: NDArray[np.float64], n_classes: int, n_rows: int) -> NDArray[np.float64]:
    """Weights ``(n_blocks,)`` from accuracies; a perfect one counts as half an error in `n_rows`."""
    right = np.clip(accuracies, 1 / n_classes, 1 - 0.5 / n_rows)
    gain: NDArray[np.float64] = np.maximum(np.log(right * (n_classes - 1) / (1 - right)), 0.0)
    total = gain.sum()
    return gain / total if total > 0 else np.full(len(gain), 1 / len(gain))
