"""HDF5 from a stranger: which files may be opened, and how much of them is read (law 7).

HDF5 can point outside itself (external storage, external links, virtual data sets), announce more than it holds
(shapes, chunks that inflate) and name filters that are loaded as code. `read_plain` refuses all of that before it
reads a value. It cannot vouch for the HDF5 library: a file made to exploit a defect in it is stopped by nothing
here, which is why shards are hashed before they come this far.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5d, h5o, h5z

from featstore.errors import RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

REMEDY = "Copy its numbers into a plain HDF5 file with h5py, or ask for such a file."
FOREIGN_BYTES = 16 << 30
KINDS = "biufS"
CHECKSUM = 4
"""Bytes of a Fletcher-32 checksum, where it was added before packing."""
_NAMES = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "fletcher32"}
_LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may hold.

    Attributes
    ----------
    members
        Groups and data sets, in all.
    depth
        Groups inside groups.
    values
        Bytes of all values in memory; None for the size of the file, which no uncompressed file exceeds.
    filters
        Numbers of the HDF5 filters that chunks may have gone through.
    attributes
        Attributes of the root; those of other members are not read.
    """

    members: int = 1000
    depth: int = 8
    values: int | None = FOREIGN_BYTES
    filters: frozenset[int] = frozenset(_NAMES)
    attributes: int = 64


FOREIGN = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """Everything in a file: scalar attributes of the root, and arrays by their path, such as ``train/features``."""

    attributes: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def read_plain(source: bytes | Path, limits: Limits = FOREIGN) -> Plain:
    """Read a whole HDF5 file that refers to nothing but itself.

    Parameters
    ----------
    source
        The file, or its bytes. Bytes are safer: nobody can change them between the look and the reading.
    limits
        What it may hold.

    Returns
    -------
    Plain
        Arrays of booleans, integers, floats or fixed-length bytes, of any shape, as they are stored.

    Raises
    ------
    RefusedFileError
        If the file is no HDF5, reaches outside itself, is not of plain numbers, or exceeds the limits.
    """
    try:
        with _opened(source) as file:
            datasets = dict(_walk(file, limits))
            _check_total(file, datasets, limits)
            return Plain(
                _attributes(file, limits), {name: _values(found) for name, found in datasets.items()}
            )
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedFileError(f"The HDF5 file is refused: {why}.", REMEDY) from error


