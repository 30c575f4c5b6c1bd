"""The cache folder as an object: write rows, ask which are there, read them back by image id."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import MissingFeaturesError, ShardCorruptError, StoreError
from featstore.files import UnfitFileError, read_regular
from featstore.fingerprint import canonical_json, digest, digest_bytes
from featstore.store import layout, quarantine, shard
from featstore.store.commit import commit, commit_named_by_hash
from featstore.store.ids import NO_IDS, IdSet
from featstore.store.index import Entry, Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from featstore.store.index import Stamp
    from featstore.store.quarantine import BadImage
    from featstore.store.shard import Shard
    from featstore.types import BackboneSpec, Decoding, FeatureKey, Features

log = logging.getLogger(__name__)
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
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._index = Index(layout.index_folder(root))
        self._unions: dict[frozenset[bytes], IdSet] = {}
        self._described: set[Path] = set()

    def write(self, key: FeatureKey, ids: Sequence[str], features: Features) -> Path:
        """Commit rows as one new shard and return its path.

        Parameters
        ----------
        key
            Address of the rows.
        ids
            Image ids, distinct.
        features
            ``(len(ids), key.backbone.dimension)`` float32, finite.
        """
        self._describe(key.backbone)
        folder = layout.shard_folder(self.root, key)
        path = commit_named_by_hash(folder, shard.encode(key, ids, features), layout.SHARD_SUFFIX)
        try:
            stamp = bytes.fromhex(path.stem), *_size_and_time(path.stat())
        except FileNotFoundError as error:
            raise StoreError(f"{path} vanished as soon as it was written.", shard.REMEDY) from error
        self._index.add(Entry(_digest(key), *stamp, bytes.fromhex("".join(ids))))
        return path

    def flush(self) -> None:
        """Write what the index has learned; without it the next plan only takes longer."""
        self._index.flush()

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
        for rows in self._shards(key):
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
                "Run `featstore extract` with the same data, backbones, recipe and seeds.",
            )

    def feature_keys(self) -> list[FeatureKey]:
        """All feature keys that have at least one good shard."""
        found = (self._key_of(folder) for folder in self._folders())
        return [key for key in found if key is not None]

    def bad_images(self, decoding: Decoding) -> Mapping[str, BadImage]:
        """Return the quarantined images under one decoding, by image id."""
        return quarantine.bad_images(layout.quarantine_folder(self.root), decoding)

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Enter an image in the quarantine table."""
        quarantine.record_bad_image(layout.quarantine_folder(self.root), decoding, bad)

    def _ids(self, key: FeatureKey) -> IdSet:
        digest_of_key = _digest(key)
        known = self._index.entries(digest_of_key)
        lists = set()
        for path, stamp in _stamped(layout.shard_folder(self.root, key)):
            entry = known.get(stamp) or self._opened(key, digest_of_key, path, stamp)
            if entry is not None:
                lists.add(entry.ids)
        return self._union(frozenset(lists))

    def _opened(self, key: FeatureKey, digest_of_key: bytes, path: Path, stamp: Stamp) -> Entry | None:
        rows = self._load(path)
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
        page = layout.backbone_folder(self.root, backbone) / "backbone.json"
        if not page.exists():
            if page in self._described:
                raise StoreError(
                    f"{page.parent} was deleted while features were written to it.", shard.REMEDY
                )
            commit(page, canonical_json(asdict(backbone)).encode())
        self._described.add(page)

    def _folders(self) -> Iterator[Path]:
        yield from sorted(layout.features_folder(self.root).glob("*@*/*@*/seed-*"))

    def _key_of(self, folder: Path) -> FeatureKey | None:
        for path in _shard_paths(folder):
            rows = self._load(path)
            if rows is not None and layout.shard_folder(self.root, rows.key) == folder:
                return rows.key
        return None

    def _shards(self, key: FeatureKey) -> Iterator[Shard]:
        """Good shards of `key` in order of name; two shards that share an id hold the same vector (law 2)."""
        for path in _shard_paths(layout.shard_folder(self.root, key)):
            rows = self._load(path)
            if rows is not None and rows.key == key:
                yield rows

    def _load(self, path: Path) -> Shard | None:
        """Read one shard: bytes, hash, then structure. A bad one is set aside and counts as absent."""
        try:
            return _verified(_read(path), path)
        except FileNotFoundError:
            return None
        except ShardCorruptError as error:
            self._set_aside(path, error)
            return None
        except OSError as error:
            raise StoreError(
                f"Cannot read {path}: {error.strerror}", "Check the disk and its rights."
            ) from error

    def _set_aside(self, path: Path, error: ShardCorruptError) -> None:
        try:
            target = quarantine.set_aside_shard(layout.quarantine_folder(self.root), path, error.cause)
        except OSError:
            log.warning("bad shard %s ignored; it could not be moved to quarantine: %s", path, error.cause)
        else:
            log.warning("bad shard moved to %s: %s %s", target, error.cause, error.remedy)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, shard.MAX_BYTES)
    except UnfitFileError as error:
        raise ShardCorruptError(f"Not a feature shard: {error.strerror}.", shard.REMEDY) from error


def _verified(data: bytes, path: Path) -> Shard:
    if digest_bytes(data) != path.stem:
        raise ShardCorruptError("Its bytes are not those of its name.", shard.REMEDY)
    return shard.decode(data)


def _digest(key: FeatureKey) -> bytes:
    return bytes.fromhex(digest(key.to_json()))


def _stamped(folder: Path) -> Iterator[tuple[Path, Stamp]]:
    """Shard files of a folder with name, size and time of modification; other files are passed over."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as found:
        for item in found:
            name = item.name.removesuffix(layout.SHARD_SUFFIX)
            if name != item.name and not name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    yield Path(item.path), (_name_bytes(name), *_size_and_time(item.stat()))


def _name_bytes(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:  # no digest: opening it will set it aside
        return b""


def _size_and_time(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _shard_paths(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(f"*{layout.SHARD_SUFFIX}") if not p.name.startswith("."))
