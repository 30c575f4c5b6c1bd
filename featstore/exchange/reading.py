"""A feature file from elsewhere as a table: named rows and columns of numbers. Nothing in it is believed."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from featstore.errors import RefusedFileError, UsageError
from featstore.exchange.sheets import from_csv, from_parquet
from featstore.exchange.table import NOT_NUMBERS, NOT_SAID, Table, block_of, called, chosen, numbered, picked
from featstore.isolation.caller import LostError, call
from featstore.store.guard import FOREIGN_BYTES, REMEDY, read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MATRIX = 2
MALFORMED = (
    OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, MemoryError, EOFError,
    zipfile.BadZipFile, zlib.error, csv.Error,
)  # fmt: skip
"""What zipfile, numpy, csv and pyarrow raise about a file that is not what it says."""


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
    if path.suffix.lower() not in READERS:
        raise UsageError(f"{path} is of no kind that can be imported.", f"Give one of: {', '.join(READERS)}.")
    try:
        page, (values,) = call("featstore.exchange.reading:read", path, features, names)
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", REMEDY) from error
    return Table(tuple(page["names"]), values, tuple(page["columns"]), page["named"], page["unused"])


def read(path: Path, features: str | None, names: str | None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Read a table, as `read_table` says; run by `featstore.isolation`."""
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


def _from_npz(path: Path, features: str | None, names: str | None) -> Table:
    return _from_arrays(dict(_npz_arrays(path)), features, names)


def _from_hdf5(path: Path, features: str | None, names: str | None) -> Table:
    return _from_arrays(read_plain(path).arrays, features, names)


def _from_arrays(arrays: Mapping[str, NDArray[Any]], features: str | None, names: str | None) -> Table:
    blocks = [name for name, values in arrays.items() if values.ndim == MATRIX and values.dtype.kind == "f"]
    texts = [name for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "SU"]
    block, wanted = block_of(features, blocks)
    column = chosen("--rows", names, called(texts) or texts)
    others = {name: _why_not(name, arrays[name], blocks) for name in arrays if name not in {block, column}}
    return picked(
        tuple(_text(cell) for cell in arrays[column].tolist()),
        arrays[block],
        numbered(block, arrays[block]),
        wanted,
        others,
    )


def _why_not(name: str, values: NDArray[Any], blocks: Sequence[str]) -> str:
    if name in blocks:
        return NOT_SAID
    if values.dtype.kind not in "fiu":
        return NOT_NUMBERS
    return "one number for each row, as labels are" if values.ndim == 1 else "no block of fractions"


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


def _text(cell: str | bytes) -> str:
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell


READERS: dict[str, Callable[[Path, str | None, str | None], Table]] = {
    ".npz": _from_npz,
    ".h5": _from_hdf5,
    ".hdf5": _from_hdf5,
    ".parquet": from_parquet,
    ".csv": from_csv,
}
