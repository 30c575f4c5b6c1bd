"""`check`: audit whether a data set is fit to be learned from, before anyone trusts a score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featstore.arguments import public
from featstore.errors import AuditError
from featstore.evaluation.estimates import held_out_primary
from featstore.evaluation.findings import MAJORITY, shortcut_findings, shortcut_probabilities
from featstore.evaluation.leakage import copies_found
from featstore.findings import Finding, counted, mark_accepted, ordered
from featstore.image_facts import FactTable, image_copies, image_facts, notes_found
from featstore.images.manifest import Manifest, audit, quarantined_by_class
from featstore.images.reading import REASONS, decoder_version
from featstore.images.scan import ScanOptions, scan
from featstore.processes import progress_bars
from featstore.results.extraction import Check
from featstore.splits import group_folds
from featstore.store.store import default_cache
from featstore.types import Decoding, ImageRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from featstore.results.scores import Score


FOLDS, FEWEST = 5, 3
"""Folds in which shortcuts are tried, or as many as the rarest class has patients, if these are not too few."""


@dataclass(frozen=True, slots=True, eq=False)
class ReadableImages:
    """The images of a data set that can be read, as a table to be split: see `featstore.splits.LabelledImages`.

    Groups are numbered in the order of their names: an array of names takes the width of the longest for each.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    y: NDArray[np.intp]
    groups: NDArray[np.str_]

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> ReadableImages:
        """Table of these images."""
        classes, y = np.unique([record.label for record in records], return_inverse=True)
        rank = {group: at for at, group in enumerate(sorted({record.group for record in records}))}
        groups = np.array([f"{rank[record.group]:0{len(str(len(rank)))}}" for record in records])
        return cls(tuple(records), tuple(classes.tolist()), y, groups)


@public
def check(
    data: str | Path | Manifest,
    *,
    value_range: tuple[float, ...] | None = None,
    cache: str | Path | None = None,
    accept: Collection[str] = (),
    progress: bool = False,
    **options: Unpack[ScanOptions],
) -> Check:
    """Audit a data set: unreadable files, duplicates, leaks, shortcuts. Computes no features.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest`.
    value_range
        As for `featstore.extract`.
    cache
        Where what the images show is kept, if the folder exists; default as for `featstore.extract`.
    accept
        Codes of findings that are known and stay in the list, marked.
    progress
        Show a bar on stderr.
    **options
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> audit = featstore.check(data)
    >>> audit.images, audit.groups, audit.no_error_found
    (16, 16, True)
    >>> for finding in audit.findings:
    ...     print(finding.code, finding.message)
    FS102 1 pair of pictures under different patients (groups) looks the same: 2 images (copy).
    """
    with progress_bars(wanted=progress):
        manifest = scan(data, **options)
    decoding = Decoding(decoder_version(), value_range=value_range)
    kept = Path(cache) if cache is not None else default_cache()
    facts = image_facts(manifest.records, decoding, kept if kept.is_dir() else None, progress=progress)
    shortcuts, told = _shortcuts(facts)
    found = [*audit(manifest), *_unreadable(manifest, facts), *notes_found(facts), *told]
    groups = [record.group for record in facts.records]
    found += copies_found(
        facts.records,
        image_copies(facts, groups, decoding, kept if kept.is_dir() else None, progress=progress),
    )
    findings = ordered(mark_accepted(found, accept))
    bad = [(str(r.path), *facts.bad[r.id]) for r in manifest.records if r.id in facts.bad]
    return Check(
        images=len(manifest.records) + len(manifest.unreadable),
        groups=len({record.group for record in manifest.records}),
        has_groups=manifest.has_groups,
        classes=manifest.count_by_class(),
        splits=_splits(manifest),
        no_error_found=not any(finding.severity == "error" for finding in findings),
        findings=findings,
        bad=tuple(sorted(bad + [(str(q.path), q.reason, q.detail) for q in manifest.unreadable])),
        shortcuts=shortcuts,
    )


def _splits(manifest: Manifest) -> dict[str, int]:
    """Images of each split, and of none, of a data set that has any."""
    counts = manifest.count_by_split()
    return {} if set(counts) <= {None} else {name or "none": count for name, count in counts.items()}


def _unreadable(manifest: Manifest, facts: FactTable) -> tuple[Finding, ...]:
    """Images in quarantine, by class where it is known; an error if they leave a single class."""
    reasons = {record.id: facts.bad[record.id][0] for record in manifest.records if record.id in facts.bad}
    rows = [(record.path, reasons[record.id]) for record in manifest.records if record.id in reasons]
    rows += [(row.path, row.reason) for row in manifest.unreadable]
    if not rows:
        return ()
    lost, left = quarantined_by_class(manifest, reasons), {record.label for record in facts.records}
    by_class = [f"{loss.label} {loss.bad} of {loss.files}" for loss in lost]
    if nameless := len(rows) - sum(loss.bad for loss in lost):
        by_class.append(f"{nameless} of no class")
    whats = counted(len(rows), "file cannot be read and is", "files cannot be read and are")
    message = f"{whats} in quarantine: {', '.join(by_class)}."
    examples = tuple(f"{path} ({reason})" for path, reason in rows)
    why = {reason for _, reason in rows}
    cure = REASONS.get(min(why), "") if len(why) == 1 else ""
    found = [Finding("FS301", message, len(rows), examples, remedy=cure)]
    if len(manifest.classes) > 1 and len(left) < 2:  # noqa: PLR2004
        gone = ", ".join(f"{x.label} ({x.bad} of {x.files})" for x in lost if x.label not in left)
        text = f"No image of these classes can be read, all are in quarantine: {gone}."
        found.append(
            Finding("FS109", text, len(rows), examples, remedy=cure or "Mend the files in quarantine.")
        )
    return tuple(found)


def _shortcuts(facts: FactTable) -> tuple[dict[str, Score], tuple[Finding, ...]]:
    """Score the guesses that need no network, pooled over the folds."""
    table = ReadableImages.of(facts.records)
    fewest = min((len(set(table.groups[table.y == c])) for c in range(len(table.classes))), default=0)
    if len(table.classes) < 2:  # noqa: PLR2004
        return {}, ()
    if fewest < FEWEST:
        return {}, (
            Finding(
                "FS408", f"Shortcuts were not looked for: a class has {counted(fewest, 'patient')} only."
            ),
        )
    try:
        splits = group_folds(table, min(FOLDS, fewest))
    except AuditError as error:
        return {}, (Finding("FS408", f"Shortcuts were not looked for: {error.cause}"),)
    order = np.concatenate([test for _, test in splits])
    answers = shortcut_probabilities(facts.rows, table.y, splits)
    scores = held_out_primary(
        table, order, {name: np.concatenate(answers[name]) for name in answers if name != MAJORITY}, None
    )
    return scores, shortcut_findings({name: (score.value, score.interval) for name, score in scores.items()})
