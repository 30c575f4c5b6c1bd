"""Images read: from a file to the 8-bit pixels of one picture, or to the reason why not.

A file is read only if its bytes are still those of its id, and so many at a time as there is memory for.
"""

from __future__ import annotations

import ctypes
import hashlib
import heapq
import math
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from featstore.errors import BadImageError, UsageError
from featstore.images.formats.container import (
    COLOUR,
    HEAD,
    MAX_PIXELS,
    check_size,
    check_structure,
    damage_of,
    find_format,
    identify_format,
    most_bytes_of,
)
from featstore.images.manifest import content_id, page_id
from featstore.images.recipe import FILE_WINDOW, pairs
from featstore.serialization import digest_bytes, open_regular, read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.images.formats.container import Format, Index
    from featstore.types import Decoding, ImageRecord, Pixels

    Stamp = tuple[int, ...]

# The bytes of a file as pixels

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
    "unsupported": "The format is not decoded; do what is said of the file, or save it as PNG of 8 bits.",
}
"""Why an image is in quarantine: code -> what to do about it."""

WARNINGS: dict[str, str] = {
    "alpha": "Transparency was composited on black.",
    "cmyk": "CMYK was converted to RGB without a colour profile.",
    "constant": "All pixels are equal.",
    "extra_channels": "Channels beyond grey, or red, green and blue, were left out.",
    "frames": "The file holds several pictures; only the first was taken.",
    "not_hounsfield": "A window of CT was put on values that are in no Hounsfield units.",
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
        `featstore.images.recipe.FILE_WINDOW` asks for the window that the file has of its own.
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
        Keys of `featstore.images.reading.WARNINGS`: what was done to the image, or is odd about it.
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
    index: Index | None
    stamp: Stamp
    asked: int = 0
    _id: str = ""
    _hashing: Lock = field(default_factory=Lock)

    @property
    def content_id(self) -> str:
        """Image id of the file, if it holds one image; hashed once."""
        with self._hashing:
            if not self._id:
                self._id = content_id(digest_bytes(self.data), find_format(self.data[:HEAD]))
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
        head = file.read(HEAD)
        file.seek(0)
        data = read_bounded(file, path, most_bytes_of(head))
        stamp = _stamp(os.fstat(file.fileno()))
    return CachedFile(data, _index(data), stamp)


def _index(data: bytes) -> Index | None:
    known = find_format(data[:HEAD])
    if known is None:
        return None
    try:
        with damage_of(known):
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
    return width * height if width * height <= MAX_PIXELS else 0


def decoding_bytes(path: Path) -> int:
    """Bytes that reading, decoding and scaling a file takes at most; 0 where its header cannot be read."""
    pixels = pixel_count(path)
    if not pixels:
        return 0
    try:
        with open_regular(path) as file:
            each = identify_format(file.read(HEAD)).bytes_per_pixel(file)
        return round(pixels * each) + path.stat().st_size
    except Exception:  # noqa: BLE001
        return round(pixels * COLOUR)


def _size(file: BufferedReader) -> tuple[int, int]:
    known = identify_format(file.read(HEAD))
    file.seek(0)
    return known.size(file)


# Pixel digests: the same for a picture saved anew in another lossless format


def pixel_digest(pixels: Pixels) -> bytes:
    """SHA-256 (32 bytes) of shape and values: equal for the same picture in any lossless format."""
    import numpy as np

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
