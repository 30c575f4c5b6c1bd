"""HDF5 from a stranger: which files may be opened, and how much of them is read (law 7).

HDF5 can point outside itself (external storage, external links, virtual data sets), announce more than it holds
(shapes, chunks that inflate), store less than it announces, and name filters that are loaded as code. `read_plain`
refuses all of that before it reads a value. It cannot vouch for the HDF5 library: a file made to exploit a defect
in it costs the process that opens it, which is why strangers' files are read in `featstore.store.isolation`.
"""

from __future__ import annotations

import math
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5o, h5t

from featstore.errors import RefusedFileError
from featstore.store.storage import FILTERS, Extents, check_inflation, check_layout, check_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

REMEDY = "Copy its numbers into a plain HDF5 file with h5py, or ask for such a file."
FOREIGN_BYTES = 16 << 30
EXPANSION, ALLOWANCE = 100, 64 << 20
"""Values may take so many times the size of the file, and so many bytes beside; what is packed closer says little."""
KINDS = "biufS"
OPAQUE = "V"
"""What Keras writes numbers of 16 bits as that numpy has no name for."""
ATTRIBUTE_BYTES = 1 << 16


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
        Attributes of the root, or of any member where they are looked at.
    kinds
        Kinds of numpy's types that data sets may be of.
    lists
        Values in a list that is an attribute; 0 where each must be a single value.
    """

    members: int = 1000
    depth: int = 8
    values: int | None = FOREIGN_BYTES
    filters: frozenset[int] = frozenset(FILTERS)
    attributes: int = 64
    kinds: str = KINDS
    lists: int = 0


FOREIGN = Limits()
WEIGHTS = Limits(members=100_000, depth=64, attributes=256, kinds=KINDS + OPAQUE, lists=1 << 20)


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
    with _refusing("The HDF5 file"), _opened(source) as file:
        datasets = dict(_walk(file, limits))
        _check_values(file, datasets, limits)
        return Plain(_attributes(file, limits), {name: _values(found) for name, found in datasets.items()})


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
    with _refusing(str(source)), file:
        found = {name: _descend(file, name) for name in names}
        datasets = {name: dataset for name, dataset in found.items() if dataset is not None}
        _check_values(file, datasets, FOREIGN)
        return {name: _values(dataset) for name, dataset in datasets.items()}


def check_weights(path: Path) -> None:
    """Look at a file that another program is going to read, attributes of all members included, and read all of it.

    What would end the other program ends this one, which is for `featstore.store.isolation` to bear.

    Raises
    ------
    RefusedFileError
        If it reaches outside itself, holds other things than numbers, texts and lists of them, or is not whole.
    """
    with _refusing(str(path)), _opened(path) as file:
        _attributes(file, WEIGHTS)
        datasets = {}
        for name, member in _members(file, WEIGHTS):
            _attributes(member, WEIGHTS)
            if isinstance(member, h5py.Dataset):
                datasets[name] = member
        _check_values(file, datasets, WEIGHTS)
        for dataset in datasets.values():
            _values(dataset)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedFileError(f"{what} is refused: {why}.", REMEDY) from error


def _descend(file: Any, name: str) -> Any:  # noqa: ANN401
    member = file
    for part in name.split("/"):
        if not isinstance(member, h5py.Group) or part not in member:
            return None
        member = _member(member, part)
    if not isinstance(member, h5py.Dataset):
        raise ValueError(f"{name} is no data set")  # noqa: TRY004
    return member


def _opened(source: bytes | Path) -> Any:  # noqa: ANN401
    if not isinstance(source, bytes):
        if not stat.S_ISREG(source.stat().st_mode):  # a pipe would be waited for
            raise ValueError("it is a folder, pipe, socket or device")
        return h5py.File(source, "r", locking=False)
    if not source:  # h5py would begin a new file
        raise ValueError("it is empty")
    return h5py.File.in_memory(source)


def _walk(file: Any, limits: Limits) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Data sets by path, level by level."""
    for name, member in _members(file, limits):
        if isinstance(member, h5py.Dataset):
            yield name, member


