"""Raster images through Pillow: open, look at the header, load, turn upright, make 8-bit."""

from __future__ import annotations

import logging
import os
import struct
import threading
import warnings
from contextlib import contextmanager, nullcontext, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from featstore.errors import BadImageError
from featstore.images.formats import tiff_directory as tags
from featstore.images.formats.container import ALPHA, COLOUR, GREY, PROGRESSIVE, TURNED, check_size
from featstore.images.recipe import pairs

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from featstore.types import Pixels


_DEEP = {
    "I;16": "16-bit",
    "I;16B": "16-bit",
    "I;16L": "16-bit",
    "I;16N": "16-bit",
    "I": "32-bit",
    "F": "Float",
}
"""Depth of Pillow's modes beyond 8 bits, in words."""
_SHALLOW = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_OF_BYTE = 8
_MP_ENTRIES = 0xB002  # of the index of a multi-picture JPEG
_MAX_8_BIT, _MAX_16_BIT = 255, 65535


class Described(Protocol):
    """How a page of a TIFF is stored, by its directory: `featstore.images.formats.tiff_samples.SampleLayout`."""

    @property
    def directory(self) -> tags.Directory:
        """Where it is said."""

    @property
    def is_optional(self) -> bool:
        """Whether not every build of Pillow knows its compression."""

    def describe(self) -> str:
        """Say in a few words what it holds."""


def read_image(
    file: io.BytesIO,
    data: bytes,
    kind: str,
    layout: Described | None,
    value_range: tuple[float, ...] | None,
) -> tuple[Pixels, frozenset[str]]:
    """Decode everything for which Pillow has a mode; `kind` is Pillow's name of the format."""
    with no_warnings(), _opened(file, kind, layout) as image:
        check_size(*image.size)
        _check_depth(image, data, value_range)
        with blamed(kind, layout):
            upright, notes = _upright(image)
            inverted = _is_white_zero(image)
        if value_range is not None and _is_deep(image):
            pixels = window(np.asarray(upright), value_range, inverted=inverted)
        else:
            with blamed(kind):
                pixels, more = flatten(upright)
            notes |= more | ({"range_unused"} if value_range is not None else set())
    return pixels, notes


def needs_range(file: io.BytesIO, kind: str, layout: Described | None = None) -> bool:
    """Whether the header says 16-bit, 32-bit or float; see `featstore.images.reading.probe`."""
    with no_warnings(), _opened(file, kind, layout) as image:
        return _is_deep(image) and _declared_maximum(image) is None


def read_size(file: IO[bytes], kind: str) -> tuple[int, int]:
    """Width and height by the header."""
    file.seek(0)
    with no_warnings(), Image.open(file, formats=[kind]) as image:
        return image.size


def bytes_per_pixel(file: IO[bytes], kind: str) -> float:
    """Bytes of memory per pixel that decoding and scaling take at their peak."""
    with no_warnings(), Image.open(file, formats=[kind]) as image:
        if image.has_transparency_data:
            return ALPHA
        if kind == "JPEG" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return TURNED
        if image.info.get("progressive"):
            return PROGRESSIVE
        return GREY if image.mode in {"1", "L"} else COLOUR


@contextmanager
def _opened(file: io.BytesIO, kind: str, layout: Described | None) -> Iterator[ImageFile]:
    with blamed(kind, layout):
        image = Image.open(file, formats=[kind])
    with image:
        yield image


@contextmanager
def blamed(kind: str, layout: Described | None = None) -> Iterator[None]:
    """Turn whatever a decoder throws at damaged data, or at data that it does not know, into a reason.

    Beside OSError, ValueError, SyntaxError, EOFError and struct.error, fuzzing meets TypeError, IndexError,
    KeyError, OverflowError and AssertionError: no list of them is ever complete. So only Pillow's own calls
    stand under this roof.
    """
    try:
        yield
    except BadImageError:
        raise
    except Exception as error:
        raise _blame(error, kind, layout) from error


def _blame(error: Exception, kind: str, layout: Described | None) -> BadImageError:
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        memory = f"The {kind} needs more memory than there is."
        bomb = f"The header of the {kind} declares hundreds of megapixels."
        return BadImageError("too_large", memory if isinstance(error, MemoryError) else bomb)
    if isinstance(error, UnidentifiedImageError):
        if layout is not None and min(layout.directory.size) > 0:
            return BadImageError("unsupported", f"{layout.describe()}; convert it to 8-bit grey or RGB.")
        return BadImageError("corrupt", f"The header of the {kind} makes no sense.")
    if layout is not None and layout.is_optional:
        return BadImageError("unsupported", f"{layout.describe()}; save it with LZW or Deflate.")
    if str(error).startswith("Unsupported "):
        return BadImageError("unsupported", f"{error}; convert it to PNG.")
    cut = isinstance(error, (EOFError, struct.error)) or "truncated" in str(error).lower()
    # Pillow quotes the header of a PNM, which is text that someone wrote, and the quarantine keeps the detail.
    why = type(error).__name__ if kind == "PPM" else str(error) or type(error).__name__
    return BadImageError("truncated" if cut else "corrupt", f"The {kind} does not decode: {why}")


