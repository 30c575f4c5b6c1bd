"""HDF5 (``.h5``, ``.hdf5``; ``.mat`` of MATLAB 7.3): data sets of pictures, labels, sides and patients beside them.

Names mean what they do in an archive of arrays (`featstore.images.formats.npz`): ``images`` and ``labels``,
``train/images``, ``x_train``. HDF5's own library runs in a process of its own, and only looks where values lie: what
reaches outside the file, announces more than it holds or went through filters that are loaded as code is refused
(`featstore.store.hdf5_guard`). The values are read here, a few chunks at a time.

MATLAB has the axes in the other order, and so pictures along the last: ``height x width [x 3] x count``.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import tempfile
import zlib
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from featstore.errors import BadImageError, RefusedFileError
from featstore.images.formats import npy
from featstore.images.formats.container import MAX_BYTES
from featstore.images.formats.npz import PageTable, pictures_of, table_of, values_of
from featstore.isolated_reading import LostError, call_isolated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class Hdf5(npy.ArrayFormat):
    """A file of HDF5: each picture of the data sets that hold pictures, train before val before test."""

    name: ClassVar[str] = "HDF5"
    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5", ".mat")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(
        rb"\x89HDF\r\n\x1a\n|MATLAB 7\.3.{502}\x89HDF\r\n\x1a\n", re.DOTALL
    )
    code: ClassVar[int] = 12

    def shapes(self, file: IO[bytes]) -> Sequence[npy.ArrayShape]:
        """All data sets that hold pictures."""
        return [one.shape for one in _pictures(file)]

    def index(self, data: bytes) -> npy.Stack:
        """Where the pictures are."""
        with _reachable(io.BytesIO(data)) as place:
            found = _picture_sets(_listed(place), is_matlab=bool(place.start))
            npy.pages_of([one.shape for one in found.values()])
            page, tables = _call("place_named", place, [*found], _MOST, place.start)
        values = {
            name: _Values(
                memoryview(data)[place.start :], found[name].stored, tuple(chunks), tuple(filters), table
            )
            for (name, chunks, filters), table in zip(page, tables, strict=True)
        }
        return npy.Stack(
            tuple(npy.ArrayOfPictures(one.shape, one.reader(values[name])) for name, one in found.items())
        )

    def held_bytes(self, file: IO[bytes], shapes: Sequence[npy.ArrayShape]) -> int:  # noqa: ARG002
        """At most what is kept of chunks, twice: once as they lie in the file, and once as pictures."""
        return 2 * min(
            _HELD + max(shape.bytes // shape.count for shape in shapes), sum(s.bytes for s in shapes)
        )


def read_table(file: IO[bytes]) -> PageTable:
    """What an open file says of its pictures: see `featstore.images.formats.npz.read_table`.

    Raises
    ------
    BadImageError
        If there are no labels, or not one for each picture.
    """
    with _reachable(file) as place:
        found = _listed(place)

        def values(name: str, count: int) -> NDArray[Any]:
            shape, kind, *_ = found[name]
            if not kind:
                raise BadImageError(
                    "unsupported",
                    f"The labels {name!r} are {'cells' if place.start else 'texts of any length'}."
                    f" {_FIXED_MATLAB if place.start else _FIXED}",
                )
            own = npy.ArrayShape(tuple(shape), _dtype(kind), is_fortran=False, start=0)
            if own.bytes > MAX_BYTES:
                raise BadImageError("too_large", f"The labels {name!r} have {own.bytes:,} bytes.")
            array = _read(place, [name])[name]
            try:
                return values_of(_as_rows(array, count) if place.start else array, count)
            except BadImageError as error:
                raise BadImageError(error.reason, error.detail + _LAST * bool(place.start)) from error

        sets = _picture_sets(found, is_matlab=bool(place.start))
        return table_of(found, {name: one.shape for name, one in sets.items()}, values)


def _as_rows(array: NDArray[Any], count: int) -> NDArray[Any]:
    """Values of MATLAB, which has the axes in the other order, and vectors in two axes."""
    array = array.T
    if array.ndim == 2 and 1 in array.shape:  # noqa: PLR2004
        return array.reshape(-1)
    return array.T if array.shape[:1] != (count,) else array


# Data sets, and what is a picture in them


@dataclass(frozen=True, slots=True)
class _PictureSet:
    """A data set of pictures.

    Attributes
    ----------
    stored
        Its shape and type in the file.
    shape
        The same, with the axes of pictures as they are elsewhere.
    chunks
        Shape of a chunk; empty where there are none.
    """

    stored: npy.ArrayShape
    shape: npy.ArrayShape
    chunks: tuple[int, ...]

    @property
    def held(self) -> int:
        """Bytes that a picture or volume takes while it is read, with all chunks that hold a part of it."""
        row = self.stored.bytes // self.stored.shape[0]
        if self.stored.shape[0] != self.shape.count:
            return self.stored.bytes
        return row * (self.chunks[0] if self.chunks else 1)

    def reader(self, values: _Values) -> Any:  # noqa: ANN401
        """Gives a picture or a volume by its number."""
        by_rows = self.stored.shape[0] == self.shape.count
        one = replace(self.shape, shape=(1, *self.shape.shape[1:])) if by_rows else self.shape
        is_turned = self.shape is not self.stored

        def read(number: int) -> NDArray[Any]:
            found = values.rows(number, number + 1) if by_rows else values.rows(0, self.stored.shape[0])
            found = found.swapaxes(-1, -2).reshape(one.shape) if is_turned else found
            taken: NDArray[Any] = npy.stacked(found, one)[0]
            return taken

        return read


def _turned(stored: npy.ArrayShape) -> npy.ArrayShape:
    """Shape of an array of MATLAB with pictures along the first axis, and rows before columns."""
    shape = stored.shape
    if len(shape) > 1:
        shape = (*shape[:-2], shape[-1], shape[-2])
    if len(shape) == 3 and shape[0] in {1, 3}:  # noqa: PLR2004
        shape = (1, *shape)
    return replace(stored, shape=shape)


# Values, by where they lie in the file

_HELD = 64 << 20
"""Bytes of unpacked chunks that are kept for the next pictures, beside those of the picture that is read."""


@dataclass(slots=True, eq=False)
class _Values:
    """Values of a data set.

    Attributes
    ----------
    data
        The file, from the signature on.
    stored
        Shape and type.
    chunks
        Shape of a chunk; empty where the values are in one piece.
    filters
        Names of the filters of each chunk, in the order of writing.
    table
        Start and length of each chunk, or of the piece; the bytes themselves where it has one axis.
    """

    data: memoryview
    stored: npy.ArrayShape
    chunks: tuple[int, ...]
    filters: tuple[str, ...]
    table: NDArray[Any]
    _kept: OrderedDict[int, NDArray[Any]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def rows(self, first: int, last: int) -> NDArray[Any]:
        """Rows from `first` to before `last`, along the first axis.

        Raises
        ------
        BadImageError
            ``truncated`` or ``corrupt`` if they are not what the file announces.
        """
        import numpy as np

        shape, dtype = self.stored.shape, self.stored.dtype
        if not self.chunks:
            start, size = (0, len(self.table)) if self.table.ndim == 1 else map(int, self.table[0])
            source = self.table.data if self.table.ndim == 1 else self.data
            if start + self.stored.bytes > len(source) or size != self.stored.bytes:
                raise BadImageError("truncated", "The data set has fewer values than it announces.")
            whole = np.frombuffer(source, dtype, math.prod(shape), start).reshape(shape)
            return whole[first:last]
        found = np.empty((last - first, *shape[1:]), dtype)
        grid = [-(-side // chunk) for side, chunk in zip(shape, self.chunks, strict=True)]
        along = range(first // self.chunks[0], -(-last // self.chunks[0]))
        for place in product(along, *map(range, grid[1:])):
            corner = [at * chunk for at, chunk in zip(place, self.chunks, strict=True)]
            chunk = self._chunk(int(np.ravel_multi_index(place, grid)))
            low = max(first, corner[0])
            high = min(last, corner[0] + self.chunks[0], shape[0])
            into = (
                slice(low - first, high - first),
                *(slice(at, at + n) for at, n in zip(corner[1:], self.chunks[1:], strict=True)),
            )
            part = found[into]
            part[...] = chunk[(slice(low - corner[0], high - corner[0]), *(slice(n) for n in part.shape[1:]))]
        return found

    def _chunk(self, number: int) -> NDArray[Any]:
        """Values of a chunk; those that were unpacked last are kept, as many as a row of chunks has at least."""
        import numpy as np

        with self._lock:
            if (kept := self._kept.get(number)) is not None:
                self._kept.move_to_end(number)
                return kept
        start, size = map(int, self.table[number])
        wanted = math.prod(self.chunks) * self.stored.dtype.itemsize
        raw = _unfiltered(self.data[start : start + size], self.filters, self.stored.dtype.itemsize, wanted)
        found = np.frombuffer(raw, self.stored.dtype).reshape(self.chunks)
        if not self.filters:
            return found
        row = math.prod(
            -(-side // chunk) for side, chunk in zip(self.stored.shape[1:], self.chunks[1:], strict=True)
        )
        with self._lock:
            self._kept[number] = found
            while len(self._kept) > max(row, _HELD // max(1, wanted)):
                self._kept.popitem(last=False)
        return found


def _unfiltered(raw: memoryview, filters: Sequence[str], width: int, size: int) -> bytes | memoryview:
    """Bytes of a chunk as they were before its filters, exactly `size` of them.

    Raises
    ------
    BadImageError
        ``corrupt`` if they are not what they should be.
    """
    found: bytes | memoryview = raw
    for at in reversed(range(len(filters))):
        wanted = size + _CHECKSUM * filters[:at].count("fletcher32")
        match filters[at]:
            case "gzip":
                found = _inflated(found, wanted)
            case "shuffle":
                found = _unshuffled(found, width)
            case _:
                found = _verified(found)
    if len(found) != size:
        raise BadImageError("corrupt", f"A chunk of the HDF5 file has {len(found):,} of {size:,} bytes.")
    return found


_CHECKSUM = 4
_MODULUS = 65535


def _inflated(packed: bytes | memoryview, wanted: int) -> bytes:
    """Inflate with a bound."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, wanted + 1)
    except zlib.error as error:
        raise BadImageError("corrupt", "A chunk of the HDF5 file does not inflate.") from error
    if len(found) != wanted or not stream.eof or stream.unused_data:
        raise BadImageError("corrupt", "A chunk of the HDF5 file does not inflate to what it should.")
    return found


