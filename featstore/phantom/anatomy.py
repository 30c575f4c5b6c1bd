"""Anatomy of the phantoms: the healthy chest as one axial slice in Hounsfield units (HU), and its diseases.

Lengths are in half frames: x and y run from -1 to 1, x towards the patient's left (the picture's right), y towards
the back. The level z runs from 0 (apex of the lungs) to 1 (below the diaphragm).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]
    Outline = NDArray[np.float64]

# The healthy chest

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


# Changes of the lung's density: COVID-19 opacities, and the things mistaken for them

# Shares: of covid patients that are mild, of all that have a nodule, of patches on the right side.
MILD, NODULE, RIGHT = 0.17, 0.3, 0.55


@dataclass(frozen=True, slots=True)
class Opacity:
    """One patch of denser lung, fixed in the patient and met by every slice near its level.

    Attributes
    ----------
    x, y, z
        Centre: x and y as shares of the cavity's semi-axes, z the level.
    radii
        Semi-axes in the slice (half frames) and along z (levels).
    turn
        Rotation of the patch, radians.
    density
        HU added to the lung at the centre.
    softness
        Width of the edge as a share of the radius: 1 is haze, 0.1 a nodule.
    raggedness
        How far noise moves the edge, as a share of the radius.
    paving
        Contrast of the net of thickened septa in the patch, as a share of its density.
    """

    x: float
    y: float
    z: float
    radii: tuple[float, float, float]
    turn: float
    density: float
    softness: float
    raggedness: float
    paving: float


@dataclass(frozen=True, slots=True)
class Findings:
    """Disease findings of one patient.

    Attributes
    ----------
    opacities
        Ground glass, consolidations and nodules.
    atelectasis
        HU added to the most dependent (posterior) lung.
    motion
        Length of the breathing blur as a share of the frame.
    """

    opacities: tuple[Opacity, ...] = ()
    atelectasis: float = 0.0
    motion: float = 0.0


def draw_findings(label: str, severity: float, rng: np.random.Generator) -> Findings:
    """Draw what is wrong with a patient.

    Parameters
    ----------
    label
        ``covid`` has opacities; both classes may have a nodule, dependent atelectasis or breathing blur.
    severity
        From 0 to 1: rank of the patient among those of the class. The most severe of the ``normal`` ones
        have the strongest atelectasis, the mildest of the ``covid`` ones a patch or two that a reader may miss.
    rng
        Draws the rest.
    """
    covid = label == "covid"
    nodules = tuple(_nodule(rng) for _ in range(int(rng.random() < NODULE)))
    dependent = float(rng.random()) - 0.4 if covid else severity
    return Findings(
        opacities=(*nodules, *(_covid(severity, rng) if covid else ())),
        atelectasis=max(0.0, dependent - 0.35) * 900.0,
        motion=float(rng.uniform(0.006, 0.016)) if rng.random() < (0.2 if covid else 0.3) else 0.0,
    )


def density(findings: Findings, chest: Chest, z: float, size: int, rng: np.random.Generator) -> Field:
    """Lung density with all findings in it, HU, ``(size, size)`` float32; meaningful inside the lung only."""
    x, y = grid(size)
    x, y = x - np.float32(chest.shift[0]), y - np.float32(chest.shift[1])
    width, depth = chest.cavity(z)
    coarse, fine = (cloud(size, cells, rng) for cells in (14, 52))
    lung: Field = (
        np.float32(chest.lung) + np.float32(chest.gravity / (2 * depth)) * y + 14 * coarse + 16 * fine
    )
    if findings.atelectasis:
        # The dependent band follows the curve of the back, so it is measured from the cavity's wall.
        edge = np.clip(y / depth - 0.9 * np.sqrt(np.maximum(0.0, 1 - (x / width) ** 2)) + 0.22, 0.0, 0.32)
        lung += np.float32(findings.atelectasis / 0.32) * edge * (1 + 0.3 * coarse) * (y > 0)
    lung += _raised(findings, (x / width, y / depth), z, rng)
    return np.minimum(lung, np.float32(40.0), out=lung)


def _raised(findings: Findings, place: tuple[Field, Field], z: float, rng: np.random.Generator) -> Field:
    """HU that the opacities add; `place` is x and y as shares of the cavity's semi-axes."""
    size = place[0].size
    edge, net = cloud(size, 18, rng) + 0.5 * cloud(size, 52, rng), cloud(size, 50, rng)
    # Where smooth noise changes sign it draws a net of thin lines: thickened septa, "crazy paving".
    septa = np.maximum(0.0, 1 - 2.5 * np.abs(net)) - np.float32(0.3)
    raised = np.zeros((size, size), dtype=np.float32)
    for opacity in findings.opacities:
        share = _share(opacity, place, z, edge) * (1 + np.float32(opacity.paving) * septa)
        # Patches that overlap do not add up: the lung is as dense as the densest of them.
        np.maximum(raised, np.float32(opacity.density) * share, out=raised)
    return raised


