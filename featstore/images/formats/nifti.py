"""NIfTI: volumes whose slices are images, along the axis that ``--slices`` names.

The slices of all three axes have numbers in one row: axial ones from the feet up, then coronal ones from the back
forward, then sagittal ones from the left to the right. So a number says which picture is meant, whatever was asked
for, and its features are found again when another choice of slices is made.

The header is read by nibabel (the extra ``nifti``), which is imported when the first NIfTI file is met. Values stay
as they are stored until a slice is asked for; a compressed file is unpacked once, and never beyond what its header
announces.
"""

from __future__ import annotations

import gzip
import io
import re
import threading
import zlib
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from featstore.errors import BadImageError, ManifestError, did_you_mean
from featstore.images.formats.container import MAX_BYTES, MAX_PAGES, Format, Pages, check_canvas, check_size
from featstore.images.recipe import FILE_WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from featstore.types import Pixels


# Which slices are images

AXES = ("axial", "coronal", "sagittal")
"""Names of the directions that slices are stacked in; in the closest canonical orientation these are z, y, x."""
LARGEST_LUNG = "largest-lung"
_AIR = -400
"""Hounsfield units below which a voxel is taken for air."""
_RANGE = re.compile(r"range=(\d{1,4})(%?)-(\d{1,4})(%?)")
_EVERY = re.compile(r"every=(\d{1,4})")
_EXAMPLES = "Write for instance --slices axial:range=25%-75%,every=2 or --slices axial:largest-lung."


