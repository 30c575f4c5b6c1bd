"""Leakage: images that a model or a backbone has learned from, and copies across patients.

What is scored is prepared here: seen images dropped, copies merged, and the facts of the rest at hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import runs, serialization
from featstore.errors import AuditError, RunError
from featstore.findings import EXAMPLES, Finding, counted, mark_accepted
from featstore.image_facts import (
    CopiesFound,
    CopyPair,
    FactTable,
    image_copies,
    image_facts,
    known_images,
)
from featstore.images.names import DisjointSets
from featstore.matrix import read_matrix
from featstore.processes import progress_bars
from featstore.serialization import canonical_json, write_private
from featstore.splits import seen_or_same_group
from featstore.store.training_record import KnownImages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.matrix import FeatureMatrix, Source
    from featstore.types import ImageRecord


# What is scored: the matrix as it was loaded, without leaks, and the facts of its images


@dataclass(frozen=True, slots=True, eq=False)
class PreparedData:
    """A data set that is ready to be scored.

    Attributes
    ----------
    loaded
        The features as they were loaded.
    matrix
        The same without images that a backbone has learned from, and with patients that share a picture merged.
    facts
        Facts of its images.
    root
        Folder that paths of its images are relative to.
    """

    loaded: FeatureMatrix
    matrix: FeatureMatrix
    facts: FactTable
    root: Path = Path()


def loaded_matrix(
    data: str | Path | Manifest | PreparedData,
    *,
    progress: bool,
    shared: bool = False,
    **source: Unpack[Source],
) -> FeatureMatrix:
    """Load the features of a data set, unless they are at hand; so that processes share them, if they are to."""
    if isinstance(data, PreparedData):
        return data.loaded
    with progress_bars(wanted=progress):
        return read_matrix(data, source, shared=shared)


def prepare(
    data: str | Path | Manifest | PreparedData,
    loaded: FeatureMatrix,
    cache: Path,
    accepted: Collection[str],
    *,
    drops_seen: bool,
    progress: bool,
) -> PreparedData:
    """Make loaded features ready to be scored, unless they are.

    Parameters
    ----------
    data, loaded
        The data set, and its features.
    cache, accepted, progress
        As for `merge_copies`.
    drops_seen
        Whether images that a backbone has learned from are left out; a fit refuses to score them.
    """
    if isinstance(data, PreparedData):
        return data
    matrix = drop_seen(loaded) if drops_seen else loaded
    facts = image_facts(matrix.records, matrix.decoding, cache, progress=progress)
    return PreparedData(loaded, merge_copies(matrix, facts, cache, accepted, progress=progress), facts)


# Only on images that no backbone has learned from may features of tuned weights be scored (law 6).

SAME_SPLIT = (
    "Give the --test-size and --split-seed of `featstore finetune`, or the --weights from before; where other"
    " patients only bear the same names, give them other ones."
)


def require_unseen(
    matrix: FeatureMatrix, splits: Mapping[str, NDArray[np.intp]], *, choosing: bool = False
) -> None:
    """Refuse to score a backbone on images that it has learned from, or on other images of their patients.

    Parameters
    ----------
    matrix
        The features, with what their weights have learned from.
    splits
        Row numbers by split; all but ``train`` are to be scored.
    choosing
        Whether something, such as a threshold, is to be chosen on training images as if they were new.

    Raises
    ------
    AuditError
        With the number of images.
    """
    for name, ids in matrix.seen_by_backbone.items():
        known = seen_or_same_group(matrix, ids)
        scored = np.concatenate([rows for split, rows in splits.items() if split != "train"])
        if met := int(known[scored].sum()):
            raise AuditError(
                f"{name} was tuned on {met} of the {len(scored)} images to be scored, or on their patients.",
                SAME_SPLIT,
            )
        if choosing and known[splits["train"]].any():
            raise AuditError(
                f"{name} was tuned on training images, so nothing can be chosen on them as if they were new.",
                "Leave out --calibrate, --sensitivity and --abstain, or use the --weights from before.",
            )


def drop_seen(matrix: FeatureMatrix) -> FeatureMatrix:
    """Leave out the images that a backbone has learned from, and other images of their patients.

    Raises
    ------
    AuditError
        If nothing stays.
    """
    known = np.zeros(len(matrix.records), np.bool_)
    for ids in matrix.seen_by_backbone.values():
        known |= seen_or_same_group(matrix, ids)
    if not known.any():
        return matrix
    if known.all():
        raise AuditError(
            f"{', '.join(sorted(matrix.seen_by_backbone))} learned from all these images, or from their patients.",
            "Compare on images held out from `featstore finetune`, or use the --weights from before; where other"
            " patients only bear the same names, give them other ones.",
        )
    return replace(matrix.only(np.flatnonzero(~known)), set_apart=int(known.sum()))


# Patients that share a picture are taken for one, lest it be learned from and tested on.


def copies_found(records: Sequence[ImageRecord], copies: CopiesFound) -> tuple[Finding, ...]:
    """Say how many pictures stand under several patients (groups) or, where none are given, twice.

    Parameters
    ----------
    records
        The images.
    copies
        Pairs of them, and what was not looked at closely: `featstore.image_facts.image_copies`.
    """
    return (*_pairs_found(records, copies.pairs), *_not_compared(copies))


def _pairs_found(records: Sequence[ImageRecord], pairs: Sequence[CopyPair]) -> tuple[Finding, ...]:
    if not pairs:
        return ()
    of = {record.id: record for record in records}
    images = {image for copy in pairs for image in copy[:2]}
    straddling = sum(of[copy.first].split != of[copy.second].split for copy in pairs)
    ways = sorted({copy.how for copy in pairs})
    across = f", {straddling} of them across splits" if straddling else ""
    message = (
        f"{counted(len(pairs), 'pair')} of pictures under different patients (groups)"
        f" look{'s' if len(pairs) == 1 else ''} the same{across}:"
        f" {len(images)} images ({', '.join(ways)})."
    )
    examples = tuple(
        f"{of[copy.first].path} and {of[copy.second].path} ({copy.how}, {copy.similarity:.3f})"
        for copy in pairs[:EXAMPLES]
    )
    return (Finding("FS102", message, len(pairs), examples),)


def _not_compared(copies: CopiesFound) -> tuple[Finding, ...]:
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
    union = DisjointSets()
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


# The images that a kept model has learned from, beside it: so that `predict` can say when it meets one.

FORMAT = 1
DIGESTS = ("ids", "pixels", "groups")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def training_images(
    matrix: FeatureMatrix, rows: NDArray[Any], earlier: KnownImages | None, cache: Path
) -> KnownImages:
    """Digests of what a model learns from.

    Parameters
    ----------
    matrix, rows
        The images, by row number.
    earlier
        What the model that it goes on from had learned from; None for a fit from scratch.
    cache
        Where facts of images are kept, so that files need not be read again.
    """
    known = known_images(
        [matrix.records[row] for row in rows],
        matrix.decoding,
        has_groups=matrix.has_groups,
        salt=earlier.salt if earlier else "",
        cache=cache,
    )
    return known if earlier is None else known | earlier


def write_training_images(out: Path, known: KnownImages) -> None:
    """Write ``model/training.json``: digests alone, neither a path nor the name of a patient.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    digests = {name: sorted(getattr(known, name)) for name in DIGESTS}
    content = {"format": FORMAT, "complete": known.is_complete, "salt": known.salt, **digests}
    try:
        write_private(out / runs.TRAINING, canonical_json(serialization.seal(content)).encode())
    except OSError as error:
        raise runs.unwritable(out, error) from error


