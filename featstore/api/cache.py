"""The cache: what it holds, whether it is sound, what may go, and whether this machine still computes the same."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from featstore.arguments import public
from featstore.backbones import catalog
from featstore.backbones.engines import AUTO, choose_engine
from featstore.errors import MissingFeaturesError, UsageError, did_you_mean
from featstore.extraction import pipeline
from featstore.extraction.networks import Networks
from featstore.extraction.pipeline import MemorySink
from featstore.extraction.plan import KeyPlan, Plan, image_blocks
from featstore.images.reading import decoder_version
from featstore.images.scan import TABLE_OPTIONS, ScanOptions, refuse_unknown_options, scan, scan_options
from featstore.results.extraction import BackboneDrift, Drift
from featstore.store import cleanup
from featstore.store.paths import require_cache
from featstore.store.shard import IdSet
from featstore.store.store import Store, default_cache
from featstore.store.verify import ORDERS, list_entries, shard_sizes, verify_cache
from featstore.types import BackboneSpec, Computation, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from featstore.images.manifest import Manifest
    from featstore.store.verify import InventoryEntry, Verification
    from featstore.types import Features


def _open(cache: str | Path | None) -> Store:
    """Open the cache that is meant; a path that holds none is refused."""
    store = Store(Path(cache) if cache is not None else default_cache())
    require_cache(store.root)
    return store


# What it holds


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
    _require_order(by)
    return list_entries(_open(cache), by)


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
    _require_order(by)
    return shard_sizes(_open(cache).root, by)


def _require_order(by: str) -> None:
    if by not in ORDERS:
        raise UsageError(f"--by {by!r} is no order.", did_you_mean(by, ORDERS))


# Whether it is sound


@public
def verify(
    cache: str | Path | None = None,
    *,
    fast: bool = False,
    repair: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> Verification:
    """Look at every file of a store; changes nothing unless told to repair.

    A shard must have the bytes of its name, pass the guard against hostile HDF5, have the shape that its key
    demands, finite values, and lie in the folder of its key.

    Parameters
    ----------
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    fast
        Only names, sizes and headers: finds what is cut short, not what has rotten.
    repair
        Move bad shards to quarantine, put misplaced ones back, drop what can be rebuilt; see `Repair`.
    threads
        How many shards are hashed at a time; default one per core, at most 8.
    progress
        Show a bar on stderr if that is a terminal.

    Raises
    ------
    StoreError
        If there is no cache, something in it cannot be read or, in a repair, not be moved.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> state = featstore.verify()
    >>> state.shards > 0, state.bad
    (True, ())
    """
    root = _open(cache).root
    return verify_cache(root, fast=fast, repair=repair, threads=threads, progress=progress)


# What may go


@public
def compact(
    cache: str | Path | None = None, *, target: int = cleanup.SHARD_BYTES, dry_run: bool = False
) -> cleanup.Compaction:
    """Merge the small shards of every key, and shards that share a row with another.

    The rows are sorted by image id and cut evenly, so equal rows give equal bytes whatever order they came in.
    Shards of at least half the target stay as they are, so a store that was compacted once is not written anew
    because a few images were added.

    Parameters
    ----------
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    target
        Bytes of vectors per shard.
    dry_run
        Only say what would be done.

    Raises
    ------
    StoreError
        If there is no cache, another run is writing to it, or the disk fails.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> compaction = featstore.compact(dry_run=True)
    >>> compaction.keys
    ()
    """
    if target < cleanup.FLOAT_BYTES:
        raise UsageError(f"--target {target} holds no vector.", "Write for instance --target 4MB.")
    return cleanup.compact_store(_open(cache), target=target, dry_run=dry_run)


@public
def gc(
    *data: str | Path,
    cache: str | Path | None = None,
    dry_run: bool = False,
    confirm: Callable[[cleanup.GarbageCollection], bool] | None = None,
    **reading: Unpack[ScanOptions],
) -> cleanup.GarbageCollection:
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

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> collection = featstore.gc(data, dry_run=True)
    >>> collection.deleted
    False
    """
    refuse_unknown_options(reading)
    tables = [each for each in data if not Path(each).is_dir()]
    manifests = [scan(Path(each), **_fitting(each, reading, tables)) for each in data]
    for each, manifest in zip(data, manifests, strict=True):
        _require_known(str(each), manifest)
    keep = {record.id for manifest in manifests for record in manifest.records} if data else None
    return cleanup.collect(_open(cache), keep, dry_run=dry_run, confirm=confirm)


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


# Drift: whether this machine, with these libraries, still computes what is stored

FEWEST = 3
TOLERANCE = 0.001
"""Of the spread between images: a hundred times what the order of a float32 sum moves, and far below bfloat16."""


