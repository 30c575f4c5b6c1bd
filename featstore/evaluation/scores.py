"""Metrics on held-out images, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.bootstrap import group_weights, weight_blocks
from featstore.evaluation.intervals import bases, ranking_bases, score_interval
from featstore.evaluation.metrics import ENOUGH_IMAGES, PRIMARY, decide, primary_score, score

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def held_out_primary(
    matrix: Table, rows: NDArray[np.intp], answers: Mapping[str, NDArray[np.float64]], positive: int | None
) -> dict[str, Score]:
    """`PRIMARY` of each one's answers, as `held_out_scores` gives it, without holding all resamples at once."""
    y, groups = matrix.y[rows], matrix.groups[rows]
    resampled: dict[str, list[NDArray[np.float64]]] = {name: [] for name in answers}
    for weights in weight_blocks(groups):
        for name, proba in answers.items():
            resampled[name].append(primary_score(y, proba, weights, positive))
    scores = {}
    for name, proba in answers.items():
        targets = [positive] if positive is not None else range(proba.shape[1])
        basis = ranking_bases([(y == c, proba[:, c]) for c in targets], groups)[PRIMARY]
        value = float(primary_score(y, proba, np.ones((1, len(rows))), positive)[0])
        scores[name] = _score(PRIMARY, value, np.concatenate(resampled[name]), basis)
    return scores


def _score(name: str, value: float, resampled: NDArray[np.float64], basis: Basis | None) -> Score:
    if not np.isfinite(value):
        return Score(None, None)
    return Score(float(value), score_interval(name, float(value), resampled, basis))
