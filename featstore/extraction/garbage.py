"""gc: what no run will ask for, and what no data set names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from featstore.errors import UsageError
from featstore.images.scan import TABLE_OPTIONS, ScanOptions, refuse_unknown_options, scan, scan_options
from featstore.signatures import public
from featstore.store.collection import collect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featstore.images.manifest import Manifest
    from featstore.store.collection import GarbageCollection


@public
def gc(
    *data: str | Path,
    cache: str | Path | None = None,
    dry_run: bool = False,
    confirm: Callable[[GarbageCollection], bool] | None = None,
    **reading: Unpack[ScanOptions],
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
    dry_run
        Only say what would go.
    confirm
        Asked with what was found, before any of it goes.
    **reading
        How the data sets are read: see `featstore.images.scan.ScanOptions`. What is about CSV files is for
        those among them.

    Raises
    ------
    UsageError
        If a data set has files that cannot be read: their vectors could not be told from garbage.
    StoreError
        If there is no cache, another run is writing to it, or the disk fails.
    """
    refuse_unknown_options(reading)
    tables = [each for each in data if not Path(each).is_dir()]
    manifests = [scan(Path(each), **_fitting(each, reading, tables)) for each in data]
    for each, manifest in zip(data, manifests, strict=True):
        _require_known(str(each), manifest)
    keep = {record.id for manifest in manifests for record in manifest.records} if data else None
    return collect(cache, keep, dry_run=dry_run, confirm=confirm)


def _fitting(each: str | Path, options: ScanOptions, tables: Sequence[str | Path]) -> ScanOptions:
    """What applies to one of several data sets: no folder is asked for the columns of a table beside it."""
    if each in tables or not tables:
        return options
    return scan_options({name: value for name, value in options.items() if name not in TABLE_OPTIONS})


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