class SliceChoice(NamedTuple):
    """Slices of a volume that are images.

    Attributes
    ----------
    axis
        One of `AXES`.
    first, last
        Numbers of the first and of the last along the axis, from 0; the last one None for the end.
    is_percent
        Whether `first` and `last` are per cent of the slices instead.
    every
        Each which one is taken, from the first.
    is_largest_lung
        Whether it is the one that shows most air inside of the body.
    """

    axis: str = "axial"
    first: int = 0
    last: int | None = None
    is_percent: bool = False
    every: int = 1
    is_largest_lung: bool = False

    def numbers(self, count: int) -> range:
        """Numbers of the slices that are taken of `count`, without looking at them."""
        first, last = self.first, count - 1 if self.last is None else self.last
        if self.is_percent:
            first, last = -(-self.first * count // 100), last * count // 100 - 1
        return range(first, min(last, count - 1) + 1, self.every)


def parse_slices(text: str) -> SliceChoice:
    """Read ``axial``, ``coronal:every=4``, ``axial:range=25%-75%,every=2`` or ``axial:largest-lung``.

    Raises
    ------
    ManifestError
        If it is none of these.
    """
    axis, _, rest = text.partition(":")
    if axis not in AXES:
        raise ManifestError(f"There is no axis {axis!r}.", f"{did_you_mean(axis, AXES)} {_EXAMPLES}")
    choice = SliceChoice(axis)
    for part in filter(None, rest.split(",")):
        choice = _with_part(choice, part.strip(), text)
    if choice.is_largest_lung and choice != SliceChoice("axial", is_largest_lung=True):
        raise ManifestError(f"--slices {text!r}: the largest lung is one axial slice.", _EXAMPLES)
    return choice


def _with_part(choice: SliceChoice, part: str, text: str) -> SliceChoice:
    if part == LARGEST_LUNG:
        return choice._replace(is_largest_lung=True)
    if (found := _EVERY.fullmatch(part)) and int(found[1]):
        return choice._replace(every=int(found[1]))
    if (found := _RANGE.fullmatch(part)) and found[2] == found[4]:
        first, last, is_percent = int(found[1]), int(found[3]), bool(found[2])
        if is_percent and first < last <= 100:  # noqa: PLR2004
            return choice._replace(first=first, last=last, is_percent=True)
        if not is_percent and 1 <= first <= last:
            return choice._replace(first=first - 1, last=last - 1)
    raise ManifestError(f"--slices {text!r} cannot be read at {part!r}.", _EXAMPLES)


class Nifti(Format):
    """NIfTI-1 and NIfTI-2 in one file, plain or gzipped: each slice along an axis is an image."""

    name: ClassVar[str] = "NIFTI"
    suffixes: ClassVar[tuple[str, ...]] = (".nii",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb".{344}n\+1\0|.{4}n\+2\0\r\n\x1a\n", re.DOTALL)
    version: ClassVar[str] = "1"
    code: ClassVar[int] = 9
    has_window: ClassVar[bool] = True
    has_slices: ClassVar[bool] = True

    def sniff(self, head: bytes) -> bool:
        """Whether a file begins as NIfTI, or unpacks to what does."""
        return self.magic.match(_unpacked_head(head)) is not None

    def list_pages(self, file: IO[bytes]) -> Pages:
        """All axial slices."""
        return _pages(read_header(file), SliceChoice(), range(MAX_PAGES))

    def choose(self, file: IO[bytes], pages: Pages, slices: str) -> Pages:  # noqa: ARG002
        """Slices that ``--slices`` asks for."""
        choice = parse_slices(slices)
        header = read_header(file)
        numbers: Iterable[int] = choice.numbers(header.count(choice.axis))
        if choice.is_largest_lung:
            file.seek(0)
            with _one_at_a_time:
                numbers = [largest_lung(read_volume(file.read()))]
        return _pages(header, choice, numbers)

    def index(self, data: bytes) -> Volume:
        """The volume, unpacked."""
        return read_volume(data)

    def needs_range(self, data: bytes, frame: int, index: Volume | None = None) -> bool:  # noqa: ARG002
        """Whether values are anything else than plain bytes."""
        header = read_header(io.BytesIO(data)) if index is None else index.header
        return header.is_deep

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[Pixels, Iterable[str]]:
        """Decode one slice; see `Format.decode`."""
        return (index or self.index(data)).decode(frame, value_range), ()

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height of an axial slice."""
        right, front, _ = read_header(file).canonical
        return right, front

    def bytes_per_pixel(self, file: IO[bytes]) -> float:
        """What an axial slice takes, and with it the volume that it lies in."""
        header = read_header(file)
        right, front, _ = header.canonical
        return _BYTES_PER_PIXEL + header.data_bytes / max(1, right * front)


_BYTES_PER_PIXEL = 24
_one_at_a_time = threading.Lock()
"""Held while the scan unpacks a volume: it reads files in several threads."""


def _pages(header: Header, choice: SliceChoice, numbers: Iterable[int]) -> Pages:
    """Those slices of a volume, with the number that each has among all of the three axes."""
    count, start = header.count(choice.axis), header.start(choice.axis)
    frames = tuple(start + number for number in numbers if number < count)
    if not frames:
        raise BadImageError(
            "no_slice", f"The volume has {count} {choice.axis} slices, and none is among those asked for."
        )
    notes = ("slices",) if header.is_placed else ("slices", "unplaced")
    return Pages(frames, sum(header.canonical), notes)


# Headers

_HEADS = {1: 348, 2: 540}
"""Version to bytes of the header."""
_MOST_PACKED = 1 << 16
"""Bytes of a compressed file within which its header ends."""
_MOST_DIMENSIONS = 3
_BYTES_PER_VALUE = 8
_EXTRA = "NIfTI needs an extra of featstore: pip install 'featstore[nifti]'"


@dataclass(frozen=True, slots=True)
class Header:
    """How the values of a volume are stored, and how it lies.

    Attributes
    ----------
    shape
        Sizes of the axes as they are stored.
    axes
        For each stored axis, the canonical one (0 to the right, 1 to the front, 2 to the head) and whether it runs
        the other way.
    dtype
        Of the stored values.
    offset
        Where they begin, in bytes.
    slope, inter
        What makes a value of what is stored; None where nothing does.
    window
        Values that the file says are black and white, if it says so.
    is_placed
        Whether the header says where the volume lies in space (sform or qform); if not, nibabel takes the first axis
        to run from the right to the left.
    is_packed
        Whether the file is gzipped.
    """

    shape: tuple[int, int, int]
    axes: tuple[tuple[int, bool], ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    inter: float | None
    window: tuple[float, float] | None
    is_placed: bool
    is_packed: bool = False

    @property
    def canonical(self) -> tuple[int, int, int]:
        """Sizes to the right, to the front and to the head."""
        found = [0, 0, 0]
        for size, (axis, _) in zip(self.shape, self.axes, strict=True):
            found[axis] = size
        return found[0], found[1], found[2]

    @property
    def data_bytes(self) -> int:
        """Bytes of all values."""
        a, b, c = self.shape
        return a * b * c * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        """Whether a stored value is not the value."""
        return self.slope is not None and (self.slope, self.inter) != (1.0, 0.0)

    @property
    def is_deep(self) -> bool:
        """Whether values are other than 0..255, so that their range must be declared."""
        is_bytes = self.dtype.fields is not None or self.dtype.str == "|u1"
        return not is_bytes or self.is_scaled

    def count(self, axis: str) -> int:
        """How many slices there are along an axis of `AXES`."""
        return self.canonical[2 - AXES.index(axis)]

    def start(self, axis: str) -> int:
        """Number of the first slice along an axis, among those of all three."""
        return sum(self.count(before) for before in AXES[: AXES.index(axis)])


def read_header(file: IO[bytes]) -> Header:
    """Read the header of an open file, and refuse what no scanner writes before anything is unpacked.

    Raises
    ------
    BadImageError
        ``needs_package``, ``truncated``, ``corrupt``, ``too_large`` or ``unsupported``.
    """
    import numpy as np

    file.seek(0)
    head = file.read(_MOST_PACKED)
    is_packed = head.startswith(_GZIP)
    head = _unpacked_head(head)
    version = 2 if head[4:7] == b"n+2" else 1
    if len(head) < _HEADS[version]:
        raise BadImageError("truncated", "The NIfTI file ends within its header.")
    nibabel = _nibabel()
    kind = nibabel.Nifti2Header if version == 2 else nibabel.Nifti1Header  # noqa: PLR2004
    try:
        with np.errstate(all="ignore"):
            found = kind(head[: _HEADS[version]], check=False)
            return replace(_header(found, _HEADS[version]), is_packed=is_packed)
    except BadImageError:
        raise
    except (ValueError, TypeError, ArithmeticError, nibabel.spatialimages.HeaderDataError) as error:
        raise BadImageError("corrupt", f"The NIfTI header cannot be ({type(error).__name__}).") from error


def _nibabel() -> Any:  # noqa: ANN401
    """The library.

    Raises
    ------
    BadImageError
        ``needs_package``.
    """
    try:
        import nibabel
    except ImportError as error:
        raise BadImageError("needs_package", _EXTRA) from error
    return nibabel


def _header(found: Any, least: int) -> Header:  # noqa: ANN401
    shape = _shape(tuple(int(size) for size in found.get_data_shape()))
    dtype = found.get_data_dtype()
    if dtype.kind not in "iufV" or (dtype.kind == "V" and dtype.itemsize != 3) or _is_too_wide(dtype):  # noqa: PLR2004
        raise BadImageError(
            "unsupported", "NIfTI of complex numbers, 128 bits or transparency; save it as float32."
        )
    offset = int(found["vox_offset"])
    slope, inter = found.get_slope_inter()
    low, high = float(found["cal_min"]), float(found["cal_max"])
    header = Header(
        shape,
        _axes(found.get_best_affine()),
        dtype,
        offset,
        slope,
        inter,
        (low, high) if low < high < float("inf") else None,
        bool(found["sform_code"] > 0 or found["qform_code"] > 0),
    )
    if not least <= offset <= MAX_BYTES:
        raise BadImageError("corrupt", "The NIfTI header names a place for its values that no file has.")
    if header.data_bytes > MAX_BYTES:
        raise BadImageError(
            "too_large", f"The NIfTI header announces {header.data_bytes:,} bytes, more than {MAX_BYTES:,}."
        )
    if sum(shape) > MAX_PAGES:
        raise BadImageError("too_large", f"The NIfTI header announces more than {MAX_PAGES} slices.")
    return header


def _is_too_wide(dtype: np.dtype[Any]) -> bool:
    return dtype.kind != "V" and dtype.itemsize > _BYTES_PER_VALUE


def _shape(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    """Three sizes; a fourth dimension and more may only be 1."""
    if not sizes or min(sizes) < 1:
        raise BadImageError("corrupt", "The NIfTI header announces a volume without a size.")
    if max(sizes[_MOST_DIMENSIONS:], default=1) > 1:
        raise BadImageError(
            "unsupported",
            f"NIfTI of {len(sizes)} dimensions ({' x '.join(map(str, sizes))}), more than one volume: save one"
            " of them, or their mean, as a file of its own (nibabel.four_to_three splits it).",
        )
    a, b, c = (*sizes, 1, 1)[:_MOST_DIMENSIONS]
    return a, b, c


def _axes(affine: NDArray[np.float64]) -> tuple[tuple[int, bool], ...]:
    """Closest canonical axis of each stored one, as nibabel's `io_orientation` has it, and whether it is reversed.

    Of an oblique volume no value is computed anew: an axis goes for the one that it is nearest to, by the rotation
    nearest to the affine (polar decomposition), the clearest axis first.
    """
    import numpy as np

    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    is_sound = np.isfinite(lengths).all() and lengths.all()
    if not is_sound or np.linalg.matrix_rank(affine[:3, :3] / lengths) < len(AXES):
        raise BadImageError("corrupt", "The NIfTI header has an affine that no volume lies by.")
    found = _nibabel().io_orientation(affine)
    return tuple((int(axis), bool(sign < 0)) for axis, sign in found)


# Volumes, and their slices as pixels


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A whole file, unpacked once for all of its slices.

    Attributes
    ----------
    header
        How it is stored.
    stored
        The values as they are stored, in the order of the stored axes.
    """

    header: Header
    stored: NDArray[Any]

    @property
    def last(self) -> int:
        """Number of the last slice."""
        return sum(self.header.canonical) - 1

    def slice_values(self, frame: int) -> NDArray[Any]:
        """Values of a slice, ``(height, width)`` or ``(height, width, 3)``, as one looks at it.

        The head, or in an axial slice the front, is up; the patient's right is on the left, and in a sagittal slice
        the front is.

        Raises
        ------
        BadImageError
            ``corrupt`` if there is no such slice.
        """
        import numpy as np

        axis, number = self._place(frame)
        stored_axis = next(n for n, (canonical, _) in enumerate(self.header.axes) if canonical == axis)
        if self.header.axes[stored_axis][1]:
            number = self.stored.shape[stored_axis] - 1 - number
        plane = np.take(self.stored, number, axis=stored_axis)
        rest = [pair for n, pair in enumerate(self.header.axes) if n != stored_axis]
        for across, (_, is_reversed) in enumerate(rest):
            plane = np.flip(plane, across) if is_reversed else plane
        plane = plane if rest[0][0] > rest[1][0] else plane.T
        return self._scaled(np.ascontiguousarray(plane[::-1, ::-1]))

    def decode(self, frame: int, value_range: tuple[float, ...] | None) -> Pixels:
        """Pixels ``(height, width, 1 or 3)`` uint8 of a slice.

        Parameters
        ----------
        frame
            Its number among the slices of all three axes.
        value_range
            Black and white, three pairs of them, or `FILE_WINDOW` for what the header says (cal_min, cal_max).

        Raises
        ------
        BadImageError
            If there is no such slice, or it cannot be shown.
        """
        import numpy as np

        from featstore.images.formats.pillow import window

        values = self.slice_values(frame)
        check_size(values.shape[1], values.shape[0])
        is_colour = self.header.dtype.kind == "V"
        if value_range == FILE_WINDOW:
            value_range = self.header.window
            if value_range is None and self.header.is_deep:
                raise BadImageError(
                    "needs_range", "The NIfTI file has no window of its own (cal_min, cal_max)."
                )
        elif not self.header.is_deep:
            value_range = None
        if value_range is None or is_colour:
            shown: Pixels = values.astype(np.uint8)
            return shown if is_colour else shown[..., None]
        return window(values, value_range)

    def _place(self, frame: int) -> tuple[int, int]:
        """Canonical axis that the slice is across, and its number along that."""
        for axis in AXES:
            number = frame - self.header.start(axis)
            if 0 <= number < self.header.count(axis):
                return 2 - AXES.index(axis), number
        raise BadImageError("corrupt", f"The volume has {self.last + 1} slices and none of number {frame}.")

    def _scaled(self, plane: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if self.header.dtype.kind == "V":
            return plane.view(np.uint8).reshape(*plane.shape, 3)
        if self.header.slope is None or not self.header.is_scaled:
            return plane
        scaled: NDArray[Any] = plane.astype(np.float64) * self.header.slope + (self.header.inter or 0.0)
        return scaled


def read_volume(data: bytes) -> Volume:
    """Read a file; what is compressed is unpacked as far as the header says, and no further.

    Raises
    ------
    BadImageError
        As for `read_header`, and if values are missing.
    """
    import numpy as np

    header = read_header(io.BytesIO(data))
    width, height, depth = header.canonical
    for across, down in ((width, height), (width, depth), (height, depth)):
        check_canvas(across, down)
    end = header.offset + header.data_bytes
    values = _unpacked(data, end) if header.is_packed else data
    if len(values) < end:
        raise BadImageError("truncated", "The NIfTI file holds fewer values than it announces.")
    count = header.data_bytes // header.dtype.itemsize
    stored = np.frombuffer(values, header.dtype, count, header.offset)
    return Volume(header, stored.reshape(header.shape, order="F"))


def largest_lung(volume: Volume) -> int:
    """Number of the axial slice with most air inside of the body; of several the one nearest to the feet.

    Air is what lies below -400 Hounsfield units, and inside is what does not reach the edge of the slice.

    Raises
    ------
    BadImageError
        ``no_slice`` if there is none.
    """
    import numpy as np
    from scipy import ndimage

    def area(number: int) -> int:
        values = volume.slice_values(number)
        parts, count = ndimage.label(values < _AIR)
        outside = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[outside] = 0
        return int(sizes[1:].sum())

    if volume.header.dtype.kind == "V":
        raise BadImageError("no_slice", "The volume is of colours, and lungs are found in Hounsfield units.")
    areas = [area(number) for number in range(volume.header.count("axial"))]
    if not any(areas):
        raise BadImageError(
            "no_slice", "No slice shows air inside of a body: it is no chest, or not in Hounsfield units."
        )
    return areas.index(max(areas))


# Compressed files

_GZIP = b"\x1f\x8b"
_AT_ONCE = 1 << 20
_MOST_OF_A_HEADER = 544


def _unpacked_head(head: bytes) -> bytes:
    """The header of what may be gzipped, as far as it is there; `head` itself where it is not."""
    if not head.startswith(_GZIP):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _MOST_OF_A_HEADER)
    except zlib.error:
        return b""


def _unpacked(data: bytes, length: int) -> bytearray:
    """The first bytes of what is compressed, or all of it if that is less; its checksum, if it ends there."""
    found = bytearray()
    try:
        for block in _blocks(data, length):
            found += block
    except EOFError as error:
        raise BadImageError("truncated", "The compressed NIfTI file ends before its content does.") from error
    except (OSError, zlib.error) as error:
        raise BadImageError("corrupt", "The compressed NIfTI file does not unpack.") from error
    return found


def _blocks(data: bytes, length: int) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        while length and (block := file.read(min(_AT_ONCE, length))):
            length -= len(block)
            yield block
        file.read(1)  # at the end the checksum is compared
