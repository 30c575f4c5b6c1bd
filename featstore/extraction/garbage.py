"""gc: what no run will ask for, and what no data set names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from featstore.errors import UsageError
from featstore.images.scan import scan
from featstore.signatures import public
from featstore.store.collection import collect

if TYPE_CHECKING:
    from collections.abc import Callable

    from featstore.images.manifest import Manifest
    from featstore.store.collection import GarbageCollection


@public
def gc(
    *data: str | Path,
    cache: str | Path | None = None,
    follow_links: bool = False,
    dry_run: bool = False,
    confirm: Callable[[GarbageCollection], bool] | None = None,
) -> GarbageCollection:
    """Delete from a store what no run will ever ask for.

    That is: unfinished files of killed writers; vectors of an earlier revision of featstore; and, if data sets are
    given, the vectors of all images that are in none of them. Quarantine is left alone. Rows that stay are
    written as a new shard and read back before the old shard goes.

    Parameters
    ----------
    *data
        All data sets that are still wanted, folders or CSV manifests. Without any, no image's vectors go.
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    follow_links
        As for `featstore.extract`.
    dry_run
        Only say what would go.
    confirm
        Asked with what was found, before any of it goes.

    Raises
    ------
    UsageError
        If a data set has files that cannot be read: their vectors could not be told from garbage.
    StoreError
        If another run is writing to the store, or the disk fails.
    """
    manifests = [scan(Path(each), follow_links=follow_links) for each in data]
    for each, manifest in zip(data, manifests, strict=True):
        _require_known(str(each), manifest)
    keep = {record.id for manifest in manifests for record in manifest.records} if data else None
    return collect(cache, keep, dry_run=dry_run, confirm=confirm)


def _require_known(data: str, manifest: Manifest) -> None:
    nameless = [str(bad.path) for bad in manifest.unreadable if bad.id is None]
    if nameless:
        raise UsageError(
            f"{len(nameless)} files of {data} cannot be read: their vectors would be taken for garbage."
            f" The first is {nameless[0]}.",
            "Mount, mend or remove the files first, or leave DATA out: then no image's vectors go.",
        )
    if not manifest.records:
        raise UsageError(f"{data} names no image.", "Leave it out, or give the data set that is wanted.")
