"""Curves for whoever has to choose an operating point; ``metrics.json`` keeps them, a report draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.metrics import mass_bins
from featstore.evaluation.reliability import calibration_summary, recalibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

THRESHOLDS = np.arange(1, 100) / 100
COVERAGES = np.arange(1, 21) / 20


def curves(
    y: NDArray[np.intp],
    proba: Vector,
    decisions: NDArray[np.intp],
    positive: int | None,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """Every curve of one contestant on images that its models had not seen.

    Parameters
    ----------
    y, proba, decisions
        ``(n,)`` true class index, ``(n, classes)`` probabilities, ``(n,)`` class index answered.
    positive
        Decision and calibration curve, calibration slope and intercept are about this class; None leaves them out.
    groups
        ``(n,)`` patient of each image; None takes every image for a patient of its own.
    """
    confidence = proba[np.arange(len(y)), decisions]
    drawn: dict[str, Any] = {
        "risk_coverage": risk_coverage(decisions == y, confidence),
        "calibration_error": calibration_summary(y, proba, positive),
    }
    if positive is not None:
        truth, values = y == positive, proba[:, positive]
        drawn["decision"] = decision_curve(truth, values)
        drawn["calibration"] = calibration_curve(truth, values)
        patients = np.arange(len(y)).astype(str) if groups is None else groups
        drawn["recalibration"] = recalibration(truth, values, patients)
    return drawn


def decision_curve(truth: NDArray[np.bool_], values: Vector) -> dict[str, list[float]]:
    """Net benefit of acting on a probability, by the probability from which one would act.

    Of n images, ``true positives / n - false positives / n * t / (1 - t)``: whoever acts from t on says that a missed
    patient is as bad as (1 - t) / t needless treatments. Beside it, treating everyone; treating no one is 0. The
    values must be calibrated to be read as probabilities.

    Parameters
    ----------
    truth, values
        ``(n,)`` whether an image is positive, and its probability.

    References
    ----------
    Vickers & Elkin, Decision curve analysis, Medical Decision Making 26, 2006.
    """
    called = values >= THRESHOLDS[:, None]
    odds = THRESHOLDS / (1 - THRESHOLDS)
    model = (called & truth).mean(axis=1) - (called & ~truth).mean(axis=1) * odds
    share = truth.mean()
    return {
        "threshold": THRESHOLDS.tolist(),
        "net_benefit": model.tolist(),
        "treat_all": (share - (1 - share) * odds).tolist(),
    }


def risk_coverage(right: NDArray[np.bool_], confidence: Vector) -> dict[str, Any]:
    """Share of wrong answers among the images answered, when the least sure ones are left to a physician.

    Parameters
    ----------
    right, confidence
        ``(n,)`` whether an answer is right, and how sure it is. Images that are equally sure are taken in every
        order: each counts the mean error of all of them.

    Returns
    -------
    ``coverage`` (share answered), ``risk`` (share wrong among these), and ``aurc``, the mean risk over all coverages.

    References
    ----------
    Geifman & El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017.
    """
    _, level = np.unique(-confidence, return_inverse=True)
    wrong = (np.bincount(level, ~right) / np.bincount(level))[np.sort(level)]
    count = np.arange(1, len(right) + 1)
    risk = np.cumsum(wrong) / count
    at = np.ceil((COVERAGES * len(right)).round(9)).astype(int) - 1
    return {
        "coverage": (count[at] / len(right)).tolist(),
        "risk": risk[at].tolist(),
        "aurc": float(risk.mean()),
    }


def calibration_curve(truth: NDArray[np.bool_], values: Vector) -> dict[str, list[float]]:
    """Mean probability and share of positives in each bin of the calibration error, and its number of images."""
    bins = mass_bins(values)
    count = np.bincount(bins)
    filled = count > 0
    return {
        "predicted": (np.bincount(bins, values)[filled] / count[filled]).tolist(),
        "observed": (np.bincount(bins, truth)[filled] / count[filled]).tolist(),
        "images": count[filled].tolist(),
    }
