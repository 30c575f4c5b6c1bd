"""L2 logistic regressions over many subsets of blocks at once, solved in the dual to a certified accuracy."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from featstore.fusion.grams import Kernel, apply
from featstore.fusion.likelihood import Curvature, best_intercept, inverse_link, loss
from featstore.fusion.newton_system import NewtonSystem, dot
from featstore.fusion.nystroem import Sketch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]
    Models = NDArray[np.intp]
    Product = Callable[[Models, Floats], Floats]

TOLERANCE = 1e-7
"""On any logit, by the bound in `solve`; in effect errors are far smaller."""
GUESS = 50.0
"""The same, of the first guess: what the sketch leaves out is worth no more digits."""
ROUGH = 0.01
"""The same, until values are computed in float64: later steps are short, and so is their rounding."""
STEPS = 30
HALVINGS = 40
TEAM = 16
"""Subsets, at least, that are worth a thread."""
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

    def copy(self) -> DualSolution:
        """Return the same in arrays of its own."""
        return DualSolution(self.dual.copy(), self.values.copy(), self.intercept.copy())

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

    Where BLAS may use several threads, as many teams of subsets are solved at a time, with one thread each: a product
    of a few dozen rows is too small to share.

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
    task = _Task(target, C, reach, sketch)
    state = _nothing(members, target) if start is None else start.copy()

    def double(models: Models, A: Floats) -> Floats:
        return apply(kernels, members[models], A)

    def single(models: Models, A: Floats) -> Floats:
        return apply(coarse, members[models], A.astype(np.float32))

    def settle(live: Models) -> int:
        """Solve for some subsets, in place; how many did not get there."""
        if start is None:
            _newton(task, sketch.times, state, live, GUESS)
            _refresh(state, live, target, double)
        _newton(task, single, state, live, ROUGH)
        for product in (single, single, double, double):
            _refresh(state, live, target, double)
            live = _newton(task, product, state, live, TOLERANCE)
            if not live.size:
                break
        return len(live)

    left = _in_teams(settle, len(members))
    if left:
        _warn(left)
    return state


def _in_teams(settle: Callable[[Models], int], subsets: int) -> int:
    """Settle all subsets, by as many teams at a time as BLAS has threads; subsets of all sizes are in each."""
    blas = ThreadpoolController().select(user_api="blas")
    threads = max((pool["num_threads"] for pool in blas.info()), default=1)
    teams = min(threads, subsets // TEAM)
    if teams < 2:  # noqa: PLR2004
        return settle(np.arange(subsets))
    with blas.limit(limits=1), ThreadPoolExecutor(teams) as pool:
        return sum(pool.map(settle, (np.arange(team, subsets, teams) for team in range(teams))))


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What Newton's method needs to know."""

    target: Floats
    C: Floats
    reach: Floats
    sketch: Sketch


def _nothing(members: Mask, target: Floats) -> DualSolution:
    zeros = np.zeros((len(members), *target.shape))
    return DualSolution(zeros, zeros.copy(), best_intercept(zeros, target, zeros[:, :, 0]))


def _refresh(state: DualSolution, models: Models, target: Floats, double: Product) -> None:
    """Compute values anew, free of what rounding in single precision has left in them."""
    values = double(models, state.dual[models])
    state.values[models] = values
    state.intercept[models] = best_intercept(values, target, state.intercept[models])


def _newton(task: _Task, product: Product, state: DualSolution, live: Models, tolerance: float) -> Models:
    """Improve some models of `state`, in place, until the bound of each is under the tolerance.

    At most `STEPS` times; a model that no part of a step improves (rounding, or a number that is not finite) stays
    where it is. Returns the models that were not there already.
    """
    moved = np.zeros(len(state.dual), np.bool_)
    for _ in range(STEPS):
        old = state.dual[live], state.values[live], state.intercept[live]
        proba = inverse_link(old[1] + old[2][:, :, None])
        residual = old[0] - task.C[live, None, None] * (task.target - proba)
        slope = product(live, residual)
        energy = np.maximum(dot(residual, slope), 0)
        bound = task.reach[live] * np.sqrt(energy)
        far = ~(bound <= tolerance)  # so that NaN counts as far
        if not far.any():
            break
        live, slope = live[far], slope[far]
        curvature = Curvature.at(proba[far], task.C[live], slope.dtype)
        system = NewtonSystem(product, live, curvature, task.sketch.solver(curvature, live))
        direction, image = system.solve(slope, energy[far], bound[far])
        change = direction - residual[far], image - slope
        moved[live] = True
        better, new = _descend([part[far] for part in old], change, task.target, task.C[live])
        live = live[better]
        state.dual[live], state.values[live], state.intercept[live] = new
    return np.flatnonzero(moved)


def _descend(
    old: Sequence[Floats], step: Sequence[Floats], target: Floats, C: Floats
) -> tuple[Mask, tuple[Floats, Floats, Floats]]:
    """Take the step, or for subsets whose objective would grow as small a part of it as it takes.

    Returns which subsets got on, and where these are now.
    """
    (dual, values, intercept), (change, moved) = old, step
    before = C * loss(values + intercept[:, :, None], target)
    linear, square = dot(dual, moved), dot(change, moved) / 2
    part = np.ones(len(dual))[:, None, None]
    for _ in range(HALVINGS):
        new_dual, new_values = dual + part * change, values + part * moved
        new_intercept = best_intercept(new_values, target, intercept)
        taken = part[:, 0, 0]
        after = C * loss(new_values + new_intercept[:, :, None], target) + taken * (linear + taken * square)
        better = after <= before + SLACK * np.abs(before)
        if better.all():
            break
        part[~better] /= 2
    return better, (new_dual[better], new_values[better], new_intercept[better])


def _warn(count: int) -> None:
    from sklearn.exceptions import ConvergenceWarning

    warnings.warn(
        f"{count} subsets did not reach the optimum; use a smaller C", ConvergenceWarning, stacklevel=3
    )
