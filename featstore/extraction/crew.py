"""How many processes an extraction gets, and on what grounds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore import registry
from featstore.executors._place import available_cores, visible_devices
from featstore.extraction.meter import machine
from featstore.store.layouts import recorded_layouts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from featstore.types import Executor

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
