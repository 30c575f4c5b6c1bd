"""The warp of a view on the device: the pixels of `featstore.images.augment.warp`, gathered by JAX.

The host computes where each output row and column begins to read, in double precision, and rounds that to fixed point
with `BITS` binary places. The device only adds, folds at the borders and interpolates: integers are exact on every
device, so that views do not depend on it. A coordinate is off by less than a millionth of a pixel and a grey level by
less than `TOLERANCE`, except where ``constant`` and ``wrap`` jump: there a coordinate within that millionth may fall
on the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from featstore.images.augment import Transform, unflipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import jax
    from numpy.typing import NDArray

    from featstore.types import Pixels

BITS: Final = 20
"""Binary places of a coordinate; 11 more and a sign are left for the pixel."""
FARTHEST: Final = 1 << (31 - BITS)
"""Pixels beyond which a coordinate cannot be told."""
TOLERANCE: Final = 0.01
"""Largest difference to the warp of the host, in grey levels."""


class TooFarError(ValueError):
    """A view reads pixels from farther away than fixed point can tell."""


class Reads(NamedTuple):
    """Where output pixels read, for a batch: the sum of what its row and its column say, in fixed point.

    Attributes
    ----------
    rows
        ``(images, 2, height)`` int32: (row, column) in the input by output row.
    columns
        ``(images, 2, width)`` int32: what the output column adds.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]


def reads(transforms: Sequence[Transform], height: int, width: int) -> Reads:
    """Say where the pixels of each image are read.

    Parameters
    ----------
    transforms
        One for each image.
    height, width
        Pixels.

    Raises
    ------
    TooFarError
        If a pixel is read from farther away than `FARTHEST`.
    """
    matrices = unflipped(transforms, height, width)
    # Flips walk the output backwards, as in `warp`: whole pixels stay whole.
    down = _walks([t.flip_vertical for t in transforms], height)
    right = _walks([t.flip_horizontal for t in transforms], width)
    offset, by_row, by_column = matrices[:, :, 2:], matrices[:, :, :1], matrices[:, :, 1:2]
    ends = np.array([0, height - 1]), np.array([0, width - 1])
    corners = offset[..., None] + by_row[..., None] * ends[0][:, None] + by_column[..., None] * ends[1]
    if np.abs(corners).max(initial=0) >= FARTHEST:
        raise TooFarError(f"a view reads pixels that are more than {FARTHEST} away")
    return Reads(_fixed_point(by_row, down, offset), _fixed_point(by_column, right))


def _fixed_point(
    slope: NDArray[np.float64], walk: NDArray[np.float64], offset: NDArray[np.float64] | float = 0.0
) -> NDArray[np.int32]:
    """Say where a walk along one axis reads, with `BITS` binary places."""
    at = slope * walk
    at += offset
    at *= 1 << BITS
    return np.rint(at, out=at).astype(np.int32)


def _walks(backwards: Sequence[bool], size: int) -> NDArray[np.float64]:
    """Places of one axis in the order in which each image is read: ``(images, 1, size)``."""
    forth = np.arange(float(size))
    return np.where(np.array(backwards, bool)[:, None, None], forth[::-1], forth)


def warp(pixels: jax.Array, where: Reads, fill: str, cval: float) -> jax.Array:
    """Read images through their transforms with bilinear interpolation; to be compiled.

    Parameters
    ----------
    pixels
        ``(images, height, width, channels)`` uint8 or float32.
    where
        From `reads`.
    fill
        Outside of the image: ``nearest``, ``reflect``, ``wrap`` or ``constant``.
    cval
        Grey level outside, for ``constant``.

    Returns
    -------
    jax.Array
        Shape of `pixels`, float32.
    """
    import jax
    import jax.numpy as jnp

    height, width = pixels.shape[1:3]
    at = where.rows[:, :, :, None] + where.columns[:, :, None, :]
    y, x = at[:, 0], at[:, 1]
    last = [(size - 1) << BITS for size in (height, width)]
    outside = (y < 0) | (y > last[0]) | (x < 0) | (x > last[1])
    y, x = _folded(y, height, fill), _folded(x, width, fill)
    top, down = _tap(y, height)
    left, right = _tap(x, width)
    flat = pixels.reshape(len(pixels), height * width, -1)

    def tap(below: int, beside: int) -> jax.Array:
        rows, columns = jnp.minimum(top + below, height - 1), jnp.minimum(left + beside, width - 1)
        index = (rows * width + columns).reshape(len(pixels), -1)
        taken = jax.vmap(lambda image, where: jnp.take(image, where, axis=0, mode="clip"))(flat, index)
        return taken.astype(jnp.float32).reshape(*rows.shape, -1)

    down, right = down[..., None], right[..., None]
    upper, lower = (tap(0, 0), tap(0, 1)), (tap(1, 0), tap(1, 1))
    upper = upper[0] + (upper[1] - upper[0]) * right
    lower = lower[0] + (lower[1] - lower[0]) * right
    values = upper + (lower - upper) * down
    return (
        jnp.where(outside[..., None], jnp.asarray(cval, jnp.float32), values)
        if fill == "constant"
        else values
    )


