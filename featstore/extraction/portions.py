"""A plan cut into portions that any worker can compute, and the rounds until every portion is there."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from featstore.errors import UsageError, WorkerLostError
from featstore.extraction import engine
from featstore.extraction.claims import Claims, unclaimed
from featstore.extraction.meter import Metered, record_rates
from featstore.extraction.plan import BLOCK_ROWS, Cell, Plan, blocks
from featstore.extraction.resident import peak_resident
from featstore.images.decode import decoder_version
from featstore.images.room import bounded
from featstore.store.ids import IdSet
from featstore.store.lease import Leases
from featstore.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from featstore.extraction.plan import Block, Step
    from featstore.types import Backbone, BackboneSpec, Decoding, Executor, ImageRecord

ROUNDS = 3
PORTIONS_PER_WORKER = 2
"""So that a worker that ends early finds more to do."""


class NetworkSource(Protocol):
    """Where a worker gets its backbones; picklable, and in one process the same networks every time."""

    def load(self, wanted: BackboneSpec) -> Backbone:
        """Build the backbone of a spec, or return the one that was built before."""
        ...

    def keep(self, wanted: Collection[BackboneSpec]) -> None:
        """Let go of all other backbones."""
        ...


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
    progress: engine.Progress = field(default_factory=engine.Silence)
    bounded: bool = False
    run: str = field(default_factory=partial(secrets.token_hex, 8))
    room: int | None = None

    def __call__(self, portion: Portion) -> engine.Tally:
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
                tally = engine.run(wanted, records, self.decoding, backbones, claims, self.progress)
        finally:
            store.flush()
        tally.peaks = {f"{platform.node()} {os.getpid()}": peak_resident()}
        tally.left = claims.left
        record_rates(self.cache, backbones.values(), perf_counter() - started, engine.threads())
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
    progress: engine.Progress,
    replan: Callable[[Collection[str]], Plan],
) -> engine.Tally:
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
    total, first, losses, told = engine.Tally(), todo, 0, 0

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
    progress: engine.Progress,
) -> tuple[engine.Tally, bool]:
    """Go through the plan once; tell what was done, and whether workers were lost."""
    done = engine.Tally()
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
) -> Generator[engine.Tally, None, None]:
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


def _finished(first: Plan, done: engine.Tally) -> Plan:
    """Return what is left of a plan when all is done: its good images, and nothing missing."""
    bad = {image.id for image in done.bad}
    return Plan(tuple(image for image in first.ids if image not in bad), ())


def _rows_done(first: Plan, now: Plan) -> int:
    """Vectors of the first plan that are no longer missing, those of bad images aside."""
    good = IdSet.of(now.ids)
    wanted = sum(int(good.holds(cell.missing.rows).sum()) for cell in first.cells)
    return wanted - now.rows_missing
