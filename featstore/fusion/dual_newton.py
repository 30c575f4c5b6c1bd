"""L2 logistic regressions over many subsets of blocks at once, solved in the dual to a certified accuracy.

Gram matrices make that cheap: a linear model over any subset of backbones needs only their sum. Arrays of the
multinomial likelihood are ``(models, logits, rows)``; one logit is that of the second of two classes, and with more
classes every class has its own (softmax).
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.special import expit
from threadpoolctl import ThreadpoolController

from featstore.fusion.strategy import split_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from featstore.types import Block

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]
    Models = NDArray[np.intp]
    Product = Callable[[Models, Floats], Floats]

# Newton's method

TOLERANCE = 1e-7
"""On any logit, by the bound in `solve`; in effect errors are far smaller."""
INITIAL_ERROR = 50.0
"""The same, of the first guess: what the sketch leaves out is worth no more digits."""
ROUGH = 0.01
"""The same, until values are computed in float64: later steps are short, and so is their rounding."""
STEPS = 30
HALVINGS = 40
SUBSETS_PER_THREAD = 16
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
        return multiply_gram(kernels, members, self.dual) + self.intercept[:, :, None]


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

    Where BLAS may use several threads, so many groups are solved at a time, with one thread each: a product
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
        ``(logits, n)``, see `targets`.
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
    state = _zero_solution(members, target) if start is None else start.copy()

    def double(models: Models, A: Floats) -> Floats:
        return multiply_gram(kernels, members[models], A)

    def single(models: Models, A: Floats) -> Floats:
        return multiply_gram(coarse, members[models], A.astype(np.float32))

    def settle(live: Models) -> int:
        """Solve for some subsets, in place; how many did not get there."""
        if start is None:
            _newton(task, sketch.times, state, live, INITIAL_ERROR)
            _refresh(state, live, target, double)
        _newton(task, single, state, live, ROUGH)
        for product in (single, single, double, double):
            _refresh(state, live, target, double)
            live = _newton(task, product, state, live, TOLERANCE)
            if not live.size:
                break
        return len(live)

    left = in_threads(settle, len(members))
    if left:
        _warn(left)
    return state


def in_threads(settle: Callable[[Models], int], subsets: int, least: int = SUBSETS_PER_THREAD) -> int:
    """Settle all subsets, by as many groups at a time as BLAS has threads; subsets of all sizes are in each.

    Returns the sum of what `settle` returned; a group has `least` subsets or more.
    """
    blas = ThreadpoolController().select(user_api="blas")
    threads = max((pool["num_threads"] for pool in blas.info()), default=1)
    teams = min(threads, subsets // least)
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


def _zero_solution(members: Mask, target: Floats) -> DualSolution:
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


# The multinomial likelihood of many models at once

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


# The linear systems of a Newton step, of many models at once, by conjugate gradients

INNER_STEPS = 300
FORCING = 0.001, 0.1
"""Least and largest error of a step relative to the step; between them it is `EASE` by the root of the bound."""
EASE = 0.01
FLOOR = 10
"""Residuals end at so many units of rounding."""
FEW = 0.3
"""A product for few models costs nearly what one for all does: such a part of them can wait for the next step."""


@dataclass(frozen=True, slots=True, eq=False)
class NewtonSystem:
    """``(I + Q L' K L Q) u = Q L' K r``: a Newton step of every model, Q projects the intercepts out.

    Attributes
    ----------
    product
        Multiplies some models' ``(m, logits, n)`` by their K; it is called for those only that are not done.
    models
        Numbers of the models, as `product` knows them.
    curvature
        The L and the Q.
    precondition
        Approximate inverse of ``I + L' K L``.
    """

    product: Product
    models: Models
    curvature: Curvature
    precondition: Callable[[Floats], Floats]

    def solve(self, slope: Floats, energy: Floats, bound: Floats) -> tuple[Floats, Floats]:
        """Return ``L u`` and ``K L u`` ``(models, logits, n)`` float64.

        Seen from w an error e of u costs ``e' L'KL (I + L'KL) e``, at most the squared residual of this system. A
        model stops when that is a small part (the smaller, the nearer the optimum) of what its step gains; all stop
        when few are left.

        Parameters
        ----------
        slope, energy
            ``K r`` and ``r'Kr``; the step gains ``r'Kr - (L'Kr)' u``.
        bound
            ``(models,)``: how far any logit can be from the optimum.
        """
        forcing = np.clip(EASE * np.sqrt(bound), *FORCING)
        project, times = self.curvature.project, self.curvature.times
        right = project(self.curvature.transposed(slope))
        residual = right.copy()
        solution, image, direction, moved = (np.zeros_like(right) for _ in range(4))
        better = project(self.precondition(residual))
        left = dot(residual, better)
        before, least = np.zeros_like(left), (FLOOR * np.finfo(right.dtype).eps) ** 2 * dot(right, right)
        going = np.ones(len(right), np.bool_)
        for _ in range(INNER_STEPS):
            gain = np.maximum(energy - dot(right, solution), 0)
            going &= dot(residual, residual) > np.maximum(forcing**2 * gain, least)
            if going.mean() <= FEW:
                break
            direction = better + _ratio(left, before, going) * direction
            moved[going] = self.product(self.models[going], times(direction)[going])
            product = direction + project(self.curvature.transposed(moved))
            length = _ratio(left, dot(direction, product), going)
            solution += length * direction
            image += length * moved
            residual -= length * product
            better = project(self.precondition(residual))
            before, left = left, dot(residual, better)
        return times(solution).astype(np.float64), image.astype(np.float64)


def dot(a: Floats, b: Floats) -> Floats:
    """Inner products ``(models,)`` of ``(models, logits, n)``."""
    product: Floats = np.einsum("skn,skn->s", a, b)
    return product


def _ratio(a: Floats, b: Floats, where: Mask) -> Floats:
    """``a / b`` where wanted and possible, else zero; ``(models, 1, 1)``."""
    return np.divide(a, b, out=np.zeros_like(a), where=where & (b > 0))[:, None, None]


# A preconditioner for many Newton systems: what the leading directions of all blocks explain

RANK = 64
JITTER = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """Every subset's Gram matrix as ``U B U' + tail I``, with one basis U for all subsets.

    U spans about the leading eigenvectors of the sum over all blocks (two rounds of subspace iteration, Halko et al.
    2011); B is, like the Gram matrix, a sum over the blocks of the subset.

    Attributes
    ----------
    basis
        ``(n, rank)``, orthonormal.
    cores
        ``(subsets, rank, rank)``: the B.
    inverses
        Of the B; where a subset lacks a direction it is given a little of it.
    tails
        ``(subsets,)``: mean of the eigenvalues that U leaves out.
    """

    basis: Floats
    cores: Floats
    inverses: Floats
    tails: Floats

    @classmethod
    def of(cls, kernels: Sequence[Kernel], members: Mask) -> Self:
        """Sketch the kernels, in their precision."""
        n = kernels[0].rows
        everyone = np.ones((1, len(kernels)), np.bool_)
        start = np.random.default_rng(0).normal(size=(1, min(RANK, n), n)).astype(kernels[0].inner.dtype)
        for _ in range(2):
            start = np.linalg.qr(multiply_gram(kernels, everyone, start)[0].T)[0].T[None]
        basis = start[0].T
        cores = np.stack([kernel.times(basis.T) @ basis for kernel in kernels])
        cores = (cores + cores.swapaxes(1, 2)) / 2
        left_out = [k.diagonal().sum() - np.trace(core) for k, core in zip(kernels, cores, strict=True)]
        weights = members.astype(basis.dtype)
        tails = weights @ np.array(left_out, basis.dtype) / n
        sums = np.tensordot(weights, cores, axes=1)
        little = np.maximum(JITTER * np.trace(sums, axis1=1, axis2=2), LEAST)
        inverses = np.linalg.inv(sums + little[:, None, None] * np.eye(basis.shape[1]))
        return cls(basis, sums, inverses, np.maximum(tails, 0))

    def times(self, models: NDArray[np.intp], A: Floats) -> Floats:
        """Multiply ``(models, logits, n)`` by the sketched matrices of some of the subsets."""
        return ((A @ self.basis) @ self.cores[models]) @ self.basis.T + self.tails[models, None, None] * A

    def solver(self, curvature: Curvature, models: NDArray[np.intp]) -> Callable[[Floats], Floats]:
        """Approximate inverse of ``I + L' K L`` for some of the subsets, logit by logit, by Woodbury's identity."""
        weight = curvature.root**2
        scaling = 1 + self.tails[models, None, None] * weight
        arm = curvature.root / scaling
        # Not B (I + G B)^-1: that leaves 1/eigenvalue of what it subtracts from one, too little for float32.
        inner = _inverse(self.inverses[models, None] + self._moments(weight / scaling)).astype(weight.dtype)

        def solve(values: Floats) -> Floats:
            inside = (arm * values) @ self.basis
            return values / scaling - arm * ((inner @ inside[..., None])[..., 0] @ self.basis.T)

        return solve

    def _moments(self, weight: Floats) -> Floats:
        """``U' diag(w) U`` for each model and logit, ``(models, logits, rank, rank)``."""
        rows = weight.reshape(-1, len(self.basis), 1)
        moments = np.stack([(row * self.basis).T @ self.basis for row in rows])
        return moments.reshape(*weight.shape[:2], *moments.shape[1:])


def _inverse(A: Floats) -> Floats:
    """Inverses of positive definite matrices ``(..., rank, rank)``, three times as fast as numpy's."""
    rank = A.shape[-1]
    out = np.empty(A.shape, A.dtype)
    for matrix, inverse in zip(A.reshape(-1, rank, rank), out.reshape(-1, rank, rank), strict=True):
        factor, _ = dpotrf(matrix)
        upper = dpotri(factor)[0]
        inverse[:] = np.triu(upper) + np.triu(upper, 1).T
    return out


# Gram matrices of standardised blocks


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Inner products ``Z_rows @ Z_columns.T`` of one block, as a matrix or as its two factors.

    Attributes
    ----------
    inner
        ``(columns, rows)``, or where `outer` is given ``(columns, d)``.
    outer
        ``(rows, d)``, or None. A block of few columns is quicker as two thin factors than as one square matrix.
    """

    inner: Floats
    outer: Floats | None

    @classmethod
    def of(cls, Z: Floats) -> Self:
        """Kernel of the rows of ``Z (n, d)`` among themselves."""
        return cls(Z, Z) if 2 * Z.shape[1] < len(Z) else cls(Z @ Z.T, None)

    @property
    def rows(self) -> int:
        """How many values it gives for one row of coefficients."""
        return self.inner.shape[1] if self.outer is None else len(self.outer)

    def times(self, A: Floats) -> Floats:
        """``(m, columns)`` coefficients to ``(m, rows)`` values."""
        inside: Floats = A @ self.inner
        return inside if self.outer is None else inside @ self.outer.T

    def between(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Kernel:
        """Part of it: what `rows` are to `columns`."""
        if self.outer is None:
            return Kernel(self.inner[np.ix_(columns, rows)], None)
        return Kernel(self.inner[columns], self.outer[rows])

    def astype(self, dtype: DTypeLike) -> Kernel:
        """Return the same in another precision."""
        inner = self.inner.astype(dtype, copy=False)
        if self.outer is self.inner:
            return Kernel(inner, inner)
        return Kernel(inner, None if self.outer is None else self.outer.astype(dtype, copy=False))

    def diagonal(self) -> Floats:
        """Inner product ``(n,)`` of each row with itself."""
        square: Floats = (
            self.inner.diagonal() if self.outer is None else np.einsum("nd,nd->n", self.inner, self.outer)
        )
        return square


def scaled_blocks(
    X: NDArray[Any], blocks: Sequence[Block], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Each block of ``(X - mean) * scale``, float64 ``(n, d)``."""
    parts = []
    for part, block in zip(split_columns(X, blocks), blocks, strict=True):
        scaled = part - mean[block.start : block.stop]
        scaled *= scale[block.start : block.stop]
        parts.append(scaled)
    return parts


def membership(subsets: Sequence[Sequence[str]], blocks: Sequence[Block]) -> Mask:
    """``(subsets, blocks)``: which block is in which subset."""
    return np.array([[block.name in subset for block in blocks] for subset in subsets], dtype=np.bool_)


def multiply_gram(kernels: Sequence[Kernel], members: Mask, A: Floats) -> Floats:
    """Multiply each subset's coefficients by that subset's Gram matrix, the sum of its blocks'.

    One product per block serves all the subsets that contain it; no subset's matrix is ever formed.

    Parameters
    ----------
    kernels
        One per block, all of one shape ``(rows, columns)``.
    members
        ``(subsets, blocks)``, see `membership`.
    A
        ``(subsets, logits, columns)``.

    Returns
    -------
    ``(subsets, logits, rows)``.
    """
    n_subsets, n_logits, n_columns = A.shape
    out = np.zeros((n_subsets, n_logits, kernels[0].rows), A.dtype)
    for kernel, where in zip(kernels, members.T, strict=True):
        if where.any():
            product = kernel.times(A[where].reshape(-1, n_columns))
            out[where] += product.reshape(-1, n_logits, out.shape[2])
    return out
