"""Keras networks for fine-tuning: a temporary head, one compiled step, and a weights file at the end.

After Keras' guide to transfer learning: batch norms stay in inference mode, and the head is fitted before anything
below it may move (Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featstore.backbones import catalog, keras_backbone
from featstore.backbones.weights import IMAGENET, one_line, require_reachable, resolve_weights
from featstore.errors import BackboneError, OutOfMemoryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    from featstore.backbones.catalog import Row
    from featstore.types import Features


DROPOUT: Final = 0.2
UNFROZEN_SHARE: Final = 4
"""One in so many of the weighted layers learns, if nothing else is said: the last ones."""
SUFFIX: Final = ".weights.h5"


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Linear classifier on pooled features: ``((x - mean) * scale) @ kernel + bias`` are the logits.

    Attributes
    ----------
    mean, scale
        ``(d,)``.
    kernel, bias
        ``(d, classes)`` and ``(classes,)``.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]


def require_trainable(name: str) -> Row:
    """Row of a network, if it is one of Keras: others have no layers here that could learn.

    Raises
    ------
    UsageError
        If it is another.
    """
    row = catalog.row(name)
    if row.layer:
        raise UsageError(
            f"{name} is a part of a network, and only whole ones can be fine-tuned.",
            f"Tune the whole one: `featstore finetune DATA --backbone {catalog.base_name(name)}`.",
        )
    if row.loader:
        raise UsageError(
            f"{name} is no Keras network, and only those can be fine-tuned here.",
            "Choose another --backbone, or tune it where it comes from.",
        )
    return row


class TrainableBackbone:
    """One network of the catalogue, of which the last layers learn.

    Parameters
    ----------
    name, weights, preprocess
        As for `featstore.backbones.keras_backbone.load_backbone`.
    batch_size
        Images per call of everything below.
    unfreeze
        How many of the last layers with weights learn, batch norms not counted; None for a quarter.
    learning_rate
        Of Adam.
    seed
        Of the dropout.

    Raises
    ------
    UnknownNameError, UsageError
        If an argument cannot be meant.
    WeightsError
        If weights are absent, unreachable, or not those of the network.
    BackboneError
        If the network has nothing that could learn.
    """

    def __init__(
        self,
        name: str,
        weights: str = IMAGENET,
        preprocess: str = "official",
        *,
        batch_size: int = 16,
        unfreeze: int | None = None,
        learning_rate: float = 1e-5,
        seed: int = 0,
    ) -> None:
        keras_backbone.require_preprocess(preprocess)
        row = require_trainable(name)
        found = resolve_weights(row, weights)
        if found.digest is None:
            require_reachable(row)
        gpus = keras_backbone.prepare_keras()
        if gpus:
            _enable_determinism()
        if found.digest is None:
            found = keras_backbone.download(row)
        self.name, self.digest = name, str(found.digest)
        self.input_size, self.dimension, self.batch_size = row.input_size, row.dimension, batch_size
        self._rate, self._seed = learning_rate, seed
        with keras_backbone.fresh_layer_names():  # which get into the weights file, and hence into its digest
            self._whole = keras_backbone.build_with_preprocessing(row, found, preprocess)
        self._network = keras_backbone.strip_preprocessing(row, self._whole)
        self._prepare = keras_backbone.preprocessing_function(row, preprocess)
        self.layers, self.of_layers = _unfreeze(name, self._network, unfreeze)
        self._embed = self._compiled(lambda images: self._network(self._prepare(images), training=False))
        self._best: list[NDArray[Any]] = []

    def features(self, images: NDArray[np.float32]) -> Features:
        """Pooled features ``(batch_size, dimension)`` float32 of ``(batch_size, side, side, 3)`` RGB in 0..255."""
        features: Features = self._run(self._embed, images).numpy()
        return features

    def attach_head(self, head: LinearHead) -> None:
        """Put a head on the network; only now can it learn."""
        import keras

        inputs = keras.Input(self._network.input_shape[1:])
        # Called for inference, now and for ever: batch norms keep their statistics, though all else may move.
        x = self._network(inputs, training=False)
        x = keras.layers.Rescaling(head.scale, -head.mean * head.scale)(x)
        x = keras.layers.Dropout(DROPOUT, seed=self._seed)(x)
        dense = keras.layers.Dense(head.kernel.shape[1])
        self._model = keras.Model(inputs, dense(x))
        dense.set_weights([head.kernel, head.bias])
        self._optimizer = keras.optimizers.Adam(self._rate)
        self._optimizer.build(self._model.trainable_variables)
        self._answer = self._compiled(lambda images: self._model(self._prepare(images), training=False))
        self._step = self._compiled(self._train_step, y="int32", factors="float32")

    def predict_proba(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Class probabilities ``(batch_size, classes)`` of images as for `features`."""
        logits = self._run(self._answer, images).numpy().astype(np.float64)
        odds: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        return odds

    def train_on_batch(
        self, images: NDArray[np.float32], y: NDArray[np.int32], factors: NDArray[np.float32]
    ) -> tuple[float, int]:
        """Take one step.

        Parameters
        ----------
        images
            As for `features`.
        y
            ``(batch_size,)`` class numbers.
        factors
            ``(batch_size,)`` on the loss of each image; 0 for padding.

        Returns
        -------
        loss, right
            Sum of the losses times their factors, and number of right answers, both before the step.

        Raises
        ------
        BackboneError
            If the loss is not finite: training has diverged.
        OutOfMemoryError
            If the batch does not fit into memory.
        """
        loss, right = (value.numpy() for value in self._run(self._step, images, y, factors))
        if not np.isfinite(loss):
            raise BackboneError(
                f"{self.name}: the loss is not finite any more.", "Use a smaller --learning-rate."
            )
        return float(loss), int(right)

    def snapshot(self) -> None:
        """Remember the weights as they are now."""
        self._best = [variable.numpy().copy() for variable in self._model.trainable_variables]

    def restore(self) -> None:
        """Go back to the weights that were kept."""
        for variable, value in zip(self._model.trainable_variables, self._best, strict=True):
            variable.assign(value)

    def write_weights(self, path: Path) -> None:
        """Write the weights, without the head, as ``--weights NAME=PATH`` reads them; the name ends in `SUFFIX`."""
        with warnings.catch_warnings():
            # Keras 3.15 asks TensorFlow's variables for an array in a way that NumPy 2 will give up.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._whole.save_weights(path)

    def _train_step(self, images: tf.Tensor, y: tf.Tensor, factors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            logits = self._model(self._prepare(images), training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            total = tf.reduce_sum(losses * factors)
            mean = total / tf.reduce_sum(tf.cast(factors > 0, tf.float32))
        gradients = tape.gradient(mean, [variable.value for variable in variables])
        self._optimizer.apply(gradients, variables)
        right = (tf.argmax(logits, axis=1, output_type=tf.int32) == y) & (factors > 0)
        return total, tf.reduce_sum(tf.cast(right, tf.int32))

    def _compiled(self, function: Callable[..., Any], **vectors: str) -> Callable[..., Any]:
        import tensorflow as tf

        side = self.input_size
        images = tf.TensorSpec((self.batch_size, side, side, 3), tf.float32)
        others = [tf.TensorSpec((self.batch_size,), dtype) for dtype in vectors.values()]
        compiled: Callable[..., Any] = tf.function(
            function, input_signature=[images, *others], autograph=False
        )
        return compiled

    def _run(self, function: Callable[..., Any], *arrays: NDArray[Any]) -> Any:  # noqa: ANN401
        from tensorflow.errors import ResourceExhaustedError

        try:
            return function(*arrays)
        except ResourceExhaustedError as error:
            raise OutOfMemoryError(
                f"{self.name} has no room for {self.batch_size} images: {one_line(error.message)}",
                "Use a smaller --batch-size, or a smaller --unfreeze.",
            ) from error


def _unfreeze(name: str, network: keras.Model, wanted: int | None) -> tuple[int, int]:
    """Let the last `wanted` layers learn; return how many do, and how many could."""
    import keras

    network.trainable = True
    leaves = [layer for layer in network._flatten_layers() if not isinstance(layer, keras.Model)]  # noqa: SLF001
    able = [
        layer
        for layer in leaves
        if layer.trainable_weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not able:
        raise BackboneError(f"{name} has no layer that could learn.", "Use its features as they are.")
    count = max(1, round(len(able) / UNFROZEN_SHARE)) if wanted is None else wanted
    if not 1 <= count <= len(able):
        raise UsageError(
            f"--unfreeze {count} cannot be done: {name} has {len(able)} layers that could learn.",
            f"Use a number from 1 to {len(able)}, or leave it out.",
        )
    for layer in leaves:
        layer.trainable = layer in able[-count:]
    return count, len(able)


def _enable_determinism() -> None:
    """Equal seeds must give equal weights on a GPU, too, where TensorFlow's gradients usually vary."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
