"""Optimisers by Keras' formulas and defaults, each one compiled sweep over the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.fusion.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]

EPSILON = np.float32(1e-7)
MOMENTUM = np.float32(0.9)
BETA_1, BETA_2 = 0.9, 0.999
FRESH_1, FRESH_2 = np.float32(1 - BETA_1), np.float32(1 - BETA_2)
RHO_DELTA, FRESH_DELTA = np.float32(0.95), np.float32(1 - 0.95)
RHO_RMS, FRESH_RMS = np.float32(0.9), np.float32(1 - 0.9)
ACCUMULATED = np.float32(0.1)


class Optimiser:
    """One of `RULES`, with its state: two float32 numbers per parameter.

    Parameters
    ----------
    name
        Key of `RULES`.
    size
        Number of parameters.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.steps, self._rule = name, 0, RULES[name]
        self._first = np.full(size, ACCUMULATED if name == "adagrad" else 0, np.float32)
        self._second = np.zeros(size, np.float32)

    def step(self, parameters: Float32s, gradient: Float32s, rate: float) -> None:
        """Move `parameters` ``(size,)`` in place, against `gradient`, by the learning rate `rate`."""
        self.steps += 1
        if self.name == "adam":
            rate *= np.sqrt(1 - BETA_2**self.steps) / (1 - BETA_1**self.steps)
        self._rule(parameters, gradient, self._first, self._second, np.float32(rate))


@compiled
def _sgd(w: Any, g: Any, _: Any, __: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        w[i] -= rate * g[i]


@compiled
def _momentum(w: Any, g: Any, velocity: Any, _: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        velocity[i] = MOMENTUM * velocity[i] - rate * g[i]
        w[i] += velocity[i]


@compiled
def _nag(w: Any, g: Any, velocity: Any, _: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        velocity[i] = MOMENTUM * velocity[i] - rate * g[i]
        w[i] += MOMENTUM * velocity[i] - rate * g[i]


@compiled
def _adagrad(w: Any, g: Any, total: Any, _: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        total[i] += g[i] * g[i]
        w[i] -= rate * g[i] / np.sqrt(total[i] + EPSILON)


@compiled
def _adadelta(w: Any, g: Any, gradients: Any, moves: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        gradients[i] = RHO_DELTA * gradients[i] + FRESH_DELTA * g[i] * g[i]
        move = np.sqrt(moves[i] + EPSILON) * g[i] / np.sqrt(gradients[i] + EPSILON)
        moves[i] = RHO_DELTA * moves[i] + FRESH_DELTA * move * move
        w[i] -= rate * move


@compiled
def _rmsprop(w: Any, g: Any, squares: Any, _: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        squares[i] = RHO_RMS * squares[i] + FRESH_RMS * g[i] * g[i]
        w[i] -= rate * g[i] / np.sqrt(squares[i] + EPSILON)


@compiled
def _adam(w: Any, g: Any, first: Any, second: Any, rate: Any) -> None:  # noqa: ANN401
    for i in range(len(w)):
        first[i] += (g[i] - first[i]) * FRESH_1
        second[i] += (g[i] * g[i] - second[i]) * FRESH_2
        w[i] -= rate * first[i] / (np.sqrt(second[i]) + EPSILON)


RULES: dict[str, Callable[..., None]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nag": _nag,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
    "rmsprop": _rmsprop,
    "adam": _adam,
}
"""Gradient descent; with momentum 0.9 (Polyak 1964); Nesterov 1983; Duchi et al. 2011; Zeiler 2012; Tieleman & Hinton
2012; Kingma & Ba 2015 (epsilon outside the root's correction, as in Keras)."""
