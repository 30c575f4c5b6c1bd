"""HDF5 files that are not trusted: which may be opened, and how much of them is read (law 7).

HDF5 can point outside itself (external storage, external links, virtual data sets), announce more than it holds
(shapes, chunks that inflate), store less than it announces, and name filters that are loaded as code. `read_plain`
refuses all of that before it reads a value. It cannot vouch for the HDF5 library: a file made to exploit a defect in
it costs the process that opens it, which is why foreign files are read in `featstore.isolated_reading`.

What a data set keeps in the file is held against what it announces before HDF5 unpacks any of it. HDF5 1.14 trusts a
chunk to be as long as its filters left it. A shorter one is read beyond its end: heap bytes as values, or the death
of the process (HDFGroup/hdf5 #6488, #6579, #6585). So the stored size of every chunk must be exactly what the filters
give, and the filters are the three that everybody has, each once, in an order that some library writes.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import zlib
from array import array
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5g, h5l, h5o, h5p, h5s, h5t, h5z

from featstore.errors import RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray


# Stored data sets

SHUFFLE, DEFLATE, FLETCHER32 = h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32
FILTERS = {DEFLATE: "gzip", SHUFFLE: "shuffle", FLETCHER32: "fletcher32"}
CHECKSUM = 4
"""Bytes that Fletcher-32 adds."""
ORDERS = {
    (), (SHUFFLE,), (DEFLATE,), (FLETCHER32,), (SHUFFLE, DEFLATE), (SHUFFLE, FLETCHER32), (DEFLATE, FLETCHER32),
    (SHUFFLE, DEFLATE, FLETCHER32), (FLETCHER32, SHUFFLE), (FLETCHER32, DEFLATE), (FLETCHER32, SHUFFLE, DEFLATE),
}  # fmt: skip
"""Bytes are sorted before they are packed, and the checksum comes last (h5py, netCDF) or first (PyTables)."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"
Bytes: TypeAlias = "bytes | memoryview"
LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}


@dataclass(slots=True)
class Extents:
    """Which bytes of the file the values take: none may be taken twice, else a small file holds a large one."""

    size: int
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))

    def add(self, name: str, start: int | None, size: int) -> None:
        """Note bytes; ValueError if they are not in the file."""
        if start is None or start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"{name} keeps values beyond the end of the file")
        self.starts.append(start)
        self.sizes.append(size)

    def require_apart(self) -> None:
        """ValueError if bytes are taken twice."""
        end = 0
        for start, size in sorted(zip(self.starts, self.sizes, strict=True)):
            if start < end:
                raise ValueError("the same bytes of it are the values of several places")
            end = start + size


