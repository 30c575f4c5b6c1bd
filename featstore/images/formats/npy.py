"""Arrays of NumPy: one picture or a stack of them in a ``.npy`` file, read without ever unpickling anything.

What an array of pictures is, holds for archives of arrays (``.npz``), too.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, Any, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import MAX_BYTES, MIN_SIDE, Format, Pages, check_canvas, check_size
from featstore.images.formats.nifti import AXES, SliceChoice, parse_slices
from featstore.processes import memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray


class ArrayFormat(Format):
    """Arrays of pictures in a file: what all such formats have in common, once they say which arrays there are."""

    version: ClassVar[str] = "1"
    has_slices: ClassVar[bool] = True

    def shapes(self, file: IO[bytes]) -> Sequence[ArrayShape]:
        """Arrays of pictures in an open file, in the order of their pictures; values are not read."""
        raise NotImplementedError

    def index(self, data: bytes) -> Stack:
        """The pictures, or where they are."""
        raise NotImplementedError

    def most_bytes(self) -> int:
        """As much as of any file of arrays."""
        return most_bytes()

    def list_pages(self, file: IO[bytes]) -> Pages:
        """Each picture of all arrays that hold pictures."""
        file.seek(0)
        return pages_of(self.shapes(file))

    def choose(self, file: IO[bytes], pages: Pages, slices: str) -> Pages:  # noqa: ARG002
        """Slices of volumes that ``--slices`` asks for."""
        file.seek(0)
        return pages_of(self.shapes(file), slices)

    def needs_range(self, data: bytes, frame: int, index: Stack | None = None) -> bool:
        """Whether the values of a picture are anything else than bytes, or true and false."""
        shapes = self.shapes(io.BytesIO(data)) if index is None else [one.shape for one in index.arrays]
        for shape in shapes:
            if frame < shape.pages:
                return shape.is_deep
            frame -= shape.pages
        return False

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[NDArray[Any], Iterable[str]]:
        """Decode one picture; see `Format.decode`."""
        pictures = index or self.index(data)
        unused = value_range is not None and not pictures.is_deep(frame)
        return pictures.decode(frame, value_range), ("range_unused",) if unused else ()

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height of the first picture."""
        file.seek(0)
        return self.shapes(file)[0].size

    def bytes_per_pixel(self, file: IO[bytes]) -> float:
        """What windowing takes, and what is held at once."""
        file.seek(0)
        shapes = self.shapes(file)
        return BYTES_PER_PIXEL + self.held_bytes(file, shapes) / max(1, math.prod(shapes[0].size))

    def held_bytes(self, file: IO[bytes], shapes: Sequence[ArrayShape]) -> int:  # noqa: ARG002
        """Bytes that are unpacked together, beside those of the file."""
        return 0


class Npy(ArrayFormat):
    """An array of NumPy: a picture, or a stack whose first axis counts pictures."""

    name: ClassVar[str] = "NPY"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"\x93NUMPY[\1-\3]\0")
    code: ClassVar[int] = 10

    def shapes(self, file: IO[bytes]) -> Sequence[ArrayShape]:
        """The only array."""
        return [read_shape(file)]

    def index(self, data: bytes) -> Stack:
        """The pictures, where they are in the file."""
        shape = read_shape(io.BytesIO(data))
        return Stack((read_array(data, shape),))


BYTES_PER_PIXEL = 24


# What an array of pictures is

_SHARE = 8
"""What is held at once: a file and its pictures, by each of some processes."""


