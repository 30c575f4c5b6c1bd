"""Mending a cache: nothing is deleted that cannot be rebuilt from what stays."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from featstore.errors import StoreError
from featstore.fingerprint import canonical_json
from featstore.isolation.caller import LostError, call
from featstore.store import layout, quarantine, shard
from featstore.store.commit import commit, make_folder
from featstore.store.ids import NO_IDS, IdSet
from featstore.store.index import Index
from featstore.store.store import Store, digest_of
from featstore.types import FeatureKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost:
    """What has to be computed again in one view of one backbone.

    Attributes
    ----------
    backbone, view, seed
        As the folder names them.
    shards
        Number of shards that were set aside.
    rows
        Vectors that they held and no other shard holds, as far as the index knows; None if it knows nothing.
    """

    backbone: str
    view: str
    seed: int
    shards: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Repair:
    """What `mend` did, as paths.

    Attributes
    ----------
    set_aside
        Shards that went to quarantine.
    put_back
        Good shards that lay in the folder of another key, and now lie in their own.
    rebuilt
        Damaged files that carry nothing of their own: index segments and rows of the table of bad images, dropped
        and rebuilt at need; pages of backbones, written again. A damaged record of what weights have learned from is
        not among them: it stays, and features of these weights are refused, until `featstore extract` has read it off
        the weights file again.
    lost
        What `featstore extract` will compute again when next asked for it.
    """

    set_aside: tuple[str, ...]
    put_back: tuple[str, ...]
    rebuilt: tuple[str, ...]
    lost: tuple[Lost, ...]


def mend(root: Path, bad: Sequence[tuple[Path, str]]) -> Repair:
    """Mend what `featstore.verify` found: `bad` are paths and causes.

    Safe beside a running extraction: a shard that bears its final name is finished, so a bad one is nobody's work.

    Raises
    ------
    StoreError
        If a file cannot be moved.
    """
    try:
        return _mend(root, bad)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"Cannot mend {error.filename}: {error.strerror}", "Check the rights of the cache folder."
        ) from error


def _mend(root: Path, bad: Sequence[tuple[Path, str]]) -> Repair:
    set_aside, put_back, rebuilt, shards, stuck = [], [], [], [], []
    for path, cause in bad:
        if path.suffix == layout.SHARD_SUFFIX and _put_back(root, path):
            put_back.append(str(path))
        elif path.suffix == layout.SHARD_SUFFIX:
            try:
                target = quarantine.set_aside_shard(layout.quarantine_folder(root), path, cause)
            except OSError as failure:
                stuck.append((path, failure))
                continue
            shards.append(path)
            set_aside.append(str(target))
        elif path.name != layout.LEARNED_PAGE:
            path.unlink(missing_ok=True)
            rebuilt.append(str(path))
    _describe_again(root)
    if stuck:  # said when all else is done
        where, why = stuck[0]
        more = f", and {len(stuck) - 1} more bad shards" if stuck[1:] else ""
        raise StoreError(
            f"Cannot set aside {where}{more}: {why.strerror or why}",
            "Check the rights of the cache folder.",
        )
    return Repair(tuple(set_aside), tuple(put_back), tuple(rebuilt), tuple(_lost(root, shards)))


def _put_back(root: Path, path: Path) -> bool:
    """Move a shard that is good but misplaced into the folder of its key; whether that was possible."""
    try:
        key, _ = call("featstore.store.repair:key_of", path)
        home = layout.shard_folder(root, FeatureKey.from_json(key))
        if home == path.parent:
            return False
        make_folder(home)
        path.replace(home / path.name)
    except (OSError, ValueError, LostError) as error:  # a folder that no disk can have, for one
        log.debug("%s cannot be put back: %s", path, error)
        return False
    return True


def key_of(path: Path) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Key of a good shard; run by `featstore.isolation`."""
    return shard.read(path).key.to_json(), []


def _describe_again(root: Path) -> None:
    for key in Store(root).feature_keys():
        page = layout.backbone_folder(root, key.backbone) / layout.BACKBONE_PAGE
        if not page.exists():
            commit(page, canonical_json(asdict(key.backbone)).encode())


def _lost(root: Path, gone: Iterable[Path]) -> list[Lost]:
    """Sum up by folder, with the rows where the index remembers them."""
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in gone:
        by_folder[path.parent].append(path)
    store, index = Store(root), Index(layout.index_folder(root))
    keys = {digest_of(key): key for key in store.feature_keys()}
    remembered = {entry.shard.hex(): entry for entry in index}
    lost = []
    for folder, paths in sorted(by_folder.items()):
        entries = [remembered[path.stem] for path in paths if path.stem in remembered]
        rows = None
        if len(entries) == len(paths):
            key = keys.get(entries[0].key)
            stored = store.stored_ids(key) if key else NO_IDS
            rows = len(IdSet.from_bytes(b"".join(entry.ids for entry in entries)).difference(stored))
        lost.append(Lost(*layout.names(folder), len(paths), rows))
    return lost
