"""Images read as pixels within the memory that there is.

A file is read only if its bytes are still those of its id.
"""

from __future__ import annotations

import ctypes
import hashlib
import heapq
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from featstore.errors import BadImageError
from featstore.images.formats import container
from featstore.images.formats.decode import decode, probe
from featstore.images.manifest import content_id, page_id
from featstore.serialization import digest_bytes, open_regular, read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader
    from pathlib import Path

    from featstore.types import Decoding, ImageRecord, Pixels

    Stamp = tuple[int, ...]

# A file of a manifest as pixels

CHANGED = "changed"
MISSING = "missing"
PERMISSION = "permission"
NEEDS_PACKAGE = "needs_package"


class Picture(NamedTuple):
    """Content of an image file: its bytes and its pixels.

    Attributes
    ----------
    data
        Its bytes.
    pixels
        ``(height, width, 1 or 3)`` uint8.
    notes
        Keys of `featstore.images.formats.decode.WARNINGS`: what was done to the image, or is odd about it.
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
        file = FILE_CACHE.file(record.path)
    except PermissionError as error:
        raise BadImageError(PERMISSION, "the file may not be read") from error
    except OSError as error:
        raise BadImageError(MISSING, f"the file cannot be read any more: {error.strerror}") from error
    if record.id not in {file.content_id, page_id(file.content_id, record.frame)}:
        raise BadImageError(CHANGED, "the file changed after it was scanned")
    pixels, notes = decode(file.data, record.frame, decoding.value_range, file.index)
    return Picture(file.data, pixels, notes)


def needs_range(record: ImageRecord) -> bool:
    """Whether an image needs a declared value range; not if its file cannot be read."""
    try:
        file = FILE_CACHE.file(record.path)
    except OSError:
        return False
    return probe(file.data, record.frame, file.index)


def read_pixels(record: ImageRecord, decoding: Decoding) -> Pixels:
    """Pixels ``(height, width, 1 or 3)`` uint8 of one file; see `read_picture`."""
    return read_picture(record, decoding).pixels


# The file of several pages that was read last: its pages follow each other; it is read and hashed once.


@dataclass(slots=True, eq=False)
class CachedFile:
    """An image file in memory.

    Attributes
    ----------
    data
        Its bytes.
    index
        Where its pages are; None for what is no image, or a damaged one.
    stamp
        By which another file in its place, or a change, is noticed.
    asked
        How many pages were asked for.
    """

    data: bytes
    index: container.Index | None
    stamp: Stamp
    asked: int = 0
    _id: str = ""
    _hashing: Lock = field(default_factory=Lock)

    @property
    def content_id(self) -> str:
        """Image id of the file, if it holds one image; hashed once."""
        with self._hashing:
            if not self._id:
                self._id = content_id(
                    digest_bytes(self.data), container.find_format(self.data[: container.HEAD])
                )
            return self._id

    @property
    def pages(self) -> int:
        """How many pages the file has."""
        return 1 if self.index is None else self.index.last + 1


class FileCache:
    """Holds one file of several pages, until another file is read or all of its pages were asked for."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._path: Path | None = None
        self._file: CachedFile | None = None
        self._reading: dict[Path, Lock] = {}

    def file(self, path: Path) -> CachedFile:
        """Read a file, unless it is at hand and unchanged; threads that want the same wait for the first of them.

        Raises
        ------
        OSError
            As for `featstore.serialization.read_regular`.
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

    def _at_hand(self, path: Path) -> CachedFile | None:
        with self._lock:
            found = self._file if self._path == path else None
        return found if found is not None and found.stamp == _stamp(path.stat()) else None

    def _keep(self, path: Path, file: CachedFile) -> None:
        with self._lock:
            file.asked += 1
            self._path, self._file = (None, None) if file.asked >= file.pages else (path, file)


def _read(path: Path) -> CachedFile:
    with open_regular(path) as file:
        data = read_bounded(file, path, container.MAX_BYTES)
        stamp = _stamp(os.fstat(file.fileno()))
    return CachedFile(data, _index(data), stamp)


def _index(data: bytes) -> container.Index | None:
    known = container.find_format(data[: container.HEAD])
    if known is None:
        return None
    try:
        with container.damage_of(known):
            return known.index(data)
    except BadImageError:
        return None  # decoding will say what is wrong with it


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


FILE_CACHE = FileCache()
"""The one of this process."""
if hasattr(os, "register_at_fork"):  # a thread that is not in the fork may hold a lock
    os.register_at_fork(after_in_child=FILE_CACHE.__init__)  # type: ignore[misc]


# Memory for pictures that are being decoded: no more at once than a budget has room for

_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 20


class MemoryBudget:
    """So many bytes; a picture that takes more has all of it for itself."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._turn = threading.Lock()
        self._change = threading.Condition()

    @contextmanager
    def reserved(self, wanted: int) -> Iterator[None]:
        """Wait for room, first come first served, and take it until the block ends."""
        with self._turn, self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + wanted <= self._limit)
            self._taken += wanted
        try:
            yield
        finally:
            with self._change:
                self._taken -= wanted
                self._change.notify_all()


