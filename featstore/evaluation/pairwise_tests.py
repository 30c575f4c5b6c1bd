"""Pairwise tests: which differences between candidates are real.

A difference of two AUCs is tested by its clustered standard error: every patient contributes to the AUC of every
candidate (the components of DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988, summed over the images of a patient
as by Obuchowski, Biometrics 53, 1997), so that no resample is needed and no seed decides. Where two classes have no
positive one, or there are more than two, a patient's contributions to the AUC of each class are averaged.

Many pairs are tested together by step-down max-T (Westfall & Young, Resampling-Based Multiple Testing, 1993) over the
joint t distribution of their statistics (Hothorn, Bretz & Westfall, Biometrical Journal 50, 2008), which knows how
alike the candidates are; a correction for their mere number (Holm) does not. Other tests are given beside it, because
readers and reviewers ask for them.

Components by mid-ranks, which is what makes them quick: Sun & Xu, IEEE Signal Processing Letters 21, 2014.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featstore.evaluation.intervals import (
    LEVEL,
    Z,
    correlation,
    effective_patients,
    minimal_interval,
    paired,
)
from featstore.evaluation.metrics import PRIMARY
from featstore.results.comparison import PairwiseDifference, TestResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import CandidateScores, EvaluationDesign

    Vector = NDArray[np.float64]
    Numbers = NDArray[np.intp]

ALPHA = 0.05
CHUNK = 256
"""Pairs that are resampled at once."""
FEWEST_RESAMPLES = 20
"""Resamples with every class from which on their spread is believed."""

# Differences, and what they are tested by


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Differences of pairs in the primary metric, with their intervals.

    Attributes
    ----------
    first, second
        ``(pairs,)`` positions of the candidates of each pair.
    delta
        ``(pairs,)`` difference ``first - second`` of the means over the folds.
    below, above
        ``(pairs,)`` how far the 95 % interval of each pair alone reaches to either side; infinite where a class has
        fewer than two patients.
    p
        ``(pairs,)`` two-sided, of each pair alone: below 0.05 where its interval leaves zero out.
    contributions
        ``(candidates, patients)`` of `patient_contributions`.
    degrees
        Degrees of freedom of the t distribution.
    """

    first: Numbers
    second: Numbers
    delta: Vector
    below: Vector
    above: Vector
    p: Vector
    contributions: Vector
    degrees: int

    def intervals(self, quantile: float | None = None) -> list[tuple[float, float] | None]:
        """95 % intervals within -1 and 1, of each pair alone or, by the `quantile` of `max_t`, of all together."""
        times = 1.0 if quantile is None else max(1.0, quantile / t_quantile(self.degrees))
        return [
            (max(-1.0, float(d - times * down)), min(1.0, float(d + times * up)))
            if np.isfinite(down + up)
            else None
            for d, down, up in zip(self.delta, self.below, self.above, strict=True)
        ]


def differences(
    design: EvaluationDesign, scored: Sequence[CandidateScores], first: Numbers, second: Numbers
) -> Differences:
    """Test pairs of candidates, each by itself.

    The interval is that of the t distribution with the clustered standard error, widened for the overlap of the
    training sets (`featstore.evaluation.intervals.overlap_factor`), and never narrower than so few patients allow
    (`featstore.evaluation.intervals.paired`).

    Parameters
    ----------
    design, scored
        As of `featstore.evaluation.estimates.score_candidates`.
    first, second
        ``(pairs,)`` positions of the candidates.
    """
    from scipy.stats import t

    means = np.array([s.primary for s in scored])
    delta = means[first] - means[second]
    degrees = _degrees(design)
    sizes = [s.sample_size for s in scored if s.minimal_interval is not None and s.sample_size is not None]
    if len(sizes) < len(scored):
        nothing = np.zeros((len(scored), len(np.unique(design.groups))))
        none, one = np.full(len(first), np.inf), np.ones(len(first))
        return Differences(first, second, delta, none, none, one, nothing, degrees)
    contributions = patient_contributions(design, scored)
    plain = pair_variances(contributions, first, second)
    errors = design.overlap_factor * np.sqrt(plain)
    own = (contributions**2).sum(axis=1)
    related = correlation(own[first], own[second], plain, min(map(effective_patients, sizes)))
    # By the variance that the patients' contributions have: no seed of any resample moves a verdict.
    least = np.array(
        [
            minimal_interval(float(mean), float(variance), size) or (np.nan, np.nan)
            for mean, variance, size in zip(means, own, sizes, strict=True)
        ]
    )
    down, up = means - least[:, 0], least[:, 1] - means
    low, high = paired(delta, down[first], up[first], down[second], up[second], related)
    # A difference is as uncertain to either side as so few patients leave it, in standard errors.
    below, above = np.maximum(errors, (delta - low) / Z), np.maximum(errors, (high - delta) / Z)
    p = np.nan_to_num(
        _two_sided(delta, np.where(delta > 0, below, above), lambda z: t.sf(z, degrees)), nan=1.0
    )
    quantile = t_quantile(degrees)
    below, above = quantile * below, quantile * above
    return Differences(first, second, delta, below, above, p, contributions, degrees)


