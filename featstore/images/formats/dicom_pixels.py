"""Pixels of DICOM files, through pydicom: stored values, values in their unit, 8-bit pixels.

The order is that of PS3.3 C.11 and C.7.6.3: stored values; padding set aside; the modality's look-up table or rescale
(of the frame in Enhanced files, which pydicom leaves to its caller); the declared range; MONOCHROME1 turned over.

pydicom quotes what it reads in its errors, warnings and log. None of that leaves here: a file is refused in words of
this file alone, since the quarantine is kept.
"""

from __future__ import annotations

import io
import logging
import math
import struct
import threading
import zlib
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featstore.errors import BadImageError
from featstore.images.formats.container import MAX_PAGES, check_size
from featstore.images.formats.dicom import TRANSFER_SYNTAX, read_meta, refuse_by_class
from featstore.images.formats.pillow import no_warnings, window
from featstore.images.recipe import FILE_WINDOW, WINDOWS, pairs, window_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.types import Pixels


# pydicom, quiet

_LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "rle", "libjpeg")
_inside = threading.local()


@cache
def _pydicom() -> Any:  # noqa: ANN401
    """The library, with its log silent while a file is read here.

    Raises
    ------
    BadImageError
        ``needs_package``.
    """
    try:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels
    except ImportError as error:
        raise BadImageError(
            "needs_package", "DICOM needs an extra of featstore: pip install 'featstore[dicom]'"
        ) from error
    for name in _LIBRARIES:
        for logger in (name, *(n for n in logging.root.manager.loggerDict if n.startswith(f"{name}."))):
            logging.getLogger(logger).addFilter(lambda _record: not getattr(_inside, "yes", False))
    return pydicom


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pydicom says about a file to itself, and take whatever it raises for damage."""
    before, _inside.yes = getattr(_inside, "yes", False), True
    try:
        with no_warnings():
            yield
    except BadImageError:
        raise
    except MemoryError as error:
        raise BadImageError("too_large", "The DICOM file needs more memory than there is.") from error
    except (EOFError, struct.error) as error:
        raise BadImageError("truncated", "The DICOM file ends before its content does.") from error
    except Exception as error:
        raise BadImageError("corrupt", f"The DICOM file does not decode ({type(error).__name__}).") from error
    finally:
        _inside.yes = before


# Headers

_UNDEFINED = 0xFFFFFFFF
"""Length of an element that ends with a mark."""
_MOST_INFLATED = 1 << 28
_DEFLATED = "1.2.840.10008.1.2.1.99"
_META_BYTES = 1 << 16
_IMAGE = (
    "SOPClassUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration",
)  # fmt: skip
_PIXELS = (
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "PixelPresentation", "Modality", "RescaleType",
    *(
        f"{part}{colour}PaletteColorLookupTable{what}"
        for colour in ("Red", "Green", "Blue")
        for part, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
)  # fmt: skip
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PIXEL_TAGS = (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10", b"\xe0\x7f\x08\0", b"\xe0\x7f\x09\0")
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_BITS_OF_BYTE = 8


@dataclass(frozen=True, slots=True)
class Header:
    """How the pixels of a file are stored.

    Attributes
    ----------
    rows, columns, frames, samples
        Sizes; samples per pixel.
    photometric
        What the samples mean, such as ``MONOCHROME2``.
    allocated, stored
        Bits per sample, and how many of them count.
    is_signed
        Whether whole numbers have a sign.
    """

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    is_signed: bool

    @property
    def frame_bits(self) -> int:
        """Bits of a frame that is not compressed."""
        each = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * each * self.allocated


def read_header(
    file: IO[bytes], texts: Sequence[str] = (), numbers: Sequence[str] = ()
) -> tuple[Header, dict[str, str], list[dict[str, tuple[float, ...]]]]:
    """How the pixels of an open file are stored, and what else its header says; the pixels are not read.

    Parameters
    ----------
    file
        The file, open for reading.
    texts
        Keywords of texts: stripped, and empty where there is none, or none that can be read.
    numbers
        Keywords of numbers, which come back for each frame, from where that frame has them.

    Raises
    ------
    BadImageError
        ``needs_package``, ``no_picture``, ``truncated``, ``corrupt`` or ``too_large``.
    """
    dataset = _read(file, (*_IMAGE, *texts, *numbers, *(_GROUPS if numbers else ())))
    header = _header(dataset, file)
    found = _numbers_by_frame(dataset, header.frames, numbers) if numbers else []
    return header, {keyword: _text(dataset, keyword) for keyword in texts}, found


def _numbers_by_frame(
    dataset: Any,  # noqa: ANN401
    frames: int,
    keywords: Sequence[str],
) -> list[dict[str, tuple[float, ...]]]:
    """What each frame says in numbers: itself, all frames together, or the file; nothing that does not read."""
    shared: dict[str, tuple[float, ...]] = {}
    own: Sequence[Any] = ()
    try:
        with _quiet():
            shared = _numbers(dataset, keywords)
            for group in _items(dataset, "SharedFunctionalGroupsSequence")[:1]:
                shared |= _numbers_of_group(group, keywords)
            own = _items(dataset, "PerFrameFunctionalGroupsSequence")[:frames]
    except BadImageError:
        own = ()
    found = []
    for frame in range(frames):
        mine = dict(shared)
        with suppress(BadImageError), _quiet():
            mine |= _numbers_of_group(own[frame], keywords) if frame < len(own) else {}
        found.append(mine)
    return found


def _numbers_of_group(group: Any, keywords: Sequence[str]) -> dict[str, tuple[float, ...]]:  # noqa: ANN401
    items = [part for element in group if element.VR == "SQ" for part in element.value[:1]]
    return {keyword: found for part in items for keyword, found in _numbers(part, keywords).items()}


def _numbers(dataset: Any, keywords: Sequence[str]) -> dict[str, tuple[float, ...]]:  # noqa: ANN401
    found = {}
    for keyword in keywords:
        value = dataset.get(keyword)
        if value is None or value == "":
            continue
        values = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        numbers = tuple(float(part) for part in values)
        if numbers and all(map(math.isfinite, numbers)):
            found[keyword] = numbers
    return found


def _read(file: IO[bytes], keywords: Sequence[str], *, pixels: bool = False) -> Any:  # noqa: ANN401
    """Elements of a file that were asked for."""
    pydicom = _pydicom()
    file.seek(0)
    with _quiet():
        _check_inflated(file)
        file.seek(0)
        return pydicom.dcmread(file, stop_before_pixels=not pixels, specific_tags=list(keywords))


def _check_inflated(file: IO[bytes]) -> None:
    """Refuse a deflated file that pydicom would unpack to more than anybody stores so."""
    if read_meta(file.read(_META_BYTES)).get(TRANSFER_SYNTAX) != _DEFLATED:
        return
    file.seek(0)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    data = file.read()
    unpacked = len(unpacker.decompress(data[_meta_end(data) :], _MOST_INFLATED))
    if unpacked >= _MOST_INFLATED:
        raise BadImageError("too_large", f"The DICOM file unpacks to more than {_MOST_INFLATED >> 20} MiB.")


def _meta_end(data: bytes) -> int:
    at = 132
    while data[at : at + 2] == b"\2\0":
        is_long = data[at + 4 : at + 6] in {b"OB", b"OW", b"SQ", b"UN", b"UT"}
        at += (
            12 + struct.unpack_from("<I", data, at + 8)[0]
            if is_long
            else 8 + struct.unpack_from("<H", data, at + 6)[0]
        )
    return at


def _text(dataset: Any, keyword: str) -> str:  # noqa: ANN401
    try:
        with _quiet():
            value = dataset.get(keyword)
            return "" if value is None else " ".join(str(value).split())
    except BadImageError:
        return ""


def _number(dataset: Any, keyword: str, default: float | None = None) -> float:  # noqa: ANN401
    """A number of the header; `default` where there is none."""
    found = None
    with suppress(BadImageError), _quiet():
        value = dataset.get(keyword)
        found = default if value is None or value == "" else float(value)
    if found is None or not math.isfinite(found):
        raise BadImageError("corrupt", f"The DICOM header has no usable {keyword}.")
    return found


def _header(dataset: Any, file: IO[bytes]) -> Header:  # noqa: ANN401
    if "Rows" not in dataset or "Columns" not in dataset:
        raise _without_picture(dataset, file)
    rows, columns, samples, allocated = (
        int(_number(dataset, keyword, default))
        for keyword, default in (
            ("Rows", None),
            ("Columns", None),
            ("SamplesPerPixel", 1),
            ("BitsAllocated", None),
        )
    )
    frames = max(1, int(_number(dataset, "NumberOfFrames", 1)))
    if frames > MAX_PAGES:
        raise BadImageError("too_large", f"The DICOM file announces more than {MAX_PAGES} frames.")
    return Header(
        rows=rows,
        columns=columns,
        frames=frames,
        samples=samples,
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        allocated=allocated,
        stored=int(_number(dataset, "BitsStored", allocated)),
        is_signed=bool(_number(dataset, "PixelRepresentation", 0)),
    )


def _without_picture(dataset: Any, file: IO[bytes]) -> BadImageError:  # noqa: ANN401
    """What to say of a file without rows and columns: it is cut short, or something else than a picture."""
    meta = getattr(dataset, "file_meta", {})
    with _quiet():
        name = str(getattr(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID"), "name", ""))
        is_whole = meta.get("TransferSyntaxUID") == _DEFLATED or _ends_with_an_element(file)
    if not is_whole:
        return BadImageError("truncated", "The DICOM file ends within its header.")
    what = f" ({name})" if name and not name[0].isdigit() else ""
    return BadImageError("no_picture", f"The DICOM file holds no picture{what}.")


def _ends_with_an_element(file: IO[bytes]) -> bool:
    """Whether the last element ends where the file does."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    dataset = _pydicom().dcmread(file)
    tags = sorted(dataset.keys())
    last = dataset.get_item(tags[-1]) if tags else None
    length = getattr(last, "length", None)
    if last is None or length is None or length == _UNDEFINED:
        return last is not None
    return bool(last.value_tell + length == size)


