"""Digest of what a file decodes to: the same picture saved anew in another lossless format has the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.images.facts import pixel_digest
from featstore.images.reading import read_pixels

if TYPE_CHECKING:
    from featstore.types import Decoding, ImageRecord


def pixel_digest_of(record: ImageRecord, decoding: Decoding) -> str | None:
    """SHA-256 (64 hex digits) of shape and values of the decoded pixels; None if the file is gone or does not decode.

    JPEG decoders differ by grey levels, and 16-bit pixels depend on the declared range: digests are comparable
    under one `decoding` only.
    """
    try:
        return pixel_digest(read_pixels(record, decoding)).hex()
    except BadImageError:
        return None