@public
def drift(
    data: str | Path,
    *,
    rows: int = 20,
    backbones: Sequence[str] | None = None,
    weights: Mapping[str, str] | None = None,
    preprocess: str = "official",
    precision: str = "float32",
    engine: str = AUTO,
    value_range: tuple[float, ...] | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    **reading: Unpack[ScanOptions],
) -> Drift:
    """Compute some stored vectors again and compare; nothing is stored.

    Parameters
    ----------
    data
        A folder or a CSV manifest whose features are stored.
    rows
        Vectors per backbone, drawn at random from all its stored views; at least 3.
    backbones
        Names; default all in the store that can be computed here.
    weights, preprocess, precision, engine, value_range, cache
        As for `featstore.extract`.
    seed
        Of the draw.
    tolerance
        Share of the spread between images that a value may move.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    UsageError
        If fewer than 3 rows are asked for.
    MissingFeaturesError
        If nothing of the data set is stored that this machine could compute.
    StoreError
        If there is no cache.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> drift = featstore.drift(data, backbones=["EfficientNetLite0"], rows=3)
    >>> drift.drifted, drift.backbones[0].rows
    (False, 3)
    """
    if rows < FEWEST:
        raise UsageError(
            f"{rows} rows say nothing about the spread between images.", f"Give at least {FEWEST}."
        )
    store = _open(cache)
    decoding = Decoding(decoder_version(), value_range=value_range)
    manifest = scan(Path(data), **reading)
    ids = IdSet.of(record.id for record in manifest.records)
    backbones = None if backbones is None else catalog.named(backbones)
    stored = _stored(store, ids, decoding, backbones, (preprocess, precision))
    if not stored:
        raise MissingFeaturesError(
            f"{store.root} holds no vectors of {data} that could be computed again here.",
            "Give the same --backbones, --preprocess, --precision and --range as to `featstore extract`.",
        )
    networks = Networks(weights or {}, preprocess, precision, choose_engine(engine, here=True))
    draw = random.Random(seed)  # noqa: S311 - no secret
    ours = {spec.name: networks.spec(spec.name, fetch=True) for spec in stored}
    found, bad = [], {}
    for spec, keys in stored.items():
        if spec != ours[spec.name] in stored:
            continue  # the same backbone with other weights than those chosen
        chosen = _choose(keys, rows, draw)
        memory = _compute(manifest, chosen, networks, decoding)
        by = pipeline.computation_of(networks.load(spec))
        found.append(_compare(spec, store, chosen, memory, by, tolerance))
        bad.update(memory.bad)
        networks.keep(())
    paths = {record.id: str(record.path) for record in manifest.records}
    return Drift(
        tolerance=tolerance,
        backbones=tuple(found),
        bad=tuple((paths[b.id], b.reason, b.detail) for b in bad.values()),
    )


def _stored(
    store: Store, ids: IdSet, decoding: Decoding, backbones: Sequence[str] | None, wanted: tuple[str, str]
) -> dict[BackboneSpec, dict[FeatureKey, list[str]]]:
    """Ids of the data set that are stored, by backbone and key."""
    found: defaultdict[BackboneSpec, dict[FeatureKey, list[str]]] = defaultdict(dict)
    for key in store.feature_keys():
        spec = key.backbone
        meant = backbones is None or spec.name in backbones
        computable = spec.is_current and not spec.is_imported and (spec.preprocess, spec.precision) == wanted
        if meant and computable and key.decoding == decoding:
            here = ids.difference(ids.difference(store.stored_ids(key)))
            if here:
                found[spec][key] = list(here)
    return dict(sorted(found.items(), key=lambda item: item[0].name))


def _choose(
    keys: Mapping[FeatureKey, Sequence[str]], rows: int, draw: random.Random
) -> dict[FeatureKey, list[str]]:
    """Draw rows from all views together."""
    all_rows = [(key, image) for key, images in keys.items() for image in images]
    chosen: defaultdict[FeatureKey, list[str]] = defaultdict(list)
    for key, image in draw.sample(all_rows, min(rows, len(all_rows))):
        chosen[key].append(image)
    return dict(chosen)


def _compute(
    manifest: Manifest, chosen: Mapping[FeatureKey, list[str]], networks: Networks, decoding: Decoding
) -> MemorySink:
    records = {record.id: record for record in manifest.records}
    ids = tuple(dict.fromkeys(image for images in chosen.values() for image in images))
    todo = Plan(ids, tuple(KeyPlan(key, IdSet.of(images), 0) for key, images in chosen.items()))
    backbones = {key.backbone: networks.load(key.backbone) for key in chosen}
    memory = MemorySink()
    pipeline.run_pass(image_blocks(todo), records, decoding, backbones, memory, pipeline.NullProgress())
    return memory


def _compare(
    spec: BackboneSpec,
    store: Store,
    chosen: Mapping[FeatureKey, list[str]],
    memory: MemorySink,
    by: Computation,
    tolerance: float,
) -> BackboneDrift:
    pairs = [np.stack(pair) for pair in _pairs(store, chosen, memory)]
    if not pairs:
        return BackboneDrift(
            backbone=spec.name,
            weights=spec.weights,
            rows=0,
            equal=0,
            difference=0.0,
            relative=0.0,
            drifted=False,
        )
    stored, computed = np.stack(pairs, axis=1).astype(np.float64)
    difference = float(np.abs(stored - computed).max())
    spread = float(np.sqrt(np.mean(np.var(stored, axis=0))))
    relative = difference / spread if spread else (float("inf") if difference else 0.0)
    return BackboneDrift(
        backbone=spec.name,
        weights=spec.weights,
        rows=len(pairs),
        equal=sum(old.tobytes() == new.tobytes() for old, new in pairs),
        difference=difference,
        relative=relative if np.isfinite(relative) else None,
        drifted=relative > tolerance,
        of_largest=difference / float(np.abs(stored).max() or 1.0),
        stored_by=tuple(sorted({str(one) for key in chosen for one in store.computations.get(key, ())})),
        computed_by=str(by),
    )


def _pairs(
    store: Store, chosen: Mapping[FeatureKey, list[str]], memory: MemorySink
) -> Iterator[tuple[Features, Features]]:
    """Stored and computed vector of each row whose image still decodes."""
    for key, images in chosen.items():
        computed = memory.rows.get(key, {})
        good = [image for image in images if image in computed]
        for image, vector in zip(good, store.read(key, good), strict=True):
            yield vector, computed[image]