_budget: MemoryBudget | None = None


@contextmanager
def memory_budget(limit: int | None) -> Iterator[None]:
    """Let pictures of this process share `limit` bytes until the block ends; None sets no bound."""
    global _budget  # noqa: PLW0603  # memory is the process's
    if limit is not None:
        _return_free_memory()
    before, _budget = _budget, None if limit is None else MemoryBudget(limit)
    try:
        yield
    finally:
        _budget = before


@contextmanager
def reserve_for_decoding(path: Path) -> Iterator[None]:
    """Hold what decoding a file takes, if memory is bounded."""
    room = _budget
    if room is None:
        yield
        return
    with room.reserved(decoding_bytes(path)):
        yield


def _return_free_memory() -> None:
    """Have glibc give large blocks back as they are freed: else each thread keeps those of its last pictures."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.malloc_trim(0)


# Memory that decoding a file takes, from its header

_MOST_LOOKED_AT = 4
"""For each file that is asked for; pixels alone rank them up to the dearest of the kinds above."""


def largest_decoding_bytes(paths: Iterable[Path], count: int) -> tuple[int, ...]:
    """Bytes that decoding takes of the `count` files that take the most, the dearest first."""
    large = heapq.nlargest(_MOST_LOOKED_AT * count, paths, key=pixel_count)
    return tuple(heapq.nlargest(count, map(decoding_bytes, large)))


def pixel_count(path: Path) -> int:
    """Pixels that the header announces; 0 where it cannot be read, or announces more than is ever decoded."""
    try:
        with open_regular(path) as file:
            width, height = _size(file)
    except Exception:  # noqa: BLE001  # decoding will say what is wrong with it
        return 0
    return width * height if width * height <= container.MAX_PIXELS else 0


def decoding_bytes(path: Path) -> int:
    """Bytes that reading, decoding and scaling a file takes at most; 0 where its header cannot be read."""
    pixels = pixel_count(path)
    if not pixels:
        return 0
    try:
        with open_regular(path) as file:
            each = container.identify_format(file.read(container.HEAD)).bytes_per_pixel(file)
        return round(pixels * each) + path.stat().st_size
    except Exception:  # noqa: BLE001
        return round(pixels * container.COLOUR)


def _size(file: BufferedReader) -> tuple[int, int]:
    known = container.identify_format(file.read(container.HEAD))
    file.seek(0)
    return known.size(file)


# Pixel digests: the same for a picture saved anew in another lossless format


def pixel_digest(pixels: Pixels) -> bytes:
    """SHA-256 (32 bytes) of shape and values: equal for the same picture in any lossless format."""
    found = hashlib.sha256(repr(pixels.shape).encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()


def pixel_digest_of(record: ImageRecord, decoding: Decoding) -> str | None:
    """SHA-256 (64 hex digits) of shape and values of the decoded pixels; None if the file is gone or does not decode.

    JPEG decoders differ by grey levels, and 16-bit pixels depend on the declared range: digests are comparable
    under one `decoding` only.
    """
    try:
        return pixel_digest(read_pixels(record, decoding)).hex()
    except BadImageError:
        return None
