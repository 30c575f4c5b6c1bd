"""The drawing board of the phantoms: outlines, smooth noise, and a canvas of Hounsfield units.

Lengths are in half frames: x and y run from -1 to 1, x towards the patient's left (the picture's right), y
towards the back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]
    Outline = NDArray[np.float64]

SUPERSAMPLING = 2


@lru_cache(maxsize=4)
def grid(size: int) -> tuple[Field, Field]:
    """Coordinates x ``(1, size)`` and y ``(size, 1)`` of the pixel centres, half frames."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
    axis.setflags(write=False)  # the cache hands the same array to everyone
    return axis[None, :], axis[:, None]


def superellipse(radii: tuple[float, float], power: float = 2.0, sides: int = 96) -> Outline:
    """Closed outline ``(sides, 2)`` around the origin."""
    angle = np.linspace(0.0, 2 * np.pi, sides, endpoint=False)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(np.sign(unit) * np.abs(unit) ** (2 / power) * np.asarray(radii))


def cloud(size: int, cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise of unit variance, ``(size, size)`` float32, about `cells` blobs wide."""
    seeds = rng.standard_normal((cells, cells), dtype=np.float32)
    smooth = Image.fromarray(seeds).resize((size, size), Image.Resampling.BICUBIC)
    field: Field = np.asarray(smooth, dtype=np.float32)
    return field / max(float(field.std()), 1e-6)


CIRCLE = superellipse((1.0, 1.0), sides=32)


class Canvas:
    """A drawing board of floats in anatomical units.

    Painted larger than needed and averaged down, for that is what partial volume does in a scanner.
    """

    def __init__(self, size: int, shift: tuple[float, float], value: float) -> None:
        side = size * SUPERSAMPLING
        self.image = Image.new("F", (side, side), value)
        self._draw = ImageDraw.Draw(self.image)
        self._half = side / 2
        self._shift = np.asarray(shift) + 1.0

    def shape(self, points: Outline, value: float, at: tuple[float, float] = (0.0, 0.0)) -> None:
        """Fill a closed outline ``(n, 2)``, moved by `at`."""
        self._draw.polygon(self._pixels(points + np.asarray(at)), fill=value)

    def disc(self, x: float, y: float, radii: tuple[float, float], value: float) -> None:
        """Fill an ellipse."""
        self.shape(CIRCLE * radii, value, at=(x, y))

    def stroke(self, points: Outline, width: float, value: float) -> None:
        """Draw an open line ``(n, 2)``; what is thinner than a pixel is drawn fainter instead."""
        pixels = width * self._half
        self._draw.line(self._pixels(points), fill=value * min(1.0, pixels), width=max(1, round(pixels)))

    def field(self) -> Field:
        """Average down to ``(size, size)`` float32."""
        return np.asarray(self.image.reduce(SUPERSAMPLING), dtype=np.float32)

    def _pixels(self, points: Outline) -> list[float]:
        pixels: list[float] = ((points + self._shift) * self._half).ravel().tolist()
        return pixels
