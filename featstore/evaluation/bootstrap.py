"""Uncertainty by resampling patients, not images.

Images of one patient are not independent, so a resample draws whole groups with replacement (cluster bootstrap:
Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The same resamples serve every
contestant, which makes differences between contestants paired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


def group_weights(groups: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """How often each image is drawn in each resample of the groups.

    Parameters
    ----------
    groups
        ``(n,)`` group of each image.

    Returns
    -------
    ``(resamples, n)`` float64, whole numbers.
    """
    names, index = np.unique(groups, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    return draws[:, index].astype(np.float64)


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of resampled values; None where every resample lacked a class."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def overlap_factor(splits: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> float:
    """How much wider an interval over cross-validation must be than resampling the test images says.

    Folds share most of their training images, so their scores vary together when the sample changes: Nadeau and
    Bengio (Inference for the generalization error, Machine Learning 52, 2003) multiply the variance of the mean
    over J folds by ``1 + J * n_test / n_train``. One pass over all images makes that ``1 + n / n_train``, however
    often it is repeated.

    Parameters
    ----------
    splits
        Pairs (training images, test images).
    """
    shares = [(len(train) + len(test)) / len(train) for train, test in splits]
    return float(np.sqrt(1 + np.mean(shares)))


def widen(values: NDArray[np.float64], centre: float, factor: float) -> NDArray[np.float64]:
    """Stretch resampled values about the value that was seen."""
    return centre + factor * (values - centre)


def two_sided_p(differences: NDArray[np.float64]) -> float:
    """Bootstrap p value of "no difference": twice the smaller tail around zero, ties split, never below 2/(R+1).

    Source: Davison & Hinkley 1997, section 4.4 (the added one keeps a Monte-Carlo p value honest).
    """
    finite = differences[np.isfinite(differences)]
    below = (finite < 0).sum() + (finite == 0).sum() / 2
    tail = min(below, len(finite) - below)
    return float(min(1.0, 2 * (tail + 1) / (len(finite) + 1)))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p values for their number (Holm 1979, step-down)."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted
