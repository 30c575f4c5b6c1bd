"""Foreign feature files read as tables, named rows and columns of numbers; nothing in them is trusted."""

from __future__ import annotations

import csv
import math
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from numpy.lib import format as npy

from featstore.errors import RefusedFileError, UsageError, nearest
from featstore.findings import with_reasons
from featstore.images.parquet import require_pyarrow
from featstore.isolated_reading import LostError, call_isolated
from featstore.store.hdf5_guard import FOREIGN_BYTES, REMEDY, read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    _Header = tuple[tuple[int, ...], bool, np.dtype[Any]]

# Tables, and the limits on them

NAMES = (
    "id", "ids", "path", "paths", "file", "files", "filename", "filenames", "file_name", "filepath", "name", "names",
    "image", "images", "image_id", "image_path", "img", "img_path",
)  # fmt: skip
"""What the column that says which image a row belongs to is called elsewhere, likeliest first, in small letters."""
MAX_NAME, MAX_NAMES = 1 << 12, 256 << 20
"""Bytes of the name of a row, as of the longest path, and of all names together."""
UNPACKED, UNPACKED_PER_BYTE = 64 << 20, 1 << 10
"""Bytes that a file may unpack to: so many, and so many for each of its own, which deflate can reach."""
NOT_NUMBERS = "no numbers"
NOT_SAID = "not asked for"


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """Rows of a foreign file.

    Attributes
    ----------
    names
        ``(n,)`` what each row is called: an image id or a path.
    features
        ``(n, d)`` numbers as they were found.
    columns
        Names of the d columns; those of a block are ``block.0``, ``block.1`` ...
    named
        Whether the caller named these columns, and not only the block that they are in.
    unused
        Name of all else in the file, and why it is not in `features`.
    """

    names: tuple[str, ...]
    features: NDArray[Any]
    columns: tuple[str, ...]
    named: bool = False
    unused: dict[str, str] = field(default_factory=dict)


def require_names(longest: int, total: int) -> None:
    """Refuse names that are too long to be any, before they are unpacked."""
    if longest > MAX_NAME:
        raise ValueError(f"the name of a row has {longest:,} bytes, more than {MAX_NAME:,}")
    if total > MAX_NAMES:
        raise ValueError(f"its names have {total:,} bytes, more than {MAX_NAMES:,}")


def require_unpacked(size: int, stored: int) -> None:
    """Refuse what unpacks to far more bytes than the file has."""
    if size > UNPACKED + UNPACKED_PER_BYTE * stored:
        raise ValueError(f"its {stored:,} bytes unpack to {size:,}")


def block_of(features: str | None, blocks: Sequence[str]) -> tuple[str, str | None]:
    """The block that is meant, and what was said of its columns: ``block.0,block.7``, or nothing."""
    if features is None or features in blocks:
        return choose_one("--features", features, blocks), None
    named = {part.strip().rpartition(".")[0] for part in features.split(",")}
    if len(named) == 1 and named <= {*blocks}:
        return named.pop(), features
    return choose_one("--features", features, blocks), None


def numbered(block: str, values: NDArray[Any]) -> tuple[str, ...]:
    """Names of the columns of a block."""
    return tuple(f"{block}.{at}" for at in range(values.shape[1]))


def select_columns(
    names: tuple[str, ...],
    values: NDArray[Any],
    columns: Sequence[str],
    wanted: str | None,
    unused: dict[str, str],
) -> FeatureTable:
    """Table of the columns that were named; of all where none were."""
    if wanted is None:
        return FeatureTable(names, values, tuple(columns), unused=unused)
    parts = [wanted] if wanted in columns else [part.strip() for part in wanted.split(",")]
    asked = {name for part in parts for name in matching(part, columns, "--features")}
    kept = [at for at, name in enumerate(columns) if name in asked]
    left = {name: NOT_SAID for name in columns if name not in asked}
    return FeatureTable(
        names, values[:, kept], tuple(columns[at] for at in kept), named=True, unused={**unused, **left}
    )


