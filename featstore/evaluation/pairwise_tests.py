"""Pairwise tests: which differences between candidates are real.

The verdict rests on the first test (by resamples); the others are given beside it, because readers and reviewers ask
for them.

The covariance of the AUCs of many candidates on the same images is computed without resampling. One image per
patient: DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988. Several: Obuchowski, Biometrics 53, 1997, which sums
the same components over each patient first, so that images of a patient may depend on each other; with one image per
patient its formula *is* DeLong's, so there is one function for both. Components by mid-ranks, which is what makes it
quick: Sun & Xu, IEEE Signal Processing Letters 21, 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featstore.evaluation.intervals import LEVEL, Z, correlation, effective_patients, paired
from featstore.evaluation.metrics import PRIMARY
from featstore.results.comparison import PairwiseDifference, TestResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import CandidateScores, EvaluationDesign

    Vector = NDArray[np.float64]
    Numbers = NDArray[np.intp]

# All pairs of candidates

ALPHA = 0.05
CHUNK = 256
"""Pairs whose resampled differences are held at once."""
FEWEST_RESAMPLES = 20
"""Resamples with every class from which on their spread is believed."""


def pairwise_tests(
    design: EvaluationDesign, scored_candidates: Sequence[CandidateScores]
) -> list[PairwiseDifference]:
    """Compare all pairs of candidates, in the order of the candidates."""
    a, b = np.tril_indices(len(scored_candidates), -1)
    if not len(a):
        return []
    means = np.array([s.primary for s in scored_candidates])
    delta = means[a] - means[b]
    intervals, errors, p = _resampled(design, scored_candidates, a, b, delta)
    raw = {
        "bootstrap": p,
        "delong": delong_p(delta, _delong_errors(design, scored_candidates, a, b)),
        "mcnemar": mcnemar_p(*_discordant_counts(design, scored_candidates, a, b)),
        "corrected_t": _corrected_t(design, scored_candidates, a, b),
    }
    adjusted = {name: holm(values) for name, values in raw.items()}
    needed = groups_needed(delta, errors, len(np.unique(design.groups)), ALPHA / len(a))
    labels = [s.candidate.label for s in scored_candidates]
    return [
        PairwiseDifference(
            a=labels[a[i]],
            b=labels[b[i]],
            metric=PRIMARY,
            delta=float(delta[i]),
            interval=intervals[i],
            p=float(adjusted["bootstrap"][i]),
            verdict=_verdict(adjusted["bootstrap"][i], delta[i]),
            needed=int(np.ceil(needed[i])) if np.isfinite(needed[i]) else None,
            tests={
                name: TestResult(p=_known(raw[name][i]), adjusted=_known(adjusted[name][i])) for name in raw
            },
        )
        for i in range(len(a))
    ]


def _verdict(p: float, delta: float) -> Literal["a_better", "b_better", "cannot_tell"]:
    return "cannot_tell" if p >= ALPHA else "a_better" if delta > 0 else "b_better"


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _chunks(*pairs: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
    for start in range(0, len(pairs[0]), CHUNK):
        yield [part[start : start + CHUNK] for part in pairs]


def _resampled(
    design: EvaluationDesign,
    scored_candidates: Sequence[CandidateScores],
    a: Numbers,
    b: Numbers,
    delta: Vector,
) -> tuple[list[tuple[float, float] | None], Vector, Vector]:
    """Interval, standard error and p of each difference; a resample that lacks a class lacks it for everyone."""
    known = [
        (s.minimal_interval, s.sample_size)
        for s in scored_candidates
        if s.minimal_interval is not None and s.sample_size is not None
    ]
    resampled = np.array([s.resampled for s in scored_candidates])
    usable = resampled[:, np.isfinite(resampled).all(axis=0)]
    if len(known) < len(scored_candidates) or usable.shape[1] < FEWEST_RESAMPLES:
        return [None] * len(a), np.full(len(a), np.inf), np.ones(len(a))
    means = np.array([s.primary for s in scored_candidates])
    below, above = means - [least[0] for least, _ in known], [least[1] for least, _ in known] - means
    patients = min(effective_patients(sample_size) for _, sample_size in known)
    groups = len(np.unique(design.groups))
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    limits, errors, p = [], [], []
    for one, two, seen in _chunks(a, b, delta):
        plain = usable[one] - usable[two]
        drawn = design.overlap_factor * plain
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


def _delong_errors(
    design: EvaluationDesign, scored_candidates: Sequence[CandidateScores], a: Numbers, b: Numbers
) -> Vector:
    """Standard error of the difference of two mean AUCs over folds, widened like the interval.

    Folds of one repeat share no patient, so their variances add; another repeat sees the same patients again and is
    taken to add no knowledge of them.
    """
    if design.positive is None:
        return np.full(len(a), np.nan)
    total = np.zeros((len(scored_candidates), len(scored_candidates)))
    with np.errstate(
        invalid="ignore"
    ):  # a fold with a single ill or well patient has infinite entries of either sign
        for at, (_, test) in enumerate(design.splits):
            values = np.array([s.proba[at][:, design.positive] for s in scored_candidates])
            total += auc_covariance(design.y[test] == design.positive, values, design.groups[test])[1]
    covariance = design.overlap_factor**2 * design.repeats / len(design.splits) ** 2 * total
    own = covariance.diagonal()
    variance = own[a] + own[b] - 2 * covariance[a, b]
    # Equal probabilities leave a rounding error where there is no variance.
    return np.sqrt(np.where(variance > 1e-12 * (own[a] + own[b]), variance, 0.0))


def _discordant_counts(
    design: EvaluationDesign, scored_candidates: Sequence[CandidateScores], a: Numbers, b: Numbers
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Patients of whose images `a`, or `b`, gets more right; with one image per patient, McNemar's two cells."""
    folds = design.first_repeat
    tests = np.concatenate([design.splits[at][1] for at in folds])
    names, index = np.unique(design.groups[tests], return_inverse=True)
    right = np.zeros((len(scored_candidates), len(names)))
    for mine, scored in zip(right, scored_candidates, strict=True):
        decided = np.concatenate([scored.decisions[at] for at in folds])
        np.add.at(mine, index, decided == design.y[tests])
    wins = [np.sign(right[one] - right[two]) for one, two in _chunks(a, b)]
    signs = np.concatenate(wins)
    return (signs > 0).sum(axis=1), (signs < 0).sum(axis=1)


