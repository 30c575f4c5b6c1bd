"""A fingerprint that survives scaling and compression: the difference hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from featstore.types import Pixels

_COLUMNS, _ROWS = 9, 8


def dhash(pixels: Pixels) -> int:
    """64-bit difference hash: for each pixel of a 9 x 8 grey miniature, whether its right neighbour is brighter.

    Parameters
    ----------
    pixels
        uint8, shape (height, width, 1 or 3).

    Returns
    -------
    int
        0 <= hash < 2**64, row by row, the first pixel in the highest bit.

    References
    ----------
    N. Krawetz, "Kind of like that", The Hacker Factor Blog, 2013.
    """
    image = Image.fromarray(pixels[..., 0]) if pixels.shape[2] == 1 else Image.fromarray(pixels).convert("L")
    small = np.asarray(image.resize((_COLUMNS, _ROWS), Image.Resampling.BILINEAR))
    bits = small[:, 1:] > small[:, :-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
