"""Keras networks as backbones: build, load, freeze, compile once, embed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.network import (
    OFFICIAL,
    build,
    download,
    preparation,
    prepare_keras,
    require_preprocess,
)
from featstore.backbones.precision import (
    FLOAT16,
    FLOAT32,
    POLICIES,
    require_hardware,
    require_precision,
)
from featstore.backbones.presence import require_reachable
from featstore.backbones.weights import IMAGENET, Weights, one_line, resolve_weights
from featstore.errors import (
    NonFiniteFeaturesError,
    OutOfMemoryError,
    UsageError,
    WeightsError,
)
from featstore.types import BackboneSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    from featstore.backbones.catalog import Row
    from featstore.types import Features


@dataclass(frozen=True, slots=True)
class KerasBackbone:
    """A frozen Keras network behind one compiled function of fixed shape; see `load_backbone`.

    `spec` and `batch_size` are those of `featstore.types.Backbone`.
    """

    spec: BackboneSpec
    batch_size: int
    _network: keras.Model = field(repr=False, compare=False)
    _forward: Callable[[NDArray[np.float32]], tf.Tensor] = field(repr=False, compare=False)

    @property
    def portion(self) -> int:
        """Images computed at a time: all of a batch."""
        return self.batch_size

    def with_batch_size(self, batch_size: int) -> KerasBackbone:
        """Compile the same network, sharing its weights, for another batch.

        The last bits of a row may differ between batch sizes (law 2): whoever changes it, changes it for a run.

        Raises
        ------
        UsageError
            If it is less than 1.
        """
        _require_batch_size(batch_size)
        forward = _compile(catalog.row(self.spec.name), self._network, self.spec, batch_size)
        return replace(self, batch_size=batch_size, _forward=forward)

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map images to pooled features.

        Parameters
        ----------
        images
            ``(batch_size, side, side, 3)`` float32, RGB values in 0..255.

        Returns
        -------
        ndarray
            ``(batch_size, dimension)`` float32. A row depends on its image alone, not on its neighbours.

        Raises
        ------
        UsageError
            If shape or dtype differ.
        NonFiniteFeaturesError
            If a feature is NaN or infinite.
        OutOfMemoryError
            If the device has no room for a batch of this size.
        """
        expected = (self.batch_size, self.spec.input_size, self.spec.input_size, 3)
        if images.shape != expected or images.dtype != np.float32:
            raise UsageError(
                f"{self.spec.name} got {images.dtype} images of shape {images.shape}.",
                f"Give float32 of shape {expected}; pad the last batch.",
            )
        features = self._run(images)
        bad = int(np.count_nonzero(~np.isfinite(features).all(axis=1)))
        if bad:
            raise NonFiniteFeaturesError(
                f"{self.spec.name} gave NaN or infinity for {bad} of {self.batch_size} images.",
                "Check its weights file and the range of the pixels (0..255).",
            )
        return features

    def _run(self, images: NDArray[np.float32]) -> Features:
        from tensorflow.errors import ResourceExhaustedError

        try:
            features: Features = self._forward(images).numpy()
        except ResourceExhaustedError as error:
            raise OutOfMemoryError(
                f"{self.spec.name} has no room for {self.batch_size} images: {one_line(error.message)}",
                "Use a smaller batch, or a device with more memory.",
            ) from error
        return features


def spec(row: Row, weights: Weights, preprocess: str = OFFICIAL, precision: str = FLOAT32) -> BackboneSpec:
    """Identity of a backbone, computed without loading it (and without TensorFlow).

    Raises
    ------
    UsageError
        If `preprocess` is neither ``official`` nor ``rescale``, or there is no such `precision`.
    WeightsError
        If the weights are still to be downloaded and hence have no digest.
    """
    require_preprocess(preprocess)
    require_precision(precision)
    if weights.digest is None:
        raise WeightsError(
            f"{row.name}: the ImageNet weights are not on this machine yet.",
            f"Load the backbone once, or name a file: --weights {row.name}=PATH/{row.weights_file}.",
        )
    return BackboneSpec(row.name, weights.digest, row.input_size, preprocess, row.dimension, precision)


def load_backbone(
    name: str,
    weights: str = IMAGENET,
    preprocess: str = OFFICIAL,
    batch_size: int = 16,
    precision: str = FLOAT32,
) -> KerasBackbone:
    """Build a frozen backbone, load its weights and compile its forward pass.

    Parameters
    ----------
    name, weights
        Name in the catalogue, and a choice for `resolve_weights`.
    preprocess
        ``official``: the network's own. ``rescale``: its first convolution receives pixels / 255, whatever
        the network; preprocessing layers inside it are switched off, or cut off at `Row.entry`.
    batch_size
        Images per call of `embed`; a constant of the engine, since it alone moves the last bits of a row.
    precision
        ``float32``; ``bfloat16``: weights and activations, pooled in float32; ``float16``: on a GPU, activations,
        compiled with XLA. In all of them batch norms are folded (`featstore.backbones.folding`).

    Raises
    ------
    UnknownNameError, UsageError
        If an argument cannot be meant, or the machine does not compute in that precision.
    WeightsError
        If weights are absent, unreachable, or not those of the network.
    BackboneError
        If Keras is set up in a way that would change the numbers, or the network is not what its row says.
    """
    require_preprocess(preprocess)
    require_precision(precision)
    _require_batch_size(batch_size)
    row = catalog.row(name)
    found = resolve_weights(row, weights)
    if found.digest is None:
        require_reachable(row)
    require_hardware(precision, prepare_keras())
    if found.digest is None:
        found = download(row)
    from featstore.backbones.folding import fold

    identity = spec(row, found, preprocess, precision)
    network = fold(build(row, found, preprocess), POLICIES[precision])
    return KerasBackbone(identity, batch_size, network, _compile(row, network, identity, batch_size))


def _require_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UsageError(f"The batch size is {batch_size}.", "Use 1 or more.")


def _compile(
    row: Row, network: keras.Model, identity: BackboneSpec, batch_size: int
) -> Callable[..., tf.Tensor]:
    import tensorflow as tf

    prepare = preparation(row, identity.preprocess)

    def embed(images: tf.Tensor) -> tf.Tensor:
        features = tf.cast(network(prepare(images), training=False), tf.float32)
        # A ReLU fused with its convolution makes zeros of NaN, so that bad pixels have to be remembered.
        sound = tf.math.is_finite(tf.reduce_sum(images, axis=[1, 2, 3]))
        return tf.where(sound[:, tf.newaxis], features, float("nan"))

    forward = tf.function(
        embed,
        input_signature=[tf.TensorSpec((batch_size, row.input_size, row.input_size, 3), tf.float32)],
        autograph=False,
        jit_compile=True if identity.precision == FLOAT16 else None,
    )
    forward.get_concrete_function()
    return forward  # type: ignore[no-any-return]
