"""Fair timing on a machine that may be busy: contenders take turns, and the median of the ratios counts."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUNDS = 5


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds, by `clock`, of each contender in each round, after one unmeasured round each."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return seconds


def cpu_seconds() -> float:
    """CPU seconds of this process and of those below it, living ones included where the system tells of them."""
    children = Path(f"/proc/{os.getpid()}/task")
    below = {
        int(number)
        for task in (children.iterdir() if children.exists() else ())
        for number in _told_by(task / "children").split()
    }
    ticks = 0
    for child in below:
        fields = _told_by(Path(f"/proc/{child}/stat")).rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:13])
    ended = os.times()
    alive = ticks / os.sysconf("SC_CLK_TCK") if below else 0.0
    return time.process_time() + ended.children_user + ended.children_system + alive


def _told_by(file: Path) -> str:
    """Text of a file of the system; none of a thread or a process that has ended since it was listed."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def report(seconds: Mapping[str, list[float]], reference: str, work: float, unit: str) -> None:
    """Print the rate of each contender and its ratio to the reference, round by round, as a median."""
    print(
        f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, median of {len(seconds[reference])} rounds"
    )
    for name, values in seconds.items():
        ratio = statistics.median(r / v for r, v in zip(seconds[reference], values, strict=True))
        print(f"{name:44} {work / statistics.median(values):10.1f} {unit}/s   ratio {ratio:.2f}")
