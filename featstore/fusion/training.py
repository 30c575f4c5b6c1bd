"""Small networks over blocks of columns, and their mini-batch training in NumPy and Numba.

Trains as Keras trains, without TensorFlow and far faster: `benchmarks/head.py` prints the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, wraps
from itertools import pairwise
from math import cos, pi
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import numpy as np
from scipy.special import expit
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits

from featstore.errors import UsageError, did_you_mean
from featstore.fusion.linear import probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]
    History = dict[str, list[float]]
    Floats = NDArray[Any]
    Loop = TypeVar("Loop", bound=Callable[..., Any])


# Training


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """Rows to train on, float32.

    Attributes
    ----------
    X
        ``(n, d)``.
    targets
        ``(n, k)``, as `as_targets` makes them.
    weights
        ``(n,)`` factors on the loss of each row; None stands for ones.
    images
        ``(n,)`` number of the image that each row is a view of. An epoch then takes one row of each image, drawn
        anew; None takes every row.
    bags
        ``(n,)`` number of the patient whose answer the row is a part of, for a `BagNetwork`: a batch is then of whole
        patients. Targets and weights are those of its first row. None where every row has its own answer.
    """

    X: Float32s
    targets: Float32s
    weights: Float32s | None = None
    images: NDArray[np.intp] | None = None
    bags: NDArray[np.intp] | None = None

    def order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of the next epoch, shuffled; those of a bag lie side by side."""
        order: NDArray[np.intp] = rng.permutation(len(self.X))
        if self.images is not None:
            drawn = np.unique(self.images[order], return_index=True)[1]
            order = order[rng.permutation(drawn)]
        if self.bags is None:
            return order
        place = rng.permutation(int(self.bags.max()) + 1)
        return order[np.argsort(place[self.bags[order]], kind="stable")]

    def heads(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Places in `order` at which an answer begins: every one, or the first of each bag."""
        if self.bags is None:
            return np.arange(len(order))
        bags = self.bags[order]
        return np.flatnonzero(np.concatenate([[True], bags[1:] != bags[:-1]])[: len(bags)])

    def answers(
        self, network: Network | BagNetwork, X: Float32s, heads: NDArray[np.intp], gain: float = 1.0
    ) -> Float32s:
        """Logits ``(len(heads), k)`` that a network gives to rows ``X (n, d)``, whose answers begin at `heads`."""
        if self.bags is None:
            return network.forward(X, gain)
        return cast("BagNetwork", network).forward_bags(X, heads, gain)


class Trainer:
    """Mini-batch training of one network.

    The loss is cross-entropy **from logits**, which is what Keras computes in `fit` for a Dense layer with sigmoid or
    softmax: it looks through the activation, so a saturated row still has a gradient. (Its clipping of
    probabilities to 1e-7 applies only where it cannot see the activation.)

    Parameters
    ----------
    network
        Trained in place.
    config
        Batch size, rates; `patience` is the business of `train`.
    rng
        Source of dropout masks.
    frozen
        Columns whose weights stay.
    """

    def __init__(
        self,
        network: Network,
        config: TrainingConfig,
        rng: np.random.Generator,
        frozen: Sequence[slice] = (),
    ) -> None:
        self.network, self.config = network, config
        self._silenced = [network.input_weight_gradient(columns) for columns in frozen]
        self._rng = rng
        self.optimiser = Optimiser(config.optimizer, len(network.parameters))
        self.factor = 1.0

    def epoch(self, data: TrainingRows, order: NDArray[np.intp]) -> Float32s:
        """One pass over the rows `order`; returns the logits ``(len(order), k)`` on the way."""
        size = self.config.batch_size
        heads = data.heads(order)
        edges = [*heads[::size], len(order)]
        batch = np.empty((max(np.diff(edges)), data.X.shape[1]), np.float32)
        dropout = Dropout(self.config.dropout, data.X.shape[1], self._rng)
        keys = dropout.keys(len(order))
        steps = (len(edges) - 1) * self.config.epochs
        met = np.empty((len(heads), data.targets.shape[1]), np.float32)
        targets = data.targets[order[heads]]
        weights = None if data.weights is None else data.weights[order[heads], None]
        for at, (start, stop) in enumerate(pairwise(edges)):
            run = slice(at * size, (at + 1) * size)
            picked = batch[: stop - start]
            dropout.pick(data.X, order[start:stop], keys[start:stop], picked)
            met[run] = logits = data.answers(self.network, picked, heads[run] - start, dropout.gain)
            slope = (activate(logits) - targets[run]) / np.float32(len(logits))
            if weights is not None:
                slope *= weights[run]
            self._step(slope, steps)
        return met

    def _step(self, slope: Float32s, steps: int) -> None:
        self.network.backward(slope)
        for gradient in self._silenced:
            gradient[:] = 0
        rate = self.config.learning_rate * self.factor
        rate *= SCHEDULES[self.config.schedule](min(self.optimiser.steps / steps, 1.0))
        self.optimiser.step(self.network.parameters, self.network.gradient, rate)


def train(
    network: Network,
    config: TrainingConfig,
    data: TrainingRows,
    validation: TrainingRows,
    shuffle: np.random.Generator,
    dropout: np.random.Generator,
    frozen: Sequence[slice] = (),
) -> History:
    """Train `network` in place and return its learning curves.

    Parameters
    ----------
    network, config
        What to train, and how.
    data, validation
        Rows; those of a bag of `validation` lie side by side. With no validation rows the ``val_`` curves are empty
        and `patience` has nothing to watch; a plateau is then one of the training loss.
    shuffle, dropout
        Sources of the order of rows and of the masks.
    frozen
        Columns whose weights stay.

    Returns
    -------
    ``loss, accuracy, val_loss, val_accuracy``, one number per epoch. As in Keras, the first two are taken on the way,
    with dropout and changing weights; the loss is weighted if the rows are.
    """
    trainer = Trainer(network, config, dropout, frozen)
    history: History = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    best, best_epoch = network.parameters.copy(), -1
    shown = np.arange(len(validation.X))
    # A batch is too small to share: several BLAS threads cost many times the CPU and gain nothing.
    with threadpool_limits(1, user_api="blas"):
        for epoch in range(config.epochs):
            order = data.order(shuffle)
            _record(history, "", trainer.epoch(data, order), data, order)
            if len(validation.X):
                met = validation.answers(network, validation.X, validation.heads(shown))
                _record(history, "val_", met, validation, shown)
            watched = history["val_loss"] or history["loss"]
            if config.schedule == PLATEAU:
                trainer.factor = plateau_factor(watched)
            if config.patience is None or not len(validation.X):
                continue
            if best_epoch < 0 or watched[-1] < watched[best_epoch]:
                best, best_epoch = network.parameters.copy(), epoch
            if epoch - best_epoch >= config.patience:
                break
    if best_epoch >= 0:
        network.parameters[:] = best
    return history


def activate(logits: NDArray[Any]) -> NDArray[Any]:
    """Probability of each output: sigmoid of a single column, softmax of more. ``(n, k)`` to ``(n, k)``."""
    activated: NDArray[Any] = expit(logits) if logits.shape[1] == 1 else probabilities(logits)
    return activated


def as_targets(y: NDArray[np.intp], n_classes: int) -> Float32s:
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
    history: History, prefix: str, logits: Float32s, data: TrainingRows, order: NDArray[np.intp]
) -> None:
    rows = order[data.heads(order)]
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


# Networks: parameters in one vector, forward and backward by hand


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

    def initialise(self, rng: np.random.Generator) -> None:
        """First weights."""

    def input_weight_gradient(self, columns: slice) -> Floats:
        """Window on the gradients of the weights that multiply these input columns."""


class BagNetwork(Network, Protocol):
    """A network that gives one answer to all rows of a bag; its `forward` takes each row for a bag of its own."""

    def forward_bags(self, X: Floats, heads: NDArray[np.intp], gain: float = 1.0) -> Floats:
        """Logits ``(len(heads), k)`` of ``gain * X``, ``X (n, d)``, whose bags begin at the rows `heads`."""


class Dense:
    """Layer ``x @ weights.T + bias``: weights ``(n_out, n_in)`` and bias ``(n_out,)`` in a `ParameterVector`."""

    def __init__(self, vector: ParameterVector, n_in: int, n_out: int) -> None:
        self.weights, self.weight_gradient = vector.allocate((n_out, n_in))
        self.bias, self.bias_gradient = vector.allocate((n_out,))

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

    def backward_input(self, slope: Floats) -> Floats:
        """Slope ``(n, n_in)`` of the loss by the inputs."""
        pulled: Floats = slope @ self.weights
        return pulled

    def initialise(self, rng: np.random.Generator, variance: float | None = None) -> None:
        """Weights for inputs of a known total variance that give outputs of variance one; else Glorot-uniform."""
        n_out, n_in = self.weights.shape
        limit = np.sqrt(6.0 / (n_in + n_out) if variance is None else 3.0 / variance)
        self.weights[:] = rng.uniform(-limit, limit, (n_out, n_in))
        self.bias[:] = 0


class ParameterVector:
    """One vector of parameters and one of gradients, handed out as windows."""

    def __init__(self, size: int, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.parameters, self.gradient = np.zeros(size, dtype), np.zeros(size, dtype)
        self._taken = 0

    def allocate(self, shape: Sequence[int]) -> tuple[Floats, Floats]:
        """Next windows of this shape on parameters and gradient."""
        window = slice(self._taken, self._taken + int(np.prod(shape)))
        self._taken = window.stop
        return self.parameters[window].reshape(shape), self.gradient[window].reshape(shape)


def dense_size(n_in: int, n_out: int) -> int:
    """Parameters of a dense layer."""
    return (n_in + 1) * n_out


class Gate:
    """Scores ``w . (tanh(V h) * sigmoid(U h))`` of rows ``h``, by which attention weighs them.

    References
    ----------
    Ilse, Tomczak & Welling 2018, Attention-based deep multiple instance learning, ICML (equation 9).
    """

    def __init__(self, vector: ParameterVector, n_units: int) -> None:
        self.content, self.gate = Dense(vector, n_units, n_units), Dense(vector, n_units, n_units)
        self.score = Dense(vector, n_units, 1)

    def forward(self, rows: Floats) -> Floats:
        """Scores ``(n, 1)`` of rows ``(n, n_units)``."""
        self._content = np.tanh(self.content.forward(rows))
        self._gate = expit(self.gate.forward(rows))
        return self.score.forward(self._content * self._gate)

    def backward(self, slope: Floats) -> Floats:
        """Write the gradients, given the slope ``(n, 1)`` by the scores; slope ``(n, n_units)`` by the rows."""
        self.score.backward(slope)
        mixed = self.score.backward_input(slope)
        content = mixed * self._gate * (1 - self._content**2)
        gate = mixed * self._content * self._gate * (1 - self._gate)
        self.content.backward(content)
        self.gate.backward(gate)
        return self.content.backward_input(content) + self.gate.backward_input(gate)

    def initialise(self, rng: np.random.Generator) -> None:
        """Glorot-uniform weights."""
        for dense in (self.content, self.gate, self.score):
            dense.initialise(rng)


def gate_size(n_units: int) -> int:
    """Parameters of a gate."""
    return 2 * dense_size(n_units, n_units) + dense_size(n_units, 1)


# The paper's head, Dropout -> Dense: the smallest network


class DenseHead:
    """Dense layer from ``d`` columns to ``k`` logits: 1 for two classes (sigmoid), else one per class (softmax)."""

    def __init__(self, width: int, n_logits: int, dtype: type[np.floating[Any]] = np.float32) -> None:
        vector = ParameterVector(dense_size(width, n_logits), dtype)
        self.parameters, self.gradient = vector.parameters, vector.gradient
        self.dense = Dense(vector, width, n_logits)

    def forward(self, X: Floats, gain: float = 1.0) -> Floats:
        """Logits ``(n, k)`` of ``gain * X``, ``X (n, d)``."""
        return self.dense.forward(X, gain)

    def backward(self, slope: Floats) -> None:
        """Write the gradient."""
        self.dense.backward(slope)

    def initialise(self, rng: np.random.Generator) -> None:
        """Glorot-uniform weights (Glorot & Bengio 2010), zero bias."""
        self.dense.initialise(rng)

    def input_weight_gradient(self, columns: slice) -> Floats:
        """Window on the gradients of the weights of these columns."""
        return self.dense.weight_gradient[:, columns]


# Learning rates over the course of a training, named as in Keras

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


# Loops compiled by Numba: where NumPy would sweep an array once per operation


def compiled(loop: Loop) -> Loop:
    """Compile `loop` when it is first called; whoever trains no network never loads Numba.

    Nothing is kept on disk: Numba's cache is a pickle, and nothing loaded may run code. Division as NumPy does it,
    without a test for zero, and products contracted into additions are what lets the loops use the wide registers.
    """

    @cache
    def program() -> Callable[..., Any]:
        import numba

        return cast(
            "Callable[..., Any]",
            numba.njit(loop, error_model="numpy", fastmath={"contract"}, nogil=True),
        )

    @wraps(loop)
    def run(*arguments: Any) -> Any:  # noqa: ANN401
        return program()(*arguments)

    return cast("Loop", run)


# Optimisers by Keras' formulas and defaults, each one compiled sweep over the parameters

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


# Training configuration: the settings in force, checked

RANGES: dict[str, Callable[[Any], bool]] = {
    "dropout": lambda rate: 0 <= rate < 1,
    "learning_rate": lambda rate: rate is None or 0 < rate < np.inf,
    "batch_size": lambda size: size is None or size >= 1,
    "epochs": lambda count: count >= 1,
    "validation_fraction": lambda share: 0 <= share < 1,
    "patience": lambda count: count is None or count >= 1,
    "optimizer": lambda name: name in RULES,
    "schedule": lambda name: name in SCHEDULES,
}


CHOICES: dict[str, Iterable[str]] = {"optimizer": RULES, "schedule": SCHEDULES}
"""Settings that are one of several names."""


class TrainingOptions(Protocol):
    """Parameters of a strategy as the user set them: see `featstore.fusion.neural.NeuralStrategy`."""

    dropout: float
    batch_size: int | None
    epochs: int
    patience: int | None
    optimizer: str
    schedule: str


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a network is trained.

    Attributes
    ----------
    learning_rate
        The optimiser's.
    batch_size
        Rows per step; the last batch of an epoch is smaller, as in Keras.
    epochs
        Passes over the training rows, at most.
    dropout
        Probability that an input is zeroed, 0 to below 1; the others are scaled up.
    patience
        Stop after so many epochs without a lower validation loss and go back to the best one; None trains to the end.
    optimizer
        Key of `RULES`.
    schedule
        Key of `SCHEDULES`.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    dropout: float = 0.0
    patience: int | None = None
    optimizer: str = "adam"
    schedule: str = "constant"

    @classmethod
    def from_options(cls, settings: TrainingOptions, learning_rate: float, n_rows: int) -> Self:
        """Training configuration for epochs of `n_rows` rows.

        Raises
        ------
        UsageError
            If a setting is out of range: fit, not the constructor, is where scikit-learn wants it.
        """
        for name, in_range in RANGES.items():
            value = getattr(settings, name)
            try:
                fine = in_range(value)
            except TypeError:
                fine = False
            if not fine:
                words = CHOICES.get(name)
                raise UsageError(
                    f"{name}={value} is out of range.",
                    did_you_mean(str(value), words) if words else f"Set {name} as documented.",
                )
        return cls(
            learning_rate,
            min(settings.batch_size or n_rows, n_rows),
            settings.epochs,
            settings.dropout,
            settings.patience,
            settings.optimizer,
            settings.schedule,
        )


def rng_streams(random_state: int | np.random.RandomState | None) -> list[np.random.Generator]:
    """Four independent generators, so that a longer training does not change who is held out."""
    seed = check_random_state(random_state).randint(2**31 - 1) if random_state is not None else None
    return [np.random.Generator(np.random.PCG64(part)) for part in np.random.SeedSequence(seed).spawn(4)]


# Inverted dropout whose mask is computed, not stored: a hash of column and key decides

LEVELS = 2**16
SPREAD = 0x9E3779B9


class Dropout:
    """Zeroes each input with probability `rate` and scales the others up (Srivastava et al. 2014).

    The mask of a row is a counter hashed with the row's key (the 32-bit finaliser "lowbias32" of Wellons), which
    vectorises; a stream of random numbers does not. One hash decides two columns.

    Parameters
    ----------
    rate
        0 to below 1, in steps of 2^-16.
    width
        Number of columns.
    rng
        Source of one 32-bit key per row and epoch.
    """

    def __init__(self, rate: float, width: int, rng: np.random.Generator) -> None:
        self.kept = np.uint32(max(LEVELS - round(rate * LEVELS), 1))
        self.gain = LEVELS / float(self.kept)
        self._counter = np.arange((width + 1) // 2, dtype=np.uint32) * np.uint32(SPREAD)
        self._rng = rng

    def keys(self, n_rows: int) -> NDArray[np.uint32]:
        """Keys ``(n_rows,)`` for `pick`."""
        return self._rng.integers(2**32, size=n_rows, dtype=np.uint32)

    def pick(
        self,
        X: NDArray[np.float32],
        rows: NDArray[np.intp],
        keys: NDArray[np.uint32],
        out: NDArray[np.float32],
    ) -> None:
        """Write the rows `rows` of ``X (n, d)``, masked but not scaled up, to ``out (len(rows), d)``."""
        if self.gain > 1:
            _pick(X, rows, keys, self._counter, self.kept, out)
        else:
            X.take(rows, axis=0, out=out, mode="clip")


@compiled
def _pick(X: Any, rows: Any, keys: Any, counter: Any, kept: Any, out: Any) -> None:  # noqa: ANN401
    # The two halves share the middle column where their number is odd.
    half = len(counter)
    offset = X.shape[1] - half
    for i in range(len(rows)):
        left, right = X[rows[i], :half], X[rows[i], offset:]
        left_out, right_out, key = out[i, :half], out[i, offset:], keys[i]
        for j in range(half):
            # Numba widens what two 32-bit numbers make; casting every step back is what keeps the registers full.
            h = np.uint32(counter[j] ^ key)
            h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(16))) * np.uint32(0x7FEB352D))
            h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(15))) * np.uint32(0x846CA68B))
            h = np.uint32(h ^ np.uint32(h >> np.uint32(16)))
            left_out[j] = left[j] if np.uint32(h & np.uint32(0xFFFF)) < kept else np.float32(0)
            right_out[j] = right[j] if np.uint32(h >> np.uint32(16)) < kept else np.float32(0)
