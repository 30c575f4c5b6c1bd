"""What has to be computed, what it costs, and what is said of it while it runs.

What has to be computed: wanted minus stored, as a pure function (law 5).

How much memory an extraction takes, announced before it begins and kept under a budget.

How many processes an extraction gets, and on what grounds.

What an extraction says of itself on stderr: each phase by name, then a bar, and the estimate put right.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from featstore import registry
from featstore.backbones.catalog import footprint
from featstore.costs import estimate, machine
from featstore.errors import UsageError
from featstore.images.reading import dearest
from featstore.processes import available_cores, visible_devices
from featstore.store.ids import NO_IDS, IdSet, pack
from featstore.store.notes import recorded_layouts, recorded_rates

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.costs import Estimate
    from featstore.types import BackboneSpec, Executor, FeatureKey, View


T = TypeVar("T")
FLOAT_BYTES = 4
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Cell:
    """One feature key and the images that lack a vector under it."""

    key: FeatureKey
    missing: IdSet
    stored: int

    @property
    def bytes_missing(self) -> int:
        """Size of the vectors to come, in bytes."""
        return len(self.missing) * self.key.backbone.dimension * FLOAT_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of one extraction, and the image ids in the order in which they will be read."""

    ids: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def rows_missing(self) -> int:
        """Number of vectors to compute: one per image, view and backbone."""
        return sum(len(cell.missing) for cell in self.cells)

    @property
    def rows_stored(self) -> int:
        """Number of wanted vectors that are in the store already."""
        return sum(cell.stored for cell in self.cells)

    @property
    def bytes_missing(self) -> int:
        """Size of all vectors to come, in bytes."""
        return sum(cell.bytes_missing for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Step:
    """Images of one block that go through the same backbones of one input size, seen in one view."""

    view: View
    input_size: int
    ids: tuple[str, ...]
    keys: tuple[FeatureKey, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Images decoded once, then used for every step. After each step its shards are committed."""

    ids: tuple[str, ...]
    steps: tuple[Step, ...]


def plan(
    keys: Sequence[FeatureKey],
    ids: Sequence[str],
    stored: Mapping[FeatureKey, Collection[str]],
    bad: Collection[str] = (),
) -> Plan:
    """Subtract what is stored, and what is known not to decode, from what is wanted.

    Parameters
    ----------
    keys
        Feature keys wanted for every image.
    ids
        Image ids, distinct, in reading order.
    stored
        For each key the ids that the store holds; more than are wanted do no harm.
    bad
        Quarantined ids.
    """
    good = tuple(i for i in ids if i not in bad)
    wanted = IdSet.of(good)
    held = [stored.get(key, NO_IDS) for key in keys]
    missing = {id(there): wanted.difference(there) for there in _once(held)}
    return Plan(
        good, tuple(_cell(key, wanted, missing[id(there)]) for key, there in zip(keys, held, strict=True))
    )


def blocks(todo: Plan, rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Cut a plan into blocks of at most `rows` images, leaving out images that lack nothing."""
    cells = [cell for cell in todo.cells if cell.missing]
    lacks = _lacking(cells, todo.ids)
    lacking = np.flatnonzero(lacks.any(axis=0))
    for start in range(0, len(lacking), rows):
        block = lacking[start : start + rows]
        ids = tuple(todo.ids[at] for at in block)
        yield Block(ids, tuple(_steps(cells, ids, lacks[:, block])))


def _once(objects: Iterable[T]) -> Collection[T]:
    """Each object once: views of the same images share one set of ids, and a million ids take their time."""
    return {id(found): found for found in objects}.values()


def _cell(key: FeatureKey, wanted: IdSet, missing: IdSet) -> Cell:
    return Cell(key, missing, len(wanted) - len(missing))


def _lacking(cells: Sequence[Cell], ids: Sequence[str]) -> NDArray[np.bool_]:
    """``(cells, ids)``: whether a cell lacks an id. Sorted questions are answered several times faster."""
    packed = pack(ids)
    order = np.argsort(packed)
    ascending = packed[order]
    lacks = np.zeros((len(cells), len(ids)), bool)
    for missing in _once(cell.missing for cell in cells):
        alike = [cell.missing is missing for cell in cells]
        answer = np.empty(len(ids), bool)
        answer[order] = missing.holds(ascending)
        lacks[alike] = answer
    return lacks


def _steps(cells: Sequence[Cell], block: tuple[str, ...], lacks: NDArray[np.bool_]) -> Iterator[Step]:
    """Keys that share view, input size and missing images share one warp; they go through together."""
    together: dict[tuple[View, int, tuple[str, ...]], list[FeatureKey]] = {}
    for cell, row in zip(cells, lacks, strict=True):
        if row.any():
            ids = tuple(block[at] for at in np.flatnonzero(row))
            together.setdefault((cell.key.view, cell.key.backbone.input_size, ids), []).append(cell.key)
    for (view, size, ids), keys in together.items():
        yield Step(view, size, ids, tuple(keys))


MEGABYTE = 1_000_000
BASE = 640 * MEGABYTE
"""A process with TensorFlow, Keras, h5py and the images' code loaded."""
SHARED = 0.43
"""Networks in one process share workspace: each but the largest adds this much of what it takes alone."""
CHANNELS = 3
BATCHES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a process needs beside its networks, to decode the largest pictures of a data set.

    Attributes
    ----------
    alone
        Bytes for the largest one.
    together
        Bytes for as many of the largest as threads may meet at the same time.
    """

    alone: int = 0
    together: int = 0

    @classmethod
    def of(cls, paths: Iterable[Path], threads: int, processes: int) -> Pictures:
        """Look at the headers of all files.

        Parameters
        ----------
        paths
            Files that will be decoded.
        threads
            That make pixels, in each process.
        processes
            Among which the largest are spread.
        """
        costs = dearest(paths, threads * processes)
        return cls(max(costs, default=0), max(max(costs, default=0), sum(costs) // processes))


NO_PICTURES = Pictures()


def announced(specs: Sequence[BackboneSpec], images: int, batch_size: int) -> int:
    """Peak resident bytes of one process that holds these networks together and reads so many images.

    The numbers of the catalogue were measured with batches of 16 in float32 (`benchmarks/footprint.py`); other
    precisions are announced like float32, which is more than they take.
    """
    alone = sorted((footprint(spec.name) * MEGABYTE for spec in specs), reverse=True)
    networks = sum(alone[:1]) + SHARED * sum(alone[1:])
    return (
        round(BASE + networks + _pixels({spec.input_size for spec in specs}, images, batch_size))
        if specs
        else BASE
    )


def passes(todo: Plan, budget: int | None, batch_size: int, pictures: Pictures = NO_PICTURES) -> list[Plan]:
    """Cut a plan into passes over the images whose networks fit into `budget` bytes together.

    The largest picture has to fit beside them; more at a time are decoded where there is room (`room`).

    Large networks come first, each with as many others as fit; without a budget there is one pass.

    Raises
    ------
    UsageError
        If a network alone does not fit.
    """
    budget = None if budget is None else budget - pictures.alone
    needed = {cell.key.backbone for cell in todo.cells if cell.missing}
    images = len(todo.ids)
    if budget is None or announced(list(needed), images, batch_size) <= budget:
        return [todo]
    waiting = sorted(needed, key=lambda spec: (-footprint(spec.name), spec.name))
    groups: list[list[BackboneSpec]] = []
    for spec in waiting:
        _require_room(spec, budget, images, batch_size, pictures)
        fitting = next((g for g in groups if announced([*g, spec], images, batch_size) <= budget), None)
        if fitting is None:
            groups.append([spec])
        else:
            fitting.append(spec)
    return [
        Plan(todo.ids, tuple(cell for cell in todo.cells if cell.key.backbone in group)) for group in groups
    ]


def peak(
    parts: Sequence[Plan], batch_size: int, pictures: Pictures = NO_PICTURES, budget: int | None = None
) -> int:
    """Largest announced peak of these passes, in bytes, the pictures that are decoded at a time included."""
    room = room_for_pictures(parts, batch_size, pictures, budget)
    return _networks(parts, batch_size) + (
        pictures.together if room is None else min(room, pictures.together)
    )


def room_for_pictures(
    parts: Sequence[Plan], batch_size: int, pictures: Pictures, budget: int | None
) -> int | None:
    """Bytes that pictures may take while they are decoded; None without a budget."""
    if budget is None:
        return None
    return max(pictures.alone, budget - _networks(parts, batch_size))


def _networks(parts: Sequence[Plan], batch_size: int) -> int:
    return max(
        announced(list({c.key.backbone for c in part.cells if c.missing}), len(part.ids), batch_size)
        for part in parts
    )


def _pixels(sides: set[int], images: int, batch_size: int) -> int:
    """One block of decoded images in every input size, and the batches between pixels and network."""
    block = min(BLOCK_ROWS, images) * sum(side * side * CHANNELS for side in sides)
    batches = BATCHES_IN_FLIGHT * batch_size * max(sides) ** 2 * CHANNELS * 4
    return block + batches


def _require_room(spec: BackboneSpec, budget: int, images: int, batch_size: int, pictures: Pictures) -> None:
    """Refuse a network that does not fit into `budget`, which is what the largest picture leaves."""
    needed = announced([spec], images, batch_size)
    if needed > budget:
        beside = f" and decoding the largest image {pictures.alone / MEGABYTE:.0f} MB"
        beside = beside if pictures.alone >= MEGABYTE else ""
        raise UsageError(
            f"{spec.name} alone takes {needed / MEGABYTE:.0f} MB{beside}, and --memory allows"
            f" {(budget + pictures.alone) / MEGABYTE:.0f} MB.",
            f"Allow at least --memory {math.ceil((needed + pictures.alone) / MEGABYTE)}MB, or leave {spec.name} out.",
        )


EXECUTORS = "featstore.executors"
ASKED = "as asked"
BENCHED = "as measured by featstore bench"
DEFAULT = "by default"


@dataclass(frozen=True, slots=True)
class Crew:
    """An executor, and where its number of workers comes from."""

    executor: Executor
    grounds: str


def crew(
    executor: str,
    workers: int | None,
    scheduler: str | None,
    cache: Path,
    backbones: Sequence[str],
    precision: str,
) -> Crew:
    """Set an executor up.

    Where the processes of this machine are asked for without a number, it is the one with which ``featstore bench
    --record`` found these backbones together fastest in this precision on this kind of machine. With GPUs, or if any
    of them was not measured, it is the executor's own default.
    """
    best = None
    if executor == "processes" and workers is None and not visible_devices(os.environ):
        best = fastest(cache, backbones, precision)
    grounds = ASKED if workers is not None else BENCHED if best is not None else DEFAULT
    return Crew(registry.load(EXECUTORS, executor)(best if workers is None else workers, scheduler), grounds)


def fastest(cache: Path, backbones: Sequence[str], precision: str) -> int | None:
    """Return the number of processes with the least time for an image through all backbones; None if not measured."""
    notes = [recorded_layouts(cache, machine(), name, precision) for name in dict.fromkeys(backbones)]
    shared = set.intersection(*(set(note) for note in notes)) if notes else set()
    feasible = [processes for processes in sorted(shared) if processes <= available_cores()]
    return min(feasible, key=lambda processes: sum(1 / note[processes] for note in notes), default=None)


TIMED_BATCHES = 3
"""Batches that put the estimate right; the first of each network is not among them, for it pays for the start."""
FAR_OFF, MATTERS = 1.5, 5.0
"""Ratio to the time that was expected, and seconds, from which on it is worth a line."""
MINUTE, HOUR = 60, 3600


class Bar:
    """Phases and a bar, if `shown`; the bar comes with the first vectors, so that it counts no loading.

    Parameters
    ----------
    shown
        Whether to write anything.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None
        self._total = 0
        self._cost: Estimate | None = None
        self._left = 0.0
        self._begun: set[BackboneSpec] = set()
        self._last = 0.0
        self._took: list[float] = []
        self._expected = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def say(self, phase: str) -> None:
        """Name what is done now."""
        if not self._shown:
            return
        line = f"extract: {phase}"
        if self._bar is None:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        else:
            self._bar.write(line, file=sys.stderr)

    def expect(self, todo: Plan, cost: Estimate) -> None:
        """Say how much there is to do and how long that should take."""
        self._total, self._cost = todo.rows_missing, cost
        self._left = sum(len(cell.missing) * cost.per_vector[cell.key.backbone] for cell in todo.cells)
        what = f"{len(todo.ids):,} images, {self._total:,} vectors to compute"
        self.say(f"{what}, about {about(cost.seconds)} ({cost.basis})")

    def update(self, n: int = 1, backbone: BackboneSpec | None = None) -> None:
        """Count `n` more vectors, of a backbone if these are of one batch."""
        if not self._shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="", desc="extract", smoothing=0.05)
        self._bar.update(n)
        if backbone is not None and self._cost is not None:
            self._time(n, backbone, self._cost)

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Say something beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(s, refresh=refresh)

    def _time(self, n: int, backbone: BackboneSpec, cost: Estimate) -> None:
        now, before = perf_counter(), self._last
        self._last = now
        expected = n * cost.per_vector[backbone]
        self._left -= expected
        if backbone not in self._begun:
            self._begun.add(backbone)
        elif len(self._took) < TIMED_BATCHES:
            self._took.append(now - before)
            self._expected += expected
            if len(self._took) == TIMED_BATCHES:
                self._put_right()

    def _put_right(self) -> None:
        slower = sum(self._took) / self._expected
        left = self._left * slower
        if abs(left - self._left) > MATTERS and not 1 / FAR_OFF < slower < FAR_OFF:
            self.say(f"about {about(left)} left by the first batches; the estimate was {about(self._left)}")


def about(seconds: float) -> str:
    """Round seconds for people: ``30 s``, ``4 min``, ``3 h``."""
    if seconds < 1.5 * MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / MINUTE)} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"


def expected(todo: Plan, cache: Path) -> Estimate:
    """`estimate` of a plan on all cores of this machine, from what this cache has recorded."""
    vectors = Counter({cell.key.backbone: 0 for cell in todo.cells})
    for cell in todo.cells:
        vectors[cell.key.backbone] += len(cell.missing)
    return estimate(vectors, recorded_rates(cache, machine()), os.cpu_count() or 1)
