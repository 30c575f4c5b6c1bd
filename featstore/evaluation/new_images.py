"""Images to predict: named one by one, by folder, by CSV file or by pattern; no class folders are needed."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from featstore.errors import ManifestError, UsageError
from featstore.files import open_regular
from featstore.images.contents import Contents, read_contents
from featstore.images.csv_manifest import list_csv
from featstore.images.csv_table import TABLES
from featstore.images.decode import REASONS
from featstore.images.listing import quarantine, real_path_inside
from featstore.images.manifest import Quarantined
from featstore.images.notes import findings_of_pages
from featstore.images.scan import TABLE_OPTIONS, ScanOptions, refuse_unknown_options
from featstore.images.signature import HEAD, SUFFIXES, raster_format
from featstore.types import ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.findings import Finding

REMEDY = (
    "Give image files, a folder of images, a CSV file with a column path, or a quoted pattern: 'scans/*.png'."
)


@dataclass(frozen=True, slots=True)
class NewImages:
    """What was asked for.

    Attributes
    ----------
    records
        An image each, those of one file in the order of its pages; label and group are empty where not given.
    several
        Files that give several images.
    bad
        Files that are no images, as (path, reason, detail).
    skipped
        Files in folders that do not look like images.
    findings
        What reading a CSV file met.
    """

    records: tuple[ImageRecord, ...]
    several: frozenset[Path]
    bad: tuple[tuple[Path, str, str], ...]
    skipped: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """A file that somebody named, and what he said about it."""

    path: Path
    name: str
    label: str = ""
    group: str = ""


@dataclass(slots=True)
class _Search:
    """Turns what was given into files; keeps what it met on the way."""

    follow_links: bool
    table: Mapping[str, Any]
    tables: int = 0
    unreadable: list[Quarantined] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def files(self, given: str | Path) -> list[_Named]:
        path = Path(given)
        if path.is_dir():
            return self._folder(path)
        if path.is_file() and path.suffix.lower() in TABLES:
            return self._csv(path)
        if not path.exists() and glob.has_magic(str(given)):
            return self._pattern(str(given))
        return [_Named(path, str(path))]

    def _folder(self, folder: Path) -> list[_Named]:
        found = []
        for path in self._below(folder):
            if _looks_like_image(path):
                found.append(_Named(path, path.relative_to(folder).as_posix()))
            else:
                self.passed_over.append(path)
        return found

    def _below(self, folder: Path) -> list[Path]:
        """Files at any depth, sorted; hidden ones are passed over, a folder inside itself is entered once."""
        found: list[Path] = []
        seen = {os.path.realpath(folder)}
        for top, folders, names in os.walk(folder, followlinks=True, onerror=self._refused):
            entered = []
            for name in filter(_is_visible, sorted(folders)):
                real = real_path_inside(Path(top, name), folder, follow_links=self.follow_links)
                if real not in seen:
                    seen.add(real)
                    entered.append(name)
            folders[:] = entered
            for name in filter(_is_visible, names):
                path = Path(top, name)
                real_path_inside(path, folder, follow_links=self.follow_links)
                found.append(path)
        return sorted(found)

    def _refused(self, error: OSError) -> None:
        self.unreadable.append(quarantine(Path(error.filename), error))

    def _csv(self, file: Path) -> list[_Named]:
        self.tables += 1
        listing = list_csv(file, follow_links=self.follow_links, labelled=False, **self.table)
        self.unreadable += listing.unreadable
        self.findings += listing.findings
        return [_Named(e.path, e.name, e.label, e.group or "") for e in listing.entries]

    def _pattern(self, pattern: str) -> list[_Named]:
        found = []
        for path in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207 - absolute patterns, too
            found += self._folder(path) if path.is_dir() else [_Named(path, str(path))]
        return found


def find_images(images: str | Path | Sequence[str | Path], **reading: Unpack[ScanOptions]) -> NewImages:
    """List and hash the images that are meant, page by page.

    Parameters
    ----------
    images
        A file, a folder (walked at any depth), a CSV file with a column ``path`` (and ``label`` and ``group``), a
        pattern such as ``scans/**/*.png``, or several of these.
    **reading
        See `featstore.images.scan.ScanOptions`; the group pattern is searched in paths relative to the folder or CSV
        file that was given, and need not be found in all.

    Raises
    ------
    UsageError
        If nothing that was given is an image; with one example.
    """
    refuse_unknown_options(reading)
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    table = {name: reading.get(name) for name in TABLE_OPTIONS}
    search = _Search(reading.get("follow_links", False), table)
    named: dict[Path, _Named] = {}
    empty = []
    for one in given:
        files = search.files(one)
        empty += [] if files else [Quarantined(Path(one), None, "missing", "No image was found there.")]
        for file in files:
            named.setdefault(file.path, file)
    regex = _compiled(reading.get("group_pattern"))
    if not search.tables and (unused := [name for name, value in table.items() if value]):
        raise UsageError(
            f"--{unused[0]} is for a CSV file, and none was given.",
            f"Leave out --{unused[0]}, or give the file.",
        )
    records: list[ImageRecord] = []
    several = set()
    read: list[tuple[str, Contents]] = []
    bad = list(search.unreadable)
    for path, file in named.items():
        contents = read_contents(path)
        if isinstance(contents, Contents):
            records += _pages(file, contents, regex)
            several |= {path} if contents.pages > 1 else set()
            read.append((str(path), contents))
        else:
            bad.append(contents)
    if not records:
        raise _nothing(given, bad, search.passed_over)
    return NewImages(
        tuple(records),
        frozenset(several),
        tuple((row.path, row.reason, row.detail) for row in [*bad, *empty]),
        len(search.passed_over),
        (*search.findings, *findings_of_pages(read)),
    )


def _pages(file: _Named, contents: Contents, regex: re.Pattern[str] | None) -> Iterator[ImageRecord]:
    group = file.group or _group(file.name, regex)
    for image, frame in zip(contents.ids, contents.frames, strict=True):
        yield ImageRecord(image, file.path, file.label, group, frame=frame)


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
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
    return regex


def _group(name: str, regex: re.Pattern[str] | None) -> str:
    match = regex.search(name) if regex else None
    return next((part for part in match.groups() if part), "") if match else ""


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_regular(path) as file:
            return raster_format(file.read(HEAD)) is not None
    except OSError:
        return False


def _nothing(given: Sequence[str | Path], bad: Sequence[Quarantined], other: Sequence[Path]) -> UsageError:
    if bad:
        one = bad[0]
        head = (
            f"None of the {len(bad)} files is an image, for example" if len(bad) > 1 else "This is no image:"
        )
        return UsageError(
            f"{head} {str(one.path)!r}: {one.reason} ({one.detail})",
            REASONS.get(one.reason, REMEDY) if len(bad) == 1 else REMEDY,
        )
    if other:
        found = read_contents(other[0])
        why = f": {found.detail}" if isinstance(found, Quarantined) else "."
        what = f"{len(other)} other files, for example" if len(other) > 1 else "only"
        return UsageError(f"There is no image in {_shown(given)}, {what} {str(other[0])!r}{why}", REMEDY)
    if not given:
        return UsageError("No image was given.", REMEDY)
    return UsageError(f"There is no image in {_shown(given)}.{_near(Path(given[0]))}", REMEDY)


def _shown(given: Sequence[str | Path]) -> str:
    more = f" and {len(given) - 1} more" if len(given) > 1 else ""
    return f"{str(given[0])!r}{more}"


def _near(pattern: Path) -> str:
    """One example of what lies where a pattern looked."""
    folder = next((p for p in pattern.parents if p.is_dir() and not glob.has_magic(str(p))), None)
    if folder is None:
        return ""
    there = (p for p in sorted(folder.iterdir()) if _is_visible(p.name) and p.suffix.lower() in SUFFIXES)
    one = next(there, None)
    return f" In {str(folder)!r} there is for example {one.name!r}." if one else ""
