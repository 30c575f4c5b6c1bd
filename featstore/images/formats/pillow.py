"""Raster images through Pillow: open, look at the header, load, turn upright, make 8-bit."""

from __future__ import annotations

import struct
from contextlib import contextmanager, nullcontext
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from featstore.errors import BadImageError
from featstore.images.formats import samples
from featstore.images.formats import tiff_directory as tags
from featstore.images.formats.container import ALPHA, COLOUR, GREY, PROGRESSIVE, TURNED, check_size
from featstore.images.formats.jpeg import check_scans

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from PIL.ImageFile import ImageFile

    from featstore.types import Pixels


_DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
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
_TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""The same, for arrays."""
_BITS_OF_BYTE = 8
_MP_ENTRIES = 0xB002  # of the index of a multi-picture JPEG
_MAX_8_BIT, _MAX_16_BIT = 255, 65535


def read_page(
    file: io.BytesIO, layout: samples.SampleLayout, value_range: tuple[float, ...] | None
) -> tuple[Pixels, frozenset[str]]:
    """Decode one page of a TIFF.

    Parameters
    ----------
    file
        A TIFF whose first page it is.
    layout
        How that page is stored.
    value_range
        As for `featstore.images.formats.decode.decode`.
    """
    data = file.getvalue()
    if layout.is_jpeg:
        _check_parts(data, layout)
    if layout.needs_own_reader:
        pixels, notes = _read_samples(data, layout, value_range)
    else:
        pixels, notes = read_image(file, data, "TIFF", layout, value_range)
    return pixels, notes | ({"extra_channels"} if layout.has_spare_channels else frozenset())


def _check_parts(data: bytes, layout: samples.SampleLayout) -> None:
    """Look at the JPEG in each strip or tile as at one that is a file; equal tiles may stand in one place."""
    directory = layout.directory
    places = zip(
        directory.values(tags.TILE_OFFSETS) or directory.values(tags.STRIP_OFFSETS),
        directory.values(tags.TILE_BYTES) or directory.values(tags.STRIP_BYTES),
        strict=False,
    )
    parts = set(places)
    if sum(length for _, length in parts) > len(data):
        raise BadImageError("truncated", "The TIFF ends before its samples do.")
    for start, length in parts:
        check_scans(data[start : start + length])


def _read_samples(
    data: bytes, layout: samples.SampleLayout, value_range: tuple[float, ...] | None
) -> tuple[Pixels, frozenset[str]]:
    """Pages for which Pillow has no mode, or a wrong one."""
    if not min(layout.directory.size):
        raise BadImageError("corrupt", "The TIFF does not say how wide and how high it is.")
    check_size(*layout.directory.size)
    if layout.is_deep and value_range is None:
        raise BadImageError("needs_range", f"{layout.describe()}, with no declared range.")
    with samples.no_warnings(), _blamed("TIFF"):
        values = samples.read_samples(data, layout)
    pixels, notes = samples.to_pixels(values, layout, value_range if layout.is_deep else None)
    turn = _TURNED.get(layout.directory.value(tags.ORIENTATION, 1))
    return (pixels if turn is None else np.ascontiguousarray(turn(pixels))), notes


def read_image(
    file: io.BytesIO,
    data: bytes,
    kind: str,
    layout: samples.SampleLayout | None,
    value_range: tuple[float, ...] | None,
) -> tuple[Pixels, frozenset[str]]:
    """Decode everything for which Pillow has a mode; `kind` is Pillow's name of the format."""
    with samples.no_warnings(), _opened(file, kind, layout) as image:
        check_size(*image.size)
        _check_depth(image, data, value_range)
        with _blamed(kind, layout):
            upright, notes = _upright(image)
            inverted = _is_white_zero(image)
        if value_range is not None and _is_deep(image):
            pixels = samples.window(np.asarray(upright), value_range, inverted=inverted)
        else:
            with _blamed(kind):
                pixels, more = samples.flatten(upright)
            notes |= more
    return pixels, notes


def needs_range(file: io.BytesIO, kind: str, layout: samples.SampleLayout | None = None) -> bool:
    """Whether the header says 16-bit, 32-bit or float; see `featstore.images.formats.decode.probe`."""
    with samples.no_warnings(), _opened(file, kind, layout) as image:
        return _is_deep(image) and _declared_maximum(image) is None


def read_size(file: IO[bytes], kind: str) -> tuple[int, int]:
    """Width and height by the header."""
    file.seek(0)
    with samples.no_warnings(), Image.open(file, formats=[kind]) as image:
        return image.size


def bytes_per_pixel(file: IO[bytes], kind: str) -> float:
    """Bytes of memory per pixel that decoding and scaling take at their peak."""
    with samples.no_warnings(), Image.open(file, formats=[kind]) as image:
        if image.has_transparency_data:
            return ALPHA
        if kind == "JPEG" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return TURNED
        if image.info.get("progressive"):
            return PROGRESSIVE
        return GREY if image.mode in {"1", "L"} else COLOUR


@contextmanager
def _opened(file: io.BytesIO, kind: str, layout: samples.SampleLayout | None) -> Iterator[ImageFile]:
    with _blamed(kind, layout):
        image = Image.open(file, formats=[kind])
    with image:
        yield image


@contextmanager
def _blamed(kind: str, layout: samples.SampleLayout | None = None) -> Iterator[None]:
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


def _blame(error: Exception, kind: str, layout: samples.SampleLayout | None) -> BadImageError:
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
            raise BadImageError(
                "needs_range", f"Values deeper than 8 bits (mode {image.mode}), with no declared range."
            )
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
    with samples.no_native_messages() if getattr(image, "use_load_libtiff", False) else nullcontext():
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
