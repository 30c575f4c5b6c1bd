"""Fair timing on a machine that may be busy: contenders take turns, and the median of the ratios counts."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUNDS = 5


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Wall seconds of each contender in each round, after one unmeasured round each."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def report(seconds: Mapping[str, list[float]], reference: str, work: float, unit: str) -> None:
    """Print the rate of each contender and its ratio to the reference, round by round, as a median."""
    print(
        f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, median of {len(seconds[reference])} rounds"
    )
    for name, values in seconds.items():
        ratio = statistics.median(r / v for r, v in zip(seconds[reference], values, strict=True))
        print(f"{name:44} {work / statistics.median(values):10.1f} {unit}/s   ratio {ratio:.2f}")
