"""Labels from a table beside a tree of images, whose rows are patients, studies, series or files.

Hospitals export a folder of DICOM files and a table of patients: no row names a path. The table and the images are
joined by what both say, PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, or by the name of the file.
Ids of patients are compared by their digest, and none is in any message: lines of the table are named by number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from featstore.errors import ManifestError, UsageError, did_you_mean
from featstore.findings import Finding, counted
from featstore.images import csv
from featstore.images.formats.container import origin_key
from featstore.images.formats.dicom import pseudonym
from featstore.images.names import split_name
from featstore.images.other_kinds import other_kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.images.manifest import Contents, ListedFile

PATIENT, STUDY, SERIES, FILE = LEVELS = ("patient", "study", "series", "file")
"""What a row of a table may be, the coarsest first."""
_UIDS = {
    STUDY: frozenset({"studyinstanceuid", "studyuid", "studyid", "study"}),
    SERIES: frozenset({"seriesinstanceuid", "seriesuid", "seriesid", "series"}),
    FILE: frozenset({"sopinstanceuid", "sopuid", "sopid", "instanceuid", "imageuid"}),
}
"""Usual names of columns, without capitals and signs."""
_EXAMPLE = "PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID or path"


class _Meaning(NamedTuple):
    """What a row says of its images."""

    label: str
    group: str | None
    split: str | None
    site: str | None
    covariates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What a table says of patients, studies, series or files.

    Attributes
    ----------
    table
        Its cells.
    level
        One of `LEVELS`: what a row is.
    column
        Position of the column that names it.
    meanings
        Line, key as it is written, and meaning of each row; one whose label is empty has none.
    patients
        Cells of the column of patients, by line; empty where there is none.
    has_groups
        Whether a column names the groups.
    others
        Further columns that could be the key, by level.
    """

    table: csv.CsvTable
    level: str
    column: int
    meanings: Sequence[tuple[int, str, _Meaning]]
    patients: Mapping[int, str]
    has_groups: bool
    others: Mapping[str, int]


def read_labels(
    file: str | Path,
    by: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] | None = None,
) -> LabelTable:
    """Read a table of labels, CSV or Parquet.

    Parameters
    ----------
    file
        The table.
    by
        One of `LEVELS`; default the finest of which the table has a column.
    columns, covariates
        As in `featstore.images.scan.ScanOptions`; ``path`` and ``group`` may name the column of files and patients.

    Raises
    ------
    ManifestError
        If it cannot be read, has no column of labels, or none that says which images are meant.
    UsageError
        If an option cannot be meant.
    """
    if by is not None and by not in LEVELS:
        raise UsageError(f"--labels-by {by!r} is nothing that a row can be.", did_you_mean(by, LEVELS))
    file = Path(file)
    _require_table(file)
    given = csv.require_roles(columns or {})
    table = csv.read_table(file, given)
    keys = key_columns(table, given)
    flags = csv.named_flags(table, given)
    places = csv.find_columns(
        table, {role: n for role, n in given.items() if not (flags and role == "label")}
    )
    if flags:
        places.pop("label", None)
    elif "label" not in places:
        flags = csv.one_hot(table, places, given)
    if not table.rows:
        raise table.wrong(
            "there is nothing below the header", "List at least one patient, study, series or file."
        )
    if by is not None and by not in keys:
        raise table.wrong(
            f"there is no column that names a {by} in {csv.listed(table.columns)}",
            _by_another(keys) or f"Name the column {_EXAMPLE}, or say which it is: --columns path=COLUMN",
        )
    if not keys:
        raise table.wrong(
            f"there is no column that says which images are meant in {csv.listed(table.columns)}",
            f"Call it {_EXAMPLE}; or say which it is: --columns path=COLUMN or --columns group=COLUMN",
        )
    level = by or next(name for name in reversed(LEVELS) if name in keys)
    if "label" not in places and not flags:
        raise _no_label(table, {*places.values(), *keys.values()}, given)
    beside = csv.covariate_columns(table, covariates or (), places, flags)
    meanings = tuple(_meanings(table, keys[level], places, flags, beside))
    at = keys.get(PATIENT)
    return LabelTable(
        table,
        level,
        keys[level],
        meanings,
        {} if at is None or "group" in places else {line: cells[at].strip() for line, cells in table.rows},
        "group" in places,
        {name: place for name, place in keys.items() if name != level},
    )


