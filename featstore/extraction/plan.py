"""Plan of an extraction: what has to be computed, its memory and its workers, and its progress.

The plan itself is a pure function, wanted minus stored (law 5).
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
from featstore.backbones.catalog import peak_megabytes
from featstore.errors import UsageError
from featstore.images.reading import largest_decoding_bytes
from featstore.processes import available_cores, visible_devices
from featstore.store.notes import recorded_timings, recorded_worker_speeds
from featstore.store.shard import NO_IDS, IdSet, pack
from featstore.time_estimates import TimeEstimate, estimate_time, machine_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import BackboneSpec, Executor, FeatureKey, View


# Plan: wanted minus stored

T = TypeVar("T")
FLOAT_BYTES = 4
BLOCK_ROWS = 256
LARGE_BLOCK_ROWS = 1024
"""Where a GPU takes as many images at a time."""
LEAST_USE = 0.9
"""Share of what a GPU computes that has to be images, and no padding of the last batch."""


@dataclass(frozen=True, slots=True)
class KeyPlan:
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
    key_plans: tuple[KeyPlan, ...]

    @property
    def rows_missing(self) -> int:
        """Number of vectors to compute: one per image, view and backbone."""
        return sum(len(key_plan.missing) for key_plan in self.key_plans)

    @property
    def rows_stored(self) -> int:
        """Number of wanted vectors that are in the store already."""
        return sum(key_plan.stored for key_plan in self.key_plans)

    @property
    def bytes_missing(self) -> int:
        """Size of all vectors to come, in bytes."""
        return sum(key_plan.bytes_missing for key_plan in self.key_plans)


@dataclass(frozen=True, slots=True)
class Step:
    """Images of one block that go through the same backbones of one input size, seen in one view."""

    view: View
    input_size: int
    ids: tuple[str, ...]
    keys: tuple[FeatureKey, ...]


@dataclass(frozen=True, slots=True)
class ImageBlock:
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
    missing = {id(there): wanted.difference(there) for there in _deduplicated(held)}
    return Plan(
        good, tuple(_key_plan(key, wanted, missing[id(there)]) for key, there in zip(keys, held, strict=True))
    )


def image_blocks(todo: Plan, rows: int = BLOCK_ROWS) -> Iterator[ImageBlock]:
    """Cut a plan into blocks of at most `rows` images, leaving out images that lack nothing."""
    key_plans = [key_plan for key_plan in todo.key_plans if key_plan.missing]
    lacks = _lacking(key_plans, todo.ids)
    lacking = np.flatnonzero(lacks.any(axis=0))
    for start in range(0, len(lacking), rows):
        block = lacking[start : start + rows]
        ids = tuple(todo.ids[at] for at in block)
        yield ImageBlock(ids, tuple(_steps(key_plans, ids, lacks[:, block])))


def largest_batch(images: int, rows: int = LARGE_BLOCK_ROWS) -> int:
    """Images that a GPU computes at a time, if there is room: the largest power of two that is hardly ever padded.

    It follows from the number of images of the data set, not from what is missing, so that a run that goes on where
    another was killed computes the same bytes.

    Parameters
    ----------
    images
        Of the data set.
    rows
        Of a block; a batch does not reach beyond it.
    """
    blocks = [rows] * (images // rows) + [images % rows] * bool(images % rows)
    size = rows
    while size > 1 and images < LEAST_USE * sum(-(-block // size) * size for block in blocks):
        size //= 2
    return size


def _deduplicated(objects: Iterable[T]) -> Collection[T]:
    """Each object once: views of the same images share one set of ids, and a million ids take their time."""
    return {id(found): found for found in objects}.values()


def _key_plan(key: FeatureKey, wanted: IdSet, missing: IdSet) -> KeyPlan:
    return KeyPlan(key, missing, len(wanted) - len(missing))


def _lacking(key_plans: Sequence[KeyPlan], ids: Sequence[str]) -> NDArray[np.bool_]:
    """``(cells, ids)``: whether a cell lacks an id. Sorted questions are answered several times faster."""
    packed = pack(ids)
    order = np.argsort(packed)
    ascending = packed[order]
    lacks = np.zeros((len(key_plans), len(ids)), bool)
    for missing in _deduplicated(key_plan.missing for key_plan in key_plans):
        alike = [key_plan.missing is missing for key_plan in key_plans]
        answer = np.empty(len(ids), bool)
        answer[order] = missing.holds(ascending)
        lacks[alike] = answer
    return lacks


def _steps(key_plans: Sequence[KeyPlan], block: tuple[str, ...], lacks: NDArray[np.bool_]) -> Iterator[Step]:
    """Keys that share view, input size and missing images share one warp; they go through together."""
    together: dict[tuple[View, int, tuple[str, ...]], list[FeatureKey]] = {}
    for key_plan, row in zip(key_plans, lacks, strict=True):
        if row.any():
            ids = tuple(block[at] for at in np.flatnonzero(row))
            together.setdefault((key_plan.key.view, key_plan.key.backbone.input_size, ids), []).append(
                key_plan.key
            )
    for (view, size, ids), keys in together.items():
        yield Step(view, size, ids, tuple(keys))


# Memory, announced before an extraction begins and kept under a budget

MEGABYTE = 1_000_000
BASE_BYTES = 700 * MEGABYTE
"""A process with TensorFlow, Keras, h5py and the images' code loaded."""
SHARED = 0.43
"""Networks in one process share workspace: each but the largest adds this much of what it takes alone."""
CHANNELS = 3
BATCHES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class DecodingMemory:
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
    def of(cls, paths: Iterable[Path], threads: int, processes: int) -> DecodingMemory:
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
        costs = largest_decoding_bytes(paths, threads * processes)
        return cls(max(costs, default=0), max(max(costs, default=0), sum(costs) // processes))


NO_DECODING_MEMORY = DecodingMemory()


def announced_bytes(specs: Sequence[BackboneSpec], images: int, batch_size: int) -> int:
    """Peak resident bytes of one process that holds these networks together and reads so many images.

    The numbers of the catalogue were measured with batches of 16 in float32 (`benchmarks/footprint.py`); other
    precisions are announced like float32, which is more than they take.
    """
    alone = sorted((peak_megabytes(spec.name) * MEGABYTE for spec in specs), reverse=True)
    networks = sum(alone[:1]) + SHARED * sum(alone[1:])
    return (
        round(BASE_BYTES + networks + _pixels({spec.input_size for spec in specs}, images, batch_size))
        if specs
        else BASE_BYTES
    )


def passes(
    todo: Plan, budget: int | None, batch_size: int, pictures: DecodingMemory = NO_DECODING_MEMORY
) -> list[Plan]:
    """Cut a plan into passes over the images whose networks fit into `budget` bytes together.

    The largest picture has to fit beside them; more at a time are decoded where there is room (`room`).

    Large networks come first, each with as many others as fit; without a budget there is one pass.

    Raises
    ------
    UsageError
        If a network alone does not fit.
    """
    budget = None if budget is None else budget - pictures.alone
    needed = {key_plan.key.backbone for key_plan in todo.key_plans if key_plan.missing}
    images = len(todo.ids)
    if budget is None or announced_bytes(list(needed), images, batch_size) <= budget:
        return [todo]
    waiting = sorted(needed, key=lambda spec: (-peak_megabytes(spec.name), spec.name))
    groups: list[list[BackboneSpec]] = []
    for spec in waiting:
        _require_room(spec, budget, images, batch_size, pictures)
        fitting = next((g for g in groups if announced_bytes([*g, spec], images, batch_size) <= budget), None)
        if fitting is None:
            groups.append([spec])
        else:
            fitting.append(spec)
    return [
        Plan(todo.ids, tuple(key_plan for key_plan in todo.key_plans if key_plan.key.backbone in group))
        for group in groups
    ]


def peak_bytes(
    parts: Sequence[Plan],
    batch_size: int,
    pictures: DecodingMemory = NO_DECODING_MEMORY,
    budget: int | None = None,
) -> int:
    """Largest announced peak of these passes, in bytes, the pictures that are decoded at a time included."""
    room = decoding_budget(parts, batch_size, pictures, budget)
    return _networks(parts, batch_size) + (
        pictures.together if room is None else min(room, pictures.together)
    )


def decoding_budget(
    parts: Sequence[Plan], batch_size: int, pictures: DecodingMemory, budget: int | None
) -> int | None:
    """Bytes that pictures may take while they are decoded; None without a budget."""
    if budget is None:
        return None
    return max(pictures.alone, budget - _networks(parts, batch_size))


def _networks(parts: Sequence[Plan], batch_size: int) -> int:
    return max(
        announced_bytes(
            list({c.key.backbone for c in part.key_plans if c.missing}), len(part.ids), batch_size
        )
        for part in parts
    )


def _pixels(sides: set[int], images: int, batch_size: int) -> int:
    """One block of decoded images in every input size, and the batches between pixels and network."""
    block = min(BLOCK_ROWS, images) * sum(side * side * CHANNELS for side in sides)
    batches = BATCHES_IN_FLIGHT * batch_size * max(sides) ** 2 * CHANNELS * 4
    return block + batches


def _require_room(
    spec: BackboneSpec, budget: int, images: int, batch_size: int, pictures: DecodingMemory
) -> None:
    """Refuse a network that does not fit into `budget`, which is what the largest picture leaves."""
    needed = announced_bytes([spec], images, batch_size)
    if needed > budget:
        beside = f" and decoding the largest image {pictures.alone / MEGABYTE:.0f} MB"
        beside = beside if pictures.alone >= MEGABYTE else ""
        raise UsageError(
            f"{spec.name} alone takes {needed / MEGABYTE:.0f} MB{beside}, and --memory allows"
            f" {(budget + pictures.alone) / MEGABYTE:.0f} MB.",
            f"Allow at least --memory {math.ceil((needed + pictures.alone) / MEGABYTE)}MB, or leave {spec.name} out.",
        )


# Number of processes, and on what grounds

EXECUTORS = "featstore.executors"
AS_ASKED = "as asked"
BENCHED = "as measured by featstore bench"
BY_DEFAULT = "by default"


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """An executor, and where its number of workers comes from."""

    executor: Executor
    reason: str


def choose_workers(
    executor: str,
    workers: int | None,
    scheduler: str | None,
    cache: Path,
    backbones: Sequence[str],
    precision: str,
) -> WorkerChoice:
    """Set an executor up.

    Where the processes of this machine are asked for without a number, it is the one with which ``featstore bench
    --record`` found these backbones together fastest in this precision on this kind of machine. With GPUs, or if any
    of them was not measured, it is the executor's own default.
    """
    best = None
    if executor == "processes" and workers is None and not visible_devices(os.environ):
        best = fastest_workers(cache, backbones, precision)
    reason = AS_ASKED if workers is not None else BENCHED if best is not None else BY_DEFAULT
    return WorkerChoice(
        registry.load(EXECUTORS, executor)(best if workers is None else workers, scheduler), reason
    )


def fastest_workers(cache: Path, backbones: Sequence[str], precision: str) -> int | None:
    """Return the number of processes with the least time for an image through all backbones; None if not measured."""
    notes = [
        recorded_worker_speeds(cache, machine_name(), name, precision) for name in dict.fromkeys(backbones)
    ]
    shared = set.intersection(*(set(note) for note in notes)) if notes else set()
    feasible = [processes for processes in sorted(shared) if processes <= available_cores()]
    return min(feasible, key=lambda processes: sum(1 / note[processes] for note in notes), default=None)


# Progress on stderr: each phase by name, then a bar, and the estimate corrected

TIMED_BATCHES = 3
"""Batches that put the estimate right; the first of each network is not among them, for it pays for the start."""
FAR_OFF, MATTERS = 1.5, 5.0
"""Ratio to the time that was expected, and seconds, from which on it is worth a line."""
MINUTE, HOUR = 60, 3600


class ProgressBar:
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
        self._cost: TimeEstimate | None = None
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

    def expect(self, todo: Plan, cost: TimeEstimate) -> None:
        """Say how much there is to do and how long that should take."""
        self._total, self._cost = todo.rows_missing, cost
        self._left = sum(
            len(key_plan.missing) * cost.per_vector[key_plan.key.backbone] for key_plan in todo.key_plans
        )
        what = f"{len(todo.ids):,} images, {self._total:,} vectors to compute"
        self.say(f"{what}, about {roughly(cost.seconds)} ({cost.basis})")

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

    def _time(self, n: int, backbone: BackboneSpec, cost: TimeEstimate) -> None:
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
                self._correct_estimate()

    def _correct_estimate(self) -> None:
        if not self._expected:
            return
        slower = sum(self._took) / self._expected
        left = self._left * slower
        if abs(left - self._left) > MATTERS and not 1 / FAR_OFF < slower < FAR_OFF:
            self.say(
                f"about {roughly(left)} left by the first batches; the estimate was {roughly(self._left)}"
            )


def roughly(seconds: float) -> str:
    """Round seconds for people: ``30 s``, ``4 min``, ``3 h``."""
    if seconds < 1.5 * MINUTE:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / MINUTE)} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"


def expected_time(todo: Plan, cache: Path) -> TimeEstimate:
    """`estimate_time` of a plan on all cores of this machine, from what this cache has recorded."""
    vectors = Counter({key_plan.key.backbone: 0 for key_plan in todo.key_plans})
    for key_plan in todo.key_plans:
        vectors[key_plan.key.backbone] += len(key_plan.missing)
    return estimate_time(vectors, recorded_timings(cache, machine_name()), os.cpu_count() or 1)
