"""`extract`, stage one: compute and store the features of a data set that are missing.

Beside the function itself: the record of an extraction in its run folder, the share of the images that one job of an
array computes, and the check of what a cheaper precision costs.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import processes
from featstore.arguments import public
from featstore.backbones import catalog
from featstore.backbones.engines import AUTO, JAX, choose_engine, jax_sees_gpu
from featstore.errors import UsageError
from featstore.extraction import pipeline, plan
from featstore.extraction.networks import BATCH_SIZE, Networks, training_records
from featstore.extraction.networks import specs as specs_of
from featstore.extraction.pipeline import embed_images, images_without_vector, refuse_undeclared_range
from featstore.extraction.scheduler import LIBRARIES, ExtractWorker, compute_plan
from featstore.findings import Finding, ordered
from featstore.image_facts import image_copies, image_facts, notes_found
from featstore.images.manifest import Manifest, one_class_left
from featstore.images.reading import decoder_version, memory_budget
from featstore.images.recipe import parse_recipe
from featstore.images.scan import ScanOptions, scan
from featstore.processes import progress_bars
from featstore.results import extraction as results
from featstore.results.extraction import Extraction, PrecisionCheck
from featstore.runs import clear, data_digest, write_run, writes_run
from featstore.store.notes import BadImage, ExtractionRequest, record_request
from featstore.store.paths import require_writable
from featstore.store.shard import NO_IDS, pack
from featstore.store.store import Store, default_cache
from featstore.store.training_record import TrainingRecord, save_training_record
from featstore.types import IDENTITY, Computation, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from featstore.time_estimates import TimeEstimate
    from featstore.types import BackboneSpec, Executor, Features, ImageRecord


DEFAULT_BACKBONES = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2")
DEFAULT_RECIPE = "paper"


@public
@writes_run
def extract(
    data: str | Path | Manifest,
    *,
    backbones: Sequence[str] = DEFAULT_BACKBONES,
    weights: Mapping[str, str] | None = None,
    preprocess: str = "official",
    precision: str = "float32",
    engine: str = AUTO,
    recipe: str = DEFAULT_RECIPE,
    seeds: Iterable[int] = (),
    value_range: tuple[float, ...] | None = None,
    cache: str | Path | None = None,
    executor: str = "serial",
    workers: int | None = None,
    scheduler: str | None = None,
    num_workers: int = 1,
    worker_index: int = 0,
    memory: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,  # noqa: ARG001  # `writes_run` looks at it
    dry_run: bool = False,
    progress: bool = False,
    as_default: bool = True,
    **reading: Unpack[ScanOptions],
) -> Extraction:
    """Compute and store every vector that is wanted and missing.

    Parameters
    ----------
    data
        A folder (``class/…`` or ``split/class/…``), a CSV file, or a `Manifest` that `scan` gave.
    backbones
        Catalogue names.
    weights
        For each backbone ``imagenet`` (default), ``random:SEED``, or a local file. The entry ``*`` is for all.
    preprocess
        ``official`` (each network's own) or ``rescale`` (1/255).
    precision
        ``float32``, ``tf32`` (GPUs, engine jax), ``bfloat16`` (CPUs and GPUs that have it) or ``float16`` (GPUs,
        engine tensorflow).
    engine
        What computes the networks of Keras: ``tensorflow``, ``jax``, or ``auto``, which is jax where JAX sees a GPU.
    recipe
        Augmentation of the seeded views, a preset's name or recipe text.
    seeds
        One augmented view per seed; the identity view is always extracted.
    value_range
        ``(low, high)`` of 16-bit and float images; six numbers are three windows, one for each channel.
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    executor
        Where to compute: ``serial`` (this process), ``processes`` or ``dask``; the vectors are the same bytes.
    workers, scheduler
        Number of processes, and address of the dask scheduler. The default number is one per GPU, else the one that
        `featstore.bench` has recorded in this cache as the fastest, else one per core.
    num_workers, worker_index
        Take only the images of share `worker_index` of `num_workers`, as a job of an array does.
    memory
        Budget in bytes for all processes of this machine; networks that do not fit together take turns, in
        several passes over the images. None for one pass.
    out, overwrite
        Folder for ``run.json``: what was asked, the keys, and what it took, without paths; None writes none, and so
        does a dry run.
    dry_run
        Only say what would be done; loads no network.
    progress
        Name each phase on stderr, show a bar, and put the estimate right after the first batches.
    as_default
        Whether `featstore.compare` and its like shall take these networks and views of these images where they are
        told none.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    FeatstoreError
        One line of cause and one of remedy.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> extraction = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> extraction.images, extraction.keys[0].stored_now
    (16, 16)

    What is stored is not computed again:

    >>> featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity").computed
    0
    """
    started = perf_counter()
    processes.threads()  # refuses a number that is none
    backbones, store = catalog.named(backbones), Store(Path(cache) if cache is not None else default_cache())
    chosen = plan.choose_workers(executor, workers, scheduler, store.root, backbones, precision)
    choice = chosen.executor
    engine = choose_engine(engine, here=choice.in_process and not dry_run)
    decoding, views = Decoding(decoder_version(), value_range=value_range), [IDENTITY, *_views(recipe, seeds)]
    with ExitStack() as stack:
        bar = stack.enter_context(plan.ProgressBar(shown=progress))
        bar.say("reading the data set")
        networks = Networks(weights or {}, preprocess, precision, engine)
        specs = specs_of(networks, backbones, fetch=not dry_run)
        known = training_records(specs, weights or {})
        with progress_bars(wanted=progress):
            manifest = scan(data, **reading)
        everyone = [record.id for record in manifest.records]
        manifest = worker_partition(manifest, num_workers, worker_index)
        keys = [FeatureKey(s, view, decoding) for view in views for s in specs]
        todo = _plan(keys, manifest, store, decoding)
        cost = plan.expected_time(todo, store.root)
        finished, stats = todo, pipeline.PassStats()
        if not dry_run:
            _save_training_records(store, specs, known)
        budget = memory and memory // choice.workers
        pictures = _decoding_memory(manifest, todo, choice)
        parts = plan.passes(todo, budget, BATCH_SIZE, pictures)
        room = plan.decoding_budget(parts, BATCH_SIZE, pictures, budget)
        if todo.rows_missing and not dry_run:
            refuse_undeclared_range(images_without_vector(manifest, todo), decoding)
            require_writable(store.root)
            bar.expect(todo, cost)
            if not choice.in_process:
                bar.say(f"starting {choice.workers} workers; each loads {LIBRARIES[engine]} and its networks")
            told = bar if choice.in_process else pipeline.NullProgress()
            work = _worker(engine, networks, decoding, store, len(manifest.records), budget)
            work = replace(work, progress=told, memory_is_bounded=len(parts) > 1, decoding_budget=room)
            records = {r.id: r for r in manifest.records}
            for part in parts:
                wanted = [key_plan.key for key_plan in part.key_plans]
                replan = partial(_plan_again, wanted, manifest, store.root, decoding)
                stats.add(compute_plan(part, records, work, choice, bar, replan))
            finished = _plan_again(keys, manifest, store.root, decoding, {bad.id for bad in stats.bad})
    if as_default and not dry_run and todo.rows_stored + stats.rows:
        record_request(store.root, everyone, decoding, ExtractionRequest(tuple(specs), tuple(views)))
    with memory_budget(room):
        found = manifest.findings if dry_run else _findings(manifest, decoding, store, progress=progress)
    result = Extraction(
        dry_run=dry_run,
        cache=str(store.root),
        images=len(manifest.records) + len(manifest.unreadable),
        keys=tuple(
            _summary(key_plan, now, cost)
            for key_plan, now in zip(todo.key_plans, finished.key_plans, strict=True)
        ),
        computed=stats.rows,
        bad=_bad_images(manifest, store, decoding, stats),
        findings=ordered((*found, *one_class_left(manifest, _quarantine_reasons(store, decoding, stats)))),
        phases={name: round(value, 3) for name, value in stats.seconds.items()},
        seconds=round(perf_counter() - started, 3),
        estimated_seconds=round(cost.seconds, 1),
        estimated_from=cost.basis,
        idle=round(stats.idle, 3),
        passes=len(parts),
        announced_bytes=choice.workers * plan.peak_bytes(parts, BATCH_SIZE, pictures, budget),
        measured_bytes=sum(sorted(stats.peaks.values())[-choice.workers :]),
        throughput=stats.rates,
        backbone_throughput=tuple(
            _throughput_summary(name, throughput, stats) for name, throughput in stats.throughputs.items()
        ),
        batch_size=BATCH_SIZE,
        precision=precision,
        engine=engine,
        workers=choice.workers,
        workers_from=chosen.reason,
    )
    if out is not None and not dry_run:
        options = {
            "executor": executor, "memory": memory, "num_workers": num_workers, "worker_index": worker_index,
        }  # fmt: skip
        write_run_record(Path(out), result, keys, manifest.records, options)
    return result


def _worker(
    engine: str, networks: Networks, decoding: Decoding, store: Store, images: int, budget: int | None
) -> ExtractWorker:
    """Say how work is done: on a GPU of the engine jax in larger blocks and batches than elsewhere."""
    rows = plan.LARGE_BLOCK_ROWS if engine == JAX and jax_sees_gpu() else None
    if engine == JAX:
        networks = networks.for_batches(plan.largest_batch(images), budget)
    return ExtractWorker(networks, decoding, store.root.absolute(), block_rows=rows, engine=engine)


def _decoding_memory(manifest: Manifest, todo: plan.Plan, choice: Executor) -> plan.DecodingMemory:
    """Look at the headers of the images that will be decoded."""
    missing = NO_IDS.union(*(key_plan.missing for key_plan in todo.key_plans))
    held = missing.holds(pack([record.id for record in manifest.records]))
    paths = dict.fromkeys(r.path for r, lacks in zip(manifest.records, held, strict=True) if lacks)
    each = processes.threads() if choice.in_process else max(1, processes.threads() // choice.workers)
    return plan.DecodingMemory.of(paths, each, choice.workers)


def _quarantine_reasons(store: Store, decoding: Decoding, stats: pipeline.PassStats) -> dict[str, str]:
    """Why images are left out, by id: of earlier runs and of this one."""
    earlier = {i: bad.reason for i, bad in store.bad_images(decoding).items()}
    return earlier | {bad.id: bad.reason for bad in stats.bad}


def _findings(manifest: Manifest, decoding: Decoding, store: Store, *, progress: bool) -> tuple[Finding, ...]:
    """What reading the data set and decoding its images met; looking at images is kept for stage two."""
    facts = image_facts(manifest.records, decoding, store.root, progress=progress)
    image_copies(facts, [record.group for record in facts.records], decoding, store.root, progress=progress)
    return ordered([*manifest.findings, *notes_found(facts)])


def _save_training_records(
    store: Store, specs: Iterable[BackboneSpec], known: Mapping[str, TrainingRecord]
) -> None:
    """Keep what tuned weights have learned from before their first vector: it must never be lacking."""
    for spec in specs:
        if spec.name in known:
            save_training_record(store.root, spec, known[spec.name])


def _views(recipe: str, seeds: Iterable[int]) -> list[View]:
    wanted = sorted(set(seeds))
    text = str(parse_recipe(recipe))
    if wanted and text == IDENTITY.recipe:
        raise UsageError(
            f"The recipe {recipe!r} changes nothing, so seeds {wanted} would all be the identity view.",
            "Give an augmenting recipe, such as --recipe paper, or leave --seeds out.",
        )
    return [View(text, seed) for seed in wanted]


def _plan(keys: Sequence[FeatureKey], manifest: Manifest, store: Store, decoding: Decoding) -> plan.Plan:
    ids = list(dict.fromkeys(record.id for record in manifest.records))
    return plan.plan(keys, ids, store.stored(keys), store.bad_images(decoding))


def _plan_again(
    keys: Sequence[FeatureKey], manifest: Manifest, cache: Path, decoding: Decoding, bad: Collection[str]
) -> plan.Plan:
    good = tuple(record for record in manifest.records if record.id not in bad)
    return _plan(keys, replace(manifest, records=good), Store(cache), decoding)


def _summary(key_plan: plan.KeyPlan, now: plan.KeyPlan, cost: TimeEstimate) -> results.KeySummary:
    backbone, view = key_plan.key.backbone, key_plan.key.view
    return results.KeySummary(
        backbone=backbone.name,
        weights=backbone.weights,
        recipe=view.recipe,
        seed=view.seed,
        stored=key_plan.stored,
        missing=len(key_plan.missing),
        bytes_missing=key_plan.bytes_missing,
        seconds=round(len(key_plan.missing) * cost.per_vector[backbone], 1),
        stored_now=now.stored,
        missing_now=len(now.missing),
    )


def _throughput_summary(
    name: str, throughput: pipeline.Throughput, stats: pipeline.PassStats
) -> results.ThroughputSummary:
    return results.ThroughputSummary(
        backbone=name,
        vectors=throughput.vectors,
        seconds=round(throughput.seconds, 3),
        vectors_per_second=round(throughput.vectors / throughput.seconds, 2),
        start_seconds=round(stats.starts.get(name, 0.0), 2),
        **asdict(stats.computations.get(name, Computation())),
    )


def _bad_images(
    manifest: Manifest, store: Store, decoding: Decoding, stats: pipeline.PassStats
) -> tuple[tuple[str, str, str], ...]:
    known = {**store.bad_images(decoding), **{bad.id: bad for bad in stats.bad}}
    decoded = [
        (str(r.path), known[r.id].reason, known[r.id].detail) for r in manifest.records if r.id in known
    ]
    unread = [(str(q.path), q.reason, q.detail) for q in manifest.unreadable]
    return tuple(sorted(decoded + unread))


# Run record: what was asked, of which images, and what it took; no path, no patient.


def write_run_record(
    out: Path,
    result: Extraction,
    keys: Sequence[FeatureKey],
    records: Iterable[ImageRecord],
    options: Mapping[str, Any],
) -> None:
    """Write ``run.json`` of an extraction, as `featstore.runs.prepare` left the folder.

    Parameters
    ----------
    out
        The run's folder.
    result
        What the extraction did.
    keys
        Every feature key that was wanted.
    records
        The images of the manifest.
    options
        What was asked for beside the keys.
    """
    clear(out)
    write_run(
        out,
        {
            "kind": "extract",
            "options": dict(options),
            "data_sha256": data_digest(records),
            "images": result.images,
            "quarantined": dict(Counter(reason for _, reason, _ in result.bad)),
            "backbones": _distinct(asdict(key.backbone) for key in keys),
            "views": _distinct(asdict(key.view) for key in keys),
            "decoding": asdict(keys[0].decoding) if keys else None,
            "findings": [finding.to_json(examples=False) for finding in result.findings],
            **{name: value for name, value in result.to_json().items() if name not in NOT_IN_RUN_RECORD},
        },
    )


NOT_IN_RUN_RECORD = frozenset({"dry_run", "cache", "images", "bad", "findings"})
"""Told above in another form, or naming files: the summary and the quarantine table name them."""


def _distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


# Array jobs: the same share of the images for the same job, whoever asks and whatever is stored.

DIGITS = 16


def worker_partition(manifest: Manifest, num_workers: int, worker_index: int) -> Manifest:
    """Keep the images whose id, a hash, falls to worker `worker_index` (from 0) of `num_workers`.

    The shares are disjoint and together complete, so that jobs need not know of each other. Files without an
    id, which could not even be read, are reported by worker 0.

    Raises
    ------
    UsageError
        If there is no such worker.
    """
    if not 0 <= worker_index < num_workers:
        raise UsageError(
            f"There is no worker {worker_index} among {num_workers}.",
            "Workers are numbered from 0: --num-workers 4 has --worker-index 0 to 3.",
        )
    if num_workers == 1:
        return manifest
    return replace(
        manifest,
        records=tuple(r for r in manifest.records if _worker_of(r.id, num_workers) == worker_index),
        unreadable=tuple(q for q in manifest.unreadable if _worker_of(q.id, num_workers) == worker_index),
        copies=tuple(r for r in manifest.copies if _worker_of(r.id, num_workers) == worker_index),
    )


def _worker_of(image: str | None, num_workers: int) -> int:
    return 0 if image is None else int(image[:DIGITS], 16) % num_workers


# Precision check: error on the user's own images, against the spread between them.

FEWEST = 3


def check_precision(
    data: str | Path,
    *,
    backbones: Sequence[str] = DEFAULT_BACKBONES,
    weights: Mapping[str, str] | None = None,
    preprocess: str = "official",
    precision: str = "bfloat16",
    engine: str = AUTO,
    images: int = 64,
    value_range: tuple[float, ...] | None = None,
    **reading: Unpack[ScanOptions],
) -> PrecisionCheck:
    """Embed some images of a data set in float32 and in `precision`, and compare; nothing is stored.

    Parameters
    ----------
    data, backbones, weights, preprocess, value_range
        As for `featstore.extract`.
    precision
        ``bfloat16``, ``tf32`` or ``float16``.
    engine
        As for `featstore.extract`.
    images
        How many to look at, at least 3: those with the smallest ids, which is a random and repeatable choice.
    **reading
        How the data set is read: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    UsageError
        If fewer than 3 images are wanted or decode.
    FeatstoreError
        As `featstore.extract` does.
    """
    _require_enough(images)
    manifest = scan(Path(data), **reading)
    single = sorted((r for r in manifest.records if r.frame == 0), key=lambda record: record.id)[:images]
    decoding = Decoding(decoder_version(), value_range=value_range)
    engine = choose_engine(engine, here=True)
    costs: list[results.PrecisionCost] = []
    bad: dict[str, BadImage] = {}
    count = 0
    for name in dict.fromkeys(catalog.named(backbones)):
        specs = [
            Networks(weights or {}, preprocess, p, engine).spec(name, fetch=True)
            for p in ("float32", precision)
        ]
        keys = [FeatureKey(spec, IDENTITY, decoding) for spec in specs]
        features, bad = embed_images(single, keys, weights or {}, engine)
        count = len(features)
        _require_enough(count)
        reference, cheap = np.hsplit(np.array(list(features.values())), 2)
        costs.append(
            results.PrecisionCost(
                backbone=name,
                weights=specs[0].weights,
                error=relative_error(reference, cheap),
                correlation=agreement(reference, cheap),
            )
        )
    return PrecisionCheck(
        precision=precision,
        images=count,
        costs=tuple(costs),
        bad=tuple((str(r.path), bad[r.id].reason, bad[r.id].detail) for r in single if r.id in bad),
    )


def relative_error(reference: Features, other: Features) -> float:
    """Root mean square difference over the root mean square standard deviation between rows.

    Both are ``(n, dimension)``. Infinite where all rows of `reference` are alike and `other` differs.
    """
    spread = float(np.sqrt(np.mean(np.var(reference, axis=0, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(np.subtract(other, reference, dtype=np.float64)))))
    return error / spread if spread else (np.inf if error else 0.0)


def agreement(reference: Features, other: Features) -> float:
    """Pearson correlation of the distances between all pairs of rows in `reference` and in `other`."""
    return float(np.corrcoef(_distances(reference), _distances(other))[0, 1])


def _distances(rows: Features) -> Any:  # noqa: ANN401
    first, second = np.triu_indices(len(rows), 1)
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T
    squares = np.diag(gram)
    return np.sqrt(np.maximum(squares[first] + squares[second] - 2 * gram[first, second], 0))


def _require_enough(images: int) -> None:
    if images < FEWEST:
        raise UsageError(
            f"{images} images say nothing about the spread between images.",
            f"Give at least {FEWEST}, better 64.",
        )