def _check_depth(image: ImageFile, data: bytes, value_range: tuple[float, ...] | None) -> None:
    """Refuse what Pillow would silently squeeze into 8 bits: it keeps the high byte and drops the rest."""
    if (maximum := _declared_maximum(image)) is not None:
        raise BadImageError("unsupported", f"PNM with values up to {maximum}; convert it to PNG.")
    if _is_deep(image):
        if value_range is None:
            raise BadImageError("needs_range", f"{_DEEP[image.mode]} values of grey, with no declared range.")
    elif image.mode not in _SHALLOW:
        raise BadImageError("unsupported", f"Colour mode {image.mode}; convert it to 8-bit RGB.")
    elif image.format == "PNG" and data[24] > _BITS_OF_BYTE:
        raise BadImageError("unsupported", "16-bit colour; convert it to 16-bit grey or 8-bit colour.")


def _is_deep(image: Image.Image) -> bool:
    return image.mode in _DEEP


def _declared_maximum(image: ImageFile) -> int | None:
    """Maximum of a PNM that Pillow would stretch to 8 or 16 bits, so that a value range meant other numbers."""
    if image.format != "PPM" or not image.tile or not isinstance(image.tile[0].args, tuple):
        return None
    maximum = image.tile[0].args[-1]
    plain_16_bit = image.mode == "I" and maximum == _MAX_16_BIT
    return maximum if isinstance(maximum, int) and maximum > _MAX_8_BIT and not plain_16_bit else None