# One file, and its frames as pixels

_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED, "1.2.840.10008.1.2.2"})
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_BASELINE, _EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201",
                        "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})  # fmt: skip
_EXTRA = "pip install 'featstore[dicom]'"
_LIBJPEG = "pip install pylibjpeg-libjpeg (its licence is GPL)"


class Codec(NamedTuple):
    """What decodes a kind of compression, on every machine the same.

    Attributes
    ----------
    plugin
        Plug-in of pydicom.
    name
        What the compression is called.
    remedy
        How to install it.
    """

    plugin: str
    name: str
    remedy: str = _EXTRA


_CODECS = {
    _RLE: Codec("pydicom", "RLE"),  # pylibjpeg's panics on damage, past every handler of exceptions
    _BASELINE: Codec("pillow", "JPEG"),
    _EXTENDED: Codec("pylibjpeg", "12-bit JPEG", _LIBJPEG),
    **dict.fromkeys(_JPEG_2000, Codec("pylibjpeg", "JPEG 2000")),
    **dict.fromkeys(_LOSSLESS, Codec("pylibjpeg", "Lossless JPEG", _LIBJPEG)),
    **dict.fromkeys(_JPEG_LS, Codec("pylibjpeg", "JPEG-LS", _LIBJPEG)),
}
_MAX_TILES = 4096
_SIZE_2000 = b"\xff\x51"


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a file, PS3.3 C.11.2.1.2 and C.11.2.1.3.

    Attributes
    ----------
    level, width
        Center and width, in the unit of the modality.
    function
        ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    level: float
    width: float
    function: str

    def show(self, values: NDArray[Any], *, inverted: bool) -> Pixels:
        """8-bit pixels ``(height, width, 1)`` of values."""
        smallest = 1 if self.function == "LINEAR" else 0
        if self.width < smallest or not self.width:
            raise BadImageError("corrupt", f"The window of the DICOM file is {self.width:g} wide.")
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values.astype(np.float64) - self.level) / self.width, -700, 700)
            return window(1 / (1 + np.exp(exponent)), (0, 1), inverted=inverted)
        if self.function == "LINEAR_EXACT":
            return window(values, window_range(self.level, self.width), inverted=inverted)
        if self.function != "LINEAR":
            raise BadImageError("corrupt", "The window of the DICOM file has a function that there is not.")
        low, high = window_range(self.level - 0.5, self.width - 1)
        return window(values, (low, max(high, math.nextafter(low, math.inf))), inverted=inverted)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table of a file in place of a window, PS3.3 C.11.2.1.1.

    Attributes
    ----------
    first
        Value that the first entry is for; smaller ones have that entry, too large ones the last.
    entries
        What is shown, ``(n,)``.
    bits
        Of the entries: the largest number of so many is white.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def show(self, values: NDArray[Any], *, inverted: bool) -> Pixels:
        """8-bit pixels ``(height, width, 1)`` of values; fractions go to the nearest entry."""
        at = np.clip(np.rint(values.astype(np.float64)) - self.first, 0, len(self.entries) - 1)
        return window(self.entries[at.astype(np.intp)], (0, (1 << self.bits) - 1), inverted=inverted)