def _corrected_t(
    design: EvaluationDesign, scored_candidates: Sequence[CandidateScores], a: Numbers, b: Numbers
) -> Vector:
    folds = np.array([s.estimates[PRIMARY].folds for s in scored_candidates], np.float64)
    share = float(np.mean([len(test) / len(train) for train, test in design.splits]))
    return corrected_t_p(folds[a] - folds[b], share)


# Tests of "no difference" between two candidates, for all pairs at once

POWER = 0.8
FEW = 10
"""Resamples beyond zero that are too few to count."""
ROUNDING = 1e-9
"""Standard error, in parts of a difference, that is nothing but rounding."""
MOST = 100
"""A study more than this many times as large is not worth a number."""


def bootstrap_p(differences: Vector, groups: int) -> Vector:
    """Test differences by their resamples.

    Twice the share of resamples beyond zero, ties split, one added (Davison & Hinkley 1997, section 4.4), so that p
    is below 0.05 where the interval leaves zero out. Counting cannot go below 2 / (resamples + 1), which Holm over
    thousands of pairs turns into 1: where fewer than ten resamples lie beyond zero, the tail is that of the t
    distribution with ``groups - 1`` degrees of freedom and the bootstrap standard error (Efron & Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 12), if that is smaller.

    Parameters
    ----------
    differences
        ``(pairs, resamples)``, with the difference that was seen in the middle.
    groups
        Number of patients.
    """
    from scipy.stats import t

    resamples = differences.shape[1]
    below = (differences < 0).sum(axis=1) + (differences == 0).sum(axis=1) / 2
    beyond = np.minimum(below, resamples - below)
    counted = np.minimum(1.0, 2 * (beyond + 1) / (resamples + 1))
    middle, errors = np.median(differences, axis=1), differences.std(axis=1, ddof=1)
    smooth = _two_sided(middle, errors, lambda z: t.sf(z, max(1, groups - 1)))
    p: Vector = np.where(beyond < FEW, np.fmin(counted, smooth), counted)
    return p


def normal_p(delta: Vector, errors: Vector) -> Vector:
    """Test differences by their standard errors and the normal curve."""
    from scipy.stats import norm

    return _two_sided(delta, errors, norm.sf)


def delong_p(delta: Vector, errors: Vector) -> Vector:
    """Test differences of two AUCs by their standard error (`auc_covariance`) and the normal curve."""
    return normal_p(delta, errors)


def corrected_t_p(folds: Vector, share: float) -> Vector:
    """Corrected resampled t test over the folds of a (repeated) cross-validation.

    Parameters
    ----------
    folds
        ``(pairs, J)`` differences of the metric in each fold; with one fold there is no test.
    share
        ``n_test / n_train``.

    References
    ----------
    Nadeau & Bengio, Inference for the generalization error, Machine Learning 52, 2003.
    """
    from scipy.stats import t

    count = folds.shape[1]
    if count < 2:  # noqa: PLR2004
        return np.full(len(folds), np.nan)
    errors = np.sqrt((1 / count + share) * folds.var(axis=1, ddof=1))
    return _two_sided(folds.mean(axis=1), errors, lambda z: t.sf(z, count - 1))


