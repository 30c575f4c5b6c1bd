"""Scores of class probabilities, for many weightings of the images at once.

A bootstrap resample is a vector of weights (how often each image was drawn), so every score here takes a whole
``(resamples, n)`` array of weights and returns one value per resample; weights of one give the plain score.
More than two classes are scored one against the rest and averaged without weights (macro).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

METRICS = ("accuracy", "auc", "sensitivity", "specificity", "f1")


def score(
    y: NDArray[np.intp], proba: Vector, weights: Vector, positive: int | None = None
) -> dict[str, Vector]:
    """Accuracy, AUC, sensitivity, specificity and F1.

    Parameters
    ----------
    y
        ``(n,)`` true class index.
    proba
        ``(n, classes)`` probabilities; the predicted class is the largest.
    weights
        ``(resamples, n)`` non-negative.
    positive
        Index of the class that sensitivity is about; None for the macro average over all classes.

    Returns
    -------
    For each name in `METRICS` one value per resample, ``(resamples,)``; NaN where a resample lacks a class.
    """
    predicted = proba.argmax(axis=1)
    targets = [positive] if positive is not None else list(range(proba.shape[1]))
    per_class = [_one_against_rest(y == c, predicted == c, proba[:, c], weights) for c in targets]
    means = {name: np.mean([scores[name] for scores in per_class], axis=0) for name in METRICS[1:]}
    return {"accuracy": _ratio(weights @ (y == predicted), weights.sum(axis=1)), **means}


def auc(truth: NDArray[np.bool_], values: Vector, weights: Vector) -> Vector:
    """Area under the ROC curve by weighted mid-ranks (Mann-Whitney; ties count one half).

    Parameters
    ----------
    truth
        ``(n,)`` whether an image is positive.
    values
        ``(n,)`` score that should be higher for positives.
    weights
        ``(resamples, n)``.
    """
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    weights = weights[:, order]
    positives = np.add.reduceat(weights * truth[order], starts, axis=1)
    negatives = np.add.reduceat(weights * ~truth[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _ratio((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _one_against_rest(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], values: Vector, weights: Vector
) -> dict[str, Vector]:
    hit = weights @ (truth & predicted)
    miss = weights @ (truth & ~predicted)
    false_alarm = weights @ (~truth & predicted)
    rejection = weights @ (~truth & ~predicted)
    return {
        "auc": auc(truth, values, weights),
        "sensitivity": _ratio(hit, hit + miss),
        "specificity": _ratio(rejection, rejection + false_alarm),
        "f1": _ratio(2 * hit, 2 * hit + miss + false_alarm),
    }


def _ratio(top: Vector, bottom: Vector) -> Vector:
    ratio: Vector = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return ratio
