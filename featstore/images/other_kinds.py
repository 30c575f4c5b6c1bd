"""What is given as a data set or a table and is neither: archives, workbooks, pickles, records, stores of arrays.

None of it is opened: the first bytes and the names tell what it is, and so what to do.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from featstore.images.formats.container import HEAD, find_format, foreign_format
from featstore.serialization import open_regular

if TYPE_CHECKING:
    from pathlib import Path


class OtherKind(NamedTuple):
    """What a file or a folder is, in words, and how it becomes a data set."""

    what: str
    remedy: str


def other_kind(name: str, head: bytes) -> OtherKind | None:
    """What a file is that is no table, and no file of arrays under a name that says so; None where it cannot be told.

    Parameters
    ----------
    name
        Of the file.
    head
        Its first `HEAD` bytes.

    Examples
    --------
    >>> other_kind("table.csv", b"PAR1")
    OtherKind(what='Parquet under another name', remedy='Call it so: mv FILE FILE.parquet')
    """
    if not head:
        return None
    if (known := find_format(head)) and known.name in _OF_ARRAYS:
        if name.lower().endswith(known.suffixes):
            return None
        return OtherKind(f"{known.name} under another name", f"Call it so: mv FILE FILE{known.suffixes[0]}")
    if known:
        return OtherKind(f"one image ({known.name})", _WHERE)
    found = next((kind for magic, kind in _FILES if magic.match(head)), None)
    if found is None and (foreign := foreign_format(head)):
        found = OtherKind(f"one file of {foreign}", _WHERE)
    return found or next((_SUFFIXES[end] for end in _SUFFIXES if name.lower().endswith(end)), None)


def other_kind_of(path: Path) -> OtherKind | None:
    """`other_kind` of a file, or of a folder by the names in it; None where it cannot be told, or not be read."""
    try:
        if path.is_dir():
            names = sorted(os.listdir(path))  # noqa: PTH208
            return next((kind for mark, kind in _FOLDERS if any(map(mark.fullmatch, names))), None)
        with open_regular(path) as file:
            return other_kind(path.name, file.read(HEAD))
    except OSError:
        return None


_OF_ARRAYS = frozenset({"HDF5", "NPY", "NPZ"})
_WHERE = "Give the folder that holds one folder per class, or a CSV file with the columns path,label."
_SHEET = "Save its sheet as CSV in UTF-8, with the columns path,label, and give that file."
_ROWS = "Write its rows as CSV, with the columns path,label, and give that file."
_PICTURES = "Write its pictures as files into one folder per class, and give the folder around them."
_ARRAYS = "Save its arrays, and give v.npz: numpy.savez('v.npz', images=..., labels=...)"
_ZARR = (
    "Save its arrays, and give v.npz: numpy.savez('v.npz', images=zarr.open('FOLDER')['NAME'][:], labels=...)"
)
_MATLAB = (
    "Save its arrays, pictures along the first axis, and give v.npz: m = scipy.io.loadmat('FILE');"
    " numpy.savez('v.npz', images=m['NAME'], labels=m['NAME'])"
)
_UNPACK = "Unpack it, and give the folder that holds one folder per class, or the table: {}"
_PARTS = (
    "Write it as one file, and give that: pyarrow.parquet.write_table(pyarrow.parquet.read_table('FOLDER'),"
    " 'table.parquet')"
)
_PICKLED = "made of Python objects, which are never unpickled: that can run code"


def _by_bytes(magic: bytes, what: str, remedy: str) -> tuple[re.Pattern[bytes], OtherKind]:
    return re.compile(magic, re.DOTALL), OtherKind(what, remedy)


def _by_names(mark: str, what: str, remedy: str) -> tuple[re.Pattern[str], OtherKind]:
    return re.compile(mark, re.IGNORECASE), OtherKind(what, remedy)


_FILES = (
    _by_bytes(rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|xl/)", "a workbook of Excel", _SHEET),
    _by_bytes(rb"PK\x03\x04.{26}mimetype", "a document of OpenOffice", _SHEET),
    _by_bytes(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of Excel", _SHEET),
    _by_bytes(rb"PAR1", "Parquet under another name", "Call it so: mv FILE FILE.parquet"),
    _by_bytes(rb"ARROW1|FEA1", "a table of Arrow", _ROWS),
    _by_bytes(rb"SQLite format 3\0", "an SQLite database", _ROWS),
    _by_bytes(rb"PK\x03\x04.{26}[^/]*/?data\.pkl", _PICKLED, _ARRAYS),
    _by_bytes(rb"\x80[\2-\5][\]}()c\x8c\x95KXqUJM]", _PICKLED, _ARRAYS),
    _by_bytes(rb"PK(?:\x03\x04|\x05\x06)", "a ZIP archive", _UNPACK.format("unzip FILE -d FOLDER")),
    _by_bytes(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK.format("7z x FILE")),
    _by_bytes(rb"Rar!\x1a\x07", "a RAR archive", _UNPACK.format("unrar x FILE")),
    _by_bytes(rb".{257}ustar", "a TAR archive", _UNPACK.format("tar -xf FILE")),
    _by_bytes(rb"\x1f\x8b", "packed with gzip", _UNPACK.format("tar -xf FILE, or gunzip FILE")),
    _by_bytes(rb"BZh[1-9]", "packed with bzip2", _UNPACK.format("tar -xf FILE, or bunzip2 FILE")),
    _by_bytes(rb"\xfd7zXZ\0", "packed with xz", _UNPACK.format("tar -xf FILE, or unxz FILE")),
    _by_bytes(rb"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK.format("tar -xf FILE, or unzstd FILE")),
    _by_bytes(rb"\0\0[\x08\x09\x0b-\x0e][\1-\4]\0", "an array as MNIST has it (IDX)", _ARRAYS),
    _by_bytes(rb"MATLAB 5\.0", "a MATLAB file before version 7.3", _MATLAB),
    _by_bytes(rb"CDF[\1\2\5]", "netCDF", _ARRAYS),
)
_SUFFIXES = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), OtherKind("JSON", _ROWS)),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".rec", ".beton"), OtherKind("made of records", _PICTURES)),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt", ".pth", ".sav"), OtherKind(_PICKLED, _ARRAYS)),
    ".mat": OtherKind("a MATLAB file before version 5", _MATLAB),
    ".xml": OtherKind("XML", _ROWS),
}
_FOLDERS = (
    _by_names(r".*\.parquet", "a table in several files", _PARTS),
    _by_names(r"\.zarray|\.zgroup|zarr\.json", "a Zarr store", _ZARR),
    _by_names(r"data\.mdb", "an LMDB database", _PICTURES),
    _by_names(r".*idx[1-4]-u?byte(?:\.gz)?", "made of arrays as MNIST has them (IDX)", _ARRAYS),
    _by_names(r"data_batch_\d|batches\.meta|.*\.(?:pkl|pickle|pt|pth)", _PICKLED, _ARRAYS),
    _by_names(r"dataset_info\.json|.*\.(?:arrow|tfrecords?(?:-.*)?)", "made of records", _PICTURES),
    _by_names(
        r".*\.(?:zip|tar|tar\.gz|tgz|rar|7z)", "a folder of archives", _UNPACK.format("tar -xf, unzip")
    ),
)
