"""The paper's head, Dropout -> Dense, trained as Keras trains it but in NumPy: no TensorFlow, fifty times faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from featstore.fusion.linear import probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]
    History = dict[str, list[float]]

LEVELS = 2**16


@dataclass(frozen=True, slots=True)
class Regimen:
    """How a head is trained.

    Attributes
    ----------
    learning_rate
        Adam's step.
    batch_size
        Rows per step; the last batch of an epoch is smaller, as in Keras.
    epochs
        Passes over the training rows, at most.
    dropout
        Probability that an input is zeroed, 0 to below 1, in steps of 2^-16; the others are scaled up.
    patience
        Stop after so many epochs without a lower validation loss and go back to the best one; None trains to the end.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    dropout: float = 0.0
    patience: int | None = None


class Head:
    """Dense layer: weights ``(k, d)`` and bias ``(k,)`` as two windows on one float32 vector.

    k is 1 for two classes (sigmoid) and the number of classes otherwise (softmax). One vector, so that the optimiser
    moves weights and bias in one sweep.
    """

    def __init__(self, weights: Float32s, bias: Float32s) -> None:
        self.parameters = np.concatenate([weights.ravel(), bias]).astype(np.float32)
        self.weights, self.bias = windows(self.parameters, weights.shape)

    @classmethod
    def draw(cls, n_logits: int, width: int, rng: np.random.Generator) -> Head:
        """Glorot-uniform weights (Glorot & Bengio 2010), zero bias."""
        limit = np.sqrt(6.0 / (width + n_logits))
        weights = rng.uniform(-limit, limit, (n_logits, width)).astype(np.float32)
        return cls(weights, np.zeros(n_logits, np.float32))

    def logits(self, X: Float32s) -> Float32s:
        """Logits ``(n, k)`` of ``X (n, d)``."""
        return X @ self.weights.T + self.bias


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1 with epsilon as in Keras) on one float32 vector.

    Keras keeps ``m += (g - m)(1 - b1)``. Here the moments are kept without the factors ``1 - b1`` and ``1 - b2``,
    which move into two scalars: the same numbers in exact arithmetic, three sweeps over the vector fewer.
    """

    BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7

    def __init__(self, size: int, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.steps = 0
        self._first, self._second = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._update = np.empty(size, np.float32)

    def step(self, parameters: Float32s, gradient: Float32s) -> None:
        """Move `parameters` in place; `gradient` is used up as scratch space."""
        self.steps += 1
        correction = np.sqrt(1 - self.BETA_2**self.steps) / (1 - self.BETA_1**self.steps)
        unit = np.sqrt(1 - self.BETA_2)
        self._first *= self.BETA_1
        self._first += gradient
        np.multiply(gradient, gradient, out=gradient)
        self._second *= self.BETA_2
        self._second += gradient
        np.sqrt(self._second, out=gradient)
        gradient += float(self.EPSILON / unit)
        np.divide(self._first, gradient, out=self._update)
        self._update *= float(self.learning_rate * correction * (1 - self.BETA_1) / unit)
        parameters -= self._update


class Trainer:
    """Mini-batch training of one head; buffers are allocated once.

    The loss is cross-entropy **from logits**, which is what Keras computes in `fit` for a Dense layer with sigmoid or
    softmax: it looks through the activation, so a saturated row still has a gradient. (Its clipping of
    probabilities to 1e-7 applies only where it cannot see the activation.)

    Parameters
    ----------
    head
        Trained in place.
    regimen
        Batch size, rates; `epochs` and `patience` are the business of `train`.
    rng
        Source of dropout masks.
    """

    def __init__(self, head: Head, regimen: Regimen, rng: np.random.Generator) -> None:
        self.head, self.batch_size, self.rng = head, regimen.batch_size, rng
        self.optimiser = Adam(len(head.parameters), regimen.learning_rate)
        self._kept_levels = LEVELS - round(regimen.dropout * LEVELS)
        self._gain = LEVELS / self._kept_levels
        shape = (regimen.batch_size, head.weights.shape[1])
        self._batch, self._mask = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._gradient = np.empty_like(head.parameters)
        self._weight_gradient, self._bias_gradient = windows(self._gradient, head.weights.shape)

    def epoch(self, X: Float32s, targets: Float32s, order: NDArray[np.intp]) -> Float32s:
        """One pass over the rows `order` of ``X (n, d)`` and ``targets (n, k)``; returns the logits on the way."""
        met = np.empty((len(order), targets.shape[1]), np.float32)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            met[start : start + len(rows)] = self._step(X, targets, rows)
        return met

    def _step(self, X: Float32s, targets: Float32s, rows: NDArray[np.intp]) -> Float32s:
        batch = self._batch[: len(rows)]
        X.take(rows, axis=0, out=batch, mode="clip")
        if self._gain > 1:
            batch *= self._draw_mask(len(rows))
        head = self.head
        # The gain of inverted dropout rides on the logits and their slope: k numbers a row instead of d.
        logits = (batch @ head.weights.T) * self._gain + head.bias
        slope = (activate(logits) - targets[rows]) / len(rows)
        np.matmul((slope * self._gain).T, batch, out=self._weight_gradient)
        slope.sum(axis=0, out=self._bias_gradient)
        self.optimiser.step(head.parameters, self._gradient)
        return logits

    def _draw_mask(self, n_rows: int) -> Float32s:
        # Sixteen raw bits decide an input: four times cheaper than a uniform float each.
        mask = self._mask[:n_rows]
        raw = self.rng.bit_generator.random_raw(-(-mask.size // 4)).view(np.uint16)[: mask.size]
        return np.less(raw.reshape(mask.shape), self._kept_levels, out=mask)


def train(
    head: Head,
    regimen: Regimen,
    data: tuple[Float32s, Float32s],
    validation: tuple[Float32s, Float32s],
    shuffle: np.random.Generator,
    dropout: np.random.Generator,
) -> History:
    """Train `head` in place and return its learning curves.

    Parameters
    ----------
    head, regimen
        What to train, and how.
    data, validation
        ``X (n, d)`` and targets ``(n, k)``, float32. With no validation rows the ``val_`` curves are empty
        and `patience` has nothing to watch.
    shuffle, dropout
        Sources of the order of rows and of the masks.

    Returns
    -------
    ``loss, accuracy, val_loss, val_accuracy``, one number per epoch. As in Keras, the first two are taken on the way,
    with dropout and changing weights.
    """
    trainer = Trainer(head, regimen, dropout)
    history: History = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    best, best_epoch = head.parameters.copy(), -1
    for epoch in range(regimen.epochs):
        order = shuffle.permutation(len(data[0]))
        _record(history, "", trainer.epoch(*data, order), data[1][order])
        if not len(validation[0]):
            continue
        _record(history, "val_", head.logits(validation[0]), validation[1])
        if regimen.patience is None:
            continue
        if best_epoch < 0 or history["val_loss"][-1] < history["val_loss"][best_epoch]:
            best, best_epoch = head.parameters.copy(), epoch
        if epoch - best_epoch >= regimen.patience:
            break
    if best_epoch >= 0:
        head.parameters[:] = best
    return history


def activate(logits: Float32s) -> Float32s:
    """Probability of each output: sigmoid of a single column, softmax of more. ``(n, k)`` to ``(n, k)``."""
    activated: Float32s = expit(logits) if logits.shape[1] == 1 else probabilities(logits)
    return activated


def encode(y: NDArray[np.intp], n_classes: int) -> Float32s:
    """Targets ``(n, k)``: the class number itself for two classes, one-hot for more."""
    one_hot: Float32s = np.eye(n_classes, dtype=np.float32)[y]
    return one_hot[:, 1:] if n_classes == 2 else one_hot  # noqa: PLR2004


def windows(vector: Float32s, shape: tuple[int, ...]) -> tuple[Float32s, Float32s]:
    """Weights ``(k, d)`` and bias ``(k,)`` as views of one vector ``(k * d + k,)``."""
    size = shape[0] * shape[1]
    return vector[:size].reshape(shape), vector[size:]


def cross_entropy(logits: Float32s, targets: Float32s) -> Float32s:
    """Cross-entropy ``(n,)`` in nats from logits ``(n, k)`` and targets ``(n, k)``."""
    if logits.shape[1] == 1:
        soft: Float32s = np.logaddexp(0, logits * (1 - 2 * targets))[:, 0]
        return soft
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss: Float32s = np.log(np.exp(shifted).sum(axis=1)) - (shifted * targets).sum(axis=1)
    return loss


def _record(history: History, prefix: str, logits: Float32s, targets: Float32s) -> None:
    right = _decide(logits) == _decide(targets - 0.5)
    history[f"{prefix}loss"].append(float(cross_entropy(logits, targets).mean(dtype=np.float64)))
    history[f"{prefix}accuracy"].append(float(right.mean()))


def _decide(logits: Float32s) -> NDArray[np.intp]:
    winners: NDArray[np.intp] = probabilities(logits).argmax(axis=1)
    return winners
