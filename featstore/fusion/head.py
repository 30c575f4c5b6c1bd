"""The paper's head, Dropout -> Dense: the smallest network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.fusion.network import Dense, Ledger, dense_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]


class Head:
    """Dense layer from ``d`` columns to ``k`` logits: 1 for two classes (sigmoid), else one per class (softmax)."""

    def __init__(self, width: int, n_logits: int, dtype: type[np.floating[Any]] = np.float32) -> None:
        ledger = Ledger(dense_size(width, n_logits), dtype)
        self.parameters, self.gradient = ledger.parameters, ledger.gradient
        self.dense = Dense(ledger, width, n_logits)

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``."""
        return self.dense.forward(X, gain)

    def backward(self, slope: Floats) -> None:
        """Write the gradient."""
        self.dense.backward(slope)

    def draw(self, rng: np.random.Generator) -> None:
        """Glorot-uniform weights (Glorot & Bengio 2010), zero bias."""
        self.dense.draw(rng)

    def reading(self, columns: slice) -> Floats:
        """Window on the gradients of the weights of these columns."""
        return self.dense.weight_gradient[:, columns]
