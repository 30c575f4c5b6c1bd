"""Which class loses how many files to the quarantine: one that is all bad looks as if it had never been there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.errors import AuditError
from featstore.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from featstore.images.manifest import Manifest


REMEDY = "Mend or replace these files; `featstore extract` lists them and goes on from where it was."


@dataclass(frozen=True, slots=True)
class Loss:
    """What one class loses.

    Attributes
    ----------
    label
        Name of the class.
    bad, files
        Files in quarantine, and all files.
    reasons
        Codes of `featstore.images.decode.REASONS`, sorted.
    """

    label: str
    bad: int
    files: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        """One clause, such as ``class ill: 8 of 8 files are in quarantine (truncated)``."""
        why = ", ".join(self.reasons)
        return f"class {self.label}: {self.bad} of {self.files} files are in quarantine ({why})"


def losses(manifest: Manifest, reasons: Mapping[str, str]) -> list[Loss]:
    """Losses of every class that has any, by name.

    Parameters
    ----------
    manifest
        The scanned data set.
    reasons
        Id of every image that does not decode -> why.
    """
    found: defaultdict[str, list[str | None]] = defaultdict(list)
    for label, reason in _files(manifest, reasons):
        found[label].append(reason)
    bad = {label: [reason for reason in mine if reason is not None] for label, mine in sorted(found.items())}
    return [
        Loss(label, len(mine), len(found[label]), tuple(sorted(set(mine))))
        for label, mine in bad.items()
        if mine
    ]


def told(found: list[Loss]) -> str:
    """All of them in one line; empty where nothing is lost."""
    return "; ".join(map(str, found))


def one_class_left(manifest: Manifest, reasons: Mapping[str, str]) -> Iterator[Finding]:
    """FS109 where the quarantine leaves images of one class or none."""
    found = losses(manifest, reasons)
    left = sorted({record.label for record in manifest.records if record.id not in reasons})
    if found and len(left) < 2:  # noqa: PLR2004
        what = f"All images that can be read are of the class {left[0]!r}" if left else "No image can be read"
        yield Finding("FS109", f"{what}: {told(found)}.", sum(loss.bad for loss in found), remedy=REMEDY)


def require_two_classes(manifest: Manifest, reasons: Mapping[str, str]) -> None:
    """Refuse a data set of which the quarantine leaves one class or none.

    Raises
    ------
    AuditError
        With what each class lost.
    """
    for finding in one_class_left(manifest, reasons):
        raise AuditError(finding.message, finding.remedy)


def _files(manifest: Manifest, reasons: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    for record in manifest.records:
        yield record.label, reasons.get(record.id)
    for row in manifest.unreadable:
        if row.label:
            yield row.label, row.reason
