"""The feature store: write rows, ask which are there, read them back by image id; and its index.

The index tells which ids each shard holds, so that planning need not open every shard: an accelerator, never a truth.
It is a folder of segments. A segment is written once and named by the hash of its bytes, like a shard, so writers
cannot disturb each other; whatever does not verify is dropped and rebuilt from the shards. An entry counts only while
its shard has the size and the time of modification that it had when its ids were read. The shards of one block of
images share one list of ids, which makes the index of 7 million rows a few megabytes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from featstore.errors import MissingFeaturesError, ShardCorruptError, StoreError
from featstore.serialization import (
    UnfitFileError,
    WorkingMemory,
    canonical_json,
    digest,
    digest_bytes,
    parse_json,
)
from featstore.store import notes, paths, shard
from featstore.store.paths import ELSEWHERE, commit, commit_named_by_hash
from featstore.store.shard import ID_DTYPE, NO_IDS, IdSet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.store.notes import BadImage
    from featstore.store.shard import PackedIds, Shard
    from featstore.types import BackboneSpec, Computation, Decoding, FeatureKey, Features


# The cache folder as an object

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
_LONGEST = 255
"""Bytes of a name; hardly any file system has longer ones."""
_SHOWN = 100
_MOST = (1 << 63) - 1
MOST_THREADS = 8
"""Beyond these, the disk or the one lock of the HDF5 library is the limit."""
CACHE_VARIABLE = "FEATSTORE_CACHE"


def default_cache() -> Path:
    """``$FEATSTORE_CACHE``, or ``cache`` in the working folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or "cache")


