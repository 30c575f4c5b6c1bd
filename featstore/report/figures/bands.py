"""Curves over all thresholds and how far they would move with other patients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import UsageError
from featstore.evaluation.bootstrap import group_weights
from featstore.evaluation.intervals import effective, ranking_bases, repeats, score_interval, wilson
from featstore.evaluation.ranking import cumulate, rank_scores, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from featstore.evaluation.intervals import Basis

    Vector = NDArray[np.float64]
    Stated = tuple[float, tuple[float, float] | None]

GRID = np.linspace(0.0, 1.0, 201)
RESAMPLES = 500


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One contestant's curve on `GRID`, its band, and the score that sums it up."""

    name: str
    seen: Vector
    band: tuple[Vector, Vector] | None
    score: float
    interval: tuple[float, float] | None


def measured(
    y: ArrayLike,
    scores: Mapping[str, ArrayLike],
    groups: ArrayLike | None,
    positive: int,
    seed: int,
    score: str,
    trace: Callable[[Vector, Vector], Vector],
    most: int,
    stated: Mapping[str, Stated] | None = None,
) -> list[Curve]:
    """Curves of all contestants that have one, best first; only the first `most` are resampled.

    Parameters
    ----------
    y, scores, groups, positive, seed
        As for `featstore.report.figures.roc`.
    score
        Name in `featstore.evaluation.ranking.RANKING` that sums a curve up.
    trace
        `sensitivities` or `precisions`.
    most
        Curves that get a band.
    stated
        By contestant, the score and its interval as a table has them, which then stand at the curve too.

    Raises
    ------
    UsageError
        If the lengths differ.
    """
    truth = np.asarray(y)
    names = np.arange(len(truth)).astype(str) if groups is None else np.asarray(groups).astype(str)
    tasks = {
        who: one_against_rest(truth, np.asarray(values, float), positive) for who, values in scores.items()
    }
    if any(len(names) != len(part) for pairs in tasks.values() for pair in pairs for part in pair):
        raise UsageError("Labels, scores and groups differ in length.", "Give one of each for every image.")
    once = np.ones((1, len(truth)))
    plain = {who: _scored(pairs, once, score, trace) for who, pairs in tasks.items()}
    known = {who: float(values[0]) for who, (_, values) in plain.items() if np.isfinite(values[0])}
    told = {who: (stated or {}).get(who, (value, None)) for who, value in known.items()}
    best = sorted(known, key=lambda who: -told[who][0])
    weights = group_weights(names, RESAMPLES, seed) if best else once
    return [
        _banded(
            Curve(who, plain[who][0][0], None, *told[who]),
            score,
            known[who],
            _scored(tasks[who], weights, score, trace),
            ranking_bases(tasks[who], names),
            stated=who in (stated or {}),
        )
        if rank < most
        else Curve(who, plain[who][0][0], None, told[who][0], None)
        for rank, who in enumerate(best)
    ]


def one_against_rest(truth: Vector, values: Vector, positive: int) -> list[tuple[NDArray[np.bool_], Vector]]:
    """One-against-rest problems whose curves are averaged; a single one for two classes."""
    one = truth == positive
    if values.ndim == 1:
        return [(one, values)]
    if values.shape[1] == 2:  # noqa: PLR2004
        return [(one, values[:, positive])]
    return [(truth == c, values[:, c]) for c in range(values.shape[1])]


def _scored(
    tasks: Sequence[tuple[NDArray[np.bool_], Vector]],
    weights: Vector,
    score: str,
    trace: Callable[[Vector, Vector], Vector],
) -> tuple[Vector, Vector]:
    """Curves ``(resamples, grid)`` and scores ``(resamples,)``, averaged over the tasks; NaN without a class."""
    lines, sums = [], []
    for truth, values in tasks:
        if len(truth):
            _, hits, alarms = cumulate(truth, values, weights)
            lines.append(trace(hits, alarms))
            sums.append(rank_scores(truth, values, weights)[score])
    if not lines:
        return np.full((len(weights), len(GRID)), np.nan), np.full(len(weights), np.nan)
    return np.mean(lines, axis=0), np.mean(sums, axis=0)


def _banded(
    curve: Curve,
    score: str,
    value: float,
    drawn: tuple[Vector, Vector],
    known: Mapping[str, Basis | None],
    *,
    stated: bool,
) -> Curve:
    """Add the band, nowhere narrower than so many patients allow, and the interval where no table has one."""
    basis = known[score]
    if basis is None:
        return curve
    lines, values = drawn
    whole = lines[np.isfinite(values)]
    low, high = np.percentile(whole, [2.5, 97.5], axis=0) if len(whole) else (curve.seen, curve.seen)
    least = wilson(curve.seen, effective(basis) * repeats(value, values, basis))
    band = np.minimum(low, least[0]), np.maximum(high, least[1])
    if score == "auc":
        band[0][-1] = 1.0  # whoever calls everyone positive finds all
    interval = curve.interval if stated else score_interval(score, value, values, basis)
    return replace(curve, band=band, interval=interval)


def sensitivities(hits: Vector, alarms: Vector) -> Vector:
    """Sensitivity at each share of false alarms of `GRID`, straight between two thresholds; ``(resamples, grid)``."""
    start = np.zeros((len(hits), 1))
    found = np.hstack([start, ratio(hits, hits[:, -1:])])
    false = np.hstack([start, ratio(alarms, alarms[:, -1:])])
    return np.array([np.interp(GRID, x, line) for x, line in zip(false, found, strict=True)])


def precisions(hits: Vector, alarms: Vector) -> Vector:
    """Precision of the highest threshold that reaches each recall of `GRID`; ``(resamples, grid)``."""
    found = ratio(hits, hits[:, -1:])
    precise = ratio(hits, hits + alarms)
    first = [np.searchsorted(line, np.maximum(GRID, 1e-9) - 1e-9) for line in found]
    return np.array([line[at.clip(max=len(line) - 1)] for line, at in zip(precise, first, strict=True)])
