"""Keras networks on JAX: pixels in, vectors out, one compiled function, and no TensorFlow.

The network, its weights, its preprocessing and its folding are those of `featstore.backbones.keras_backbone`; Keras runs
them on JAX in a process of its own, since Keras has one backend in a process. Seeded weights are those that TensorFlow
draws (`featstore.backbones.seeded_weights`), so that a key means the same network on both.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featstore.backbones import catalog, jax_warp
from featstore.backbones.precision import BFLOAT16, FLOAT32, POLICIES, require_precision
from featstore.backbones.seeded_weights import drawn_like_tensorflow
from featstore.backbones.weights import IMAGENET, one_line, resolve_weights
from featstore.errors import BackboneError, NonFiniteFeaturesError, OutOfMemoryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jax
    import keras
    from numpy.typing import NDArray

    from featstore.images.augment import Transform
    from featstore.types import BackboneSpec, Features, Pixels

BACKEND: Final = "jax"
MATMUL: Final = {FLOAT32: "float32", BFLOAT16: "bfloat16"}
"""What JAX may make of a product of float32 numbers, by precision; left alone it takes TF32 on a GPU."""


def prepare_keras() -> list[Any]:
    """Have Keras run on JAX in this process; return JAX's devices.

    Raises
    ------
    BackboneError
        If JAX is not installed, or Keras runs on something else here already.
    """
    asked = os.environ.setdefault("KERAS_BACKEND", BACKEND)
    if asked != BACKEND or ("keras" in sys.modules and sys.modules["keras"].backend.backend() != BACKEND):
        raise BackboneError(
            f"Keras runs on {asked} in this process, and the engine jax needs it on jax.",
            "Use a process of its own: the command line, or KERAS_BACKEND=jax before Keras is imported.",
        )
    # A card that several processes share: take memory as it is needed. Sums in one order, the same in every run.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    try:
        import jax
    except ImportError as error:
        raise BackboneError("The engine jax is not installed.", "pip install 'featstore[gpu]'") from error
    return list(jax.devices())


@dataclass(frozen=True, slots=True)
class JaxBackbone:
    """A frozen Keras network behind one function that JAX compiles for a batch; see `load_backbone`.

    `spec` and `batch_size` are those of `featstore.types.Backbone`.
    """

    spec: BackboneSpec
    batch_size: int
    _weights: Any = field(repr=False, compare=False)
    _forward: Callable[..., jax.Array] = field(repr=False, compare=False)

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time: all of a batch."""
        return self.batch_size

    def with_batch_size(self, batch_size: int) -> JaxBackbone:
        """Use the same network, sharing its weights, for another batch."""
        if batch_size < 1:
            raise UsageError(f"The batch size is {batch_size}.", "Use 1 or more.")
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
        expected = (self.batch_size, self.spec.input_size, self.spec.input_size, 3)
        if images.shape != expected or images.dtype != np.float32:
            raise UsageError(
                f"{self.spec.name} got {images.dtype} images of shape {images.shape}.",
                f"Give float32 of shape {expected}; pad the last batch.",
            )
        return self.fetch(self.start(images))

    def start(
        self,
        pixels: Pixels | NDArray[np.float32] | jax.Array,
        transforms: Sequence[Transform] = (),
        fill: str = "nearest",
        cval: float = 0.0,
    ) -> jax.Array:
        """Begin to compute the vectors of a batch, and do not wait for them.

        Parameters
        ----------
        pixels
            ``(batch_size, side, side, 1 or 3)`` uint8 or float32, on the host or on the device.
        transforms
            How each is seen; none for the images as they are.
        fill, cval
            As for `featstore.images.augment.warp`.

        Returns
        -------
        jax.Array
            ``(batch_size, dimension)`` float32, for `fetch`.
        """
        side = self.spec.input_size
        where = jax_warp.reads(transforms, side, side) if transforms else None
        return self._forward(self._weights, pixels, where, fill, cval)

    def fetch(self, features: jax.Array) -> Features:
        """Wait for vectors, and look at them; errors are those of `embed`."""
        try:
            found: Features = np.asarray(features)
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemoryError(
                f"{self.spec.name} has no room for {self.batch_size} images: {one_line(error)}",
                "Use a smaller batch, or a device with more memory.",
            ) from error
        bad = int(np.count_nonzero(~np.isfinite(found).all(axis=1)))
        if bad:
            raise NonFiniteFeaturesError(
                f"{self.spec.name} gave NaN or infinity for {bad} of {self.batch_size} images.",
                "Check its weights file and the range of the pixels (0..255).",
            )
        return found


def load_backbone(
    name: str,
    weights: str = IMAGENET,
    preprocess: str = "official",
    batch_size: int = 16,
    precision: str = FLOAT32,
) -> JaxBackbone:
    """Build a frozen backbone on JAX, and load its weights; arguments and errors are those of `keras_backbone.load_backbone`."""
    from featstore.backbones import keras_backbone

    keras_backbone.require_preprocess(preprocess)
    require_precision(precision)
    if precision not in MATMUL:
        raise UsageError(
            f"The engine jax does not compute in {precision}.", f"Choose one of {', '.join(MATMUL)}."
        )
    row = catalog.row(name)
    found = resolve_weights(row, weights)
    prepare_keras()
    from keras.src.backend import random

    from featstore.backbones.folding import fold

    with drawn_like_tensorflow(random):
        if found.digest is None:
            found = keras_backbone.download(row)
        network = fold(keras_backbone.build(row, found, preprocess), POLICIES[precision])
    identity = keras_backbone.spec(row, found, preprocess, precision)
    prepare = keras_backbone.preprocessing_function(row, preprocess)
    values = (
        [v.value for v in network.trainable_variables],
        [v.value for v in network.non_trainable_variables],
    )
    return JaxBackbone(identity, batch_size, values, _compiled(network, prepare, precision))


def _compiled(
    network: keras.Model, prepare: Callable[[Any], Any], precision: str
) -> Callable[..., jax.Array]:
    import jax
    import jax.numpy as jnp

    def forward(
        weights: Any,  # noqa: ANN401 - two lists of arrays
        pixels: jax.Array,
        where: jax_warp.Reads | None,
        fill: str,
        cval: float,
    ) -> jax.Array:
        seen = pixels.astype(jnp.float32) if where is None else jax_warp.warp(pixels, where, fill, cval)
        images = jnp.broadcast_to(seen, (*seen.shape[:3], 3))
        with jax.default_matmul_precision(MATMUL[precision]):
            features, _ = network.stateless_call(*weights, prepare(images), training=False)
        # Some of what networks do makes a number of NaN, so that bad pixels have to be remembered.
        sound = jnp.isfinite(images.sum(axis=(1, 2, 3)))
        return jnp.where(sound[:, None], features.astype(jnp.float32), jnp.nan)

    return jax.jit(forward, static_argnames=("fill",))
