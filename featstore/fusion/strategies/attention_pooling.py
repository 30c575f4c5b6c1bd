"""For patients: gated attention over the images, which weighs them before one answer is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featstore.fusion.linear import LinearModel, PooledLogits, number_bags
from featstore.fusion.neural import HiddenStrategy
from featstore.fusion.training import Dense, Gate, ParameterVector, dense_size, gate_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[Any]


class AttentionOverImages:
    """All columns projected to ``u`` units ``h_i``; logits of a bag are a dense layer on ``sum_i a_i h_i``.

    The weights are ``a = softmax_i(w . (tanh(V h_i) * sigmoid(U h_i)))`` over the images of the bag.
    """

    def __init__(
        self, width: int, n_blocks: int, n_units: int, n_logits: int, dtype: type[np.floating[Any]]
    ) -> None:
        size = dense_size(width, n_units) + gate_size(n_units) + dense_size(n_units, n_logits)
        vector = ParameterVector(size, dtype)
        self.parameters, self.gradient = vector.parameters, vector.gradient
        self._variance = float(n_blocks)
        self.projection = Dense(vector, width, n_units)
        self.gate, self.output = Gate(vector, n_units), Dense(vector, n_units, n_logits)

    def initialise(self, rng: np.random.Generator) -> None:
        """Weights that project blocks of variance one to units of variance one; Glorot-uniform behind."""
        self.projection.initialise(rng, self._variance)
        for part in (self.gate, self.output):
            part.initialise(rng)

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``, each row a bag of its own."""
        return self.forward_bags(X, np.arange(len(X)), gain)

    def forward_bags(self, X: Floats, heads: NDArray[np.intp], gain: float = 1.0) -> Floats:
        """Logits ``(len(heads), k)`` of ``gain * X``, ``X (n, d)``, whose bags begin at the rows `heads`."""
        self._heads, self._sizes = heads, np.diff(np.append(heads, len(X)))
        self._units = self.projection.forward(X, gain)
        scores = self.gate.forward(self._units)[:, 0]
        parts = np.exp(scores - np.repeat(np.maximum.reduceat(scores, heads), self._sizes))
        self.attention = parts / np.repeat(np.add.reduceat(parts, heads), self._sizes)
        return self.output.forward(np.add.reduceat(self.attention[:, None] * self._units, heads))

    def backward(self, slope: Floats) -> None:
        """Write the gradient."""
        self.output.backward(slope)
        pooled = np.repeat(self.output.backward_input(slope), self._sizes, axis=0)
        by_attention = (pooled * self._units).sum(axis=1)
        mean = np.add.reduceat(self.attention * by_attention, self._heads)
        by_score = self.attention * (by_attention - np.repeat(mean, self._sizes))
        self.projection.backward(self.attention[:, None] * pooled + self.gate.backward(by_score[:, None]))

    def input_weight_gradient(self, columns: slice) -> Floats:
        """Window on the gradients of the weights of these columns."""
        return self.projection.weight_gradient[:, columns]


class AttentionPooling(PooledLogits, HiddenStrategy):
    """Feature-level fusion for patients by gated attention: which images count is decided patient by patient.

    Parameters and attributes are those of `featstore.fusion.neural.HiddenStrategy`; a step is of `batch_size` whole
    patients. Dropout is 0.5, as of a single layer, which the projection is: patients are few. Vectors are projected
    without a hidden nonlinearity, so that a patient's logit is the weighted mean of what the model says of each image
    by itself, and every image has an exact evidence map. `image_weights` reads the attention: it says what the model
    used, and is no proof that a finding is in that image.

    References
    ----------
    Ilse, Tomczak & Welling 2018, Attention-based deep multiple instance learning, ICML (gated form, equation 9).
    """

    level: ClassVar[str] = "feature"
    unit: ClassVar[str] = "group"
    price: ClassVar[float] = 1.8
    copies: ClassVar[float] = 4.5
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        units: int = 32,
        dropout: float = 0.5,
        learning_rate: float | None = None,
        batch_size: int | None = 16,
        epochs: int = 40,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        standardize: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        optimizer: str = "adam",
        schedule: str = "constant",
        class_weight: str | Mapping[Any, float] | None = None,
    ) -> None:
        super().__init__(
            blocks,
            units,
            dropout,
            learning_rate,
            batch_size,
            epochs,
            validation_fraction,
            patience,
            standardize,
            random_state,
            optimizer,
            schedule,
            class_weight,
        )

    def linear_logits(self) -> LinearModel:
        """Logits of an image by itself, which are a linear function of its columns."""
        check_is_fitted(self)
        network = self._restored()
        coef = network.output.weights @ network.projection.weights
        intercept = network.output.weights @ network.projection.bias + network.output.bias
        return LinearModel(coef, intercept, self.mean_, self.scale_)

    def _image_scores(self, X: NDArray[Any]) -> NDArray[np.float64]:
        network = self._restored()
        parts = [network.gate.forward(network.projection.forward(part)) for part in self._scaled(X)]
        return np.concatenate(parts)[:, 0]

    def _bags(self, y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> NDArray[np.intp]:
        return number_bags(y, groups)

    def _network(self, n_logits: int, dtype: type[np.floating[Any]]) -> AttentionOverImages:
        return AttentionOverImages(self.n_features_in_, len(self.blocks_), self.units, n_logits, dtype)