def read_datasets(source: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Read a few data sets, by path, of a file whose rest is for somebody else; those that are absent are left out.

    A file that does not open as HDF5 has none.

    Raises
    ------
    RefusedFileError
        If one of them reaches outside the file, is not of plain numbers, or exceeds the limits.
    """
    try:
        file = _opened(source)
    except OSError:
        return {}
    try:
        with file:
            found = {name: _descend(file, name) for name in names}
            return {name: _values(dataset) for name, dataset in found.items() if dataset is not None}
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedFileError(f"{source} is refused: {why}.", REMEDY) from error


def _descend(file: Any, name: str) -> Any:  # noqa: ANN401
    member = file
    for part in name.split("/"):
        if not isinstance(member, h5py.Group) or part not in member:
            return None
        member = _member(member, part)
    if not isinstance(member, h5py.Dataset):
        raise ValueError(f"{name} is no data set")  # noqa: TRY004
    _check_dataset(name, member, FOREIGN)
    return member


def _opened(source: bytes | Path) -> Any:  # noqa: ANN401
    if not isinstance(source, bytes):
        return h5py.File(source, "r", locking=False)
    if not source:  # h5py would begin a new file
        raise ValueError("it is empty")
    return h5py.File.in_memory(source)


def _walk(file: Any, limits: Limits) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Data sets by path, level by level; a member that is reached twice is refused, hence every circle too."""
    seen: set[int] = {h5o.get_info(file.id).addr}
    level = [("", file)]
    for _ in range(limits.depth):
        groups = []
        for prefix, group in level:
            for name in group:
                member = _member(group, name)
                address = h5o.get_info(member.id).addr
                if address in seen:
                    raise ValueError(f"{prefix}{name} is another name of something else")
                seen.add(address)
                if len(seen) > limits.members + 1:
                    raise ValueError(f"it has more than {limits.members} members")
                if isinstance(member, h5py.Group):
                    groups.append((f"{prefix}{name}/", member))
                else:
                    _check_dataset(f"{prefix}{name}", member, limits)
                    yield f"{prefix}{name}", member
        level = groups
    if level:
        raise ValueError(f"it is nested deeper than {limits.depth}")


def _member(group: Any, name: str) -> Any:  # noqa: ANN401
    if not isinstance(name, str) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to somewhere else")  # noqa: TRY004
    member = group[name]
    if not isinstance(member, h5py.Group | h5py.Dataset):
        raise ValueError(f"{name} is neither a group nor a data set")  # noqa: TRY004
    return member


def _check_dataset(name: str, dataset: Any, limits: Limits) -> None:  # noqa: ANN401
    plan = dataset.id.get_create_plist()
    if plan.get_layout() not in _LAYOUTS or plan.get_external_count():
        raise ValueError(f"{name} keeps its values outside the file")
    shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"{name} holds {dtype}, neither numbers nor text of fixed length")
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if not limits.filters.issuperset(filters):
        unknown = next(_NAMES.get(number, number) for number in filters if number not in limits.filters)
        raise ValueError(f"{name} has gone through the filter {unknown}")
    if shape is None or math.prod(shape) * dtype.itemsize > _most(dataset.file, limits):
        raise ValueError(f"{name} announces {shape} {dtype}, more than the file may hold")
    if not _is_complete(dataset.id, shape, chunks, dtype.itemsize):
        raise ValueError(f"{name} announces {shape}, and not all of that is in the file")
    if h5z.FILTER_DEFLATE in filters:
        _check_inflation(name, dataset.id, math.prod(chunks) * dtype.itemsize)


def _is_complete(found: Any, shape: tuple[int, ...], chunks: tuple[int, ...] | None, width: int) -> bool:  # noqa: ANN401
    """Whether every value has its place in the file; HDF5 would make up the others."""
    if chunks is None:
        return bool(found.get_storage_size() >= math.prod(shape) * width)
    needed = math.prod(-(-side // chunk) for side, chunk in zip(shape, chunks, strict=True))
    return bool(found.get_num_chunks() == needed)


def _most(file: Any, limits: Limits) -> int:  # noqa: ANN401
    """Bytes that the values may take."""
    return int(file.id.get_filesize()) if limits.values is None else limits.values


def _check_total(file: Any, datasets: Mapping[str, Any], limits: Limits) -> None:  # noqa: ANN401
    total = sum(dataset.nbytes for dataset in datasets.values())
    if total > _most(file, limits):
        raise ValueError(f"it announces {total:,} bytes, more than it may hold")


def _check_inflation(name: str, found: Any, size: int) -> None:  # noqa: ANN401
    """Inflate each chunk with a bound: HDF5 would go on as long as there is something to inflate."""
    for number in range(found.get_num_chunks()):
        mask, packed = found.read_direct_chunk(found.get_chunk_info(number).chunk_offset)
        try:
            inflated = -1 if mask else len(zlib.decompressobj().decompress(packed, size + CHECKSUM + 1))
        except zlib.error as error:
            raise ValueError(f"chunk {number} of {name} does not inflate") from error
        if inflated not in {size, size + CHECKSUM}:
            raise ValueError(
                f"chunk {number} of {name} does not inflate to the {size:,} bytes that it should"
            )


def _attributes(file: Any, limits: Limits) -> dict[str, Any]:  # noqa: ANN401
    attributes = file.attrs
    if len(attributes) > limits.attributes:
        raise ValueError(f"it has more than {limits.attributes} attributes")
    for name in attributes:
        if attributes.get_id(name).shape != ():
            raise ValueError(f"the attribute {name} is no single value")
    return dict(attributes)


def _values(dataset: Any) -> NDArray[Any]:  # noqa: ANN401
    values: NDArray[Any] = np.empty(dataset.shape, dataset.dtype)
    if dataset.size:
        dataset.read_direct(values)
    return values
