"""A feature file from elsewhere as a table: named rows and columns of numbers. Nothing in it is believed."""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from featstore.errors import RefusedFileError, UsageError
from featstore.exchange.sheets import from_csv, from_parquet
from featstore.exchange.table import (
    NOT_NUMBERS,
    NOT_SAID,
    Table,
    block_of,
    called,
    chosen,
    numbered,
    picked,
    require_names,
    require_unpacked,
)
from featstore.isolation.caller import LostError, call
from featstore.store.guard import FOREIGN_BYTES, REMEDY, read_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    _Header = tuple[tuple[int, ...], bool, np.dtype[Any]]

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
    with zipfile.ZipFile(path) as archive:
        members = _npz_members(archive)
        kinds = {name: Kind(header.shape, header.dtype) for name, header in members.items()}
        return _from_arrays(kinds, lambda name: _npz_array(archive, members[name]), features, names)


def _from_hdf5(path: Path, features: str | None, names: str | None) -> Table:
    arrays = read_plain(path).arrays
    return _from_arrays(arrays, arrays.__getitem__, features, names)


class Kind(NamedTuple):
    """What an array says of itself before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def _from_arrays(
    arrays: Mapping[str, Kind | NDArray[Any]],
    read: Callable[[str], NDArray[Any]],
    features: str | None,
    names: str | None,
) -> Table:
    """Table of one block of numbers and one column of names: nothing else is read, and the names first."""
    blocks = [name for name, values in arrays.items() if values.ndim == MATRIX and values.dtype.kind == "f"]
    texts = [name for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "SU"]
    block, wanted = block_of(features, blocks)
    column = chosen("--rows", names, called(texts) or texts)
    others = {name: _why_not(name, arrays[name], blocks) for name in arrays if name not in {block, column}}
    width = arrays[column].dtype.itemsize // (4 if arrays[column].dtype.kind == "U" else 1)
    require_names(width, width * math.prod(arrays[column].shape))
    rows = tuple(_text(cell) for cell in read(column).tolist())
    values = read(block)
    return picked(
        rows,
        values,
        numbered(block, values),
        wanted,
        others,
    )


def _why_not(name: str, values: Kind | NDArray[Any], blocks: Sequence[str]) -> str:
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


READERS: dict[str, Callable[[Path, str | None, str | None], Table]] = {
    ".npz": _from_npz,
    ".h5": _from_hdf5,
    ".hdf5": _from_hdf5,
    ".parquet": from_parquet,
    ".csv": from_csv,
}
