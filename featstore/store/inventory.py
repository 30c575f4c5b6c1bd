"""Inventory of a store: what it holds, how big it is, and how old."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.arguments import public
from featstore.errors import UsageError, did_you_mean
from featstore.store import paths, verify
from featstore.store.store import Store, default_cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from featstore.types import FeatureKey


DAY = 86_400
AGES = (("a day", DAY), ("a week", 7 * DAY), ("a month", 30 * DAY), ("a year", 365 * DAY))


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One backbone in one view.

    Attributes
    ----------
    images
        Images that have a vector.
    shards, size
        Files, and their bytes.
    oldest, newest
        When the first and the last of its shards were written, ISO 8601, UTC. Compacted rows are new rows.
    """

    backbone: str
    weights: str
    preprocess: str
    precision: str
    decoder: str
    recipe: str
    seed: int
    images: int
    shards: int
    size: int
    oldest: str
    newest: str


SORTED_BY: dict[str, Callable[[InventoryEntry], Any]] = {
    "backbone": attrgetter("backbone", "recipe", "seed"),
    "view": attrgetter("recipe", "seed", "backbone"),
    "age": attrgetter("oldest", "backbone", "recipe", "seed"),
}


@public
def inventory(cache: str | Path | None = None, *, by: str = "backbone") -> list[InventoryEntry]:
    """List what a store holds, a line per backbone and view.

    Parameters
    ----------
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    by
        Order of the lines: ``backbone``, ``view`` or ``age`` (oldest first).

    Raises
    ------
    UsageError
        If `by` is none of these.
    StoreError
        If there is no cache, or it cannot be read.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> [(entry.backbone, entry.images) for entry in featstore.inventory() if entry.seed == 0]
    [...('EfficientNetLite0', 16)...]
    """
    _require(by)
    store = Store(Path(cache) if cache is not None else default_cache())
    paths.require_cache(store.root)
    return sorted((_entry(store, key) for key in store.feature_keys()), key=SORTED_BY[by])


@public
def usage(cache: str | Path | None = None, *, by: str = "backbone") -> dict[str, int]:
    """Sum the bytes of the shards, and of quarantine.

    Parameters
    ----------
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    by
        ``backbone`` or ``view`` (by the names of their folders), or ``age``.

    Raises
    ------
    UsageError
        If `by` is none of these.
    StoreError
        If there is no cache, or it cannot be read.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> sizes = featstore.usage()
    >>> sum(sizes.values()) > 16 * 1280 * 4  # bytes of the vectors alone
    True
    """
    _require(by)
    root = Path(cache) if cache is not None else default_cache()
    paths.require_cache(root)
    sizes: Counter[str] = Counter()
    now = time.time()
    for path, stat in paths.stats(paths.all_shards(root)):
        _, backbone, view, seed, _ = path.relative_to(root).parts
        group = {"backbone": backbone, "view": f"{view}/{seed}", "age": _age(now - stat.st_mtime)}[by]
        sizes[group] += stat.st_size
    order = [f"less than {name}" for name, _ in AGES] if by == "age" else []
    aside = paths.stats(verify.files_below(root, paths.quarantine_folder(root)))
    sizes["quarantine"] = sum(stat.st_size for _, stat in aside)
    return {group: sizes[group] for group in [*order, *sorted({*sizes} - {*order})] if group in sizes}


@dataclass(frozen=True, slots=True)
class CacheContents:
    """How much a store holds, by its file names alone.

    Attributes
    ----------
    backbones
        Folders of backbones.
    shards, size
        Files of vectors, and their bytes.
    quarantined_shards, quarantined_images
        Damaged shards that were set aside, and rows of the table of images that do not decode.
    """

    backbones: int
    shards: int
    size: int
    quarantined_shards: int
    quarantined_images: int


def contents(root: Path) -> CacheContents:
    """Count what a store holds; opens no file of it.

    Raises
    ------
    StoreError
        If there is no cache, or it cannot be read.
    """
    paths.require_cache(root)
    shards = list(paths.stats(paths.all_shards(root)))
    aside = Counter(
        paths.kind_of(root, path) for path in verify.files_below(root, paths.quarantine_folder(root))
    )
    return CacheContents(
        len({path.relative_to(root).parts[1] for path, _ in shards}),
        len(shards),
        sum(stat.st_size for _, stat in shards),
        aside["quarantined"],
        aside["bad image"],
    )


def _entry(store: Store, key: FeatureKey) -> InventoryEntry:
    stats = [stat for _, stat in paths.stats(paths.list_until_stable(paths.shard_folder(store.root, key)))]
    backbone, view = key.backbone, key.view
    written = [stat.st_mtime for stat in stats]
    return InventoryEntry(
        backbone.name,
        backbone.weights,
        backbone.preprocess,
        backbone.precision,
        key.decoding.decoder,
        view.recipe,
        view.seed,
        len(store.stored_ids(key)),
        len(stats),
        sum(stat.st_size for stat in stats),
        _moment(min(written, default=0)),
        _moment(max(written, default=0)),
    )


def _moment(seconds: float) -> str:
    """Time of a file's clock, which some file systems let run beyond the last year of the calendar."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)
    return moment.isoformat(timespec="seconds")


def _age(seconds: float) -> str:
    return next((f"less than {name}" for name, limit in AGES if seconds < limit), "more than a year")


def _require(by: str) -> None:
    if by not in SORTED_BY:
        raise UsageError(f"--by {by!r} is no order.", did_you_mean(by, SORTED_BY))