class Store:
    """Feature vectors on disk, addressed by feature key and image id.

    Parameters
    ----------
    root
        The cache folder. It need not exist; reading never creates it.

    Attributes
    ----------
    computations
        By key that was read: how the vectors that were asked for had been computed.

    Raises
    ------
    StoreError
        If no folder can have this name.
    """

    def __init__(self, root: Path) -> None:
        _require_possible(root)
        self.root = root
        self._index = Index(paths.index_folder(root))
        self._unions: dict[frozenset[bytes], IdSet] = {}
        self._described: set[Path] = set()
        self.computations: dict[FeatureKey, set[Computation]] = {}

    def write(
        self,
        key: FeatureKey,
        ids: Sequence[str],
        features: Features,
        computation: Computation = shard.UNRECORDED,
    ) -> Path:
        """Commit rows as one new shard and return its path.

        Parameters
        ----------
        key, ids, features, computation
            As for `featstore.store.shard.encode`.
        """
        self._describe(key.backbone)
        folder = paths.shard_folder(self.root, key)
        data = shard.encode(key, ids, features, computation)
        path = commit_named_by_hash(self.root, folder, data, paths.SHARD_SUFFIX)
        try:
            stamp = bytes.fromhex(path.stem), *_size_and_time(path.lstat())
        except FileNotFoundError as error:
            raise StoreError(f"{path} vanished as soon as it was written.", shard.REMEDY) from error
        self._index.add(IndexEntry(digest_of(key), *stamp, bytes.fromhex("".join(ids))))
        return path

    def flush(self) -> None:
        """Write what the index has learned; without it the next plan only takes longer."""
        self._index.flush()

    def refresh_index(self) -> None:
        """Drop from the index what is no longer there, after shards were replaced or deleted."""
        self._index.flush()
        self._index.keep({bytes.fromhex(path.stem) for path in paths.all_shards(self.root)})

    def stored_ids(self, key: FeatureKey) -> IdSet:
        """Ids of the images whose vector under `key` is in the store.

        A shard that the index knows, with the size and time of modification that it had, is believed without
        opening it; `read` trusts nothing. All others are hashed and opened.
        """
        return self.stored([key])[key]

    def stored(self, keys: Iterable[FeatureKey]) -> dict[FeatureKey, IdSet]:
        """`stored_ids` of many keys."""
        self._unions.clear()
        found = {key: self._ids(key) for key in keys}
        self._index.flush()
        return found

    def read(self, key: FeatureKey, ids: Sequence[str]) -> Features:
        """Vectors of `ids` under `key`, in the order asked for.

        Returns
        -------
        ``(len(ids), key.backbone.dimension)`` float32.

        Raises
        ------
        MissingFeaturesError
            If any id is not in the store.
        """
        out = np.empty((len(ids), key.backbone.dimension), np.float32)
        self.read_into(key, ids, out)
        return out

    def read_into(self, key: FeatureKey, ids: Sequence[str], out: Features) -> None:
        """Fill ``out[i]`` with the vector of ``ids[i]``; see `read`."""
        wanted = _Wanted(shard.pack_ids(ids).view(ID_DTYPE).reshape(-1))
        filled = np.zeros(len(ids), bool)
        for _, rows in self.shards(key):
            targets, sources = wanted.places(rows.packed)
            if len(targets):
                self.computations.setdefault(key, set()).add(rows.computation)
                run, where = _run(sources), _run(targets)
                out[targets if where is None else where] = rows.features[sources if run is None else run]
                filled[targets] = True
        out[wanted.again] = out[wanted.first[wanted.again]]
        missing = len(ids) - int(filled[wanted.first].sum())
        if missing:
            self._index.forget()  # should it have promised them, it would promise them again
            raise MissingFeaturesError(
                f"{missing} of {len(ids)} images have no {key.backbone.name} features "
                f"for the view {key.view.recipe}, seed {key.view.seed}.",
                "Import a file that has them: `featstore cache import`."
                if key.backbone.is_imported
                else "Run `featstore extract` with the same data, backbones, recipe and seeds.",
            )

    def shards(self, key: FeatureKey) -> Iterator[tuple[Path, Shard]]:
        """Good shards of `key`, each read whole, in order of name.

        Each is good until the next is asked for: its memory is used again. Two shards that share an id hold the same
        vector (law 2). While another process compacts the store, a shard
        may be met both in its old and in its new form, but no row is passed over.
        """
        spare: deque[WorkingMemory] = deque()

        def read(path: Path) -> tuple[WorkingMemory, Shard | ShardCorruptError | OSError]:
            try:
                memory = spare.pop()
            except IndexError:
                memory = WorkingMemory()
            return memory, _read_or_error(path, memory)

        for fresh in paths.looks_until_stable(paths.shard_folder(self.root, key)):
            for path, (memory, outcome) in zip(fresh, in_threads(read, fresh), strict=True):
                rows = self._good(path, outcome)
                if rows is not None and rows.key == key:
                    yield path, rows
                spare.append(memory)

    def ids_by_shard(self, key: FeatureKey) -> dict[Path, PackedIds]:
        """Ids that each shard of `key` holds, in row order; as `stored_ids`, this trusts the index."""
        return {path: np.frombuffer(entry.ids, ID_DTYPE) for path, entry in self._entries(key) if entry.ids}

    def feature_keys(self) -> list[FeatureKey]:
        """All feature keys that have at least one good shard."""
        found = (self._key_of(folder) for folder in paths.shard_folders(self.root))
        return [key for key in found if key is not None]

    def bad_images(self, decoding: Decoding) -> Mapping[str, BadImage]:
        """Return the quarantined images under one decoding, by image id."""
        return notes.bad_images(paths.quarantine_folder(self.root), decoding)

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Enter an image in the quarantine table."""
        notes.record_bad_image(paths.quarantine_folder(self.root), decoding, bad)

    def load(self, path: Path) -> Shard | None:
        """Read one shard: bytes, hash, then structure. A bad one is set aside and counts as absent."""
        return self._good(path, _read_or_error(path))

    def _good(self, path: Path, outcome: Shard | ShardCorruptError | OSError) -> Shard | None:
        """The shard that was read, if it was."""
        match outcome:
            case FileNotFoundError():
                return None
            case ShardCorruptError():
                self._set_aside(path, outcome)
                return None
            case OSError():
                raise StoreError(
                    f"Cannot read {path}: {outcome.strerror}", "Check the disk and its rights."
                ) from outcome
        return outcome

    def _ids(self, key: FeatureKey) -> IdSet:
        return self._union(frozenset(entry.ids for _, entry in self._entries(key)))

    def _entries(self, key: FeatureKey) -> Iterator[tuple[Path, IndexEntry]]:
        digest_of_key = digest_of(key)
        known = self._index.entries(digest_of_key)
        for path in paths.list_until_stable(paths.shard_folder(self.root, key)):
            try:
                stamp = _name_bytes(path.stem), *_size_and_time(path.lstat())
            except FileNotFoundError:
                continue
            entry = known.get(stamp) or self._opened(key, digest_of_key, path, stamp)
            if entry is not None:
                yield path, entry

    def _opened(self, key: FeatureKey, digest_of_key: bytes, path: Path, stamp: Stamp) -> IndexEntry | None:
        rows = self.load(path)
        if rows is None:
            return None
        entry = IndexEntry(
            digest_of_key, *stamp, bytes.fromhex("".join(rows.ids)) if rows.key == key else b""
        )
        self._index.add(entry)
        return entry

    def _union(self, lists: frozenset[bytes]) -> IdSet:
        """All ids of some lists; views of the same images have the same lists, and share the result."""
        if not lists:
            return NO_IDS
        if lists not in self._unions:
            self._unions[lists] = IdSet.from_bytes(b"".join(lists))
        return self._unions[lists]

    def _describe(self, backbone: BackboneSpec) -> None:
        page = paths.backbone_folder(self.root, backbone) / paths.BACKBONE_PAGE
        if not (paths.require_enterable(self.root, page.parent) and paths.is_file(page)):
            if page in self._described:
                raise StoreError(
                    f"{page.parent} was deleted while features were written to it.", shard.REMEDY
                )
            commit(self.root, page, canonical_json(asdict(backbone)).encode())
        self._described.add(page)

    def _key_of(self, folder: Path) -> FeatureKey | None:
        for path in paths.list_until_stable(folder):
            rows = self.load(path)
            if rows is not None and paths.shard_folder(self.root, rows.key) == folder:
                return rows.key
        return None

    def _set_aside(self, path: Path, error: ShardCorruptError) -> None:
        try:
            target = notes.set_aside_shard(paths.quarantine_folder(self.root), path, error.cause)
        except OSError:
            log.warning("bad shard %s ignored; it could not be moved to quarantine: %s", path, error.cause)
        else:
            log.warning("bad shard moved to %s: %s %s", target, error.cause, error.remedy)


def _read_or_error(path: Path, memory: WorkingMemory | None = None) -> Shard | ShardCorruptError | OSError:
    try:
        return shard.read(path, memory)
    except (ShardCorruptError, OSError) as error:
        return error


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None
) -> Iterator[Result]:
    """Results in the order of the items, a few of which are under way at a time, so that no more lie in memory.

    Hashing, the longest part of reading a shard, and copying let other threads run.
    """
    threads = min(threads or min(MOST_THREADS, os.cpu_count() or 1), len(items))
    if threads < 2:  # noqa: PLR2004
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        rest = iter(items)
        running = deque(pool.submit(work, item) for item in islice(rest, 2 * threads))
        while running:
            result = running.popleft().result()
            running.extend(pool.submit(work, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


class _Wanted:
    """Where rows go that are asked for by id, some of them perhaps twice.

    Attributes
    ----------
    first
        ``(n,)`` of each, where its id is asked for first.
    again
        Those whose id was asked for before.
    """

    def __init__(self, ids: PackedIds) -> None:
        self._ids = ids
        order = np.argsort(ids, kind="stable")
        ranked = ids[order]
        new = np.ones(len(ids), bool)
        new[1:] = ranked[1:] != ranked[:-1]
        self._distinct, self._home = ranked[new], order[new]
        self.first = np.empty(len(ids), np.intp)
        self.first[order] = self._home[np.cumsum(new) - 1]
        self.again = order[~new]

    def places(self, found: PackedIds) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows to be filled, and the rows in `found` that go there."""
        if not (len(found) and len(self._ids)):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        start = self._home[np.searchsorted(self._distinct, found[:1]).clip(max=len(self._distinct) - 1)][0]
        if not len(self.again) and np.array_equal(self._ids[start : start + len(found)], found):
            return np.arange(start, start + len(found)), np.arange(len(found))  # most often, and faster
        at = np.searchsorted(self._distinct, found).clip(max=len(self._distinct) - 1)
        here = self._distinct[at] == found
        return self._home[at[here]], np.flatnonzero(here)


