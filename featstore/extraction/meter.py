"""What each backbone of a pass costs, measured while it works."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from featstore.fingerprint import short_digest
from featstore.store.rates import Rate, record_rate

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from featstore.extraction.portions import NetworkSource
    from featstore.types import BackboneSpec, Features

IMPORT_SECONDS = 4.0
"""Of TensorFlow, once per process."""
LEAST_BATCHES = 3
"""The first batch of a network pays for its start, and counts as loading; fewer others say nothing."""


class Metered:
    """A backbone that notes the seconds of each batch; otherwise the backbone itself."""

    def __init__(self, source: NetworkSource, wanted: BackboneSpec) -> None:
        started, had_tensorflow = time.perf_counter(), "tensorflow" in sys.modules
        self._backbone = source.load(wanted)
        importing = "tensorflow" in sys.modules and not had_tensorflow
        seconds = time.perf_counter() - started
        self.load_seconds = max(0.0, seconds - IMPORT_SECONDS) if importing else seconds
        self.batch_seconds: list[float] = []

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the network."""
        return self._backbone.spec

    @property
    def batch_size(self) -> int:
        """Images per call of `embed`."""
        return self._backbone.batch_size

    @property
    def portion(self) -> int:
        """Images computed at a time: `batch_size`, or less where memory ran out."""
        return self._backbone.portion

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Do what the backbone does, with an eye on the clock."""
        started = time.perf_counter()
        features = self._backbone.embed(images)
        self.batch_seconds.append(time.perf_counter() - started)
        return features


def record_rates(root: Path, backbones: Collection[Metered], seconds: float, threads: int) -> None:
    """Note the rates of a pass in the store of `root`.

    Pixels and shards are everyone's: what the pass took beyond the forward passes is shared in proportion.

    Parameters
    ----------
    backbones
        All backbones of the pass.
    seconds
        Wall time of the pass.
    threads
        Cores that the pass had to itself.
    """
    forward = sum(sum(backbone.batch_seconds) for backbone in backbones)
    for backbone in backbones:
        batches = backbone.batch_seconds[1:]
        if len(batches) >= LEAST_BATCHES:
            each = median(batches) / backbone.batch_size * seconds / forward
            warm_up = max(0.0, backbone.batch_seconds[0] - median(batches))
            rate = Rate(each * threads, backbone.load_seconds + warm_up)
            record_rate(root, machine(), backbone.spec, rate)


def machine() -> str:
    """Name this kind of machine: processor and number of cores, shortened to a folder's name."""
    return f"{os.cpu_count()}-cores-{short_digest([platform.machine(), _processor()])}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