def patient_contributions(design: EvaluationDesign, scored: Sequence[CandidateScores]) -> Vector:
    """How much each patient moves the primary metric of each candidate: ``(candidates, patients)``.

    The sum of the squares of a row is the variance of the mean AUC over the folds, that of the products of two rows
    the covariance (as of DeLong, and of Obuchowski where a patient has several images). All repeats of a
    cross-validation see the same patients, so their contributions are averaged before they are squared.
    """
    names, index = np.unique(design.groups, return_inverse=True)
    targets = [design.positive] if design.positive is not None else range(int(design.y.max()) + 1)
    total = np.zeros((len(scored), len(names)))
    ranked = design.ranked_folds
    for target in targets:
        truth = design.y == target
        both = [
            (at, test)
            for at, (_, test) in enumerate(design.splits)
            if at in ranked and truth[test].any() and not truth[test].all()
        ]
        halves = [
            _placements(truth[test], np.array([s.proba[at][:, target] for s in scored])) for at, test in both
        ]
        for side, wanted in enumerate((truth, ~truth)):
            who = [index[test[wanted[test]]] for _, test in both]
            _add_contributions(total, [half[side] for half in halves], who, len(ranked))
    return total / len(targets)


def _add_contributions(total: Vector, parts: Sequence[Vector], who: Sequence[Numbers], folds: int) -> None:
    """Add the components of one side ``(candidates, images)`` of each fold, of these patients.

    They are centred in each fold. Where a fold has a single patient, that would leave nothing: then around the mean
    of all folds, which takes what differs between folds for differences between patients.
    """
    counts = [len(np.unique(patients)) for patients in who]
    pooled = min(counts, default=0) < 2  # noqa: PLR2004
    everyone = len(np.unique(np.concatenate(who))) if who else 0
    middle = np.mean([part.mean(axis=1) for part in parts], axis=0) if parts else None
    for part, patients, count in zip(parts, who, counts, strict=True):
        centre = middle if pooled and middle is not None else part.mean(axis=1)
        many = everyone if pooled else count
        scale = np.sqrt(many / max(1, many - 1)) / len(patients) / folds
        np.add.at(total.T, patients, scale * (part - centre[:, None]).T)


def pair_variances(contributions: Vector, first: Numbers, second: Numbers) -> Vector:
    """Variance of the difference of each pair, not widened for overlapping training sets."""
    plain = [((contributions[a] - contributions[b]) ** 2).sum(axis=1) for a, b in _chunks(first, second)]
    variance: Vector = np.concatenate(plain)
    return variance


def t_quantile(degrees: int) -> float:
    """Quantile of the t distribution for an interval of 95 %."""
    from scipy.stats import t

    return float(t.isf((1 - LEVEL) / 2, degrees))


def _degrees(design: EvaluationDesign) -> int:
    """Patients of the rarest class, less one for each fold, whose mean was taken from them."""
    folds = [at for at in design.ranked_folds if at in design.first_repeat]
    if not folds:
        return 1
    rows = np.concatenate([design.splits[at][1] for at in folds])
    y, groups = design.y[rows], design.groups[rows]
    rarest = min(len(np.unique(groups[y == c])) for c in np.unique(y))
    return max(1, rarest - len(folds))


def tested(design: EvaluationDesign) -> Numbers:
    """Images that were scored: ``(n,)`` row numbers, each once."""
    return np.concatenate([design.splits[at][1] for at in design.first_repeat])


# Many pairs together

DRAWS, FEWEST_DRAWS = 20_000, 2_000
"""Draws of the joint distribution, and those that are left where pairs go into the millions."""
AT_ONCE = 200_000_000
"""Draws times pairs from which on there are fewer draws."""


