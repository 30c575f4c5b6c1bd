"""Data sets as tables, CSV or Parquet: ``path,label[,group][,split][,site]``."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import shlex
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from featstore.errors import ManifestError, UsageError, nearest
from featstore.findings import Finding, counted
from featstore.images.csv_paths import Locator, PathRefusedError, difference
from featstore.images.formats.container import HEAD, suffixes
from featstore.images.manifest import ListedFile, Listing, Quarantined, quarantine, real_path_inside
from featstore.images.names import split_name
from featstore.images.other_kinds import other_kind
from featstore.images.parquet import read_cells
from featstore.processes import track
from featstore.serialization import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


# Listing of the images

_SUFFIX = re.compile(r"\.?[A-Za-z0-9]+(?:\.[A-Za-z0-9]+)?")
_NEAR = 5
"""Files that are not there for which a near match is looked for."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the file that can complain about itself; `cells` by role."""

    table: CsvTable
    line: int
    cells: dict[str, str]
    labelled: bool = True
    covariates: tuple[str, ...] = ()

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

    entries: list[ListedFile] = field(default_factory=list)
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
    covariates: Sequence[str] | None = None,
    labelled: bool = True,
) -> Listing:
    """List the images that a table names, without opening them.

    Columns that are not known are named in a note and ignored. A path that names no file is taken for the only file
    that it can mean (another case, no suffix, backslashes, spaces, the folder in front), and counted.

    Parameters
    ----------
    file
        The CSV or Parquet file.
    follow_links
        Whether links may lead out of the folder of the images.
    columns, root, suffix, covariates
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
    flags = named_flags(table, given)
    places = find_columns(
        table, {role: name for role, name in given.items() if not (flags and role == "label")}
    )
    if flags:
        places.pop("label", None)
    elif "label" not in places:
        flags = one_hot(table, places, given)
    if "path" not in places or (labelled and not ("label" in places or flags)):
        raise missing_columns(table, places, given)
    if not table.rows:
        raise table.wrong("there are no images below the header", "List at least one image.")
    beside = covariate_columns(table, covariates or (), places, flags)
    rows = _rows(table, places, flags, beside, labelled=labelled)
    texts = [row.cells["path"] for row in rows]
    locator = Locator(_root(file, root), file.parent, root is not None, _suffix(suffix), texts)
    found = _read_rows(rows, locator, follow_links=follow_links)
    if found.lost and not found.entries:
        raise _all_lost(file, found, locator)
    unreadable = [*found.unreadable, *_described(found.lost, locator)]
    findings = (*_on_columns(table, places, flags, beside, given), *_on_paths(found))
    return Listing(
        locator.root, tuple(found.entries), tuple(unreadable), 0, findings, has_groups="group" in places
    )


def other_columns(
    file: Path,
    *,
    columns: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    suffix: str | None = None,
) -> tuple[list[str], dict[str, list[str]]]:
    """Columns of a table that say neither path nor label, group, split or site, and their cells by relative path.

    Of lines that repeat a path the first counts. A column that bears the name of a role, but has none, is called
    ``label_of_table``.

    Parameters
    ----------
    file, columns, root, suffix
        As for `list_csv`, which has read the table.
    """
    given = require_roles(columns or {})
    table = read_table(file, given)
    flags = named_flags(table, given)
    places = find_columns(
        table, {role: name for role, name in given.items() if not (flags and role == "label")}
    )
    if flags:
        places.pop("label", None)
    others = [at for at in range(len(table.columns)) if at not in places.values()]
    texts = [cells[places["path"]] for _, cells in table.rows]
    locator = Locator(_root(file, root), file.parent, root is not None, _suffix(suffix), texts)
    found: dict[str, list[str]] = {}
    for text, (_, cells) in zip(texts, table.rows, strict=True):
        found.setdefault(locator.locate(text), [cells[at] for at in others])
    names = [table.columns[at] for at in others]
    return [f"{name}_of_table" if plain(name) in ROLES else name for name in names], found


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


def _rows(
    table: CsvTable,
    places: Mapping[str, int],
    flags: Mapping[str, int],
    beside: Sequence[int],
    *,
    labelled: bool,
) -> list[_Row]:
    rows = []
    for line, cells in table.rows:
        row = {role: cells[place] for role, place in places.items()}
        if flags:
            row["label"] = next(name for name, at in flags.items() if flag(cells[at]))
        rows.append(_Row(table, line, row, labelled, tuple(cells[at].strip() for at in beside)))
    return rows


def _read_rows(rows: Sequence[_Row], locator: Locator, *, follow_links: bool) -> _Found:
    found = _Found()
    seen: dict[str, tuple[int, ListedFile]] = {}
    for row in track(rows, "list", "file", len(rows)):
        text = row.path
        try:
            name = locator.locate(text)
        except PathRefusedError as error:
            raise row.wrong(error.what, error.remedy) from error
        entry = ListedFile(
            name, locator.root / name, row.label, row.group, row.split, row.site, covariates=row.covariates
        )
        if name in seen:
            _refuse_contradiction(row, entry, *seen[name])
            found.repeated.append(name)
            continue
        seen[name] = row.line, entry
        place = _locate(entry, locator.root, follow_links=follow_links)
        if isinstance(place, ListedFile):
            found.entries.append(place)
            if how := difference(text, name):
                found.mended.append((text, name, how))
        elif place.reason == "missing":
            found.lost.append((name, place))
        else:
            found.unreadable.append(place)
    return found


def _locate(entry: ListedFile, root: Path, *, follow_links: bool) -> ListedFile | Quarantined:
    try:
        info = entry.path.stat()
    except OSError as error:
        return replace(quarantine(entry.path, error), label=entry.label)
    except ValueError as error:  # a NUL character in the name
        return Quarantined(entry.path, None, "missing", str(error), entry.label)
    if not stat.S_ISREG(info.st_mode):
        what = (
            "A folder: list its images, one a line."
            if stat.S_ISDIR(info.st_mode)
            else "A pipe, socket or device."
        )
        return Quarantined(entry.path, None, "not_file", what, entry.label)
    real = real_path_inside(entry.path, root, follow_links=follow_links)
    linked = real != os.path.join(os.path.realpath(root), entry.name)  # noqa: PTH118 - str against str
    return replace(entry, real=real if linked else None)


def _refuse_contradiction(row: _Row, entry: ListedFile, line: int, known: ListedFile) -> None:
    for column in (*ROLES[1:], "covariates"):
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
    old, new = PurePosixPath(names[0]), PurePosixPath(near or "")
    is_alike = (old.parent, old.stem) == (new.parent, new.stem)
    if is_alike and all(map(_SUFFIX.fullmatch, (old.suffix, new.suffix))):
        swap = f"sed 's/\\{old.suffix}/{new.suffix}/' {shlex.quote(str(file))} > new.csv"
        return ManifestError(
            cause, f"If that one is meant, write {new.suffix} for {old.suffix} in the table: {swap}"
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
    table: CsvTable,
    places: Mapping[str, int],
    flags: Mapping[str, int],
    beside: Sequence[int],
    given: Mapping[str, str],
) -> list[Finding]:
    findings = []
    used = {*places.values(), *flags.values(), *beside}
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


# The text of a CSV file as columns and rows, and which column means what

PARQUET = ".parquet"
TABLES = frozenset({".csv", ".tsv", ".tab", ".txt", PARQUET})
"""Suffixes of tables; what separates the cells of a text is seen in its first line."""
ROLES = ("path", "label", "group", "split", "site")
REQUIRED = ("path", "label")
_MAX_BYTES = 1 << 28
_MAX_CELLS, _ROW = 1 << 25, 8
"""Cells of a table, and how many of them the row itself counts for: a row of two cells takes half a kilobyte."""
_DELIMITERS = (",", ";", "\t", "|", " ")
_HEAD = 1 << 16
_FEW = 20
"""Rows that are looked at to tell what a column holds."""
_MARK = re.compile(r'"?sep=(.)"?[ \t]*\r?\n', re.IGNORECASE)
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""Cells of a column that says of each image whether it is of a class, in small letters."""
_LIKELY = {
    "path": (
        "paths", "filepath", "imagepath", "imgpath", "filename", "filenames", "imagename", "imgname",
        "file", "files", "imagefile", "image", "images", "img", "imageid", "imgid", "imageindex",
        "isicid", "slide", "picture", "photo", "name", "id", "uid",
    ),
    "label": (
        "labels", "class", "classes", "classname", "classlabel", "category", "target", "diagnosis",
        "diagnoses", "dx", "finding", "findings", "findinglabels", "disease", "pathology", "outcome",
        "condition", "groundtruth", "gt", "y", "grade", "status", "type", "result",
    ),
}  # fmt: skip
"""Usual names of columns, without capitals and signs, the likeliest first."""
UIDS = frozenset({
    "patientid", "studyinstanceuid", "studyuid", "seriesinstanceuid", "seriesuid", "sopinstanceuid", "sopuid",
})  # fmt: skip
"""Columns by which DICOM files are known, without capitals and signs."""
_PATIENT = re.compile(
    r"(?:id)?(?:anon(?:ymi[sz]ed)?)?(?:(?:patient|subject|subj|person|participant|individual|donor|animal)s?|pat|case)"
    r"(?:id|ids|ident|identifier|index|key|name|no|nr|num|number|code|uid|hash)?(?:anon(?:ymi[sz]ed)?)?"
    r"|group(?:id|s|ids|name)?|pid|ptid|subid|mrn|lesionid|eid|medicalrecordnumber|hospitalnumber"
)


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Columns and rows of a CSV or Parquet file.

    Attributes
    ----------
    file
        Where it is.
    columns
        Names in the first line, without those that are empty all the way down.
    rows
        Number of the line and cells of each line that is not blank.
    line
        Number of the line with the names; 0 where they stand in none.
    delimiter
        What separates the cells.
    others
        Columns of a Parquet file that hold lists, bytes and the like.
    """

    file: Path
    columns: list[str]
    rows: list[tuple[int, list[str]]]
    line: int
    delimiter: str
    others: tuple[str, ...] = ()

    @property
    def places(self) -> dict[str, int]:
        """Position of each column whose name occurs once."""
        counts = Counter(self.columns)
        return {name: at for at, name in enumerate(self.columns) if name and counts[name] == 1}

    def cells(self, at: int) -> list[str]:
        """All cells of a column, without spaces around them."""
        return [cells[at].strip() for _, cells in self.rows]

    def wrong(self, what: str, remedy: str, line: int | None = None) -> ManifestError:
        """Complain about a line, by default that of the names."""
        return wrong(self.file, line or self.line, what, remedy)


def wrong(file: Path, line: int, what: str, remedy: str) -> ManifestError:
    """Complain about a line of a file; a Parquet file has rows, and none with the names."""
    place = f"line {line}"
    if file.suffix.lower() == PARQUET:
        place = f"row {line}" if line else "columns"
    return ManifestError(f"{str(file)!r}, {place}: {what}.", remedy)


def read_table(file: Path, columns: Mapping[str, str]) -> CsvTable:
    """Read the cells of a CSV or Parquet file.

    UTF-8 or UTF-16, commas, semicolons, tabs, bars or spaces between the cells, spaces behind them, a first line
    ``sep=;``, empty columns and empty rows at the end: all as spreadsheets write them.

    Raises
    ------
    ManifestError
        If it is no text, a cell is quoted badly, or a row has more or fewer cells than there are names.
    """
    if file.suffix.lower() == PARQUET:
        names, cells, others = read_cells(file, _MAX_CELLS, _MAX_BYTES)
        return CsvTable(file, [name.strip() for name in names], [*enumerate(cells, 1)], 0, ",", tuple(others))
    text, skipped = _text(file), 0
    if mark := _MARK.match(text):
        text, skipped = text[mark.end() :], 1
    delimiter = mark[1] if mark else _delimiter(text[:_HEAD], {*ROLES, *columns.values()})
    spaced = delimiter == " " or _is_spaced(text[:_HEAD], delimiter)
    lines = _lines(file, text, delimiter, skipped, spaced=spaced)
    first = next(lines, None)
    if first is None:
        raise wrong(
            file, 1, "the file is empty", "Its first line must be: path,label[,group][,split][,site]."
        )
    names = [cell.strip() for cell in first[1]]
    rows = [(line, _fitted(file, line, cells, names)) for line, cells in lines if any(map(str.strip, cells))]
    used = [bool(name) or any(cells[at].strip() for _, cells in rows) for at, name in enumerate(names)]
    if not all(used):
        names = [name for name, keep in zip(names, used, strict=True) if keep]
        rows = [(line, [c for c, keep in zip(cells, used, strict=True) if keep]) for line, cells in rows]
    return CsvTable(file, names, rows, first[0], delimiter)


def find_columns(table: CsvTable, columns: Mapping[str, str]) -> dict[str, int]:
    """Position of the column of each role that there is.

    Parameters
    ----------
    table
        The file.
    columns
        Names that the user gave to roles; each other role is looked for under its own name, in any capitals.

    Raises
    ------
    ManifestError
        If a column that was named is not there, or one occurs twice.
    """
    found: dict[str, int] = {}
    spelled = [plain(column) for column in table.columns]
    for role in ROLES:
        name = columns.get(role, role)
        same = [at for at, column in enumerate(table.columns) if column == name.strip()]
        same = same or [at for at, column in enumerate(spelled) if column == plain(name) != ""]
        if len(same) > 1:
            raise table.wrong(f"the column {name!r} occurs twice", "Rename or delete one of them.")
        if same:
            found[role] = same[0]
        elif role in columns:
            near = nearest(name, table.columns) or difflib.get_close_matches(name, table.columns, n=1)
            use = shlex.quote(f"{role}={near[0]}") if near else ""
            hint = f"Did you mean --columns {use}?" if near else "Give one of these names."
            raise table.wrong(f"there is no column {name!r} in {listed(table.columns)}", hint)
    return found


def covariate_columns(
    table: CsvTable, names: Sequence[str], places: Mapping[str, int], flags: Mapping[str, int]
) -> list[int]:
    """Positions of the columns that were named as covariates.

    Raises
    ------
    ManifestError
        If one is not there, is named twice, or says which image, class, patient or side of the split it is.
    """
    found: list[int] = []
    taken = {at: role for role, at in places.items() if role != "site"} | dict.fromkeys(
        flags.values(), "label"
    )
    for name in names:
        same = [at for at, column in enumerate(table.columns) if column == name.strip()]
        same = same or [at for at, column in enumerate(table.columns) if plain(column) == plain(name) != ""]
        if len(same) != 1:
            near = nearest(name, table.columns) or table.columns[:1]
            what = "more than one column" if same else "no column"
            raise table.wrong(
                f"there is {what} {name!r} in {listed(table.columns)}",
                f"Give one of these names, such as --covariates {shlex.quote(near[0])}",
            )
        if same[0] in taken:
            raise table.wrong(
                f"the column {name!r} is the {taken[same[0]]}, and cannot be a covariate",
                "Leave it out of --covariates.",
            )
        if same[0] in found:
            raise table.wrong(f"the covariate {name!r} is named twice", "Name it once.")
        found.append(same[0])
    return found


def require_roles(columns: Mapping[str, str]) -> dict[str, str]:
    """Names that the user gave to roles, checked.

    Raises
    ------
    UsageError
        If one is given to something that is no role.
    """
    for role, name in columns.items():
        if role not in ROLES:
            turned = f"{name}={role}" if name in ROLES else ""
            near = difflib.get_close_matches(role, ROLES, n=1)
            meant = turned or (f"{near[0]}={name}" if near else "")
            raise UsageError(
                f"--columns {role}={name}: {role!r} is none of {', '.join(ROLES)}.",
                f"Did you mean --columns {shlex.quote(meant)}?"
                if meant
                else "Write for instance --columns group=patient_id.",
            )
        if not name.strip():
            raise UsageError(
                f"--columns {role}= names no column.", f"Write for instance --columns {role}={role}."
            )
    return dict(columns)


def missing_columns(table: CsvTable, found: Mapping[str, int], columns: Mapping[str, str]) -> ManifestError:
    """What to say where there is no column for path or label: the very line to type, if it can be told."""
    lacking = [role for role in REQUIRED if role not in found]
    if role := next((cell for cell in table.columns if _is_image_name(cell)), None):
        header = table.delimiter.join(_invented(table))
        return table.wrong(
            f"it names no columns, but an image: {role!r}",
            f"Write a line with the names of the columns above it: {header!r}.",
        )
    meant = {role: columns[role] for role in ROLES if role in columns}
    free = _free(table, found, columns)
    for role in lacking:
        if guess := likely(table, role, {n: at for n, at in free.items() if n not in meant.values()}):
            meant[role] = guess
    if "path" in lacking and "path" not in meant and (elsewhere := _pictures_elsewhere(table, free)):
        return elsewhere
    if not {"group"} & {*found, *meant} and (patients := patient_columns(table, free)):
        meant["group"] = patients[0]
    what = f"there is no column {lacking[0]!r} in {listed(table.columns)}"
    unknown = [
        role
        for role in lacking
        if role not in meant and not (role == "label" and one_hot(table, found, meant))
    ]
    flags = _flags(table, {n: at for n, at in free.items() if n not in meant.values()})
    if unknown == ["label"] and flags:
        meant["label"] = next(iter(flags))
        what += f"; {len(flags)} columns of zeros and ones are not one class for each image"
    elif unknown:
        return table.wrong(
            what,
            f"Say which column is the {unknown[0]}: --columns {unknown[0]}=COLUMN; or write a first line"
            " path,label[,group][,split][,site].",
        )
    return table.wrong(what, f"If these are meant, say so: {columns_flag(meant)}")


def _pictures_elsewhere(table: CsvTable, free: Iterable[str]) -> ManifestError | None:
    """What to say of a table that names no files, but DICOM's ids, or holds the pictures themselves."""
    if key := next((name for name in free if plain(name) in UIDS), None):
        return table.wrong(
            f"there is no column 'path', but {key!r}",
            "Give the folder of the images as DATA, and this table beside it:"
            f" --labels {shlex.quote(str(table.file))}",
        )
    if held := next((name for name in table.others if plain(name) in _LIKELY["path"]), None):
        return table.wrong(
            f"there is no column 'path', and {held!r} holds the pictures themselves",
            "Write them as files, and their names into a column 'path': for n, cell in"
            f" enumerate(pyarrow.parquet.read_table({table.file.name!r})[{held!r}].to_pylist()):"
            " pathlib.Path(f'{n}.png').write_bytes(cell['bytes'])",
        )
    return None


