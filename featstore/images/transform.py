"""One view's geometry for one image: drawn from (seed, image id) alone, composed into one affine map."""

from __future__ import annotations

import hashlib
import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.images.recipe import Range, Recipe

    Matrix = NDArray[np.float64]

# Changing a letter of this, or a slot of `draw`, changes every view ever cached: raise Decoding.revision.
_DOMAIN: Final = "featstore view 1"
_WORDS: Final = 8
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
    words = (int.from_bytes(raw[8 * k : 8 * k + 8], "big") for k in range(_WORDS))
    return tuple((word >> 11) * 2.0**-53 for word in words)


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
    matrix = _centred(_linear(transform), height, width)
    if transform.flip_horizontal:
        matrix = _reversed(matrix, 1, width)
    if transform.flip_vertical:
        matrix = _reversed(matrix, 0, height)
    return matrix


def _scale(values: Range, u: float) -> float:
    """Map u of [0, 1) to (lo, hi]."""
    lo, hi = values
    return max(hi - u * (hi - lo), math.nextafter(lo, hi))  # rounding must not reach lo


def _linear(transform: Transform) -> Matrix:
    """Compose rotation, shift, shear and zoom in Keras' order and Keras' (x, y) axes, shape (3, 3)."""
    theta, shear = np.deg2rad(transform.theta), np.deg2rad(transform.shear)
    rotated = np.array(
        [[np.cos(theta), -np.sin(theta), 0.0], [np.sin(theta), np.cos(theta), 0.0], [0.0, 0.0, 1.0]]
    )
    shifted = np.array([[1.0, 0.0, transform.tx], [0.0, 1.0, transform.ty], [0.0, 0.0, 1.0]])
    sheared = np.array([[1.0, -np.sin(shear), 0.0], [0.0, np.cos(shear), 0.0], [0.0, 0.0, 1.0]])
    zoomed = np.diag([transform.zx, transform.zy, 1.0])
    composed: Matrix = rotated @ shifted @ sheared @ zoomed
    return composed


def _centred(matrix: Matrix, height: int, width: int) -> Matrix:
    """Turn about Keras' centre, then swap its (x, y) for (row, column)."""
    x, y = height / 2 - 0.5, width / 2 - 0.5
    there = np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    back = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])
    swap = [1, 0, 2]
    centred: Matrix = there @ matrix @ back
    return centred[np.ix_(swap[:2], swap)]


def _reversed(matrix: Matrix, axis: int, size: int) -> Matrix:
    """Read the output backwards along `axis`."""
    flipped = matrix.copy()
    flipped[:, axis] = -matrix[:, axis]
    flipped[:, 2] += matrix[:, axis] * (size - 1)
    return flipped
