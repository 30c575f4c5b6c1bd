"""Keras set up, and one network of the catalogue built, filled and frozen."""

from __future__ import annotations

import contextlib
import inspect
import os
import pkgutil
import random
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from featstore.backbones.kernels import ask_for_onednn, warn_unless_rows_are_kept
from featstore.backbones.precision import capabilities
from featstore.backbones.quiet import quiet_start
from featstore.backbones.weights import (
    IMAGENET,
    Weights,
    keras_models_folder,
    load_weights,
    one_line,
    resolve_weights,
)
from featstore.errors import BackboneError, UnknownNameError, WeightsError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import keras
    import tensorflow as tf

    from featstore.backbones.catalog import Row

PREPROCESSES = OFFICIAL, RESCALE = ("official", "rescale")


def require_preprocess(preprocess: str) -> None:
    """Refuse a preprocessing that does not exist.

    Raises
    ------
    UsageError
        If it is none of `PREPROCESSES`.
    """
    if preprocess not in PREPROCESSES:
        raise UnknownNameError(
            f"There is no preprocessing {preprocess!r}.", did_you_mean(preprocess, PREPROCESSES)
        )


def prepare_keras() -> list[tuple[int, int]]:
    """Set Keras and GPUs up; return the compute capability of each GPU."""
    asked = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _require("backend", asked, "tensorflow", "Unset KERAS_BACKEND, or set it to tensorflow.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    ask_for_onednn()
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
    if not gpus:
        warn_unless_rows_are_kept()
    return capabilities(gpus)


def _require(what: str, actual: str, wanted: str, remedy: str) -> None:
    if actual != wanted:
        raise BackboneError(f"Keras' {what} is {actual}, and featstore's features need {wanted}.", remedy)


def download(row: Row) -> Weights:
    """Let Keras download ImageNet weights into its cache, where `build` finds them like any other file."""
    try:
        with contextlib.redirect_stdout(sys.stderr), _python_seed(0):
            build_published(row)
    except Exception as error:  # Keras wraps network failures into a bare Exception
        raise WeightsError(
            f"{row.name}: its ImageNet weights are not in {keras_models_folder()},"
            f" and the network did not deliver them: {one_line(error)}",
            f"Fetch {row.weights_file} elsewhere and use --weights {row.name}=PATH/{row.weights_file}.",
        ) from error
    return resolve_weights(row)


def build_published(row: Row) -> keras.Model:
    """Build the network of a row with the weights that Keras publishes and, where they are not here, downloads."""
    network: keras.Model = pkgutil.resolve_name(row.builder)(weights=IMAGENET, **_options(row, OFFICIAL))
    return network


def build(row: Row, weights: Weights, preprocess: str) -> keras.Model:
    """Build the network of a row up to its pooling, with its weights, frozen, not yet folded.

    Raises
    ------
    WeightsError
        If the weights are not those of the network, or not finite.
    BackboneError
        If the network is not what its row says.
    """
    return cut(row, build_whole(row, weights, preprocess))


def build_whole(row: Row, weights: Weights, preprocess: str) -> keras.Model:
    """Build it with the preprocessing layers that `cut` takes off: only so do its weights fit into a file."""
    with _python_seed(weights.seed or 0):
        return _load(row, weights, _options(row, preprocess))


def cut(row: Row, network: keras.Model) -> keras.Model:
    """Take off preprocessing layers, freeze, and make sure that the rest is what the row says; layers are shared."""
    import keras

    if row.entry:
        network = keras.Model(network.get_layer(row.entry).input, network.output)
    network.trainable = False
    if tuple(network.output_shape) != (None, row.dimension):
        raise BackboneError(
            f"{row.name} ends in shape {network.output_shape}, and its row says (None, {row.dimension}).",
            "Correct the row of the catalogue, or the builder that it names.",
        )
    _require_finite(row, network)
    return network


def preparation(row: Row, preprocess: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Function from RGB values in 0..255 to the input of the network."""
    if preprocess == OFFICIAL:
        official: Callable[[tf.Tensor], tf.Tensor] = pkgutil.resolve_name(row.preprocess)
        return official
    return lambda images: images / 255.0


def _require_finite(row: Row, network: keras.Model) -> None:
    # Fused ReLUs turn a NaN into a zero, so that the features alone would not tell.
    for variable in network.weights:
        if not np.isfinite(variable.value.numpy()).all():
            raise WeightsError(
                f"{row.name}: its weights hold NaN or infinity in {variable.path}.",
                f"Fetch or train them again, and pass them: --weights {row.name}=PATH.",
            )


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


@contextlib.contextmanager
def fresh_names() -> Iterator[None]:
    """Let Keras number layers that are given no name from nothing, and not from what this process built before."""
    from keras.src.backend.common import global_state

    counters = "object_name_uids"
    kept = global_state.get_global_attribute(counters)
    global_state.set_global_attribute(counters, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(counters, kept)


@contextlib.contextmanager
def _python_seed(seed: int) -> Iterator[None]:
    """Give Keras a generator of its own, from which it draws the seed of every initialiser.

    Seeding Python's is not enough: other threads, such as those of a dask worker, draw from that one too.
    """
    from keras.src.random import seed_generator

    with mock.patch.object(seed_generator, "python_random", random.Random(seed)):  # noqa: S311 - no secret
        yield
