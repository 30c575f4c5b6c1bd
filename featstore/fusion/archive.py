"""Arrays by name in an ``.npz``, read back without trusting the ZIP, the headers, or anything pickled."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    from zipfile import ZipInfo

    from numpy.typing import NDArray

SUFFIX = ".npy"
_ENCRYPTED = 0x1


class ArchiveError(ValueError):
    """Bytes that are no archive of plain arrays. One line, without a full stop."""


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Arrays of an archive that `numpy.savez` wrote, by name.

    Members are stored, not compressed, as `numpy.savez` does, so that together they cannot be larger than the
    archive: neither a ZIP bomb nor members that share bytes fit. Nothing is unpacked to the disk.

    Parameters
    ----------
    data
        The whole file.

    Raises
    ------
    ArchiveError
        If a member is compressed, encrypted, no plain array, or not of the size that its header announces.
    """
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data))
            return {member.filename.removesuffix(SUFFIX): _array(archive.read(member)) for member in members}
    except ArchiveError:
        raise
    except (
        BadZipFile,
        OSError,
        ValueError,
        LookupError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        why = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise ArchiveError(f"it does not unpack: {why}") from error


def _check_members(members: list[ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    for member in members:
        name = member.filename
        if not name.endswith(SUFFIX) or set(name) & {"/", "\\", ":"} or name.startswith("."):
            raise ArchiveError(f"its member {name!r} cannot be the name of an array")
        if member.compress_type != ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"its member {name!r} is compressed or encrypted")
    if len(set(names)) < len(names):
        raise ArchiveError("two of its members have one name")
    if sum(member.file_size for member in members) > size:
        raise ArchiveError("its members announce more bytes than it has")


def _array(member: bytes) -> NDArray[Any]:
    file = io.BytesIO(member)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ArchiveError(f"an array has format {version}")
    shape, by_columns, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ArchiveError("an array holds objects, which are pickled; allow_pickle=False")
    values = memoryview(member)[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(values) or min(shape, default=0) < 0:
        raise ArchiveError(f"an array of {shape} {dtype} has {len(values)} bytes")
    return (
        np.frombuffer(values, dtype).reshape(shape, order="F" if by_columns else "C")
        if len(values)
        else (np.empty(shape, dtype))
    )


_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
