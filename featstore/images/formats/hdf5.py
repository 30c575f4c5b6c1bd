"""HDF5 (``.h5``, ``.hdf5``): data sets of pictures, with their labels, sides of the split and patients beside them.

Names mean what they do in an archive of arrays (`featstore.images.formats.npz`): ``images`` and ``labels``,
``train/images``, ``x_train``. HDF5 is read in a process of its own, and refused where it reaches outside the file,
announces more than it holds or went through filters that are loaded as code: see `featstore.store.hdf5_guard`.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ClassVar

from featstore.errors import BadImageError, RefusedFileError
from featstore.images.formats import npy
from featstore.images.formats.container import MAX_BYTES, Format, Pages, check_length
from featstore.images.formats.npz import PageTable, pictures_of, table_of, values_of
from featstore.isolated_reading import LostError, call_isolated
from featstore.serialization import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class Hdf5(Format):
    """A file of HDF5: each picture of the data sets that hold pictures, train before val before test."""

    name: ClassVar[str] = "HDF5"
    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"\x89HDF\r\n\x1a\n")
    version: ClassVar[str] = "1"
    code: ClassVar[int] = 12
    has_slices: ClassVar[bool] = True

    def list_pages(self, file: IO[bytes]) -> Pages:
        """Each picture of all data sets that hold pictures."""
        return npy.pages_of(_pictures(file))

    def choose(self, file: IO[bytes], pages: Pages, slices: str) -> Pages:  # noqa: ARG002
        """Slices of volumes that ``--slices`` asks for."""
        return npy.pages_of(_pictures(file), slices)

    def index(self, data: bytes) -> npy.Stack:
        """The pictures, unpacked."""
        with _reachable(io.BytesIO(data)) as path:
            shapes = _picture_shapes(_listed(path))
            found = _read(path, [*shapes])
            return npy.Stack(tuple(npy.stacked(found[name], shape) for name, shape in shapes.items()))

    def needs_range(self, data: bytes, frame: int, index: npy.Stack | None = None) -> bool:
        """Whether the values of a picture are anything else than bytes, or true and false."""
        arrays = (index or self.index(data)).arrays
        for array in arrays:
            if frame < npy.pages_in(array):
                return array.dtype.str not in npy.PLAIN
            frame -= npy.pages_in(array)
        return False

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[NDArray[Any], Iterable[str]]:
        """Decode one picture; see `Format.decode`."""
        return (index or self.index(data)).decode(frame, value_range), ()

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height of the first picture."""
        return _pictures(file)[0].size

    def bytes_per_pixel(self, file: IO[bytes]) -> float:
        """What windowing takes, and with it all pictures, which are unpacked together, in two processes."""
        found = _pictures(file)
        width, height = found[0].size
        return npy.BYTES_PER_PIXEL + 2 * sum(array.bytes for array in found) / max(1, width * height)


def read_table(path: Path) -> PageTable:
    """What a file says of its pictures: see `featstore.images.formats.npz.read_table`.

    Raises
    ------
    BadImageError
        If there are no labels, or not one for each picture.
    OSError
        If the file cannot be read.
    """
    with open_regular(path) as file:
        check_length(os.fstat(file.fileno()).st_size)
        with _reachable(file) as place:
            found = _listed(place)

            def values(name: str, count: int) -> NDArray[Any]:
                shape, kind = found[name]
                if not kind:
                    raise BadImageError(
                        "unsupported", f"The labels {name!r} are texts of any length. {_FIXED}"
                    )
                own = _shape(shape, kind)
                if own.bytes > MAX_BYTES:
                    raise BadImageError("too_large", f"The labels {name!r} have {own.bytes:,} bytes.")
                return values_of(_read(place, [name])[name], count)

            return table_of(found, _picture_shapes(found), values)


# The file, in the process that reads HDF5

_FIXED = "Save them as numbers, or as texts of one length: labels.astype('S')"
_OWN = frozenset({"ids", "features"})
_MANY = 8
_Listed = dict[str, tuple[list[int], str]]


