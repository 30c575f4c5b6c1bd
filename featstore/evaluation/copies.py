"""Copies across patients: patients that share a picture are taken for one, lest it be learned from and tested on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.extraction.facts import image_copies
from featstore.findings import EXAMPLES, Finding, counted, mark_accepted
from featstore.images.grouping import Union

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.extraction.facts import Copies, Copy, FactTable
    from featstore.matrix import FeatureMatrix
    from featstore.types import ImageRecord


def copies_found(records: Sequence[ImageRecord], copies: Copies) -> tuple[Finding, ...]:
    """Say how many pictures stand under several patients (groups) or, where none are given, twice.

    Parameters
    ----------
    records
        The images.
    copies
        Pairs of them, and what was not looked at closely: `featstore.extraction.facts.image_copies`.
    """
    return (*_pairs_found(records, copies.pairs), *_not_compared(copies))


def _pairs_found(records: Sequence[ImageRecord], pairs: Sequence[Copy]) -> tuple[Finding, ...]:
    if not pairs:
        return ()
    of = {record.id: record for record in records}
    images = {image for copy in pairs for image in copy[:2]}
    straddling = sum(of[copy.first].split != of[copy.second].split for copy in pairs)
    ways = sorted({copy.how for copy in pairs})
    across = f", {straddling} of them across splits" if straddling else ""
    message = (
        f"{counted(len(pairs), 'pair')} of pictures under different patients (groups) look the same{across}:"
        f" {len(images)} images ({', '.join(ways)})."
    )
    examples = tuple(
        f"{of[copy.first].path} and {of[copy.second].path} ({copy.how}, {copy.similarity:.3f})"
        for copy in pairs[:EXAMPLES]
    )
    return (Finding("FS102", message, len(pairs), examples),)


def _not_compared(copies: Copies) -> tuple[Finding, ...]:
    """What was left out so that time and memory stay in bounds."""
    parts = []
    if copies.crowded:
        resemble = counted(copies.crowded, "image resembles", "images resemble")
        parts.append(f"{resemble} so many others that only the nearest of these were compared")
    if copies.left:
        were = counted(copies.left, "likely pair was", "likely pairs were")
        parts.append(f"{were} not aligned closely, since others stand out more")
    if not parts:
        return ()
    return (Finding("FS315", f"{'; '.join(parts)}.", copies.crowded + copies.left),)


def merge_copies(
    matrix: FeatureMatrix,
    facts: FactTable,
    cache: Path,
    accepted: Collection[str] = (),
    *,
    progress: bool = False,
) -> FeatureMatrix:
    """Take patients that share a picture for one; unless the user has accepted the copies, or set patients aside.

    Parameters
    ----------
    matrix
        The features.
    facts
        Facts of its images; those that are not known cannot be compared.
    cache
        Where it is kept which images are copies.
    accepted
        Codes of findings that the user knows of.
    progress
        Show a bar on stderr while files are looked at.
    """
    if matrix.groups_set_aside or len(facts.records) < 2:  # noqa: PLR2004
        return matrix
    row_of = {record.id: row for row, record in enumerate(matrix.records)}
    groups = [str(matrix.groups[row_of[record.id]]) for record in facts.records]
    copies = image_copies(facts, groups, matrix.decoding, cache, progress=progress)
    told = mark_accepted(copies_found(facts.records, copies), {"FS102"} & set(accepted))
    if not copies.pairs or told[0].accepted:
        return replace(matrix, findings=(*matrix.findings, *told))
    union = Union()
    for copy in copies.pairs:
        union.join([str(matrix.groups[row_of[image]]) for image in copy[:2]])
    united = np.array([union.find(str(group)) for group in matrix.groups])
    merged = len(set(matrix.groups.tolist())) - len(set(united.tolist()))
    unit = ("patient (group)", "patients (groups)") if matrix.has_groups else ("image", "images")
    one, many = (f"{noun} {verb}" for noun, verb in zip(unit, ("was", "were"), strict=True))
    message = (
        f"{counted(merged, one, many)} merged with another that shows the same picture, as of one patient."
    )
    return replace(
        matrix, groups=united, findings=(*matrix.findings, *told, Finding("FS103", message, merged))
    )


def without_copies_of(
    matrix: FeatureMatrix, splits: dict[str, NDArray[np.intp]]
) -> tuple[dict[str, NDArray[np.intp]], tuple[Finding, ...]]:
    """Leave images out of training whose patient, after merging, is tested on.

    Where the data set brings its own split, merged patients may stand on both sides of it: the test images stay.
    """
    scored: set[str] = set()
    kept: dict[str, NDArray[np.intp]] = {}
    dropped = 0
    for name in sorted(splits, key=["test", "val", "train"].index):
        rows = splits[name]
        clean = rows[~np.isin(matrix.groups[rows], sorted(scored))] if scored else rows
        dropped += len(rows) - len(clean)
        kept[name] = clean
        scored |= set(matrix.groups[clean].tolist())
    if not dropped:
        return splits, ()
    message = (
        f"{counted(dropped, 'training image was', 'training images were')} left out:"
        " the same picture is a test image under another patient."
    )
    return {name: kept[name] for name in splits}, (Finding("FS103", message, dropped),)
