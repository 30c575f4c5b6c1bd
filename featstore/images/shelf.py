"""The file of several pages that was read last: its pages come one after another, and it is read and hashed once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.files import open_regular, read_bounded
from featstore.fingerprint import digest_bytes
from featstore.images.pages import read_chain
from featstore.images.signature import HEAD, raster_format
from featstore.images.structure import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from featstore.images.pages import Chain

    Stamp = tuple[int, ...]


@dataclass(slots=True, eq=False)
class File:
    """An image file in memory.

    Attributes
    ----------
    data
        Its bytes.
    chain
        Where its pages are; None for what is no TIFF, or a damaged one.
    stamp
        By which another file in its place, or a change, is noticed.
    asked
        How many pages were asked for.
    """

    data: bytes
    chain: Chain | None
    stamp: Stamp
    asked: int = 0
    _digest: str = ""
    _hashing: Lock = field(default_factory=Lock)

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, computed once."""
        with self._hashing:
            if not self._digest:
                self._digest = digest_bytes(self.data)
            return self._digest

    @property
    def pages(self) -> int:
        """How many pages the file has."""
        return 1 if self.chain is None else self.chain.last + 1


class Shelf:
    """Holds one file of several pages, until another file is read or all of its pages were asked for."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._path: Path | None = None
        self._file: File | None = None
        self._reading: dict[Path, Lock] = {}

    def file(self, path: Path) -> File:
        """Read a file, unless it is at hand and unchanged; threads that want the same wait for the first of them.

        Raises
        ------
        OSError
            As for `featstore.files.read_regular`.
        """
        with self._lock:
            reading = self._reading.setdefault(path, Lock())
        with reading:
            try:
                found = self._at_hand(path)
                if found is None:
                    found = _read(path)
                self._keep(path, found)
            finally:
                with self._lock:
                    self._reading.pop(path, None)
        return found

    def _at_hand(self, path: Path) -> File | None:
        with self._lock:
            found = self._file if self._path == path else None
        return found if found is not None and found.stamp == _stamp(path.stat()) else None

    def _keep(self, path: Path, file: File) -> None:
        with self._lock:
            file.asked += 1
            self._path, self._file = (None, None) if file.asked >= file.pages else (path, file)


def _read(path: Path) -> File:
    with open_regular(path) as file:
        data = read_bounded(file, path, MAX_BYTES)
        stamp = _stamp(os.fstat(file.fileno()))
    return File(data, _chain(data), stamp)


def _chain(data: bytes) -> Chain | None:
    if raster_format(data[:HEAD]) != "TIFF":
        return None
    try:
        return read_chain(data)
    except BadImageError:
        return None  # decoding will say what is wrong with it


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


SHELF = Shelf()
"""The one of this process."""
if hasattr(os, "register_at_fork"):  # a thread that is not in the fork may hold a lock
    os.register_at_fork(after_in_child=SHELF.__init__)  # type: ignore[misc]
