"""Mini-batch training as Keras trains, without TensorFlow and far faster: `benchmarks/head.py` prints the ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from threadpoolctl import threadpool_limits

from featstore.fusion.dropout import Dropout
from featstore.fusion.linear import probabilities
from featstore.fusion.optimisers import Optimiser
from featstore.fusion.schedules import PLATEAU, SCHEDULES, plateau_factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.fusion.network import Network
    from featstore.fusion.regimen import Regimen

    Float32s = NDArray[np.float32]
    History = dict[str, list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is learnt from, float32.

    Attributes
    ----------
    X
        ``(n, d)``.
    targets
        ``(n, k)``, as `encode` makes them.
    weights
        ``(n,)`` factors on the loss of each row; None stands for ones.
    images
        ``(n,)`` number of the image that each row is a view of. An epoch then takes one row of each image, drawn
        anew; None takes every row.
    """

    X: Float32s
    targets: Float32s
    weights: Float32s | None = None
    images: NDArray[np.intp] | None = None

    def order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of the next epoch, shuffled."""
        shuffled: NDArray[np.intp] = rng.permutation(len(self.X))
        if self.images is None:
            return shuffled
        drawn = np.unique(self.images[shuffled], return_index=True)[1]
        order: NDArray[np.intp] = shuffled[rng.permutation(drawn)]
        return order


class Trainer:
    """Mini-batch training of one network.

    The loss is cross-entropy **from logits**, which is what Keras computes in `fit` for a Dense layer with sigmoid or
    softmax: it looks through the activation, so a saturated row still has a gradient. (Its clipping of
    probabilities to 1e-7 applies only where it cannot see the activation.)

    Parameters
    ----------
    network
        Trained in place.
    regimen
        Batch size, rates; `patience` is the business of `train`.
    rng
        Source of dropout masks.
    frozen
        Columns whose weights stay.
    """

    def __init__(
        self,
        network: Network,
        regimen: Regimen,
        rng: np.random.Generator,
        frozen: Sequence[slice] = (),
    ) -> None:
        self.network, self.regimen = network, regimen
        self._silenced = [network.reading(columns) for columns in frozen]
        self._rng = rng
        self.optimiser = Optimiser(regimen.optimizer, len(network.parameters))
        self.factor = 1.0

    def epoch(self, data: Rows, order: NDArray[np.intp]) -> Float32s:
        """One pass over the rows `order`; returns the logits ``(len(order), k)`` on the way."""
        size = self.regimen.batch_size
        batch = np.empty((size, data.X.shape[1]), np.float32)
        dropout = Dropout(self.regimen.dropout, data.X.shape[1], self._rng)
        keys = dropout.keys(len(order))
        steps = -(-len(order) // size) * self.regimen.epochs
        met = np.empty((len(order), data.targets.shape[1]), np.float32)
        targets = data.targets[order]
        weights = None if data.weights is None else data.weights[order, None]
        for start in range(0, len(order), size):
            run = slice(start, start + size)
            rows = order[run]
            picked = batch[: len(rows)]
            dropout.pick(data.X, rows, keys[run], picked)
            met[run] = logits = self.network.forward(picked, dropout.gain)
            slope = (activate(logits) - targets[run]) / np.float32(len(rows))
            if weights is not None:
                slope *= weights[run]
            self._step(slope, steps)
        return met

    def _step(self, slope: Float32s, steps: int) -> None:
        self.network.backward(slope)
        for gradient in self._silenced:
            gradient[:] = 0
        rate = self.regimen.learning_rate * self.factor
        rate *= SCHEDULES[self.regimen.schedule](min(self.optimiser.steps / steps, 1.0))
        self.optimiser.step(self.network.parameters, self.network.gradient, rate)


def train(
    network: Network,
    regimen: Regimen,
    data: Rows,
    validation: Rows,
    shuffle: np.random.Generator,
    dropout: np.random.Generator,
    frozen: Sequence[slice] = (),
) -> History:
    """Train `network` in place and return its learning curves.

    Parameters
    ----------
    network, regimen
        What to train, and how.
    data, validation
        Rows. With no validation rows the ``val_`` curves are empty and `patience` has nothing to watch; a plateau is
        then one of the training loss.
    shuffle, dropout
        Sources of the order of rows and of the masks.
    frozen
        Columns whose weights stay.

    Returns
    -------
    ``loss, accuracy, val_loss, val_accuracy``, one number per epoch. As in Keras, the first two are taken on the way,
    with dropout and changing weights; the loss is weighted if the rows are.
    """
    trainer = Trainer(network, regimen, dropout, frozen)
    history: History = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    best, best_epoch = network.parameters.copy(), -1
    # A batch is too small to share: several BLAS threads cost many times the CPU and gain nothing.
    with threadpool_limits(1, user_api="blas"):
        for epoch in range(regimen.epochs):
            order = data.order(shuffle)
            _record(history, "", trainer.epoch(data, order), data, order)
            if len(validation.X):
                _record(history, "val_", network.forward(validation.X), validation)
            watched = history["val_loss"] or history["loss"]
            if regimen.schedule == PLATEAU:
                trainer.factor = plateau_factor(watched)
            if regimen.patience is None or not len(validation.X):
                continue
            if best_epoch < 0 or watched[-1] < watched[best_epoch]:
                best, best_epoch = network.parameters.copy(), epoch
            if epoch - best_epoch >= regimen.patience:
                break
    if best_epoch >= 0:
        network.parameters[:] = best
    return history


def activate(logits: NDArray[Any]) -> NDArray[Any]:
    """Probability of each output: sigmoid of a single column, softmax of more. ``(n, k)`` to ``(n, k)``."""
    activated: NDArray[Any] = expit(logits) if logits.shape[1] == 1 else probabilities(logits)
    return activated


def encode(y: NDArray[np.intp], n_classes: int) -> Float32s:
    """Targets ``(n, k)``: the class number itself for two classes, one-hot for more."""
    one_hot: Float32s = np.eye(n_classes, dtype=np.float32)[y]
    return one_hot[:, 1:] if n_classes == 2 else one_hot  # noqa: PLR2004


def cross_entropy(logits: Float32s, targets: Float32s) -> Float32s:
    """Cross-entropy ``(n,)`` in nats from logits ``(n, k)`` and targets ``(n, k)``."""
    if logits.shape[1] == 1:
        soft: Float32s = np.logaddexp(0, logits * (1 - 2 * targets))[:, 0]
        return soft
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss: Float32s = np.log(np.exp(shifted).sum(axis=1)) - (shifted * targets).sum(axis=1)
    return loss


def _record(
    history: History, prefix: str, logits: Float32s, data: Rows, order: NDArray[np.intp] | None = None
) -> None:
    rows = slice(None) if order is None else order
    targets = data.targets[rows]
    losses = cross_entropy(logits, targets)
    if data.weights is not None:
        losses *= data.weights[rows]
    right = _decide(logits) == _decide(targets - 0.5)
    history[f"{prefix}loss"].append(float(losses.mean(dtype=np.float64)))
    history[f"{prefix}accuracy"].append(float(right.mean()))


def _decide(logits: Float32s) -> NDArray[np.intp]:
    winners: NDArray[np.intp] = probabilities(logits).argmax(axis=1)
    return winners