def _require_table(file: Path) -> None:
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise ManifestError(
            f"The table of labels {str(file)!r} {what}.", "Give a CSV or Parquet file: --labels labels.csv"
        )
    if file.suffix.lower() not in csv.TABLES:
        other = other_kind_of(file)
        raise ManifestError(
            f"{str(file)!r} is no table of labels{f': it is {other.what}' if other else ''}.",
            "Save it as CSV (UTF-8) or Parquet: --labels labels.csv",
        )


def key_columns(table: csv.CsvTable, given: Mapping[str, str]) -> dict[str, int]:
    """Position of the column that names patient, study, series or file, of those that there are."""
    plain = {csv.plain(name): at for name, at in reversed([*table.places.items()])}
    found = {
        level: next(plain[name] for name in plain if name in names)
        for level, names in _UIDS.items()
        if any(name in names for name in plain)
    }
    if (at := table.places.get(given.get("group", ""))) is not None:
        found[PATIENT] = at
    elif patients := csv.patient_names(table.places):
        found[PATIENT] = table.places[patients[0]]
    if (at := table.places.get(given.get("path", ""))) is not None:
        found[FILE] = at
    elif FILE not in found and "path" in plain:
        found[FILE] = plain["path"]
    free = {name: at for name, at in table.places.items() if at not in found.values()}
    taken = {given[role] for role in given} | {"label"}
    if not found and (name := csv.likely(table, "path", {n: a for n, a in free.items() if n not in taken})):
        found[FILE] = free[name]
    return found


def _by_another(keys: Mapping[str, int]) -> str:
    return f"Leave out --labels-by, or say --labels-by {next(iter(keys))}" if keys else ""


def _no_label(table: csv.CsvTable, used: set[int], given: Mapping[str, str]) -> ManifestError:
    free = {name: at for name, at in table.places.items() if at not in used and name not in given.values()}
    guess = csv.likely(table, "label", free)
    hint = (
        f"If this is meant, say so: {csv.columns_flag({**given, 'label': guess})}"
        if guess
        else "Say which column is the label: --columns label=COLUMN"
    )
    return table.wrong(f"there is no column 'label' in {csv.listed(table.columns)}", hint)


def _meanings(
    table: csv.CsvTable,
    key: int,
    places: Mapping[str, int],
    flags: Mapping[str, int],
    beside: Sequence[int],
) -> Iterator[tuple[int, str, _Meaning]]:
    for line, cells in table.rows:
        cell = {role: cells[at].strip() for role, at in places.items()}
        label = next((n for n, at in flags.items() if csv.flag(cells[at])), "") if flags else cell["label"]
        text = cell.get("split", "")
        if text and split_name(text) is None:
            raise table.wrong(f"{text!r} is no split", "Use train, val or test; or rename the column.", line)
        meaning = _Meaning(
            label,
            cell.get("group") or None,
            split_name(text) if text else None,
            cell.get("site") or None,
            tuple(cells[at].strip() for at in beside),
        )
        yield line, cells[key].strip(), meaning


# The rows and the images


def label_images(
    images: Sequence[tuple[ListedFile, Contents]], labels: LabelTable
) -> tuple[list[tuple[ListedFile, Contents]], list[Finding]]:
    """Give images what the table says of them; those of which it says nothing are left out, and told.

    Parameters
    ----------
    images
        Files, and what the scan saw in them.
    labels
        The table.

    Raises
    ------
    ManifestError
        If rows contradict each other, one id is of two patients, or no image is in the table.
    """
    rows = _one_row_each(labels)
    row_of = _matches(images, labels, rows)
    if labels.level == PATIENT:
        _require_one_patient(images, row_of, labels)
    named = {at: row for at, row in row_of.items() if rows[row][1].label}
    if not named:
        raise _none_match(images, labels)
    found = []
    for at, row in sorted(named.items()):
        entry, contents = images[at]
        line, meaning = rows[row]
        group = meaning.group or entry.group or contents.group
        if group is None and not labels.has_groups:
            group = pseudonym(labels.patients.get(line, ""))
        found.append((replace(entry, **meaning._replace(group=group)._asdict()), contents))
    return found, _told(images, labels, rows, row_of)


