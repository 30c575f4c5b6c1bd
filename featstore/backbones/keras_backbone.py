"""Keras networks as backbones: build, load, freeze, compile once, embed."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import pkgutil
import random
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from featstore import processes
from featstore.backbones import catalog
from featstore.backbones import precision as precisions
from featstore.backbones.weights import (
    IMAGENET,
    Weights,
    keras_models_folder,
    load_weights,
    one_line,
    require_reachable,
    resolve_weights,
)
from featstore.errors import (
    BackboneError,
    NonFiniteFeaturesError,
    OutOfMemoryError,
    UnknownNameError,
    UsageError,
    WeightsError,
    did_you_mean,
)
from featstore.types import BackboneSpec, Computation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    from featstore.backbones.catalog import Row
    from featstore.types import Features


# Keras set up, and networks of the catalogue built, filled and frozen

ENGINE = "tensorflow"
KERAS_BACKEND = "KERAS_BACKEND"
"""Keras' environment variable, read when it is imported, and set for that moment: other processes may differ."""
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
    asked = os.environ.get(KERAS_BACKEND, ENGINE)
    other = "Unset KERAS_BACKEND, or compute with it: `featstore extract DATA --engine jax`, in a process of its own."
    require_setting("backend", asked, ENGINE, other)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    precisions.prefer_onednn()
    with (
        redirect_native_stderr(),
        mock.patch.dict(os.environ, {KERAS_BACKEND: ENGINE}),
        processes.importing_networks(),
    ):
        import keras
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")

    repair = "Remove the setting from keras.json (in $KERAS_HOME or ~/.keras) or from the calling program."
    require_setting("backend", keras.backend.backend(), ENGINE, repair)
    require_setting("image_data_format", keras.config.image_data_format(), "channels_last", repair)
    require_setting("dtype policy", keras.config.dtype_policy().name, "float32", repair)
    for gpu in gpus:
        tf.config.experimental.enable_tensor_float_32_execution(enabled=False)
        with contextlib.suppress(RuntimeError):  # the GPU is in use already
            tf.config.experimental.set_memory_growth(gpu, enable=True)
    if not gpus:
        precisions.warn_if_rows_are_dependent()
    return precisions.capabilities(gpus)


def libraries() -> str:
    """Names and versions of what computes, as shards record them."""
    import keras
    import tensorflow as tf

    return f"tensorflow {tf.__version__}, keras {keras.__version__}"


@cache
def device_name() -> str:
    """Name of the device that computes: of the first GPU that TensorFlow sees, else of the processor."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return str(details.get("device_name", "GPU")) if gpus else precisions.cpu_name()


def require_setting(what: str, actual: str, wanted: str, remedy: str) -> None:
    """Refuse a setting of Keras that would change the numbers.

    Raises
    ------
    BackboneError
        If it is not `wanted`.
    """
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
    with fresh_layer_names():
        whole = build_with_preprocessing(row, weights, preprocess)
    return _cut(row, whole) if row.layer else strip_preprocessing(row, whole)


def _cut(row: Row, whole: keras.Model) -> keras.Model:
    """Network up to a layer, whose map is pooled."""
    import keras

    base = strip_preprocessing(catalog.row(catalog.base_name(row.name)), whole)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled_layer")(base.get_layer(row.layer).output)
    network = keras.Model(base.input, pooled)
    network.trainable = False
    return network


def print_channels(name: str) -> None:
    """Print JSON of the channels of each layer of a network that gives a map; see `catalog`."""
    row = catalog.row(name)
    network = build(row, Weights("random", None, 0, ""), OFFICIAL)
    found = {layer.name: layer.output.shape for layer in network.layers}
    maps = {layer: shape[3] for layer, shape in found.items() if len(shape) == 4}  # noqa: PLR2004
    print(json.dumps(maps))  # noqa: T201  # the answer of a process of its own


def build_with_preprocessing(row: Row, weights: Weights, preprocess: str) -> keras.Model:
    """Build it with the layers that `strip_preprocessing` takes off: only so do its weights fit into a file."""
    with _python_seed(weights.seed or 0):
        return _load(row, weights, _options(row, preprocess))


def strip_preprocessing(row: Row, network: keras.Model) -> keras.Model:
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


def preprocessing_function(row: Row, preprocess: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Function from RGB values in 0..255 to the input of the network."""
    if preprocess == OFFICIAL:
        official: Callable[[tf.Tensor], tf.Tensor] = pkgutil.resolve_name(row.preprocess)
        return official
    return lambda images: images / 255.0


