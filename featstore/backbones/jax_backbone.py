"""The engine jax: Keras' networks compiled by XLA for a GPU (or a CPU), and no TensorFlow.

The network, its weights, its preprocessing and its folding are those of `featstore.backbones.keras_backbone`; Keras
runs them on JAX, and in one process it runs on one library alone. Seeded weights are those that TensorFlow draws
(`drawn_like_tensorflow`), so that a key means the same network on both engines: ``tf.random.stateless_*`` on a CPU is
Philox 4x32 with ten rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), keyed by the seed
as TensorFlow scrambles it. Uniform numbers are equal to the bit; normal ones to the rounding of sine, cosine,
logarithm.

What is asked of JAX: products of float32 numbers in float32 (it would take TF32), sums in one order
(``--xla_gpu_exclude_nondeterministic_ops``), memory of a card as it is needed, and compiled networks and the choices
of its autotuner kept in a folder of the user (`compiled_folder`), so that the next run starts sooner and computes
alike.
"""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import numpy as np

from featstore.backbones import catalog, keras_backbone
from featstore.backbones import precision as precisions
from featstore.backbones.engines import require_free
from featstore.backbones.weights import IMAGENET, one_line, require_reachable, resolve_weights
from featstore.errors import BackboneError, OutOfMemoryError, UsageError
from featstore.processes import CARD_MEMORY, CARD_SHARE, importing_networks
from featstore.types import BackboneSpec, Computation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import jax
    import keras
    from numpy.typing import NDArray

    from featstore.types import Features

    Words = NDArray[np.uint32]
    Floats = NDArray[np.float32]


# JAX and Keras set up, once per process

BACKEND: Final = "jax"
DETERMINISTIC: Final = "xla_gpu_exclude_nondeterministic_ops"
"""What XLA is told, where the user has not said otherwise: sums in one order, the same in every run.

Its stricter neighbour ``xla_gpu_deterministic_ops`` would also keep it from trying which kernel is the fastest
(openxla/xla#12520); here the choice is kept with the compiled network instead. Whoever sets that one is obeyed.
"""
SETTINGS: Final = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    CARD_MEMORY: str(CARD_SHARE),
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
"""Environment variables that are set where the user has not set them; workers that share a card get a share."""
PRODUCTS: Final = {
    precisions.FLOAT32: "float32",
    precisions.TF32: "tensorfloat32",
    precisions.BFLOAT16: "bfloat16",
}
"""What JAX may make of a product of float32 numbers, by precision."""
OUT_OF_MEMORY: Final = ("RESOURCE_EXHAUSTED", "Out of memory")


def compiled_folder() -> Path:
    """Where compiled networks are kept: ``$JAX_COMPILATION_CACHE_DIR``, else a folder in the user's cache folder."""
    own = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(own) if own else _user_cache() / "featstore" / "compiled"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@cache
def prepare_keras() -> Sequence[jax.Device]:
    """Have Keras run on JAX in this process; return JAX's devices, of which the first computes.

    Raises
    ------
    BackboneError
        If JAX is not installed or finds no device, or Keras runs on something else here already, or is set up in a
        way that would change the numbers.
    """
    require_free(BACKEND)
    asked = os.environ.get(keras_backbone.KERAS_BACKEND, BACKEND)
    keras_backbone.require_setting(
        "backend", asked, BACKEND, f"Unset {keras_backbone.KERAS_BACKEND}, or set it to {BACKEND}."
    )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{DETERMINISTIC}=true".strip()
    try:
        import jax
    except ImportError as error:
        raise BackboneError("The engine jax is not installed.", "pip install 'featstore[gpu]'") from error
    jax.config.update("jax_compilation_cache_dir", str(compiled_folder()))
    try:
        devices: Sequence[jax.Device] = jax.devices()
    except RuntimeError as error:
        raise BackboneError(
            f"JAX finds no device to compute on: {one_line(error)}",
            "Check the driver of the GPU, or compute on the CPU: JAX_PLATFORMS=cpu.",
        ) from error
    with mock.patch.dict(os.environ, {keras_backbone.KERAS_BACKEND: BACKEND}), importing_networks():
        import keras

    repair = "Remove the setting from keras.json (in $KERAS_HOME or ~/.keras) or from the calling program."
    keras_backbone.require_setting(
        "image_data_format", keras.config.image_data_format(), "channels_last", repair
    )
    keras_backbone.require_setting("dtype policy", keras.config.dtype_policy().name, "float32", repair)
    return devices


def on_gpu() -> bool:
    """Whether JAX computes on a GPU in this process."""
    return str(prepare_keras()[0].platform) == "gpu"


