"""A data set as a CSV file: ``path,label[,group][,split][,site]``."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from featstore.bars import over
from featstore.errors import ManifestError, UsageError
from featstore.findings import Finding, counted
from featstore.images.csv_paths import Locator, PathRefusedError, difference
from featstore.images.csv_table import (
    ROLES,
    columns_flag,
    find_columns,
    missing_columns,
    one_hot,
    patient_columns,
    read_table,
    require_roles,
)
from featstore.images.listing import Entry, Listing, quarantine, real_path_inside
from featstore.images.manifest import Quarantined
from featstore.images.splits import split_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.images.csv_table import Table

_SUFFIX = re.compile(r"\.?[A-Za-z0-9]+(?:\.[A-Za-z0-9]+)?")
_NEAR = 5
"""Files that are not there for which a near match is looked for."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the file that can complain about itself; `cells` by role."""

    table: Table
    line: int
    cells: dict[str, str]
    labelled: bool = True

    def wrong(self, what: str, remedy: str) -> ManifestError:
        return self.table.wrong(what, remedy, self.line)

    @property
    def path(self) -> str:
        """As it is written."""
        self._filled("path")
        return self.cells["path"]

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
            raise self.wrong(f"{text!r} is no split", "Use train, val or test; or rename the column.")
        return split

    @property
    def site(self) -> str | None:
        return self.cells.get("site", "").strip() or None

    def _filled(self, column: str) -> str:
        if not (text := self.cells[column].strip()):
            raise self.wrong(f"the {column} is empty", "Fill it in, or delete the line.")
        return text