def max_t(found: Differences, seed: int = 0) -> tuple[Vector, float]:
    """Test pairs together by step-down max-T.

    The statistics are drawn from their joint t distribution, whose correlations are those of the patients'
    contributions; p is the share of draws in which the largest statistic of this pair and of all less clear ones is
    as large as the one that was seen.

    Parameters
    ----------
    found
        Pairs of one family.
    seed
        Of the draws. They are many enough that p = 0.05 is known to within 0.003.

    Returns
    -------
    Adjusted p ``(pairs,)``, never below that of the pair alone; and the quantile that 95 % of the largest statistics
    do not exceed, for intervals that hold together.
    """
    from scipy.stats import t

    variances = pair_variances(found.contributions, found.first, found.second)
    seen = t.isf(found.p / 2, found.degrees)
    order = np.argsort(seen, kind="stable")
    draws = int(np.clip(AT_ONCE // len(seen), FEWEST_DRAWS, DRAWS))
    rng = np.random.default_rng(seed)
    # The root of the covariance has as many rows as there are patients or candidates, whichever are fewer.
    root = np.linalg.qr(found.contributions.T, mode="r")
    drawn = rng.standard_normal((draws, len(root))) @ root
    drawn *= np.sqrt(found.degrees / rng.chisquare(found.degrees, draws))[:, None]
    table = drawn.T.astype(np.float32)
    largest, adjusted = np.zeros((1, draws), np.float32), np.ones(len(seen))
    for at in _parts(order):
        errors = np.sqrt(variances[at])
        scale = np.divide(1.0, errors, out=np.zeros_like(errors), where=errors > 0).astype(np.float32)
        each = np.abs(table[found.first[at]] - table[found.second[at]]) * scale[:, None]
        # All patients agree on a difference: nothing is known of what goes along with it, so it goes along with none.
        alone = (errors == 0) & (found.delta[at] != 0)
        each[alone] = np.abs(rng.standard_t(found.degrees, (int(alone.sum()), draws)))
        running = np.maximum.accumulate(np.vstack([largest, each]), axis=0)
        adjusted[at] = (1 + (running[1:] >= seen[at][:, None]).sum(axis=1)) / (draws + 1)
        largest = running[-1:]
    stepped = np.maximum.accumulate(adjusted[order[::-1]])
    adjusted[order[::-1]] = stepped
    return np.fmax(adjusted, found.p), float(np.quantile(largest, LEVEL))


def _parts(order: Numbers) -> Iterator[Numbers]:
    for start in range(0, len(order), CHUNK):
        yield order[start : start + CHUNK]


# All pairs of candidates


def pairwise_tests(
    design: EvaluationDesign, scored_candidates: Sequence[CandidateScores], *, planned: bool = False
) -> list[PairwiseDifference]:
    """Compare all pairs of candidates, in the order of the candidates.

    Every pair is adjusted over all pairs. Where fusions against single networks are `planned` (the questions before
    them were answered with yes), these are a family of their own.
    """
    a, b = np.tril_indices(len(scored_candidates), -1)
    if not len(a):
        return []
    found = differences(design, scored_candidates, a, b)
    raw = {
        "clustered": found.p,
        "bootstrap": _resampled(design, scored_candidates, a, b, found.delta),
        "delong": delong_p(found.delta, _delong_errors(design, scored_candidates, a, b)),
        "mcnemar": mcnemar_p(*_discordant_counts(design, scored_candidates, a, b)),
        "corrected_t": _corrected_t(design, scored_candidates, a, b),
    }
    corrected = {name: holm(values) for name, values in raw.items()}
    p, quantile = max_t(found)
    together = found.intervals(quantile)
    fused = np.array([len(s.candidate.backbones) > 1 for s in scored_candidates])
    of_fusions = np.flatnonzero(fused[a] & ~fused[b])
    if planned and len(of_fusions):
        family = _subset(found, of_fusions)
        p[of_fusions], narrower = max_t(family)
        for at, interval in zip(of_fusions, family.intervals(narrower), strict=True):
            together[at] = interval
    alone = found.intervals()
    labels = [s.candidate.label for s in scored_candidates]
    return [
        PairwiseDifference(
            a=labels[a[i]],
            b=labels[b[i]],
            metric=PRIMARY,
            delta=float(found.delta[i]),
            interval=alone[i],
            simultaneous=together[i],
            family="fusions" if planned and fused[a[i]] and not fused[b[i]] else "all",
            p=float(p[i]),
            verdict=_verdict(p[i], found.delta[i]),
            tests={
                name: TestResult(p=_known(raw[name][i]), adjusted=_known(corrected[name][i])) for name in raw
            },
        )
        for i in range(len(a))
    ]


def _subset(found: Differences, some: Numbers) -> Differences:
    return replace(
        found,
        first=found.first[some],
        second=found.second[some],
        delta=found.delta[some],
        below=found.below[some],
        above=found.above[some],
        p=found.p[some],
    )


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
) -> Vector:
    """P of each difference by the paired group bootstrap; a resample that lacks a class lacks it for everyone."""
    resampled = np.array([s.resampled for s in scored_candidates])
    usable = resampled[:, np.isfinite(resampled).all(axis=0)]
    if usable.shape[1] < FEWEST_RESAMPLES:
        return np.ones(len(a))
    groups = len(np.unique(design.groups))
    p = []
    for one, two, seen in _chunks(a, b, delta):
        drawn = design.overlap_factor * (usable[one] - usable[two])
        centred = drawn - np.median(drawn, axis=1, keepdims=True) + seen[:, None]
        p.append(bootstrap_p(centred, groups))
    return np.concatenate(p)


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
    ):  # a fold with a single patient of a class has infinite entries of either sign
        for at in design.ranked_folds:
            test = design.splits[at][1]
            values = np.array([s.proba[at][:, design.positive] for s in scored_candidates])
            total += auc_covariance(design.y[test] == design.positive, values, design.groups[test])[1]
    folds = max(1, len(design.ranked_folds))
    covariance = design.overlap_factor**2 * design.repeats / folds**2 * total
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
    folds = folds[:, design.ranked_folds]
    share = float(np.mean([len(test) / len(train) for train, test in design.splits]))
    return corrected_t_p(folds[a] - folds[b], share)


# Tests of "no difference" between two candidates, for all pairs at once

FEW = 10
"""Resamples beyond zero that are too few to count."""
ROUNDING = 1e-9
"""Standard error, in parts of a difference, that is nothing but rounding."""


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
