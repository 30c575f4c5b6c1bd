"""Garbage in a cache: what no run will ever ask for. Found first, shown, and only then deleted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.errors import StoreError
from featstore.store import layout, listing, rewriting, rooms, surroundings
from featstore.store.ids import NO_IDS, IdSet
from featstore.store.lease import Leases
from featstore.store.solitude import require_solitude
from featstore.store.store import Store, default_cache
from featstore.types import DECODING_REVISION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from featstore.types import FeatureKey

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
    """What was found, and whether it was deleted."""

    garbage: tuple[Garbage, ...]
    deleted: bool

    @property
    def size(self) -> int:
        """Bytes of it all."""
        return sum(item.size for item in self.garbage)

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return {**asdict(self), "size": self.size}


def collect(
    cache: str | Path | None,
    keep: Collection[str] | None,
    *,
    dry_run: bool,
    confirm: Callable[[GarbageCollection], bool] | None,
) -> GarbageCollection:
    """Find garbage and delete it; `featstore.gc` says what the arguments mean.

    Parameters
    ----------
    cache
        The store's folder.
    keep
        Ids of all images that are still wanted; None if that is not known, and no rows go.
    dry_run, confirm
        As for `featstore.gc`.
    """
    store = Store(Path(cache) if cache is not None else default_cache())
    rooms.require_cache(store.root)
    with Leases(store.root) as leases:
        if not dry_run:
            require_solitude(leases)
        found = GarbageCollection(tuple(_garbage(store, keep)), deleted=False)
        if dry_run or not found.garbage or (confirm and not confirm(found)):
            return found
        require_solitude(leases)  # whoever asks for a confirmation may wait for hours
        try:
            _delete(store, found, keep)
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(
                f"Cannot delete {error.filename}: {error.strerror}", "Check the rights of the cache folder."
            ) from error
    return GarbageCollection(found.garbage, deleted=True)


def _garbage(store: Store, keep: Collection[str] | None) -> Iterator[Garbage]:
    for path, stat in listing.stats(surroundings.survey(store.root).temporaries):
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
            rooms.unlink(store.root, path)
        else:
            _shrink(store, path, wanted[item.kind])
        if item.kind == REVISION:
            _leave_no_empty_folder(store.root, path.parent)
    store.settle()


def _shrink(store: Store, path: Path, keep: IdSet) -> None:
    """Write the rows that stay as a new shard, then let the old one go; what goes is read from it, not the index."""
    old = store.load(path)
    if old is None:  # damaged, and in quarantine by now
        return
    stay = [row for row, image in enumerate(old.ids) if image in keep]
    if stay:
        ids = tuple(old.ids[row] for row in stay)
        rewriting.write_checked(store, old.key, ids, old.features[stay], old.batch_size)
    rewriting.remove(store.root, [path])


def _leave_no_empty_folder(root: Path, folder: Path) -> None:
    """Delete a shard folder without shards, and the folders above that hold nothing else."""
    view, backbone = folder.parent, folder.parent.parent
    for empty in (folder, view):
        rooms.remove_empty(root, empty)
    pages = {layout.BACKBONE_PAGE, layout.LEARNED_PAGE}
    if set(rooms.names(root, backbone)) <= pages:
        for page in sorted(pages):
            rooms.unlink(root, backbone / page)
        rooms.remove_empty(root, backbone)
