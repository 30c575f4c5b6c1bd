"""How many views pay: the score of one contestant against the number of augmented views that it trains on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from featstore.evaluation.metrics import PRIMARY
from featstore.evaluation.standing import standings

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from featstore.evaluation.contestants import Contestant
    from featstore.evaluation.standing import Arena
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ViewPoint:
    """Primary metric, mean over folds and 95 % interval, with `views` augmented views beside the identity."""

    contestant: str
    metric: str
    views: int
    mean: float | None
    interval: tuple[float, float] | None


def view_curve(
    matrix: FeatureMatrix,
    arena: Arena,
    contestant: Contestant,
    play: Callable[[FeatureMatrix, Contestant], list[Vector]],
    weights: Vector,
) -> tuple[ViewPoint, ...]:
    """Play one contestant with no augmented view, then one, up to all of them, in the order of the view axis.

    Parameters
    ----------
    matrix, arena, weights
        As of the comparison.
    contestant
        Who plays; every view is a row in training.
    play
        Probabilities of the test images in each fold.
    """
    points = []
    for count in range(len(matrix.views)):
        kept = slice(count + 1)
        part = replace(matrix, views=matrix.views[kept], features=matrix.features[kept])
        (standing,) = standings(arena, [contestant], [play(part, contestant)], weights)
        estimate = standing.estimates[PRIMARY]
        points.append(ViewPoint(contestant.label, PRIMARY, count, estimate.mean, estimate.interval))
    return tuple(points)
