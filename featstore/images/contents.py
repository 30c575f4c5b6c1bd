"""What the scan learns from opening a file: its digest, its format, its pages."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.files import open_regular
from featstore.fingerprint import digest_bytes
from featstore.images.listing import quarantine
from featstore.images.manifest import Quarantined
from featstore.images.pages import Pages, list_pages
from featstore.images.signature import HEAD, identify
from featstore.images.structure import check_length

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a file.

    Attributes
    ----------
    digest
        SHA-256 of the bytes, 64 hex digits.
    kind
        Raster format by content.
    frames
        Numbers of the pages that are images, from 0; the second argument of `featstore.images.decode.decode`.
    total
        Pages of the file, with those that are skipped: smaller copies and masks.
    notes
        What is odd about the pages, keys of `featstore.images.pages.PAGE_NOTES`.
    """

    digest: str
    kind: str
    frames: tuple[int, ...] = (0,)
    total: int = 1
    notes: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """How many images the file gives."""
        return len(self.frames)

    @property
    def ids(self) -> list[str]:
        """One image id per entry of `frames`."""
        if self.total == 1:
            return [self.digest]
        return [page_id(self.digest, frame) for frame in self.frames]


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
            pages = list_pages(file) if kind == "TIFF" else Pages()
            return Contents(digest, kind, pages.frames, pages.total, pages.notes)
    except OSError as error:
        return quarantine(path, error)
    except BadImageError as error:
        return Quarantined(path, digest, error.reason, error.detail)
