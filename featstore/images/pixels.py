"""Loaded pictures of any mode to 8-bit grey or RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from featstore.errors import BadImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray
    from PIL import Image

    from featstore.types import Pixels

_OPAQUE = 255
_AT_ONCE = 1 << 22  # samples that are windowed in one go


class Alpha(NamedTuple):
    """Opacity of the pixels of a picture.

    Attributes
    ----------
    values
        uint8, shape (height, width, 1).
    is_associated
        Whether the colours are multiplied with it already.
    """

    values: Pixels
    is_associated: bool


def window(values: NDArray[Any], value_range: tuple[float, float], *, inverted: bool = False) -> Pixels:
    """Map stored values linearly to 0..255, clipped and rounded to the nearest even.

    Parameters
    ----------
    values
        Samples of any number type, shape (height, width) or (height, width, channels).
    value_range
        ``(low, high)`` that become 0 and 255.
    inverted
        Whether the stored minimum is white.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels)

    Raises
    ------
    BadImageError
        ``nonfinite`` if there is NaN or infinity anywhere.
    """
    finite = sum(int(np.count_nonzero(np.isfinite(values[rows]))) for rows in _strips(values))
    if bad := values.size - finite:
        raise BadImageError("nonfinite", f"{bad} of {values.size} pixels are NaN or infinite.")
    low, high = value_range
    shown: Pixels = np.empty(values.shape, np.uint8)
    for rows in _strips(values):
        part = values[rows].astype(np.float64)
        shown[rows] = np.rint((np.clip(part, low, high) - low) / (high - low) * 255)
    if values.ndim == 2:  # noqa: PLR2004
        shown = shown[..., None]
    return 255 - shown if inverted else shown


def finish(shown: Pixels, alpha: Alpha | None) -> tuple[Pixels, frozenset[str]]:
    """Put transparency on black, and make colour that is grey everywhere one channel.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width, 1 or 3)
    warnings : frozenset of str
        ``alpha``, if anything is transparent.
    """
    notes = frozenset[str]()
    if alpha is not None and alpha.values.min() < _OPAQUE:
        shown = shown if alpha.is_associated else _on_black(shown, alpha.values)
        notes = frozenset({"alpha"})
    return (_collapse(shown) if shown.shape[2] > 1 else shown), notes


def flatten(image: Image.Image) -> tuple[Pixels, frozenset[str]]:
    """Make an 8-bit picture of any mode grey or RGB.

    Colour that is grey everywhere becomes one channel: the network's door repeats it, and a third of the work
    is left in between.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width, 1 or 3)
    warnings : frozenset of str
        ``alpha`` or ``cmyk``, where that was met.
    """
    if image.has_transparency_data:
        rgba = _as_array(image, "RGBA")
        return finish(rgba[..., :3], Alpha(rgba[..., 3:], is_associated=False))
    if image.mode in {"1", "L"}:
        return _as_array(image, "L")[..., None], frozenset()
    notes = frozenset({"cmyk"}) if image.mode == "CMYK" else frozenset[str]()
    return _collapse(_as_array(image, "RGB")), notes


def _as_array(image: Image.Image, mode: str) -> Pixels:
    """Convert and copy strip by strip: whole, Pillow would hold a large picture four times over."""
    width, height = image.size
    rows = max(1, _AT_ONCE // width)
    if height <= rows:
        return np.array(image.convert(mode))
    shown: Pixels = np.empty((height, width) if mode == "L" else (height, width, len(mode)), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image.crop((0, top, width, bottom))
        shown[top:bottom] = np.asarray(strip if strip.mode == mode else strip.convert(mode))
    return shown


def _on_black(colour: Pixels, alpha: Pixels) -> Pixels:
    composited: Pixels = np.empty(colour.shape, np.uint8)
    for rows in _strips(colour):
        composited[rows] = (colour[rows].astype(np.uint16) * alpha[rows] + _OPAQUE // 2) // _OPAQUE
    return composited


def _collapse(rgb: Pixels) -> Pixels:
    red, green, blue = (rgb[..., channel] for channel in range(3))
    if all(np.array_equal(red[rows], other[rows]) for other in (green, blue) for rows in _strips(rgb)):
        return np.ascontiguousarray(rgb[..., :1])
    return np.ascontiguousarray(rgb)


def _strips(values: NDArray[Any]) -> Iterator[slice]:
    """Rows that are treated in one go."""
    step = max(1, _AT_ONCE * len(values) // values.size)
    return (slice(top, top + step) for top in range(0, len(values), step))