def libraries() -> str:
    """Names and versions of what computes, as shards record them."""
    import jax
    import jaxlib
    import keras

    return f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, keras {keras.__version__}"


def device_name() -> str:
    """Name of the device that computes, such as ``NVIDIA H100 80GB HBM3``."""
    device = prepare_keras()[0]
    return precisions.cpu_name() if device.platform == "cpu" else device.device_kind


def _capabilities(devices: Sequence[jax.Device]) -> list[tuple[int, int]]:
    """Compute capability of each GPU; (0, 0) where JAX does not say."""
    found = (
        str(getattr(device, "compute_capability", "0.0")) for device in devices if device.platform == "gpu"
    )
    return [(int(major), int(minor or 0)) for major, _, minor in (text.partition(".") for text in found)]


# The network


@dataclass(frozen=True, slots=True)
class JaxBackbone:
    """A frozen Keras network behind one function that XLA compiles for a batch; see `load_backbone`.

    `spec` and `batch_size` are those of `featstore.types.Backbone`.
    """

    spec: BackboneSpec
    batch_size: int
    _weights: Any = field(repr=False, compare=False)
    _forward: Callable[..., jax.Array] = field(repr=False, compare=False)
    on_device: bool = True

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time: all of a batch."""
        return self.batch_size

    @property
    def computation(self) -> Computation:
        """How its vectors come about."""
        return Computation(self.batch_size, BACKEND, device_name(), libraries())

    def with_batch_size(self, batch_size: int) -> JaxBackbone:
        """Use the same network, sharing its weights, for another batch.

        Raises
        ------
        UsageError
            If it is less than 1.
        """
        keras_backbone.require_batch_size(batch_size)
        return replace(self, batch_size=batch_size)

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map ``(batch_size, side, side, 3)`` float32 to ``(batch_size, dimension)`` float32.

        Raises
        ------
        UsageError
            If shape or dtype differ.
        NonFiniteFeaturesError
            If a feature is NaN or infinite.
        OutOfMemoryError
            If the device has no room for a batch of this size.
        """
        keras_backbone.require_images(self.spec, self.batch_size, images)
        return self.fetch(self.start(images))

    def start(self, images: jax.Array | NDArray[np.float32]) -> list[jax.Array]:
        """Begin to compute vectors, and do not wait for them.

        Parameters
        ----------
        images
            ``(n, side, side, 3)`` float32, 0..255, on the device; `n` is a multiple of the batch size.

        Returns
        -------
        list of jax.Array
            ``(batch_size, dimension)`` float32 each, for `fetch`.

        Raises
        ------
        OutOfMemoryError
            If the device has no room for a batch of this size.
        """
        size = self.batch_size
        try:
            if len(images) == size:
                return [self._forward(self._weights, images)]
            parts = (images[at : at + size] for at in range(0, len(images), size))
            return [self._forward(self._weights, part) for part in parts]
        except Exception as error:
            self._raise_out_of_memory(error)
            raise

    def fetch(self, features: Sequence[jax.Array]) -> Features:
        """Wait for the vectors of `start`, and look at them; errors are those of `embed`."""
        try:
            found: Features = np.concatenate([np.asarray(part) for part in features])
        except Exception as error:
            self._raise_out_of_memory(error)
            raise
        return keras_backbone.require_finite_features(self.spec, found)

    def memory(self) -> int:
        """Bytes of the device that a batch takes beside the weights, as the compiler plans them.

        Raises
        ------
        OutOfMemoryError
            If there is no room to try its kernels.
        """
        import jax

        side = self.spec.input_size
        pixels = jax.ShapeDtypeStruct((self.batch_size, side, side, 3), np.float32)
        try:
            plan = self._forward.lower(self._weights, pixels).compile().memory_analysis()  # type: ignore[attr-defined]
        except Exception as error:
            self._raise_out_of_memory(error)
            raise
        return int(plan.temp_size_in_bytes + plan.output_size_in_bytes) + 4 * int(np.prod(pixels.shape))

    def _raise_out_of_memory(self, error: Exception) -> None:
        if any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise OutOfMemoryError(
                f"{self.spec.name} has no room for {self.batch_size} images: {one_line(error)}",
                "Use a smaller batch, or a device with more memory.",
            ) from error


