"""What one image shows without a network: its file, its grey levels, and what decoding it noted.

A fact follows from the bytes of the file and the way of decoding alone, like a feature vector, so it can be kept with
them. Facts are what shortcuts and odd files are found by. Copies are found by miniatures, which are pictures of
patients and are never kept.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from featstore.images.decode import WARNINGS
from featstore.images.reading import read_picture
from featstore.images.resize import resize
from featstore.images.signature import identify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Decoding, ImageRecord, Pixels

FACTS_REVISION = 1
"""Raised when a fact is computed otherwise, or another is added."""
BINS = 16
ROUNDING = 1e-3
_AT_ONCE = 1 << 22  # values that are counted in one go
SIDE = 64
"""Side of the grey miniature, pixels."""
KINDS = ("", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MODES = ("", "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F")
NOTES = tuple(sorted(WARNINGS))

FACT = np.dtype(
    [
        ("id", "S32"),
        ("pixels", "S32"),
        ("bytes", "<u8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("channels", "u1"),
        ("kind", "u1"),
        ("mode", "u1"),
        ("notes", "<u4"),
        ("histogram", "<f4", (BINS,)),
    ]
)
"""One image: id and SHA-256 of its pixels (32 bytes each), the file's head, grey histogram."""


def look(record: ImageRecord, decoding: Decoding) -> tuple[NDArray[np.void], Pixels]:
    """Read one image and note what it shows.

    Parameters
    ----------
    record
        The image.
    decoding
        How its bytes become pixels.

    Returns
    -------
    Array of shape ``()`` and dtype `FACT`, and a grey miniature ``(SIDE, SIDE)`` uint8.

    Raises
    ------
    BadImageError
        As for `featstore.images.reading.read_picture`.
    """
    data, pixels, notes = read_picture(record, decoding)
    height, width, channels = pixels.shape
    row = np.zeros((), FACT)
    row["id"] = bytes.fromhex(record.id)
    row["pixels"] = pixel_digest(pixels)
    row["bytes"], row["width"], row["height"], row["channels"] = len(data), width, height, channels
    row["kind"], row["mode"] = _index(KINDS, identify(data)), _index(MODES, _stored_mode(data))
    row["notes"] = sum(1 << NOTES.index(note) for note in notes)
    row["histogram"] = _counts(pixels) / pixels.size
    miniature: Pixels = np.rint(resize(pixels, SIDE).mean(axis=2)).astype(np.uint8)
    return row, miniature


def pixel_digest(pixels: Pixels) -> bytes:
    """SHA-256 (32 bytes) of shape and values: equal for the same picture in any lossless format."""
    found = hashlib.sha256(repr(pixels.shape).encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()


def _counts(pixels: Pixels) -> NDArray[np.intp]:
    """Values by bin; NumPy makes eight bytes of each that it counts, so only some rows at a time."""
    rows = max(1, _AT_ONCE * len(pixels) // pixels.size)
    parts = (pixels[top : top + rows].ravel() // (256 // BINS) for top in range(0, len(pixels), rows))
    counts: NDArray[np.intp] = np.sum([np.bincount(part, minlength=BINS) for part in parts], axis=0)
    return counts


def plausible(facts: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which rows ``(n,)`` can be facts of an image at all: they may come from somebody else's cache."""
    sizes = (facts["bytes"] > 0) & (facts["width"] > 0) & (facts["height"] > 0)
    shares = facts["histogram"]
    whole: NDArray[np.bool_] = sizes & (shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) < ROUNDING)
    return whole


def notes_of(row: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Keys of `featstore.images.decode.WARNINGS` that decoding this image gave."""
    return tuple(note for bit, note in enumerate(NOTES) if int(row["notes"]) >> bit & 1)


def file_columns(facts: NDArray[np.void]) -> NDArray[np.float64]:
    """What is known of the files without looking at a picture, as columns ``(n, features)``.

    Bytes, width, height and bytes per pixel on a logarithmic scale; channels; format and stored mode as 0 and 1.
    """
    size, width, height = (facts[name].astype(np.float64) for name in ("bytes", "width", "height"))
    columns = [
        np.log(size),
        np.log(width),
        np.log(height),
        np.log(size / (width * height)),
        facts["channels"],
    ]
    columns += [facts["kind"] == kind for kind in np.unique(facts["kind"])]
    columns += [facts["mode"] == mode for mode in np.unique(facts["mode"])]
    return np.column_stack(columns).astype(np.float64)


def _stored_mode(data: bytes) -> str:
    """Colour mode that the header names, where Pillow reads it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode
    except Exception:  # noqa: BLE001 - it has been decoded; what its header is called is no reason to fail
        return ""


def _index(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else 0
