"""Bilinear warp in plain NumPy: Keras' pixels, the coordinates computed once for all channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from featstore.errors import RecipeError, did_you_mean
from featstore.images.transform import affine

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from featstore.images.transform import Transform

    Image = NDArray[np.uint8] | NDArray[np.float32]
    Plane = NDArray[np.float32]
    Coordinates = NDArray[np.float64]

# Output pixels at a time: the temporaries of a block (8 bytes each) stay in the second-level cache.
_BLOCK: Final = 16_384
_UNMOVED: Final = np.eye(2, 3)


def warp(image: Image, transform: Transform, fill: str = "nearest", cval: float = 0.0) -> NDArray[np.float32]:
    """Read `image` through `transform` with bilinear interpolation.

    The result is that of Keras' ``ImageDataGenerator.apply_transform`` on float32 pixels, which calls
    ``scipy.ndimage.affine_transform(order=1)`` channel by channel: also its ``wrap``, whose period is one
    pixel short, and its ``constant``, which starts hard at the centres of the border pixels. A grey image
    gives exactly the values that it gives repeated on three channels. Safe to call from many threads: NumPy
    lets go of the interpreter lock in each step.

    Parameters
    ----------
    image
        Shape (height, width, channels), uint8 or finite float32.
    transform
        Parameters in pixels of this image.
    fill
        Outside of the image: ``nearest``, ``reflect``, ``wrap`` or ``constant``.
    cval
        Grey level outside, for ``constant``.

    Returns
    -------
    NDArray
        Shape of `image`, float32. Flips alone, or nothing, move pixels without touching them.

    Raises
    ------
    RecipeError
        If `fill` is unknown.
    """
    if fill not in _FOLDS:
        raise RecipeError(f"There is no fill {fill!r}.", did_you_mean(fill, _FOLDS))
    height, width, _ = image.shape
    rows, columns = _grid(transform, height, width)
    # Flips walk the output backwards instead of entering the matrix: at the hard edges of constant and wrap
    # the last bit of a coordinate decides, and this way it is Keras'.
    matrix = affine(replace(transform, flip_horizontal=False, flip_vertical=False), height, width)
    if np.array_equal(matrix, _UNMOVED):
        return np.ascontiguousarray(image[np.ix_(rows, columns)], dtype=np.float32)
    planes, stride = _planes(image)
    out = np.empty(image.shape, dtype=np.float32)
    step = max(1, _BLOCK // width)
    for top in range(0, height, step):
        block = slice(top, top + step)
        y, x = _coordinates(matrix, rows[block], columns)
        outside = _outside(y, x, height, width) if fill == "constant" else None
        taps = _taps(_FOLDS[fill](y, height), _FOLDS[fill](x, width), planes.shape[1] // stride, stride)
        for channel, plane in enumerate(planes):
            values = _interpolate(plane, *taps, stride)
            if outside is not None:
                np.putmask(values, outside, cval)
            out[block, :, channel] = values
    return out


def _grid(transform: Transform, height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column that Keras computes for each output row and column before it flips."""
    rows, columns = np.arange(height), np.arange(width)
    return (
        rows[::-1] if transform.flip_vertical else rows,
        columns[::-1] if transform.flip_horizontal else columns,
    )


def _planes(image: Image) -> tuple[Plane, int]:
    """Channels as flat planes of at least two rows and columns, (channels, pixels), and pixels per row."""
    height, width, channels = image.shape
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    if min(height, width) == 1:
        planes = np.pad(planes, ((0, 0), (0, int(height == 1)), (0, int(width == 1))), mode="edge")
    return planes.reshape(channels, -1), planes.shape[2]


def _coordinates(
    matrix: NDArray[np.float64], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[Coordinates, Coordinates]:
    """Input row and column of each output pixel, added up in scipy's order so that the last bits agree."""
    y, x = (
        offset + along_row * rows[:, None] + along_column * columns
        for along_row, along_column, offset in matrix
    )
    return y, x


def _outside(y: Coordinates, x: Coordinates, height: int, width: int) -> NDArray[np.bool_]:
    return (y < 0) | (y > height - 1) | (x < 0) | (x > width - 1)


def _fold_nearest(x: Coordinates, size: int) -> Coordinates:
    return np.clip(x, 0, size - 1, out=x)


def _fold_reflect(x: Coordinates, size: int) -> Coordinates:
    """Mirror at the outer edges of the border pixels: d c b a | a b c d | d c b a."""
    period = 2 * size
    x += 0.5
    x -= period * np.floor(x / period)
    np.minimum(x, period - x, out=x)
    x -= 0.5
    return _fold_nearest(x, size)


def _fold_wrap(x: Coordinates, size: int) -> Coordinates:
    """Repeat with scipy's period ``size - 1``: the last pixel lies upon the first.

    On a seam scipy shows the last pixel left of the image, and the first pixel right of it.
    """
    period = size - 1
    if period == 0:
        return np.zeros_like(x)
    turns = np.trunc(x / period)
    turns -= x < 0
    turns[x == period] = 0
    x -= period * turns
    return _fold_nearest(x, size)


_FOLDS: Final[dict[str, Callable[[Coordinates, int], Coordinates]]] = {
    "nearest": _fold_nearest,
    "reflect": _fold_reflect,
    "wrap": _fold_wrap,
    "constant": _fold_nearest,
}


def _taps(y: Coordinates, x: Coordinates, height: int, width: int) -> tuple[NDArray[np.intp], Plane, Plane]:
    """Flat index of the upper left of four neighbours, and the fractions of the way down and right.

    On the last row or column the fraction is 1, so the other neighbours always exist.
    """
    upper = np.minimum(np.floor(y), height - 2)
    left = np.minimum(np.floor(x), width - 2)
    down = np.subtract(y, upper, out=y).astype(np.float32)
    right = np.subtract(x, left, out=x).astype(np.float32)
    upper *= width
    upper += left
    return upper.astype(np.intp), down, right


def _interpolate(plane: Plane, index: NDArray[np.intp], down: Plane, right: Plane, stride: int) -> Plane:
    # mode="clip" skips the bounds check that `_taps` has made needless.
    first = plane.take(index, mode="clip")
    upper = plane[1:].take(index, mode="clip")
    upper -= first
    upper *= right
    upper += first
    first = plane[stride:].take(index, mode="clip")
    lower = plane[stride + 1 :].take(index, mode="clip")
    lower -= first
    lower *= right
    lower += first
    lower -= upper
    lower *= down
    lower += upper
    return lower
