"""Ranks of contestants over folds, and the tests that are usual for them (Demsar, JMLR 7, 2006)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

ALPHA = 0.05
FRIEDMAN = 3
"""Contestants from which Friedman's test is one."""


def friedman(table: Vector) -> str:
    """Say what Friedman's test finds in scores ``(contestants, folds)``."""
    from scipy.stats import friedmanchisquare

    if len(table) < FRIEDMAN:
        return "Friedman's test needs three contestants."
    if (np.ptp(table, axis=0) == 0).all():
        return "All contestants are equal in every fold."
    p = float(friedmanchisquare(*table).pvalue)
    return f"Friedman p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."  # noqa: PLR2004


def mean_ranks(losses: Vector) -> Vector:
    """Mean over the folds ``(k,)`` of the rank of each of k contestants; losses ``(k, folds)``, ties share a rank."""
    from scipy.stats import rankdata

    mean: Vector = rankdata(losses, axis=0).mean(axis=1)
    return mean


def nemenyi(contestants: int, folds: int) -> float:
    """Difference between two mean ranks from which they are told apart, at 5 % (Demsar 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - ALPHA, contestants, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(contestants * (contestants + 1) / (6 * folds))


def alike(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Longest stretches (first, last) of sorted ranks within the critical difference, none inside another."""
    stretches: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(
            at for at in range(first, len(ranks)) if ranks[at] - ranks[first] < difference or at == first
        )
        if last > first and (not stretches or last > stretches[-1][1]):
            stretches.append((first, last))
    return stretches
