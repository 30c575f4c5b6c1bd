"""Metrics on held-out images, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.bootstrap import group_weights, percentile_interval, widen
from featstore.evaluation.metrics import BOUNDED, score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on held-out images and its 95 % interval (bootstrap over groups); None where undefined."""

    value: float | None
    interval: tuple[float, float] | None


def held_out_scores(
    matrix: FeatureMatrix,
    rows: NDArray[np.intp],
    proba: NDArray[np.float64],
    positive: int | None,
    threshold: float | None = None,
) -> dict[str, Score]:
    """Every metric with its interval over resamples of the held-out groups."""
    weights = np.vstack([np.ones((1, len(rows))), group_weights(matrix.groups[rows])])
    scores = score(matrix.y[rows], proba, weights, positive, threshold)
    return {name: _score(name, values[0], values[1:]) for name, values in scores.items()}


def _score(name: str, value: float, resampled: NDArray[np.float64]) -> Score:
    if not np.isfinite(value):
        return Score(None, None)
    drawn = widen(resampled, value, 1.0).clip(0.0, 1.0 if name in BOUNDED else None)
    return Score(float(value), percentile_interval(drawn))