def load_backbone(
    name: str,
    weights: str = IMAGENET,
    preprocess: str = keras_backbone.OFFICIAL,
    batch_size: int = 16,
    precision: str = precisions.FLOAT32,
) -> JaxBackbone:
    """Build a frozen backbone on JAX and load its weights; XLA compiles it when the first batch comes.

    Arguments and errors are those of `featstore.backbones.keras_backbone.load_backbone`; there is no float16.
    """
    keras_backbone.require_preprocess(preprocess)
    precisions.require_precision(precision)
    keras_backbone.require_batch_size(batch_size)
    if precision not in PRODUCTS:
        raise UsageError(
            f"The engine jax does not compute in {precision}.",
            f"Choose one of {', '.join(PRODUCTS)}: `featstore extract DATA --engine jax --precision bfloat16`.",
        )
    row = catalog.row(name)
    found = resolve_weights(row, weights)
    if found.digest is None:
        require_reachable(row)
    precisions.require_hardware(precision, _capabilities(prepare_keras()), BACKEND)
    from keras.src.backend import random

    from featstore.backbones.folding import fold

    with drawn_like_tensorflow(random):
        if found.digest is None:
            found = keras_backbone.download(row)
        network = fold(keras_backbone.build(row, found, preprocess), precisions.POLICIES[precision])
    identity = keras_backbone.spec(row, found, preprocess, precision)
    prepare = keras_backbone.preprocessing_function(row, preprocess)
    values = [
        [v.value for v in kind] for kind in (network.trainable_variables, network.non_trainable_variables)
    ]
    return JaxBackbone(identity, batch_size, values, _compiled(network, prepare, precision))


def _compiled(
    network: keras.Model, prepare: Callable[[Any], Any], precision: str
) -> Callable[..., jax.Array]:
    import jax
    import jax.numpy as jnp

    def forward(weights: Any, images: jax.Array) -> jax.Array:  # noqa: ANN401 - two lists of arrays
        with jax.default_matmul_precision(PRODUCTS[precision]):
            features, _ = network.stateless_call(*weights, prepare(images), training=False)
        # Some of what networks do makes a number of NaN, so that bad pixels have to be remembered.
        sound = jnp.isfinite(images.sum(axis=(1, 2, 3)))
        return jnp.where(sound[:, None], features.astype(jnp.float32), jnp.nan)

    compiled: Callable[..., jax.Array] = jax.jit(forward)
    return compiled


# The size of a batch

LARGEST_BATCH: Final = 1024
SPARE: Final = 1.1
"""What a batch may take beyond the compiler's plan."""


