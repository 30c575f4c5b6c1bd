"""Generated lung-CT slices: a labelled data set for demo, docs and tests, without a patient in it."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from featstore.arguments import public
from featstore.errors import UnknownNameError, UsageError, did_you_mean
from featstore.phantom.anatomy import Chest, Findings, cloud, density, draw_chest, draw_findings, paint_slice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from featstore.phantom.anatomy import Field
    from featstore.types import Pixels


# Data sets, patients and slices

LABELS = ("covid", "normal")
COLUMNS = ("path", "label", "group", "site")
SMALLEST_SIDE = 32
FEWEST_PATIENTS = 4


@dataclass(frozen=True, slots=True)
class Patient:
    """One generated patient: build, disease, and how the scan went.

    Attributes
    ----------
    chest
        The build.
    findings
        Disease and confounders.
    exposure
        How this scan differs from the scanner's usual.
    """

    chest: Chest
    findings: Findings
    exposure: Exposure


@public
def make_phantoms(
    folder: str | Path, *, patients: int = 48, slices: int = 4, size: int = 256, seed: int = 0
) -> Path:
    """Write a labelled data set of generated chest CT slices.

    Half of the patients are ``covid``, half ``normal``. Equal arguments give equal bytes. Each file is written
    whole or not at all and the manifest last, so an interrupted call is simply repeated; files that are right
    already are left alone. Files of another call with other arguments are not removed: use a folder per set.

    Parameters
    ----------
    folder
        Where to write ``covid/*.png``, ``normal/*.png`` and ``manifest.csv``; made if absent.
    patients
        Number of patients, at least 4, so that each class meets both scanners.
    slices
        Slices per patient, at least 1.
    size
        Side of a slice, pixels, at least 32.
    seed
        Which data set, not negative.

    Returns
    -------
    Path
        ``manifest.csv`` with the columns path, label, group, site.

    Raises
    ------
    UsageError
        If an argument is out of range.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> data.name
    'manifest.csv'
    >>> featstore.scan(data).count_by_class()
    {'covid': 8, 'normal': 8}
    """
    _check(patients, slices, size, seed)
    rows = []
    for number, (label, site, severity) in enumerate(_assignments(patients, seed)):
        group = f"p{number:03d}"
        patient = draw_patient(label, severity, np.random.default_rng([seed, number]))
        for index, z in enumerate(_levels(slices, np.random.default_rng([seed, number, 0]))):
            rng = np.random.default_rng([seed, number, 1 + index])
            path = f"{label}/{group}-s{index}.png"
            _write(Path(folder, path), _png(render(patient, z, size, SCANNERS[site], rng)))
            rows.append((path, label, group, site))
    manifest = Path(folder, "manifest.csv")
    _write(manifest, _table(rows))
    return manifest


VISIBLE = 8
"""Grey levels by which opacities change what is called a lesion."""


def lesion_masks(
    *, patients: int = 48, slices: int = 4, size: int = 256, seed: int = 0
) -> dict[str, NDArray[np.bool_]]:
    """Which pixels of the slices of a data set show a lesion: those that differ from the slice without opacities.

    Parameters
    ----------
    patients, slices, size, seed
        Those of `make_phantoms`.

    Returns
    -------
    By path below the folder, ``(size, size)``; slices of class ``covid`` alone.
    """
    _check(patients, slices, size, seed)
    masks = {}
    for number, (label, site, severity) in enumerate(_assignments(patients, seed)):
        if label != "covid":
            continue
        patient = draw_patient(label, severity, np.random.default_rng([seed, number]))
        healthy = replace(patient, findings=replace(patient.findings, opacities=()))
        for index, z in enumerate(_levels(slices, np.random.default_rng([seed, number, 0]))):
            with_them, without = (
                render(who, z, size, SCANNERS[site], np.random.default_rng([seed, number, 1 + index])).astype(
                    int
                )
                for who in (patient, healthy)
            )
            masks[f"{label}/p{number:03d}-s{index}.png"] = np.abs(with_them - without) > VISIBLE
    return masks


def phantom_slice(
    seed: int = 0,
    *,
    label: str = "covid",
    severity: float = 0.7,
    site: str = "scanner-a",
    z: float = 0.55,
    size: int = 256,
) -> Pixels:
    """Generate one slice of one patient.

    Parameters
    ----------
    seed
        Which patient. The same patient with another label has the same build.
    label
        ``covid`` or ``normal``.
    severity
        From 0 to 1, within the class; see `anatomy.draw_findings`.
    site
        ``scanner-a`` (sharp, white noise) or ``scanner-b`` (smooth, correlated noise, flatter window).
    z
        Level: 0 at the apex of the lungs, 1 below the diaphragm.
    size
        Side, pixels, at least 32.

    Returns
    -------
    Pixels
        Grey values, ``(size, size)`` uint8.

    Raises
    ------
    UnknownNameError
        If there is no such label or scanner.
    UsageError
        If the side is too small or the seed negative.
    """
    _check(FEWEST_PATIENTS, 1, size, seed)
    for name, known in ((label, LABELS), (site, tuple(SCANNERS))):
        if name not in known:
            raise UnknownNameError(f"A phantom has no {name!r}.", did_you_mean(name, known))
    rng = np.random.default_rng(seed)
    return render(draw_patient(label, severity, rng), z, size, SCANNERS[site], rng)


def draw_patient(label: str, severity: float, rng: np.random.Generator) -> Patient:
    """Draw a patient of a class; `severity` from 0 to 1."""
    return Patient(
        chest=draw_chest(rng),
        exposure=draw_exposure(rng),
        findings=draw_findings(label, severity, rng),
    )


def render(patient: Patient, z: float, size: int, scanner: Scanner, rng: np.random.Generator) -> Pixels:
    """Scan `patient` at level `z`: anatomy, lung density, then `scan`.

    Returns
    -------
    Pixels
        Grey values, ``(size, size)`` uint8.
    """
    layers = paint_slice(patient.chest, z, size, rng)
    lung = density(patient.findings, patient.chest, z, size, rng)
    lung += layers.vessels * (40.0 - lung)
    hu = layers.body + layers.lung * (lung - layers.body)
    return scan(hu, scanner, patient.exposure, round(patient.findings.motion * size), rng)


def _check(patients: int, slices: int, size: int, seed: int) -> None:
    limits = {
        "patients": (patients, FEWEST_PATIENTS),
        "slices": (slices, 1),
        "size": (size, SMALLEST_SIDE),
        "seed": (seed, 0),
    }
    for name, (value, least) in limits.items():
        if value < least:
            raise UsageError(f"Phantoms with {name}={value} do not exist.", f"Use {name} >= {least}.")


def _assignments(patients: int, seed: int) -> Iterator[tuple[str, str, float]]:
    """Label, scanner and severity of every patient, not to be guessed from the patient's number.

    Dealt and shuffled rather than drawn, so that small sets of all seeds are about equally difficult.
    """
    sites, half = tuple(SCANNERS), (patients + 1) // 2
    # Of four neighbours each label meets each scanner once.
    dealt = [(LABELS[i % 2], sites[i // 2 % 2], (i // 2 + 0.5) / half) for i in range(patients)]
    return (dealt[i] for i in np.random.default_rng([seed, patients]).permutation(patients))


def _levels(slices: int, rng: np.random.Generator) -> list[float]:
    """Levels of a patient's slices, evenly spread over the lung with some slack."""
    step = 0.55 / slices
    return [0.28 + step * (index + float(slack)) for index, slack in enumerate(rng.uniform(0.1, 0.9, slices))]


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _table(rows: list[tuple[str, str, str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    """Give `path` these bytes at once, or leave it alone if it has them."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# Scanners: how density becomes grey values, differently on each


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
