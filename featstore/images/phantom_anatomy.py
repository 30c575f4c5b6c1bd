"""The healthy chest of a phantom: one axial slice painted in Hounsfield units (HU).

Lengths are in the half frames of `featstore.images.phantom_canvas`. The level z runs from 0 (apex of the lungs) to
1 (below the diaphragm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from featstore.images.phantom_canvas import Canvas, superellipse

if TYPE_CHECKING:
    from featstore.images.phantom_canvas import Field, Outline

AIR, FAT, MUSCLE, BLOOD, MARROW, CORTEX = -1000.0, -105.0, 45.0, 55.0, 190.0, 650.0
SIDES = (-1, 1)
SHOULDER_BLADES_END = 0.5
CARINA, BRONCHI_END = 0.45, 0.62
# A vessel's piece is bent at these shares of its length.
STRIDE = np.linspace(0.0, 1.0, 4)


@dataclass(frozen=True, slots=True)
class Chest:
    """The build of one patient.

    Attributes
    ----------
    shift
        Where the centre of the chest lies in the frame, half frames.
    width, depth
        Semi-axes of the widest part of the chest cavity, half frames.
    squareness
        Exponent of the superellipse of the cavity; 2 is an ellipse.
    fat, muscle
        Thickness of the two rims around the rib cage, half frames.
    heart
        Scale of the heart.
    lung
        Mean of healthy lung, HU.
    gravity
        Difference of lung density between back and front, HU.
    vessels
        Calibre of the pulmonary vessels relative to the average.
    """

    shift: tuple[float, float]
    width: float
    depth: float
    squareness: float
    fat: float
    muscle: float
    heart: float
    lung: float
    gravity: float
    vessels: float

    def cavity(self, z: float) -> tuple[float, float]:
        """Semi-axes of the chest cavity at level `z`, half frames."""
        scale = 0.66 + 0.34 * min(1.0, max(0.0, z) / 0.55) ** 0.6
        return self.width * scale, self.depth * (0.35 + 0.65 * scale)


@dataclass(frozen=True, slots=True)
class Slice:
    """One healthy slice, taken apart so that disease can be put between its layers.

    Attributes
    ----------
    body
        Everything but the lungs, HU, ``(size, size)`` float32.
    lung
        Share of each pixel that is lung, 0..1, same shape.
    vessels
        Share of each lung pixel that is vessel or airway wall, 0..1, same shape.
    """

    body: Field
    lung: Field
    vessels: Field


def draw_chest(rng: np.random.Generator) -> Chest:
    """Draw the build of a patient."""
    return Chest(
        shift=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.05))),
        width=float(rng.uniform(0.80, 0.86)),
        depth=float(rng.uniform(0.62, 0.71)),
        squareness=float(rng.uniform(2.1, 2.6)),
        fat=float(rng.uniform(0.02, 0.07)),
        muscle=float(rng.uniform(0.00, 0.03)),
        heart=float(rng.uniform(0.88, 1.14)),
        lung=float(rng.uniform(-890.0, -750.0)),
        gravity=float(rng.uniform(20.0, 120.0)),
        vessels=float(rng.uniform(0.85, 1.15)),
    )


def paint_slice(chest: Chest, z: float, size: int, rng: np.random.Generator) -> Slice:
    """Paint the slice of `chest` at level `z`; `rng` draws what differs from slice to slice."""
    body, lung, vessels = (Canvas(size, chest.shift, value) for value in (AIR, 0.0, 0.0))
    _paint_wall(body, chest, z)
    _paint_ribs(body, chest, z, float(rng.uniform(-0.1, 0.1)))
    _paint_lungs(lung, chest, z)
    _paint_mediastinum(body, chest, z)
    _paint_spine(body, chest)
    _paint_vessels(vessels, chest, z, rng)
    return Slice(body.field(), _rounded(lung), np.minimum(vessels.field(), 1.0))


def _paint_wall(body: Canvas, chest: Chest, z: float) -> None:
    width, depth = chest.cavity(max(z, 0.4))
    muscle = 0.05 + chest.muscle
    skin = muscle + chest.fat
    body.shape(superellipse((width + skin, depth + skin), 2.4), FAT)
    body.shape(superellipse((width + muscle, depth + muscle), 2.35), MUSCLE)
    # The arms are up: the shoulder muscles leave a fat plane in the armpit.
    for side in SIDES:
        body.disc(side * (width + muscle - 0.02), -0.08, (0.025 + 0.2 * chest.fat, 0.16), FAT)
    table = np.linspace(-0.9, 0.9, 24)
    body.stroke(np.stack([table, depth + skin + 0.06 - 0.10 * table**2], axis=1), 0.012, -500.0)


def _paint_ribs(body: Canvas, chest: Chest, z: float, jitter: float) -> None:
    width, depth = chest.cavity(z)
    for side in SIDES:
        for number, start in enumerate(np.arange(-1.15, 1.2, 0.36)):
            angle = start + jitter + 0.30 * np.sin(7.0 * z + number)
            arc = angle + np.linspace(0.0, 0.10 + 0.07 * (number % 3), 6)
            reach = 0.035 + np.linspace(-0.012, 0.016, 6)
            points = np.stack([side * (width + reach) * np.cos(arc), (depth + reach) * np.sin(arc)], axis=1)
            body.stroke(points, 0.046, CORTEX)
            body.stroke(points[1:-1], 0.020, MARROW)
        if z < SHOULDER_BLADES_END:
            blade = np.array([(0.52, 0.93), (0.72, 0.74), (0.90, 0.42)]) * (side * width, depth)
            body.stroke(blade * 1.15, 0.030, CORTEX)
    for half_width, half_depth, value in ((0.13, 0.035, CORTEX), (0.10, 0.018, MARROW)):
        body.shape(superellipse((half_width, half_depth), 2.6), value, at=(0.0, -depth - 0.03))


def _paint_spine(body: Canvas, chest: Chest) -> None:
    y = chest.depth * 0.78
    for side in SIDES:
        process = np.array([(0.04, y + 0.10), (0.20, y + 0.17), (0.24, y + 0.15)]) * (side, 1)
        body.stroke(process, 0.045, CORTEX * 0.8)
    body.stroke(np.array([(0.0, y + 0.16), (0.0, y + 0.22)]), 0.045, CORTEX * 0.8)
    body.disc(0.0, y, (0.135, 0.105), CORTEX)
    body.disc(0.0, y, (0.115, 0.085), MARROW)
    body.disc(0.0, y + 0.125, (0.085, 0.070), CORTEX)
    body.disc(0.0, y + 0.125, (0.060, 0.050), MUSCLE)


def _heart(chest: Chest, z: float) -> tuple[tuple[float, float], tuple[float, float], Outline]:
    """Centre, semi-axes and outline: great vessels above, below them the heart with its apex to the left."""
    low = float(np.clip((z - 0.35) / 0.35, 0.0, 1.0))
    centre = (0.02 + 0.09 * low, -0.17 * chest.depth - 0.03 * low)
    radii = (chest.heart * (0.16 + 0.18 * low), chest.heart * (0.24 + 0.02 * low))
    turn = -0.5 * low
    spin = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    return centre, radii, superellipse(radii, 2.2) @ spin


def _paint_lungs(lung: Canvas, chest: Chest, z: float) -> None:
    width, depth = chest.cavity(z)
    lung.shape(superellipse((width, depth), chest.squareness), 1.0)
    (x, y), (rx, ry), heart = _heart(chest, z)
    lung.shape(heart, 0.0, at=(x, y))
    front = np.array([(-0.09, -depth - 0.1), (0.09, -depth - 0.1), (0.03, y - 0.8 * ry), (x + 0.6 * rx, y)])
    lung.shape(np.vstack([front, [(x - 0.6 * rx, y), (-0.03, y - 0.8 * ry)]]), 0.0)
    lung.shape(np.array([(-0.12, y), (0.14, y), (0.20, depth + 0.1), (-0.20, depth + 0.1)]), 0.0)
    lung.disc(0.0, chest.depth * 0.86, (0.19, 0.24), 0.0)
    lung.disc(0.15, chest.depth * 0.53, (0.095, 0.090), 0.0)
    dome = max(0.0, z - 0.64) ** 0.5
    for share in (0.75, 0.5, 0.25, 0.0) if dome else ():
        # The diaphragm is cut at a low angle, so its edge is a gradient and not a line.
        wide = dome * (1 + 0.18 * share)
        lung.disc(-0.52 * width, -0.04, (0.75 * wide, 0.66 * wide), share)


def _paint_mediastinum(body: Canvas, chest: Chest, z: float) -> None:
    centre, _, heart = _heart(chest, z)
    body.shape(heart * 0.98, FAT, at=centre)
    body.shape(heart * 0.91, BLOOD, at=centre)
    body.disc(0.15, chest.depth * 0.53, (0.075, 0.072), BLOOD)
    if z < CARINA:
        body.disc(0.01, 0.08, (0.052, 0.058), AIR)
    elif z < BRONCHI_END:
        spread = 0.06 + 0.5 * (z - CARINA)
        for side in SIDES:
            body.disc(side * spread, 0.09, (0.046, 0.034), AIR)


def _paint_vessels(vessels: Canvas, chest: Chest, z: float, rng: np.random.Generator) -> None:
    width, depth = chest.cavity(z)
    # Vessels stop short of the pleura.
    reach = (0.93 * width, 0.93 * depth)
    hilum = float(np.clip(1.0 - abs(z - 0.52) / 0.45, 0.3, 1.0))
    for side in SIDES:
        vessels.disc(side * 0.20, 0.07, (0.05 * hilum, 0.09 * hilum), 1.0)
        _paint_tree(vessels, side, 0.021 * chest.vessels * (0.5 + 0.5 * hilum), reach, rng)
        for x, y, calibre in rng.uniform((0.20, -0.75, 0.004), (0.93, 0.85, 0.010), (24, 3)).tolist():
            radius = calibre * chest.vessels * (1.25 - 0.7 * x)
            vessels.disc(side * x * width, y * depth, (radius, radius * 1.2), 0.7)
        for x, y in rng.uniform((0.24, 0.0), (0.38, 0.26), (2, 2)).tolist():
            vessels.disc(side * x, y, (0.027, 0.025), 0.8)
            vessels.disc(side * x, y, (0.018, 0.016), -0.08)


def _paint_tree(
    vessels: Canvas, side: int, calibre: float, limit: tuple[float, float], rng: np.random.Generator
) -> None:
    """Branch outwards from one hilum, a generation at a time, thinner at every fork."""
    count = 8
    tips = np.tile((side * 0.20, 0.07), (count, 1))
    angles = np.linspace(-1.45, 1.35, count) + rng.uniform(-0.2, 0.2, count)
    for order in range(5):
        bend, length, seen, fork = rng.uniform((-0.4, 0.09, 0, 0.2), (0.4, 0.18, 1, 0.6), (len(tips), 4)).T
        course = angles[:, None] + bend[:, None] * STRIDE
        reach = (0.92**order * length)[:, None] * STRIDE
        pieces = tips[:, None] + np.stack([side * reach * np.cos(course), reach * np.sin(course)], axis=2)
        # Most vessels cross the slice obliquely: a piece leaves the plane, its children may come back.
        for piece in pieces[seen < 0.54 - 0.06 * order]:
            vessels.stroke(piece, calibre, 1.0 - 0.13 * order)
        inside = ((pieces[:, -1] / limit) ** 2).sum(axis=1) < 1
        tips = np.repeat(pieces[inside, -1], 2, axis=0)
        angles = (course[inside, -1:] + fork[inside, None] * SIDES).ravel()
        calibre *= 0.70


def _rounded(lung: Canvas) -> Field:
    """Lung mask with its sharp corners rounded, as pleura is: blurred, then steepened again."""
    small = Image.fromarray((lung.field() * 255).astype(np.uint8))
    soft = np.asarray(small.filter(ImageFilter.GaussianBlur(small.width / 110)), dtype=np.float32) / 255
    return np.clip((soft - 0.5) * 2.2 + 0.5, 0.0, 1.0)