def _tap(x: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Pixel before a coordinate, and the fraction of the way to the next; on the last one the fraction is 1."""
    import jax.numpy as jnp

    first = jnp.clip(x >> BITS, 0, max(size - 2, 0))
    return first, (x - (first << BITS)).astype(jnp.float32) * jnp.float32(2.0**-BITS)


def _folded(x: jax.Array, size: int, fill: str) -> jax.Array:
    """Coordinates inside of the image, as `featstore.images.augment` folds them."""
    import jax
    import jax.numpy as jnp

    last = (size - 1) << BITS
    if fill == "reflect":
        period, half = 2 * size << BITS, 1 << (BITS - 1)
        x = jnp.mod(x + half, period)
        x = jnp.minimum(x, period - x) - half
    elif fill == "wrap" and last:
        turns = jax.lax.div(x, jnp.int32(last)) - (x < 0).astype(jnp.int32)
        x = x - last * jnp.where(x == last, 0, turns)
    return jnp.clip(x, 0, last)


# Pictures that stay on the device for all views and networks of one input size

CHANNELS: Final = 3


@dataclass(frozen=True, slots=True)
class DeviceImages:
    """Pictures of one input size, uploaded once as 8-bit numbers and seen as often as wanted.

    Attributes
    ----------
    pixels
        ``(images, side, side, channels)`` uint8 on the device, padded to a multiple of `batch_size` images; one
        channel where all of them are grey.
    batch_size
        Rows of what `seen` returns.
    """

    pixels: jax.Array
    batch_size: int

    @classmethod
    def upload(cls, images: Sequence[Pixels], batch_size: int) -> Self:
        """Begin to copy pictures to the device, and do not wait for it.

        Parameters
        ----------
        images
            Each ``(side, side, 1 or 3)`` uint8.
        batch_size
            For `seen`.
        """
        import jax

        side = images[0].shape[0]
        channels = max(image.shape[2] for image in images)
        padded = -(-len(images) // batch_size) * batch_size
        stack = np.zeros((padded, side, side, channels), np.uint8)
        for row, image in enumerate(images):
            stack[row] = image
        return cls(jax.device_put(stack), batch_size)

    def from_host(self, images: Sequence[NDArray[np.float32]]) -> jax.Array:
        """Copy pictures ``(side, side, 1 or 3)`` that were warped elsewhere to the device; shape as of `seen`."""
        import jax

        side = self.pixels.shape[1]
        stack = np.zeros((self.batch_size, side, side, CHANNELS), np.float32)
        for row, image in enumerate(images):
            stack[row] = image
        return jax.device_put(stack)

    def seen(
        self,
        rows: Sequence[int],
        transforms: Sequence[Transform] = (),
        fill: str = "nearest",
        cval: float = 0.0,
    ) -> jax.Array:
        """Show some of the pictures in one view.

        Parameters
        ----------
        rows
            Places of at most `batch_size` pictures; the rest of the result is padding.
        transforms
            One for each of `rows`; none for the pictures as they are.
        fill, cval
            As for `featstore.images.augment.warp`.

        Returns
        -------
        jax.Array
            ``(batch_size, side, side, 3)`` float32 on the device, 0..255. A number depends on its picture and its
            transform alone, and not on whether others in the upload have colours.
        """
        side = self.pixels.shape[1]
        index = np.zeros(self.batch_size, np.int32)
        index[: len(rows)] = rows
        if not transforms:
            return _taken()(self.pixels, index)
        where = reads(transforms, side, side)
        padding = self.batch_size - len(rows)
        where = Reads(*(np.pad(part, ((0, padding), (0, 0), (0, 0))) for part in where))
        return _warped(fill)(self.pixels, index, where, np.float32(cval))


@cache
def _taken() -> Callable[..., jax.Array]:
    import jax

    compiled: Callable[..., jax.Array] = jax.jit(
        lambda pixels, index: _in_colour(pixels, index).astype(np.float32)
    )
    return compiled


@cache
def _warped(fill: str) -> Callable[..., jax.Array]:
    import jax

    compiled: Callable[..., jax.Array] = jax.jit(
        lambda pixels, index, where, cval: warp(_in_colour(pixels, index), where, fill, cval)
    )
    return compiled


def _in_colour(pixels: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of a stack on three channels, so that what follows is one compiled function for grey and for colour."""
    import jax
    import jax.numpy as jnp

    taken = jnp.broadcast_to(pixels[index], (len(index), *pixels.shape[1:3], CHANNELS))
    return jax.lax.optimization_barrier(taken)