def _share(opacity: Opacity, place: tuple[Field, Field], z: float, noise: Field) -> Field:
    """How far each pixel lies in the patch, 0..1."""
    rx, ry, rz = opacity.radii
    level = 1.0 - ((z - opacity.z) / rz) ** 2
    if level <= 0.0:
        return np.zeros_like(noise)
    dx, dy = place[0] - np.float32(opacity.x), place[1] - np.float32(opacity.y)
    cos, sin = np.float32(np.cos(opacity.turn)), np.float32(np.sin(opacity.turn))
    along = (cos * dx + sin * dy) / np.float32(rx * level**0.5)
    across = (cos * dy - sin * dx) / np.float32(ry * level**0.5)
    distance = np.sqrt(along**2 + across**2) + np.float32(opacity.raggedness) * noise
    share = np.clip((1 + opacity.softness - distance) / (2 * opacity.softness), 0.0, 1.0)
    return np.asarray(share * share * (3 - 2 * share), dtype=np.float32)


def _covid(severity: float, rng: np.random.Generator) -> tuple[Opacity, ...]:
    mild = severity < MILD
    count = int(rng.integers(1, 3) if mild else rng.integers(4, 12))
    strength = 0.25 + severity if mild else 0.55 + 0.6 * severity
    return tuple(_patch(strength, rng) for _ in range(count))


def _patch(strength: float, rng: np.random.Generator) -> Opacity:
    side = -1.0 if rng.random() < RIGHT else 1.0
    # Peripheral, and more often in the back than in front.
    angle = float(rng.normal(0.55, 0.55))
    reach = float(rng.uniform(0.75, 1.02))
    dense = rng.random() < 0.3 * strength
    size = float(rng.uniform(0.26, 0.50)) * (0.5 + 0.5 * strength) * (0.6 if dense else 1.0)
    return Opacity(
        x=side * reach * float(np.cos(angle)),
        y=reach * float(np.sin(angle)),
        z=float(rng.uniform(0.25, 0.85)),
        radii=(size, size * float(rng.uniform(0.9, 1.8)), float(rng.uniform(0.2, 0.55))),
        turn=side * angle,
        density=strength * float(rng.uniform(450.0, 700.0) if dense else rng.uniform(220.0, 420.0)),
        softness=0.35 if dense else float(rng.uniform(0.4, 0.8)),
        raggedness=float(rng.uniform(0.15, 0.35)),
        paving=0.2 if dense else float(rng.uniform(1.0, 2.2)),
    )


def _nodule(rng: np.random.Generator) -> Opacity:
    side, radius = float(rng.choice((-1.0, 1.0))), float(rng.uniform(0.025, 0.06))
    return Opacity(
        x=side * float(rng.uniform(0.4, 0.85)),
        y=float(rng.uniform(-0.5, 0.6)),
        z=float(rng.uniform(0.3, 0.8)),
        radii=(radius, radius * 1.2, 0.12),
        turn=0.0,
        density=800.0,
        softness=0.2,
        raggedness=0.03,
        paving=0.0,
    )


# Drawing: outlines, smooth noise, and a canvas of Hounsfield units

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
