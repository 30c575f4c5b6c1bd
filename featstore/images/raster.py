"""Rasters through Pillow: open, look at the header, load, turn upright, make 8-bit."""

from __future__ import annotations

import io
import struct
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from PIL import (
    BmpImagePlugin,  # noqa: F401 - importing a plugin registers it; Image.open would import all forty
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from featstore.errors import BadImageError
from featstore.images.pixels import flatten, window
from featstore.images.quiet import no_native_messages, no_warnings
from featstore.images.signature import identify
from featstore.images.structure import check_size

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_BITS_OF_BYTE = 8
_MAX_8_BIT, _MAX_16_BIT = 255, 65535


def read(
    data: bytes, kind: str, frame: int, value_range: tuple[float, float] | None
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode a file whose format and structure are known; see `featstore.images.decode.decode`."""
    with no_warnings(), _opened(data, kind, frame) as image:
        check_size(*image.size)
        _check_depth(image, data, value_range)
        with _blamed(kind):
            upright, notes = _upright(image)
            inverted = _is_white_zero(image)
        if value_range is not None and _is_deep(image):
            pixels = window(upright, value_range, inverted=inverted)
        else:
            with _blamed(kind):
                pixels, more = flatten(upright)
            notes |= more
    if pixels.min() == pixels.max():
        notes |= {"constant"}
    return pixels, tuple(sorted(notes))


def needs_range(data: bytes, frame: int) -> bool:
    """Whether the header says 16-bit, 32-bit or float; see `featstore.images.decode.probe`."""
    try:
        kind = identify(data)
        if kind not in {"PNG", "PPM", "TIFF"}:
            return False
        with no_warnings(), _opened(data, kind, frame) as image:
            return _is_deep(image) and _declared_maximum(image) is None
    except BadImageError:
        return False


@contextmanager
def _opened(data: bytes, kind: str, frame: int) -> Iterator[ImageFile]:
    with _blamed(kind):
        image = Image.open(io.BytesIO(data), formats=[kind])
        if frame:
            image.seek(frame)
    with image:
        yield image


@contextmanager
def _blamed(kind: str) -> Iterator[None]:
    """Turn whatever a decoder throws at damaged data into a reason.

    Beside OSError, ValueError, SyntaxError, EOFError and struct.error, fuzzing meets TypeError, IndexError,
    KeyError, OverflowError and AssertionError: no list of them is ever complete. So only Pillow's own calls
    stand under this roof.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise BadImageError(
            "too_large", f"The header of the {kind} declares hundreds of megapixels."
        ) from error
    except MemoryError as error:
        raise BadImageError("too_large", f"The {kind} needs more memory than there is.") from error
    except UnidentifiedImageError as error:
        raise BadImageError("corrupt", f"The header of the {kind} makes no sense.") from error
    except Exception as error:
        cut = isinstance(error, (EOFError, struct.error)) or "truncated" in str(error).lower()
        reason = "truncated" if cut else "corrupt"
        # Pillow quotes the header of a PNM, which is text that someone wrote, and the quarantine keeps the detail.
        why = type(error).__name__ if kind == "PPM" else str(error) or type(error).__name__
        raise BadImageError(reason, f"The {kind} does not decode: {why}") from error


def _check_depth(image: ImageFile, data: bytes, value_range: tuple[float, float] | None) -> None:
    """Refuse what Pillow would silently squeeze into 8 bits: it keeps the high byte and drops the rest."""
    if (maximum := _declared_maximum(image)) is not None:
        raise BadImageError("unsupported", f"PNM with values up to {maximum}; convert it to PNG.")
    if _is_deep(image):
        if value_range is None:
            raise BadImageError("needs_range", f"Pixels of mode {image.mode}, with no declared range.")
    elif image.mode not in _SHALLOW:
        raise BadImageError("unsupported", f"Colour mode {image.mode}; convert it to 8-bit RGB.")
    elif _sample_bits(image, data) > _BITS_OF_BYTE:
        raise BadImageError("unsupported", "16-bit colour; convert it to 16-bit grey or 8-bit colour.")


def _is_deep(image: Image.Image) -> bool:
    return image.mode in _DEEP


def _sample_bits(image: ImageFile, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        with _blamed("TIFF"):
            return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))
    return _BITS_OF_BYTE


def _declared_maximum(image: ImageFile) -> int | None:
    """Maximum of a PNM that Pillow would stretch to 8 or 16 bits, so that a value range meant other numbers."""
    if image.format != "PPM" or not image.tile or not isinstance(image.tile[0].args, tuple):
        return None
    maximum = image.tile[0].args[-1]
    plain_16_bit = image.mode == "I" and maximum == _MAX_16_BIT
    return maximum if isinstance(maximum, int) and maximum > _MAX_8_BIT and not plain_16_bit else None


def _is_white_zero(image: ImageFile) -> bool:
    """Whether 0 means white. Pillow inverts such 8-bit pages itself, and leaves deeper ones as they are."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def _upright(image: ImageFile) -> tuple[Image.Image, frozenset[str]]:
    notes = set()
    with no_native_messages() if getattr(image, "use_load_libtiff", False) else nullcontext():
        image.load()  # a TIFF turns itself here, and forgets its tag
    if image.format != "TIFF" and getattr(image, "is_animated", False):
        notes.add("frames")
    try:
        turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - metadata that cannot be parsed must not cost the picture
        return image, frozenset(notes | {"orientation"})
    return (image if turn is None else image.transpose(turn)), frozenset(notes)
