"""A fusion strategy of your own, in a file of your own, against those of featstore.

The median of the networks' logits: one network that is sure and wrong cannot carry the day. It meets the mean
on the same folds, with a test of the difference. The networks are EfficientNet-Lite 0, 1 and 2 with the
ImageNet weights that come with featstore, the images generated slices of 24 patients; nothing is fetched.

    python examples/own_strategy.py
    featstore --plugin examples/own_strategy.py compare DATA --strategies mean_logit,median_logit
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

import featstore
from featstore.fusion.decision import DecisionStrategy
from featstore.fusion.linear import probabilities
from featstore.registry import add_plugin


class MedianLogit(DecisionStrategy):
    """Decision-level fusion: the median of the networks' logits, class by class.

    References
    ----------
    The median rule: Kittler, Hatef, Duin & Matas 1998, IEEE TPAMI 20(3), taken on logits.
    """

    min_blocks: ClassVar[int] = 3

    def _combine(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return probabilities(np.median(logits, axis=1))


STRATEGIES = (MedianLogit,)

if __name__ == "__main__":
    add_plugin(__file__)
    data = featstore.make_phantoms("runs/phantoms", patients=24)
    for part in featstore.extract(data).keys:
        print(f"{part.backbone} with the weights {part.weights[:19]}: {part.stored_now} vectors")
    comparison = featstore.compare(data, strategies=["mean_logit", "median_logit"])
    for scored in comparison.candidates:
        print(f"{scored.candidate.label:20} AUC {scored.estimates['auc'].mean:.3f}")
    for pair in comparison.pairs:
        if (pair.a, pair.b) == ("median_logit", "mean_logit"):
            print(f"median - mean: {pair.delta:+.3f}, p = {pair.p:.3f}: {pair.verdict}")
