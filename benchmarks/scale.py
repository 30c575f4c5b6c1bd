"""A store of a million images x 7 backbones x 2 views: time and memory must grow no faster than the rows.

The store is made through `Store.write`, in shards of 256 rows as extraction makes them, with random vectors of
dimension 8, and without fsync unless `--fsync` says so. Each operation runs in a fresh process, so that its peak
memory is its own; seconds are CPU seconds, which other people's work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np

from featstore.api.cache import inventory, verify
from featstore.extraction.plan import BLOCK_ROWS, image_blocks, plan
from featstore.extraction.scheduler import peak_resident_bytes
from featstore.serialization import digest
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Callable

BACKBONES, DIMENSION = 7, 8
VIEWS = (IDENTITY, View("flip(h)", 1))
MISSING = 100
"""One image in so many is not in the store yet when a plan asks for all."""
KEYS = [
    FeatureKey(BackboneSpec(f"Net{at}", "random:0", 16, "official", DIMENSION), view, Decoding("none"))
    for at in range(BACKBONES)
    for view in VIEWS
]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds, wall seconds, and bytes of memory at the peak beyond what the process had before."""

    cpu: float
    wall: float
    memory: int


def main() -> None:
    arguments = parse()
    print(
        f"{len(KEYS)} keys, dimension {DIMENSION}, {arguments.shard_rows} rows per shard, {os.cpu_count()} cores"
    )
    first: dict[str, float] = {}
    for rows in arguments.rows:
        root = Path(tempfile.mkdtemp(prefix="featstore-scale-", dir=arguments.folder))
        try:
            make(root, rows, arguments.shard_rows, fsync=arguments.fsync)
            for name in OPERATIONS:
                report(name, rows, [alone(name, root, rows) for _ in range(arguments.repeats)], first)
        finally:
            shutil.rmtree(root)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000], help="images, smallest first"
    )
    parser.add_argument("--shard-rows", type=int, default=BLOCK_ROWS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fsync", action="store_true", help="make the store as durable as extraction does")
    parser.add_argument("--folder", help="where the store is made and deleted again")
    return parser.parse_args()


def make(root: Path, rows: int, shard_rows: int, *, fsync: bool) -> None:
    really, noise = os.fsync, np.random.default_rng(0)
    os.fsync = really if fsync else lambda _descriptor: None
    cpu, wall, store, ids = process_time(), perf_counter(), Store(root), images(rows)
    try:
        for start in range(0, rows, shard_rows):
            block = ids[start : start + shard_rows]
            for key in KEYS:
                store.write(key, block, noise.standard_normal((len(block), DIMENSION), np.float32))
        store.flush()
    finally:
        os.fsync = really
    shards = len(KEYS) * -(-rows // shard_rows)
    cpu, wall = process_time() - cpu, perf_counter() - wall
    print(
        f"\n{rows:,} images, {rows * len(KEYS):,} vectors in {shards:,} shards, made in {wall:.0f} s "
        f"(CPU {cpu:.0f} s, {1e3 * wall / shards:.1f} ms per shard, {'with' if fsync else 'without'} fsync)",
        flush=True,
    )


def images(rows: int) -> list[str]:
    return [digest(number) for number in range(rows)]


def plan_all(root: Path, ids: list[str]) -> None:
    """Plan for all images of the store and for a hundredth more, cut into blocks."""
    more = [digest(-number) for number in range(1, 1 + len(ids) // MISSING)]
    todo = plan(KEYS, ids + more, Store(root).stored(KEYS))
    assert todo.rows_missing == sum(len(s.ids) * len(s.keys) for b in image_blocks(todo) for s in b.steps)
    assert todo.rows_missing == len(more) * len(KEYS)


def list_all(root: Path, ids: list[str]) -> None:
    assert [line.images for line in inventory(root)] == [len(ids)] * len(KEYS)


def verify_fast(root: Path, _ids: list[str]) -> None:
    found = verify(root, fast=True)
    assert found.shards
    assert not found.bad


def load_one(root: Path, ids: list[str]) -> None:
    assert Store(root).read(KEYS[0], ids).shape == (len(ids), DIMENSION)


OPERATIONS: dict[str, Callable[[Path, list[str]], None]] = {
    "plan": plan_all,
    "cache ls": list_all,
    "cache verify --fast": verify_fast,
    "load one backbone": load_one,
}


def alone(name: str, root: Path, rows: int) -> Cost:
    """Run one operation in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measured, name, root, rows).result()


def measured(name: str, root: Path, rows: int) -> Cost:
    ids = images(rows)
    memory, cpu, wall = peak_resident_bytes(), process_time(), perf_counter()
    OPERATIONS[name](root, ids)
    return Cost(process_time() - cpu, perf_counter() - wall, peak_resident_bytes() - memory)


def report(name: str, rows: int, costs: list[Cost], first: dict[str, float]) -> None:
    """Print the median costs, and seconds per image as a ratio to those of the smallest store."""
    cpu, wall = median(cost.cpu for cost in costs), median(cost.wall for cost in costs)
    memory = median(cost.memory for cost in costs)
    ratio = cpu / rows / first.setdefault(name, cpu / rows)
    print(
        f"{name:20} {cpu:8.2f} s CPU  {wall:8.2f} s wall  {1e6 * cpu / rows:8.1f} us per image  "
        f"ratio {ratio:5.2f}  {memory / 1e6:7.0f} MB  {memory / rows:6.0f} bytes per image  "
        f"load {os.getloadavg()[0]:.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
