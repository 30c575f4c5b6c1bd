"""From any size to the square that a network takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from featstore.types import Pixels


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
    if pixels.shape[:2] == (side, side):
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    scaled = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
    return scaled[..., None] if grey else scaled
