"""Outcome of `doctor`: what this machine has for featstore, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featstore.results.document import Count, Result


class Problem(Result, frozen=True, kw_only=True):
    """Something that is missing or wrong, and what to do about it.

    Attributes
    ----------
    cause, remedy
        One line each.
    blocking
        Whether featstore, or a backbone that was asked about, cannot work before it is mended.
    """

    cause: str
    remedy: str
    blocking: bool = True


class NetworkWeights(Result, frozen=True, kw_only=True):
    """ImageNet weights of one backbone of the catalogue.

    Attributes
    ----------
    backbone
        Catalogue name.
    where
        ``installed``, ``in the Keras cache``, ``not here``, ``none published``, or ``damaged``: no weights
        file, whatever it is called.
    file
        Where the file is or is looked for; empty where there is none to look for.
    in_paper
        Whether the source paper used the network.
    """

    backbone: str
    where: str
    file: str = ""
    in_paper: bool = False

    @property
    def here(self) -> bool:
        """Whether the network can be loaded without fetching anything."""
        return self.where in {"installed", "in the Keras cache"}


class CacheHealth(Result, frozen=True, kw_only=True):
    """State of a cache by the names and sizes of its files; `featstore.verify` looks into them.

    Attributes
    ----------
    path
        Its folder.
    present, writable
        Whether there is one, and whether it can be written or made there.
    free_bytes
        Free on its disk.
    backbones, shards, bytes
        Backbones with vectors, files of vectors, and the bytes of these.
    quarantined_shards, quarantined_images
        Damaged shards that were set aside, and images that do not decode (once for each decoding).
    """

    path: str
    present: bool
    writable: bool
    free_bytes: Count
    backbones: Count = 0
    shards: Count = 0
    bytes: Count = 0
    quarantined_shards: Count = 0
    quarantined_images: Count = 0


class MachineReport(Result, frozen=True, kw_only=True):
    """What this machine has for featstore, and what it lacks.

    Attributes
    ----------
    ready
        Whether no problem is blocking.
    problems
        What is missing or wrong, blocking ones first.
    versions
        Of featstore, Python and the libraries, by name; empty where one is not installed.
    engine
        What ``--engine auto`` takes; empty where only a loaded engine could tell, or none is installed.
    engines
        Engines that are installed.
    engine_gpus
        GPUs by engine, as the engine itself names them; without those that were not loaded to be asked.
    cpu, cores
        Processor, and how many of its cores this process may use.
    gpus
        GPUs that the system shows.
    bfloat16
        Whether GPU or CPU say that they compute in bfloat16; None where only a loaded engine could tell.
    memory_bytes, memory_free_bytes
        Of the machine, or of its container; 0 where unknown.
    weights_folder
        Where Keras keeps weights, and where files that are missing go.
    weights
        Of each backbone of the catalogue.
    cache
        State of the cache.
    """

    ready: bool
    problems: tuple[Problem, ...]
    versions: Mapping[str, str]
    engine: str
    engines: tuple[str, ...]
    engine_gpus: Mapping[str, tuple[str, ...]]
    cpu: str
    cores: Count
    gpus: tuple[str, ...]
    bfloat16: bool | None
    memory_bytes: Count
    memory_free_bytes: Count
    weights_folder: str
    weights: tuple[NetworkWeights, ...]
    cache: CacheHealth

    def headline(self) -> str:
        """Whether featstore can work here, and with which networks."""
        blocking = [problem.cause for problem in self.problems if problem.blocking]
        here = sum(network.here for network in self.weights)
        return f"not ready: {' '.join(blocking)}" if blocking else f"ready, {here} networks with weights here"

    def table(self) -> list[dict[str, Any]]:
        """Where the weights of each network are."""
        return [network.to_json() for network in self.weights]
