"""Decoding of one picture: from the bytes of a file to 8-bit pixels, or to the reason why not."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from featstore.errors import BadImageError, UsageError
from featstore.images.formats.container import HEAD, check_size, check_structure, damage_of, identify_format
from featstore.images.windows import FILE_WINDOW, pairs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from featstore.images.formats.container import Format, Index
    from featstore.types import Pixels


REASONS: dict[str, str] = {
    "aspect": "One side is more than 20 times the other; crop the image.",
    "corrupt": "The data is damaged; fetch the file again from its source.",
    "empty": "The file has no bytes; fetch it again from its source.",
    "lfs_pointer": "The file stands for an image in Git LFS; run: git lfs pull",
    "loop": "A link leads back to itself; remove it.",
    "missing": "The file is not there; restore it, or take it out of the list.",
    "needs_package": "Reading it needs a package that is not installed; the line of the file says which.",
    "needs_range": "16-bit, signed and float images need the range of their values: --range LOW,HIGH",
    "no_picture": "The file is DICOM and no picture of a patient (report, plan, mask, directory); leave it out.",
    "no_slice": "The volume has no such slice; choose others with --slices, such as --slices axial.",
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
    value_range: tuple[float, ...] | None = None,
    index: Index | None = None,
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode one picture of a raster file.

    Grey stays one channel, and so does colour whose three channels are equal everywhere; palettes become
    colour, transparency is composited on black, the orientation tag is applied.

    Parameters
    ----------
    data
        The whole file, of one of `featstore.images.formats.container.formats`.
    frame
        Page of a multi-page TIFF or slice of a stack, from 0: one of `featstore.images.manifest.Contents.frames`.
    value_range
        ``(low, high)`` in stored values, mapped linearly to 0..255, clipped and rounded. For images of more than
        8 bits, of signed or of float values, which are refused without; 8-bit images ignore it. Six numbers are
        three such pairs, for red, green and blue.
        `featstore.images.windows.FILE_WINDOW` asks for the window that the file has of its own.
    index
        Where the pages are, if that is known: see `featstore.images.formats.container.Format.index`.

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
    return decode_as(identify_format(data[:HEAD]), data, frame, value_range, index)


def decode_as(
    known: Format,
    data: bytes,
    frame: int,
    value_range: tuple[float, ...] | None,
    index: Index | None = None,
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode one picture of a file whose format is known; otherwise as `decode`."""
    with damage_of(known):
        data = known.strip(data)
        check_structure(known, data)
        if value_range == FILE_WINDOW and not known.has_window:
            value_range = None
        if known.version and value_range is None and known.needs_range(data, frame, index):
            raise BadImageError("needs_range", f"{known.name} of more than 8 bits, with no declared range.")
        found, said = known.decode(data, frame, value_range, index)
        notes = set(said)
    pixels = _checked(known, found, notes) if known.version else found
    if pixels.min() == pixels.max():
        notes.add("constant")
    return pixels, tuple(sorted(notes))


def _checked(known: Format, found: NDArray[Any], notes: Iterable[str]) -> Pixels:
    """What a plug-in made of a file, in the shape that featstore's own formats have.

    Raises
    ------
    UsageError
        If it gives anything else than a format has to.
    """
    import numpy as np

    from featstore.images.formats.pillow import finish

    pixels = np.asarray(found)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # noqa: PLR2004
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in {(1,), (3,)} or set(notes) - WARNINGS.keys():
        raise UsageError(
            f"The format {known.name} gives {pixels.dtype} of shape {pixels.shape} and the notes {sorted(notes)}.",
            "Mend that plug-in: `featstore.testing.check_format` says what a format has to give.",
        )
    check_size(pixels.shape[1], pixels.shape[0])
    return finish(np.ascontiguousarray(pixels), None)[0]


def probe(data: bytes, frame: int = 0, index: Index | None = None) -> bool:
    """Whether an image needs a declared value range, from its header alone.

    Bytes that are no image, or a damaged one, need none: `decode` will name the reason.

    Parameters
    ----------
    data
        The whole file.
    frame
        Page of a multi-page TIFF, from 0.
    index
        As for `decode`.
    """
    try:
        known = identify_format(data[:HEAD])
        with damage_of(known):
            return known.needs_range(known.strip(data), frame, index)
    except BadImageError:
        return False


def decoder_version() -> str:
    """Library and version behind `decode`, such as ``pillow 12.0.0``; read without importing it."""
    return f"pillow {version('pillow')}"


def _check_range(value_range: tuple[float, ...] | None) -> None:
    if value_range is None or value_range == FILE_WINDOW:
        return
    if len(value_range) not in {2, 6}:
        raise UsageError(
            f"A value range has two numbers, or six of three windows; this one has {len(value_range)}.",
            "Give black and white, (low, high); or three such pairs in one row.",
        )
    for low, high in pairs(value_range):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(
                f"The value range {low:g}..{high:g} is none.", "Give two finite numbers, the lower one first."
            )
