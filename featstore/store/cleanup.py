"""Compaction and garbage collection: fewer and smaller shards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import reduce
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import StoreError
from featstore.store import paths, verify
from featstore.store.leases import Leases, require_exclusive
from featstore.store.shard import NO_IDS, IdSet
from featstore.types import DECODING_REVISION, Computation, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from featstore.store.shard import PackedIds
    from featstore.store.store import Store
    from featstore.types import Features


# Compaction: many small shards of a key into few, the same rows, read back before the old ones go

SHARD_BYTES = 4_000_000
"""Bytes of vectors in a shard: about two blocks of the engine for 2048 columns."""
BYTES_AT_ONCE = 256 << 20
"""Bytes of vectors that are held at a time; a key with more is read several times."""
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction did to one backbone in one view, or with ``dry_run`` would do.

    Attributes
    ----------
    before, after
        Number of shards.
    rows
        Vectors that are written anew.
    duplicates
        Vectors that stood in more than one shard, and now stand in one.
    unequal
        Those of the duplicates whose bytes differed, as those of two machines may; the one stays that was read
        before. Not known in a dry run.
    """

    backbone: str
    recipe: str
    seed: int
    before: int
    after: int
    rows: int
    duplicates: int
    unequal: int


@dataclass(frozen=True, slots=True)
class Compaction:
    """Outcome of `featstore.compact`, with a line for each key that had something to compact."""

    dry_run: bool
    keys: tuple[Compacted, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Task:
    """Shards of a key that become new ones with these ids, sorted; duplicates are counted."""

    key: FeatureKey
    old: tuple[Path, ...]
    new: tuple[PackedIds, ...]
    untouched: int
    duplicates: int


def compact_store(store: Store, *, target: int, dry_run: bool) -> Compaction:
    """Merge the small shards of every key; `featstore.compact` says what the arguments mean.

    Raises
    ------
    StoreError
        If another run is writing to the cache, or the disk fails.
    """
    done: list[Compacted] = []
    with Leases(store.root) as leases:
        if not dry_run:
            require_exclusive(leases)
        for key in store.feature_keys():
            task = _task(key, store.ids_by_shard(key), target)
            if task is None:
                continue
            unequal = 0
            if not dry_run:
                with leases.acquire({key: IdSet.union(*map(IdSet, task.new))}):
                    unequal = _carry_out(store, task)
            done.append(_summary(task, unequal))
    if done and not dry_run:
        store.refresh_index()
    return Compaction(dry_run, tuple(done))


def _task(key: FeatureKey, held: Mapping[Path, PackedIds], target: int) -> _Task | None:
    """What there is to do for one key; None if nothing."""
    if len(held) < 2:  # noqa: PLR2004
        return None
    rows = max(1, target // (FLOAT_BYTES * key.backbone.dimension))
    ids, counts = np.unique(np.concatenate(list(held.values())), return_counts=True)
    twice = IdSet(ids[counts > 1])
    small = {path for path, has in held.items() if 2 * len(has) < rows}
    old = tuple(path for path, has in held.items() if path in small or twice.holds(has).any())
    if len(old) < 2:  # noqa: PLR2004
        return None
    chosen = np.unique(np.concatenate([held[path] for path in old]))
    new = tuple(np.array_split(chosen, ceil(len(chosen) / rows)))
    return _Task(key, old, new, len(held) - len(old), sum(len(held[path]) for path in old) - len(chosen))


def _carry_out(store: Store, task: _Task) -> int:
    """Write the new shards, read them back, delete the old ones; number of unequal duplicates."""
    fresh: list[Path] = []
    unequal = 0
    at_a_time = max(1, BYTES_AT_ONCE // (FLOAT_BYTES * task.key.backbone.dimension * len(task.new[0])))
    for start in range(0, len(task.new), at_a_time):
        parts = task.new[start : start + at_a_time]
        ids = np.concatenate(parts)
        features, differing, computation = _gather(store, task, ids)
        unequal += differing
        edges = np.cumsum([0, *map(len, parts)])
        for part, first in zip(parts, edges, strict=False):
            rows = features[first : first + len(part)]
            fresh.append(write_checked(store, task.key, tuple(IdSet(part)), rows, computation))
    remove_shards(store.root, task.old, keep=fresh)
    return unequal


def _gather(store: Store, task: _Task, ids: PackedIds) -> tuple[Features, int, Computation]:
    """Vectors of sorted ids out of the old shards; the last by name counts, as for every reader.

    With them the number of unequal duplicates, and how they were computed, as far as it is the same for all.
    """
    features = np.empty((len(ids), task.key.backbone.dimension), np.float32)
    filled = np.zeros(len(ids), bool)
    unequal = 0
    computations: list[Computation] = []
    for targets, vectors, computation in _parts(store, task.old, ids):
        again = filled[targets]
        bits = features[targets[again]].view(np.uint32), vectors[again].view(np.uint32)
        unequal += int((bits[0] != bits[1]).any(axis=1).sum())
        features[targets] = vectors
        filled[targets] = True
        computations.append(computation)
    if not filled.all():
        raise StoreError(
            f"Shards of {task.key.backbone.name} changed while they were compacted; all rows are where they were.",
            "Run `featstore cache verify`, then the same command again.",
        )
    return features, unequal, reduce(Computation.agreed, computations)


def _parts(
    store: Store, paths: Sequence[Path], ids: PackedIds
) -> Iterator[tuple[np.ndarray, Features, Computation]]:
    """Of each shard the rows that are wanted: where they go, their vectors, and how they were computed."""
    for path in paths:
        rows = store.load(path)
        if rows is not None:
            packed = rows.packed
            at = np.minimum(np.searchsorted(ids, packed), len(ids) - 1)
            wanted = ids[at] == packed
            yield at[wanted], rows.features[wanted], rows.computation


def _summary(task: _Task, unequal: int) -> Compacted:
    backbone, view = task.key.backbone, task.key.view
    return Compacted(
        backbone.name,
        view.recipe,
        view.seed,
        task.untouched + len(task.old),
        task.untouched + len(task.new),
        sum(map(len, task.new)),
        task.duplicates,
        unequal,
    )


# Garbage: what no run will ever ask for. Found first, shown, and only then deleted.

TEMPORARY, REVISION, IMAGE = "temporary", "revision", "image"


@dataclass(frozen=True, slots=True)
class Garbage:
    """One file that goes, or loses rows.

    Attributes
    ----------
    path
        The file.
    kind
        ``temporary``: what a killed writer left. ``revision``: vectors of an earlier featstore, which this one never
        reads. ``image``: vectors of images that no given data set names.
    rows
        Vectors that go.
    kept
        Vectors of the same file that stay, in a new one.
    size
        Bytes that are freed, about.
    """

    path: str
    kind: str
    rows: int
    kept: int
    size: int


@dataclass(frozen=True, slots=True)
class GarbageCollection:
    """What was found, and whether it was deleted.

    Attributes
    ----------
    garbage
        The files.
    deleted
        Whether they are gone.
    cache
        Folder of the store that they are in.
    """

    garbage: tuple[Garbage, ...]
    deleted: bool
    cache: str

    @property
    def size(self) -> int:
        """Bytes of it all."""
        return sum(item.size for item in self.garbage)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {**asdict(self), "size": self.size}


def collect(
    store: Store,
    keep: Collection[str] | None,
    *,
    dry_run: bool,
    confirm: Callable[[GarbageCollection], bool] | None,
) -> GarbageCollection:
    """Find garbage and delete it; `featstore.gc` says what the arguments mean.

    Parameters
    ----------
    store
        The opened cache.
    keep
        Ids of all images that are still wanted; None if that is not known, and no rows go.
    dry_run, confirm
        As for `featstore.gc`.
    """
    with Leases(store.root) as leases:
        if not dry_run:
            require_exclusive(leases)
        found = GarbageCollection(tuple(_garbage(store, keep)), deleted=False, cache=str(store.root))
        if dry_run or not found.garbage or (confirm and not confirm(found)):
            return found
        require_exclusive(leases)  # whoever asks for a confirmation may wait for hours
        try:
            _delete(store, found, keep)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(
                f"Cannot delete {error.filename}: {error.strerror}", "Check the rights of the cache folder."
            ) from error
    return replace(found, deleted=True)


def _garbage(store: Store, keep: Collection[str] | None) -> Iterator[Garbage]:
    for path, stat in paths.stats(verify.survey(store.root).temporaries):
        yield Garbage(str(path), TEMPORARY, 0, 0, stat.st_size)
    wanted = IdSet.of(keep) if keep is not None else None
    for key in store.feature_keys():
        if not _is_current(key):
            yield from _rows(store, key, REVISION, NO_IDS)
        elif wanted is not None:
            yield from _rows(store, key, IMAGE, wanted)


def _rows(store: Store, key: FeatureKey, kind: str, wanted: IdSet) -> Iterator[Garbage]:
    for path, ids in store.ids_by_shard(key).items():
        kept = int(wanted.holds(ids).sum())
        if kept < len(ids):
            gone = len(ids) - kept
            yield Garbage(str(path), kind, gone, kept, path.lstat().st_size * gone // len(ids))


def _is_current(key: FeatureKey) -> bool:
    return key.backbone.is_current and key.decoding.revision == DECODING_REVISION


def _delete(store: Store, found: GarbageCollection, keep: Collection[str] | None) -> None:
    wanted = {REVISION: NO_IDS, IMAGE: IdSet.of(keep or ())}
    for item in found.garbage:
        path = Path(item.path)
        if item.kind == TEMPORARY:
            paths.unlink(store.root, path)
        else:
            _shrink(store, path, wanted[item.kind])
        if item.kind == REVISION:
            _leave_no_empty_folder(store.root, path.parent)
    store.refresh_index()


def _shrink(store: Store, path: Path, keep: IdSet) -> None:
    """Write the rows that stay as a new shard, then let the old one go; what goes is read from it, not the index."""
    old = store.load(path)
    if old is None:  # damaged, and in quarantine by now
        return
    stay = np.flatnonzero(keep.holds(old.packed))
    if len(stay):
        names = old.ids
        ids = tuple(names[row] for row in stay)
        write_checked(store, old.key, ids, old.features[stay], old.computation)
    remove_shards(store.root, [path])


def _leave_no_empty_folder(root: Path, folder: Path) -> None:
    """Delete a shard folder without shards, and the folders above that hold nothing else."""
    view, backbone = folder.parent, folder.parent.parent
    for empty in (folder, view):
        paths.remove_empty(root, empty)
    pages = {paths.BACKBONE_PAGE, paths.TRAINING_RECORD_PAGE}
    if set(paths.names(root, backbone)) <= pages:
        for page in sorted(pages):
            paths.unlink(root, backbone / page)
        paths.remove_empty(root, backbone)


# Shards replaced: the new one is read back before an old one goes; a crash leaves both or one.


def write_checked(
    store: Store, key: FeatureKey, ids: Sequence[str], features: Features, computation: Computation
) -> Path:
    """Commit rows as one new shard, and read them back.

    Raises
    ------
    StoreError
        If they do not come back as they went; nothing else was touched.
    """
    path = store.write(key, ids, features, computation)
    found = store.load(path)
    same = found is not None and (found.key, found.ids, found.computation) == (
        key,
        tuple(ids),
        computation,
    )
    if found is None or not same or found.features.tobytes() != features.tobytes():
        raise StoreError(
            f"{path} did not come back as it was written; the old shards are untouched.", "Check the disk."
        )
    return path


def remove_shards(root: Path, shards: Iterable[Path], keep: Collection[Path] = ()) -> None:
    """Delete shards in order of name, but those in `keep`.

    The order matters where two shards hold unequal vectors of one image: a reader takes the last by name, so that
    what it reads never changes on the way.
    """
    for path in sorted(shards):
        if path not in keep:
            paths.unlink(root, path)
            paths.sync(path.parent)