def _unshuffled(found: bytes | memoryview, width: int) -> bytes | memoryview:
    """Bytes of each value together again; those behind the last whole value stay where they are."""
    import numpy as np

    whole = len(found) // width * width
    if width < 2:  # noqa: PLR2004
        return found
    array = np.frombuffer(found, np.uint8)
    return array[:whole].reshape(width, -1).T.tobytes() + array[whole:].tobytes()


def _verified(found: bytes | memoryview) -> bytes | memoryview:
    """Bytes without the Fletcher-32 behind them, which must be theirs."""
    import numpy as np

    values, stored = found[:-_CHECKSUM], int.from_bytes(found[-_CHECKSUM:], "little")
    words = np.frombuffer(values if len(values) % 2 == 0 else bytes(values) + b"\0", ">u2").astype(np.uint64)
    count = np.arange(len(words), 0, -1, dtype=np.uint64) % _MODULUS
    low, high = int(words.sum() % _MODULUS), int((words * count).sum() % _MODULUS)
    if (low - (stored & 0xFFFF)) % _MODULUS or (high - (stored >> 16)) % _MODULUS:
        raise BadImageError("corrupt", "A chunk of the HDF5 file has not the checksum that it should.")
    return values


# The file, in the process that reads HDF5

_FIXED = "Save them as numbers, or as texts of one length: labels.astype('S')"
_FIXED_MATLAB = "Save them as numbers: labels = double(categorical(labels))"
_LAST = " In files of MATLAB pictures lie along the last axis: images = permute(images, [2 3 1])."
_OWN = frozenset({"ids", "features"})
_MANY = 8
_USER_BLOCK, _MATLAB = 512, b"MATLAB 7.3"
_MOST = 1 << 50
"""Bytes that data sets may announce: what is read of them at once has a bound of its own."""
_FILTERS = frozenset({1, 2, 3})
_PACKED = {
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32015: "Zstandard",
    32026: "Blosc 2",
    4: "szip",
}
"""Filters by number, and names of some others."""