def name_column(columns: Sequence[str]) -> list[str]:
    """The column that is called most like names of images, if any is."""
    found = {name.strip().casefold(): name for name in reversed(columns)}
    return [found[name] for name in NAMES if name in found][:1]


def choose_one(option: str, wanted: str | None, there: Sequence[str], allowed: Sequence[str] = ()) -> str:
    """The one of `there` that an option names; without, the only one. What is `allowed` beside is never guessed.

    Raises
    ------
    UsageError
        If it cannot be told which is meant.
    """
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted is not None and wanted in (*there, *allowed):
        return wanted
    have = ", ".join(there) or "none"
    what = "block of numbers" if option == "--features" else "column of image ids or paths"
    if wanted is None and not there and option == "--features":
        raise UsageError(
            "The file has no block of numbers with fractions, so no features.",
            "Write them as a table of float32, one row for each image.",
        )
    if wanted is None and not there:
        raise UsageError(
            f"The file has no {what}, so its rows cannot be matched to images.",
            "Write one beside the features.",
        )
    said = "It is not said which" if wanted is None else f"There is no {wanted!r} as a"
    close = nearest(wanted, there) if wanted is not None else []
    question = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"{said} {what}; the file has: {have}.", f"{question}Say which with {option} NAME.")


# CSV and Parquet

FLOAT_BYTES = 8
DELTA = frozenset({"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"})
"""Encodings of texts that share their beginnings, which pyarrow does not take for a dictionary."""
BATCH_ROWS, BATCH_BYTES = 1 << 13, 64 << 20
"""Names that are unpacked at once, and bytes that they may take."""


def from_parquet(path: Path, features: str | None, names: str | None) -> FeatureTable:
    """A column of lists, or columns of numbers: the names are read first, and no other text at all."""
    kinds = require_pyarrow().types
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        schema = file.schema_arrow
        lists = [f.name for f in schema if kinds.is_fixed_size_list(f.type) or kinds.is_list(f.type)]
        texts = [f.name for f in schema if _is_text(kinds, f.type)]
        single = [f.name for f in schema if kinds.is_floating(f.type) or kinds.is_integer(f.type)]
        column = choose_one("--rows", names, name_column(texts) or texts)
        about = bool(lists) and not (features and _is_about(features, single))
        name, wanted = block_of(features, lists) if about else ("", features)
        read = [name] if about else single
        _require_bounded(file, [column, *read])
        rows = _names(path, column)
        page = file.read(columns=read)
    if about:
        block = _lists(page[name])
        others = {other: NOT_SAID for other in (*lists, *single) if other != name}
        columns = numbered(name, block)
    else:
        block = (
            np.column_stack([page[name].to_numpy() for name in single])
            if single
            else np.empty((len(rows), 0))
        )
        columns, others = tuple(single), dict.fromkeys(lists, NOT_SAID)
    left = {name: NOT_NUMBERS for name in schema.names if name not in {*lists, *single, column}}
    return select_columns(rows, block, columns, wanted, {**left, **others})


