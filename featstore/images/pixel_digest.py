"""SHA-256 of decoded pixels: the same picture saved anew in another lossless format has the same one."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.files import read_regular
from featstore.images.decode import decode
from featstore.images.structure import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from featstore.types import Decoding, ImageRecord, Pixels


def digest_pixels(pixels: Pixels) -> str:
    """SHA-256 (64 hex digits) over shape and values of ``(height, width, 1 or 3)`` uint8."""
    shape = ",".join(map(str, pixels.shape))
    found = hashlib.sha256(f"{shape};".encode())
    found.update(pixels.tobytes())
    return found.hexdigest()


def pixel_digest(record: ImageRecord, decoding: Decoding) -> str | None:
    """Digest of what a file decodes to; None if it is gone or does not decode.

    JPEG decoders differ by grey levels, and 16-bit pixels depend on the declared range: digests are comparable
    under one `decoding` only.
    """
    try:
        pixels, _ = decode(read_regular(record.path, MAX_BYTES), record.frame, decoding.value_range)
    except (OSError, BadImageError):
        return None
    return digest_pixels(pixels)


def pixel_digests(records: Iterable[ImageRecord], decoding: Decoding) -> dict[str, str]:
    """Digests by image id, of the images that decode."""
    rows = list(records)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda record: pixel_digest(record, decoding), rows))
    return {row.id: value for row, value in zip(rows, found, strict=True) if value is not None}
