"""The table of a data set: which image, which class, which group, which side of the split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from featstore.findings import Finding
    from featstore.types import ImageRecord


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A file that is no image, with the reason; the run goes on without it.

    Attributes
    ----------
    path
        Where the file is, or where it was expected.
    id
        Image id, or None where not even the bytes could be read.
    reason
        One of `featstore.images.decode.REASONS`.
    detail
        What exactly was met.
    label
        Class that the file was listed under; empty where none is known.
    """

    path: Path
    id: str | None
    reason: str
    detail: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A data set after scanning.

    Attributes
    ----------
    root
        The folder, or the folder of the CSV file.
    records
        One row per different image, in the order of the relative paths (and pages); no id occurs twice.
    unreadable
        Files that could not be read (`missing`, `loop`, `permission`, ...) and those whose first bytes
        already say that no decoder will take them (`empty`, `not_image`, `unsupported`, `lfs_pointer`).
    skipped
        Entries passed over on purpose: hidden files, thumbnails' databases, text beside the images, pipes.
    findings
        What reading the data set met: layouts, spellings, copies.
    has_groups
        Whether the data set says which images belong together; if not, every file is its own group.
    copies
        Further files with the bytes of a record. Nothing is computed from them; the audit needs them, since
        a copy may carry another label or stand on the other side of the split.
    groups_set_aside
        Whether the data set names groups that are not kept together: see `by_image`.
    """

    root: Path
    records: tuple[ImageRecord, ...]
    unreadable: tuple[Quarantined, ...] = ()
    skipped: int = 0
    findings: tuple[Finding, ...] = ()
    has_groups: bool = False
    copies: tuple[ImageRecord, ...] = ()
    groups_set_aside: bool = False

    @property
    def files(self) -> tuple[ImageRecord, ...]:
        """Records and copies: everything that was found, for the audit."""
        return self.records + self.copies

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels, sorted; the position is the class index."""
        return tuple(sorted({record.label for record in self.files}))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that occur, sorted; empty where the data set has none."""
        return tuple(sorted({record.split for record in self.files if record.split is not None}))

    def count_by_class(self) -> dict[str, int]:
        """Images per label, labels sorted."""
        return _counts(record.label for record in self.records)

    def count_by_split(self) -> dict[str | None, int]:
        """Images per split (None: unassigned), in sorted order with None last."""
        counts = Counter(record.split for record in self.records)
        return {split: counts[split] for split in sorted(counts, key=lambda name: (name is None, name))}

    def count_by_group(self) -> dict[str, int]:
        """Images per group, groups sorted."""
        return _counts(record.group for record in self.records)

    def only(self, ids: Collection[str]) -> Manifest:
        """Keep the images of these ids alone; what could not be read stays listed."""
        return self._with(lambda record: record if record.id in ids else None)

    def with_splits(self, splits: Mapping[str, str] | None) -> Manifest:
        """Put each image on the side that its id has here, copies too; None takes all sides away."""
        return self._with(lambda record: replace(record, split=splits[record.id] if splits else None))

    def by_image(self) -> Manifest:
        """Make every image a group of its own, and forget the splits, which were drawn for the groups.

        Scores on such a table are inflated where patients have several images (law 6): it is for showing by how
        much. The manifest, the matrix and ``run.json`` keep the mark `groups_set_aside`. All views of an image still
        stay on one side, since they share its id.
        """
        apart = self._with(lambda record: replace(record, group=record.id, split=None))
        return replace(apart, has_groups=False, groups_set_aside=self.has_groups or self.groups_set_aside)

    def groups_by_class(self) -> dict[str, int]:
        """Different groups per label: what bounds the number of folds."""
        return _counts(label for label, _ in {(record.label, record.group) for record in self.records})

    def _with(self, change: Callable[[ImageRecord], ImageRecord | None]) -> Manifest:
        records, copies = (
            tuple(kept for record in rows if (kept := change(record)) is not None)
            for rows in (self.records, self.copies)
        )
        return replace(self, records=records, copies=copies)


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