def _is_text(kinds: Any, kind: Any) -> bool:  # noqa: ANN401
    if kinds.is_dictionary(kind):
        return _is_text(kinds, kind.value_type)
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _columns(file: Any, wanted: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401
    """What the file says of the parts of some columns."""
    groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
    parts = (group.column(at) for group in groups for at in range(group.num_columns))
    return (part for part in parts if part.path_in_schema.split(".")[0] in wanted)


def _require_bounded(file: Any, wanted: Sequence[str]) -> None:  # noqa: ANN401
    """Refuse columns that hold far more values than the file has bytes: one value can stand for any number."""
    values = FLOAT_BYTES * sum(part.num_values for part in _columns(file, wanted))
    if values > FOREIGN_BYTES:
        raise ValueError(f"it unpacks to {values // FLOAT_BYTES:,} values")
    require_unpacked(values, sum(part.total_compressed_size for part in _columns(file, wanted)))


def _names(path: Path, column: str) -> tuple[str, ...]:
    """One text for each row, unpacked a few at a time: a text that stands there once may be meant in every row."""
    from pyarrow import compute
    from pyarrow.parquet import ParquetFile

    rows: list[str] = []
    total = 0
    with ParquetFile(path) as file:
        parts = [*_columns(file, [column])]
        shares_beginnings = any(DELTA & {*part.encodings} for part in parts)
    options: dict[str, Any] = {} if shares_beginnings else {"read_dictionary": [column]}
    size = BATCH_ROWS
    if shares_beginnings:
        longest = max(part.total_uncompressed_size for part in parts)
        size = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, longest)))
    with ParquetFile(path, **options) as file:
        for batch in file.iter_batches(size, columns=[column]):
            found = batch.column(0)
            coded = found if hasattr(found, "dictionary") else found.dictionary_encode()
            lengths = compute.binary_length(coded.dictionary)
            total += compute.sum(compute.take(lengths, coded.indices)).as_py() or 0
            require_names(compute.max(lengths).as_py() or 0, total)
            texts = [str(text) for text in coded.dictionary.to_pylist()]
            rows += ["None" if at is None else texts[at] for at in coded.indices.to_pylist()]
    return tuple(rows)


def _is_about(features: str, columns: Sequence[str]) -> bool:
    """Whether columns were named, and not a block."""
    return any(fnmatchcase(name, part.strip()) for part in features.split(",") for name in columns)