def _one_row_each(labels: LabelTable) -> dict[str, tuple[int, _Meaning]]:
    """Line and meaning of each key.

    Raises
    ------
    ManifestError
        If rows of one key differ.
    """
    rows: dict[str, tuple[int, _Meaning]] = {}
    apart: dict[str, list[tuple[int, int]]] = defaultdict(list)
    keys = set()
    for line, text, meaning in labels.meanings:
        key = _written_key(text, labels.level)
        if not key:
            continue
        first, known = rows.setdefault(key, (line, meaning))
        if known != meaning:
            column = next(n for n, a, b in zip(_Meaning._fields, known, meaning, strict=True) if a != b)
            apart[column].append((first, line))
            keys.add(key)
    if apart:
        column, pairs = next(iter(apart.items()))
        finer = [name for name in LEVELS if name in labels.others and _is_finer(name, labels.level)]
        raise labels.table.wrong(
            f"{counted(len(keys), labels.level)} with several values of {column}, such as on"
            f" lines {pairs[0][0]} and {pairs[0][1]}",
            f"If a row is a {finer[0]}, say so: --labels-by {finer[0]}; else keep the line that is right."
            if finer
            else f"Keep one line for each {labels.level}, the one that is right; or add a column that tells them"
            " apart (StudyInstanceUID, SeriesInstanceUID, path).",
            pairs[0][1],
        )
    return rows


def _is_finer(level: str, other: str) -> bool:
    return LEVELS.index(level) > LEVELS.index(other)


def _written_key(text: str, level: str) -> str:
    """What is compared of a cell."""
    return text.strip().replace("\\", "/").casefold() if level == FILE else origin_key(level, text)


def _matches(
    images: Sequence[tuple[ListedFile, Contents]],
    labels: LabelTable,
    rows: Mapping[str, tuple[int, _Meaning]],
) -> dict[int, str]:
    """Number of an image to the key of its row, of those that have one."""
    if labels.level == FILE:
        return _match_files(images, rows)
    if labels.level != PATIENT:
        found = ((at, contents.keys.get(labels.level, "")) for at, (_, contents) in enumerate(images))
        return {at: key for at, key in found if key in rows}
    found_rows = {}
    for at, (entry, contents) in enumerate(images):
        own = [entry.group] if entry.group else _parts(entry.name)
        keys = [contents.keys[PATIENT]] if PATIENT in contents.keys else [origin_key(PATIENT, n) for n in own]
        if len(mine := list(dict.fromkeys(key for key in keys if key in rows))) == 1:
            found_rows[at] = mine[0]
        elif mine:
            raise ManifestError(
                f"The path {entry.name!r} names {len(mine)} patients of {str(labels.table.file)!r}.",
                "Say which part names the patient, by a group of an expression: --group-pattern '(sub-[0-9]+)'",
            )
    return found_rows


def _parts(name: str) -> list[str]:
    """What in a path may be a patient: each folder, and the file without its suffix."""
    *folders, file = PurePosixPath(name).parts
    return [*folders, file, _stem(file)]


def _stem(name: str) -> str:
    return re.sub(r"\.(nii\.gz|[A-Za-z][A-Za-z0-9]{1,5})$", "", name, flags=re.IGNORECASE)


