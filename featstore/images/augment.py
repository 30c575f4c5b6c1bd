"""Augmentation and resizing: the affine map of a view, the warp, the square that a network takes, thumbnails.

The geometry of a view is drawn from (seed, image id) alone and composed into one affine map. `DeviceImages` reads the
same pixels as `warp`, gathered by JAX: the host computes where each output row and column begins to read, in double
precision, and rounds that to fixed point with `BITS` binary places. The device only adds, folds at the borders and
interpolates: integers are exact on every device, so that views do not depend on it. A coordinate is off by less than
a millionth of a pixel and a grey level by less than `TOLERANCE`, except where ``constant`` and ``wrap`` jump: there a
coordinate within that millionth may fall on the other side.
"""

from __future__ import annotations

import hashlib
import io
import math
import operator
import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from featstore.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from featstore.images.recipe import Range, Recipe
    from featstore.types import Pixels

    Matrix = NDArray[np.float64]
    Raster = NDArray[np.uint8] | NDArray[np.float32]
    Plane = NDArray[np.float32]
    Coordinates = NDArray[np.float64]
    import jax


# Geometry of one view of one image

# Changing a letter of this, or a slot of `draw`, changes every view ever cached: raise Decoding.revision.
_DOMAIN: Final = "featstore view 1"
_EIGHT_WORDS: Final = struct.Struct(">8Q")
_HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Transform:
    """Parameters of one affine transform, in the names of Keras' ``get_random_transform``.

    Attributes
    ----------
    theta
        Rotation, degrees.
    tx, ty
        Shifts, pixels. As in Keras, `tx` is drawn from the height and `ty` from the width; and as Keras swaps
        its axes later, `tx` then moves the image along its columns and `ty` along its rows.
    shear
        Shear angle, degrees.
    zx, zy
        Sampling steps along columns and rows: above 1 the image shrinks.
    flip_horizontal, flip_vertical
        Reversal of columns and of rows, after all of the above.
    """

    theta: float = 0.0
    tx: float = 0.0
    ty: float = 0.0
    shear: float = 0.0
    zx: float = 1.0
    zy: float = 1.0
    flip_horizontal: bool = False
    flip_vertical: bool = False


def uniforms(seed: int, image_id: str) -> tuple[float, ...]:
    """Eight numbers in [0, 1) with 53 random bits each: SHA-512 of seed and image id, and nothing else.

    No generator and no state: the order of calls, the process and the versions of libraries cannot matter.
    """
    text = f"{_DOMAIN}\n{operator.index(seed)}\n{image_id}"
    raw = hashlib.sha512(text.encode()).digest()
    return tuple([(word >> 11) * 2.0**-53 for word in _EIGHT_WORDS.unpack(raw)])


def draw(recipe: Recipe, seed: int, image_id: str, height: int, width: int) -> Transform:
    """Draw the transform of one image in one view.

    Every operation owns one of the eight uniforms, so changing one never changes the draws of the others. The
    sixth is kept for a zoom that differs between the axes.

    Parameters
    ----------
    recipe
        Ranges to draw from.
    seed
        Augmentation seed of the view.
    image_id
        SHA-256 of the image, 64 hex digits.
    height, width
        Size of the image that will be warped, pixels.
    """
    u_theta, u_tx, u_ty, u_shear, u_zoom, _, u_horizontal, u_vertical = uniforms(seed, image_id)
    zoom = _scale(recipe.zoom, u_zoom)
    return Transform(
        theta=_scale(recipe.rotate, u_theta),
        tx=_scale(recipe.shift, u_tx) * height,
        ty=_scale(recipe.shift, u_ty) * width,
        shear=_scale(recipe.shear, u_shear),
        zx=zoom,
        zy=zoom,
        flip_horizontal="h" in recipe.flip and u_horizontal < _HALF,
        flip_vertical="v" in recipe.flip and u_vertical < _HALF,
    )


def affine(transform: Transform, height: int, width: int) -> Matrix:
    """Compose the map from output to input pixels, shape (2, 3), float64, in (row, column) order.

    ``input = matrix[:, :2] @ (row, column) + matrix[:, 2]`` is where Keras' ``apply_affine_transform``
    (rows, columns, channels) and the flips after it read the value of an output pixel. Keras centres the map
    at ``((width - 1) / 2, (height - 1) / 2)``, off the middle of an image that is not square; so do we.
    """
    matrix: Matrix = unflipped([transform], height, width)[0]
    if transform.flip_horizontal:
        matrix = _reversed(matrix, 1, width)
    if transform.flip_vertical:
        matrix = _reversed(matrix, 0, height)
    return matrix


def unflipped(transforms: Sequence[Transform], height: int, width: int) -> Matrix:
    """Compose the maps of many transforms without their flips, shape (transforms, 2, 3); otherwise as `affine`.

    A map does not depend on the others: the numbers are those of one at a time, to the bit.
    """
    numbers = np.array([(t.theta, t.tx, t.ty, t.shear, t.zx, t.zy) for t in transforms]).reshape(-1, 6)
    return _centred(_linear(*numbers.T), height, width)


