"""Learning rates over the course of a training, named as in Keras."""

from __future__ import annotations

from math import cos, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLATEAU = "reduce_on_plateau"
PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_DELTA = 0.1, 10, 1e-4
LAST = 0.01

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "piecewise_constant": lambda done: 1.0 if done < 1 / 2 else 0.1 if done < 3 / 4 else 0.01,
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
    "exponential": lambda done: LAST**done,
    PLATEAU: lambda _: 1.0,
}
"""Factor on the learning rate by the part of all steps that is done, 0 to 1: Keras' `PiecewiseConstantDecay` (a tenth
at a half and again at three quarters), `CosineDecay` and `ExponentialDecay` (to a hundredth) over the training."""


def plateau_factor(losses: Sequence[float]) -> float:
    """Factor after epochs with these losses, by the rule and defaults of Keras' `ReduceLROnPlateau`."""
    best, waited, factor = float("inf"), 0, 1.0
    for loss in losses:
        if loss < best - PLATEAU_DELTA:
            best, waited = loss, 0
            continue
        waited += 1
        if waited >= PLATEAU_PATIENCE:
            factor, waited = factor * PLATEAU_FACTOR, 0
    return factor
