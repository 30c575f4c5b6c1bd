"""Arrays of NumPy: one picture or a stack of them in a ``.npy`` file, read without ever unpickling anything.

What an array of pictures is, holds for archives of arrays (``.npz``), too.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import MAX_BYTES, MIN_SIDE, Format, Pages, check_canvas, check_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray


class Npy(Format):
    """An array of NumPy: a picture, or a stack whose first axis counts pictures."""

    name: ClassVar[str] = "NPY"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"\x93NUMPY[\1-\3]\0")
    version: ClassVar[str] = "1"
    code: ClassVar[int] = 10

    def list_pages(self, file: IO[bytes]) -> Pages:
        """Each picture of the stack."""
        return pages_of([read_shape(file)])

    def index(self, data: bytes) -> Stack:
        """The pictures, where they are in the file."""
        return Stack((read_array(data),))

    def needs_range(self, data: bytes, frame: int, index: Stack | None = None) -> bool:  # noqa: ARG002
        """Whether the values are anything else than bytes, or true and false."""
        return read_shape(io.BytesIO(data)).is_deep

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
        """Width and height of each picture."""
        return read_shape(file).size

    def bytes_per_pixel(self, file: IO[bytes]) -> float:  # noqa: ARG002
        """What windowing takes; the stored values are the file."""
        return BYTES_PER_PIXEL


BYTES_PER_PIXEL = 24


# What an array of pictures is

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
        """How many pictures it holds."""
        return self.stacked[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of each picture."""
        _, height, width, _ = self.stacked
        return width, height

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
        is_volume = len(self.shape) == 4 or (len(self.shape) == 5 and 1 in self.shape[1::3])  # noqa: PLR2004
        hint = " Of volumes (OrganMNIST3D), save one slice each: images[:, 14]." if is_volume else ""
        raise BadImageError(
            "unsupported",
            f"An array of shape {' x '.join(map(str, self.shape)) or 'one number'}: pictures are height x width,"
            f" count x height x width, or the same with 3 channels at the end.{hint}",
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
            "unsupported", "An array of Python objects, which is never unpickled; save numbers."
        )
    if dtype.kind not in kinds or (dtype.kind in NUMBERS and dtype.itemsize > _WIDEST):
        raise BadImageError("unsupported", "An array of something else than real numbers of up to 64 bits.")
    if min(found.shape, default=1) < 1:
        raise BadImageError("corrupt", "The array has an axis of no length.")
    if found.bytes > MAX_BYTES:
        raise BadImageError("too_large", f"The array has {found.bytes:,} bytes, more than {MAX_BYTES:,}.")
    return found


def pages_of(arrays: Sequence[ArrayShape]) -> Pages:
    """Pictures of some arrays, in one row."""
    for array in arrays:
        check_canvas(*array.size)
    count = sum(array.count for array in arrays)
    if count > MAX_IMAGES:
        raise BadImageError("too_large", f"The arrays hold {count:,} pictures, more than {MAX_IMAGES:,}.")
    return Pages(tuple(range(count)), count, ("pages",) if count > 1 else ())


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Pictures of a file.

    Attributes
    ----------
    arrays
        Of shape (pictures, height, width, channels), one behind the other.
    """

    arrays: tuple[NDArray[Any], ...]

    @property
    def last(self) -> int:
        """Number of the last picture."""
        return sum(map(len, self.arrays)) - 1

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
            if 0 <= number < len(array):
                break
            number -= len(array)
        else:
            raise BadImageError(
                "corrupt", f"The arrays hold {self.last + 1} pictures and none of number {frame}."
            )
        picture = array[number]
        check_size(picture.shape[1], picture.shape[0])
        if picture.dtype.str == "|b1":
            return np.where(picture, np.uint8(255), np.uint8(0))
        if picture.dtype.str == "|u1":
            return np.array(picture, np.uint8)
        if value_range is None:
            raise BadImageError("needs_range", "An array of more than 8 bits, with no declared range.")
        return window(picture[..., 0] if picture.shape[2] == 1 else picture, value_range)


def read_array(data: bytes | memoryview, found: ArrayShape | None = None) -> NDArray[Any]:
    """Pictures ``(count, height, width, channels)`` of an array, without copying them.

    Parameters
    ----------
    data
        The array as `numpy.save` writes it.
    found
        What its header says, if that is read.

    Raises
    ------
    BadImageError
        As for `read_shape`; ``truncated``.
    """
    import numpy as np

    found = found or read_shape(io.BytesIO(data))
    if len(data) - found.start < found.bytes:
        raise BadImageError("truncated", "The array has fewer values than it announces.")
    flat = np.frombuffer(data, found.dtype, math.prod(found.shape), found.start)
    return stacked(flat.reshape(found.shape, order="F" if found.is_fortran else "C"), found)


def stacked(array: NDArray[Any], found: ArrayShape) -> NDArray[Any]:
    """Pictures ``(count, height, width, channels)`` of an array of the shape that it has."""
    import numpy as np

    count, height, width, channels = found.stacked
    if array.ndim == _COLOURS and array.shape != (count, height, width, channels):
        array = np.moveaxis(array, 1, -1)
    return array.reshape(count, height, width, channels)