def _run(rows: NDArray[np.intp]) -> slice | None:
    """The slice that these rows are; None where they do not follow each other."""
    return slice(int(rows[0]), int(rows[-1]) + 1) if (np.diff(rows) == 1).all() else None


def _require_possible(root: Path) -> None:
    """Refuse a name that no folder can have; of one that is not there, or not to be used, whoever uses it says so."""
    try:
        root.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        if all(len(os.fsencode(part)) <= _LONGEST for part in root.parts):
            return
        why = os.strerror(errno.ENAMETOOLONG)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    else:
        return
    raise StoreError(f"{_short(root)} cannot be a cache: {why}.", ELSEWHERE)


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def digest_of(key: FeatureKey) -> bytes:
    """SHA-256 of a feature key, by which the index knows it."""
    return bytes.fromhex(digest(key.to_json()))


def _name_bytes(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:  # no digest: opening it will set it aside
        return b""


def _size_and_time(stat: os.stat_result) -> tuple[int, int]:
    """Size and nanoseconds, which beyond the year 2262 are more than a segment has room for."""
    return stat.st_size, max(-_MOST, min(stat.st_mtime_ns, _MOST))


# Index

SUFFIX = ".ids"
HASH = 32
MAGIC = "featstore index 1"
PENDING = 256
"""Entries that wait in memory; after a kill, that many shards are opened by the next plan."""
MAX_SEGMENT_BYTES = 1 << 31
SEGMENTS = 16
"""More than these are merged when they are read."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Index entry of one shard.

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
        self._known: dict[bytes, dict[Stamp, IndexEntry]] | None = None
        self._pending: list[IndexEntry] = []
        self._lock = threading.Lock()

    def entries(self, key: bytes) -> dict[Stamp, IndexEntry]:
        """Entries of one feature key, by the stamp that their file must still bear."""
        if self._known is None:
            self._known = self._load()
        return self._known.get(key, {})

    def __iter__(self) -> Iterator[IndexEntry]:
        """All entries, those of shards that are gone included."""
        if self._known is None:
            self._known = self._load()
        return (entry for of_key in self._known.values() for entry in of_key.values())

    def add(self, entry: IndexEntry) -> None:
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

    def _load(self) -> dict[bytes, dict[Stamp, IndexEntry]]:
        segments = self._segments()
        lists: dict[bytes, bytes] = {}
        found = [entry for path in segments for entry in _read(path, lists)]
        if len(segments) > SEGMENTS:
            self._merge(found, segments)
        known: dict[bytes, dict[Stamp, IndexEntry]] = {}
        for entry in found:
            known.setdefault(entry.key, {})[entry.shard, entry.size, entry.mtime_ns] = entry
        return known

    def _segments(self) -> list[Path]:
        return paths.files(self._folder.parent, self._folder, "index")

    def _merge(self, entries: Iterable[IndexEntry], segments: Iterable[Path]) -> None:
        """Write one segment for many. Only what has been read is deleted, so no writer's work is lost."""
        merged = self._write(dict.fromkeys(entries))
        for path in segments:
            if merged is not None and path != merged:
                _remove(path)

    def _write(self, entries: Iterable[IndexEntry]) -> Path | None:
        try:
            return commit_named_by_hash(
                self._folder.parent, self._folder, encode_entries(entries), SUFFIX, MAX_SEGMENT_BYTES
            )
        except StoreError as error:
            log.debug("index not written: %s", error.cause)
            return None


def encode_entries(entries: Iterable[IndexEntry]) -> bytes:
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


def decode_entries(data: bytes) -> list[IndexEntry]:
    """Read back what `encode` wrote.

    Raises
    ------
    ValueError, LookupError, TypeError, OverflowError
        If the bytes are not a segment of this format.
    """
    line, _, body = data.partition(b"\n")
    header = parse_json(line)
    if header["format"] != MAGIC:
        raise ValueError(f"format {header['format']}")
    take = _ByteReader(body)
    count = int(header["entries"])
    lists = [take(HASH * size) for size in take.numbers("<u4", int(header["lists"]))]
    keys, shards = take.digests(count), take.digests(count)
    sizes, times = take.numbers("<i8", count), take.numbers("<i8", count)
    rows = [lists[number] for number in take.numbers("<u4", count)]
    return [IndexEntry(*fields) for fields in zip(keys, shards, sizes, times, rows, strict=True)]


def check_index(path: Path) -> None:
    """Raise what `decode` raises, or OSError, if a segment cannot be believed."""
    decode_entries(_verified(path))


class _ByteReader:
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


def _read(path: Path, lists: dict[bytes, bytes]) -> list[IndexEntry]:
    """Entries of a segment that may be believed; a segment that does not verify is deleted.

    A shard that is not older than the segment may have been replaced within one tick of the file clock, and
    is opened again, as git does with a racy index. Equal lists of ids become one object across segments.
    """
    try:
        written = path.lstat().st_mtime_ns
        entries = decode_entries(_verified(path))
    except UnfitFileError as error:
        return _dropped(path, error)
    except OSError:
        return []
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        return _dropped(path, error)
    older = (entry for entry in entries if entry.mtime_ns < written)
    return [replace(entry, ids=lists.setdefault(entry.ids, entry.ids)) for entry in older]


def _dropped(path: Path, error: Exception) -> list[IndexEntry]:
    log.debug("index segment %s dropped: %s", path, error)
    _remove(path)
    return []


def _verified(path: Path) -> bytes:
    data = paths.read_file(path, MAX_SEGMENT_BYTES)
    if digest_bytes(data) != path.stem:
        raise ValueError("its bytes are not those of its name")
    return data


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        paths.unlink(path.parents[1], path)
