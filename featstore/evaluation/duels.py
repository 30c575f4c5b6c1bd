"""Everyone against everyone: which differences are real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.bootstrap import LEVEL
from featstore.evaluation.delong import auc_covariance
from featstore.evaluation.intervals import Z, correlation, effective, paired
from featstore.evaluation.metrics import PRIMARY
from featstore.evaluation.significance import (
    bootstrap_p,
    corrected_t_p,
    delong_p,
    groups_needed,
    holm,
    mcnemar_p,
    normal_p,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.standing import Arena, Standing

    Vector = NDArray[np.float64]
    Numbers = NDArray[np.intp]

ALPHA = 0.05
CHUNK = 256
"""Pairs whose resampled differences are held at once."""
FEWEST_RESAMPLES = 20
"""Resamples with every class from which on their spread is believed."""


@dataclass(frozen=True, slots=True)
class Test:
    """A p value as such, and adjusted for the number of pairs (Holm); None where the test is undefined."""

    __test__ = False

    p: float | None
    adjusted: float | None


@dataclass(frozen=True, slots=True)
class Duel:
    """The difference ``a - b`` in the primary metric, on the same images and resamples.

    Attributes
    ----------
    a, b
        Labels; `a` comes later in the line-up, so that a fusion is measured against a single backbone.
    delta, interval
        Difference of the means over folds, and its 95 % interval, for this pair alone, within -1 and 1; None where a
        class has fewer than two patients.
    p
        Of the paired group bootstrap, or of so few patients (`featstore.evaluation.intervals.paired`) where that is
        larger, adjusted for all pairs (Holm). It is below 0.05 for a pair alone where the interval leaves zero out.
    verdict
        ``a_better``, ``b_better`` or ``cannot_tell``: `p` against 0.05.
    needed
        Groups (patients) with which a difference of this size would be told; None beyond 100 times as many.
    tests
        ``bootstrap``, ``delong`` (of the AUCs; two classes, or a positive one), ``mcnemar`` (of the decisions) and
        ``corrected_t`` (over the folds).
    """

    a: str
    b: str
    metric: str
    delta: float
    interval: tuple[float, float] | None
    p: float
    verdict: str
    needed: int | None
    tests: Mapping[str, Test]


def duels(arena: Arena, standings: Sequence[Standing]) -> list[Duel]:
    """Compare all pairs of contestants, in the order of the line-up."""
    a, b = np.tril_indices(len(standings), -1)
    if not len(a):
        return []
    means = np.array([s.primary for s in standings])
    delta = means[a] - means[b]
    intervals, errors, p = _resampled(arena, standings, a, b, delta)
    raw = {
        "bootstrap": p,
        "delong": delong_p(delta, _delong_errors(arena, standings, a, b)),
        "mcnemar": mcnemar_p(*_wins(arena, standings, a, b)),
        "corrected_t": _corrected_t(arena, standings, a, b),
    }
    adjusted = {name: holm(values) for name, values in raw.items()}
    needed = groups_needed(delta, errors, len(np.unique(arena.groups)), ALPHA / len(a))
    labels = [s.contestant.label for s in standings]
    return [
        Duel(
            labels[a[i]],
            labels[b[i]],
            PRIMARY,
            float(delta[i]),
            intervals[i],
            float(adjusted["bootstrap"][i]),
            _verdict(adjusted["bootstrap"][i], delta[i]),
            int(np.ceil(needed[i])) if np.isfinite(needed[i]) else None,
            {name: Test(_known(raw[name][i]), _known(adjusted[name][i])) for name in raw},
        )
        for i in range(len(a))
    ]


def _verdict(p: float, delta: float) -> str:
    return "cannot_tell" if p >= ALPHA else "a_better" if delta > 0 else "b_better"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _chunks(*pairs: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
    for start in range(0, len(pairs[0]), CHUNK):
        yield [part[start : start + CHUNK] for part in pairs]


def _resampled(
    arena: Arena, standings: Sequence[Standing], a: Numbers, b: Numbers, delta: Vector
) -> tuple[list[tuple[float, float] | None], Vector, Vector]:
    """Interval, standard error and p of each difference; a resample that lacks a class lacks it for everyone."""
    known = [(s.least, s.basis) for s in standings if s.least is not None and s.basis is not None]
    resampled = np.array([s.resampled for s in standings])
    usable = resampled[:, np.isfinite(resampled).all(axis=0)]
    if len(known) < len(standings) or usable.shape[1] < FEWEST_RESAMPLES:
        return [None] * len(a), np.full(len(a), np.inf), np.ones(len(a))
    means = np.array([s.primary for s in standings])
    below, above = means - [least[0] for least, _ in known], [least[1] for least, _ in known] - means
    patients = min(effective(basis) for _, basis in known)
    groups = len(np.unique(arena.groups))
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    limits, errors, p = [], [], []
    for one, two, seen in _chunks(a, b, delta):
        plain = usable[one] - usable[two]
        drawn = arena.factor * plain
        centred = drawn - np.median(drawn, axis=1, keepdims=True) + seen[:, None]
        related = correlation(usable[one].var(axis=1), usable[two].var(axis=1), plain.var(axis=1), patients)
        low, high = paired(seen, below[one], above[one], below[two], above[two], related)
        ends = np.percentile(centred, tails, axis=1).clip(-1.0, 1.0)
        limits.append(np.stack([np.minimum(ends[0], low), np.maximum(ends[1], high)], axis=1))
        # As far as the interval reaches towards no difference, in the units of a normal distribution.
        least = np.where(seen > 0, seen - low, high - seen) / Z
        errors.append(np.maximum(centred.std(axis=1, ddof=1), least))
        p.append(np.fmax(bootstrap_p(centred, groups), normal_p(seen, least)))
    intervals = [(float(low), float(high)) for low, high in np.concatenate(limits)]
    return list(intervals), np.concatenate(errors), np.concatenate(p)


def _delong_errors(arena: Arena, standings: Sequence[Standing], a: Numbers, b: Numbers) -> Vector:
    """Standard error of the difference of two mean AUCs over folds, widened like the interval.

    Folds of one repeat share no patient, so their variances add; another repeat sees the same patients again and is
    taken to add no knowledge of them.
    """
    if arena.positive is None:
        return np.full(len(a), np.nan)
    total = np.zeros((len(standings), len(standings)))
    with np.errstate(
        invalid="ignore"
    ):  # a fold with a single ill or well patient has infinite entries of either sign
        for at, (_, test) in enumerate(arena.splits):
            values = np.array([s.proba[at][:, arena.positive] for s in standings])
            total += auc_covariance(arena.y[test] == arena.positive, values, arena.groups[test])[1]
    covariance = arena.factor**2 * arena.repeats / len(arena.splits) ** 2 * total
    own = covariance.diagonal()
    variance = own[a] + own[b] - 2 * covariance[a, b]
    # Equal probabilities leave a rounding error where there is no variance.
    return np.sqrt(np.where(variance > 1e-12 * (own[a] + own[b]), variance, 0.0))


def _wins(
    arena: Arena, standings: Sequence[Standing], a: Numbers, b: Numbers
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Patients of whose images `a`, or `b`, gets more right; with one image per patient, McNemar's two cells."""
    folds = arena.first_repeat
    tests = np.concatenate([arena.splits[at][1] for at in folds])
    names, index = np.unique(arena.groups[tests], return_inverse=True)
    right = np.zeros((len(standings), len(names)))
    for mine, standing in zip(right, standings, strict=True):
        decided = np.concatenate([standing.decisions[at] for at in folds])
        np.add.at(mine, index, decided == arena.y[tests])
    wins = [np.sign(right[one] - right[two]) for one, two in _chunks(a, b)]
    signs = np.concatenate(wins)
    return (signs > 0).sum(axis=1), (signs < 0).sum(axis=1)


def _corrected_t(arena: Arena, standings: Sequence[Standing], a: Numbers, b: Numbers) -> Vector:
    folds = np.array([s.estimates[PRIMARY].folds for s in standings], np.float64)
    share = float(np.mean([len(test) / len(train) for train, test in arena.splits]))
    return corrected_t_p(folds[a] - folds[b], share)
