"""A feature file from elsewhere as a table: named rows and one block of numbers. Nothing in it is believed."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.lib import format as npy

from featstore.errors import RefusedFileError, UsageError
from featstore.exchange.columns import matching
from featstore.exchange.formats import require_pyarrow
from featstore.store.guard import FOREIGN_BYTES, read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = (
    "id", "ids", "path", "paths", "file", "files", "filename", "filenames", "file_name", "filepath", "name", "names",
    "image", "images", "image_id", "image_path", "img", "img_path",
)  # fmt: skip
"""What the column that says which image a row belongs to is called elsewhere, likeliest first, in small letters."""
MATRIX = 2
NOT_NUMBERS = "no numbers"
NOT_SAID = "not asked for"
FLOAT_BYTES = 8


MALFORMED = (
    OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, MemoryError, EOFError,
    zipfile.BadZipFile, zlib.error, csv.Error,
)  # fmt: skip
"""What zipfile, numpy, csv and pyarrow raise about a file that is not what it says."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
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


def read_table(path: Path, features: str | None, names: str | None) -> Table:
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
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is of no kind that can be imported.", f"Give one of: {', '.join(READERS)}.")
    try:
        return reader(path, features, names)
    except (RefusedFileError, UsageError):
        raise
    except MALFORMED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise RefusedFileError(
            f"{path} is refused: {why}.", "Write it again, without pickled objects."
        ) from error


def _from_npz(path: Path, features: str | None, names: str | None) -> Table:
    return _from_arrays(dict(_npz_arrays(path)), features, names)


def _from_hdf5(path: Path, features: str | None, names: str | None) -> Table:
    return _from_arrays(read_plain(path).arrays, features, names)


def _from_arrays(arrays: Mapping[str, NDArray[Any]], features: str | None, names: str | None) -> Table:
    blocks = [name for name, values in arrays.items() if values.ndim == MATRIX and values.dtype.kind == "f"]
    texts = [name for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "SU"]
    block, wanted = _block(features, blocks)
    column = _chosen("--rows", names, _called(texts) or texts)
    others = {name: _why_not(name, arrays[name], blocks) for name in arrays if name not in {block, column}}
    return _picked(
        tuple(_text(cell) for cell in arrays[column].tolist()),
        arrays[block],
        _numbered(block, arrays[block]),
        wanted,
        others,
    )


def _why_not(name: str, values: NDArray[Any], blocks: Sequence[str]) -> str:
    if name in blocks:
        return NOT_SAID
    if values.dtype.kind not in "fiu":
        return NOT_NUMBERS
    return "one number for each row, as labels are" if values.ndim == 1 else "no block of fractions"


def _block(features: str | None, blocks: Sequence[str]) -> tuple[str, str | None]:
    """The block that is meant, and what was said of its columns: ``block.0,block.7``, or nothing."""
    if features is None or features in blocks:
        return _chosen("--features", features, blocks), None
    named = {part.strip().rpartition(".")[0] for part in features.split(",")}
    if len(named) == 1 and named <= {*blocks}:
        return named.pop(), features
    return _chosen("--features", features, blocks), None


def _numbered(block: str, values: NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"{block}.{at}" for at in range(values.shape[1]))


def _picked(
    names: tuple[str, ...],
    values: NDArray[Any],
    columns: Sequence[str],
    wanted: str | None,
    unused: dict[str, str],
) -> Table:
    """Table of the columns that were named; of all where none were."""
    if wanted is None:
        return Table(names, values, tuple(columns), unused=unused)
    parts = [wanted] if wanted in columns else [part.strip() for part in wanted.split(",")]
    asked = {name for part in parts for name in matching(part, columns, "--features")}
    kept = [at for at, name in enumerate(columns) if name in asked]
    left = {name: NOT_SAID for name in columns if name not in asked}
    return Table(
        names, values[:, kept], tuple(columns[at] for at in kept), named=True, unused={**unused, **left}
    )


def _called(columns: Sequence[str]) -> list[str]:
    """The column that is called most like names of images, if any is."""
    found = {name.strip().casefold(): name for name in reversed(columns)}
    return [found[name] for name in NAMES if name in found][:1]


