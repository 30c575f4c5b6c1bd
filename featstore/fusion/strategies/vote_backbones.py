"""One logistic regression per backbone; the backbones vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from featstore.fusion.decision import DecisionStrategy, softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VoteBackbones(DecisionStrategy):
    """Decision-level fusion: the majority's class, with the majority's probability.

    Each backbone votes for its most probable class. The class with most votes wins; where classes are level, the
    one among them with the highest mean probability over *all* backbones; where those are level too, the first in
    `classes_`. The probability is the mean over the backbones that voted with the majority, renormalised to one;
    those outvoted do not count. `predict` is always the argmax of `predict_proba`. The price of the method:
    probabilities jump where the majority turns, so they rank images less finely than a mean would.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, and a vote of one.
    C
        As in `ConcatLogreg`, for each backbone.

    Attributes
    ----------
    models_
        One `LinearModel` per block.

    References
    ----------
    "Probability of the majority": Ji et al. 2020, medRxiv 10.1101/2020.12.09.20246371. The tie rule is ours.
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 1.7
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 2.0
    min_blocks: ClassVar[int] = 2
    is_smooth: ClassVar[bool] = False

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return majority(softmax(logits))


def majority(block_proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the majority ``(n, n_classes)`` from ``(n, n_voters, n_classes)``, as `VoteBackbones` says."""
    votes = block_proba.argmax(axis=2)
    counts = (votes[:, :, None] == np.arange(block_proba.shape[2])).sum(axis=1)
    leading = counts == counts.max(axis=1, keepdims=True)
    winner = np.where(leading, block_proba.mean(axis=1), -1.0).argmax(axis=1)
    majority = votes == winner[:, None]
    total = (block_proba * majority[:, :, None]).sum(axis=1)
    probability: NDArray[np.float64] = total / total.sum(axis=1, keepdims=True)
    return probability
