"""Work units of a plan, and the rounds until every unit is computed.

What other runs are computing is left to them: rows are claimed block by block, before anything is read.
"""

from __future__ import annotations

import logging
import os
import platform
import resource
import secrets
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from featstore import processes
from featstore.backbones.engines import JAX, TENSORFLOW
from featstore.errors import UsageError, WorkerLostError
from featstore.extraction import pipeline
from featstore.extraction.networks import NetworkSource, TimedBackbone, record_timings
from featstore.extraction.plan import BLOCK_ROWS, ImageBlock, KeyPlan, Plan, Step, image_blocks
from featstore.images.reading import decoder_version, memory_budget
from featstore.serialization import digest
from featstore.store.leases import Lease, LeaseRecord, Leases, overlapping, without
from featstore.store.shard import IdSet
from featstore.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence

    from featstore.store.leases import Rows
    from featstore.store.notes import BadImage
    from featstore.types import (
        BackboneSpec,
        Computation,
        Decoding,
        Executor,
        FeatureKey,
        Features,
        ImageRecord,
    )


# Work units and rounds

LIBRARIES = {TENSORFLOW: "TensorFlow", JAX: "JAX"}
ROUNDS = 3
UNITS_PER_WORKER = 2
"""So that a worker that ends early finds more to do."""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """Some images through some feature keys, with all that a worker must know about them."""

    plan: Plan
    records: tuple[ImageRecord, ...]


@dataclass(frozen=True, slots=True)
class ExtractWorker:
    """Compute a work unit and commit it: the same engine, batches and bytes wherever it is called.

    Attributes
    ----------
    networks
        Where backbones come from.
    decoding
        How bytes become pixels.
    cache
        Folder of the store, absolute, the same for all workers.
    progress
        Told of every batch; the parent's bar if the work is done in its process.
    memory_is_bounded
        Whether memory is short, so that networks that a work unit does not need have to go.
    run
        Name of the run: what its workers claim, other runs leave to them.
    decoding_budget
        Bytes that pictures may take in a process while they are decoded; None for no bound.
    block_rows
        Images that are decoded together and make a shard; None for as many as are usual.
    engine
        What computes networks of Keras: it is loaded with the first of them.
    """

    networks: NetworkSource
    decoding: Decoding
    cache: Path
    progress: pipeline.ProgressReporter = field(default_factory=pipeline.NullProgress)
    memory_is_bounded: bool = False
    run: str = field(default_factory=partial(secrets.token_hex, 8))
    decoding_budget: int | None = None
    block_rows: int | None = None
    engine: str = TENSORFLOW

    def __call__(self, unit: WorkUnit) -> pipeline.PassStats:
        """Compute what the unit lacks and nobody else is computing.

        Raises
        ------
        UsageError
            If this worker decodes with another library than the parent.
        """
        if decoder_version() != self.decoding.decoder:
            raise UsageError(
                f"A worker decodes with {decoder_version()}, and the features are to be of {self.decoding.decoder}.",
                "Install the same packages everywhere: pip install -c constraints.txt featstore.",
            )
        store = Store(self.cache)
        specs = dict.fromkeys(key_plan.key.backbone for key_plan in unit.plan.key_plans if key_plan.missing)
        if self.memory_is_bounded:
            self.networks.keep(specs)
        backbones = {spec: self._load(spec) for spec in specs}
        if specs:
            self.progress.say("computing; the first batch of a network takes longer")
        records = {record.id: record for record in unit.records}
        started = perf_counter()
        try:
            with memory_budget(self.decoding_budget), Leases(self.cache, run=self.run) as leases:
                claims = ReservingSink(store, leases)
                wanted = claims.reserve(_blocks(unit.plan, self.block_rows))
                stats = pipeline.run_pass(wanted, records, self.decoding, backbones, claims, self.progress)
        finally:
            store.flush()
        stats.peaks = {f"{platform.node()} {os.getpid()}": peak_resident_bytes()}
        stats.left_to_others = claims.left_to_others
        stats.computations = {spec.name: pipeline.computation_of(b) for spec, b in backbones.items()}
        stats.starts = {spec.name: b.start_seconds for spec, b in backbones.items() if b.batch_seconds}
        record_timings(self.cache, backbones.values(), perf_counter() - started, processes.threads())
        return stats

    def _load(self, spec: BackboneSpec) -> TimedBackbone:
        library = LIBRARIES[self.engine]
        starts = not spec.has_loader and library.lower() not in sys.modules
        self.progress.say(f"loading {library} and {spec.name}" if starts else f"loading {spec.name}")
        return TimedBackbone(self.networks, spec)


def _blocks(todo: Plan, rows: int | None) -> Iterator[ImageBlock]:
    return image_blocks(todo) if rows is None else image_blocks(todo, rows)


