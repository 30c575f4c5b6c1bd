"""Copies across patients: patients that share a picture are taken for one, lest it be learned from and tested on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.findings import Finding, counted, mark_accepted
from featstore.images.grouping import Union
from featstore.images.near_copies import find_copies

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from featstore.extraction.facts import FactTable
    from featstore.images.near_copies import Pair
    from featstore.matrix import FeatureMatrix
    from featstore.types import BackboneSpec, ImageRecord

RANDOM = "random:"


@dataclass(frozen=True, slots=True)
class Copies:
    """Pairs of images of different groups that show the same picture.

    Attributes
    ----------
    pairs
        Image ids of each pair, the most alike first.
    findings
        What is to be said of them.
    """

    pairs: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]


def copies_across_groups(
    facts: FactTable, groups: Sequence[str], vectors: NDArray[np.float32] | None = None
) -> Copies:
    """Look for pictures that stand under several patients (groups) or, where none are given, twice.

    Parameters
    ----------
    facts
        The images.
    groups
        ``(n,)`` group of each of them.
    vectors
        ``(n, columns)`` features of trained networks, if they are at hand.
    """
    pairs = find_copies(facts.rows["miniature"], facts.rows["pixels"], groups, vectors)
    ids = tuple((facts.records[pair.first].id, facts.records[pair.second].id) for pair in pairs)
    return Copies(ids, _findings(facts.records, pairs))


def _findings(records: Sequence[ImageRecord], pairs: Sequence[Pair]) -> tuple[Finding, ...]:
    if not pairs:
        return ()
    images = {row for pair in pairs for row in pair[:2]}
    straddling = sum(records[pair.first].split != records[pair.second].split for pair in pairs)
    ways = sorted({pair.how for pair in pairs})
    across = f", {straddling} of them across splits" if straddling else ""
    message = (
        f"{counted(len(pairs), 'pair')} of pictures under different patients (groups) look the same{across}:"
        f" {len(images)} images ({', '.join(ways)})."
    )
    examples = tuple(
        f"{records[p.first].path} and {records[p.second].path} ({p.how}, {p.similarity:.3f})" for p in pairs
    )
    return (Finding("FS102", message, len(pairs), examples),)


def merge_copies(matrix: FeatureMatrix, facts: FactTable, accepted: Collection[str] = ()) -> FeatureMatrix:
    """Take patients that share a picture for one; unless the user has accepted the copies, or set patients aside.

    Parameters
    ----------
    matrix
        The features.
    facts
        Facts of its images; those that are not known cannot be compared.
    accepted
        Codes of findings that the user knows of.
    """
    if matrix.groups_set_aside or len(facts.records) < 2:  # noqa: PLR2004
        return matrix
    row_of = {record.id: row for row, record in enumerate(matrix.records)}
    rows = np.array([row_of[record.id] for record in facts.records])
    copies = copies_across_groups(facts, matrix.groups[rows].tolist(), _trained(matrix, rows))
    told = mark_accepted(copies.findings, {"FS102"} & set(accepted))
    if not told or told[0].accepted:
        return replace(matrix, findings=(*matrix.findings, *told))
    union = Union()
    for pair in copies.pairs:
        union.join([str(matrix.groups[row_of[image]]) for image in pair])
    groups = np.array([union.find(str(group)) for group in matrix.groups])
    merged = len(set(matrix.groups.tolist())) - len(set(groups.tolist()))
    unit = ("patient (group)", "patients (groups)") if matrix.has_groups else ("image", "images")
    one, many = (f"{noun} {verb}" for noun, verb in zip(unit, ("was", "were"), strict=True))
    message = (
        f"{counted(merged, one, many)} merged with another that shows the same picture, as of one patient."
    )
    return replace(
        matrix, groups=groups, findings=(*matrix.findings, *told, Finding("FS103", message, merged))
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


def _trained(matrix: FeatureMatrix, rows: NDArray[np.intp]) -> NDArray[np.float32] | None:
    """Identity view through the networks that have learned to see; random and foreign vectors say nothing here."""
    wanted = [
        matrix.features[0, rows, block.start : block.stop]
        for spec, block in zip(matrix.specs, matrix.blocks, strict=True)
        if _has_learned(spec)
    ]
    return np.hstack(wanted) if wanted else None


def _has_learned(spec: BackboneSpec) -> bool:
    return not spec.is_foreign and not spec.weights.startswith(RANDOM)
