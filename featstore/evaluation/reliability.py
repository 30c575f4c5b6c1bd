"""How far probabilities are from the truth, and how far they would be by chance alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.bootstrap import LEVEL
from featstore.evaluation.metrics import ALMOST_NEVER, calibration_error, mass_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

DRAWS = 1000
CELLS = 4_000_000
"""Random numbers held at once."""
LIMIT = 50_000_000
"""Random numbers drawn for one expected error: of very many images fewer sets of labels are enough."""
STEPS = 50
CLOSE = 1e-10
FEWEST = 2
"""Patients of each class from which on a slope has an interval."""


def calibration_summary(y: NDArray[np.intp], proba: Vector, positive: int | None = None) -> dict[str, Any]:
    """ECE of all images together, and the one that a perfectly calibrated model would show on as many.

    Returns
    -------
    ``ece`` and ``expected``, both None of fewer than 100 images; ``images``.
    """
    value = float(calibration_error(y, proba, np.ones((1, len(y))), positive)[0])
    known = bool(np.isfinite(value))
    return {
        "ece": value if known else None,
        "expected": expected_error(proba, positive) if known else None,
        "images": len(y),
    }


def expected_error(proba: Vector, positive: int | None = None, seed: int = 0) -> float:
    """Mean ECE of labels that are drawn from the probabilities themselves: never zero, the less so the fewer images.

    Each image's label is drawn on its own. Where patients have several images chance alone makes it larger still.

    Parameters
    ----------
    proba
        ``(n, classes)``.
    positive
        As for `featstore.evaluation.metrics.score`.

    References
    ----------
    Broecker & Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22, 2007
    (consistency resampling); Vaicenavicius et al., Evaluating model calibration in classification, AISTATS 2019.
    """
    rng = np.random.default_rng(seed)
    images = len(proba)
    draws = max(100, min(DRAWS, LIMIT // max(1, images)))
    bins = {
        c: mass_bins(proba[:, c]) for c in ([positive] if positive is not None else range(proba.shape[1]))
    }
    bounds = np.cumsum(proba, axis=1)
    total = 0.0
    for start in range(0, draws, step := max(1, CELLS // max(1, images))):
        chance = rng.random((min(step, draws - start), images))
        for c, number in bins.items():
            label = (chance < bounds[:, c]) & (chance >= (bounds[:, c - 1] if c else 0.0))
            sums = (proba[:, c] - label) @ (number[:, None] == np.arange(number.max() + 1))
            total += float(np.abs(sums).sum()) / images / len(bins)
    return total / draws


def recalibration(truth: NDArray[np.bool_], values: Vector, groups: NDArray[np.str_]) -> dict[str, Any]:
    """Slope and intercept of a logistic regression of the outcome on the log-odds of the probability.

    One and zero are best. A slope below one: the probabilities are too sure; an intercept above zero: too low.
    Intervals by the covariance that allows for images of one patient to depend on each other.

    Parameters
    ----------
    truth, values, groups
        ``(n,)`` whether an image is positive, its probability, its patient.

    Returns
    -------
    ``slope`` and ``intercept``, each with ``value`` and ``interval``; ``why`` they are not known, otherwise empty.

    References
    ----------
    Cox, Two further applications of a model for binary regression, Biometrika 45, 1958. Liang & Zeger, Longitudinal
    data analysis using generalized linear models, Biometrika 73, 1986.
    """
    odds = np.log(values.clip(ALMOST_NEVER, 1)) - np.log((1 - values).clip(ALMOST_NEVER, 1))
    why = _undefined(truth, odds)
    found = None if why else _logistic(truth, odds)
    if found is None:
        unknown = {"value": None, "interval": None}
        return {"slope": unknown, "intercept": unknown, "why": why or "the fit does not settle"}
    beta, design, curvature = found
    errors = _errors(truth, beta, design, curvature, groups)
    slope, intercept = (
        {
            "value": float(beta[at]),
            "interval": None
            if errors is None
            else [float(beta[at] - errors[at]), float(beta[at] + errors[at])],
        }
        for at in (1, 0)
    )
    return {"slope": slope, "intercept": intercept, "why": ""}


def _undefined(truth: NDArray[np.bool_], odds: Vector) -> str:
    if truth.all() or not truth.any():
        return "all images are of one class"
    if np.ptp(odds) < CLOSE:
        return "every image has the same probability"
    ill, well = odds[truth], odds[~truth]
    if ill.min() >= well.max() or ill.max() <= well.min():
        return "the probabilities part the classes without an error"
    return ""


def _logistic(truth: NDArray[np.bool_], odds: Vector) -> tuple[Vector, Vector, Vector] | None:
    """Coefficients, design and curvature by Newton's method with halved steps; None where it does not settle."""
    design = np.column_stack([np.ones_like(odds), odds])
    beta, loss = np.zeros(2), np.inf
    step = np.zeros(2)
    for _ in range(STEPS):
        for _ in range(STEPS):
            eta = design @ (beta + step)
            now = float((np.logaddexp(0, eta) - truth * eta).sum())
            if now <= loss + CLOSE:
                break
            step = step / 2
        beta, loss = beta + step, now
        fitted = 1 / (1 + np.exp(-eta.clip(-500, 500)))
        curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design
        try:
            step = np.linalg.solve(curvature, design.T @ (truth - fitted))
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(step).all():
            return None
        if np.abs(step).max() < CLOSE:
            return beta, design, curvature
    return None


def _errors(
    truth: NDArray[np.bool_], beta: Vector, design: Vector, curvature: Vector, groups: NDArray[np.str_]
) -> Vector | None:
    """Half widths of 95 % intervals; None with fewer than two patients of a class."""
    from scipy.special import stdtrit

    names, index = np.unique(groups, return_inverse=True)
    if min(len(np.unique(index[side])) for side in (truth, ~truth)) < FEWEST:
        return None
    scores = np.zeros((len(names), 2))
    np.add.at(scores, index, design * (truth - 1 / (1 + np.exp(-design @ beta)))[:, None])
    inverse = np.linalg.inv(curvature)
    covariance = inverse @ (scores.T @ scores) @ inverse * len(names) / (len(names) - 1)
    quantile = float(stdtrit(len(names) - 1, (1 + LEVEL) / 2))
    half: Vector = quantile * np.sqrt(covariance.diagonal().clip(0.0))
    return half