@dataclass(frozen=True, slots=True, eq=False)
class StoredDataset:
    """A data set as its header describes it.

    Attributes
    ----------
    name
        Its path.
    found, plan, kept
        HDF5's handles of the data set, of how it was created, and of its type in the file.
    shape, dtype, chunks
        As h5py has them.
    pipeline
        Number and options of each filter, in the order of writing.
    """

    name: str
    found: Any
    plan: Any
    kept: Any
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    pipeline: tuple[tuple[int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, name: str, found: Any) -> StoredDataset:  # noqa: ANN401
        """Describe a data set."""
        plan, kept, space = found.get_create_plist(), found.get_type(), found.get_space()
        shape = None if space.get_simple_extent_type() == h5s.NULL else space.get_simple_extent_dims()
        chunks = plan.get_chunk() if plan.get_layout() == h5d.CHUNKED else None
        filters = (plan.get_filter(number) for number in range(plan.get_nfilters()))
        pipeline = tuple((code, options) for code, _, options, _ in filters)
        return cls(name, found, plan, kept, shape, kept.dtype, chunks, pipeline)

    @property
    def codes(self) -> tuple[int, ...]:
        """Numbers of the filters."""
        return tuple(code for code, _ in self.pipeline)

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks in each direction."""
        return tuple(
            -(-side // chunk) for side, chunk in zip(self.shape or (), self.chunks or (), strict=True)
        )

    def check_pipeline(self, allowed: Collection[int]) -> None:
        """ValueError if values lie elsewhere, or went through filters not `allowed` or in an order nobody writes."""
        if self.plan.get_layout() not in LAYOUTS or self.plan.get_external_count():
            raise ValueError(f"{self.name} keeps its values outside the file, in external or virtual storage")
        unknown = next((code for code in self.codes if code not in allowed), None)
        if unknown is not None:
            raise ValueError(f"{self.name} has gone through the filter {FILTERS.get(unknown, unknown)}")
        if self.codes not in ORDERS:
            shown = ", ".join(FILTERS[code] for code in self.codes[:8])
            raise ValueError(
                f"{self.name} has gone through filters in an order that no program writes ({shown})"
            )
        for code, options in self.pipeline:
            if not _is_plausible(code, options, self.kept.get_size()):
                raise ValueError(f"{self.name} has gone through {FILTERS[code]} with options {options[:8]}")

    def check_storage(self, extents: Extents) -> None:
        """ValueError if not every value has its place in the file, or a place is of another size than it must be."""
        if self.chunks is not None:
            self._check_chunks(extents)
            return
        size = math.prod(self.shape or ()) * self.kept.get_size()
        if self.found.get_storage_size() != size:
            raise self._incomplete()
        if size and self.plan.get_layout() == h5d.CONTIGUOUS:
            extents.add(self.name, self.found.get_offset(), size)

    def check_inflation(self) -> None:
        """ValueError if a packed chunk is not, unpacked, of the size that it must be; after `check_storage`."""
        if DEFLATE not in self.codes or self.chunks is None:
            return
        size = math.prod(self.chunks) * self.kept.get_size()
        for number, place in enumerate(np.ndindex(*self.grid)):
            corner = tuple(at * chunk for at, chunk in zip(place, self.chunks, strict=True))
            _, stored = self.found.read_direct_chunk(corner)
            _check_inflation(f"chunk {number} of {self.name}", stored, self.codes, size)

    def values(self) -> NDArray[Any]:
        """Read all of it; after the checks."""
        values: NDArray[Any] = np.empty(self.shape or (), self.dtype)
        if values.size:
            self.found.read(h5s.ALL, h5s.ALL, values)
        return values

    def piece(self) -> Piece | None:
        """Where in the file its values lie, as they are in memory and in one piece; None if they do not."""
        in_one_piece = self.plan.get_layout() == h5d.CONTIGUOUS and self.found.get_storage_size() > 0
        if not in_one_piece or self.dtype.kind not in "iuf":
            return None
        return Piece(self.name, self.found.get_offset(), self.shape or (), self.dtype)

    def table(self) -> NDArray[Any]:
        """Start and length of each chunk, or of the only piece, int64 ``(pieces, 2)``; bytes where it is compact."""
        if self.plan.get_layout() == h5d.COMPACT:
            return np.ascontiguousarray(self.values()).reshape(-1).view(np.uint8)
        if self.chunks is None:
            size = math.prod(self.shape or ()) * self.kept.get_size()
            return np.array([[self.found.get_offset(), size]], np.int64)
        chunks, grid = self.chunks, self.grid
        found = np.zeros((math.prod(grid), 2), np.int64)

        def note(chunk: Any) -> None:  # noqa: ANN401
            at = _place(chunk.chunk_offset, chunks, grid)
            found[at] = chunk.byte_offset, chunk.size

        self.found.chunk_iter(note)
        return found

    def _incomplete(self) -> ValueError:
        return ValueError(f"{self.name} announces {self.shape}, and not all of that is in the file")

    def _check_chunks(self, extents: Extents) -> None:
        chunks, grid, places = self.chunks or (), self.grid, array("q")
        size, packed = math.prod(chunks) * self.kept.get_size(), DEFLATE in self.codes
        fixed, count = size + CHECKSUM * (FLETCHER32 in self.codes), math.prod(grid)

        def look(chunk: Any) -> None:  # noqa: ANN401
            which = f"chunk {len(places)} of {self.name}"
            at = _place(chunk.chunk_offset, chunks, grid)
            if at is None or len(places) == count:
                raise ValueError(f"{which} is where none belongs")
            if chunk.filter_mask:
                unpacked = f", and does not inflate to the {size:,} bytes that it should" if packed else ""
                raise ValueError(f"{which} has skipped a filter{unpacked}")
            if not packed and chunk.size != fixed:
                raise ValueError(f"{which} has {chunk.size:,} bytes, and must have {fixed:,}")
            extents.add(which, chunk.byte_offset, chunk.size)
            places.append(at)

        if count <= extents.size:
            self.found.chunk_iter(look)
        if len(places) != count or len(set(places)) != count:
            raise self._incomplete()


@dataclass(frozen=True, slots=True)
class Piece:
    """Values of a data set that are one piece of the file.

    Attributes
    ----------
    name
        Path of the data set.
    start
        Byte at which they begin.
    shape, dtype
        As numpy has them.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def stop(self) -> int:
        """Byte before which they end."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    def of(self, source: memoryview) -> NDArray[Any]:
        """View of the values in the bytes of the file."""
        values: NDArray[Any] = np.frombuffer(source[self.start : self.stop], self.dtype)
        return values.reshape(self.shape)


def _is_plausible(code: int, options: tuple[int, ...], width: int) -> bool:
    if code == DEFLATE:
        return len(options) == 1 and options[0] <= zlib.Z_BEST_COMPRESSION
    return options == ((width,) if code == SHUFFLE else ())


def _place(corner: tuple[int, ...], chunks: tuple[int, ...], grid: tuple[int, ...]) -> int | None:
    """Number of a chunk in its grid; None where it lies beside."""
    at = 0
    for start, chunk, many in zip(corner, chunks, grid, strict=True):
        number, rest = divmod(start, chunk)
        if rest or not 0 <= number < many:
            return None
        at = at * many + number
    return at


def _check_inflation(name: str, stored: bytes, codes: tuple[int, ...], size: int) -> None:
    """Inflate a chunk with a bound: HDF5 would go on as long as there is something to inflate."""
    packed = stored[: len(stored) - CHECKSUM] if codes[-1] == FLETCHER32 else stored
    wanted = size + CHECKSUM * (codes[0] == FLETCHER32)
    stream = zlib.decompressobj()
    try:
        inflated = len(stream.decompress(packed, wanted + 1))
    except zlib.error as error:
        raise ValueError(f"{name} does not inflate") from error
    if inflated != wanted or not stream.eof or stream.unused_data:
        raise ValueError(f"{name} does not inflate to the {size:,} bytes that it should")


# Whole files

REMEDY = "Copy its numbers into a plain HDF5 file with h5py, or ask for such a file."
FOREIGN_BYTES = 16 << 30
EXPANSION, ALLOWANCE = 100, 64 << 20
"""Values may take so many times the size of the file, and so many bytes beside; what is packed closer says little."""
KINDS = "biufS"
OPAQUE = "V"
"""What Keras writes numbers of 16 bits as that numpy has no name for."""
ATTRIBUTE_BYTES = 1 << 16
_files = count()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what a file may hold.

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
class PlainContent:
    """Everything in a file: scalar attributes of the root, and arrays by their path, such as ``train/features``."""

    attributes: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def read_plain(source: Bytes | Path, limits: Limits = FOREIGN) -> PlainContent:
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
    what = str(source) if isinstance(source, Path) else "The HDF5 file"
    with _refusing(what), _opened(source) as file:
        root = h5g.open(file, b"/")
        found = [
            StoredDataset.of(name, member) for name, member in _members(root, limits) if _is_dataset(member)
        ]
        _check_values(file, found, limits)
        return PlainContent(_attributes(root, limits), {one.name: one.values() for one in found})


KNOWN_FRAMES, FRAME_BYTES = 256, 1 << 16
_frames: dict[tuple[Limits, int], list[_Frame]] = {}
"""Files that were looked at, by limits and size."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """All that HDF5 makes of a file whose values are a few pieces of it: everything but the values themselves.

    Attributes
    ----------
    around
        The bytes around the pieces, joined.
    pieces
        In the order in which they lie in the file.
    attributes
        Of the root.
    """

    around: bytes
    pieces: tuple[Piece, ...]
    attributes: Mapping[str, Any]

    def fits(self, source: memoryview) -> bool:
        """Whether another file of this size is the same but for the values: HDF5 would find the same in it."""
        return _around(source, self.pieces) == self.around


def _around(source: memoryview, pieces: Sequence[Piece]) -> bytes:
    starts, stops = [0, *(one.stop for one in pieces)], [*(one.start for one in pieces), len(source)]
    return b"".join(source[start:stop] for start, stop in zip(starts, stops, strict=True))


def view_plain(source: Bytes, limits: Limits = FOREIGN) -> PlainContent:
    """`read_plain` of bytes, without a copy where that is possible: numbers in one piece are read-only views of them.

    A file that differs from one that was looked at in nothing but such numbers is not looked at again. HDF5 finds the
    same in it, and so do the checks of `read_plain`, since none of them has read a byte of the numbers.

    Raises
    ------
    RefusedFileError
        As for `read_plain`.
    """
    data = memoryview(source).toreadonly()
    known = _frames.get((limits, len(data)), [])
    frame = next((one for one in known if one.fits(data)), None)
    if frame is None:
        with _refusing("The HDF5 file"), _opened_in_memory(reader := _BytesInMemory(data)) as file:
            root = h5g.open(file, b"/")
            found = [
                StoredDataset.of(name, member)
                for name, member in _members(root, limits)
                if _is_dataset(member)
            ]
            _check_values(file, found, limits)
            attributes = _attributes(root, limits)
            pieces = [one.piece() for one in found]
            if None in pieces or data[: len(SIGNATURE)] != SIGNATURE:  # places are counted from the signature
                return PlainContent(attributes, {one.name: one.values() for one in found})
        inside = sorted((one for one in pieces if one is not None), key=attrgetter("start"))
        frame = _Frame(_around(data, inside), tuple(inside), attributes)
        if len(frame.around) <= FRAME_BYTES and not reader.has_read(inside):
            if len(_frames) >= KNOWN_FRAMES or len(known) >= KNOWN_FRAMES:
                _frames.clear()
            _frames.setdefault((limits, len(data)), []).append(frame)
    return PlainContent(dict(frame.attributes), {one.name: one.of(data) for one in frame.pieces})


def read_datasets(
    source: Bytes | Path, names: Iterable[str], limits: Limits = FOREIGN
) -> dict[str, NDArray[Any]]:
    """Read a few data sets, by path, of a file whose rest is for somebody else; those that are absent are left out.

    A file that does not open as HDF5 has none.

    Raises
    ------
    RefusedFileError
        If one of them reaches outside the file, is not of plain numbers, or exceeds the limits.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(source))
        except OSError:
            return {}
        with _refusing(str(source) if isinstance(source, Path) else "The HDF5 file"):
            members = ((name, _descend(h5g.open(file, b"/"), name)) for name in names)
            found = [StoredDataset.of(name, member) for name, member in members if member is not None]
            _check_values(file, found, limits)
            return {one.name: one.values() for one in found}