def mcnemar_p(wins: NDArray[np.intp], losses: NDArray[np.intp]) -> Vector:
    """Exact McNemar test, which is a sign test on the units where two candidates differ.

    Parameters
    ----------
    wins, losses
        ``(pairs,)`` units that only the first, or only the second, got right.
    """
    from scipy.stats import binom

    p: Vector = np.minimum(1.0, 2 * binom.cdf(np.minimum(wins, losses), wins + losses, 0.5))
    return p


def holm(p_values: Vector) -> Vector:
    """Adjust p values for their number (Holm 1979, step-down); a test without a p value (NaN) does not count."""
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def groups_needed(delta: Vector, errors: Vector, groups: int, level: float) -> Vector:
    """Patients for which a difference of this size would be found in 80 of 100 studies.

    The variance of a difference shrinks with the number of patients, so ``m = n ((z_(1 - level / 2) + z_0.8) error /
    delta)^2``: the textbook sample size with the variance that the bootstrap saw.

    Parameters
    ----------
    delta, errors
        ``(pairs,)`` differences seen, and their standard errors.
    groups
        Number of patients n.
    level
        Two-sided level that a pair must pass: 0.05 over the number of pairs (the first step of Holm).

    Returns
    -------
    ``(pairs,)``; infinite beyond 100 times as many.
    """
    from scipy.stats import norm

    quantiles = norm.isf(level / 2) + norm.isf(1 - POWER)
    times = (
        np.divide(quantiles * errors, np.abs(delta), out=np.full(delta.shape, np.inf), where=delta != 0) ** 2
    )
    needed: Vector = np.where(times > MOST, np.inf, groups * times)
    return needed


def _two_sided(delta: Vector, errors: Vector, tail: Callable[[Vector], Vector]) -> Vector:
    """Twice the upper tail; 1 where nothing differs, NaN where a difference came without any spread."""
    spread = errors > ROUNDING * np.abs(delta)
    z = np.divide(np.abs(delta), errors, out=np.zeros(delta.shape), where=spread)
    p: Vector = np.where(spread, 2 * tail(z), np.where(delta == 0, 1.0, np.nan))
    return p


# Covariance of AUCs


def auc_covariance(
    truth: NDArray[np.bool_], values: Vector, groups: NDArray[np.str_]
) -> tuple[Vector, Vector]:
    """AUC of each candidate, and the covariance of these AUCs over samples of patients.

    Parameters
    ----------
    truth
        ``(n,)`` whether an image is positive.
    values
        ``(candidates, n)`` score that should be higher for positives.
    groups
        ``(n,)`` patient of each image.

    Returns
    -------
    AUCs ``(candidates,)`` and covariances ``(candidates, candidates)``; not finite where there are fewer than
    two patients with positive, or with negative, images.
    """
    above, below = _placements(truth, values)
    areas = above.mean(axis=1)
    of_ill, n_ill = _sum_by_group(above - areas[:, None], groups[truth])
    of_well, n_well = _sum_by_group(below - areas[:, None], groups[~truth])
    pos, neg = truth.sum(), (~truth).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.float64(n_ill) / (n_ill - 1) / pos**2 * (of_ill @ of_ill.T)
        within = within + np.float64(n_well) / (n_well - 1) / neg**2 * (of_well @ of_well.T)
    return areas, within + _mixed(above, below, areas, truth, groups)


def _placements(truth: NDArray[np.bool_], values: Vector) -> tuple[Vector, Vector]:
    """Share of negatives that each positive beats, and of positives that beat each negative; ties count one half."""
    from scipy.stats import rankdata

    together = rankdata(values, axis=1)
    pos, neg = values[:, truth], values[:, ~truth]
    above = (together[:, truth] - rankdata(pos, axis=1)) / neg.shape[1]
    below = 1 - (together[:, ~truth] - rankdata(neg, axis=1)) / pos.shape[1]
    return above, below


def _sum_by_group(parts: Vector, groups: NDArray[np.str_]) -> tuple[Vector, int]:
    names, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), len(parts)))
    np.add.at(sums, index, parts.T)
    return sums.T, len(names)


def _mixed(
    above: Vector, below: Vector, areas: Vector, truth: NDArray[np.bool_], groups: NDArray[np.str_]
) -> Vector:
    """Obuchowski's S11: patients with positive and negative images both tie the two halves together."""
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2 or not np.intersect1d(groups[truth], groups[~truth]).size:  # noqa: PLR2004
        return np.zeros((len(areas), len(areas)))
    of_ill, of_well = np.zeros((2, len(names), len(areas)))
    np.add.at(of_ill, index[truth], (above - areas[:, None]).T)
    np.add.at(of_well, index[~truth], (below - areas[:, None]).T)
    cross = of_ill.T @ of_well
    scale = len(names) / (len(names) - 1) / (truth.sum() * (~truth).sum())
    mixed: Vector = scale * (cross + cross.T)
    return mixed