class _Listing(NamedTuple):
    """Shape, type (empty where it is no plain one), shape of chunks, and numbers of filters of a data set."""

    shape: list[int]
    kind: str
    chunks: list[int]
    filters: list[int]


_Listed = dict[str, _Listing]


class _Place(NamedTuple):
    """A path at which another process finds a file, and where in it the signature is."""

    path: str
    start: int


@contextmanager
def _reachable(file: IO[bytes]) -> Iterator[_Place]:
    """Where another process finds the very bytes of an open file."""
    file.seek(0)
    start = _USER_BLOCK if file.read(len(_MATLAB)) == _MATLAB else 0
    try:
        descriptor = file.fileno()
    except OSError:  # bytes in memory
        descriptor = -1
    if descriptor >= 0 and os.path.exists(f"/proc/{os.getpid()}/fd/{descriptor}"):  # noqa: PTH110
        yield _Place(f"/proc/{os.getpid()}/fd/{descriptor}", start)
        return
    file.seek(0)
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        with os.fdopen(os.memfd_create("featstore"), "wb") as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            yield _Place(f"/proc/{os.getpid()}/fd/{copy.fileno()}", start)
        return
    with tempfile.NamedTemporaryFile(suffix=".h5") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield _Place(copy.name, start)


def _call(work: str, place: _Place, *arguments: Any) -> tuple[Any, list[NDArray[Any]]]:  # noqa: ANN401
    from pathlib import Path

    try:
        return call_isolated(f"featstore.store.hdf5_guard:{work}", Path(place.path), *arguments)
    except LostError as error:
        raise BadImageError("corrupt", f"HDF5 cannot read it: {error}.") from error
    except RefusedFileError as error:
        why = error.cause.removeprefix("The HDF5 file ").replace(place.path, "the file")
        if "truncated" in why or "not all of that is in the file" in why or "beyond the end" in why:
            raise BadImageError("truncated", f"The HDF5 file {why}") from error
        raise BadImageError("unsupported", f"The HDF5 file {why} {error.remedy}") from error


