"""`bench`: the speed of each backbone on this machine, in every layout of processes and threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.arguments import public
from featstore.backbones import catalog
from featstore.errors import BackboneError, UsageError
from featstore.extraction.networks import BATCH_SIZE
from featstore.processes import end_with_parent, parent_info
from featstore.results.extraction import Bench, Layout, Rate
from featstore.store.notes import record_worker_speeds
from featstore.store.store import default_cache
from featstore.time_estimates import machine_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


WORKER = "featstore.api.bench"
"""Run as a program, this module is a measuring process."""
READY = "ready"
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")


@public
def bench(
    backbones: Sequence[str],
    *,
    precisions: Sequence[str] = ("float32",),
    batch_sizes: Sequence[int] = (16,),
    seconds: float = 2.0,
    record: bool = False,
    cache: str | Path | None = None,
) -> Bench:
    """Measure the forward pass in every layout that uses all cores.

    Parameters
    ----------
    backbones
        Catalogue names.
    precisions
        As for `featstore.extract`.
    batch_sizes
        Images per call. Extraction itself uses one size for all, since the size moves the last bits of a row.
    seconds
        Time to measure each combination for, after a warm-up.
    record
        Keep the speeds in the cache, where ``featstore.extract(executor="processes")`` without a number of workers
        takes the fastest from.
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.

    Raises
    ------
    UsageError
        If speeds are to be recorded and the batch size of extraction is not among those to measure.
    BackboneError
        If a measuring process fails, for instance for lack of memory.

    Examples
    --------
    >>> import featstore
    >>> measured = featstore.bench(["EfficientNetLite0"], batch_sizes=[2], seconds=0.1)
    >>> [(rate.backbone, rate.precision, rate.batch_size) for rate in measured.best]
    [('EfficientNetLite0', 'float32', 2)]
    """
    if record and BATCH_SIZE not in batch_sizes:
        raise UsageError(
            f"Extraction computes {BATCH_SIZE} images at a time, and that is not to be measured.",
            f"Leave --record out, or add {BATCH_SIZE} to --batch-sizes.",
        )
    backbones = catalog.named(backbones)
    rates = [
        _measure(name, precision, batch, layout, seconds)
        for name in backbones
        for precision in precisions
        for batch in batch_sizes
        for layout in parallelisms(os.cpu_count() or 1)
    ]
    best = (
        max((r for r in rates if r.backbone == name), key=lambda r: r.images_per_second) for name in backbones
    )
    if record:
        _record(rates, Path(cache) if cache is not None else default_cache())
    return Bench(rates=tuple(rates), best=tuple(best))


def parallelisms(cores: int) -> list[Layout]:
    """All ways to cut the cores into equal processes: ``4`` gives 1 x 4, 2 x 2 and 4 x 1."""
    return [
        Layout(processes=count, threads=cores // count) for count in range(1, cores + 1) if cores % count == 0
    ]


def _record(rates: Sequence[Rate], cache: Path) -> None:
    speeds: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for rate in rates:
        if rate.batch_size == BATCH_SIZE:
            speeds[rate.backbone, rate.precision][rate.processes] = rate.images_per_second
    for (backbone, precision), found in speeds.items():
        record_worker_speeds(cache, machine_name(), backbone, precision, found)


def _measure(name: str, precision: str, batch_size: int, layout: Layout, seconds: float) -> Rate:
    """Start the processes, wait until all have warmed up, let them run together, add their rates."""
    catalog.row(name)
    order = json.dumps(
        {
            "name": name,
            "precision": precision,
            "batch_size": batch_size,
            "parentage": parent_info(),
        }
    )
    command = [sys.executable, "-m", WORKER, order, str(seconds)]
    workers = [_start(command, layout.threads) for _ in range(layout.processes)]
    try:
        total = sum(_total_rate(workers, name))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return Rate(
        backbone=name,
        precision=precision,
        batch_size=batch_size,
        processes=layout.processes,
        threads=layout.threads,
        images_per_second=round(total, 2),
    )


def _start(command: Sequence[str], threads: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  # this interpreter, this package, JSON as argument
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
    )


def _total_rate(workers: Sequence[subprocess.Popen[str]], name: str) -> Iterator[float]:
    for worker in workers:
        if _line(worker, name) != READY:
            raise _failure(name)
    for worker in workers:
        assert worker.stdin is not None  # noqa: S101  # opened as a pipe
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        yield float(_line(worker, name))


def _line(worker: subprocess.Popen[str], name: str) -> str:
    assert worker.stdout is not None  # noqa: S101  # opened as a pipe
    text = worker.stdout.readline().strip()
    if not text:
        raise _failure(name)
    return text


def _failure(name: str) -> BackboneError:
    return BackboneError(
        f"{name} could not be measured: its process ended early.",
        f"Try it alone to see why: featstore extract DATA --backbones {name} --weights random:1",
    )


# In each measuring process: warm up, wait for the start, count images


def _count_images(order: dict[str, Any], seconds: float) -> None:
    """Print ``ready``, and after a line on stdin the images per second."""
    end_with_parent(*order["parentage"])
    import numpy as np

    from featstore.backbones.loading import load_backbone
    from featstore.backbones.weights import IMAGENET

    weights = IMAGENET if catalog.row(order["name"]).loader else "random:1"
    backbone = load_backbone(
        order["name"], weights, batch_size=order["batch_size"], precision=order["precision"]
    )
    side = backbone.spec.input_size
    pixels = np.random.default_rng(0).uniform(0, 255, (order["batch_size"], side, side, 3)).astype(np.float32)
    backbone.embed(pixels)
    print(READY, flush=True)  # noqa: T201  # the protocol of this process
    sys.stdin.readline()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        backbone.embed(pixels)
        count += len(pixels)
    print(count / (time.perf_counter() - started), flush=True)  # noqa: T201


if __name__ == "__main__":
    _count_images(json.loads(sys.argv[1]), float(sys.argv[2]))
