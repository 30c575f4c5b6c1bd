"""Platt scaling: decision values into probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def scale_decisions(decisions: Floats, y: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Slope ``(m, m)`` and offset ``(m,)`` such that ``decisions @ slope.T + offset`` are logits.

    A logistic regression on decision values the machine gave to rows it was not fitted to. A row of a class
    with N rows counts as that class by ``(N + 1) / (N + k)`` and as each of the other k - 1 classes by ``1 / (N
    + k)``: Platt's targets for k = 2, which keep the slope finite where the classes do not overlap.

    Parameters
    ----------
    decisions
        ``(n, m)``: one column for two classes, one per class for more.
    y
        ``(n,)`` class numbers, all present.

    References
    ----------
    Platt 1999, "Probabilistic outputs for support vector machines"; Lin, Lin & Weng 2007, Machine Learning 68.
    """
    counts = np.bincount(y)
    n_classes = len(counts)
    share = (1.0 + np.eye(n_classes) * counts) / (counts + n_classes)[:, None]
    spread = max(float(decisions.std()), np.finfo(float).tiny)
    regression = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    rows, labels = np.repeat(decisions / spread, n_classes, axis=0), np.tile(np.arange(n_classes), len(y))
    regression.fit(rows, labels, sample_weight=share[y].ravel())
    return regression.coef_ / spread, regression.intercept_