@dataclass(frozen=True, slots=True, eq=False)
class DicomImage:
    """A whole file, read once for all of its frames.

    Attributes
    ----------
    header
        How its pixels are stored.
    syntax
        UID of the transfer syntax: how they are compressed.
    keyword
        Element that holds them.
    dataset
        What pydicom read.
    """

    header: Header
    syntax: str
    keyword: str
    dataset: Any

    @property
    def last(self) -> int:
        """Number of the last frame."""
        return self.header.frames - 1

    def is_deep(self, frame: int) -> bool:
        """Whether a frame needs a declared range: grey, and anything else than plain bytes."""
        if self.header.photometric not in GREY:
            return False
        is_plain = (
            self.keyword == "PixelData"
            and self.header.stored <= _BITS_OF_BYTE
            and not self.header.is_signed
            and "ModalityLUTSequence" not in self.dataset
        )
        return not is_plain or self._rescale(frame) != (1.0, 0.0)

    def decode(self, frame: int, value_range: tuple[float, ...] | None) -> Pixels:
        """Pixels ``(height, width, 1 or 3)`` uint8 of a frame.

        Parameters
        ----------
        frame
            Its number, from 0.
        value_range
            Black and white in the unit of the modality, such as Hounsfield units, or `FILE_WINDOW`; needed where
            `is_deep`.

        Raises
        ------
        BadImageError
            If it does not decode.
        """
        self._check(frame)
        if self.header.photometric in GREY:
            return self._grey(frame, value_range)
        if self.header.photometric == "PALETTE COLOR":
            return self._palette(frame)
        return self._colour(frame)

    def notes(self, frame: int, value_range: tuple[float, ...] | None) -> tuple[str, ...]:
        """``not_hounsfield`` where a window of CT is put on grey values that are in another unit."""
        if value_range is None or self.header.photometric not in GREY or not self.is_deep(frame):
            return ()
        modality = str(self.dataset.get("Modality", "") or "").strip().upper()
        source = self._source(frame, "PixelValueTransformationSequence")
        in_unit = str(source.get("RescaleType", "") or "").strip().upper().startswith("HU")
        of_ct = any(window_range(*named) in pairs(value_range) for named in WINDOWS.values())
        return ("not_hounsfield",) if of_ct and modality not in {"", "CT"} and not in_unit else ()

    def values(self, frame: int) -> NDArray[Any]:
        """Grey values of a frame in the unit of the modality, ``(height, width)``."""
        return self._in_unit(self._stored(frame)[0], frame)

    # Kinds of pixels

    def _grey(self, frame: int, value_range: tuple[float, ...] | None) -> Pixels:
        stored, padding = self._stored(frame)
        is_inverted = self.header.photometric == "MONOCHROME1"
        own = self._window(frame) if value_range == FILE_WINDOW else None
        if own is not None:
            shown = own.show(self._in_unit(stored, frame), inverted=is_inverted)
        elif self.is_deep(frame):
            if value_range is None:
                raise BadImageError("needs_range", "DICOM of more than 8 bits, with no declared range.")
            if value_range == FILE_WINDOW:
                raise BadImageError("needs_range", "The DICOM file has no window of its own.")
            shown = window(self._in_unit(stored, frame), value_range, inverted=is_inverted)
        else:
            top = (1 << self.header.stored) - 1
            shown = window(stored.astype(np.uint8), (0, top), inverted=is_inverted)
        if padding is not None:
            shown[padding] = 0
        return shown

    def _palette(self, frame: int) -> Pixels:
        if self.syntax == _BIG_ENDIAN:
            raise BadImageError("unsupported", "Big-endian palette; convert it to PNG.")
        if self.header.stored > 16 or self.header.samples != 1:  # noqa: PLR2004
            raise BadImageError("unsupported", "Palette of more than 16 bits; convert it to PNG.")
        with _quiet():
            found = _pydicom().pixels.apply_color_lut(self._stored(frame)[0], self.dataset)[..., :3]
            return np.ascontiguousarray(found if found.dtype == np.uint8 else found >> 8, dtype=np.uint8)

    def _colour(self, frame: int) -> Pixels:
        if self.header.stored != _BITS_OF_BYTE or self.keyword != "PixelData":
            raise BadImageError("unsupported", "DICOM colour of other than 8 bits; convert it to 8-bit PNG.")
        found = self._array(frame)
        if found.dtype != np.uint8 or found.shape != (self.header.rows, self.header.columns, 3):
            raise BadImageError("corrupt", "The DICOM file holds other samples than its header says.")
        return np.ascontiguousarray(found)

    # Steps

    def _stored(self, frame: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Stored values ``(height, width)``, and which are padding; None where nothing is."""
        found = self._array(frame)
        if found.shape != (self.header.rows, self.header.columns):
            raise BadImageError("corrupt", "The DICOM file holds other samples than its header says.")
        padding = self._padding(found)
        unused = found.dtype.itemsize * 8 - self.header.stored
        if found.dtype.kind in "iu" and unused > 0 and self.header.stored > 1:
            found = np.right_shift(np.left_shift(found, unused), unused)
        return found, padding

    def _padding(self, found: NDArray[Any]) -> NDArray[Any] | None:
        """Where there is no field of view: the padding value, or from it to the limit of its range."""
        if "PixelPaddingValue" not in self.dataset or found.dtype.kind not in "iu":
            return None
        first = _number(self.dataset, "PixelPaddingValue")
        last = _number(self.dataset, "PixelPaddingRangeLimit", first)
        low, high = sorted(
            _wrapped(int(value), found.dtype.itemsize, found.dtype.kind) for value in (first, last)
        )
        inside: NDArray[Any] = (found >= low) & (found <= high)
        return inside if inside.any() else None

    def _in_unit(self, stored: NDArray[Any], frame: int) -> NDArray[Any]:
        """Values by the modality's table or rescale."""
        if "ModalityLUTSequence" in self.dataset:
            with _quiet():
                found: NDArray[Any] = _pydicom().pixels.apply_modality_lut(stored, self.dataset)
                return found
        slope, intercept = self._rescale(frame)
        if (slope, intercept) == (1.0, 0.0):
            return stored
        values = stored.astype(np.float64)
        values *= slope
        values += intercept
        return values

    def _rescale(self, frame: int) -> tuple[float, float]:
        """Slope and intercept."""
        source = self._source(frame, "PixelValueTransformationSequence")
        slope = _number(source, "RescaleSlope", 1.0)
        if not slope:
            raise BadImageError(
                "corrupt", "The DICOM file has a RescaleSlope of 0: all of its pixels would be alike."
            )
        return slope, _number(source, "RescaleIntercept", 0.0)

    def _source(self, frame: int, keyword: str) -> Any:  # noqa: ANN401
        """What says something of a frame: a sequence of its own, that of all frames, or the file."""
        with _quiet():
            places = [
                *_items(self.dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1],
                *_items(self.dataset, "SharedFunctionalGroupsSequence")[:1],
            ]
            found = [item for place in places for item in _items(place, keyword)]
        return found[0] if found else self.dataset

    def _window(self, frame: int) -> Window | Table | None:
        """The first table that the file says for a frame, else its first window; None where it says neither."""
        source = self._source(frame, "FrameVOILUTSequence")
        if tables := _items(source, "VOILUTSequence"):
            return self._table(tables[0])
        if source.get("WindowCenter") is None or source.get("WindowWidth") is None:
            return None
        level, width = (_first(source, keyword) for keyword in ("WindowCenter", "WindowWidth"))
        return Window(level, width, _text(source, "VOILUTFunction").upper() or "LINEAR")

    def _table(self, found: Any) -> Table:  # noqa: ANN401
        with _quiet():
            count, first, bits = map(int, found.LUTDescriptor)
            data = found.LUTData
            order = ">u2" if self.syntax == _BIG_ENDIAN else "<u2"
            entries = np.frombuffer(data, order) if isinstance(data, bytes) else np.asarray(data, np.uint16)
            wanted = count % (1 << 16) or 1 << 16
            if not 8 <= bits <= 16 or len(entries) < wanted:  # noqa: PLR2004
                raise BadImageError(
                    "corrupt", "The table of the DICOM file, in place of a window, is damaged."
                )
            return Table(first, entries[:wanted].astype(np.uint16), bits)

    def _array(self, frame: int) -> NDArray[Any]:
        """A frame as pydicom decodes it; colour comes as RGB."""
        codec = self._codec()
        with _quiet():
            decoder = _pydicom().pixels.get_decoder(self.syntax)
            if codec is not None:
                if codec.plugin not in decoder.available_plugins:
                    raise BadImageError(
                        "needs_package", f"{codec.name} in DICOM needs another package: {codec.remedy}"
                    )
                self._check_frame(self._frame_bytes(frame))
            found: NDArray[Any] = decoder.as_array(
                self.dataset,
                index=frame,
                decoding_plugin="" if codec is None else codec.plugin,
                correct_unused_bits=False,
            )[0]
        return found

    def _codec(self) -> Codec | None:
        """What decodes it; None where nothing is compressed."""
        if self.syntax in _NATIVE:
            return None
        if self.syntax == _EXTENDED and self.header.stored == _BITS_OF_BYTE:
            return _CODECS[_BASELINE]
        if self.syntax not in _CODECS:
            raise BadImageError(
                "unsupported", "The DICOM file is compressed as video, or in a rare way; convert it to PNG."
            )
        return _CODECS[self.syntax]

    # What is looked at before anything is decoded

    def _check(self, frame: int) -> None:
        header = self.header
        if not header.rows or not header.columns:
            raise BadImageError("corrupt", f"The header says {header.columns} x {header.rows} pixels.")
        check_size(header.columns, header.rows)
        if not 0 <= frame < header.frames:
            raise BadImageError("corrupt", f"The file has {header.frames} frames and none of number {frame}.")
        if header.photometric not in GREY | _COLOUR | {"PALETTE COLOR"}:
            raise BadImageError(
                "unsupported", "The DICOM file has an unusual kind of colour; convert it to PNG."
            )
        if header.samples != (3 if header.photometric in _COLOUR else 1):
            raise BadImageError(
                "corrupt", f"The header says {header.samples} samples of {header.photometric}."
            )
        if not 0 < header.stored <= header.allocated:
            raise BadImageError("corrupt", f"The header says {header.stored} of {header.allocated} bits.")
        if self.syntax in _NATIVE:
            wanted = (header.frames * header.frame_bits + 7) // 8
            if len(self.dataset[self.keyword].value) < wanted:
                raise BadImageError("truncated", "The DICOM file holds fewer pixels than it announces.")

    def _frame_bytes(self, frame: int) -> bytes:
        offsets = None
        if "ExtendedOffsetTable" in self.dataset and "ExtendedOffsetTableLengths" in self.dataset:
            offsets = (self.dataset.ExtendedOffsetTable, self.dataset.ExtendedOffsetTableLengths)
        found: bytes = _pydicom().encaps.get_frame(
            self.dataset.PixelData, frame, number_of_frames=self.header.frames, extended_offsets=offsets
        )
        return found

    def _check_frame(self, frame: bytes) -> None:
        """Refuse a compressed picture of another size than the header says, before a decoder makes room for it."""
        from featstore.images.formats.jpeg import Jpeg, check_scans

        if self.syntax == _RLE:
            return
        if self.syntax in _JPEG_2000:
            size = _jpeg_2000_size(frame)
        elif self.syntax in _JPEG_LS:
            size = struct.unpack_from(">HH", frame, frame.index(b"\xff\xf7") + 5)[::-1]
        else:
            check_scans(frame)
            size = Jpeg().size(io.BytesIO(frame))
        if size != (self.header.columns, self.header.rows):
            raise BadImageError(
                "corrupt", "The picture in the DICOM file is of another size than its header says."
            )
        if self.syntax in _JPEG_2000:
            _check_tiles(frame)


def read_image(data: bytes) -> DicomImage:
    """Read a file.

    Raises
    ------
    BadImageError
        ``needs_package``, ``no_picture``, ``truncated``, ``corrupt`` or ``too_large``.
    """
    refuse_by_class(io.BytesIO(data))
    dataset = _read(io.BytesIO(data), _IMAGE + _PIXELS, pixels=True)
    header = _header(dataset, io.BytesIO(data))
    keyword = next((keyword for keyword in _KEYWORDS if keyword in dataset), None)
    if keyword is None:
        if any(tag in data for tag in _PIXEL_TAGS):
            raise BadImageError("truncated", "The DICOM file ends within its pixels.")
        raise BadImageError("no_picture", "The DICOM file describes a picture and holds none.")
    with _quiet():
        syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise BadImageError("corrupt", "The DICOM header does not say how the pixels are stored.")
    return DicomImage(header, syntax, keyword, dataset)


def _first(dataset: Any, keyword: str) -> float:  # noqa: ANN401
    """The first of one or more numbers."""
    with _quiet():
        value = dataset.get(keyword)
        found = float(value if isinstance(value, int | float | str) else value[0])
    if not math.isfinite(found):
        raise BadImageError("corrupt", f"The DICOM header has no usable {keyword}.")
    return found


def _items(dataset: Any, keyword: str) -> Sequence[Any]:  # noqa: ANN401
    found = dataset.get(keyword)
    return found if found is not None else ()


def _wrapped(value: int, size: int, kind: str) -> int:
    """A padding value as whole numbers of that size hold it: headers give it with another sign than the pixels."""
    bits = 8 * size
    value %= 1 << bits
    return value - (1 << bits) if kind == "i" and value >> (bits - 1) else value


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    width, height, left, top = struct.unpack_from(">4I", frame, frame.index(_SIZE_2000) + 6)
    return width - left, height - top


def _check_tiles(frame: bytes) -> None:
    """Refuse a JPEG 2000 that sends a decoder to thousands of parts."""
    width, height, _, _, across, down = struct.unpack_from(">6I", frame, frame.index(_SIZE_2000) + 6)
    if math.ceil(width / max(1, across)) * math.ceil(height / max(1, down)) > _MAX_TILES:
        raise BadImageError("unsupported", f"JPEG 2000 of more than {_MAX_TILES} tiles; convert it to PNG.")
