"""Expected time of an extraction: vectors times the seconds of each backbone on this machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from featstore.backbones import catalog
from featstore.serialization import short_digest
from featstore.store.notes import BackboneTiming

if TYPE_CHECKING:
    from collections.abc import Mapping

    from featstore.types import BackboneSpec


MEASURED = "measured in earlier runs of this cache on this machine"
SCALED = "scaled from other networks that this cache has seen on this machine"
CATALOGUE = "the catalogue's speed of another machine"
LOAD_SECONDS = 2.0
UNCOUNTED_SECONDS = 0.01
"""Of an image on one core, by a network whose operations nobody counted: a guess until a cache has measured it."""
RELATIVE_TO_FLOAT32 = {"bfloat16": 0.25}
"""Time of a precision as a share of float32: 1/7 to 1/3.6 on a CPU with AMX (`benchmarks/precision.py`)."""


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """Expected wall time.

    Attributes
    ----------
    seconds
        Of all that is missing, networks loaded included.
    per_vector
        Of each backbone, on all cores.
    basis
        Where the least certain of the numbers comes from.
    """

    seconds: float
    per_vector: Mapping[BackboneSpec, float]
    basis: str


def estimate_time(
    vectors: Mapping[BackboneSpec, int], known: Mapping[BackboneSpec, BackboneTiming], cores: int
) -> TimeEstimate:
    """Predict the wall time of an extraction.

    Every backbone has a rate of its own: recorded by an earlier run of the same network in this cache on this
    machine; else the catalogue's, times how much slower than its rates this machine has been so far.

    Parameters
    ----------
    vectors
        Missing vectors of each backbone: images times views.
    known
        Rates that `featstore.store.notes` has recorded, of these and of other backbones.
    cores
        Cores that will compute, over all processes and machines.
    """
    slowness = _relative_slowness(known)
    rates = {s: known.get(s) or BackboneTiming(_by_catalogue(s) * slowness, LOAD_SECONDS) for s in vectors}
    busy = [spec for spec, count in vectors.items() if count]
    seconds = sum(
        vectors[spec] * rates[spec].core_seconds / cores + rates[spec].load_seconds for spec in busy
    )
    basis = MEASURED if all(s in known for s in busy) else SCALED if known else CATALOGUE
    per_vector = {spec: rate.core_seconds / cores for spec, rate in rates.items()}
    starts = any(not spec.has_loader for spec in busy)
    return TimeEstimate(seconds + IMPORT_SECONDS * starts, per_vector, basis)


def _relative_slowness(known: Mapping[BackboneSpec, BackboneTiming]) -> float:
    listed = set(catalog.names())
    counted = [spec for spec in known if spec.name in listed and catalog.row(spec.name).gflops]
    ratios = [known[spec].core_seconds / _by_catalogue(spec) for spec in counted]
    return median(ratios) if ratios else 1.0


def _by_catalogue(spec: BackboneSpec) -> float:
    row = catalog.row(spec.name)
    seconds = row.gflops / row.core_gflops or UNCOUNTED_SECONDS
    return seconds * RELATIVE_TO_FLOAT32.get(spec.precision, 1.0)


IMPORT_SECONDS = 4.0
"""Of TensorFlow, once per process."""


def machine_name() -> str:
    """Name this kind of machine: processor and number of cores, shortened to a folder's name."""
    return f"{os.cpu_count()}-cores-{short_digest([platform.machine(), _processor()])}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