def read_training_images(out: Path, about: Mapping[str, Any]) -> KnownImages | None:
    """Read what the model of a run has learned from; None for a run of an earlier featstore, which does not say.

    Parameters
    ----------
    out, about
        The run's folder, and its ``run.json``.

    Raises
    ------
    RunError
        If the file is missing, damaged, or of another run.
    """
    files = about.get("files")
    if isinstance(files, dict) and runs.TRAINING not in files:
        return None
    try:
        content = serialization.unseal(
            serialization.parse_json(runs.read_verified(out, about, runs.TRAINING))
        )
        return _known(content)
    except serialization.DocumentError as error:
        raise RunError(f"{out / runs.TRAINING} cannot be read: {error}.", runs.REMEDY) from error


def _known(content: Mapping[str, Any]) -> KnownImages:
    salt, complete = content.get("salt"), content.get("complete")
    if content.get("format") != FORMAT or not isinstance(salt, str) or not isinstance(complete, bool):
        raise serialization.DocumentError("it is no list of training images")
    ids, pixels, groups = (_digests(content.get(name)) for name in DIGESTS)
    return KnownImages(ids, pixels, groups, salt, complete)


def _digests(found: Any) -> frozenset[str]:  # noqa: ANN401
    if not isinstance(found, list) or not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in found):
        raise serialization.DocumentError("it names something that is no image")
    return frozenset(found)