def _is_white_zero(image: ImageFile) -> bool:
    """Whether 0 means white. Pillow inverts such 8-bit pages itself, and leaves deeper ones as they are."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(tags.PHOTOMETRIC) == 0


def _upright(image: ImageFile) -> tuple[Image.Image, frozenset[str]]:
    notes = set()
    with no_native_messages() if getattr(image, "use_load_libtiff", False) else nullcontext():
        image.load()  # a TIFF turns itself here, and forgets its tag
    if image.format != "TIFF" and getattr(image, "is_animated", False) and not _has_thumbnails_only(image):
        notes.add("frames")
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - metadata that cannot be parsed must not cost the picture
        return image, frozenset(notes | {"orientation"})
    return (image if turn is None else image.transpose(turn)), frozenset(notes)


def _has_thumbnails_only(image: ImageFile) -> bool:
    """Whether what a camera put behind the JPEG are smaller copies of it, made for its own screen."""
    index = getattr(image, "mpinfo", None) or {}
    others = index.get(_MP_ENTRIES, ())[1:]
    return bool(others) and all(
        str(other["Attribute"]["MPType"]).startswith("Large Thumbnail") for other in others
    )


# Loaded pictures of any mode to 8-bit grey or RGB

_OPAQUE = 255
_AT_ONCE = 1 << 22  # samples that are windowed in one go


class Alpha(NamedTuple):
    """Opacity of the pixels of a picture.

    Attributes
    ----------
    values
        uint8, shape (height, width, 1).
    is_associated
        Whether the colours are multiplied with it already.
    """

    values: Pixels
    is_associated: bool


def window(values: NDArray[Any], value_range: Sequence[float], *, inverted: bool = False) -> Pixels:
    """Map stored values linearly to 0..255, clipped and rounded to the nearest even.

    Parameters
    ----------
    values
        Samples of any number type, shape (height, width) or (height, width, channels).
    value_range
        ``(low, high)`` that become 0 and 255; or six numbers, three such pairs: grey values become red through the
        first, green through the second, blue through the third.
    inverted
        Whether the stored minimum is white.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels)

    Raises
    ------
    BadImageError
        ``nonfinite`` if there is NaN or infinity anywhere; ``unsupported`` for three windows on colours.
    """
    finite = sum(int(np.count_nonzero(np.isfinite(values[rows]))) for rows in _strips(values))
    if bad := values.size - finite:
        raise BadImageError("nonfinite", f"{bad} of {values.size} pixels are NaN or infinite.")
    planes = values[..., None] if values.ndim == 2 else values  # noqa: PLR2004
    ranges = pairs(value_range)
    if len(ranges) > 1 and planes.shape[2] > 1:
        raise BadImageError(
            "unsupported", "Three windows need grey values, and this is colour; use one window."
        )
    shown: Pixels = np.empty((*planes.shape[:2], planes.shape[2] * len(ranges)), np.uint8)
    for rows in _strips(planes):
        part = planes[rows].astype(np.float64)
        for channel, (low, high) in enumerate(ranges):
            mapped = np.rint((np.clip(part, low, high) - low) / (high - low) * 255)
            shown[rows, :, channel : channel + planes.shape[2]] = mapped
    return 255 - shown if inverted else shown


def finish(shown: Pixels, alpha: Alpha | None) -> tuple[Pixels, frozenset[str]]:
    """Put transparency on black, and make colour that is grey everywhere one channel.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width, 1 or 3)
    warnings : frozenset of str
        ``alpha``, if anything is transparent.
    """
    notes = frozenset[str]()
    if alpha is not None and alpha.values.min() < _OPAQUE:
        shown = shown if alpha.is_associated else _on_black(shown, alpha.values)
        notes = frozenset({"alpha"})
    return (_collapse(shown) if shown.shape[2] > 1 else shown), notes


def flatten(image: Image.Image) -> tuple[Pixels, frozenset[str]]:
    """Make an 8-bit picture of any mode grey or RGB.

    Colour that is grey everywhere becomes one channel: the network's door repeats it, and a third of the work
    is left in between.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width, 1 or 3)
    warnings : frozenset of str
        ``alpha`` or ``cmyk``, where that was met.
    """
    if image.has_transparency_data:
        rgba = _as_array(image, "RGBA")
        return finish(rgba[..., :3], Alpha(rgba[..., 3:], is_associated=False))
    if image.mode in {"1", "L"}:
        return _as_array(image, "L")[..., None], frozenset()
    notes = frozenset({"cmyk"}) if image.mode == "CMYK" else frozenset[str]()
    return _collapse(_as_array(image, "RGB")), notes


def _as_array(image: Image.Image, mode: str) -> Pixels:
    """Convert and copy strip by strip: whole, Pillow would hold a large picture four times over."""
    width, height = image.size
    rows = max(1, _AT_ONCE // width)
    if height <= rows:
        return np.array(image.convert(mode))
    shown: Pixels = np.empty((height, width) if mode == "L" else (height, width, len(mode)), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image.crop((0, top, width, bottom))
        shown[top:bottom] = np.asarray(strip if strip.mode == mode else strip.convert(mode))
    return shown


def _on_black(colour: Pixels, alpha: Pixels) -> Pixels:
    composited: Pixels = np.empty(colour.shape, np.uint8)
    for rows in _strips(colour):
        composited[rows] = (colour[rows].astype(np.uint16) * alpha[rows] + _OPAQUE // 2) // _OPAQUE
    return composited


def _collapse(rgb: Pixels) -> Pixels:
    red, green, blue = (rgb[..., channel] for channel in range(3))
    if all(np.array_equal(red[rows], other[rows]) for other in (green, blue) for rows in _strips(rgb)):
        return np.ascontiguousarray(rgb[..., :1])
    return np.ascontiguousarray(rgb)


def _strips(values: NDArray[Any]) -> Iterator[slice]:
    """Rows that are treated in one go."""
    step = max(1, _AT_ONCE * len(values) // values.size)
    return (slice(top, top + step) for top in range(0, len(values), step))


# Warnings and native messages of decoders silenced, without changing anything for anyone else

_DECODERS = r"(PIL|pydicom|pylibjpeg|openjpeg|rle|libjpeg)(\.|$)"
_lock = threading.Lock()
_native = threading.Lock()
_inside = 0
_filter: Any = None

# Without a handler Python prints Pillow's rare log records to stderr; a handler of the application still gets them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def no_warnings() -> Iterator[None]:
    """Ignore the warnings of Pillow and of the decoders of DICOM while any thread is inside.

    `warnings.catch_warnings` saves and restores the filters of the whole process, so two threads that overlap
    can leave the wrong ones behind; here the first one in adds one filter and the last one out removes it.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


@contextmanager
def no_native_messages() -> Iterator[None]:
    """Point the stderr of the process at the null device, one thread at a time.

    libtiff prints to it from C when data is damaged. What another thread writes to stderr in these
    milliseconds is lost, so this is for compressed TIFF only.
    """
    with _native:
        try:
            saved = os.dup(2)
        except OSError:  # a service without stderr
            yield
            return
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _enter() -> None:
    global _inside, _filter  # noqa: PLW0603 - warning filters are global themselves
    with _lock:
        _inside += 1
        if _inside == 1 or _filter not in warnings.filters:
            warnings.filterwarnings("ignore", module=_DECODERS)
            _filter = warnings.filters[0]


def _leave() -> None:
    global _inside  # noqa: PLW0603
    with _lock:
        _inside -= 1
        if not _inside:
            with suppress(ValueError, AttributeError):  # somebody else has replaced the filters meanwhile
                warnings.filters.remove(_filter)  # type: ignore[attr-defined]
