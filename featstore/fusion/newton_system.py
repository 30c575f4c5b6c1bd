"""The linear systems of a Newton step, of many models at once, by conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from featstore.fusion.likelihood import Curvature

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]
    Models = NDArray[np.intp]
    Product = Callable[[Models, Floats], Floats]

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