def free_memory() -> int | None:
    """Bytes of the device that are not taken yet by this process."""
    stats = prepare_keras()[0].memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def with_largest_batch(backbone: JaxBackbone, largest: int, room: int) -> JaxBackbone:
    """Give a network the largest power of two up to `largest` whose plan fits into `room` bytes.

    What a batch takes grows nearly in proportion, so that a plan that does not fit tells how much smaller the next
    has to be.
    """
    size = 1 << (max(1, min(largest, LARGEST_BATCH)).bit_length() - 1)
    while size > 1:
        try:
            needed = SPARE * backbone.with_batch_size(size).memory()
        except OutOfMemoryError:
            size //= 2
            continue
        if needed <= room:
            break
        size = min(size // 2, 1 << (max(1, int(size * room / needed)).bit_length() - 1))
    return backbone.with_batch_size(size)


_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_SCRAMBLE: Final = (0x3EC8F720, 0x02461E29)
_ROUNDS: Final = 10
_GROUP: Final = 4
"""Numbers of one call of Philox, and of one group of TensorFlow's output."""
_SKIP: Final = 256
"""Calls that TensorFlow sets aside for each group of truncated normal numbers."""
_LIMIT: Final = 2.0
"""Standard deviations at which they are cut off."""
_FIRST: Final = 6
"""Calls that are computed for every group at first: few groups need more."""
_AT_ONCE: Final = 1 << 18
"""Groups that are computed at once; bounds memory."""


def uniform(shape: Sequence[int], minval: float, maxval: float, seed: int) -> Floats:
    """Float32 numbers in [minval, maxval), those of ``tf.random.stateless_uniform`` for ``(seed, 0)``."""
    low, high = np.float32(minval), np.float32(maxval)
    return _unit_interval(_stream(math.prod(shape), seed)).reshape(shape) * (high - low) + low


def normal(shape: Sequence[int], mean: float, stddev: float, seed: int) -> Floats:
    """Float32 normal numbers, those of ``tf.random.stateless_normal`` but for rounding."""
    count = math.prod(shape)
    words = _stream(count + count % 2, seed).reshape(-1, 2)
    return _box_muller(words).ravel()[:count].reshape(shape) * np.float32(stddev) + np.float32(mean)


def truncated_normal(shape: Sequence[int], mean: float, stddev: float, seed: int) -> Floats:
    """Float32 normal numbers within two deviations: ``tf.random.stateless_truncated_normal`` but for rounding."""
    count = math.prod(shape)
    groups = -(-count // _GROUP)
    parts = [
        _truncated(np.arange(start, min(start + _AT_ONCE, groups), dtype=np.uint64), seed)
        for start in range(0, groups, _AT_ONCE)
    ]
    drawn = np.concatenate(parts).ravel()[:count] if parts else np.zeros(0, np.float32)
    return drawn.reshape(shape) * np.float32(stddev) + np.float32(mean)


@contextlib.contextmanager
def drawn_like_tensorflow(random: Any) -> Iterator[None]:  # noqa: ANN401
    """Have the initialisers of Keras draw these numbers, whatever its backend.

    Parameters
    ----------
    random
        The module ``random`` of Keras' backend.
    """

    def drawing(draw: Any, first: str, second: str, defaults: tuple[float, float]) -> Any:  # noqa: ANN401
        def drawn(shape: Sequence[int], *given: float, dtype: Any = None, seed: int, **named: float) -> Any:  # noqa: ANN401
            values = dict(zip((first, second), defaults, strict=True)) | named
            values |= dict(zip((first, second), given, strict=False))
            return draw(shape, values[first], values[second], seed).astype(dtype or np.float32)

        return drawn

    with (
        mock.patch.object(random, "uniform", drawing(uniform, "minval", "maxval", (0.0, 1.0))),
        mock.patch.object(random, "normal", drawing(normal, "mean", "stddev", (0.0, 1.0))),
        mock.patch.object(
            random, "truncated_normal", drawing(truncated_normal, "mean", "stddev", (0.0, 1.0))
        ),
    ):
        yield


def _stream(count: int, seed: int) -> Words:
    """So many words, in order."""
    key, high = _key_of(seed)
    calls = -(-count // _GROUP)
    words = np.empty((calls, _GROUP), np.uint32)
    for start in range(0, calls, _AT_ONCE):
        counters = np.arange(start, min(start + _AT_ONCE, calls), dtype=np.uint64)
        words[start : start + len(counters)] = _philox(counters, high, key)
    return words.ravel()[:count]


def _key_of(seed: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Key, and upper half of the counter, that TensorFlow makes of a seed."""
    word = seed & 0xFFFFFFFFFFFFFFFF
    mixed = _philox(np.array([word], np.uint64), (0, 0), _SCRAMBLE)[0].tolist()
    return (mixed[0], mixed[1]), (mixed[2], mixed[3])


def _philox(low: NDArray[np.uint64], high: tuple[int, int], key: tuple[int, int]) -> Words:
    """One call for each counter, whose lower half is `low`: ``(len(low), 4)``."""
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1 = (low & mask).astype(np.uint32), (low >> shift).astype(np.uint32)
    c2, c3 = (np.full(low.shape, word, np.uint32) for word in high)
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    with np.errstate(over="ignore"):
        for _ in range(_ROUNDS):
            one, other = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
            c0, c1, c2, c3 = (
                (other >> shift).astype(np.uint32) ^ c1 ^ k0,
                (other & mask).astype(np.uint32),
                (one >> shift).astype(np.uint32) ^ c3 ^ k1,
                (one & mask).astype(np.uint32),
            )
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return np.stack([c0, c1, c2, c3], axis=1)


def _unit_interval(words: Words) -> Floats:
    """[0, 1) from the 23 lower bits."""
    bits = (words & np.uint32(0x7FFFFF)) | np.uint32(127 << 23)
    return bits.view(np.float32) - np.float32(1)


def _box_muller(words: Words) -> Floats:
    """Two normal numbers from each pair of words (Box & Muller, 1958)."""
    uniform = _unit_interval(words)
    angle = np.float32(2 * np.pi) * uniform[..., 1]
    radius = np.sqrt(np.float32(-2) * np.log(np.maximum(uniform[..., 0], np.float32(1e-7))))
    return np.stack([np.sin(angle) * radius, np.cos(angle) * radius], axis=-1)


def _truncated(groups: NDArray[np.uint64], seed: int, calls: int = _FIRST) -> Floats:
    """The first four numbers of each group that are near enough: ``(len(groups), 4)``."""
    key, high = _key_of(seed)
    first_of_group, call = groups[:, None] * np.uint64(_SKIP), np.arange(calls, dtype=np.uint64)
    counters = np.add(first_of_group, call, dtype=np.uint64)
    words = _philox(counters.ravel(), high, key).reshape(len(groups), -1, 2)
    normals = _box_muller(words).reshape(len(groups), -1)
    near = np.abs(normals) < _LIMIT
    first = np.argsort(~near, axis=1, kind="stable")[:, :_GROUP]
    drawn = np.take_along_axis(normals, first, axis=1)
    short = np.flatnonzero(near.sum(axis=1) < _GROUP)
    if len(short):
        drawn[short] = _truncated(groups[short], seed, 4 * calls)
    return drawn
