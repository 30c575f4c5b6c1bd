"""A feature file from elsewhere as a table: named rows and one block of numbers. Nothing in it is believed."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from featstore.errors import RefusedFileError, UsageError, nearest
from featstore.exchange.formats import require_pyarrow
from featstore.store.guard import FOREIGN_BYTES, read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = ("id", "ids", "path", "paths", "file", "files", "filename", "filenames", "name", "names", "image")
"""What the column that says which image a row belongs to is called elsewhere, likeliest first."""
MANIFEST = ("label", "group", "split", "site", "y", "frame")
MATRIX = 2
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
    """

    names: tuple[str, ...]
    features: NDArray[Any]


def read_table(path: Path, features: str | None, names: str | None) -> Table:
    """Read a table of features.

    Parameters
    ----------
    path
        ``.npz``, ``.h5``/``.hdf5``, ``.parquet`` or ``.csv``.
    features
        Name of the block of numbers, where the file holds several; not for CSV, where it is all number columns.
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
    block = _chosen("--features", features, blocks)
    columns = [name for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "SU"]
    column = _chosen("--rows", names, [name for name in NAMES if name in columns][:1] or columns)
    return Table(tuple(_text(cell) for cell in arrays[column].tolist()), arrays[block])


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
    column = _chosen("--rows", names, [name for name in NAMES if name in texts][:1] or texts)
    if lists or features:
        block = _lists(page[_chosen("--features", features, lists)])
    else:
        wanted = [f.name for f in page.schema if kinds.is_floating(f.type)]
        block = np.column_stack([page[name].to_numpy() for name in wanted])
    return Table(tuple(map(str, page[column].to_pylist())), block)


def _lists(column: Any) -> NDArray[Any]:  # noqa: ANN401
    """``(n, d)`` from a column of n lists."""
    from pyarrow.compute import list_value_length

    lengths = set(list_value_length(column).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise ValueError("its lists of numbers are not all of one length")
    flat: NDArray[Any] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def _from_csv(path: Path, features: str | None, names: str | None) -> Table:
    if features is not None:
        raise UsageError(
            "A CSV file has no named blocks.", "Leave --features out: all number columns are meant."
        )
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        column = _chosen("--rows", names, [name for name in NAMES if name in header][:1])
        wanted = [at for at, name in enumerate(header) if name not in {column, *NAMES, *MANIFEST}]
        found = [_numbers(line, lines.line_num, header, wanted) for line in lines]
    at = header.index(column)
    values = np.array([numbers for _, numbers in found], np.float64).reshape(len(found), len(wanted))
    return Table(tuple(line[at] for line, _ in found), values)


def _numbers(
    line: Sequence[str], number: int, header: Sequence[str], wanted: Sequence[int]
) -> tuple[Sequence[str], list[float]]:
    if len(line) != len(header):
        raise ValueError(f"line {number} has {len(line)} cells, the header {len(header)}")
    try:
        return line, [float(line[at]) for at in wanted]
    except ValueError as error:
        raise ValueError(f"line {number} holds something else than a number") from error


def _chosen(option: str, wanted: str | None, there: Sequence[str]) -> str:
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted is not None and wanted in there:
        return wanted
    have = ", ".join(there) or "none"
    what = "block of numbers" if option == "--features" else "column of image ids or paths"
    if wanted is None and not there:
        raise UsageError(
            f"The file has no {what}, so its rows cannot be matched to images.",
            "Write one beside the features.",
        )
    said = "It is not said which" if wanted is None else f"There is no {wanted!r} as a"
    close = nearest(wanted, there) if wanted is not None else []
    question = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"{said} {what}; the file has: {have}.", f"{question}Say which with {option} NAME.")


def _text(cell: str | bytes) -> str:
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell


READERS: dict[str, Callable[[Path, str | None, str | None], Table]] = {
    ".npz": _from_npz,
    ".h5": _from_hdf5,
    ".hdf5": _from_hdf5,
    ".parquet": _from_parquet,
    ".csv": _from_csv,
}
