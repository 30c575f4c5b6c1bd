"""Memory and time of loading and of each fusion strategy, by the number of images.

Usage: python benchmarks/large_n.py load [IMAGES...] | share [IMAGES...] | need [ROWS...]
       python benchmarks/large_n.py fit ROWSxCOLUMNS[,...] [names with commas]

``load`` fills a matrix of three views from a store of 14,144 columns (seven networks) and prints the peak memory as a
ratio to the matrix; ``share`` fills one that several processes can hold. ``fit`` fits strategies on the vectors of
`strategies.cohort`, in a process each, and prints CPU seconds and the peak memory beyond the training rows, which
`FusionStrategy.fit_bytes` should know; ``need`` prints what it says of 14,144 columns. One BLAS thread.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import ctypes
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from strategies import FOLDER, cohort

from featstore import registry
from featstore.extraction.plan import BLOCK_ROWS
from featstore.processes import shared_array
from featstore.serialization import digest
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View, make_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS = {"a": 2048, "b": 2048, "c": 2048, "d": 2048, "e": 2048, "f": 1920, "g": 1984}
VIEWS = (IDENTITY, View("flip(h)", 1), View("flip(h)", 2))
MEGABYTE = 1e6


def main() -> None:
    what, *rest = sys.argv[1:]
    {"load": load, "share": share, "fit": fit, "need": need}[what](*rest)


def alone(function: Callable[..., Any], *arguments: Any, start: str = "spawn") -> Any:
    """Run a function in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context(start)) as process:
        return process.submit(function, *arguments).result()


# Memory of this process, by the kernel


def status(field: str) -> int:
    """Bytes of a line of /proc/self/status, such as ``VmHWM``, the peak."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:")))


def peak_of(function: Callable[[], object]) -> tuple[int, float, float]:
    """Bytes at the peak beyond those before, CPU seconds, wall seconds."""
    ctypes.CDLL(None).malloc_trim(0)  # what is free here already would not be seen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, cpu, wall = status("VmRSS"), process_time(), perf_counter()
    function()
    return status("VmHWM") - before, process_time() - cpu, perf_counter() - wall


# Loading


def share(*numbers: str) -> None:
    load(*numbers, shared=True)


def load(*numbers: str, shared: bool = False) -> None:
    for images in map(int, numbers or ("1000", "5000", "20000")):
        root = Path(tempfile.mkdtemp(prefix="featstore-large-", dir=os.environ.get("FEATSTORE_SCRATCH")))
        try:
            alone(make, root, images)
            memory, cpu, wall = alone(measured_load, root, images, shared)
        finally:
            shutil.rmtree(root)
        size = len(VIEWS) * images * sum(NETWORKS.values()) * 4
        print(
            f"{images:6,} images, {size / MEGABYTE:6,.0f} MB: peak {memory / size:.3f} of that, "
            f"{cpu:5.1f} s CPU ({size / MEGABYTE / cpu:,.0f} MB per CPU second), {wall:5.1f} s, {load_now()}",
            flush=True,
        )


def keys(view: View) -> list[FeatureKey]:
    return [
        FeatureKey(BackboneSpec(name, "random:0", 224, "official", width), view, Decoding("none"))
        for name, width in NETWORKS.items()
    ]


def make(root: Path, images: int) -> None:
    """A store without fsync: how long it takes is not the question."""
    os.fsync = lambda _descriptor: None
    store, noise, ids = Store(root), np.random.default_rng(0), [digest(number) for number in range(images)]
    for start in range(0, images, BLOCK_ROWS):
        block = ids[start : start + BLOCK_ROWS]
        for key in (key for view in VIEWS for key in keys(view)):
            store.write(key, block, noise.random((len(block), key.backbone.dimension), np.float32))
    store.flush()


def measured_load(root: Path, images: int, shared: bool) -> tuple[int, float, float]:
    ids = [digest(number) for number in range(images)]
    return peak_of(lambda: read(root, ids, shared))


def read(root: Path, ids: list[str], shared: bool) -> np.ndarray:
    """As `featstore.matrix.assemble` does it."""
    store, blocks = Store(root), make_blocks(NETWORKS)

    def fill(features: np.ndarray) -> None:
        for at, view in enumerate(VIEWS):
            for key, block in zip(keys(view), blocks, strict=True):
                store.read_into(key, ids, features[at, :, block.start : block.stop])

    shape = (len(VIEWS), len(ids), blocks[-1].stop)
    if shared:
        return shared_array(shape, np.float32, fill)
    fill(features := np.empty(shape, np.float32))
    return features


def load_now() -> str:
    return f"load {os.getloadavg()[0]:.0f}"


# Fits


def fit(shapes: str, names: str = "") -> None:
    for shape in shapes.split(","):
        rows, columns = map(int, shape.split("x"))
        data = narrow_cohort(rows, columns)
        for name in names.split(",") if names else registry.names(FOLDER):
            small = registry.load(FOLDER, name)(blocks=make_blocks({"a": 8, "b": 8}))
            small.fit(data[0][:60, :16].copy(), data[1][:60], groups=data[2][:60])  # imports what it needs
            memory, cpu, _ = alone(measured_fit, name, *data, start="fork")
            train = data[0].nbytes
            print(
                f"{name:22} {rows:6} x {columns:6}  {cpu:7.2f} s CPU  {memory / MEGABYTE:7.0f} MB, "
                f"{memory / train:5.1f} of the rows  {load_now()}",
                flush=True,
            )


def narrow_cohort(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y, groups = cohort(rows)
    return np.ascontiguousarray(np.tile(X, (1, -(-columns // X.shape[1])))[:, :columns]), y, groups


def measured_fit(name: str, X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[int, float, float]:
    columns = X.shape[1]
    fifth = columns // 5
    widths = {f"b{at}": fifth if at else columns - 4 * fifth for at in range(5)}
    strategy = registry.load(FOLDER, name)
    strategy(blocks=make_blocks({"a": 8, "b": 8})).fit(
        X[:60, :16].copy(), y[:60], groups=groups[:60]
    )  # imports
    return peak_of(lambda: strategy(blocks=make_blocks(widths)).fit(X, y, groups=groups))


def need(*numbers: str) -> None:
    """What `FusionStrategy.fit_bytes` says of seven networks, training rows included, as a table."""
    rows = [int(number) for number in numbers or ("1000", "5000", "20000")]
    print("| strategy |", " | ".join(f"{n:,} rows" for n in rows), "|\n|---|" + "---|" * len(rows))
    widths = list(NETWORKS.values())
    for name in registry.names(FOLDER):
        kind = registry.load(FOLDER, name)
        told = [(n * sum(widths) * 4 + kind.fit_bytes(n, widths)) / 1e9 for n in rows]
        print(f"| `{name}` |", " | ".join(f"{one:.1f}" for one in told), "|")


if __name__ == "__main__":
    main()
