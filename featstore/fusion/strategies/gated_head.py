"""Attention over backbones: a gate weighs each backbone anew for every image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.special import softmax

from featstore.fusion.neural import HiddenStrategy
from featstore.fusion.training import Dense, Gate, ParameterVector, dense_size, gate_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from featstore.types import Block

    Floats = NDArray[Any]


class GatedAttention:
    """Each block projected to ``u`` units ``h_b``; logits are a dense layer on ``sum_b a_b h_b``.

    The gate is ``a = softmax_b(w . (tanh(V h_b) * sigmoid(U h_b)))``, with V, U and w shared by the blocks.
    """

    def __init__(
        self, blocks: Sequence[Block], n_units: int, n_logits: int, dtype: type[np.floating[Any]]
    ) -> None:
        size = sum(dense_size(block.width, n_units) for block in blocks)
        vector = ParameterVector(size + gate_size(n_units) + dense_size(n_units, n_logits), dtype)
        self.parameters, self.gradient = vector.parameters, vector.gradient
        self._blocks = blocks
        self.projections = [Dense(vector, block.width, n_units) for block in blocks]
        self.gate, self.output = Gate(vector, n_units), Dense(vector, n_units, n_logits)

    def initialise(self, rng: np.random.Generator) -> None:
        """Weights that project blocks of variance one to units of variance one; Glorot-uniform behind."""
        for projection in self.projections:
            projection.initialise(rng, 1.0)
        for part in (self.gate, self.output):
            part.initialise(rng)

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``."""
        parts = [
            projection.forward(X[:, block.start : block.stop], gain)
            for projection, block in zip(self.projections, self._blocks, strict=True)
        ]
        self._projected = np.stack(parts, axis=1)
        flat = self._projected.reshape(-1, self._projected.shape[2])
        self.attention = softmax(self.gate.forward(flat).reshape(len(X), -1), axis=1)
        return self.output.forward(np.einsum("nb,nbu->nu", self.attention, self._projected))

    def backward(self, slope: Floats) -> None:
        """Write the gradient."""
        self.output.backward(slope)
        merged = self.output.backward_input(slope)
        projected = self.attention[:, :, None] * merged[:, None, :]
        by_attention = np.einsum("nu,nbu->nb", merged, self._projected)
        centred = by_attention - (self.attention * by_attention).sum(axis=1, keepdims=True)
        projected += self.gate.backward((self.attention * centred).reshape(-1, 1)).reshape(projected.shape)
        for i, projection in enumerate(self.projections):
            projection.backward(projected[:, i])

    def input_weight_gradient(self, columns: slice) -> Floats:
        """Window on the gradients of the weights of a block."""
        starts = [block.start for block in self._blocks]
        return self.projections[starts.index(columns.start)].weight_gradient


class GatedHead(HiddenStrategy):
    """Feature-level fusion by gated attention: which backbone counts is decided image by image.

    Parameters and attributes are those of `featstore.fusion.neural.HiddenStrategy`; `attention` reads the gate. The
    gate says what the model uses, not what is right: it is no evidence that a backbone is better.

    References
    ----------
    Ilse, Tomczak & Welling 2018, Attention-based deep multiple instance learning, ICML (gated form, equation 9), with
    backbones in the place of instances.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 4.0
    copies: ClassVar[float] = 4.5
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 2

    def attention(self, X: ArrayLike) -> NDArray[np.float64]:
        """Gate weights ``(n, n_blocks)`` of each row of ``X (n, d)``; every row sums to one."""
        features = self._check_features(X)
        network = self._restored()
        gates = []
        for part in self._scaled(features):
            network.forward(part)
            gates.append(network.attention)
        return np.concatenate(gates)

    def _network(self, n_logits: int, dtype: type[np.floating[Any]]) -> GatedAttention:
        return GatedAttention(self.blocks_, self.units, n_logits, dtype)