def as_one_unit(todo: Plan, records: Mapping[str, ImageRecord]) -> WorkUnit:
    """Return the plan as one work unit, which the engine streams from end to end."""
    return WorkUnit(todo, tuple(records[i] for i in todo.ids))


def split_into_units(
    todo: Plan, records: Mapping[str, ImageRecord], workers: int, rows: int = BLOCK_ROWS
) -> list[WorkUnit]:
    """Cut a plan where the engine would begin a new block, so that the shards are those of one process.

    Where there are fewer blocks than workers can do, the views and input sizes of a block go to different
    workers, each of which decodes its images.
    """
    found = list(image_blocks(todo, rows))
    pieces = -(-UNITS_PER_WORKER * workers // max(1, len(found)))
    return [_work_unit(block, steps, records) for block in found for steps in _split(block.steps, pieces)]


def compute_plan(
    todo: Plan,
    records: Mapping[str, ImageRecord],
    work: ExtractWorker,
    executor: Executor,
    progress: pipeline.ProgressReporter,
    replan: Callable[[Collection[str]], Plan],
) -> pipeline.PassStats:
    """Have a plan computed, and what lost workers or other runs left undone planned and computed again.

    Parameters
    ----------
    todo, records
        What is missing, and the images by id.
    work, executor
        What to do, and where.
    progress
        Told of finished vectors, those that other runs have computed included.
    replan
        Plan anew, without these ids, which turned out to be bad.

    Returns
    -------
    What this run did. After the loss of a worker, its rows are all that were wanted and are stored.

    Raises
    ------
    WorkerLostError
        If vectors are missing after workers were lost in `ROUNDS` rounds.
    """
    total, first, losses, told = pipeline.PassStats(), todo, 0, 0

    def again() -> Plan:
        return replan({bad.id for bad in total.bad})

    leases = Leases(work.cache, run=work.run)
    while (todo := wait_for_unreserved(todo, leases, again)).rows_missing:
        once, lost = _round(todo, records, work, executor, progress)
        total.add(once)
        told += once.rows
        if not lost and not once.left_to_others:
            todo = _finished(first, total)
            break
        todo = again()
        if lost:
            losses += 1
            total.rows = _rows_done(first, todo)
        if losses == ROUNDS and todo.rows_missing:
            raise WorkerLostError(
                f"{todo.rows_missing:,} of {first.rows_missing:,} vectors are still missing after {ROUNDS} rounds: "
                "workers ended without an answer.",
                WorkerLostError.REMEDY,
            )
    progress.update(_rows_done(first, todo) - told)
    return total


def _round(
    todo: Plan,
    records: Mapping[str, ImageRecord],
    work: ExtractWorker,
    executor: Executor,
    progress: pipeline.ProgressReporter,
) -> tuple[pipeline.PassStats, bool]:
    """Go through the plan once; tell what was done, and whether workers were lost."""
    done = pipeline.PassStats()
    try:
        units = _work_units(todo, records, executor, work.block_rows)
        with closing(_results(work, units, executor)) as results:
            for stats in results:
                done.add(stats)
                if not executor.in_process:
                    progress.set_postfix_str(done.rates_text(done.rows), refresh=False)
                    progress.update(stats.rows)
    except WorkerLostError:
        return done, True
    return done, False


def _work_units(
    todo: Plan, records: Mapping[str, ImageRecord], executor: Executor, rows: int | None
) -> list[WorkUnit]:
    return (
        [as_one_unit(todo, records)]
        if executor.in_process
        else split_into_units(todo, records, executor.workers, *([] if rows is None else [rows]))
    )


def _results(
    work: ExtractWorker, units: Sequence[WorkUnit], executor: Executor
) -> Generator[pipeline.PassStats, None, None]:
    yield from executor.run(work, units)


def _work_unit(block: ImageBlock, steps: Sequence[Step], records: Mapping[str, ImageRecord]) -> WorkUnit:
    key_plans = tuple(KeyPlan(key, IdSet.of(step.ids), 0) for step in steps for key in step.keys)
    wanted = {i for step in steps for i in step.ids}
    ids = tuple(i for i in block.ids if i in wanted)
    return WorkUnit(Plan(ids, key_plans), tuple(records[i] for i in ids))


def _split(steps: Sequence[Step], pieces: int) -> Iterator[Sequence[Step]]:
    """Neighbours share an input size, so that a worker builds few networks for a portion."""
    ordered = sorted(steps, key=lambda step: (step.input_size, step.view))
    pieces = min(pieces, len(ordered))
    edges = [len(ordered) * piece // pieces for piece in range(pieces + 1)]
    return (ordered[start:stop] for start, stop in pairwise(edges))


def _finished(first: Plan, done: pipeline.PassStats) -> Plan:
    """Return what is left of a plan when all is done: its good images, and nothing missing."""
    bad = {image.id for image in done.bad}
    return Plan(tuple(image for image in first.ids if image not in bad), ())


def _rows_done(first: Plan, now: Plan) -> int:
    """Vectors of the first plan that are no longer missing, those of bad images aside."""
    good = IdSet.of(now.ids)
    wanted = sum(int(good.holds(key_plan.missing.rows).sum()) for key_plan in first.key_plans)
    return wanted - now.rows_missing


# Rows reserved against other runs

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the leases of others."""


class ReservingSink:
    """A store that is written to by several runs at once: a sink, and what reserves rows before the pipeline.

    Parameters
    ----------
    store
        Where rows go.
    leases
        Those of this run.

    Attributes
    ----------
    left
        Rows that were left to other runs.
    """

    def __init__(self, store: Store, leases: Leases) -> None:
        self.left_to_others = 0
        self._store = store
        self._leases = leases
        self._open: dict[Lease, set[FeatureKey]] = {}

    def reserve(self, wanted: Iterable[ImageBlock]) -> Iterator[ImageBlock]:
        """Claim block after block, and yield what of each is granted and not stored by now."""
        for block in wanted:
            yield from image_blocks(self._granted(block), len(block.ids))

    def write(
        self, key: FeatureKey, ids: Sequence[str], features: Features, computation: Computation
    ) -> None:
        """Commit rows. A lease ends with the last key of its block; with the run, where a key had only bad images."""
        self._store.write(key, ids, features, computation)
        for lease, keys in list(self._open.items()):
            if key in keys and ids[0] in lease.granted(key):
                keys.discard(key)
                self._close(lease)

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Enter an image in the quarantine table."""
        self._store.record_bad_image(decoding, bad)

    def _granted(self, block: ImageBlock) -> Plan:
        """Claim first, then look what is stored: whoever let go of a row in between has stored it before."""
        wanted = {key: IdSet.of(step.ids) for step in block.steps for key in step.keys}
        lease = self._leases.acquire(wanted)
        granted = {key: lease.granted(key) for key in wanted if lease.granted(key)}
        self.left_to_others += sum(map(len, wanted.values())) - sum(map(len, granted.values()))
        stored = self._store.stored(granted)
        missing = {key: ids.difference(stored[key]) for key, ids in granted.items()}
        self._open[lease] = {key for key, ids in missing.items() if ids}
        self._close(lease)
        return Plan(block.ids, tuple(KeyPlan(key, ids, 0) for key, ids in missing.items()))

    def _close(self, lease: Lease) -> None:
        """Let go of a lease that has nothing open any more."""
        if not self._open[lease]:
            del self._open[lease]
            lease.release()


def wait_for_unreserved(todo: Plan, leases: Leases, replan: Callable[[], Plan]) -> Plan:
    """Return `todo` as soon as it holds a row that no other run is computing, or nothing any more.

    While others compute all that is missing, this waits and says so; what they have stored, or left behind when
    they died, is planned anew.
    """
    others = leases.others()
    told: set[str] = set()
    while todo.rows_missing and others and not without(_rows(todo), others):
        _log_waiting([record for record in overlapping(_rows(todo), others) if record.run not in told], todo)
        told.update(record.run for record in others)
        time.sleep(POLL)
        before, others = others, leases.others()
        if {record.token for record in others} != {record.token for record in before}:
            todo = replan()
    return todo


def _rows(todo: Plan) -> Rows:
    return {
        digest(key_plan.key.to_json()): key_plan.missing for key_plan in todo.key_plans if key_plan.missing
    }


def _log_waiting(records: Sequence[LeaseRecord], todo: Plan) -> None:
    if records:
        who = {f"process {record.owner.pid} on {record.owner.host.partition(' ')[0]}" for record in records}
        log.warning(
            "waiting for %s, which computes the last %d vectors.", ", ".join(sorted(who)), todo.rows_missing
        )


# Peak memory of this process, measured

STATUS = Path("/proc/self/status")
KIBIBYTE = 1024


def peak_resident_bytes() -> int:
    """Peak resident bytes of this program.

    Linux carries ``ru_maxrss`` over fork and exec, so that a program inherits the peak of the one that started it;
    ``VmHWM`` belongs to the memory of this program alone. Where there is no such line, ``ru_maxrss`` is all there is.
    """
    try:
        lines = STATUS.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    own = next((int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith("VmHWM:")), None)
    return _max_resident_bytes() if own is None else own


def _max_resident_bytes() -> int:
    """``ru_maxrss``, which macOS gives in bytes and all others in KiB."""
    unit = 1 if sys.platform == "darwin" else KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
