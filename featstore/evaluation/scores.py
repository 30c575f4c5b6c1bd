"""Metrics on held-out images, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.bootstrap import group_weights
from featstore.evaluation.intervals import bases, score_interval
from featstore.evaluation.metrics import ENOUGH_IMAGES, decide, score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.evaluation.intervals import Basis
    from featstore.folds import Table


@dataclass(frozen=True, slots=True)
class Score:
    """A metric on held-out images and its 95 % interval (`featstore.evaluation.intervals`); None where undefined."""

    value: float | None
    interval: tuple[float, float] | None


def held_out_scores(
    matrix: Table,
    rows: NDArray[np.intp],
    proba: NDArray[np.float64],
    positive: int | None,
    threshold: float | None = None,
) -> dict[str, Score]:
    """Every metric with its interval over resamples of the held-out groups; no ECE of too few images."""
    y, groups = matrix.y[rows], matrix.groups[rows]
    weights = np.vstack([np.ones((1, len(rows))), group_weights(groups)])
    scores = score(y, proba, weights, positive, threshold)
    if len(rows) < ENOUGH_IMAGES:
        scores["ece"] = np.full(len(weights), np.nan)
    known = bases(y, proba, decide(proba, positive, threshold), groups, positive)
    return {name: _score(name, values[0], values[1:], known[name]) for name, values in scores.items()}


def _score(name: str, value: float, resampled: NDArray[np.float64], basis: Basis | None) -> Score:
    if not np.isfinite(value):
        return Score(None, None)
    return Score(float(value), score_interval(name, float(value), resampled, basis))
