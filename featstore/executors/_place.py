"""What each worker process gets: its share of the cores, and its GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = ("FEATSTORE_THREADS", "TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MOST_BY_DEFAULT = 8
"""Each process holds its own networks, so a machine of 64 cores does not get 64 of them unasked."""


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's part of the machine.

    Attributes
    ----------
    threads
        Cores to compute with.
    device
        The GPU, as ``CUDA_VISIBLE_DEVICES`` names it; None where there is none.
    """

    threads: int
    device: str | None = None

    def environment(self) -> dict[str, str]:
        """Variables to set before TensorFlow starts: it reads them once."""
        pinned = dict.fromkeys(THREADS, str(self.threads))
        return pinned if self.device is None else {**pinned, VISIBLE: self.device}


def places(workers: int, cores: int, devices: Sequence[str]) -> tuple[Place, ...]:
    """Divide a machine: the threads of all places are its cores, and the GPUs go round.

    Parameters
    ----------
    workers
        Number of processes; more than cores, or than GPUs, share.
    cores
        Cores of the machine.
    devices
        Visible GPUs; a worker uses one, so fewer workers than GPUs leave some idle.
    """
    each, more = divmod(cores, workers)
    return tuple(
        Place(max(1, each + (number < more)), devices[number % len(devices)] if devices else None)
        for number in range(workers)
    )


def default_workers(cores: int, devices: Sequence[str]) -> int:
    """One process per visible GPU, else per core, at most `MOST_BY_DEFAULT`."""
    return len(devices) or min(cores, MOST_BY_DEFAULT)


def visible_devices(environment: Mapping[str, str], folder: Path = Path("/dev")) -> tuple[str, ...]:
    """GPUs that this process may use: those that ``CUDA_VISIBLE_DEVICES`` lists, else all that Linux shows.

    As in CUDA, what follows an invalid entry (``-1``) is invisible.
    """
    listed = environment.get(VISIBLE)
    if listed is None:
        numbers = (path.name.removeprefix("nvidia") for path in folder.glob("nvidia[0-9]*"))
        return tuple(sorted((n for n in numbers if n.isdecimal()), key=int))
    names = [name.strip() for name in listed.split(",")]
    stop = next((at for at, name in enumerate(names) if name in {"", "-1"}), len(names))
    return tuple(names[:stop])


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