def place_named(
    path: Path, names: Sequence[str], most: int, start: int = 0
) -> tuple[list[Any], list[NDArray[Any]]]:
    """Where the values of some data sets lie, for a reader of its own; run by `featstore.isolated_reading`.

    Offsets count from the signature, and filters are named in the order of writing. Whether a packed chunk inflates
    to what it must, and its checksum, are for the reader to see: no value is read here, but of a compact data set.

    Returns
    -------
    list
        Of each data set its name, and shape of its chunks and filters; both empty where it is in one piece.
    list of ndarray
        Of each data set the start and length of each chunk, in the order of the grid, int64 ``(chunks, 2)``; of one
        in one piece as if that were its only chunk; of a compact one its bytes.

    Raises
    ------
    RefusedFileError
        As `read_datasets`.
    """
    with _refusing("The HDF5 file"), _opened(_mapped(path, start)) as file:
        root = h5g.open(file, b"/")
        members = ((name, _descend(root, name)) for name in names)
        found = [StoredDataset.of(name, member) for name, member in members if member is not None]
        _check_places(file, found, Limits(values=most))
        page = [[one.name, list(one.chunks or ()), [FILTERS[code] for code in one.codes]] for one in found]
        return page, [one.table() for one in found]


def _mapped(path: Path, start: int) -> memoryview:
    """The bytes of a file from the signature on; of one that is cut short meanwhile, this process dies."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[start:]


def list_datasets(
    path: Path, start: int = 0
) -> tuple[dict[str, tuple[list[int], str, list[int], list[int]]], list[NDArray[Any]]]:
    """Shape, type, chunks and filters of each data set of a file, by path; run by `featstore.isolated_reading`.

    The values are not read; whether they are all there is for `read_named` to see. Of what is no plain number or text
    of fixed length the type is empty.

    Raises
    ------
    RefusedFileError
        If the file is no HDF5, refers to others, or has more members than it may.
    """
    with _refusing("The HDF5 file"), _opened(_mapped(path, start)) as file:
        found = {}
        for name, member in _members(h5g.open(file, b"/"), FOREIGN):
            if _is_dataset(member):
                one = StoredDataset.of(name, member)
                is_plain = one.shape is not None and one.dtype.kind in KINDS and one.dtype.subdtype is None
                kind = one.dtype.str if is_plain else ""
                kind = "|b1" if kind == "|u1" and _is_logical(member) else kind
                found[name] = list(one.shape or ()), kind, list(one.chunks or ()), list(one.codes)
        return found, []


def _is_logical(member: Any) -> bool:  # noqa: ANN401
    """Whether MATLAB says of these bytes that they are true and false."""
    if not h5a.exists(member, b"MATLAB_class"):
        return False
    said = h5a.open(member, b"MATLAB_class")
    return said.shape == () and _attribute(said, FOREIGN)[1] in {b"logical", "logical"}


def read_named(
    path: Path, names: Sequence[str], most: int, start: int = 0
) -> tuple[list[str], list[NDArray[Any]]]:
    """Names and values of some data sets of a file, `most` bytes in all; run by `featstore.isolated_reading`.

    Raises
    ------
    RefusedFileError
        As `read_datasets`.
    """
    with _refusing("The HDF5 file"):
        data = _mapped(path, start)
        with _opened(data):
            pass
    found = read_datasets(data, names, Limits(values=most))
    return [*found], [np.ascontiguousarray(values) for values in found.values()]


def check_weights(path: Path) -> None:
    """Look at a file that another program is going to read, attributes of all members included, and read all of it.

    What would end the other program ends this one, which is for `featstore.isolated_reading` to bear.

    Raises
    ------
    RefusedFileError
        If it reaches outside itself, holds other things than numbers, texts and lists of them, or is not whole.
    """
    with _refusing(str(path)), _opened(path) as file:
        root = h5g.open(file, b"/")
        found = []
        for name, member in [("", root), *_members(root, WEIGHTS)]:
            _attributes(member, WEIGHTS)
            if _is_dataset(member):
                found.append(StoredDataset.of(name, member))
        _check_values(file, found, WEIGHTS)
        for one in found:
            one.values()


def weights_are_sound(path: Path) -> tuple[bool, list[NDArray[Any]]]:
    """`check_weights`; run by `featstore.isolated_reading`."""
    check_weights(path)
    return True, []


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise RefusedFileError(f"{what} is refused: {why}.", REMEDY) from error


@contextmanager
def _opened(source: Bytes | Path) -> Iterator[Any]:
    """HDF5's handle of a file."""
    if isinstance(source, Path):
        if not stat.S_ISREG(source.stat().st_mode):  # a pipe would be waited for
            raise ValueError("it is a folder, pipe, socket or device")
        with h5py.File(source, "r", locking=False) as file:
            yield file.id
        return
    with _opened_in_memory(_BytesInMemory(memoryview(source))) as handle:
        yield handle