def columns_flag(columns: Mapping[str, str]) -> str:
    """The flag that gives these columns their roles, as a shell takes it."""
    entries = (f"{role}={columns[role]}" for role in ROLES if role in columns)
    return f"--columns {shlex.quote(','.join(entries))}"


def patient_columns(table: CsvTable, places: Mapping[str, int]) -> list[str]:
    """Those of some columns that look like the patient, by name, and are neither constant nor a mere yes and no."""
    named = {name: places[name] for name in patient_names(places)}
    return [name for name, at in named.items() if len(set(table.cells(at))) > min(2, len(table.rows) // 2)]


def patient_names(names: Iterable[str]) -> list[str]:
    """Those of some names of columns that mean the patient, DICOM's own first."""
    found = [name for name in names if _PATIENT.fullmatch(plain(name))]
    return sorted(found, key=lambda name: plain(name) != "patientid")


def one_hot(table: CsvTable, found: Mapping[str, int], columns: Mapping[str, str]) -> dict[str, int]:
    """Columns of zeros and ones of which each row has a single one; none where there are no such."""
    free = _free(table, found, columns)
    flags = _flags(table, free)
    if len(flags) < 2 or likely(table, "label", {n: at for n, at in free.items() if n not in flags}):  # noqa: PLR2004
        return {}
    single = all(sum(flag(cells[at]) is True for at in flags.values()) == 1 for _, cells in table.rows)
    return flags if single else {}


def named_flags(table: CsvTable, columns: Mapping[str, str]) -> dict[str, int]:
    """Columns of zeros and ones that were named as the label, ``MEL,NV,BCC``; none where that is one column's name.

    Raises
    ------
    ManifestError
        If one of several is not there, or a row has not a single 1 among them.
    """
    label = columns.get("label", "")
    names = [name.strip() for name in label.split(",")]
    if len(names) < 2 or label.strip() in table.places or not {*names} & {*table.places}:  # noqa: PLR2004
        return {}
    if unknown := next((name for name in names if name not in table.places), None):
        near = nearest(unknown, [name for name in table.places if name not in names])
        meant = ",".join(near[0] if name == unknown and near else name for name in names)
        hint = f"If this is meant, say so: {columns_flag({**columns, 'label': meant})}"
        hint = hint if near else "Give names of these columns alone."
        raise table.wrong(f"there is no column {unknown!r} in {listed(table.columns)}", hint)
    flags = {name: table.places[name] for name in names}
    for line, cells in table.rows:
        _require_single(table, line, {name: cells[at].strip() for name, at in flags.items()}, columns)
    return flags


def _require_single(table: CsvTable, line: int, cells: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Refuse a row in which not exactly one of the columns that stand for the label holds a 1."""
    if odd := next((name for name, cell in cells.items() if flag(cell) is None), None):
        raise table.wrong(
            f"the column {odd!r} holds {cells[odd][:40]!r}, neither 0 nor 1",
            "Name only columns of zeros and ones as the label, or mend this cell.",
            line,
        )
    ones = [name for name, cell in cells.items() if flag(cell)]
    if len(ones) == 1:
        return
    if not ones:
        raise table.wrong(
            f"none of {', '.join(cells)} is 1",
            "Delete the line, or add a column that is 1 for such images, and name it too.",
            line,
        )
    raise table.wrong(
        f"{' and '.join(ones)} are 1, and an image has one class",
        f"Delete such lines, or ask about one column against the rest: {columns_flag({**columns, 'label': ones[0]})}",
        line,
    )


def _free(table: CsvTable, found: Mapping[str, int], columns: Mapping[str, str]) -> dict[str, int]:
    """Columns that have no role yet."""
    taken = {*found.values()}
    return {n: at for n, at in table.places.items() if at not in taken and n not in columns.values()}


def _flags(table: CsvTable, places: Mapping[str, int]) -> dict[str, int]:
    if not table.rows:
        return {}
    few = [cells for _, cells in table.rows[:_FEW]]
    possible = {n: at for n, at in places.items() if all(flag(cells[at]) is not None for cells in few)}
    return {n: at for n, at in possible.items() if all(flag(c) is not None for c in set(table.cells(at)))}


def flag(cell: str) -> bool | None:
    """Whether a cell says yes: 1, or True as pandas writes it; None where it says neither yes nor no."""
    return _FLAGS.get(cell.strip().lower())


def likely(table: CsvTable, role: str, places: Mapping[str, int]) -> str | None:
    """Column that is likely to have a role, by its name, or by what is in it."""
    spelled = {plain(name): name for name in reversed([*places])}
    named = next((spelled[name] for name in _LIKELY[role] if name in spelled), None)
    if role == "path":
        rows = [cells for _, cells in table.rows[:_FEW]]
        holding = [n for n, at in places.items() if rows and all(_is_image_name(row[at]) for row in rows)]
        return next((name for name in holding if name == named), holding[0] if holding else named)
    return named


def _is_image_name(cell: str) -> bool:
    return cell.strip().lower().endswith(tuple(suffixes())) and "." in cell.strip()[1:]


def _invented(table: CsvTable) -> list[str]:
    """Names for columns that have none: what holds images is the path, what has the fewest values the label."""
    every = [(table.line, table.columns), *table.rows]
    values = [[cells[at].strip() for _, cells in every] for at in range(len(table.columns))]
    path = next(at for at, cells in enumerate(values) if _is_image_name(cells[0]))
    kinds = {at: len(set(cells)) for at, cells in enumerate(values) if at != path and len(set(cells)) > 1}
    label = min(kinds, key=lambda at: kinds[at]) if kinds else -1
    return [
        "path" if at == path else "label" if at == label else f"column{at + 1}" for at in range(len(values))
    ]


def plain(name: str) -> str:
    """Spell the name of a column without capitals and signs."""
    return re.sub(r"[\W_]+", "", name).casefold()


def listed(names: Sequence[str], most: int = 20) -> str:
    """Write names of columns for a message, the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{list(names[:most])}{more}"


def _fitted(file: Path, line: int, cells: list[str], names: Sequence[str]) -> list[str]:
    """Cells of a row, as many as there are names; empty ones too many are dropped."""
    if len(cells) > len(names) and not any(map(str.strip, cells[len(names) :])):
        cells = cells[: len(names)]
    if len(cells) != len(names):
        raise wrong(
            file,
            line,
            f"{len(cells)} cells under {len(names)} columns",
            'Put names with a comma into double quotes: "a,b.png".',
        )
    return cells


def _delimiter(head: str, wanted: set[str]) -> str:
    """What separates the cells of the first line: what gives most of the columns that are wanted."""
    spelled = {plain(name) for name in wanted}

    def worth(delimiter: str) -> tuple[int, bool, int]:
        try:
            cells = next((c for c in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter) if c), [])
        except csv.Error:
            return 0, False, 0
        names = Counter(plain(cell) for cell in cells)
        return sum(name in spelled for name in names), delimiter != " " and len(cells) > 1, len(cells)

    return max(_DELIMITERS, key=worth)


def _is_spaced(head: str, delimiter: str) -> bool:
    """Whether every delimiter of the first line is followed by a space."""
    line = next((line for line in head.splitlines() if line.strip()), "").rstrip()
    return 0 < line.count(delimiter) == line.count(f"{delimiter} ")


def _lines(
    file: Path, text: str, delimiter: str, skipped: int, *, spaced: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield, for every record that is not blank, the number of its first line and its cells."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True
    )
    left = _MAX_CELLS
    while True:
        start = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = 'Quote a cell as "..." and double the quotes inside it: "a ""b"".png".'
            raise wrong(file, start, f"bad quoting ({error})", remedy) from error
        left -= len(cells) + _ROW
        if left < 0:
            raise wrong(file, start, "there are more rows and columns than can be read", "Split the table.")
        if cells:
            yield start, cells


def _text(file: Path) -> str:
    try:
        data = read_regular(file, _MAX_BYTES)
    except OSError as error:
        raise ManifestError(f"{str(file)!r} cannot be read: {error.strerror}.", "Check the path.") from error
    if other := other_kind(file.name, data[:HEAD]):
        raise ManifestError(f"{str(file)!r} is no text: it is {other.what}.", other.remedy)
    encoding = _encoding(data[:_HEAD])
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise wrong(
            file,
            line,
            f"the text is not {'UTF-8' if encoding == 'utf-8-sig' else encoding.upper()}",
            "Save it as 'CSV UTF-8' in the spreadsheet, or convert it: iconv -f cp1252 -t utf-8 OLD.csv > NEW.csv",
        ) from error


def _encoding(head: bytes) -> str:
    """UTF-16 or UTF-32 where a mark or zeros between letters say so, else UTF-8; others cannot be told apart."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    pairs = head[: len(head) // 2 * 2]
    if pairs and not any(pairs[1::2]) and all(pairs[::2]):
        return "utf-16-le"
    if pairs and not any(pairs[::2]) and all(pairs[1::2]):
        return "utf-16-be"
    return "utf-8-sig"
