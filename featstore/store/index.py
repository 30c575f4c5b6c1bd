"""Which ids each shard holds, so that planning need not open every shard. An accelerator, never a truth.

The index is a folder of segments. A segment is written once and named by the hash of its bytes, like a shard, so
writers cannot disturb each other; whatever does not verify is dropped and rebuilt from the shards. An entry
counts only while its shard has the size and the time of modification that it had when its ids were read. The
shards of one block of images share one list of ids, which makes the index of 7 million rows a few megabytes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.document import parse
from featstore.errors import StoreError
from featstore.files import UnfitFileError
from featstore.fingerprint import canonical_json, digest_bytes
from featstore.store import rooms
from featstore.store.commit import commit_named_by_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

SUFFIX = ".ids"
HASH = 32
MAGIC = "featstore index 1"
PENDING = 256
"""Entries that wait in memory; after a kill, that many shards are opened by the next plan."""
MAX_BYTES = 1 << 31
SEGMENTS = 16
"""More than these are merged when they are read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one shard holds.

    Attributes
    ----------
    key
        Digest of the feature key in whose folder the shard lies.
    shard
        Digest of the shard's bytes, its name.
    size, mtime_ns
        Of the file when its ids were read.
    ids
        32 bytes each, in row order; empty where the shard belongs to another key.
    """

    key: bytes
    shard: bytes
    size: int
    mtime_ns: int
    ids: bytes


Stamp = tuple[bytes, int, int]
"""Name, size and time of modification of a shard file."""


class Index:
    """All segments of one folder, read when first asked for.

    Parameters
    ----------
    folder
        Where the segments lie, in the cache folder; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, dict[Stamp, Entry]] | None = None
        self._pending: list[Entry] = []
        self._lock = threading.Lock()

    def entries(self, key: bytes) -> dict[Stamp, Entry]:
        """Entries of one feature key, by the stamp that their file must still bear."""
        if self._known is None:
            self._known = self._load()
        return self._known.get(key, {})

    def __iter__(self) -> Iterator[Entry]:
        """All entries, those of shards that are gone included."""
        if self._known is None:
            self._known = self._load()
        return (entry for of_key in self._known.values() for entry in of_key.values())

    def add(self, entry: Entry) -> None:
        """Remember an entry; it is on disk after `flush` at the latest."""
        if self._known is not None:
            self._known.setdefault(entry.key, {})[entry.shard, entry.size, entry.mtime_ns] = entry
        with self._lock:
            self._pending.append(entry)
            full = len(self._pending) >= PENDING
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one new segment; a folder that cannot be written only costs time."""
        with self._lock:
            pending, self._pending = self._pending, []
        if pending:
            self._write(pending)

    def forget(self) -> None:
        """Delete every segment: the next plan opens the shards."""
        self._known = None
        for path in self._segments():
            _remove(path)

    def keep(self, shards: Collection[bytes]) -> None:
        """Drop the entries of all shards but those with these digests."""
        segments = self._segments()
        self._merge([entry for entry in self if entry.shard in shards], segments)

    def _load(self) -> dict[bytes, dict[Stamp, Entry]]:
        segments = self._segments()
        lists: dict[bytes, bytes] = {}
        found = [entry for path in segments for entry in _read(path, lists)]
        if len(segments) > SEGMENTS:
            self._merge(found, segments)
        known: dict[bytes, dict[Stamp, Entry]] = {}
        for entry in found:
            known.setdefault(entry.key, {})[entry.shard, entry.size, entry.mtime_ns] = entry
        return known

    def _segments(self) -> list[Path]:
        return rooms.files(self._folder.parent, self._folder, "index")

    def _merge(self, entries: Iterable[Entry], segments: Iterable[Path]) -> None:
        """Write one segment for many. Only what has been read is deleted, so no writer's work is lost."""
        merged = self._write(dict.fromkeys(entries))
        for path in segments:
            if merged is not None and path != merged:
                _remove(path)

    def _write(self, entries: Iterable[Entry]) -> Path | None:
        try:
            return commit_named_by_hash(self._folder.parent, self._folder, encode(entries), SUFFIX, MAX_BYTES)
        except StoreError as error:
            log.debug("index not written: %s", error.cause)
            return None


def encode(entries: Iterable[Entry]) -> bytes:
    """Serialise entries to the bytes of a segment; equal lists of ids are written once."""
    entries = list(entries)
    lists = {ids: number for number, ids in enumerate(dict.fromkeys(entry.ids for entry in entries))}
    header = {"entries": len(entries), "lists": len(lists), "format": MAGIC}
    return b"".join([
        canonical_json(header).encode() + b"\n",
        np.array([len(ids) // HASH for ids in lists], "<u4").tobytes(),
        *lists,
        *(entry.key for entry in entries),
        *(entry.shard for entry in entries),
        np.array([entry.size for entry in entries], "<i8").tobytes(),
        np.array([entry.mtime_ns for entry in entries], "<i8").tobytes(),
        np.array([lists[entry.ids] for entry in entries], "<u4").tobytes(),
    ])  # fmt: skip


def decode(data: bytes) -> list[Entry]:
    """Read back what `encode` wrote.

    Raises
    ------
    ValueError, LookupError, TypeError, OverflowError
        If the bytes are not a segment of this format.
    """
    line, _, body = data.partition(b"\n")
    header = parse(line)
    if header["format"] != MAGIC:
        raise ValueError(f"format {header['format']}")
    take = _Taker(body)
    count = int(header["entries"])
    lists = [take(HASH * size) for size in take.numbers("<u4", int(header["lists"]))]
    keys, shards = take.digests(count), take.digests(count)
    sizes, times = take.numbers("<i8", count), take.numbers("<i8", count)
    rows = [lists[number] for number in take.numbers("<u4", count)]
    return [Entry(*fields) for fields in zip(keys, shards, sizes, times, rows, strict=True)]


def check(path: Path) -> None:
    """Raise what `decode` raises, or OSError, if a segment cannot be believed."""
    decode(_verified(path))


class _Taker:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __call__(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if size < 0 or len(part) != size:
            raise ValueError("too short")
        self._at += size
        return part

    def numbers(self, kind: str, count: int) -> list[int]:
        values: list[int] = np.frombuffer(self(np.dtype(kind).itemsize * count), kind).tolist()
        return values

    def digests(self, count: int) -> list[bytes]:
        part = self(HASH * count)
        return [part[at : at + HASH] for at in range(0, len(part), HASH)]


def _read(path: Path, lists: dict[bytes, bytes]) -> list[Entry]:
    """Entries of a segment that may be believed; a segment that does not verify is deleted.

    A shard that is not older than the segment may have been replaced within one tick of the file clock, and
    is opened again, as git does with a racy index. Equal lists of ids become one object across segments.
    """
    try:
        written = path.lstat().st_mtime_ns
        entries = decode(_verified(path))
    except UnfitFileError as error:
        return _dropped(path, error)
    except OSError:
        return []
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        return _dropped(path, error)
    older = (entry for entry in entries if entry.mtime_ns < written)
    return [replace(entry, ids=lists.setdefault(entry.ids, entry.ids)) for entry in older]


def _dropped(path: Path, error: Exception) -> list[Entry]:
    log.debug("index segment %s dropped: %s", path, error)
    _remove(path)
    return []


def _verified(path: Path) -> bytes:
    data = rooms.read_file(path, MAX_BYTES)
    if digest_bytes(data) != path.stem:
        raise ValueError("its bytes are not those of its name")
    return data


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        rooms.unlink(path.parents[1], path)