def _lists(column: Any) -> NDArray[Any]:  # noqa: ANN401
    """``(n, d)`` from a column of n lists."""
    from pyarrow.compute import list_value_length

    lengths = set(list_value_length(column).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise ValueError("its lists of numbers are not all of one length")
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def from_csv(path: Path, features: str | None, names: str | None) -> FeatureTable:
    """Columns of numbers, as the first line below the header tells."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, delimiter=_delimiter(file))
        header = _headed(next(lines, []))
        first = next(lines, [])
        _require_width(first, header, 2)
        texts = [name for name, cell in zip(header, first, strict=True) if not _is_number(cell)]
        column = choose_one("--rows", names, name_column(header) or texts, header)
        numbers = [at for at, name in enumerate(header) if name not in {column, *texts}]
        at = header.index(column)
        rows, values = [first[at]], [_numbers(first, 2, header, numbers)]
        for line in lines:
            values.append(_numbers(line, lines.line_num, header, numbers))
            rows.append(line[at])
    left = {name: f"{NOT_NUMBERS}: {first[header.index(name)]!r}" for name in texts if name != column}
    return select_columns(tuple(rows), np.array(values), [header[n] for n in numbers], features, left)


def _delimiter(file: TextIO) -> str:
    """What stands between the names of the header: a comma or, where there is none, a semicolon or a tab."""
    line = file.readline()
    file.seek(0)
    return next((mark for mark in (",", ";", "\t") if mark in line), ",")


def _headed(header: Sequence[str]) -> list[str]:
    """The header, with ``(column 3)`` for what has no name, and the number beside a name that stands there before."""
    seen: set[str] = set()
    names = []
    for at, name in enumerate(header, start=1):
        told = name if name.strip() and name not in seen else f"{name.strip()} (column {at})".strip()
        seen.add(told)
        names.append(told)
    return names


def _require_width(line: Sequence[str], header: Sequence[str], number: int) -> None:
    if len(line) != len(header):
        raise ValueError(f"line {number} has {len(line)} cells, the header {len(header)}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(
    line: Sequence[str], number: int, header: Sequence[str], wanted: Sequence[int]
) -> NDArray[np.float64]:
    _require_width(line, header, number)
    try:
        return np.array([float(line[at]) for at in wanted], np.float64)
    except ValueError as error:
        at = next(at for at in wanted if not _is_number(line[at]))
        raise ValueError(
            f"line {number}, column {header[at]!r} holds {line[at][:40]!r}, which is no number"
        ) from error


# Files of all formats

MATRIX = 2
MALFORMED = (
    OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, MemoryError, EOFError,
    zipfile.BadZipFile, zlib.error, csv.Error,
)  # fmt: skip
"""What zipfile, numpy, csv and pyarrow raise about a file that is not what it says."""


def read_table(path: Path, features: str | None, names: str | None) -> FeatureTable:
    """Read a table of features.

    Parameters
    ----------
    path
        ``.npz``, ``.h5``/``.hdf5``, ``.parquet`` or ``.csv``.
    features
        Name of the block of numbers, where the file holds several; or the columns that are meant, with commas and
        with ``*`` for any part of a name. Without, all columns of numbers are read.
    names
        Name of the column that says which image a row belongs to; default the first that is called like one.

    Raises
    ------
    RefusedFileError
        If the file is damaged, could run code, reaches outside itself, or announces more than it may hold.
    UsageError
        If it cannot be told which part of it is meant.
    """
    if path.suffix.lower() not in READERS:
        raise UsageError(f"{path} is of no kind that can be imported.", f"Give one of: {', '.join(READERS)}.")
    try:
        page, (values,) = call_isolated("featstore.exchange.reading:read", path, features, names)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", REMEDY) from error
    return FeatureTable(tuple(page["names"]), values, tuple(page["columns"]), page["named"], page["unused"])


def read(path: Path, features: str | None, names: str | None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Read a table, as `read_table` says; run by `featstore.isolated_reading`."""
    try:
        table = READERS[path.suffix.lower()](path, features, names)
        values = np.ascontiguousarray(table.features)
    except (RefusedFileError, UsageError):
        raise
    except MALFORMED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise RefusedFileError(
            f"{path} is refused: {why}.", "Write it again, without pickled objects."
        ) from error
    page = {"names": table.names, "columns": table.columns, "named": table.named, "unused": table.unused}
    return page, [values]


def _from_npz(path: Path, features: str | None, names: str | None) -> FeatureTable:
    with zipfile.ZipFile(path) as archive:
        members = _npz_members(archive)
        kinds = {name: ArrayHeader(header.shape, header.dtype) for name, header in members.items()}
        return _from_arrays(kinds, lambda name: _npz_array(archive, members[name]), features, names)


def _from_hdf5(path: Path, features: str | None, names: str | None) -> FeatureTable:
    arrays = read_plain(path).arrays
    return _from_arrays(arrays, arrays.__getitem__, features, names)


class ArrayHeader(NamedTuple):
    """What an array says of itself before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def _from_arrays(
    arrays: Mapping[str, ArrayHeader | NDArray[Any]],
    read: Callable[[str], NDArray[Any]],
    features: str | None,
    names: str | None,
) -> FeatureTable:
    """Table of one block of numbers and one column of names: nothing else is read, and the names first."""
    blocks = [name for name, values in arrays.items() if values.ndim == MATRIX and values.dtype.kind == "f"]
    texts = [name for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "SU"]
    block, wanted = block_of(features, blocks)
    column = choose_one("--rows", names, name_column(texts) or texts)
    others = {name: _why_not(name, arrays[name], blocks) for name in arrays if name not in {block, column}}
    width = arrays[column].dtype.itemsize // (4 if arrays[column].dtype.kind == "U" else 1)
    require_names(width, width * math.prod(arrays[column].shape))
    rows = tuple(_text(cell) for cell in read(column).tolist())
    values = read(block)
    return select_columns(
        rows,
        values,
        numbered(block, values),
        wanted,
        others,
    )


def _why_not(name: str, values: ArrayHeader | NDArray[Any], blocks: Sequence[str]) -> str:
    if name in blocks:
        return NOT_SAID
    if values.dtype.kind not in "fiu":
        return NOT_NUMBERS
    return "one number for each row, as labels are" if values.ndim == 1 else "no block of fractions"


class _Member(NamedTuple):
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _npz_members(archive: zipfile.ZipFile) -> dict[str, _Member]:
    """What the members of an archive announce, if each holds that much, no objects, and is packed as NumPy does."""
    members = {}
    for info in archive.infolist():
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError(f"{info.filename} is packed in a way that NumPy does not write")
        require_unpacked(info.file_size, info.compress_size)
        with archive.open(info) as file:
            shape, _, dtype = _header(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} holds objects, or announces more than it holds")
        members[info.filename.removesuffix(".npy")] = _Member(info, shape, dtype)
    return members


def _npz_array(archive: zipfile.ZipFile, member: _Member) -> NDArray[Any]:
    if member.info.file_size > FOREIGN_BYTES:
        raise ValueError(f"{member.info.filename} unpacks to more than {FOREIGN_BYTES:,} bytes")
    with archive.open(member.info) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


def _header(file: Any) -> _Header:  # noqa: ANN401
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header: _Header = reader(file)
    return header


def _text(cell: str | bytes) -> str:
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell


READERS: dict[str, Callable[[Path, str | None, str | None], FeatureTable]] = {
    ".npz": _from_npz,
    ".h5": _from_hdf5,
    ".hdf5": _from_hdf5,
    ".parquet": from_parquet,
    ".csv": from_csv,
}


# Which columns are features: not those that count rows or tell classes

NAMELESS = re.compile(
    r"\s*|unnamed: ?\d+(_level_\d+)?|__index_level_\d+__|level_\d+|\(column \d+\)", re.IGNORECASE
)
"""Headers that pandas gives to what has no name: first of all to the row numbers."""
NO_FEATURE = frozenset({
    "label", "labels", "class", "classes", "classname", "class_name", "class_id", "class_index",
    "class_label", "category", "target", "targets", "y", "y_true", "ytrue", "truth", "ground_truth", "gt",
    "diagnosis", "outcome", "status", "dx", "split", "fold", "folds", "set", "subset", "partition", "phase",
    "is_train", "is_test", "train", "test", "val", "group", "groups", "patient", "patients", "patient_id",
    "patientid", "subject", "subjects", "subject_id", "subjectid", "case", "case_id", "study", "study_id",
    "series", "series_id", "site", "center", "centre", "hospital", "frame", "page", "slice", "id", "ids",
    "uid", "index", "idx", "row", "row_id", "row_number", "rownames", "no", "nr", "number", "path", "paths",
    "file", "files", "filename", "filenames", "name", "names", "image", "images", "image_id", "image_path",
    "filepath", "prediction", "pred", "y_pred", "predicted",
})  # fmt: skip
"""Columns that are called so are about the row; what they hold is no feature of the picture."""
ABOUT = NO_FEATURE | frozenset({
    "lbl", "cls", "tgt", "gold", "annotation", "annotator", "reader", "verdict", "finding", "disease", "probability",
    "proba", "probas", "prob", "yprob", "yscore", "yhat", "pid", "mrn", "subj", "sid", "pat", "accession", "exam",
    "visit", "scan", "scanner", "img", "mtime", "ctime", "timestamp", "datetime", "date", "time", "year",
})  # fmt: skip
LABELS = frozenset({"label", "labels", "lbl", "target", "targets", "diagnosis", "outcome"})
"""Last words of what is a label."""
FILLING = frozenset({
    "is", "has", "the", "of", "p", "prob", "proba", "probability", "score", "logit", "enc", "encoded", "int", "num",
    "code", "coded", "id", "idx", "index", "no", "nr", "number", "name", "true", "hat", "bin", "binary", "onehot",
    "hot", "one", "new", "old", "final", "value", "x", "y", "acq", "acquisition", "scan", "study", "key", "uid",
    "pred",
})  # fmt: skip
"""Words that may stand beside one of `ABOUT`, or the name of a class: ``label_enc``, ``p_covid``."""
FEWEST = 6
"""Rows below which numbers that happen to count, or to follow the class, are taken for chance."""
SPACED = 1.5
"""Numbers for each row up to which whole numbers of which none comes twice are row numbers with gaps."""
SEPARATED = 10
"""Images of a class from which it cannot be chance, among thousands of columns, that one of them tells it apart."""
LISTED = 5
"""More columns that tell classes apart are no leak: the classes are easy."""
ENOUGH_ROWS = 12
"""Rows from which numbers that only ever rise, or fall, cannot be chance even among thousands of columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Columns that are taken, and those that are not.

    Attributes
    ----------
    values
        ``(n, d)``.
    names
        Of the columns of `values`.
    unused
        Name and reason of every column that is left out.
    doubtful
        Name and reason of every column that was taken only because it was named.
    telling
        Names of columns that were taken and tell a class from all others without an error, each on its own, if they
        are few.
    """

    values: NDArray[Any]
    names: tuple[str, ...]
    unused: dict[str, str]
    doubtful: dict[str, str]
    telling: tuple[str, ...] = ()


def select_features(
    values: NDArray[Any],
    names: Sequence[str],
    labels: Sequence[str],
    *,
    named: bool,
    ignore: Sequence[str] = (),
) -> Selection:
    """Sort out the columns of a table.

    Parameters
    ----------
    values
        ``(n, d)`` numbers.
    names
        Of the columns.
    labels
        Class of each row.
    named
        Whether the caller named these columns one by one; then all are taken.
    ignore
        Names of columns to leave out, or patterns with ``*``.

    Raises
    ------
    UsageError
        If nothing is left, or `ignore` names what is not there.
    """
    dropped = {name: "--ignore" for pattern in ignore for name in matching(pattern, names, "--ignore")}
    called, classes = np.unique(np.asarray(labels), return_inverse=True)
    of_classes = frozenset(word for name in called for word in _words(str(name)) if len(word) > 1)
    order = np.argsort(classes, kind="stable")
    doubts = {
        name: why
        for at, name in enumerate(names)
        if name not in dropped and (why := doubtful_reason(name, values[:, at], classes, order, of_classes))
    }
    unused = dropped if named else {**dropped, **doubts}
    kept = [at for at, name in enumerate(names) if name not in unused]
    if not kept:
        raise UsageError(
            f"No column of features is left: {with_reasons(unused)}.",
            "Name those that are features all the same: --features A,B, or with a pattern: --features 'f*'.",
        )
    whole = len(kept) == len(names)
    return Selection(
        values if whole else values[:, kept],
        tuple(names[at] for at in kept),
        {name: unused[name] for name in names if name in unused},
        doubts if named else {},
        telling_columns(values, [at for at in kept if names[at] not in doubts], names, classes),
    )


def telling_columns(
    values: NDArray[Any], kept: Sequence[int], names: Sequence[str], classes: NDArray[np.intp]
) -> tuple[str, ...]:
    """Names of the columns of `kept` whose values of some class all lie above, or below, those of all others."""
    found: set[int] = set()
    taken = np.asarray(values[:, kept], np.float64)
    for one in np.unique(classes):
        mine, others = taken[classes == one], taken[classes != one]
        if min(len(mine), len(others)) >= SEPARATED:
            apart = (mine.min(axis=0) > others.max(axis=0)) | (mine.max(axis=0) < others.min(axis=0))
            found.update(np.flatnonzero(apart).tolist())
    return tuple(names[kept[at]] for at in sorted(found)) if len(found) <= LISTED else ()


def doubtful_reason(
    name: str,
    column: NDArray[Any],
    classes: NDArray[np.intp],
    order: NDArray[np.intp],
    of_classes: Collection[str] = (),
) -> str:
    """Why a column is probably no feature; empty if nothing speaks against it.

    Parameters
    ----------
    name, column
        The column.
    classes
        ``(n,)`` number of each row's class.
    order
        The rows, class by class.
    of_classes
        Words of the names of the classes.
    """
    called = name.strip().casefold()
    if NAMELESS.fullmatch(called):
        return "it has no name, as row numbers have"
    if about := _what_it_is_called(called, _words(name), of_classes):
        return f"it is called like {about}"
    if counts_rows(column):
        return "it counts the rows"
    if tells_class(column[order], classes[order]):
        return "its values tell the class"
    return ""


def _what_it_is_called(called: str, words: Sequence[str], of_classes: Collection[str]) -> str:
    """What a column is about, by its name; empty if it may be a feature."""
    plain = bool(words) and {*words} <= ABOUT | FILLING | {*of_classes}
    if re.sub(r"[\s.-]+", "_", called) in NO_FEATURE or (plain and not ABOUT.isdisjoint(words)):
        return "a label, a split, a patient or a row number"
    if words[-1:] and words[-1] in LABELS:
        return "a label"
    return "a class" if plain and not {*of_classes}.isdisjoint(words) else ""


def _words(name: str) -> list[str]:
    """Words and numbers of a name in small letters, apart at anything else and between capitals."""
    apart = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", name)
    return re.findall(r"\d+|[^\W\d_]+", apart.casefold())


def counts_rows(column: NDArray[Any]) -> bool:
    """Whether a column is a row number, a counter, or one that was shuffled."""
    rows = len(column)
    if rows < FEWEST or not np.isfinite(column).all():
        return False
    steps = np.diff(column.astype(np.float64))
    if rows >= ENOUGH_ROWS and ((steps > 0).all() or (steps < 0).all()):
        return True
    if not (np.mod(column, 1) == 0).all():
        return False
    even = bool((steps == steps[0]).all()) and steps[0] != 0
    gaps = np.diff(np.sort(column.astype(np.float64)))
    spaced = rows >= ENOUGH_ROWS and gaps.min() >= 1 and gaps.sum() < SPACED * rows
    return even or bool((gaps == 1).all() or spaced)


def tells_class(column: NDArray[Any], classes: NDArray[np.intp]) -> bool:
    """Whether a column is a label in numbers: one value within each class, or a few of which each is of one class.

    Parameters
    ----------
    column, classes
        Values and classes of the rows, sorted by class.
    """
    starts = np.flatnonzero(np.diff(classes)) + 1
    if len(column) < FEWEST or not len(starts):
        return False
    parts = np.split(column, starts)
    distinct = [np.unique(part) for part in parts]
    if all(len(mine) == 1 for mine in distinct):
        return len({mine[0] for mine in distinct}) > 1
    repeats = all(2 * len(mine) <= len(part) for mine, part in zip(distinct, parts, strict=True))
    kinds = len(np.unique(column))
    # Copies of pictures repeat measurements, too; a code is a whole number, or one of few values.
    is_code = kinds <= 2 * len(parts) or bool((column == np.rint(column)).all())
    return repeats and is_code and kinds == sum(map(len, distinct))


def matching(pattern: str, names: Sequence[str], option: str) -> list[str]:
    """Names that a pattern with ``*`` and ``?`` fits; one that has none of these fits itself.

    Raises
    ------
    UsageError
        If it fits none.
    """
    found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(
            f"{option} names {pattern!r}, and there is no such column of numbers.",
            f"Columns of numbers are: {with_reasons(dict.fromkeys(names, ''))}.",
        )
    return found


def spanned(names: Sequence[str]) -> str:
    """``5 columns: f0 … f4``."""
    if len(names) == 1:
        return f"1 column: {names[0]}"
    return f"{len(names)} columns: {names[0]} … {names[-1]}"