def _members(file: Any, limits: Limits) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Groups and data sets by path; a member that is reached twice is refused, hence every circle too."""
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
                yield f"{prefix}{name}", member
        level = groups
    if level:
        raise ValueError(f"it is nested deeper than {limits.depth}")


def _member(group: Any, name: str) -> Any:  # noqa: ANN401
    if not isinstance(name, str) or name in {"", "."} or "/" in name:  # HDF5 would follow it as a path
        raise ValueError(f"{name!r} cannot be the name of a member")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to somewhere else")  # noqa: TRY004
    member = group[name]
    if not isinstance(member, h5py.Group | h5py.Dataset):
        raise ValueError(f"{name} is neither a group nor a data set")  # noqa: TRY004
    return member


def _check_values(file: Any, datasets: Mapping[str, Any], limits: Limits) -> None:  # noqa: ANN401
    """Refuse what is not all there, or is more than it may be; only then is anything unpacked."""
    size = int(file.id.get_filesize())
    extents, total = Extents(size), 0
    for name, dataset in datasets.items():
        total += _announced(name, dataset, limits, size)
        check_storage(name, dataset, extents)
    extents.require_apart()
    if total > _most(limits, size):
        raise ValueError(f"it announces {total:,} bytes, more than it may hold")
    for name, dataset in datasets.items():
        check_inflation(name, dataset)


def _most(limits: Limits, size: int) -> int:
    """Bytes that the values of a file of `size` bytes may take."""
    return size if limits.values is None else min(limits.values, ALLOWANCE + EXPANSION * size)


def _announced(name: str, dataset: Any, limits: Limits, size: int) -> int:  # noqa: ANN401
    """Bytes of a data set in memory, those of its chunks that reach beyond it included."""
    check_layout(name, dataset, limits.filters)
    shape, dtype, chunks = dataset.shape, dataset.dtype, dataset.chunks
    plain = (
        dtype.kind in limits.kinds and dtype.names is None and dtype.subdtype is None and not dtype.hasobject
    )
    if not plain or not _is_usual(dataset.id.get_type(), dtype):
        raise ValueError(f"{name} holds {dtype}, neither numbers nor text of fixed length")
    sides = shape
    if shape is not None and chunks is not None:
        sides = [max(-(-side // chunk), 1) * chunk for side, chunk in zip(shape, chunks, strict=True)]
    announced: int = -1 if sides is None else math.prod(sides) * dtype.itemsize
    if not 0 <= announced <= (size if limits.values is None else limits.values):
        raise ValueError(f"{name} announces {shape} {dtype}, more than the file may hold")
    return announced


def _is_usual(kept: Any, dtype: np.dtype[Any]) -> bool:  # noqa: ANN401
    """Whether values are kept as they are in memory; HDF5 also converts numbers of any bits in any place."""
    if kept.get_size() != dtype.itemsize:
        return False
    return dtype.kind not in "iuf" or bool(kept.equal(h5t.py_create(dtype, logical=True)))


def _attributes(member: Any, limits: Limits) -> dict[str, Any]:  # noqa: ANN401
    attributes = member.attrs
    if len(attributes) > limits.attributes:
        raise ValueError(f"it has more than {limits.attributes} attributes")
    for name in attributes:
        _check_attribute(name, attributes.get_id(name), limits)
    return dict(attributes)


def _check_attribute(name: str, found: Any, limits: Limits) -> None:  # noqa: ANN401
    shape, dtype = found.shape, found.dtype
    single = shape == () and found.get_storage_size() <= ATTRIBUTE_BYTES
    listed = limits.lists and (shape is None or (len(shape) <= 1 and math.prod(shape) <= limits.lists))
    if not single and not listed:
        raise ValueError(f"the attribute {name} is no single value")
    text = h5py.check_string_dtype(dtype) is not None
    if not text and (dtype.kind not in KINDS or not _is_usual(found.get_type(), dtype)):
        raise ValueError(f"the attribute {name} is neither a number nor text")


def _values(dataset: Any) -> NDArray[Any]:  # noqa: ANN401
    values: NDArray[Any] = np.empty(dataset.shape, dataset.dtype)
    if dataset.size:
        dataset.read_direct(values)
    return values