@contextmanager
def _opened_in_memory(reader: _BytesInMemory) -> Iterator[Any]:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, reader)
    # Read-only, unlike `h5py.CachedFile.in_memory`: what HDF5 mends in a file that it may write can be attacked, too.
    handle = h5f.open(b"in memory %d" % next(_files), h5f.ACC_RDONLY, access)
    try:
        yield handle
    finally:
        handle.close()


class _BytesInMemory:
    """A file that HDF5 reads piece by piece: given a file image, it would copy all of it, twice.

    Beyond the end there are zeros, as in HDF5's own files in memory, and nothing is ever raised into its C code.
    """

    def __init__(self, source: memoryview) -> None:
        if not source:  # HDF5 would begin a new file
            raise ValueError("it is empty")
        self._source = source
        self._at = 0
        self._reads: list[tuple[int, int]] = []

    def has_read(self, pieces: Sequence[Piece]) -> bool:
        """Whether any byte of these pieces has been read."""
        return any(start < one.stop and one.start < stop for start, stop in self._reads for one in pieces)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset if whence == os.SEEK_SET else len(self._source)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, target: memoryview) -> int:
        target = memoryview(target).cast("B")
        part = self._source[self._at : self._at + len(target)]
        self._reads.append((self._at, self._at + len(target)))
        target[: len(part)] = part
        target[len(part) :] = bytes(len(target) - len(part))
        return len(target)


