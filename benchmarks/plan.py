"""Planning 100,000 images x 7 backbones x 10 seeds from the index, against opening every shard.

The store is made through `Store.write`, with vectors of dimension 4 (the index does not see their length) and
without fsync, which only the making needs. Opening is measured on the shards of a few keys and scaled up; real
shards are 500 times longer, and hashing them costs accordingly more.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from featstore.extraction.plan import plan
from featstore.extraction.scheduler import peak_resident_bytes
from featstore.serialization import digest
from featstore.store import paths as layout
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

IMAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
BACKBONES, SEEDS, ROWS, DIMENSION, SAMPLE, REPEATS = 7, 10, 256, 4, 2, 3
MISSING = 1000


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="featstore-plan-"))
    try:
        measure(root)
    finally:
        shutil.rmtree(root)


def measure(root: Path) -> None:
    ids = [digest(number) for number in range(IMAGES)]
    keys = [
        FeatureKey(BackboneSpec(f"Net{b}", "random:0", 16, "official", DIMENSION), view, Decoding("none"))
        for b in range(BACKBONES)
        for view in [IDENTITY, *(View("flip(h)", seed) for seed in range(1, SEEDS))]
    ]
    made = timed(lambda: make(root, keys, ids[:-MISSING]))
    before = peak_resident_bytes() / 1e6
    indexed = [timed(lambda: require(root, keys, ids)) for _ in range(REPEATS)]
    after = peak_resident_bytes() / 1e6
    shutil.move(layout.index_folder(root), root / "aside")
    sample = keys[:SAMPLE]
    opened = timed(lambda: Store(root).stored(sample)) * len(keys) / len(sample)
    size = sum(path.stat().st_size for path in (root / "aside").iterdir())
    print(
        f"{IMAGES} images x {len(keys)} keys, {len(list(root.glob('features/**/*.h5')))} shards, made in {made:.0f} s"
    )
    print(
        f"plan from the index      {median(indexed):8.2f} s (of {REPEATS}: {min(indexed):.2f} to {max(indexed):.2f})"
    )
    print(f"plan opening all shards  {opened:8.2f} s ({SAMPLE} keys, scaled)")
    print(f"ratio                    {opened / median(indexed):8.1f}")
    print(f"index {size / 1e6:.1f} MB; peak memory {before:.0f} MB before planning, {after:.0f} MB after")


def make(root: Path, keys: list[FeatureKey], ids: list[str]) -> None:
    really, os.fsync = os.fsync, lambda _descriptor: None
    try:
        store = Store(root)
        for start in range(0, len(ids), ROWS):
            block = ids[start : start + ROWS]
            for key in keys:
                store.write(key, block, np.zeros((len(block), DIMENSION), np.float32))
        store.flush()
    finally:
        os.fsync = really


def require(root: Path, keys: list[FeatureKey], ids: list[str]) -> None:
    todo = plan(keys, ids, Store(root).stored(keys))
    assert todo.rows_missing == MISSING * len(keys)


def timed(work: object) -> float:
    started = perf_counter()
    work()  # type: ignore[operator]
    return perf_counter() - started


if __name__ == "__main__":
    main()