def _scale(values: Range, u: float) -> float:
    """Map u of [0, 1) to (lo, hi]."""
    lo, hi = values
    return max(hi - u * (hi - lo), math.nextafter(lo, hi))  # rounding must not reach lo


def _linear(
    theta: Coordinates, tx: Coordinates, ty: Coordinates, shear: Coordinates, zx: Coordinates, zy: Coordinates
) -> Matrix:
    """Compose rotation, shift, shear and zoom in Keras' order and Keras' (x, y) axes, shape (n, 3, 3)."""
    rotated, shifted, sheared, zoomed = np.tile(np.eye(3), (4, len(theta), 1, 1))
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    rotated[:, 0, 0] = rotated[:, 1, 1] = np.cos(theta)
    rotated[:, 1, 0] = np.sin(theta)
    rotated[:, 0, 1] = -rotated[:, 1, 0]
    shifted[:, 0, 2], shifted[:, 1, 2] = tx, ty
    sheared[:, 0, 1], sheared[:, 1, 1] = -np.sin(shear), np.cos(shear)
    zoomed[:, 0, 0], zoomed[:, 1, 1] = zx, zy
    composed: Matrix = rotated @ shifted @ sheared @ zoomed
    return composed


def _centred(matrices: Matrix, height: int, width: int) -> Matrix:
    """Turn about Keras' centre, then swap its (x, y) for (row, column): shape (n, 2, 3)."""
    x, y = height / 2 - 0.5, width / 2 - 0.5
    there = np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    back = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])
    swap = [1, 0, 2]
    centred: Matrix = there @ matrices @ back
    return centred[:, swap[:2]][:, :, swap]


def _reversed(matrix: Matrix, axis: int, size: int) -> Matrix:
    """Read the output backwards along `axis`."""
    flipped = matrix.copy()
    flipped[:, axis] = -matrix[:, axis]
    flipped[:, 2] += matrix[:, axis] * (size - 1)
    return flipped


# Bilinear warp in plain NumPy: Keras' pixels, the coordinates computed once for all channels

# Output pixels at a time: the temporaries of a block (8 bytes each) stay in the second-level cache.
_BLOCK: Final = 16_384
_UNMOVED: Final = np.eye(2, 3)


def warp(
    image: Raster, transform: Transform, fill: str = "nearest", cval: float = 0.0
) -> NDArray[np.float32]:
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
    matrix = unflipped([transform], height, width)[0]
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


def _planes(image: Raster) -> tuple[Plane, int]:
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


# From any size to the square that a network takes; thumbnails for people


def resize(pixels: Pixels, side: int) -> Pixels:
    """Scale to a square with Pillow's bilinear filter, which widens when it shrinks (no aliasing).

    Equal, to the bit, to ``keras.utils.load_img(target_size=(side, side), interpolation="bilinear")``. The
    aspect ratio is not kept; nothing is cropped.

    Parameters
    ----------
    pixels
        uint8, shape (height, width, 1 or 3).
    side
        Pixels.

    Returns
    -------
    ndarray of uint8, shape (side, side, 1 or 3)
    """
    from PIL import Image

    if pixels.shape[:2] == (side, side):
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    scaled = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
    return scaled[..., None] if grey else scaled


def thumbnail(pixels: Pixels, side: int = 96) -> bytes:
    """PNG of at most `side` pixels in height and width; the aspect ratio is kept, and nothing is enlarged.

    Parameters
    ----------
    pixels
        uint8, shape (height, width, 1 or 3).
    side
        Pixels.

    Returns
    -------
    Bytes without any tag; equal pixels give equal bytes.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


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


def device_warp(pixels: jax.Array, where: Reads, fill: str, cval: float) -> jax.Array:
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
        stack[len(images) :] = stack[len(images) - 1]
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
            Places of one picture or more, at most `batch_size`; the rest of the result is the last of them again.
        transforms
            One for each of `rows`; none for the pictures as they are.
        fill, cval
            As for `warp`.

        Returns
        -------
        jax.Array
            ``(batch_size, side, side, 3)`` float32 on the device, 0..255. A number depends on its picture and its
            transform alone, and not on whether others in the upload have colours.
        """
        side = self.pixels.shape[1]
        index = np.full(self.batch_size, rows[-1], np.int32)
        index[: len(rows)] = rows
        if not transforms:
            return _taken()(self.pixels, index)
        where = reads(transforms, side, side)
        padding = self.batch_size - len(rows)
        where = Reads(*(np.pad(part, ((0, padding), (0, 0), (0, 0)), mode="edge") for part in where))
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
        lambda pixels, index, where, cval: device_warp(_in_colour(pixels, index), where, fill, cval)
    )
    return compiled


def _in_colour(pixels: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of a stack on three channels, so that what follows is one compiled function for grey and for colour."""
    import jax
    import jax.numpy as jnp

    taken = jnp.broadcast_to(pixels[index], (len(index), *pixels.shape[1:3], CHANNELS))
    return jax.lax.optimization_barrier(taken)