def _match_files(
    images: Sequence[tuple[ListedFile, Contents]], rows: Mapping[str, tuple[int, _Meaning]]
) -> dict[int, str]:
    """By SOPInstanceUID, path, name or name without suffix; a name that several files have is none."""
    known: dict[str, set[int]] = defaultdict(set)
    for at, (entry, contents) in enumerate(images):
        name = entry.name.casefold()
        base = name.rpartition("/")[2]
        known[contents.keys.get(FILE, "")].add(at)
        for text in {name, _stem(name), base, _stem(base)}:
            known[text].add(at)
    found: dict[int, str] = {}
    for key in rows:
        seats = known.get(key.removeprefix("./")) or known.get(origin_key(FILE, key)) or set()
        if len(seats) == 1:
            found.setdefault(next(iter(seats)), key)
    return found


def _require_one_patient(
    images: Sequence[tuple[ListedFile, Contents]], row_of: Mapping[int, str], labels: LabelTable
) -> None:
    """Refuse one id that two hospitals gave, or that differs in zeros in front alone."""
    groups: dict[str, set[str | None]] = defaultdict(set)
    for at, row in row_of.items():
        groups[row].add(images[at][1].group)
    if several := [row for row, found in groups.items() if len(found - {None}) > 1]:
        raise ManifestError(
            f"{counted(len(several), 'PatientID')} of {str(labels.table.file)!r} are of several patients each: the"
            " files name different issuers, or differ in zeros in front.",
            "Label them by study or series: a column StudyInstanceUID, and --labels-by study.",
        )


def _none_match(images: Sequence[tuple[ListedFile, Contents]], labels: LabelTable) -> ManifestError:
    """Say that nothing fits, and what would."""
    name = labels.table.columns[labels.column]
    cause = (
        f"None of the {len(images)} images is of a {labels.level} in the column {name!r} of"
        f" {str(labels.table.file)!r}."
    )
    for level, at in labels.others.items():
        texts = [
            (line, cells[at].strip(), _Meaning("x", None, None, None, ()))
            for line, cells in labels.table.rows
        ]
        other = replace(labels, level=level, column=at, meanings=texts, others={})
        rows = {_written_key(text, level): (line, meaning) for line, text, meaning in texts if text}
        if _matches(images, other, rows):
            return ManifestError(cause, f"The column {labels.table.columns[at]!r} fits: --labels-by {level}")
    if labels.level in {STUDY, SERIES} and not any(labels.level in found.keys for _, found in images):
        return ManifestError(
            cause,
            "Only DICOM files name a study or series: give a column path with the names of the files.",
        )
    return ManifestError(
        cause,
        "Check that table and images are of one export (ids are often replaced when they are anonymised), and that"
        " the labels are filled in; or name the column: --columns path=COLUMN",
    )


def _told(
    images: Sequence[tuple[ListedFile, Contents]],
    labels: LabelTable,
    rows: Mapping[str, tuple[int, _Meaning]],
    row_of: Mapping[int, str],
) -> list[Finding]:
    findings = []
    absent = [entry.name for at, (entry, _) in enumerate(images) if at not in row_of]
    empty = [images[at][0].name for at, row in row_of.items() if not rows[row][1].label]
    what = f"the table has no row of their {labels.level} ({len(absent)}), or no label in it ({len(empty)})"
    if lost := [*absent, *empty]:
        message = f"{counted(len(lost), 'file')} without a label took no part: {what}."
        findings.append(Finding("FS212", message, len(lost), tuple(lost)))
    used = set(row_of.values())
    left = [line for key, (line, _) in rows.items() if key not in used]
    nameless = [line for line, text, _ in labels.meanings if not _written_key(text, labels.level)]
    if left or nameless:
        rows_left = counted(len(left) + len(nameless), "row of the table took", "rows of the table took")
        message = (
            f"{rows_left} no part: there is no image of their {labels.level} ({len(left)}), or they name none"
            f" ({len(nameless)})."
        )
        lines = tuple(f"line {line}" for line in sorted([*left, *nameless]))
        findings.append(Finding("FS213", message, len(lines), lines))
    filled = len(labels.meanings) - len(nameless)
    if twice := filled - len(rows):
        message = f"{counted(twice, 'line repeats', 'lines repeat')} a {labels.level} and took no part."
        findings.append(Finding("FS206", message, twice))
    return findings
