"""Keras networks as backbones: build, load, freeze, compile once, embed."""

from __future__ import annotations

import contextlib
import inspect
import os
import pkgutil
import random
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.quiet import quiet_start
from featstore.backbones.weights import (
    IMAGENET,
    Weights,
    keras_models_folder,
    load_weights,
    one_line,
    resolve_weights,
)
from featstore.errors import BackboneError, NonFiniteFeaturesError, UsageError, WeightsError
from featstore.types import BackboneSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    from featstore.backbones.catalog import Row
    from featstore.types import Features

PREPROCESSES = OFFICIAL, RESCALE = ("official", "rescale")


@dataclass(frozen=True, slots=True)
class KerasBackbone:
    """A frozen Keras network behind one compiled function of fixed shape; see `load_backbone`.

    `spec` and `batch_size` are those of `featstore.types.Backbone`.
    """

    spec: BackboneSpec
    batch_size: int
    _forward: Callable[[NDArray[np.float32]], tf.Tensor] = field(repr=False, compare=False)

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
        """
        expected = (self.batch_size, self.spec.input_size, self.spec.input_size, 3)
        if images.shape != expected or images.dtype != np.float32:
            raise UsageError(
                f"{self.spec.name} got {images.dtype} images of shape {images.shape}.",
                f"Give float32 of shape {expected}; pad the last batch.",
            )
        features: Features = self._forward(images).numpy()
        bad = int(np.count_nonzero(~np.isfinite(features).all(axis=1)))
        if bad:
            raise NonFiniteFeaturesError(
                f"{self.spec.name} gave NaN or infinity for {bad} of {self.batch_size} images.",
                "Check its weights file and the range of the pixels (0..255).",
            )
        return features


def spec(row: Row, weights: Weights, preprocess: str = OFFICIAL) -> BackboneSpec:
    """Identity of a backbone, computed without loading it (and without TensorFlow).

    Raises
    ------
    UsageError
        If `preprocess` is neither ``official`` nor ``rescale``.
    WeightsError
        If the weights are still to be downloaded and hence have no digest.
    """
    _require_preprocess(preprocess)
    if weights.digest is None:
        raise WeightsError(
            f"{row.name}: the ImageNet weights are not on this machine yet.",
            f"Load the backbone once, or name a file: --weights {row.name}=PATH/{row.weights_file}.",
        )
    return BackboneSpec(row.name, weights.digest, row.input_size, preprocess, row.dimension)


def load_backbone(
    name: str, weights: str = IMAGENET, preprocess: str = OFFICIAL, batch_size: int = 16
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

    Raises
    ------
    UnknownNameError, UsageError
        If an argument cannot be meant.
    WeightsError
        If weights are absent, unreachable, or not those of the network.
    BackboneError
        If Keras is set up in a way that would change the numbers, or the network is not what its row says.
    """
    _require_preprocess(preprocess)
    if batch_size < 1:
        raise UsageError(f"The batch size is {batch_size}.", "Use 1 or more.")
    row = catalog.row(name)
    found = resolve_weights(row, weights)
    _prepare_keras()
    if found.digest is None:
        found = _download(row)
    identity = spec(row, found, preprocess)
    network = _build(row, found, preprocess)
    return KerasBackbone(identity, batch_size, _compile(row, network, preprocess, batch_size))


def _require_preprocess(preprocess: str) -> None:
    if preprocess not in PREPROCESSES:
        remedy = f"Choose one of: {', '.join(PREPROCESSES)}."
        raise UsageError(f"There is no preprocessing {preprocess!r}.", remedy)


def _prepare_keras() -> None:
    asked = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _require("backend", asked, "tensorflow", "Unset KERAS_BACKEND, or set it to tensorflow.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_start():
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")

    repair = "Remove the setting from keras.json (in $KERAS_HOME or ~/.keras) or from the calling program."
    _require("backend", keras.backend.backend(), "tensorflow", repair)
    _require("image_data_format", keras.config.image_data_format(), "channels_last", repair)
    _require("dtype policy", keras.config.dtype_policy().name, "float32", repair)
    for gpu in gpus:
        tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
        with contextlib.suppress(RuntimeError):  # the GPU is in use already
            tf.config.experimental.set_memory_growth(gpu, enable=True)


def _require(what: str, actual: str, wanted: str, remedy: str) -> None:
    if actual != wanted:
        raise BackboneError(f"Keras' {what} is {actual}, and featstore's features need {wanted}.", remedy)


def _download(row: Row) -> Weights:
    """Let Keras download ImageNet weights into its cache, where `_build` finds them like any other file."""
    try:
        with contextlib.redirect_stdout(sys.stderr), _python_seed(0):
            pkgutil.resolve_name(row.builder)(weights=IMAGENET, **_options(row, OFFICIAL))
    except Exception as error:  # Keras wraps network failures into a bare Exception
        raise WeightsError(
            f"{row.name}: its ImageNet weights are not in {keras_models_folder()},"
            f" and the network did not deliver them: {one_line(error)}",
            f"Fetch {row.weights_file} elsewhere and use --weights {row.name}=PATH/{row.weights_file}.",
        ) from error
    return resolve_weights(row)


def _build(row: Row, weights: Weights, preprocess: str) -> keras.Model:
    import keras

    with _python_seed(weights.seed or 0):
        network = _load(row, weights, _options(row, preprocess))
    if row.entry:
        network = keras.Model(network.get_layer(row.entry).input, network.output)
    network.trainable = False
    if tuple(network.output_shape) != (None, row.dimension):
        raise BackboneError(
            f"{row.name} ends in shape {network.output_shape}, and its row says (None, {row.dimension}).",
            "Correct the row of the catalogue, or the builder that it names.",
        )
    return network


def _options(row: Row, preprocess: str) -> dict[str, Any]:
    options = {"include_top": False, "pooling": "avg", "input_shape": (row.input_size, row.input_size, 3)}
    parameters = inspect.signature(pkgutil.resolve_name(row.builder)).parameters
    if preprocess == RESCALE and "include_preprocessing" in parameters:
        options["include_preprocessing"] = False
    return options


def _load(row: Row, weights: Weights, options: dict[str, Any]) -> keras.Model:
    build = pkgutil.resolve_name(row.builder)
    if weights.path is not None and weights.path.suffix == ".pth":
        return build(weights=str(weights.path), **options)
    network = build(weights=None, **options)
    if weights.path is not None:
        load_weights(row, network, weights.path)
    return network


def _compile(row: Row, network: keras.Model, preprocess: str, batch_size: int) -> Callable[..., tf.Tensor]:
    import tensorflow as tf

    official = pkgutil.resolve_name(row.preprocess)
    prepare = official if preprocess == OFFICIAL else lambda images: images / 255.0
    signature = [tf.TensorSpec((batch_size, row.input_size, row.input_size, 3), tf.float32)]
    forward = tf.function(
        lambda images: network(prepare(images), training=False), input_signature=signature, autograph=False
    )
    forward.get_concrete_function()
    return forward  # type: ignore[no-any-return]


@contextlib.contextmanager
def _python_seed(seed: int) -> Iterator[None]:
    """Give Keras a generator of its own, from which it draws the seed of every initialiser.

    Seeding Python's is not enough: other threads, such as those of a dask worker, draw from that one too.
    """
    from keras.src.random import seed_generator

    with mock.patch.object(seed_generator, "python_random", random.Random(seed)):  # noqa: S311 - no secret
        yield
