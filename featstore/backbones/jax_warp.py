"""The warp of a view on the device: the pixels of `featstore.images.augment.warp`, gathered by JAX.

The host computes where each output row and column begins to read, in double precision, and rounds that to fixed point
with `BITS` binary places. The device only adds, folds at the borders and interpolates: integers are exact on every
device, so that views do not depend on it. A coordinate is off by less than a millionth of a pixel and a grey level by
less than `TOLERANCE`, except where ``constant`` and ``wrap`` jump: there a coordinate within that millionth may fall on
the other side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from featstore.images.augment import affine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jax
    from numpy.typing import NDArray

    from featstore.images.augment import Transform

BITS: Final = 20
"""Binary places of a coordinate; 11 more and a sign are left for the pixel."""
FARTHEST: Final = 1 << (31 - BITS)
"""Pixels beyond which a coordinate cannot be told."""
TOLERANCE: Final = 0.01
"""Largest difference to the warp of the host, in grey levels."""


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
    ValueError
        If a pixel is read from farther away than `FARTHEST`.
    """
    rows = np.empty((len(transforms), 2, height))
    columns = np.empty((len(transforms), 2, width))
    for image, transform in enumerate(transforms):
        # Flips walk the output backwards, as in `warp`: whole pixels stay whole.
        matrix = affine(replace(transform, flip_horizontal=False, flip_vertical=False), height, width)
        down, right = np.arange(height), np.arange(width)
        down = down[::-1] if transform.flip_vertical else down
        right = right[::-1] if transform.flip_horizontal else right
        rows[image] = matrix[:, 2:] + matrix[:, :1] * down
        columns[image] = matrix[:, 1:2] * right
    farthest = max(np.abs(rows.max(axis=2) + columns.max(axis=2)).max(initial=0), np.abs(rows).max(initial=0))
    if max(farthest, np.abs(rows.min(axis=2) + columns.min(axis=2)).max(initial=0)) >= FARTHEST:
        raise ValueError(f"a view reads pixels that are more than {FARTHEST} away")
    return Reads(*(np.rint(part * (1 << BITS)).astype(np.int32) for part in (rows, columns)))


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
    return jnp.where(outside[..., None], jnp.float32(cval), values) if fill == "constant" else values


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
