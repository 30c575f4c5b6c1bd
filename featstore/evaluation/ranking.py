"""Scores of how well probabilities put one class above the rest: they need the order of the images, no threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

AT = (0.90, 0.95)
RANKING = (
    "auc",
    "average_precision",
    *(f"sensitivity_at_specificity_{100 * at:.0f}" for at in AT),
    *(f"specificity_at_sensitivity_{100 * at:.0f}" for at in AT),
)
SLACK = 1e-9
"""Rounding of a sum of weights must not push a rate of exactly 95 % under its mark."""


def rank_scores(truth: NDArray[np.bool_], values: Vector, weights: Vector) -> dict[str, Vector]:
    """Every score of `RANKING`, for many weightings of the images at once.

    Parameters
    ----------
    truth
        ``(n,)`` whether an image is positive.
    values
        ``(n,)`` score that should be higher for positives; images with equal scores cross a threshold together.
    weights
        ``(resamples, n)`` non-negative.

    Returns
    -------
    For each name one value per resample, ``(resamples,)``; NaN where positives or negatives are missing. Average
    precision is the step-wise sum of scikit-learn. Sensitivity at a specificity is the highest that a threshold
    reaches whose specificity is not below the mark, without interpolation; and the reverse.
    """
    gained, hits, alarms = cumulate(truth, values, weights)
    positives, negatives = hits[:, -1], alarms[:, -1]
    called = hits + alarms
    precision = np.divide(hits, called, out=np.zeros(hits.shape), where=called > 0)
    scores = {
        "auc": _area(gained, hits, alarms),
        "average_precision": ratio((gained * precision).sum(axis=1), positives),
    }
    for at in AT:
        reached = _last_within(hits, alarms <= ((1 - at) + SLACK) * negatives[:, None])
        scores[f"sensitivity_at_specificity_{100 * at:.0f}"] = ratio(reached, positives, negatives)
    for at in AT:
        first = (hits < (at - SLACK) * positives[:, None]).sum(axis=1).clip(max=hits.shape[1] - 1)
        spared = negatives - np.take_along_axis(alarms, first[:, None], axis=1)[:, 0]
        scores[f"specificity_at_sensitivity_{100 * at:.0f}"] = ratio(spared, negatives, positives)
    return scores


def auc(truth: NDArray[np.bool_], values: Vector, weights: Vector) -> Vector:
    """Area under the ROC curve (Mann-Whitney; ties count one half); arguments as for `rank_scores`."""
    return _area(*cumulate(truth, values, weights))


def cumulate(truth: NDArray[np.bool_], values: Vector, weights: Vector) -> tuple[Vector, Vector, Vector]:
    """From the highest score down, at each distinct score: positives gained; positives and negatives so far.

    Arguments as for `rank_scores`; three arrays ``(resamples, distinct scores)``.
    """
    order = np.argsort(-values, kind="stable")
    starts = np.flatnonzero(np.diff(-values[order], prepend=-np.inf))
    every = weights[:, order]
    gained = every * truth[order]
    if len(starts) < len(order):
        every, gained = (np.add.reduceat(part, starts, axis=1) for part in (every, gained))
    hits = np.cumsum(gained, axis=1)
    return gained, hits, np.cumsum(every, axis=1) - hits


def ratio(top: Vector, bottom: Vector, also: Vector | float = 1.0) -> Vector:
    """``top / bottom``; NaN where `bottom`, or `also`, is not above zero."""
    defined = (bottom > 0) & (np.asarray(also) > 0)
    quotient: Vector = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=defined)
    return quotient


def _area(gained: Vector, hits: Vector, alarms: Vector) -> Vector:
    """Each positive beats the negatives below it, and half of those level with it."""
    negatives = alarms[:, -1]
    level = np.diff(alarms, axis=1, prepend=0.0)
    beaten = negatives[:, None] - alarms + level / 2
    return ratio((gained * beaten).sum(axis=1), hits[:, -1] * negatives)


def _last_within(hits: Vector, within: NDArray[np.bool_]) -> Vector:
    count = within.sum(axis=1)
    last = np.take_along_axis(hits, count.clip(min=1)[:, None] - 1, axis=1)[:, 0]
    reached: Vector = np.where(count > 0, last, 0.0)
    return reached
