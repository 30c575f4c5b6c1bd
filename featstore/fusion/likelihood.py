"""The multinomial likelihood of many models at once: arrays are ``(models, logits, rows)``.

One logit is that of the second of two classes; with more classes every class has its own (softmax).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import expit, logsumexp, softmax

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Floats = NDArray[np.floating[Any]]

INTERCEPT_STEPS = 50
INTERCEPT_TOLERANCE = 1e-11
LONGEST_STEP = 2.0


def targets(y: NDArray[np.intp], n_classes: int) -> NDArray[np.float64]:
    """``(1, n)`` zeros and ones for two classes, ``(n_classes, n)`` one-hot for more."""
    if n_classes == 2:  # noqa: PLR2004
        return np.asarray(y[None], np.float64)
    return np.asarray(np.arange(n_classes)[:, None] == y, np.float64)


def inverse_link(logits: Floats) -> Floats:
    """Probabilities ``(models, logits, rows)``."""
    proba: Floats = expit(logits) if logits.shape[1] == 1 else softmax(logits, axis=1)
    return proba


def loss(logits: Floats, target: Floats) -> Floats:
    """Negative log-likelihood ``(models,)``, summed over rows."""
    partition = _softplus(logits[:, 0]) if logits.shape[1] == 1 else logsumexp(logits, axis=1)
    total: Floats = partition.sum(axis=1) - (logits * target).sum(axis=(1, 2))
    return total


def _softplus(logits: Floats) -> Floats:
    # np.logaddexp(0, logits), five times as fast.
    return np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))


def best_intercept(values: Floats, target: Floats, start: Floats) -> Floats:
    """Intercepts ``(models, logits)`` that maximise the likelihood of ``values + intercept``, by damped Newton."""
    intercept = start.copy()
    for _ in range(INTERCEPT_STEPS):
        proba = inverse_link(values + intercept[:, :, None])
        slope = (proba - target).sum(axis=2)
        step = (_information(proba) @ slope[:, :, None])[:, :, 0]
        intercept -= np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        if np.abs(step).max(initial=0.0) < INTERCEPT_TOLERANCE:
            break
    return intercept


def _information(proba: Floats) -> Floats:
    """(Pseudo-)inverse ``(models, logits, logits)`` of the curvature in the intercepts."""
    if proba.shape[1] == 1:
        curvature = (proba * (1 - proba)).sum(axis=2, keepdims=True)
        reciprocal: Floats = 1 / np.maximum(curvature, np.finfo(proba.dtype).tiny)
        return reciprocal
    curvature = -proba @ proba.swapaxes(1, 2)
    index = np.arange(proba.shape[1])
    curvature[:, index, index] += proba.sum(axis=2)
    inverse: Floats = np.linalg.pinv(curvature, hermitian=True)
    return inverse


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """A factor L of the likelihood's Hessian in the logits, ``C (diag(p) - p p') = L L'`` for every row.

    For one logit L is the number ``sqrt(C p (1 - p))``. For more it is ``sqrt(C) (diag(s) - p s')``, ``s = sqrt(p)``,
    which cannot see s itself: on values orthogonal to s it is no more than a multiplication by ``sqrt(C p)``.

    Attributes
    ----------
    root
        ``(models, logits, rows)``: ``sqrt(C p (1 - p))`` for one logit, ``sqrt(C p)`` for more.
    blind
        ``(models, logits, rows)``: the s, of length one for every row; None for one logit.
    shift
        ``(models, logits, logits)``: (pseudo-)inverse of the curvature in the intercepts.
    """

    root: Floats
    blind: Floats | None
    shift: Floats

    @classmethod
    def at(cls, proba: Floats, C: Floats, dtype: DTypeLike) -> Self:
        """Curvature where the probabilities are `proba`, for penalties ``C (models,)``."""
        binary = proba.shape[1] == 1
        root = np.sqrt(C[:, None, None] * (proba * (1 - proba) if binary else proba))
        blind = None if binary else np.sqrt(proba).astype(dtype)
        return cls(root.astype(dtype), blind, (_information(proba) / C[:, None, None]).astype(dtype))

    def times(self, values: Floats) -> Floats:
        """L times values that `project` or `transposed` gave."""
        return self.root * values

    def transposed(self, values: Floats) -> Floats:
        """L' times values, row by row."""
        return self._seen(self.root * values)

    def project(self, values: Floats) -> Floats:
        """Take out of `values` what L cannot see, and what a shift of the intercepts explains (least squares)."""
        seen = self._seen(values)
        shift = self.shift @ np.einsum("mkn,mkn->mk", self.root, seen)[:, :, None]
        return seen - self.transposed(np.broadcast_to(shift, seen.shape))

    def _seen(self, values: Floats) -> Floats:
        if self.blind is None:
            return values
        seen: Floats = values - self.blind * (self.blind * values).sum(axis=1, keepdims=True)
        return seen
