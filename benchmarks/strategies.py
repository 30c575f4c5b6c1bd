"""CPU seconds to fit each fusion strategy, as a ratio to concat_logreg.

Usage: python benchmarks/strategies.py [rows] [rounds] [names with commas]

Five blocks of 1280, 1280, 1280, 1280 and 2880 columns (8,000 together) with a decaying spectrum like that of pooled
features, three views an image, groups of four images. Single BLAS thread: on a busy machine more only wait for
each other.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import statistics
import sys
import time

import numpy as np

from featstore import registry
from featstore.types import make_blocks

FOLDER = "featstore.fusion.strategies"
REFERENCE = "concat_logreg"
WIDTHS = {"a": 1280, "b": 1280, "c": 1280, "d": 1280, "e": 2880}


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1800
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    names = sys.argv[3].split(",") if len(sys.argv) > 3 else registry.names(FOLDER)
    X, y, groups = cohort(rows)
    print(
        f"{rows} rows x {X.shape[1]} columns, one thread, load {os.getloadavg()[0]:.1f}, median of {rounds} rounds"
    )
    seconds: dict[str, list[float]] = {name: [] for name in dict.fromkeys([REFERENCE, *names])}
    for _ in range(rounds):
        for name, spent in seconds.items():
            spent.append(cpu_seconds(name, X, y, groups))
            print(f"{name} {spent[-1]:.2f} s", file=sys.stderr)
    for name, spent in sorted(seconds.items(), key=lambda item: statistics.median(item[1])):
        ratio = statistics.median(own / ours for own, ours in zip(spent, seconds[REFERENCE], strict=True))
        print(f"{name:22} {statistics.median(spent):6.2f} s   ratio {ratio:5.1f}")


def cohort(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = -(-rows // 3)
    latent = np.repeat(rng.normal(size=(images, 200)), 3, axis=0)[:rows] + 0.3 * rng.normal(size=(rows, 200))
    decay = np.arange(1, 201) ** -0.5
    parts = [
        np.maximum((latent * decay) @ rng.normal(size=(200, width)) + rng.normal(size=(rows, width)), 0)
        for width in WIDTHS.values()
    ]
    image = np.arange(rows) // 3
    noise = np.repeat(rng.normal(size=images), 3)[:rows]
    y = (np.repeat(latent[::3, :20].sum(axis=1), 3)[:rows] / 4 + noise > 0).astype(int)
    return np.concatenate(parts, axis=1).astype(np.float32), y, image // 4


def cpu_seconds(name: str, X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    kind = registry.load(FOLDER, name)
    strategy = kind(blocks=make_blocks(WIDTHS), **getattr(kind, "COMPARISON_OPTIONS", {}))
    started = time.process_time()
    strategy.fit(X, y, groups=groups)
    return time.process_time() - started


if __name__ == "__main__":
    main()
