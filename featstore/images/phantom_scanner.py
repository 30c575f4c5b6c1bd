"""The scanners of the phantoms: how density becomes grey values, differently on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.images.phantom_canvas import cloud

if TYPE_CHECKING:
    from featstore.images.phantom_canvas import Field
    from featstore.types import Pixels


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a scanner turns density into grey.

    Attributes
    ----------
    level, width
        Display window, HU.
    noise
        Standard deviation of the noise, HU.
    grain
        Correlation length of the noise, pixels; 1 is white.
    sharp
        Whether the reconstruction kernel is sharp; otherwise it smooths.
    """

    level: float
    width: float
    noise: float
    grain: float
    sharp: bool


SCANNERS = {
    "scanner-a": Scanner(level=-600.0, width=1450.0, noise=28.0, grain=1.0, sharp=True),
    "scanner-b": Scanner(level=-570.0, width=1600.0, noise=23.0, grain=1.8, sharp=False),
}


@dataclass(frozen=True, slots=True)
class Exposure:
    """How one patient's scan differs from the scanner's usual.

    Attributes
    ----------
    noise
        Factor of the noise.
    level
        Shift of the display window, HU.
    width
        Factor of the window's width.
    """

    noise: float
    level: float
    width: float


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw the settings of a patient's scan."""
    return Exposure(
        noise=float(rng.uniform(0.8, 1.3)),
        level=float(rng.uniform(-150.0, 150.0)),
        width=float(rng.uniform(0.88, 1.12)),
    )


def scan(hu: Field, scanner: Scanner, exposure: Exposure, motion: int, rng: np.random.Generator) -> Pixels:
    """Turn density into a picture: breathing, kernel, noise, display window.

    Parameters
    ----------
    hu
        Density, HU, ``(size, size)`` float32.
    scanner, exposure
        The machine, and its settings for this patient.
    motion
        Length of the breathing blur, pixels.
    rng
        Draws the noise.

    Returns
    -------
    Pixels
        Grey values, ``(size, size)`` uint8.
    """
    hu = _moved(hu, motion)
    hu = hu if scanner.sharp else _smoothed(hu)
    hu = hu + np.float32(scanner.noise * exposure.noise) * cloud(len(hu), round(len(hu) / scanner.grain), rng)
    width = scanner.width * exposure.width
    low = scanner.level + exposure.level - width / 2
    grey: Pixels = np.clip((hu - np.float32(low)) * np.float32(255 / width) + 0.5, 0, 255).astype(np.uint8)
    return grey


def _moved(hu: Field, reach: int) -> Field:
    """Blur along y by `reach` pixels: the chest wall rises while the scanner turns."""
    if not reach:
        return hu
    padded = np.pad(hu, ((reach, 0), (0, 0)), mode="edge")
    steps = [padded[step : step + len(hu)] for step in range(reach + 1)]
    return np.asarray(np.mean(steps, axis=0), dtype=np.float32)


def _smoothed(hu: Field) -> Field:
    """Binomial 3 x 3 filter: a soft reconstruction kernel."""
    wide = np.pad(hu, 1, mode="edge")
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16, dtype=np.float32)
