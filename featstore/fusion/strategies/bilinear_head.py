"""Low-rank bilinear pooling: products of the backbones' projections, pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.neural import HiddenStrategy
from featstore.fusion.training import Dense, ParameterVector, dense_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[Any]


class LowRankBilinear:
    """Each block projected to ``u`` units ``h_b = tanh(x_b W_b + c_b)``; logits are a dense layer on two parts.

    The first is ``sum_b h_b``, Kim's shortcut; the second the sum of ``h_a * h_b`` over all pairs of blocks, which is
    ``((sum_b h_b)^2 - sum_b h_b^2) / 2`` and so costs no more than the blocks themselves.
    """

    def __init__(
        self, blocks: Sequence[Block], n_units: int, n_logits: int, dtype: type[np.floating[Any]]
    ) -> None:
        size = sum(dense_size(block.width, n_units) for block in blocks)
        vector = ParameterVector(size + dense_size(2 * n_units, n_logits), dtype)
        self.parameters, self.gradient = vector.parameters, vector.gradient
        self._blocks, self._n_units = blocks, n_units
        self.projections = [Dense(vector, block.width, n_units) for block in blocks]
        self.output = Dense(vector, 2 * n_units, n_logits)

    def initialise(self, rng: np.random.Generator) -> None:
        """Weights that project blocks of variance one to units of variance one; Glorot-uniform behind."""
        for projection in self.projections:
            projection.initialise(rng, 1.0)
        self.output.initialise(rng)

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``."""
        parts = [
            projection.forward(X[:, block.start : block.stop], gain)
            for projection, block in zip(self.projections, self._blocks, strict=True)
        ]
        self._units = np.tanh(np.stack(parts))
        self._total = self._units.sum(axis=0)
        pairs = (self._total**2 - (self._units**2).sum(axis=0)) / 2
        return self.output.forward(np.concatenate([self._total, pairs], axis=1))

    def backward(self, slope: Floats) -> None:
        """Write the gradient."""
        self.output.backward(slope)
        first, second = np.split(self.output.backward_input(slope), [self._n_units], axis=1)
        for projection, units in zip(self.projections, self._units, strict=True):
            projection.backward((first + second * (self._total - units)) * (1 - units**2))

    def input_weight_gradient(self, columns: slice) -> Floats:
        """Window on the gradients of the weights of a block."""
        starts = [block.start for block in self._blocks]
        return self.projections[starts.index(columns.start)].weight_gradient


class BilinearHead(HiddenStrategy):
    """Feature-level fusion by low-rank bilinear pooling: what two backbones see together counts, beside each alone.

    Parameters and attributes are those of `featstore.fusion.neural.HiddenStrategy`. Of a single block only the sum is
    left, a perceptron with tanh.

    References
    ----------
    Kim et al. 2017, Hadamard product for low-rank bilinear pooling, ICLR, with its shortcut; summed over pairs as in
    Rendle 2010, Factorization machines, ICDM.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 3.6
    copies: ClassVar[float] = 4.5
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 2

    def _network(self, n_logits: int, dtype: type[np.floating[Any]]) -> LowRankBilinear:
        return LowRankBilinear(self.blocks_, self.units, n_logits, dtype)