@cache
def most_bytes() -> int:
    """Largest file of arrays, and most that it unpacks to: an eighth of this machine's memory, and 1 GiB at least."""
    return max(MAX_BYTES, memory_bytes()[0] // _SHARE)


MAX_IMAGES = 1_000_000
"""Most pictures that a file of arrays may have."""
_CHANNELS = frozenset({1, 3})
_GREY, _STACK, _COLOURS = 2, 3, 4
_WIDEST = 8
_HEADER = 10_000
"""Characters that the header of an array may have."""


@dataclass(frozen=True, slots=True)
class ArrayShape:
    """What an array says of itself before its values are read.

    Attributes
    ----------
    shape
        Sizes of its axes.
    dtype
        Of its values.
    is_fortran
        Whether the first axis is the one along which values follow each other.
    start
        Bytes of the header, after which they begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    start: int

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_deep(self) -> bool:
        """Whether values are other than 0..255, so that their range must be declared."""
        return self.dtype.str not in PLAIN

    @property
    def count(self) -> int:
        """How many pictures or volumes it holds."""
        return self.stacked[0] if self.volumes is None else self.volumes[0]

    @property
    def pages(self) -> int:
        """How many pictures it holds; of volumes, slices along each of the three axes."""
        return self.stacked[0] if self.volumes is None else self.volumes[0] * sum(self.volumes[1:])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of each picture, or of each slice along the first axis of a volume."""
        _, height, width = self.stacked[:3] if self.volumes is None else self.volumes[1:]
        return width, height

    @property
    def volumes(self) -> tuple[int, int, int, int] | None:
        """Volumes, and sizes of their axes, where it holds volumes of grey (MedMNIST3D); None of pictures."""
        match self.shape:
            case (count, a, b, c) if a not in _CHANNELS and c not in _CHANNELS:
                found = count, a, b, c
            case (count, 1, a, b, c) | (count, a, b, c, 1):
                found = count, a, b, c
            case _:
                return None
        return found if min(found[1:]) >= MIN_SIDE else None

    @property
    def stacked(self) -> tuple[int, int, int, int]:
        """Pictures, height, width and channels; an axis of 1 or 3 at the end, or the second, is of channels."""
        match self.shape:
            case (height, width):
                return 1, height, width, 1
            case (height, width, channels) if channels in _CHANNELS and height >= MIN_SIDE:
                return 1, height, width, channels
            case (count, height, width):
                return count, height, width, 1
            case (count, height, width, channels) if channels in _CHANNELS:
                return count, height, width, channels
            case (count, channels, height, width) if channels in _CHANNELS:
                return count, height, width, channels
        raise BadImageError(
            "unsupported",
            f"An array of shape {' x '.join(map(str, self.shape)) or 'one number'}: pictures are height x width,"
            " count x height x width, or the same with 3 channels at the end; volumes are count x depth x height x"
            " width.",
        )


PLAIN = frozenset({"|u1", "|b1"})
"""Types whose values need no range."""
NUMBERS, NAMES = "biuf", "biufSU"
"""Kinds of values that are pictures, and those that name a class or a patient."""


def read_shape(file: IO[bytes], kinds: str = NUMBERS) -> ArrayShape:
    """Read the header of an array in an open file, from its first byte.

    Parameters
    ----------
    file
        The file, open where the array begins.
    kinds
        Kinds of values that are read, as NumPy calls them.

    Raises
    ------
    BadImageError
        ``unsupported`` for objects, which only a pickle can hold, and for what is no number; ``truncated``,
        ``corrupt``, ``too_large``.
    """
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(file, max_header_size=_HEADER)
        found = ArrayShape(tuple(map(int, shape)), dtype, bool(is_fortran), file.tell())
    except (ValueError, TypeError, SyntaxError, ArithmeticError, RecursionError) as error:
        raise BadImageError(
            "corrupt", f"The header of the array cannot be read ({type(error).__name__})."
        ) from error
    if dtype.hasobject:
        raise BadImageError(
            "unsupported",
            "An array of Python objects, which is never unpickled; save numbers, or texts with .astype(str).",
        )
    if dtype.kind not in kinds or (dtype.kind in NUMBERS and dtype.itemsize > _WIDEST):
        raise BadImageError("unsupported", "An array of something else than real numbers of up to 64 bits.")
    if min(found.shape, default=1) < 1:
        raise BadImageError("corrupt", "The array has an axis of no length.")
    if found.bytes > most_bytes():
        raise BadImageError("too_large", f"The array has {found.bytes:,} bytes, more than {most_bytes():,}.")
    return found


def pages_of(arrays: Sequence[ArrayShape], slices: str | None = None) -> Pages:
    """Pictures of some arrays, in one row; of volumes the slices that are asked for, by default along the first axis.

    A slice has its number among those along all three axes, as in NIfTI: another choice finds its features again.
    """
    for array in arrays:
        check_canvas(*array.size)
    choice = SliceChoice() if slices is None else parse_slices(slices)
    total = sum(array.pages for array in arrays)
    if any(array.volumes for array in arrays) and choice.is_largest_lung:
        raise BadImageError(
            "no_slice", "The slice of the largest lung is found by Hounsfield units, which NIfTI has."
        )
    frames: list[int] = []
    rows: list[int] = []
    start = row = 0
    for array in arrays:
        numbers = _numbers(array, choice)
        if len(frames) + array.count * len(numbers) > MAX_IMAGES:
            raise BadImageError("too_large", f"The arrays hold {total:,} pictures, more than {MAX_IMAGES:,}.")
        every = array.pages // array.count
        frames += [start + volume * every + number for volume in range(array.count) for number in numbers]
        rows += [row + volume for volume in range(array.count) for _ in numbers]
        start, row = start + array.pages, row + array.count
    if not frames:
        raise BadImageError("no_slice", f"The volumes have no {choice.axis} slices of those asked for.")
    if any(array.volumes for array in arrays):
        return Pages(tuple(frames), total, ("slices",), rows=tuple(rows))
    return Pages(tuple(frames), total, ("pages",) if total > 1 else ())


def _numbers(array: ArrayShape, choice: SliceChoice) -> Sequence[int]:
    """Which slices of each volume, by their number among those along all axes; the only one of a picture."""
    if array.volumes is None:
        return range(1)
    sides = array.volumes[1:]
    axis = AXES.index(choice.axis)
    return [sum(sides[:axis]) + number for number in choice.numbers(sides[axis]) if number < sides[axis]]


@dataclass(frozen=True, slots=True, eq=False)
class ArrayOfPictures:
    """Pictures or volumes of an array.

    Attributes
    ----------
    shape
        What the array says of itself.
    read
        Gives a picture ``(height, width, channels)``, or a volume ``(depth, height, width, 1)``, by its number.
    """

    shape: ArrayShape
    read: Callable[[int], NDArray[Any]]

    def picture(self, number: int) -> NDArray[Any]:
        """Picture ``(height, width, channels)``; of volumes the slice of this number, along all axes."""
        if self.shape.volumes is None:
            return self.read(number)
        sides = self.shape.volumes[1:]
        volume, number = divmod(number, sum(sides))
        axis = 0
        while number >= sides[axis]:
            number -= sides[axis]
            axis += 1
        taken: NDArray[Any] = self.read(volume).take(number, axis)
        return taken


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Pictures of a file.

    Attributes
    ----------
    arrays
        One behind the other.
    """

    arrays: tuple[ArrayOfPictures, ...]

    @property
    def last(self) -> int:
        """Number of the last picture."""
        return sum(array.shape.pages for array in self.arrays) - 1

    def is_deep(self, frame: int) -> bool:
        """Whether a picture has values that a range makes grey levels of."""
        for array in self.arrays:
            if frame < array.shape.pages:
                return array.shape.is_deep
            frame -= array.shape.pages
        return False

    def decode(self, frame: int, value_range: tuple[float, ...] | None) -> NDArray[np.uint8]:
        """Pixels ``(height, width, 1 or 3)`` of a picture: bytes as they are, true as white, others windowed.

        Raises
        ------
        BadImageError
            If there is no such picture, or it cannot be shown.
        """
        import numpy as np

        from featstore.images.formats.pillow import window

        number = frame
        for array in self.arrays:
            if 0 <= number < array.shape.pages:
                break
            number -= array.shape.pages
        else:
            raise BadImageError(
                "corrupt", f"The arrays hold {self.last + 1} pictures and none of number {frame}."
            )
        picture = array.picture(number)
        check_size(picture.shape[1], picture.shape[0])
        if picture.dtype.str == "|b1":
            return np.where(picture, np.uint8(255), np.uint8(0))
        if picture.dtype.str == "|u1":
            return np.array(picture, np.uint8)
        if value_range is None:
            raise BadImageError("needs_range", "An array of more than 8 bits, with no declared range.")
        return window(picture[..., 0] if picture.shape[2] == 1 else picture, value_range)


def read_array(data: bytes | memoryview, found: ArrayShape) -> ArrayOfPictures:
    """Pictures of an array, without copying them.

    Parameters
    ----------
    data
        The array as `numpy.save` writes it.
    found
        What its header says.

    Raises
    ------
    BadImageError
        ``truncated``.
    """
    import numpy as np

    if len(data) - found.start < found.bytes:
        raise BadImageError("truncated", "The array has fewer values than it announces.")
    flat = np.frombuffer(data, found.dtype, math.prod(found.shape), found.start)
    array = stacked(flat.reshape(found.shape, order="F" if found.is_fortran else "C"), found)
    return ArrayOfPictures(found, array.__getitem__)


def stacked(array: NDArray[Any], found: ArrayShape) -> NDArray[Any]:
    """Pictures ``(count, height, width, channels)``, or volumes ``(count, depth, height, width, 1)``."""
    import numpy as np

    if found.volumes is not None:
        return array.reshape(*found.volumes, 1)
    count, height, width, channels = found.stacked
    if array.ndim == _COLOURS and array.shape != (count, height, width, channels):
        array = np.moveaxis(array, 1, -1)
    return array.reshape(count, height, width, channels)
