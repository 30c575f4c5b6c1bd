"""Who is trained on and who is tested on: a sample of whole patients, a split by image or patient, and the leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import AuditError
from featstore.fusion.holdout import hold_out
from featstore.reproduction.outcome import Leak

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.types import ImageRecord

TEST = 0.25
"""Share of the images held out for testing; what the paper took is not known here."""
VALIDATION = 0.4
"""The paper's share of the other images to validate on."""


def sample(manifest: Manifest, images: int | None, seed: int) -> Manifest:
    """About so many images, as whole patients, each class in proportion; all where None or no fewer are there.

    Parameters
    ----------
    manifest
        The data set.
    images
        Number wanted; the patients' sizes decide how near it is met.
    seed
        Of the draw.
    """
    if images is None or images >= len(manifest.records):
        return manifest
    y, groups = _numbered(manifest.records)
    taken = hold_out(y, groups, images / len(y), np.random.default_rng([seed, 0]))
    return manifest.only({record.id for record, take in zip(manifest.records, taken, strict=True) if take})


def split(manifest: Manifest, seed: int) -> Manifest:
    """Draw the sides ``train``, ``val`` and ``test`` over whole groups, each class in proportion."""
    y, groups = _numbered(manifest.records)
    rng = np.random.default_rng([seed, 1])
    sides = np.full(len(y), "train", dtype="<U5")
    sides[hold_out(y, groups, TEST, rng)] = "test"
    rest = np.flatnonzero(sides == "train")
    compact = np.unique(groups[rest], return_inverse=True)[1]
    sides[rest[hold_out(y[rest], compact, VALIDATION, rng)]] = "val"
    return manifest.with_splits(
        {record.id: str(side) for record, side in zip(manifest.records, sides, strict=True)}
    )


def require_every_class(manifest: Manifest) -> None:
    """Make sure, before hours of extraction, that every side of a split can be learnt from or scored.

    Raises
    ------
    AuditError
        If a side lacks a class.
    """
    for side, classes in table(manifest).items():
        if absent := [name for name, count in classes.items() if not count]:
            raise AuditError(
                f"The {side} side of a split came out without {absent[0]}: there are too few patients of it.",
                "Give more --images or patients, or another --seed.",
            )


def table(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Images by side and class, in the order in which they are used."""
    counts = Counter((record.split, record.label) for record in manifest.records)
    return {side: {c: counts[side, c] for c in manifest.classes} for side in ("train", "val", "test")}


def leak(manifest: Manifest, by_image: Manifest) -> Leak | None:
    """Count the patients of `manifest` that the split of `by_image` tears apart; None where no patients are named."""
    if not manifest.has_groups:
        return None
    group = {record.id: record.group for record in manifest.records}
    members: defaultdict[str | None, list[str]] = defaultdict(list)
    for record in by_image.records:
        members[record.split].append(group[record.id])
    trained = set(members["train"])
    known = [name for name in members["test"] if name in trained]
    return Leak(len(set(group.values())), len(set(known)), len(members["test"]), len(known))


def _numbered(records: Iterable[ImageRecord]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Class and group numbers."""
    labels, names = zip(*((record.label, record.group) for record in records), strict=True)
    return np.unique(labels, return_inverse=True)[1], np.unique(names, return_inverse=True)[1]