def _npz_arrays(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of an archive, each read only if its header announces what the member holds, and no objects."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > FOREIGN_BYTES:
            raise ValueError(f"it unpacks to more than {FOREIGN_BYTES:,} bytes")
        for member in members:
            with archive.open(member) as file:
                shape, _, dtype = _header(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} holds objects, or announces more than it holds")
            with archive.open(member) as file:
                yield member.filename.removesuffix(".npy"), npy.read_array(file, allow_pickle=False)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:  # noqa: ANN401
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = reader(file)
    return header


def _from_parquet(path: Path, features: str | None, names: str | None) -> Table:
    kinds = require_pyarrow().types
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
        values = sum(group.column(at).num_values for group in groups for at in range(group.num_columns))
        if values * FLOAT_BYTES > FOREIGN_BYTES:
            raise ValueError(f"it unpacks to {values:,} values")
        page = file.read()
    lists = [f.name for f in page.schema if kinds.is_fixed_size_list(f.type) or kinds.is_list(f.type)]
    texts = [f.name for f in page.schema if kinds.is_string(f.type) or kinds.is_large_string(f.type)]
    single = [f.name for f in page.schema if kinds.is_floating(f.type) or kinds.is_integer(f.type)]
    column = _chosen("--rows", names, _called(texts) or texts)
    rows = tuple(map(str, page[column].to_pylist()))
    if lists and not (features and _is_about(features, single)):
        name, wanted = _block(features, lists)
        block = _lists(page[name])
        others = {other: NOT_SAID for other in (*lists, *single) if other != name}
        columns = _numbered(name, block)
    else:
        block = (
            np.column_stack([page[name].to_numpy() for name in single])
            if single
            else np.empty((len(rows), 0))
        )
        columns, wanted, others = tuple(single), features, dict.fromkeys(lists, NOT_SAID)
    left = {name: NOT_NUMBERS for name in page.schema.names if name not in {*lists, *single, column}}
    return _picked(rows, block, columns, wanted, {**left, **others})


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


def _from_csv(path: Path, features: str | None, names: str | None) -> Table:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file, delimiter=_delimiter(file))
        header = _headed(next(lines, []))
        first = next(lines, [])
        _require_width(first, header, 2)
        texts = [name for name, cell in zip(header, first, strict=True) if not _is_number(cell)]
        column = _chosen("--rows", names, _called(header) or texts, header)
        numbers = [at for at, name in enumerate(header) if name not in {column, *texts}]
        found = [_numbers(first, 2, header, numbers)]
        found += [_numbers(line, lines.line_num, header, numbers) for line in lines]
    at = header.index(column)
    values = np.array([row for _, row in found], np.float64).reshape(len(found), len(numbers))
    left = {name: f"{NOT_NUMBERS}: {first[header.index(name)]!r}" for name in texts if name != column}
    return _picked(tuple(line[at] for line, _ in found), values, [header[n] for n in numbers], features, left)


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
) -> tuple[Sequence[str], list[float]]:
    _require_width(line, header, number)
    try:
        return line, [float(line[at]) for at in wanted]
    except ValueError as error:
        at = next(at for at in wanted if not _is_number(line[at]))
        raise ValueError(
            f"line {number}, column {header[at]!r} holds {line[at][:40]!r}, which is no number"
        ) from error


def _chosen(option: str, wanted: str | None, there: Sequence[str], allowed: Sequence[str] = ()) -> str:
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted is not None and wanted in (*there, *allowed):
        return wanted
    have = ", ".join(there) or "none"
    what = "block of numbers" if option == "--features" else "column of image ids or paths"
    if wanted is None and not there:
        raise UsageError(
            f"The file has no {what}, so its rows cannot be matched to images.",
            "Write one beside the features.",
        )
    said = "It is not said which" if wanted is None else f"There is no {wanted!r} as a"
    raise UsageError(f"{said} {what}; the file has: {have}.", f"Say which with {option} NAME.")


def _text(cell: str | bytes) -> str:
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell


READERS: dict[str, Callable[[Path, str | None, str | None], Table]] = {
    ".npz": _from_npz,
    ".h5": _from_hdf5,
    ".hdf5": _from_hdf5,
    ".parquet": _from_parquet,
    ".csv": _from_csv,
}
