"""The cache folder as an object: write rows, ask which are there, read them back by image id."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import MissingFeaturesError, ShardCorruptError, StoreError
from featstore.fingerprint import canonical_json, digest
from featstore.store import layout, listing, quarantine, rooms, shard
from featstore.store.commit import ELSEWHERE, commit, commit_named_by_hash
from featstore.store.ids import ID, NO_IDS, IdSet
from featstore.store.index import Entry, Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from featstore.store.ids import PackedIds
    from featstore.store.index import Stamp
    from featstore.store.quarantine import BadImage
    from featstore.store.shard import Shard
    from featstore.types import BackboneSpec, Decoding, FeatureKey, Features

log = logging.getLogger(__name__)
_LONGEST = 255
"""Bytes of a name; hardly any file system has longer ones."""
_SHOWN = 100
_MOST = (1 << 63) - 1
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

    Raises
    ------
    StoreError
        If no folder can have this name.
    """

    def __init__(self, root: Path) -> None:
        _require_possible(root)
        self.root = root
        self._index = Index(layout.index_folder(root))
        self._unions: dict[frozenset[bytes], IdSet] = {}
        self._described: set[Path] = set()

    def write(
        self, key: FeatureKey, ids: Sequence[str], features: Features, batch_size: int | None = None
    ) -> Path:
        """Commit rows as one new shard and return its path.

        Parameters
        ----------
        key, ids, features, batch_size
            As for `featstore.store.shard.encode`.
        """
        self._describe(key.backbone)
        folder = layout.shard_folder(self.root, key)
        data = shard.encode(key, ids, features, batch_size)
        path = commit_named_by_hash(self.root, folder, data, layout.SHARD_SUFFIX)
        try:
            stamp = bytes.fromhex(path.stem), *_size_and_time(path.lstat())
        except FileNotFoundError as error:
            raise StoreError(f"{path} vanished as soon as it was written.", shard.REMEDY) from error
        self._index.add(Entry(digest_of(key), *stamp, bytes.fromhex("".join(ids))))
        return path

    def flush(self) -> None:
        """Write what the index has learned; without it the next plan only takes longer."""
        self._index.flush()

    def settle(self) -> None:
        """Drop from the index what is no longer there, after shards were replaced or deleted."""
        self._index.flush()
        self._index.keep({bytes.fromhex(path.stem) for path in listing.all_shards(self.root)})

    def stored_ids(self, key: FeatureKey) -> IdSet:
        """Ids of the images whose vector under `key` is in the store.

        A shard that the index knows, with the size and time of modification that it had, is believed without
        opening it; `read` believes nothing. All others are hashed and opened.
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
        row_of = {image_id: row for row, image_id in enumerate(ids)}
        filled = np.zeros(len(ids), bool)
        for _, rows in self.shards(key):
            pairs = [(row_of[i], at) for at, i in enumerate(rows.ids) if i in row_of]
            if pairs:
                targets, sources = np.array(pairs).T
                out[targets] = rows.features[sources]
                filled[targets] = True
        repeated = [row_of[i] for i in ids]
        if len(row_of) < len(ids):
            out[:] = out[repeated]
        missing = len(ids) - int(filled[repeated].sum())
        if missing:
            self._index.forget()  # should it have promised them, it would promise them again
            raise MissingFeaturesError(
                f"{missing} of {len(ids)} images have no {key.backbone.name} features "
                f"for the view {key.view.recipe}, seed {key.view.seed}.",
                "Import a file that has them: `featstore cache import`."
                if key.backbone.is_foreign
                else "Run `featstore extract` with the same data, backbones, recipe and seeds.",
            )

    def shards(self, key: FeatureKey) -> Iterator[tuple[Path, Shard]]:
        """Good shards of `key`, each read whole, in order of name.

        Two shards that share an id hold the same vector (law 2). While another process compacts the store, a shard
        may be met both in its old and in its new form, but no row is passed over.
        """
        for path in listing.settled(layout.shard_folder(self.root, key)):
            rows = self.load(path)
            if rows is not None and rows.key == key:
                yield path, rows

    def ids_by_shard(self, key: FeatureKey) -> dict[Path, PackedIds]:
        """Ids that each shard of `key` holds, in row order; as `stored_ids`, this believes the index."""
        return {path: np.frombuffer(entry.ids, ID) for path, entry in self._entries(key) if entry.ids}

    def feature_keys(self) -> list[FeatureKey]:
        """All feature keys that have at least one good shard."""
        found = (self._key_of(folder) for folder in listing.folders(self.root))
        return [key for key in found if key is not None]

    def bad_images(self, decoding: Decoding) -> Mapping[str, BadImage]:
        """Return the quarantined images under one decoding, by image id."""
        return quarantine.bad_images(layout.quarantine_folder(self.root), decoding)

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Enter an image in the quarantine table."""
        quarantine.record_bad_image(layout.quarantine_folder(self.root), decoding, bad)

    def load(self, path: Path) -> Shard | None:
        """Read one shard: bytes, hash, then structure. A bad one is set aside and counts as absent."""
        try:
            return shard.read(path)
        except FileNotFoundError:
            return None
        except ShardCorruptError as error:
            self._set_aside(path, error)
            return None
        except OSError as error:
            raise StoreError(
                f"Cannot read {path}: {error.strerror}", "Check the disk and its rights."
            ) from error

    def _ids(self, key: FeatureKey) -> IdSet:
        return self._union(frozenset(entry.ids for _, entry in self._entries(key)))

    def _entries(self, key: FeatureKey) -> Iterator[tuple[Path, Entry]]:
        digest_of_key = digest_of(key)
        known = self._index.entries(digest_of_key)
        for path in listing.settled(layout.shard_folder(self.root, key)):
            try:
                stamp = _name_bytes(path.stem), *_size_and_time(path.lstat())
            except FileNotFoundError:
                continue
            entry = known.get(stamp) or self._opened(key, digest_of_key, path, stamp)
            if entry is not None:
                yield path, entry

    def _opened(self, key: FeatureKey, digest_of_key: bytes, path: Path, stamp: Stamp) -> Entry | None:
        rows = self.load(path)
        if rows is None:
            return None
        entry = Entry(digest_of_key, *stamp, bytes.fromhex("".join(rows.ids)) if rows.key == key else b"")
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
        page = layout.backbone_folder(self.root, backbone) / layout.BACKBONE_PAGE
        if not (rooms.enter(self.root, page.parent) and rooms.is_file(page)):
            if page in self._described:
                raise StoreError(
                    f"{page.parent} was deleted while features were written to it.", shard.REMEDY
                )
            commit(self.root, page, canonical_json(asdict(backbone)).encode())
        self._described.add(page)

    def _key_of(self, folder: Path) -> FeatureKey | None:
        for path in listing.settled(folder):
            rows = self.load(path)
            if rows is not None and layout.shard_folder(self.root, rows.key) == folder:
                return rows.key
        return None

    def _set_aside(self, path: Path, error: ShardCorruptError) -> None:
        try:
            target = quarantine.set_aside_shard(layout.quarantine_folder(self.root), path, error.cause)
        except OSError:
            log.warning("bad shard %s ignored; it could not be moved to quarantine: %s", path, error.cause)
        else:
            log.warning("bad shard moved to %s: %s %s", target, error.cause, error.remedy)


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
