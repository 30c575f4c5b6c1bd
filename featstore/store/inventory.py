"""Looking at a store without changing it: what is there, how big, and is it whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import ShardCorruptError
from featstore.files import read_regular
from featstore.fingerprint import digest_bytes
from featstore.store import layout, shard
from featstore.store.store import Store, default_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featstore.types import FeatureKey


@dataclass(frozen=True, slots=True)
class Entry:
    """One backbone in one view."""

    backbone: str
    weights: str
    preprocess: str
    recipe: str
    seed: int
    images: int
    shards: int
    size: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of `verify`: how many shards and rows are good, and which files are not and why."""

    shards: int
    rows: int
    bad: tuple[tuple[str, str], ...]


def inventory(cache: str | Path | None = None) -> list[Entry]:
    """List what a store holds, sorted by backbone, recipe and seed."""
    store = Store(Path(cache) if cache is not None else default_cache())
    return sorted(
        (_entry(store, key) for key in store.feature_keys()), key=lambda e: (e.backbone, e.recipe, e.seed)
    )


def usage(cache: str | Path | None = None) -> dict[str, int]:
    """Bytes of shards by folder of a backbone, and of quarantine."""
    root = Path(cache) if cache is not None else default_cache()
    sizes: Counter[str] = Counter()
    for path in _shard_files(root):
        sizes[path.relative_to(layout.features_folder(root)).parts[0]] += path.stat().st_size
    aside = layout.quarantine_folder(root)
    sizes["quarantine"] = sum(p.stat().st_size for p in aside.rglob("*") if p.is_file())
    return dict(sorted(sizes.items()))


def verify(cache: str | Path | None = None) -> Verification:
    """Read every shard and check hash, structure, key and values."""
    root = Path(cache) if cache is not None else default_cache()
    rows, bad, good = 0, [], 0
    for path in _shard_files(root):
        try:
            rows += _verified_rows(path)
            good += 1
        except ShardCorruptError as error:
            bad.append((str(path), error.cause))
    return Verification(good, rows, tuple(bad))


def _entry(store: Store, key: FeatureKey) -> Entry:
    folder = layout.shard_folder(store.root, key)
    paths = list(folder.glob(f"*{layout.SHARD_SUFFIX}"))
    backbone, view = key.backbone, key.view
    return Entry(
        backbone.name,
        backbone.weights,
        backbone.preprocess,
        view.recipe,
        view.seed,
        len(store.stored_ids(key)),
        len(paths),
        sum(path.stat().st_size for path in paths),
    )


def _shard_files(root: Path) -> Iterator[Path]:
    yield from sorted(layout.features_folder(root).glob(f"*@*/*@*/seed-*/*{layout.SHARD_SUFFIX}"))


def _verified_rows(path: Path) -> int:
    try:
        data = read_regular(path, shard.MAX_BYTES)
    except OSError as error:
        raise ShardCorruptError(f"it cannot be read: {error.strerror}", shard.REMEDY) from error
    if digest_bytes(data) != path.stem:
        raise ShardCorruptError("its bytes are not those of its name", shard.REMEDY)
    rows = shard.decode(data)
    if not np.isfinite(rows.features).all():
        raise ShardCorruptError("a value is not finite", shard.REMEDY)
    if layout.shard_folder(path.parents[4], rows.key) != path.parent:
        raise ShardCorruptError("it lies in the folder of another key", shard.REMEDY)
    return len(rows.ids)