@dataclass(slots=True)
class _Found:
    """What the lines of a file came to."""

    entries: list[Entry] = field(default_factory=list)
    unreadable: list[Quarantined] = field(default_factory=list)
    lost: list[tuple[str, Quarantined]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    mended: list[tuple[str, str, str]] = field(default_factory=list)


def list_csv(
    file: Path,
    *,
    follow_links: bool = False,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    suffix: str | None = None,
    labelled: bool = True,
) -> Listing:
    """List the images that a CSV file names, without opening them.

    Columns that are not known are named in a note and ignored. A path that names no file is taken for the only file
    that it can mean (another case, no suffix, backslashes, spaces, the folder in front), and counted.

    Parameters
    ----------
    file
        The CSV file.
    follow_links
        Whether links may lead out of the folder of the images.
    columns, root, suffix
        As in `featstore.images.scan.ScanOptions`.
    labelled
        Whether every image must have a label; if not, the label of one without is empty.

    Raises
    ------
    ManifestError
        If the file cannot be understood: missing column, bad quoting, empty label, no such split, a path that leads
        out of the folder, is a URL or could mean two files, one path with two meanings. Names the file and the line.
    UsageError
        If an option cannot be meant.
    """
    given = require_roles(columns or {})
    table = read_table(file, given)
    places = find_columns(table, given)
    flags = {} if "label" in places else one_hot(table, places, given)
    if "path" not in places or (labelled and not ("label" in places or flags)):
        raise missing_columns(table, places, given)
    if not table.rows:
        raise table.wrong("there are no images below the header", "List at least one image.")
    rows = _rows(table, places, flags, labelled=labelled)
    texts = [row.cells["path"] for row in rows]
    locator = Locator(_root(file, root), file.parent, root is not None, _suffix(suffix), texts)
    found = _read_rows(rows, locator, follow_links=follow_links)
    if found.lost and not found.entries:
        raise _all_lost(file, found, locator)
    unreadable = [*found.unreadable, *_described(found.lost, locator)]
    findings = (*_on_columns(table, places, flags, given), *_on_paths(found))
    return Listing(
        locator.root, tuple(found.entries), tuple(unreadable), 0, findings, has_groups="group" in places
    )


def _root(file: Path, root: str | Path | None) -> Path:
    if root is None:
        return file.parent
    if not Path(root).is_dir():
        raise UsageError(
            f"--root {str(root)!r} is no folder.", "Give the folder where the paths of the CSV file begin."
        )
    return Path(root)


def _suffix(suffix: str | None) -> str | None:
    if suffix is None:
        return None
    if not _SUFFIX.fullmatch(suffix):
        raise UsageError(f"--suffix {suffix!r} is no suffix of files.", "Write for instance --suffix .png")
    return f".{suffix.removeprefix('.')}"


def _rows(table: Table, places: Mapping[str, int], flags: Mapping[str, int], *, labelled: bool) -> list[_Row]:
    rows = []
    for line, cells in table.rows:
        row = {role: cells[place] for role, place in places.items()}
        if flags:
            row["label"] = next(name for name, at in flags.items() if float(cells[at]))
        rows.append(_Row(table, line, row, labelled))
    return rows


def _read_rows(rows: Sequence[_Row], locator: Locator, *, follow_links: bool) -> _Found:
    found = _Found()
    seen: dict[str, tuple[int, Entry]] = {}
    for row in over(rows, "list", "file", len(rows)):
        text = row.path
        try:
            name = locator.locate(text)
        except PathRefusedError as error:
            raise row.wrong(error.what, error.remedy) from error
        entry = Entry(name, locator.root / name, row.label, row.group, row.split, row.site)
        if name in seen:
            _refuse_contradiction(row, entry, *seen[name])
            found.repeated.append(name)
            continue
        seen[name] = row.line, entry
        place = _locate(entry, locator.root, follow_links=follow_links)
        if isinstance(place, Entry):
            found.entries.append(place)
            if how := difference(text, name):
                found.mended.append((text, name, how))
        elif place.reason == "missing":
            found.lost.append((name, place))
        else:
            found.unreadable.append(place)
    return found


def _locate(entry: Entry, root: Path, *, follow_links: bool) -> Entry | Quarantined:
    try:
        info = entry.path.stat()
    except OSError as error:
        return replace(quarantine(entry.path, error), label=entry.label)
    except ValueError as error:  # a NUL character in the name
        return Quarantined(entry.path, None, "missing", str(error), entry.label)
    if not stat.S_ISREG(info.st_mode):
        return Quarantined(entry.path, None, "not_file", "A folder, pipe, socket or device.", entry.label)
    real = real_path_inside(entry.path, root, follow_links=follow_links)
    linked = real != os.path.join(os.path.realpath(root), entry.name)  # noqa: PTH118 - str against str
    return replace(entry, real=real if linked else None)


def _refuse_contradiction(row: _Row, entry: Entry, line: int, known: Entry) -> None:
    for column in ROLES[1:]:
        new, old = getattr(entry, column), getattr(known, column)
        if new != old:
            what = f"{entry.name!r} has {column} {new!r} here and {old!r} on line {line}"
            raise row.wrong(what, "Keep the line that is right.")


def _all_lost(file: Path, found: _Found, locator: Locator) -> ManifestError:
    """Say what is there instead, and where to begin so that the paths lead somewhere."""
    names = [name for name, _ in found.lost]
    total = len(names) + len(found.unreadable)
    reasons = sorted({"missing", *(bad.reason for bad in found.unreadable)})
    near = locator.nearest(names[0])
    there = f", and the nearest is {near!r}" if near else ""
    cause = (
        f"None of the {total} files of {str(file)!r} is an image ({', '.join(reasons)}):"
        f" there is no {names[0]!r} in {str(locator.root)!r}{there}."
    )
    if folder := locator.suggested_root(names):
        return ManifestError(cause, f"Add where the paths begin: --root {shlex.quote(str(folder))}")
    return ManifestError(
        cause,
        "Check that the data set was downloaded completely, and that paths are relative to the CSV file; if they"
        " begin in another folder, name it: --root FOLDER",
    )


def _described(lost: Sequence[tuple[str, Quarantined]], locator: Locator) -> list[Quarantined]:
    """Rows of the quarantine for files that are not there, the first few with the nearest one that is."""
    near = {name: locator.nearest(name) for name, _ in lost[:_NEAR]}
    return [
        replace(bad, detail=f"{bad.detail}; the nearest is {near[name]!r}") if near.get(name) else bad
        for name, bad in lost
    ]


def _on_paths(found: _Found) -> list[Finding]:
    findings = []
    if mended := found.mended:
        kinds = ", ".join(f"{kind} ({n})" for kind, n in Counter(how for *_, how in mended).most_common())
        message = (
            f"{counted(len(mended), 'path names its file', 'paths name their files')} nearly,"
            f" taken for the only one that can be meant: {kinds}."
        )
        lines = tuple(f"{text!r} is {name!r}" for text, name, _ in mended)
        findings.append(Finding("FS207", message, len(mended), lines))
    if repeated := found.repeated:
        message = f"{counted(len(repeated), 'line repeats', 'lines repeat')} a path and took no part."
        findings.append(Finding("FS206", message, len(repeated), tuple(repeated)))
    return findings


def _on_columns(
    table: Table, places: Mapping[str, int], flags: Mapping[str, int], given: Mapping[str, str]
) -> list[Finding]:
    findings = []
    used = {*places.values(), *flags.values()}
    named = {name: at for name, at in table.places.items() if at not in used}
    patients = [] if "group" in places else patient_columns(table, named)
    told = {named[name] for name in patients}
    unknown = [name for at, name in enumerate(table.columns) if at not in used | told]
    if unknown:
        message = f"{counted(len(unknown), 'column')} of the CSV file took no part."
        findings.append(
            Finding("FS205", message, len(unknown), tuple(name or "(no name)" for name in unknown))
        )
    if patients:
        flag = columns_flag({**given, "group": patients[0]})
        empty = table.cells(named[patients[0]]).count("")
        remedy = f"If that is the patient, say so: {flag}"
        if empty:
            remedy = f"If that is the patient, fill in its {empty} empty cells, and say so: {flag}"
        alike = counted(
            len(patients), "column looks like the patient and is", "columns look like the patient and are"
        )
        message = f"{alike} not used as the group; to use it: {flag}"
        findings.append(Finding("FS113", message, len(patients), tuple(patients), remedy=remedy))
    if flags:
        message = f"The label is the name of the one of {len(flags)} columns that holds a 1."
        findings.append(Finding("FS211", message, len(flags), tuple(flags)))
    return findings
