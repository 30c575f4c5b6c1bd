"""What changes the density of a phantom's lung: COVID-19 opacities, and the things mistaken for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.images.phantom_canvas import cloud, grid

if TYPE_CHECKING:
    from featstore.images.phantom_anatomy import Chest
    from featstore.images.phantom_canvas import Field

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
    """Everything but health in one patient.

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
