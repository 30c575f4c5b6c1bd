"""Scores of class probabilities, for many weightings of the images at once.

A bootstrap resample is a vector of weights (how often each image was drawn), so every score here takes a whole
``(resamples, n)`` array of weights and returns one value per resample; weights of one give the plain score.

With a positive class, everything but accuracy, balanced accuracy and log-loss is about that class against the rest.
Without one it is taken for each class against the rest and averaged without weights (macro).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.ranking import RANKING, auc, rank_scores, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

DECISION = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1")
PROBABILITY = ("brier", "ece", "log_loss")
METRICS = (*RANKING, *DECISION, *PROBABILITY)
BOUNDED = frozenset(METRICS) - {"log_loss"}
"""Scores that cannot leave 0 to 1, nor may their intervals."""
PRIMARY = "auc"
"""Verdicts are about this one: it needs no threshold and does not change with the share of ill patients."""

BINS, IMAGES_PER_BIN = 10, 20
ENOUGH_IMAGES = 100
"""Below so many images a calibration error says more about their number than about the model: none is given."""
CHUNK = 512
"""Resamples scored at once: what they need should stay in a core's cache."""
ALMOST_NEVER = 1e-12
"""Probability below which log-loss takes an image to be: one sure mistake must not make everything infinite."""


def score(
    y: NDArray[np.intp],
    proba: Vector,
    weights: Vector,
    positive: int | None = None,
    threshold: float | None = None,
) -> dict[str, Vector]:
    """Every score of `METRICS`.

    Parameters
    ----------
    y
        ``(n,)`` true class index.
    proba
        ``(n, classes)`` probabilities.
    weights
        ``(resamples, n)`` non-negative.
    positive
        Index of the class that sensitivity is about; None for the macro average over all classes.
    threshold
        As for `decide`.

    Returns
    -------
    For each name in `METRICS` one value per resample, ``(resamples,)``; NaN where a resample lacks a class.
    """
    predicted = decide(proba, positive, threshold)
    starts = range(0, len(weights), CHUNK)
    parts = [_score(y, proba, predicted, weights[at : at + CHUNK], positive) for at in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _score(
    y: NDArray[np.intp], proba: Vector, predicted: NDArray[np.intp], weights: Vector, positive: int | None
) -> dict[str, Vector]:
    targets = [positive] if positive is not None else range(proba.shape[1])
    per_class = [_one_against_rest(y == c, predicted == c, proba[:, c], weights) for c in targets]
    scores = {name: np.mean([part[name] for part in per_class], axis=0) for name in per_class[0]}
    return scores | _over_all_classes(y, predicted, proba, weights)


def primary_score(y: NDArray[np.intp], proba: Vector, weights: Vector, positive: int | None = None) -> Vector:
    """Return `PRIMARY` alone, as `score` gives it."""
    targets = [positive] if positive is not None else range(proba.shape[1])
    mean: Vector = np.mean([auc(y == c, proba[:, c], weights) for c in targets], axis=0)
    return mean


def calibration_error(
    y: NDArray[np.intp], proba: Vector, weights: Vector, positive: int | None = None
) -> Vector:
    """Return the ECE alone, as `score` gives it; NaN of fewer than `ENOUGH_IMAGES`."""
    if len(y) < ENOUGH_IMAGES:
        return np.full(len(weights), np.nan)
    total = weights.sum(axis=1)
    targets = [positive] if positive is not None else range(proba.shape[1])
    errors = [np.abs(weights @ binned_gaps(y == c, proba[:, c])).sum(axis=1) for c in targets]
    return ratio(np.mean(errors, axis=0), total)


def binned_gaps(truth: NDArray[np.bool_], values: Vector) -> Vector:
    """Probability minus truth of each image, in the column of its bin ``(n, bins)``."""
    bins = mass_bins(values)
    gaps: Vector = (values - truth)[:, None] * (bins[:, None] == np.arange(bins.max() + 1))
    return gaps


def decide(proba: Vector, positive: int | None = None, threshold: float | None = None) -> NDArray[np.intp]:
    """Class index ``(n,)`` of each image: the most probable one.

    With a `threshold`, the positive class wherever its probability is not below it, else the most probable other.
    """
    if threshold is None or positive is None:
        likeliest: NDArray[np.intp] = proba.argmax(axis=1)
        return likeliest
    others = proba.copy()
    others[:, positive] = -1.0
    answers: NDArray[np.intp] = np.where(proba[:, positive] >= threshold, positive, others.argmax(axis=1))
    return answers


def mass_bins(values: Vector) -> NDArray[np.intp]:
    """Bin number ``(n,)`` of each probability: at most ten equal-mass bins (quantiles) of 20 images or more.

    The bins are those of the sample and stay the same in every resample. Images with one probability share a bin.
    """
    count = min(BINS, max(1, len(values) // IMAGES_PER_BIN))
    edges = np.percentile(values, np.linspace(0, 100, count + 1)[1:-1])
    return np.searchsorted(edges, values)


def _over_all_classes(
    y: NDArray[np.intp], predicted: NDArray[np.intp], proba: Vector, weights: Vector
) -> dict[str, Vector]:
    loss = -np.log(np.maximum(proba[np.arange(len(y)), y], ALMOST_NEVER))
    of_class = y[:, None] == np.arange(proba.shape[1])
    right = of_class & (predicted == y)[:, None]
    sums = weights @ np.column_stack([loss, of_class, right])
    counts, hits = np.split(sums[:, 1:], 2, axis=1)
    total = counts.sum(axis=1)
    return {
        "accuracy": ratio(hits.sum(axis=1), total),
        "balanced_accuracy": ratio(hits, counts).mean(axis=1),
        "log_loss": ratio(sums[:, 0], total),
    }


def _one_against_rest(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], values: Vector, weights: Vector
) -> dict[str, Vector]:
    counts = [truth & predicted, truth, ~truth & predicted, ~truth, (values - truth) ** 2]
    sums = weights @ np.column_stack([*counts, binned_gaps(truth, values)])
    hit, ill, alarm, well, square = sums[:, : len(counts)].T
    total = ill + well
    return {
        **rank_scores(truth, values, weights),
        "sensitivity": ratio(hit, ill),
        "specificity": ratio(well - alarm, well),
        "f1": ratio(2 * hit, ill + hit + alarm, ill),
        "brier": ratio(square, total),
        "ece": ratio(np.abs(sums[:, len(counts) :]).sum(axis=1), total),
    }