def _listed(place: _Place) -> _Listed:
    """What each data set says of itself."""
    found, _ = _call("list_datasets", place, place.start)
    return {str(name): _Listing(*about) for name, about in found.items()}


def _read(place: _Place, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Values of some data sets."""
    found, arrays = _call("read_named", place, list(names), MAX_BYTES, place.start)
    return dict(zip(found, arrays, strict=True))


def _dtype(kind: str) -> Any:  # noqa: ANN401
    import numpy as np

    return np.dtype(kind)


def _pictures(file: IO[bytes]) -> list[_PictureSet]:
    with _reachable(file) as place:
        return [*_picture_sets(_listed(place), is_matlab=bool(place.start)).values()]


def _picture_sets(found: _Listed, *, is_matlab: bool) -> dict[str, _PictureSet]:
    """Data sets of pictures, in the order of the sides.

    Raises
    ------
    BadImageError
        ``unsupported`` for features, for weights and for what has no pictures; ``too_large``, ``corrupt``.
    """
    _refuse_of_others(found)
    numbers = [name for name in found if found[name][1][1:2] in set(npy.NUMBERS)]
    if not numbers:
        raise BadImageError("unsupported", f"The HDF5 file holds no numbers: {_names(found)}.")
    others = {name: "It holds no plain numbers." for name in found if name not in numbers}
    try:
        names = [name for _, name in pictures_of(numbers, others)]
    except BadImageError as error:
        raise BadImageError(error.reason, f"{error.detail} The HDF5 file has: {_names(found)}.") from error
    sets = {}
    for name in names:
        shape, kind, chunks, filters = found[name]
        if odd := next((code for code in filters if code not in _FILTERS), None):
            raise BadImageError(
                "unsupported",
                f"The data set {name!r} is packed by {_PACKED.get(odd, f'the filter {odd}')}; write it with gzip:"
                f" h5py.File('new.h5', 'w').create_dataset({name!r}, data=h5py.File(FILE)[{name!r}][:],"
                " compression='gzip'), and its labels too.",
            )
        if min(shape, default=0) < 1:
            raise BadImageError("corrupt", f"The data set {name!r} has an axis of no length.")
        stored = npy.ArrayShape(tuple(shape), _dtype(kind), is_fortran=False, start=0)
        sets[name] = one = _PictureSet(stored, _turned(stored) if is_matlab else stored, tuple(chunks))
        if one.held > npy.most_bytes():
            raise BadImageError(
                "too_large",
                f"The data set {name!r} has pictures or chunks of {one.held:,} bytes, more than {npy.most_bytes():,};"
                f" write it with a chunk for each picture: h5repack -l {name}:CHUNK=1x... FILE NEW",
            )
    return sets


def _refuse_of_others(found: _Listed) -> None:
    """Refuse files whose data sets mean something else than pictures as they lie there."""
    if found.keys() >= _OWN:
        raise BadImageError(
            "unsupported", "The HDF5 file holds features, as featstore's cache does, and no images."
        )
    if any(name.startswith("minc-2.0/") for name in found):
        raise BadImageError(
            "unsupported",
            "The HDF5 file is a MINC volume. Write it as NIfTI, which is read: nibabel.save("
            "nibabel.Nifti1Image.from_image(nibabel.load('v.mnc')), 'v.nii.gz')",
        )


def _names(found: _Listed) -> str:
    more = f" and {len(found) - _MANY} more" if len(found) > _MANY else ""
    return ", ".join(sorted(found)[:_MANY])[:200] + more
