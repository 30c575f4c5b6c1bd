"""Small pictures for people."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from featstore.types import Pixels


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
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