@contextmanager
def _reachable(file: IO[bytes]) -> Iterator[str]:
    """A path at which another process finds the very bytes of an open file."""
    try:
        descriptor = file.fileno()
    except OSError:  # bytes in memory
        descriptor = -1
    if descriptor >= 0 and os.path.exists(f"/proc/{os.getpid()}/fd/{descriptor}"):  # noqa: PTH110
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
        return
    file.seek(0)
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        with os.fdopen(os.memfd_create("featstore"), "wb") as copy:
            copy.write(file.read())
            copy.flush()
            yield f"/proc/{os.getpid()}/fd/{copy.fileno()}"
        return
    with tempfile.NamedTemporaryFile(suffix=".h5") as copy:
        copy.write(file.read())
        copy.flush()
        yield copy.name


def _call(work: str, path: str, *arguments: Any) -> tuple[Any, list[NDArray[Any]]]:  # noqa: ANN401
    from pathlib import Path

    try:
        return call_isolated(f"featstore.store.hdf5_guard:{work}", Path(path), *arguments)
    except LostError as error:
        raise BadImageError("corrupt", f"HDF5 cannot read it: {error}.") from error
    except RefusedFileError as error:
        why = error.cause.removeprefix("The HDF5 file ").replace(path, "the file")
        if "truncated" in why or "not all of that is in the file" in why or "beyond the end" in why:
            raise BadImageError("truncated", f"The HDF5 file {why}") from error
        raise BadImageError("unsupported", f"The HDF5 file {why} {error.remedy}") from error


def _listed(path: str) -> _Listed:
    """Shape and type of each data set."""
    found, _ = _call("list_datasets", path)
    return {str(name): (list(shape), str(kind)) for name, (shape, kind) in found.items()}


def _read(path: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Values of some data sets."""
    found, arrays = _call("read_named", path, list(names), MAX_BYTES)
    return dict(zip(found, arrays, strict=True))


def _shape(shape: Sequence[int], kind: str) -> npy.ArrayShape:
    import numpy as np

    return npy.ArrayShape(tuple(map(int, shape)), np.dtype(kind), is_fortran=False, start=0)


def _pictures(file: IO[bytes]) -> list[npy.ArrayShape]:
    with _reachable(file) as path:
        return [*_picture_shapes(_listed(path)).values()]


def _picture_shapes(found: _Listed) -> dict[str, npy.ArrayShape]:
    """Data sets of pictures, in the order of the sides.

    Raises
    ------
    BadImageError
        ``unsupported`` for features, for weights and for what has no pictures; ``too_large``, ``corrupt``.
    """
    if found.keys() >= _OWN:
        raise BadImageError(
            "unsupported", "The HDF5 file holds features, as featstore's cache does, and no images."
        )
    numbers = {name: _shape(*found[name]) for name in found if found[name][1][1:2] in set(npy.NUMBERS)}
    if not numbers:
        raise BadImageError("unsupported", f"The HDF5 file holds no numbers: {_names(found)}.")
    try:
        names = [name for _, name in pictures_of(numbers)]
    except BadImageError as error:
        raise BadImageError(error.reason, f"{error.detail} The HDF5 file has: {_names(found)}.") from error
    shapes = {name: numbers[name] for name in names}
    for name, shape in shapes.items():
        if min(shape.shape, default=0) < 1:
            raise BadImageError("corrupt", f"The data set {name!r} has an axis of no length.")
    if (total := sum(shape.bytes for shape in shapes.values())) > MAX_BYTES:
        raise BadImageError("too_large", f"The pictures have {total:,} bytes, more than {MAX_BYTES:,}.")
    return shapes


def _names(found: _Listed) -> str:
    more = f" and {len(found) - _MANY} more" if len(found) > _MANY else ""
    return ", ".join(sorted(found)[:_MANY])[:200] + more
