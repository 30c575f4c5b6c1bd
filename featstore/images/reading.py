"""A file of a manifest as pixels, if its bytes are still those of its id."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from featstore.errors import BadImageError
from featstore.images.contents import page_id
from featstore.images.decode import decode, probe
from featstore.images.shelf import SHELF

if TYPE_CHECKING:
    from featstore.types import Decoding, ImageRecord, Pixels

CHANGED = "changed"
MISSING = "missing"
PERMISSION = "permission"


class Picture(NamedTuple):
    """What a file held.

    Attributes
    ----------
    data
        Its bytes.
    pixels
        ``(height, width, 1 or 3)`` uint8.
    notes
        Keys of `featstore.images.decode.WARNINGS`: what was done to the image, or is odd about it.
    """

    data: bytes
    pixels: Pixels
    notes: tuple[str, ...]


def read_picture(record: ImageRecord, decoding: Decoding) -> Picture:
    """Read and decode one file, and insist that its bytes are still those of its id.

    Raises
    ------
    BadImageError
        If the file is gone, unreadable, changed since the scan, or does not decode.
    """
    try:
        file = SHELF.file(record.path)
    except PermissionError as error:
        raise BadImageError(PERMISSION, "the file may not be read") from error
    except OSError as error:
        raise BadImageError(MISSING, f"the file cannot be read any more: {error.strerror}") from error
    if record.id not in {file.digest, page_id(file.digest, record.frame)}:
        raise BadImageError(CHANGED, "the file changed after it was scanned")
    pixels, notes = decode(file.data, record.frame, decoding.value_range, file.chain)
    return Picture(file.data, pixels, notes)


def needs_range(record: ImageRecord) -> bool:
    """Whether an image needs a declared value range; not if its file cannot be read."""
    try:
        file = SHELF.file(record.path)
    except OSError:
        return False
    return probe(file.data, record.frame, file.chain)


def read_pixels(record: ImageRecord, decoding: Decoding) -> Pixels:
    """Pixels ``(height, width, 1 or 3)`` uint8 of one file; see `read_picture`."""
    return read_picture(record, decoding).pixels