def _require_finite(row: Row, network: keras.Model) -> None:
    from featstore.backbones.folding import values_of

    # Fused ReLUs turn a NaN into a zero, so that the features alone would not tell.
    for variable in network.weights:
        if not np.isfinite(values_of(variable)).all():
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
    if weights.path is None:
        return build(weights=None, **options)
    with _initial_zeros():
        if weights.path.suffix == ".pth":
            return build(weights=str(weights.path), **options)
        network = build(weights=None, **options)
    load_weights(row, network, weights.path)
    return network


class _Zeros:
    """What Keras' initialisers draw from, where a file has every value: zeros, which take no time."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401
        self.make_default_seed, self.SeedGenerator = module.make_default_seed, module.SeedGenerator

    def normal(self, shape: Sequence[int], *_: Any, dtype: str | None = None, **__: Any) -> NDArray[Any]:  # noqa: ANN401
        """Zeros of this shape."""
        return np.zeros(shape, dtype or "float32")

    truncated_normal = uniform = normal


@contextlib.contextmanager
def _initial_zeros() -> Iterator[None]:
    """Draw no weights: those of a large network take longer to draw than to read."""
    from keras.src.initializers import random_initializers

    with mock.patch.object(random_initializers, "random", _Zeros(random_initializers.random)):
        yield


@contextlib.contextmanager
def fresh_layer_names() -> Iterator[None]:
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


# The compiled forward pass


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
    def effective_batch_size(self) -> int:
        """Images computed at a time: all of a batch."""
        return self.batch_size

    @property
    def computation(self) -> Computation:
        """How its vectors come about."""
        return Computation(self.batch_size, ENGINE, device_name(), libraries())

    def with_batch_size(self, batch_size: int) -> KerasBackbone:
        """Compile the same network, sharing its weights, for another batch.

        The last bits of a row may differ between batch sizes (law 2): whoever changes it, changes it for a run.

        Raises
        ------
        UsageError
            If it is less than 1.
        """
        require_batch_size(batch_size)
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
        require_images(self.spec, self.batch_size, images)
        return require_finite_features(self.spec, self._run(images))

    def with_maps(self, weights: NDArray[np.float64]) -> MappedBackbone:
        """Look at the same network before its pooling, too: see `MappedBackbone`.

        Parameters
        ----------
        weights
            ``(dimension, k)``: what is seen at each position of the feature map are `k` sums of its channels.

        Raises
        ------
        BackboneError
            If the network does not end in global average pooling.
        """
        import keras

        # The layer may belong to another network, too, so that `layer.input` would be ambiguous.
        (last,) = self._network._nodes_by_depth[0]  # noqa: SLF001 - Keras has no public word for the edges of its graph
        if type(last.operation) is not keras.layers.GlobalAveragePooling2D:
            raise BackboneError(
                f"{self.spec.name} does not end in global average pooling: its vector is no mean over positions.",
                "Fit a model without it: `featstore fuse DATA --backbones` with the others.",
            )
        before = last.input_tensors[0]
        mapped = keras.Model(self._network.inputs, [before, *self._network.outputs])
        forward = _compile_maps(catalog.row(self.spec.name), mapped, self.spec, self.batch_size)
        return MappedBackbone(self, tuple(before.shape[1:3]), weights, mapped, forward)

    def _run(self, images: NDArray[np.float32]) -> Features:
        from tensorflow.errors import ResourceExhaustedError

        try:
            features: Features = self._forward(images).numpy()
        except ResourceExhaustedError as error:
            raise _no_room(self.spec, self.batch_size, error) from error
        return features


@dataclass(frozen=True, slots=True)
class MappedBackbone:
    """A network whose row is its vector, and behind it weighted sums of channels at each position of its last map.

    The vector is the mean of that map over its positions (global average pooling), so the mean of a sum over the
    positions is the same sum of the vector: Zhou et al. 2016, "Learning deep features for discriminative
    localization", CVPR. `spec` is that of the network.

    Attributes
    ----------
    grid
        Rows and columns of the map.
    weights
        ``(dimension, k)`` float64.
    """

    backbone: KerasBackbone
    grid: tuple[int, int]
    weights: NDArray[np.float64] = field(repr=False)
    _network: keras.Model = field(repr=False, compare=False)
    _forward: Callable[[NDArray[np.float32]], tuple[tf.Tensor, tf.Tensor]] = field(repr=False, compare=False)

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the network."""
        return self.backbone.spec

    @property
    def batch_size(self) -> int:
        """Images per call of `embed`."""
        return self.backbone.batch_size

    @property
    def computation(self) -> Computation:
        """How its vectors come about."""
        return self.backbone.computation

    def with_batch_size(self, batch_size: int) -> MappedBackbone:
        """Compile the same network for another batch; see `KerasBackbone.with_batch_size`."""
        return self.backbone.with_batch_size(batch_size).with_maps(self.weights)

    def embed(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map ``(batch_size, side, side, 3)`` to ``(batch_size, dimension + rows * columns * k)``, positions by row.

        Errors are those of `KerasBackbone.embed`.
        """
        from tensorflow.errors import ResourceExhaustedError

        require_images(self.spec, self.batch_size, images)
        try:
            maps, features = (part.numpy() for part in self._forward(images))
        except ResourceExhaustedError as error:
            raise _no_room(self.spec, self.batch_size, error) from error
        sums = maps.astype(np.float64) @ self.weights
        found = require_finite_features(self.spec, features)
        return np.concatenate([found, sums.reshape(len(sums), -1)], axis=1)


def _no_room(spec: BackboneSpec, batch_size: int, error: Exception) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{spec.name} has no room for {batch_size} images: {one_line(str(error))}",
        "Use a smaller batch, or a device with more memory.",
    )


def require_images(spec: BackboneSpec, batch_size: int, images: NDArray[np.float32]) -> None:
    """Refuse images of another shape or dtype than a backbone takes.

    Raises
    ------
    UsageError
        If they are not ``(batch_size, side, side, 3)`` float32.
    """
    expected = (batch_size, spec.input_size, spec.input_size, 3)
    if images.shape != expected or images.dtype != np.float32:
        raise UsageError(
            f"{spec.name} got {images.dtype} images of shape {images.shape}.",
            f"Give float32 of shape {expected}; pad the last batch.",
        )


def require_finite_features(
    spec: BackboneSpec,
    features: Features,
    remedy: str = "Check its weights file and the range of the pixels (0..255).",
) -> Features:
    """Return features ``(n, dimension)`` if all are numbers.

    Raises
    ------
    NonFiniteFeaturesError
        If a feature is NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist()
    if bad:
        raise NonFiniteFeaturesError.of_rows(spec.name, bad, len(features), remedy)
    return features


def spec(
    row: Row, weights: Weights, preprocess: str = OFFICIAL, precision: str = precisions.FLOAT32
) -> BackboneSpec:
    """Identity of a backbone, computed without loading it (and without TensorFlow).

    Raises
    ------
    UsageError
        If `preprocess` is neither ``official`` nor ``rescale``, or there is no such `precision`.
    WeightsError
        If the weights are still to be downloaded and hence have no digest.
    """
    require_preprocess(preprocess)
    precisions.require_precision(precision)
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
    precision: str = precisions.FLOAT32,
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
    precisions.require_precision(precision)
    require_batch_size(batch_size)
    if precision == precisions.TF32:
        raise UsageError(
            "The engine tensorflow does not compute in tf32: it can only be told so for all networks of a process.",
            "Use the other engine: `featstore extract DATA --engine jax --precision tf32`.",
        )
    row = catalog.row(name)
    found = resolve_weights(row, weights)
    if found.digest is None:
        require_reachable(row)
    precisions.require_hardware(precision, prepare_keras())
    if found.digest is None:
        found = download(row)
    from featstore.backbones.folding import fold

    identity = spec(row, found, preprocess, precision)
    with processes.collector_paused():
        network = fold(build(row, found, preprocess), precisions.POLICIES[precision])
        return KerasBackbone(identity, batch_size, network, _compile(row, network, identity, batch_size))


def require_batch_size(batch_size: int) -> None:
    """Refuse a batch without images.

    Raises
    ------
    UsageError
        If it is less than 1.
    """
    if batch_size < 1:
        raise UsageError(f"The batch size is {batch_size}.", "Use 1 or more.")


def _compile(
    row: Row, network: keras.Model, identity: BackboneSpec, batch_size: int
) -> Callable[..., tf.Tensor]:
    import tensorflow as tf

    prepare = preprocessing_function(row, identity.preprocess)

    def embed(images: tf.Tensor) -> tf.Tensor:
        features = tf.cast(network(prepare(images), training=False), tf.float32)
        # A ReLU fused with its convolution makes zeros of NaN, so that bad pixels have to be remembered.
        sound = tf.math.is_finite(tf.reduce_sum(images, axis=[1, 2, 3]))
        return tf.where(sound[:, tf.newaxis], features, float("nan"))

    forward = tf.function(
        embed,
        input_signature=[tf.TensorSpec((batch_size, row.input_size, row.input_size, 3), tf.float32)],
        autograph=False,
        jit_compile=True if identity.precision == precisions.FLOAT16 else None,
    )
    forward.get_concrete_function()
    return forward  # type: ignore[no-any-return]


def _compile_maps(
    row: Row, mapped: keras.Model, identity: BackboneSpec, batch_size: int
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Last map and its pooled vector, both float32, in one pass."""
    import tensorflow as tf

    prepare = preprocessing_function(row, identity.preprocess)

    def embed(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        maps, features = (tf.cast(part, tf.float32) for part in mapped(prepare(images), training=False))
        sound = tf.math.is_finite(tf.reduce_sum(images, axis=[1, 2, 3]))
        return maps, tf.where(sound[:, tf.newaxis], features, float("nan"))

    forward = tf.function(
        embed,
        input_signature=[tf.TensorSpec((batch_size, row.input_size, row.input_size, 3), tf.float32)],
        autograph=False,
    )
    forward.get_concrete_function()  # traced when first called, a few networks make TensorFlow warn of retracing
    return forward  # type: ignore[no-any-return]


# TensorFlow's greeting: a dozen lines on stderr that no setting of TensorFlow 2.21 turns off.

log = logging.getLogger(__name__)
STDERR = 2


@contextlib.contextmanager
def redirect_native_stderr() -> Iterator[None]:
    """Send what native code writes to stderr to the debug log, or back to stderr if the block fails.

    Does nothing once TensorFlow is loaded, so that later messages are seen.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as talk:
        os.dup2(talk.fileno(), STDERR)
        try:
            yield
        except BaseException:
            os.dup2(kept, STDERR)
            talk.seek(0)
            os.write(STDERR, talk.read())
            raise
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)
        talk.seek(0)
        log.debug("%s", talk.read().decode(errors="replace"))
