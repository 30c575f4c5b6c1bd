"""Loaded pictures of any mode to 8-bit grey or RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import BadImageError

if TYPE_CHECKING:
    from PIL import Image

    from featstore.types import Pixels

_OPAQUE = 255


def window(image: Image.Image, value_range: tuple[float, float], *, inverted: bool = False) -> Pixels:
    """Map stored values linearly to 0..255, clipped and rounded to the nearest even.

    Parameters
    ----------
    image
        16-bit, 32-bit or float grey.
    value_range
        ``(low, high)`` that become 0 and 255.
    inverted
        Whether the stored minimum is white.

    Returns
    -------
    ndarray of uint8, shape (height, width, 1)

    Raises
    ------
    BadImageError
        ``nonfinite`` if there is NaN or infinity anywhere.
    """
    values = np.asarray(image)
    if bad := values.size - int(np.count_nonzero(np.isfinite(values))):
        raise BadImageError("nonfinite", f"{bad} of {values.size} pixels are NaN or infinite.")
    low, high = value_range
    scaled = (np.clip(values.astype(np.float64), low, high) - low) / (high - low) * 255
    grey: Pixels = np.rint(scaled).astype(np.uint8)[..., None]
    return 255 - grey if inverted else grey


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
        rgba = np.array(image.convert("RGBA"))
        return _collapse(_on_black(rgba)), _seen_through(rgba)
    if image.mode in {"1", "L"}:
        return np.array(image.convert("L"))[..., None], frozenset()
    notes = frozenset({"cmyk"}) if image.mode == "CMYK" else frozenset[str]()
    return _collapse(np.array(image.convert("RGB"))), notes


def _on_black(rgba: Pixels) -> Pixels:
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    composited: Pixels = ((colour * alpha + _OPAQUE // 2) // _OPAQUE).astype(np.uint8)
    return composited


def _seen_through(rgba: Pixels) -> frozenset[str]:
    """Warn of transparency only where there is any: most alpha channels are opaque and change nothing."""
    return frozenset({"alpha"}) if rgba[..., 3].min() < _OPAQUE else frozenset()


def _collapse(rgb: Pixels) -> Pixels:
    red, green, blue = (rgb[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(rgb[..., :1])
    return rgb
