"""Concatenate the backbones' vectors, then Dropout and a perceptron with one hidden layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.neural import HiddenStrategy
from featstore.fusion.training import Dense, ParameterVector, dense_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]


class Perceptron:
    """Dense, ReLU, Dense."""

    def __init__(self, widths: tuple[int, int, int], n_blocks: int, dtype: type[np.floating[Any]]) -> None:
        n_in, n_units, n_logits = widths
        vector = ParameterVector(dense_size(n_in, n_units) + dense_size(n_units, n_logits), dtype)
        self.parameters, self.gradient = vector.parameters, vector.gradient
        self.hidden, self.output = Dense(vector, n_in, n_units), Dense(vector, n_units, n_logits)
        self._variance = n_blocks

    def initialise(self, rng: np.random.Generator) -> None:
        """Weights that give hidden units of variance one from blocks of variance one; Glorot-uniform behind."""
        self.hidden.initialise(rng, self._variance)
        self.output.initialise(rng)

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``."""
        self._active = np.maximum(self.hidden.forward(X, gain), 0)
        return self.output.forward(self._active)

    def backward(self, slope: Floats) -> None:
        """Write the gradient."""
        self.output.backward(slope)
        self.hidden.backward(self.output.backward_input(slope) * (self._active > 0))

    def input_weight_gradient(self, columns: slice) -> Floats:
        """Window on the gradients of the weights of these columns."""
        return self.hidden.weight_gradient[:, columns]


class ConcatMlp(HiddenStrategy):
    """Feature-level fusion by a multilayer perceptron: concatenate, Dropout, Dense, ReLU, Dense.

    Parameters and attributes are those of `featstore.fusion.neural.HiddenStrategy`.

    References
    ----------
    Rumelhart, Hinton & Williams 1986, Nature 323; ReLU: Glorot, Bordes & Bengio 2011; dropout: Srivastava et al.
    2014.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 3.3
    copies: ClassVar[float] = 4.5
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1

    def _network(self, n_logits: int, dtype: type[np.floating[Any]]) -> Perceptron:
        return Perceptron((self.n_features_in_, self.units, n_logits), len(self.blocks_), dtype)
