"""A plan cut into portions that any worker can compute, and the rounds until every portion is there.

What other runs are computing is left to them: rows are claimed block by block, before anything is read.

How much memory this process has held at most, measured.
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
from featstore.errors import UsageError, WorkerLostError
from featstore.extraction import pipeline
from featstore.extraction.networks import Metered, record_rates
from featstore.extraction.plan import BLOCK_ROWS, Cell, Plan, blocks
from featstore.images.formats.decode import decoder_version
from featstore.images.reading import bounded
from featstore.serialization import digest
from featstore.store.ids import IdSet
from featstore.store.leases import Leases, overlapping, without
from featstore.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence

    from featstore.extraction.networks import NetworkSource
    from featstore.extraction.plan import Block, Step
    from featstore.store.leases import Claim, Lease, Rows
    from featstore.store.notes import BadImage
    from featstore.types import BackboneSpec, Decoding, Executor, FeatureKey, Features, ImageRecord


ROUNDS = 3
PORTIONS_PER_WORKER = 2
"""So that a worker that ends early finds more to do."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Some images through some feature keys, with all that a worker must know about them."""

    plan: Plan
    records: tuple[ImageRecord, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Compute a portion and commit it: the same engine, batches and bytes wherever it is called.

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
    bounded
        Whether memory is short, so that networks that a portion does not need have to go.
    run
        Name of the run: what its workers claim, other runs leave to them.
    room
        Bytes that pictures may take in a process while they are decoded; None for no bound.
    """

    networks: NetworkSource
    decoding: Decoding
    cache: Path
    progress: pipeline.Progress = field(default_factory=pipeline.Silence)
    bounded: bool = False
    run: str = field(default_factory=partial(secrets.token_hex, 8))
    room: int | None = None

    def __call__(self, portion: Portion) -> pipeline.Tally:
        """Compute what the portion lacks and nobody else is computing.

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
        specs = dict.fromkeys(cell.key.backbone for cell in portion.plan.cells if cell.missing)
        if self.bounded:
            self.networks.keep(specs)
        backbones = {spec: self._load(spec) for spec in specs}
        if specs:
            self.progress.say("computing; the first batch of a network takes longer")
        records = {record.id: record for record in portion.records}
        started = perf_counter()
        try:
            with bounded(self.room), Leases(self.cache, run=self.run) as leases:
                claims = Claims(store, leases)
                wanted = claims.take(blocks(portion.plan))
                tally = pipeline.run(wanted, records, self.decoding, backbones, claims, self.progress)
        finally:
            store.flush()
        tally.peaks = {f"{platform.node()} {os.getpid()}": peak_resident()}
        tally.left = claims.left
        record_rates(self.cache, backbones.values(), perf_counter() - started, processes.threads())
        return tally

    def _load(self, spec: BackboneSpec) -> Metered:
        self.progress.say(
            f"loading {spec.name}" if "tensorflow" in sys.modules else f"loading TensorFlow and {spec.name}"
        )
        return Metered(self.networks, spec)


def whole(todo: Plan, records: Mapping[str, ImageRecord]) -> Portion:
    """Return the plan as one portion, which the engine streams from end to end."""
    return Portion(todo, tuple(records[i] for i in todo.ids))


def cut(
    todo: Plan, records: Mapping[str, ImageRecord], workers: int, rows: int = BLOCK_ROWS
) -> list[Portion]:
    """Cut a plan where the engine would begin a new block, so that the shards are those of one process.

    Where there are fewer blocks than workers can do, the views and input sizes of a block go to different
    workers, each of which decodes its images.
    """
    found = list(blocks(todo, rows))
    pieces = -(-PORTIONS_PER_WORKER * workers // max(1, len(found)))
    return [_portion(block, steps, records) for block in found for steps in _split(block.steps, pieces)]


def compute(
    todo: Plan,
    records: Mapping[str, ImageRecord],
    work: Work,
    executor: Executor,
    progress: pipeline.Progress,
    replan: Callable[[Collection[str]], Plan],
) -> pipeline.Tally:
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
    total, first, losses, told = pipeline.Tally(), todo, 0, 0

    def again() -> Plan:
        return replan({bad.id for bad in total.bad})

    leases = Leases(work.cache, run=work.run)
    while (todo := unclaimed(todo, leases, again)).rows_missing:
        once, lost = _round(todo, records, work, executor, progress)
        total.add(once)
        told += once.rows
        if not lost and not once.left:
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
    work: Work,
    executor: Executor,
    progress: pipeline.Progress,
) -> tuple[pipeline.Tally, bool]:
    """Go through the plan once; tell what was done, and whether workers were lost."""
    done = pipeline.Tally()
    try:
        with closing(_results(work, _portions(todo, records, executor), executor)) as results:
            for tally in results:
                done.add(tally)
                if not executor.in_process:
                    progress.set_postfix_str(done.so_far(done.rows), refresh=False)
                    progress.update(tally.rows)
    except WorkerLostError:
        return done, True
    return done, False


def _portions(todo: Plan, records: Mapping[str, ImageRecord], executor: Executor) -> list[Portion]:
    return [whole(todo, records)] if executor.in_process else cut(todo, records, executor.workers)


def _results(
    work: Work, portions: Sequence[Portion], executor: Executor
) -> Generator[pipeline.Tally, None, None]:
    yield from executor.run(work, portions)


def _portion(block: Block, steps: Sequence[Step], records: Mapping[str, ImageRecord]) -> Portion:
    cells = tuple(Cell(key, IdSet.of(step.ids), 0) for step in steps for key in step.keys)
    wanted = {i for step in steps for i in step.ids}
    ids = tuple(i for i in block.ids if i in wanted)
    return Portion(Plan(ids, cells), tuple(records[i] for i in ids))


def _split(steps: Sequence[Step], pieces: int) -> Iterator[Sequence[Step]]:
    """Neighbours share an input size, so that a worker builds few networks for a portion."""
    ordered = sorted(steps, key=lambda step: (step.input_size, step.view))
    pieces = min(pieces, len(ordered))
    edges = [len(ordered) * piece // pieces for piece in range(pieces + 1)]
    return (ordered[start:stop] for start, stop in pairwise(edges))


def _finished(first: Plan, done: pipeline.Tally) -> Plan:
    """Return what is left of a plan when all is done: its good images, and nothing missing."""
    bad = {image.id for image in done.bad}
    return Plan(tuple(image for image in first.ids if image not in bad), ())


def _rows_done(first: Plan, now: Plan) -> int:
    """Vectors of the first plan that are no longer missing, those of bad images aside."""
    good = IdSet.of(now.ids)
    wanted = sum(int(good.holds(cell.missing.rows).sum()) for cell in first.cells)
    return wanted - now.rows_missing


log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at the leases of others."""


class Claims:
    """A store that is written to by several runs at once: a sink, and the turnstile before the engine.

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
        self.left = 0
        self._store = store
        self._leases = leases
        self._open: dict[Lease, set[FeatureKey]] = {}

    def take(self, wanted: Iterable[Block]) -> Iterator[Block]:
        """Claim block after block, and yield what of each is granted and not stored by now."""
        for block in wanted:
            yield from blocks(self._granted(block), len(block.ids))

    def write(self, key: FeatureKey, ids: Sequence[str], features: Features, batch_size: int) -> None:
        """Commit rows. A lease ends with the last key of its block; with the run, where a key had only bad images."""
        self._store.write(key, ids, features, batch_size)
        for lease, keys in list(self._open.items()):
            if key in keys and ids[0] in lease.granted(key):
                keys.discard(key)
                self._close(lease)

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Enter an image in the quarantine table."""
        self._store.record_bad_image(decoding, bad)

    def _granted(self, block: Block) -> Plan:
        """Claim first, then look what is stored: whoever let go of a row in between has stored it before."""
        wanted = {key: IdSet.of(step.ids) for step in block.steps for key in step.keys}
        lease = self._leases.claim(wanted)
        granted = {key: lease.granted(key) for key in wanted if lease.granted(key)}
        self.left += sum(map(len, wanted.values())) - sum(map(len, granted.values()))
        stored = self._store.stored(granted)
        missing = {key: ids.difference(stored[key]) for key, ids in granted.items()}
        self._open[lease] = {key for key, ids in missing.items() if ids}
        self._close(lease)
        return Plan(block.ids, tuple(Cell(key, ids, 0) for key, ids in missing.items()))

    def _close(self, lease: Lease) -> None:
        """Let go of a lease that has nothing open any more."""
        if not self._open[lease]:
            del self._open[lease]
            lease.release()


def unclaimed(todo: Plan, leases: Leases, replan: Callable[[], Plan]) -> Plan:
    """Return `todo` as soon as it holds a row that no other run is computing, or nothing any more.

    While others compute all that is missing, this waits and says so; what they have stored, or left behind when
    they died, is planned anew.
    """
    others = leases.others()
    told: set[str] = set()
    while todo.rows_missing and others and not without(_rows(todo), others):
        _tell([claim for claim in overlapping(_rows(todo), others) if claim.run not in told], todo)
        told.update(claim.run for claim in others)
        time.sleep(POLL)
        before, others = others, leases.others()
        if {claim.token for claim in others} != {claim.token for claim in before}:
            todo = replan()
    return todo


def _rows(todo: Plan) -> Rows:
    return {digest(cell.key.to_json()): cell.missing for cell in todo.cells if cell.missing}


def _tell(claims: Sequence[Claim], todo: Plan) -> None:
    if claims:
        who = {f"process {claim.owner.pid} on {claim.owner.host.partition(' ')[0]}" for claim in claims}
        log.warning(
            "waiting for %s, which computes the last %d vectors.", ", ".join(sorted(who)), todo.rows_missing
        )


STATUS = Path("/proc/self/status")
KIBIBYTE = 1024


def peak_resident() -> int:
    """Peak resident bytes of this program.

    Linux carries ``ru_maxrss`` over fork and exec, so that a program inherits the peak of the one that started it;
    ``VmHWM`` belongs to the memory of this program alone. Where there is no such line, ``ru_maxrss`` is all there is.
    """
    try:
        lines = STATUS.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    own = next((int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith("VmHWM:")), None)
    return _ever() if own is None else own


def _ever() -> int:
    """``ru_maxrss``, which macOS gives in bytes and all others in KiB."""
    unit = 1 if sys.platform == "darwin" else KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