def _is_dataset(member: Any) -> bool:  # noqa: ANN401
    return isinstance(member, h5d.DatasetID)


def _descend(group: Any, name: str) -> Any:  # noqa: ANN401
    """The data set of a path; None where there is none."""
    member = group
    for part in name.split("/"):
        key = part.encode()
        if not isinstance(member, h5g.GroupID) or not member.links.exists(key):
            return None
        member, _ = _member(member, key)
    if not _is_dataset(member):
        raise ValueError(f"{name} is no data set")
    return member


def _members(root: Any, limits: Limits) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Groups and data sets by path, level by level; one that is reached twice is refused, hence every circle too."""
    seen: set[int] = {h5o.get_info(root).addr}
    level = [("", root)]
    for _ in range(limits.depth):
        groups = []
        for prefix, group in level:
            for key in group:
                member, address = _member(group, key)
                name = f"{prefix}{_shown(key)}"
                if address in seen:
                    raise ValueError(f"{name} is another name of something else")
                seen.add(address)
                if len(seen) > limits.members + 1:
                    raise ValueError(f"it has more than {limits.members} members")
                if not _is_dataset(member):
                    groups.append((f"{name}/", member))
                yield name, member
        level = groups
    if level:
        raise ValueError(f"it is nested deeper than {limits.depth}")


def _member(group: Any, key: bytes) -> tuple[Any, int]:  # noqa: ANN401
    """What lies under a name, and its address."""
    if key in {b"", b"."} or b"/" in key:  # HDF5 would follow it as a path
        raise ValueError(f"{_shown(key)!r} cannot be the name of a member")
    if group.links.get_info(key).type != h5l.TYPE_HARD:
        raise ValueError(f"{_shown(key)} is a link to somewhere else")
    member = h5o.open(group, key)
    if not isinstance(member, h5g.GroupID | h5d.DatasetID):
        raise ValueError(f"{_shown(key)} is neither a group nor a data set")  # noqa: TRY004
    return member, h5o.get_info(member).addr


def _shown(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _check_values(file: Any, found: Sequence[StoredDataset], limits: Limits) -> None:  # noqa: ANN401
    """Refuse what is not all there, or is more than it may be; only then is anything unpacked."""
    size = int(file.get_filesize())
    if (total := _check_places(file, found, limits)) > _most(limits, size):
        raise ValueError(f"it announces {total:,} bytes, more than it may hold")
    for one in found:
        one.check_inflation()


def _check_places(file: Any, found: Sequence[StoredDataset], limits: Limits) -> int:  # noqa: ANN401
    """Refuse what is not all in its place; nothing is unpacked. Bytes that all values announce."""
    size = int(file.get_filesize())
    extents, total = Extents(size), 0
    for one in found:
        one.check_pipeline(limits.filters)
        total += _announced(one, limits, size)
        one.check_storage(extents)
    extents.require_apart()
    return total


def _most(limits: Limits, size: int) -> int:
    """Bytes that the values of a file of `size` bytes may take."""
    return size if limits.values is None else min(limits.values, ALLOWANCE + EXPANSION * size)


def _announced(one: StoredDataset, limits: Limits, size: int) -> int:
    """Bytes of a data set in memory, those of its chunks that reach beyond it included."""
    shape, dtype, chunks = one.shape, one.dtype, one.chunks
    plain = (
        dtype.kind in limits.kinds and dtype.names is None and dtype.subdtype is None and not dtype.hasobject
    )
    if not plain or not _is_usual(one.kept, dtype):
        raise ValueError(f"{one.name} holds {dtype}, neither numbers nor text of fixed length")
    sides: Sequence[int] | None = shape
    if shape is not None and chunks is not None:
        sides = [max(-(-side // chunk), 1) * chunk for side, chunk in zip(shape, chunks, strict=True)]
    announced = -1 if sides is None else math.prod(sides) * dtype.itemsize
    if not 0 <= announced <= (size if limits.values is None else limits.values):
        raise ValueError(f"{one.name} announces {shape} {dtype}, more than the file may hold")
    return announced


def _is_usual(kept: Any, dtype: np.dtype[Any]) -> bool:  # noqa: ANN401
    """Whether values are kept as they are in memory; HDF5 also converts numbers of any bits in any place."""
    if kept.get_size() != dtype.itemsize:
        return False
    return dtype.kind not in "iuf" or bool(kept.equal(h5t.py_create(dtype, logical=True)))


def _attributes(member: Any, limits: Limits) -> dict[str, Any]:  # noqa: ANN401
    many = h5a.get_num_attrs(member)
    if many > limits.attributes:
        raise ValueError(f"it has more than {limits.attributes} attributes")
    found = (h5a.open(member, index=number) for number in range(many))
    return dict(_attribute(one, limits) for one in found)


def _attribute(found: Any, limits: Limits) -> tuple[str, Any]:  # noqa: ANN401
    name, shape, dtype = _shown(found.name), found.shape, found.dtype
    single = shape == () and found.get_storage_size() <= ATTRIBUTE_BYTES
    listed = limits.lists and (shape is None or (len(shape) <= 1 and math.prod(shape) <= limits.lists))
    if not single and not listed:
        raise ValueError(f"the attribute {name} is no single value")
    if h5py.check_string_dtype(dtype) is None and (
        dtype.kind not in KINDS or not _is_usual(found.get_type(), dtype)
    ):
        raise ValueError(f"the attribute {name} is neither a number nor text")
    values = np.empty(shape or (), dtype)
    if shape is not None and values.size:
        found.read(values)
    value: Any = values[()]
    return name, _shown(value) if isinstance(value, bytes) and dtype.kind == "O" else value
