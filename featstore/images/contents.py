"""What the scan learns from opening a file: its digest, its format, its pages."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.files import open_regular
from featstore.fingerprint import digest_bytes
from featstore.images.listing import quarantine
from featstore.images.manifest import Quarantined
from featstore.images.signature import HEAD, identify
from featstore.images.structure import MAX_PAGES, check_length

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Contents:
    """Digest of the bytes (64 hex digits), raster format by content, and number of pages."""

    digest: str
    kind: str
    pages: int = 1

    @property
    def ids(self) -> list[str]:
        """One image id per page."""
        if self.pages == 1:
            return [self.digest]
        return [page_id(self.digest, page) for page in range(self.pages)]


def page_id(digest: str, page: int) -> str:
    """Image id of one page of a file that holds several."""
    return digest_bytes(f"{digest}#{page}".encode())


def read_contents(path: Path) -> Contents | Quarantined:
    """Read a file once, in blocks; what cannot be an image comes back as a row for the quarantine."""
    digest = None
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
            file.seek(0)
            check_length(os.fstat(file.fileno()).st_size)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            kind = identify(head)
            return Contents(digest, kind, _count_pages(file, head) if kind == "TIFF" else 1)
    except OSError as error:
        return quarantine(path, error)
    except BadImageError as error:
        return Quarantined(path, digest, error.reason, error.detail)


def _count_pages(file: IO[bytes], head: bytes) -> int:
    """Follow the chain of directories of a TIFF; a broken chain ends where it breaks, a circle where it closes.

    A page may be six bytes and share all others, so a small file could announce millions.
    """
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in {b"+\0", b"\0+"}
    count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
    start = 8 if big else 4
    seen: set[int] = set()
    try:
        (offset,) = _unpack(file, start, order + link)
        while offset and offset not in seen and len(seen) <= MAX_PAGES:
            (entries,) = _unpack(file, offset, order + count)
            seen.add(offset)
            (offset,) = _unpack(file, offset + struct.calcsize(count) + entries * entry, order + link)
    except (struct.error, OSError, OverflowError, ValueError):
        pass  # the pages found so far are there; decoding will say what is wrong with the last
    if len(seen) > MAX_PAGES:
        raise BadImageError("too_large", f"The TIFF has more than {MAX_PAGES} pages.")
    return max(1, len(seen))


def _unpack(file: IO[bytes], offset: int, form: str) -> tuple[int, ...]:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))
