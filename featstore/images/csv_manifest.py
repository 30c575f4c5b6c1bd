"""A data set as a CSV file: ``path,label[,group][,split][,site]``."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from featstore.errors import ManifestError
from featstore.files import read_regular
from featstore.findings import Finding
from featstore.images.listing import Entry, Listing, quarantine, real_path_inside, split_name
from featstore.images.manifest import Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 1 << 28
_REQUIRED = ("path", "label")
_OPTIONAL = ("group", "split", "site")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the file that can complain about itself."""

    file: Path
    line: int
    cells: dict[str, str]
    labelled: bool = True

    def wrong(self, what: str, remedy: str) -> ManifestError:
        return _wrong(self.file, self.line, what, remedy)

    @property
    def path(self) -> str:
        """Relative path, normalised (``./a.png`` is ``a.png``)."""
        text = self.cells["path"]
        if not text.strip():
            raise self.wrong("the path is empty", "Fill it in, or delete the line.")
        if _URL.match(text):
            raise self.wrong(f"{text!r} is a URL", "Download the images first; featstore reads files only.")
        if PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or text.startswith("\\\\"):
            raise self.wrong(f"{text!r} is an absolute path", "Give paths relative to the CSV file.")
        if ".." in PurePosixPath(text).parts or ".." in PureWindowsPath(text).parts:
            raise self.wrong(f"{text!r} leaves the folder", "Put the CSV file above all images.")
        return PurePosixPath(text).as_posix()

    @property
    def label(self) -> str:
        return self._filled("label") if self.labelled else self.cells.get("label", "").strip()

    @property
    def group(self) -> str | None:
        return self._filled("group") if "group" in self.cells else None

    @property
    def split(self) -> str | None:
        text = self.cells.get("split", "").strip()
        if not text:
            return None
        if (split := split_name(text)) is None:
            raise self.wrong(f"{text!r} is no split", "Use train, val or test.")
        return split

    @property
    def site(self) -> str | None:
        return self.cells.get("site", "").strip() or None

    def _filled(self, column: str) -> str:
        if not (text := self.cells[column].strip()):
            raise self.wrong(f"the {column} is empty", "Fill it in, or delete the line.")
        return text


def list_csv(file: Path, *, follow_links: bool = False, labelled: bool = True) -> Listing:
    """List the images that a CSV file names, without opening them.

    The file is UTF-8, with or without byte-order mark, with LF or CRLF; its paths are relative to it. Columns
    that are not known are named in a warning and ignored.

    Parameters
    ----------
    file
        The CSV file.
    follow_links
        Whether links may lead out of the folder of the file.
    labelled
        Whether every image must have a label; if not, the label of one without is empty.

    Raises
    ------
    ManifestError
        If the file cannot be understood: missing column, bad quoting, empty label, no such split, a path that
        is absolute, a URL or contains ``..``, one path with two meanings. Names the file and the line.
    """
    columns, rows = _read(file, labelled=labelled)
    findings = _unknown(columns)
    seen: dict[str, tuple[int, Entry]] = {}
    unreadable: list[Quarantined] = []
    repeated: list[str] = []
    for row in rows:
        entry = Entry(row.path, file.parent / row.path, row.label, row.group, row.split, row.site)
        if entry.name in seen:
            _refuse_contradiction(row, entry, *seen[entry.name])
            repeated.append(entry.name)
        else:
            seen[entry.name] = row.line, entry
    entries: list[Entry] = []
    for _, entry in seen.values():
        found = _locate(entry, file.parent, follow_links=follow_links)
        (entries if isinstance(found, Entry) else unreadable).append(found)  # type: ignore[arg-type]
    if repeated:
        message = f"{len(repeated)} lines repeat a path and were ignored."
        findings.append(Finding("FS206", message, len(repeated), tuple(repeated)))
    return Listing(
        file.parent, tuple(entries), tuple(unreadable), 0, tuple(findings), has_groups="group" in columns
    )


def _locate(entry: Entry, root: Path, *, follow_links: bool) -> Entry | Quarantined:
    try:
        info = entry.path.stat()
    except OSError as error:
        return quarantine(entry.path, error)
    except ValueError as error:  # a NUL character in the name
        return Quarantined(entry.path, None, "missing", str(error))
    if not stat.S_ISREG(info.st_mode):
        return Quarantined(entry.path, None, "not_file", "A folder, pipe, socket or device.")
    real = real_path_inside(entry.path, root, follow_links=follow_links)
    linked = real != os.path.join(os.path.realpath(root), entry.name)  # noqa: PTH118 - str against str
    return Entry(
        entry.name, entry.path, entry.label, entry.group, entry.split, entry.site, real if linked else None
    )


def _read(file: Path, *, labelled: bool) -> tuple[list[str], list[_Row]]:
    """Header and rows; every way in which the text itself can be wrong ends here."""
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise _wrong(
            file, 1, "the file is empty", "Its first line must be: path,label[,group][,split][,site]."
        )
    columns = [cell.strip() for cell in first[1]]
    for column in _REQUIRED if labelled else _REQUIRED[:1]:
        if column not in columns:
            raise _wrong(
                file,
                first[0],
                f"there is no column {column!r} in {columns}",
                "The first line must be: path,label[,group][,split][,site], separated by commas.",
            )
    if len(set(columns)) < len(columns):
        raise _wrong(file, first[0], "a column occurs twice", "Rename or delete one of them.")
    rows = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise _wrong(
                file,
                line,
                f"{len(cells)} cells under {len(columns)} columns",
                'Put names with a comma into double quotes: "a,b.png".',
            )
        rows.append(_Row(file, line, dict(zip(columns, cells, strict=True)), labelled))
    if not rows:
        raise _wrong(file, first[0], "there are no images below the header", "List at least one image.")
    return columns, rows


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield, for every record that is not blank, the number of its first line and its cells."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = 'Quote a cell as "..." and double the quotes inside it: "a ""b"".png".'
            raise _wrong(file, start, f"bad quoting ({error})", remedy) from error
        if cells:
            yield start, cells


def _text(file: Path) -> str:
    try:
        data = read_regular(file, _MAX_BYTES)
    except OSError as error:
        raise ManifestError(f"{str(file)!r} cannot be read: {error.strerror}.", "Check the path.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong(file, line, "the text is not UTF-8", "Save the file as UTF-8 CSV.") from error


def _refuse_contradiction(row: _Row, entry: Entry, line: int, known: Entry) -> None:
    for column in ("label", *_OPTIONAL):
        new, old = getattr(entry, column), getattr(known, column)
        if new != old:
            what = f"{entry.name!r} has {column} {new!r} here and {old!r} on line {line}"
            raise row.wrong(what, "Keep the line that is right.")


def _unknown(columns: list[str]) -> list[Finding]:
    unknown = [column for column in columns if column not in _REQUIRED + _OPTIONAL]
    if not unknown:
        return []
    return [
        Finding("FS205", f"{len(unknown)} columns of the CSV file are ignored.", len(unknown), tuple(unknown))
    ]


def _wrong(file: Path, line: int, what: str, remedy: str) -> ManifestError:
    return ManifestError(f"{str(file)!r}, line {line}: {what}.", remedy)
