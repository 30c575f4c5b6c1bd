"""Tests of "no difference" between two contestants, for all pairs at once.

The verdict rests on the first; the others are given beside it, because readers and reviewers ask for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

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
    """Test differences of two AUCs by their standard error (`featstore.evaluation.delong`) and the normal curve."""
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
    """Exact McNemar test, which is a sign test on the units where two contestants differ.

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
