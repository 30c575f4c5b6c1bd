"""Small networks over blocks of columns: parameters in one vector, forward and backward by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[Any]


class Network(Protocol):
    """What `featstore.fusion.training.train` can train.

    Attributes
    ----------
    parameters, gradient
        ``(size,)`` each; the layers are windows on them, so that an optimiser moves everything in one sweep.
    """

    parameters: Floats
    gradient: Floats

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``: in training X comes masked, but not scaled up."""

    def backward(self, slope: Floats) -> None:
        """Write the gradient, given the slope ``(n, k)`` of the loss by the logits of the last `forward`."""

    def draw(self, rng: np.random.Generator) -> None:
        """First weights."""

    def reading(self, columns: slice) -> Floats:
        """Window on the gradients of the weights that multiply these input columns."""


class Dense:
    """Layer ``x @ weights.T + bias``: weights ``(n_out, n_in)`` and bias ``(n_out,)`` in a `Ledger`."""

    def __init__(self, ledger: Ledger, n_in: int, n_out: int) -> None:
        self.weights, self.weight_gradient = ledger.take((n_out, n_in))
        self.bias, self.bias_gradient = ledger.take((n_out,))

    def forward(self, x: Floats, gain: float = 1.0) -> Floats:
        """Outputs ``(n, n_out)`` of ``gain * x``, ``x (n, n_in)``."""
        self._x, self._gain = x, gain
        out: Floats = x @ self.weights.T
        # The gain of inverted dropout rides on n_out numbers a row instead of n_in.
        if gain != 1:
            out *= np.asarray(gain, out.dtype)
        out += self.bias
        return out

    def backward(self, slope: Floats) -> None:
        """Write the gradients, given the slope ``(n, n_out)`` of the loss by the outputs."""
        np.matmul((slope * np.asarray(self._gain, slope.dtype)).T, self._x, out=self.weight_gradient)
        slope.sum(axis=0, out=self.bias_gradient)

    def pull(self, slope: Floats) -> Floats:
        """Slope ``(n, n_in)`` of the loss by the inputs."""
        pulled: Floats = slope @ self.weights
        return pulled

    def draw(self, rng: np.random.Generator, variance: float | None = None) -> None:
        """Weights for inputs of a known total variance that give outputs of variance one; else Glorot-uniform."""
        n_out, n_in = self.weights.shape
        limit = np.sqrt(6.0 / (n_in + n_out) if variance is None else 3.0 / variance)
        self.weights[:] = rng.uniform(-limit, limit, (n_out, n_in))
        self.bias[:] = 0


class Ledger:
    """One vector of parameters and one of gradients, handed out as windows."""

    def __init__(self, size: int, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.parameters, self.gradient = np.zeros(size, dtype), np.zeros(size, dtype)
        self._taken = 0

    def take(self, shape: Sequence[int]) -> tuple[Floats, Floats]:
        """Next windows of this shape on parameters and gradient."""
        window = slice(self._taken, self._taken + int(np.prod(shape)))
        self._taken = window.stop
        return self.parameters[window].reshape(shape), self.gradient[window].reshape(shape)


def dense_size(n_in: int, n_out: int) -> int:
    """Parameters of a dense layer."""
    return (n_in + 1) * n_out
