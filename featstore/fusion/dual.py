"""L2 logistic regressions over many subsets of blocks at once, solved in the dual to a certified accuracy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.fusion.grams import Kernel, apply
from featstore.fusion.likelihood import Curvature, best_intercept, inverse_link, loss
from featstore.fusion.nystroem import Sketch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]
    Product = Callable[[NDArray[np.intp], Floats], Floats]

TOLERANCE = 1e-7
"""On any logit, by the bound in `solve`; in effect errors are far smaller."""
GUESS = 0.1
"""The same, of the first guess."""
STEPS = 60
STEPS_IN_SINGLE = 15
"""Then the inner systems are solved in float64: only where C is extreme is float32 too coarse for a direction."""
INNER_STEPS = 300
FORCING = 0.03
FLOOR = 10
"""Residuals of the inner systems end at so many units of rounding."""
HALVINGS = 40
SLACK = 1e-11


@dataclass(frozen=True, slots=True, eq=False)
class DualSolution:
    """What the models of all subsets learned.

    Attributes
    ----------
    dual
        ``(subsets, logits, n)``: the coefficients of subset S are ``Z_S.T @ dual``.
    values
        ``(subsets, logits, n)``: ``K_S @ dual``, the training logits without intercept.
    intercept
        ``(subsets, logits)``.
    """

    dual: Floats
    values: Floats
    intercept: Floats

    def logits(self, kernels: Sequence[Kernel], members: Mask) -> Floats:
        """Logits ``(subsets, logits, rows)`` of other rows; kernels of those rows against the training rows."""
        return apply(kernels, members, self.dual) + self.intercept[:, :, None]


def solve(
    kernels: Sequence[Kernel],
    members: Mask,
    target: NDArray[np.float64],
    C: NDArray[np.float64],
    start: DualSolution | None = None,
) -> DualSolution:
    """Minimise ``C * sum of log-losses + |w|^2 / 2`` for every subset, intercept unpenalised as in scikit-learn.

    The solution is ``w = Z.T a`` (representer theorem), so only Gram matrices enter, and a subset's is the sum of its
    blocks'. Newton's method on ``a`` with conjugate gradients inside, all subsets in step: one product per block and
    iteration serves all of them. The inner systems need a direction, not digits: they are solved in float32 and
    preconditioned by `Sketch`; residuals, logits and objectives are float64. The first guess solves the same problem
    for the sketch itself, which costs next to nothing.

    A subset is done when its distance from the optimum is certified. The objective is strongly convex in w with
    modulus one, so ``|w - w*| <= |gradient| = sqrt(r' K r)`` with ``r = a - C (target - p)``.

    Parameters
    ----------
    kernels
        One square kernel per block, float64.
    members
        ``(subsets, blocks)``; no subset is empty.
    target
        ``(logits, n)``, see `featstore.fusion.likelihood.targets`.
    C
        ``(subsets,)``.
    start
        Solution of a similar problem, such as another C.

    References
    ----------
    Newton in the dual: Chapelle 2007 (Neural Computation 19:1155) and Keerthi et al. 2005; inexact Newton: Dembo,
    Eisenstat & Steihaug 1982.
    """
    coarse = [kernel.astype(np.float32) for kernel in kernels]
    sketch = Sketch.of(coarse, members)
    reach = np.sqrt(members @ np.array([kernel.diagonal().max() for kernel in kernels]))
    task = _Task(
        target,
        C,
        reach,
        sketch,
        double=lambda models, A: apply(kernels, members[models], A),
        single=lambda models, A: apply(coarse, members[models], A.astype(np.float32)),
    )
    if start is None:
        zeros = np.zeros((len(members), *target.shape))
        blank = DualSolution(zeros, zeros, best_intercept(zeros, target, zeros[:, :, 0]))
        guess = _newton(replace(task, double=sketch.times, single=sketch.times), blank, GUESS)
        values = apply(kernels, members, guess.dual)
        start = DualSolution(guess.dual, values, best_intercept(values, target, guess.intercept))
    return _newton(task, start, TOLERANCE)


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What Newton's method needs to know; products are of models (numbers) with their ``(models, logits, n)``."""

    target: Floats
    C: Floats
    reach: Floats
    sketch: Sketch
    double: Product
    single: Product


def _newton(task: _Task, start: DualSolution, tolerance: float) -> DualSolution:
    dual, values, intercept = start.dual.copy(), start.values.copy(), start.intercept.copy()
    live = np.arange(len(dual))
    for step in range(STEPS):
        proba = inverse_link(values[live] + intercept[live, :, None])
        residual = dual[live] - task.C[live, None, None] * (task.target - proba)
        inner = task.single if step < STEPS_IN_SINGLE else task.double
        slope = inner(live, residual)
        energy = np.maximum(_dot(residual, slope), 0)
        unfinished = task.reach[live] * np.sqrt(energy) > tolerance
        if not unfinished.any():
            break
        live, proba = live[unfinished], proba[unfinished]
        residual, slope = residual[unfinished], slope[unfinished]
        curvature = Curvature.at(proba, task.C[live], slope.dtype)
        system = _System(partial(inner, live), curvature)
        direction = system.solve(slope, task.sketch.solver(curvature, live), energy[unfinished])
        step_in_dual = direction - residual
        step_in_values = task.double(live, step_in_dual)
        old = dual[live], values[live], intercept[live]
        new = _descend(old, (step_in_dual, step_in_values), task.target, task.C[live])
        dual[live], values[live], intercept[live] = new
    else:
        _warn(len(live))
    return DualSolution(dual, values, intercept)


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """``(I + Q L' K L Q) u = Q L' K r``: a Newton step of every subset, Q projects the intercepts out."""

    product: Callable[[Floats], Floats]
    curvature: Curvature

    def solve(self, slope: Floats, precondition: Callable[[Floats], Floats], energy: Floats) -> Floats:
        """Return ``L u`` ``(subsets, logits, n)`` float64 by conjugate gradients, each subset to its own accuracy.

        Seen from w an error e of u costs ``e' L'KL (I + L'KL) e``, at most the squared residual of this system. That
        may be a small part of what the step can gain, ``r'Kr - (L'Kr)' u``; `energy` is ``r'Kr``.
        """
        project = self.curvature.project
        right = project(self.curvature.transposed(slope))
        residual, solution, direction = right.copy(), np.zeros_like(right), np.zeros_like(right)
        floor = (FLOOR * np.finfo(right.dtype).eps) ** 2 * _dot(right, right)
        before: Floats = np.zeros_like(floor)
        for _ in range(INNER_STEPS):
            gain = np.maximum(energy - _dot(right, solution), 0)
            going = _dot(residual, residual) > np.maximum(FORCING**2 * gain, floor)
            if not going.any():
                break
            better = project(precondition(residual))
            decrease = _dot(residual, better)
            direction = better + _ratio(decrease, before, going) * direction
            product = direction + project(self._between(direction))
            length = _ratio(decrease, _dot(direction, product), going)
            solution += length * direction
            residual -= length * product
            before = decrease
        return self.curvature.times(solution).astype(np.float64)

    def _between(self, values: Floats) -> Floats:
        return self.curvature.transposed(self.product(self.curvature.times(values)))


def _descend(
    old: tuple[Floats, ...], step: tuple[Floats, ...], target: Floats, C: Floats
) -> tuple[Floats, Floats, Floats]:
    """Take the step, or for subsets whose objective would grow as small a part of it as it takes."""
    (dual, values, intercept), (change, moved) = old, step
    before = C * loss(values + intercept[:, :, None], target) + _dot(dual, values) / 2
    part = np.ones(len(dual))[:, None, None]
    for _ in range(HALVINGS):
        new_dual, new_values = dual + part * change, values + part * moved
        new_intercept = best_intercept(new_values, target, intercept)
        after = C * loss(new_values + new_intercept[:, :, None], target) + _dot(new_dual, new_values) / 2
        worse = after > before + SLACK * np.abs(before)
        if not worse.any():
            break
        part[worse] /= 2
    return new_dual, new_values, new_intercept


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = np.einsum("skn,skn->s", a, b)
    return product


def _ratio(a: Floats, b: Floats, where: Mask) -> Floats:
    """``a / b`` where wanted and possible, else zero; ``(subsets, 1, 1)``."""
    return np.divide(a, b, out=np.zeros_like(a), where=where & (b > 0))[:, None, None]


def _warn(count: int) -> None:
    from sklearn.exceptions import ConvergenceWarning

    warnings.warn(
        f"{count} subsets did not reach the optimum; use a smaller C", ConvergenceWarning, stacklevel=3
    )
