"""From a folder or a CSV file to a manifest."""

from __future__ import annotations

import os
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from featstore.errors import ManifestError
from featstore.findings import Finding
from featstore.images.contents import Contents, read_contents
from featstore.images.csv_manifest import list_csv
from featstore.images.folder import list_folder
from featstore.images.manifest import Manifest, Quarantined
from featstore.images.signature import SUFFIXES
from featstore.types import ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from featstore.images.listing import Entry, Listing

_MAX_THREADS = 8


def scan(
    data: str | Path | Manifest, *, group_pattern: str | None = None, follow_links: bool = False
) -> Manifest:
    """Read a data set: list the files, hash them, sort out what is no image.

    Parameters
    ----------
    data
        A folder ``class/...`` or ``split/class/...``, or a CSV file ``path,label[,group][,split][,site]``. A manifest
        is what it would be read to, and comes back as it is: so a part of a data set goes wherever all of it would.
    group_pattern
        Regular expression, searched in each relative path; its first group names the patient.
    follow_links
        Whether links may lead out of the data set.

    Returns
    -------
    Manifest
        Records in the order of the relative paths. Two files with the same bytes give one record.

    Raises
    ------
    ManifestError
        If the layout or the CSV file cannot be understood, the pattern does not match a path, or nothing in
        the data set is an image.
    """
    if isinstance(data, Manifest):
        return data
    listing = _list(data := Path(data), follow_links=follow_links)
    if group_pattern is not None:
        listing = _with_groups(listing, group_pattern)
    entries = _once_by_real_path(sorted(listing.entries, key=lambda entry: entry.name))
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        contents = list(pool.map(read_contents, [entry.path for entry in entries]))
    images = [
        (entry, found) for entry, found in zip(entries, contents, strict=True) if isinstance(found, Contents)
    ]
    refused = [
        replace(found, label=entry.label)
        for entry, found in zip(entries, contents, strict=True)
        if isinstance(found, Quarantined)
    ]
    bad = [*listing.unreadable, *refused]
    if not images:
        raise _nothing_left(data, bad)
    records, copies = _once_by_id(images)
    return Manifest(
        root=listing.root,
        records=tuple(records),
        unreadable=tuple(sorted(bad, key=lambda row: str(row.path))),
        skipped=listing.skipped,
        findings=(*listing.findings, *_findings(images, records, copies)),
        has_groups=listing.has_groups,
        copies=tuple(copies),
    )


def _list(data: Path, *, follow_links: bool) -> Listing:
    if data.is_dir():
        return list_folder(data, follow_links=follow_links)
    if data.is_file() and data.suffix.lower() == ".csv":
        return list_csv(data, follow_links=follow_links)
    what = "is neither a folder nor a .csv file" if data.exists() else "does not exist"
    raise ManifestError(
        f"The data set {str(data)!r} {what}.",
        "Give a folder with one folder per class, or a CSV file with the columns path,label.",
    )


def _with_groups(listing: Listing, pattern: str) -> Listing:
    if listing.has_groups:
        raise ManifestError("There is a group column and a group pattern.", "Drop one of the two.")
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ManifestError(
            f"The group pattern {pattern!r} is no regular expression: {error}.", "Mend it."
        ) from error
    if not regex.groups:
        raise ManifestError(
            f"The group pattern {pattern!r} captures nothing.", r"Put the patient in parentheses: '(p\d+)_'."
        )
    entries = tuple(replace(entry, group=_group_of(entry, regex)) for entry in listing.entries)
    return replace(listing, entries=entries, has_groups=True)


def _group_of(entry: Entry, regex: re.Pattern[str]) -> str:
    match = regex.search(entry.name)
    if match is None or not match[1]:
        raise ManifestError(
            f"The group pattern {regex.pattern!r} finds no group in {entry.name!r}.",
            "Widen the pattern, or name the groups in a CSV file with a group column.",
        )
    return match[1]


def _once_by_real_path(entries: Sequence[Entry]) -> list[Entry]:
    """Drop links to a file that is listed anyway with the same meaning; other links stay, for the audit."""
    kept: dict[tuple[str, str, str | None, str | None], Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.real is not None):
        real = entry.real or os.path.realpath(entry.path)
        kept.setdefault((real, entry.label, entry.split, entry.group), entry)
    return sorted(kept.values(), key=lambda entry: entry.name)


def _once_by_id(images: Iterable[tuple[Entry, Contents]]) -> tuple[list[ImageRecord], list[ImageRecord]]:
    records: dict[str, ImageRecord] = {}
    copies: list[ImageRecord] = []
    for entry, contents in images:
        for page, image_id in enumerate(contents.ids):
            group = entry.group or contents.digest
            record = ImageRecord(image_id, entry.path, entry.label, group, entry.split, entry.site, page)
            if records.setdefault(image_id, record) is not record:
                copies.append(record)
    return list(records.values()), copies


def _findings(
    images: Sequence[tuple[Entry, Contents]], records: Sequence[ImageRecord], copies: Sequence[ImageRecord]
) -> Iterable[Finding]:
    labels = {record.id: record.label for record in records}
    if same := [str(copy.path) for copy in copies if labels[copy.id] == copy.label]:
        message = f"{len(same)} files repeat the bytes of another of their class; each image is kept once."
        yield Finding("FS302", message, len(same), tuple(same))
    if twins := _twins(entry.name for entry, _ in images):
        message = f"{len(twins)} names differ only in how accents are encoded (NFC, NFD)."
        yield Finding("FS208", message, len(twins), tuple(twins))
    if other := [entry.name for entry, found in images if _is_misnamed(entry.name, found.kind)]:
        message = f"{len(other)} files are not what their suffix says and are decoded by content."
        yield Finding("FS303", message, len(other), tuple(other))


def _twins(names: Iterable[str]) -> list[str]:
    """Paths that would collide on a file system that normalises, whole or in one of their folders."""
    spellings: dict[str, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        for part in (path, *path.parents):
            spellings.setdefault(unicodedata.normalize("NFC", str(part)), set()).add(str(part))
    return sorted(name for group in spellings.values() if len(group) > 1 for name in group)


def _is_misnamed(name: str, kind: str) -> bool:
    return SUFFIXES.get(PurePosixPath(name).suffix.lower(), kind) != kind


def _nothing_left(data: Path, bad: Sequence[Quarantined]) -> ManifestError:
    if not bad:
        return ManifestError(f"{str(data)!r} holds no images.", "Put the images into one folder per class.")
    reasons = sorted({row.reason for row in bad})
    return ManifestError(
        f"None of the {len(bad)} files of {str(data)!r} is an image ({', '.join(reasons)}).",
        "Check that the data set was downloaded completely, and that paths are relative to the CSV file.",
    )
