"""Inventory of a store: what it holds, how big it is, and how old."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from featstore.store import paths, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from featstore.store.store import Store
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


def list_entries(store: Store, by: str) -> list[InventoryEntry]:
    """What a store holds, a line per backbone and view, in one of the orders `SORTED_BY`.

    Raises
    ------
    StoreError
        If the cache cannot be read.
    """
    return sorted((_entry(store, key) for key in store.feature_keys()), key=SORTED_BY[by])


def shard_sizes(root: Path, by: str) -> dict[str, int]:
    """Bytes of the shards of a cache, and of quarantine, summed by one of `SORTED_BY`.

    Raises
    ------
    StoreError
        If the cache cannot be read.
    """
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
