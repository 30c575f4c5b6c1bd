"""The multinomial likelihood of many models at once: arrays are ``(models, logits, rows)``.

One logit is that of the second of two classes; with more classes every class has its own (softmax).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Floats = NDArray[np.floating[Any]]

INTERCEPT_STEPS = 50
INTERCEPT_TOLERANCE = 1e-11
SAFE_STEP = 1.5
"""No logit is moved further against another one by a full Newton step in the intercepts: so far it always gains."""
LEAST = 1e-30
"""Curvature below it counts for this much, so that its inverse is finite, in single precision too."""
GRAIN = 1e-12
"""The same, relative to the largest between two classes; what is below is lost to rounding in an inverse."""


def targets(y: NDArray[np.intp], n_classes: int) -> NDArray[np.float64]:
    """``(1, n)`` zeros and ones for two classes, ``(n_classes, n)`` one-hot for more."""
    if n_classes == 2:  # noqa: PLR2004
        return np.asarray(y[None], np.float64)
    return np.asarray(np.arange(n_classes)[:, None] == y, np.float64)


def inverse_link(logits: Floats) -> Floats:
    """Probabilities ``(models, logits, rows)``, whatever the size of the logits."""
    if logits.shape[1] == 1:
        proba: Floats = expit(logits)
        return proba
    odds: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return odds


def loss(logits: Floats, target: Floats) -> Floats:
    """Negative log-likelihood ``(models,)``, summed over rows, whatever the size of the logits."""
    if logits.shape[1] == 1:
        single: Floats = _softplus(logits[:, 0]).sum(axis=1) - (logits * target).sum(axis=(1, 2))
        return single
    # By how much each logit is above that of the row's class: rows that are answered well add next to nothing.
    above = logits - (logits * target).sum(axis=1, keepdims=True)
    most = above.max(axis=1)
    total: Floats = (most + np.log(np.exp(above - most[:, None]).sum(axis=1))).sum(axis=1)
    return total


def _softplus(logits: Floats) -> Floats:
    # np.logaddexp(0, logits), five times as fast.
    return np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))


def best_intercept(values: Floats, target: Floats, start: Floats) -> Floats:
    """Intercepts ``(models, logits)`` that maximise the likelihood of ``values + intercept``, by damped Newton.

    A step is as long as it may be without losing likelihood (Bach 2010: the curvature of a logistic loss changes by
    no more than ``exp(r)`` where logits move by r against each other), so no line search is needed. Where classes
    are apart there may be no best intercept, or only far away; then it is a better one than `start`.
    """
    intercept = start.copy()
    for _ in range(INTERCEPT_STEPS):
        proba = inverse_link(values + intercept[:, :, None])
        slope = (proba - target).sum(axis=2)
        step = (_information(proba, GRAIN) @ slope[:, :, None])[:, :, 0]
        if (
            step.shape[1] > 1
        ):  # where classes are apart, the inverse is so large that its rounding shifts all logits
            step -= step.mean(axis=1, keepdims=True)
        reach = np.ptp(step, axis=1) if step.shape[1] > 1 else np.abs(step[:, 0])
        if not reach.max(initial=0.0) >= INTERCEPT_TOLERANCE:
            break
        allowed = np.maximum(SAFE_STEP, np.log1p(reach))
        step *= np.divide(allowed, reach, out=np.ones_like(reach), where=reach > allowed)[:, None]
        intercept -= step
    return intercept


def _information(proba: Floats, grain: float) -> Floats:
    """(Pseudo-)inverse ``(models, logits, logits)`` of the curvature in the intercepts.

    For more logits than one the curvature is the Laplacian of a graph, the edge between two classes being the sum of
    ``p q`` over rows. Summed up from its edges nothing cancels, so classes that are (all but) separated keep a small,
    positive curvature; an edge below `grain` times the largest counts for that much.
    """
    if proba.shape[1] == 1:
        curvature = (proba * (1 - proba)).sum(axis=2, keepdims=True)
        reciprocal: Floats = 1 / np.maximum(curvature, LEAST)
        return reciprocal
    n_logits = proba.shape[1]
    corner = np.arange(n_logits)
    edges = proba @ proba.swapaxes(1, 2)
    edges[:, corner, corner] = 0
    largest = edges.max(axis=(1, 2), keepdims=True)
    edges = np.maximum(edges, np.maximum(grain * largest, LEAST))
    edges[:, corner, corner] = 0
    degrees = edges.sum(axis=2)
    laplacian = -edges
    laplacian[:, corner, corner] = degrees
    # The same shift of all logits changes nothing: it is given a curvature of its own, and taken out again.
    common = degrees.mean(axis=1)[:, None, None]
    inverse: Floats = np.linalg.inv(laplacian + common / n_logits) - 1 / (common * n_logits)
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
        # Below its own rounding a shift cannot be told from none.
        information = _information(proba, max(GRAIN, float(np.finfo(dtype).eps)))
        return cls(root.astype(dtype), blind, (information / C[:, None, None]).astype(dtype))

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
