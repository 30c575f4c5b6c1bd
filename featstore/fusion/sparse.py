"""Elastic-net logistic regression on many columns of which few matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from featstore.fusion.linear import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Solution = tuple[Floats, Floats]

# Of the largest penalty: by so much a silent column may break its optimality condition.
SLACK = 1e-6
FIRST_COLUMNS = 100
MAX_ROUNDS = 50
PRECISION = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9}


def fit_elasticnet(Z: Floats, y: NDArray[np.intp], penalty: float, l1_ratio: float) -> Solution:
    """Minimise ``mean log-loss + strength * (l1_ratio * |w|_1 + (1 - l1_ratio) / 2 * |w|_2^2)``, intercept free.

    The strength is `penalty` times the smallest one at which all coefficients vanish, so that one number means
    about the same for any number of rows and columns. Few columns matter, so the problem is solved on a growing
    working set until no column outside it breaks its optimality condition (Friedman, Hastie & Tibshirani 2010,
    section 2.6); on the set by L-BFGS-B, every coefficient being the difference of two that are not negative.

    Parameters
    ----------
    Z
        ``(n, d)`` float64 columns, standardised.
    y
        ``(n,)`` class numbers 0..n_classes-1, all present.
    penalty
        Above 0; 1 and more silence every column.
    l1_ratio
        Above 0, at most 1, which is the lasso.

    Returns
    -------
    Coefficients ``(1, d)`` and intercept ``(1,)`` for two classes; ``(n_classes, d)`` and ``(n_classes,)`` for more.
    """
    truth = np.eye(y.max() + 1)[y]
    targets = truth[:, 1:] if truth.shape[1] == 2 else truth  # noqa: PLR2004
    coef, intercept = np.zeros((targets.shape[1], Z.shape[1])), np.log(truth.mean(axis=0))
    intercept = intercept[1:] - intercept[:1] if targets.shape[1] == 1 else intercept
    threshold = penalty * float(np.abs(_slope(Z, targets, coef, intercept)).max())
    ridge = threshold * (1 - l1_ratio) / l1_ratio
    working = np.zeros(Z.shape[1], np.bool_)
    for _ in range(MAX_ROUNDS):
        excess = np.abs(_slope(Z, targets, coef, intercept)).max(axis=0) - threshold
        broken = np.flatnonzero((excess > SLACK * threshold) & ~working)
        if not broken.size or not threshold:
            break
        room = max(FIRST_COLUMNS, int(working.sum()))
        working[broken[np.argsort(-excess[broken], kind="stable")[:room]]] = True
        start = coef[:, working], intercept
        coef[:, working], intercept = _solve(Z[:, working], targets, threshold, ridge, start)
    return coef, intercept


def _slope(Z: Floats, targets: Floats, coef: Floats, intercept: Floats) -> Floats:
    """Gradient ``(n_logits, d)`` of the mean log-loss."""
    slope: Floats = _residuals(Z @ coef.T + intercept, targets).T @ Z / len(Z)
    return slope


def _residuals(logits: Floats, targets: Floats) -> Floats:
    residuals: Floats = probabilities(logits)[:, -targets.shape[1] :] - targets
    return residuals


def _solve(Z: Floats, targets: Floats, threshold: float, ridge: float, start: Solution) -> Solution:
    """Solution on all the given columns."""
    shape = start[0].shape
    size = start[0].size

    def objective(parts: Floats) -> tuple[float, Floats]:
        up, down, intercept = parts[:size], parts[size : 2 * size], parts[2 * size :]
        coef = (up - down).reshape(shape)
        logits = Z @ coef.T + intercept
        residuals = _residuals(logits, targets)
        slope = (residuals.T @ Z / len(Z) + ridge * coef).ravel()
        value = _log_loss(logits, targets) + threshold * (up.sum() + down.sum()) + ridge / 2 * (coef**2).sum()
        gradient = np.concatenate([slope + threshold, threshold - slope, residuals.mean(axis=0)])
        return float(value), gradient

    coef, intercept = start
    first = np.concatenate([np.maximum(coef, 0).ravel(), np.maximum(-coef, 0).ravel(), intercept])
    bounds = [(0, None)] * (2 * size) + [(None, None)] * shape[0]
    best = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=PRECISION).x
    return (best[:size] - best[size : 2 * size]).reshape(shape), best[2 * size :]


def _log_loss(logits: Floats, targets: Floats) -> float:
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    of_truth = (logits[:, -targets.shape[1] :] * targets).sum(axis=1)
    return float((np.logaddexp.reduce(logits, axis=1) - of_truth).mean())
