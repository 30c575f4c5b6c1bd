"""Decoding of one picture: from the bytes of a file to 8-bit pixels, or to the reason why not."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import TYPE_CHECKING

from featstore.errors import UsageError
from featstore.images.formats.container import (
    HEAD,
    check_structure,
    identify,
    without_bulk,
    without_stray_bytes,
)

if TYPE_CHECKING:
    from featstore.images.formats.tiff import Chain
    from featstore.types import Pixels


REASONS: dict[str, str] = {
    "aspect": "One side is more than 20 times the other; crop the image.",
    "corrupt": "The data is damaged; fetch the file again from its source.",
    "empty": "The file has no bytes; fetch it again from its source.",
    "lfs_pointer": "The file stands for an image in Git LFS; run: git lfs pull",
    "loop": "A link leads back to itself; remove it.",
    "missing": "The file is not there; restore it, or take it out of the list.",
    "needs_range": "16-bit, signed and float images need the range of their values: --range LOW,HIGH",
    "nonfinite": "The image contains NaN or infinity; replace them before exporting it.",
    "not_file": "The path is a folder, pipe, socket or device; give the path of an image.",
    "not_image": "The content is no image; look at the file and fetch it again.",
    "permission": "The file may not be read; change its permissions (chmod +r).",
    "too_large": "More than 64 megapixels, 1 GiB or 4096 pages; scale the image down, or split it.",
    "too_small": "A side is shorter than 8 pixels; leave the image out.",
    "truncated": "The file is cut short; fetch it again from its source.",
    "unreadable": "The disk or the network failed while reading; try again.",
    "unsupported": "The format is not decoded; convert the image to PNG.",
}
"""Why an image is in quarantine: code -> what to do about it."""

WARNINGS: dict[str, str] = {
    "alpha": "Transparency was composited on black.",
    "cmyk": "CMYK was converted to RGB without a colour profile.",
    "constant": "All pixels are equal.",
    "extra_channels": "Channels beyond grey, or red, green and blue, were left out.",
    "frames": "The file holds several pictures; only the first was taken.",
    "orientation": "The orientation tag could not be read; the image was taken as stored.",
}
"""What was done to an image, or is odd about it: code -> what it means."""


def decode(
    data: bytes,
    frame: int = 0,
    value_range: tuple[float, float] | None = None,
    chain: Chain | None = None,
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode one picture of a raster file.

    Grey stays one channel, and so does colour whose three channels are equal everywhere; palettes become
    colour, transparency is composited on black, the orientation tag is applied.

    Parameters
    ----------
    data
        The whole file: PNG, JPEG, BMP, GIF, TIFF, WebP or PNM.
    frame
        Page of a multi-page TIFF or slice of a stack, from 0: one of `featstore.images.manifest.Contents.frames`.
    value_range
        ``(low, high)`` in stored values, mapped linearly to 0..255, clipped and rounded. For images of more than
        8 bits, of signed or of float values, which are refused without; 8-bit images ignore it.
    chain
        Where the pages of the TIFF are, if that is known: see `featstore.images.formats.tiff.read_chain`.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width, 1 or 3)
        Grey or RGB.
    warnings : tuple of str
        Keys of `WARNINGS`.

    Raises
    ------
    BadImageError
        With one of `REASONS`.
    UsageError
        If `value_range` is not two finite numbers in rising order.
    """
    _check_range(value_range)
    kind = identify(data[:HEAD])
    data = without_stray_bytes(data)
    check_structure(kind, data)
    if kind == "PNG":
        data = without_bulk(data)
    from featstore.images.formats import pillow

    return pillow.read(data, kind, frame, value_range, chain)


def probe(data: bytes, frame: int = 0, chain: Chain | None = None) -> bool:
    """Whether an image needs a declared value range, from its header alone.

    Bytes that are no image, or a damaged one, need none: `decode` will name the reason.

    Parameters
    ----------
    data
        The whole file.
    frame
        Page of a multi-page TIFF, from 0.
    chain
        As for `decode`.
    """
    from featstore.images.formats import pillow

    return pillow.needs_range(data, frame, chain)


def decoder_version() -> str:
    """Library and version behind `decode`, such as ``pillow 12.0.0``; read without importing it."""
    return f"pillow {version('pillow')}"


def _check_range(value_range: tuple[float, float] | None) -> None:
    if value_range is None:
        return
    low, high = value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"The value range {low:g}..{high:g} is none.", "Give two finite numbers, the lower one first."
        )
