"""Networks of one extraction: known by spec at once, built only when something has to pass through them."""

from __future__ import annotations

import gc
import logging
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.engines import JAX, TENSORFLOW
from featstore.backbones.loading import load_backbone, spec
from featstore.backbones.weights import (
    IMAGENET,
    choice_for,
    not_downloaded_error,
    resolve_weights,
    unreachable_error,
)
from featstore.errors import AbsentWeightsError, OutOfMemoryError, WeightsError
from featstore.store.notes import BackboneTiming, record_timing
from featstore.store.training_record import HASHED, TrainingRecord, read_from_weights
from featstore.time_estimates import IMPORT_SECONDS, machine_name
from featstore.types import BACKBONE_REVISION, BackboneSpec, Computation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import jax
    from numpy.typing import NDArray

    from featstore.types import Features


# Networks by spec

BATCH_SIZE = 16
"""The engine's constant: only the size of a batch can move the last bits of a row (law 2)."""

ROOM = 0.8
"""Share of a card's free memory for one batch: networks that are loaded later and pixels need some, too."""


class Networks:
    """Backbones by spec.

    Parameters
    ----------
    weights
        Choice by backbone name, ``*`` for all others; ``imagenet`` where nothing is said.
    preprocess
        ``official`` or ``rescale``: that of the specs; `load` takes that of the spec.
    precision
        Arithmetic of the specs; `load` takes that of the spec.
    engine
        ``tensorflow`` or ``jax``: what computes those of Keras.
    largest_batch
        Images that may go through a network together on a GPU of the engine jax, if there is room; elsewhere it is
        `BATCH_SIZE`.
    memory
        Bytes of the card that this process may take; None for all that is free.
    """

    def __init__(
        self,
        weights: Mapping[str, str],
        preprocess: str,
        precision: str = "float32",
        engine: str = TENSORFLOW,
        largest_batch: int = BATCH_SIZE,
        memory: int | None = None,
    ) -> None:
        self.engine = engine
        self._weights = weights
        self._preprocess = preprocess
        self._precision = precision
        self._largest_batch = largest_batch
        self._memory = memory
        self._loaded: dict[BackboneSpec, BackoffBackbone] = {}

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Travel as choices, and arrive as the one object that a process keeps for them, networks and all."""
        choices = {name: _absolute(choice) for name, choice in {**catalog.files(), **self._weights}.items()}
        fixed = tuple(sorted(choices.items())), self._preprocess
        return _of_this_process, (*fixed, self.engine, self._largest_batch, self._memory)

    def for_batches(self, largest_batch: int, memory: int | None) -> Networks:
        """Use the same choices with batches of another size on a GPU."""
        return Networks(self._weights, self._preprocess, self._precision, self.engine, largest_batch, memory)

    def spec(self, name: str, *, fetch: bool) -> BackboneSpec:
        """Spec of a backbone; with `fetch`, weights that are not here yet are downloaded to know their digest.

        Raises
        ------
        WeightsError
            If the weights are absent and cannot or may not be fetched.
        """
        choice = choice_for(name, self._weights)  # which may bring the network
        row = catalog.row(name)
        found = resolve_weights(row, choice)
        if found.digest is not None:
            return spec(row, found, self._preprocess, self._precision)
        if not fetch:
            raise not_downloaded_error([name])
        return self._load(name, self._precision, self._preprocess).spec

    def load(self, wanted: BackboneSpec) -> BackoffBackbone:
        """Build the backbone of a spec.

        Raises
        ------
        WeightsError
            If the weights chosen here are not those of the spec.
        """
        require_computable(wanted)
        if (
            wanted not in self._loaded
            and self._load(wanted.name, wanted.precision, wanted.preprocess).spec != wanted
        ):
            raise WeightsError(
                f"{wanted.name} is wanted with the weights {wanted.weights}, and these are others.",
                f"Pass the same file or seed as before: --weights {wanted.name}=CHOICE.",
            )
        return self._loaded[wanted]

    def keep(self, wanted: Collection[BackboneSpec]) -> None:
        """Let go of all other networks and their memory."""
        kept = {identity: backbone for identity, backbone in self._loaded.items() if identity in wanted}
        if len(kept) < len(self._loaded):
            self._loaded = kept
            gc.collect()

    def _load(self, name: str, precision: str, preprocess: str) -> BackoffBackbone:
        choice = choice_for(name, self._weights)
        network = load_backbone(name, choice, preprocess, BATCH_SIZE, precision, self.engine)
        if self.engine == JAX and not network.spec.has_loader:
            network = self._for_card(network)
        backbone = BackoffBackbone(network)
        self._loaded[backbone.spec] = backbone
        return backbone

    def _for_card(self, network: Any) -> Any:  # noqa: ANN401 - a `JaxBackbone`, whose module needs JAX
        """Give a network the largest batch for which a GPU has room; a CPU computes by `BATCH_SIZE`."""
        from featstore.backbones import jax_backbone

        free = jax_backbone.free_memory()
        if not jax_backbone.on_gpu() or free is None:
            return network
        room = free if self._memory is None else min(free, self._memory)
        return jax_backbone.with_largest_batch(network, self._largest_batch, int(ROOM * room))


def specs(networks: Networks, names: Iterable[str], *, fetch: bool) -> list[BackboneSpec]:
    """`Networks.spec` of many networks, each once.

    Raises
    ------
    AbsentWeightsError
        If weights are absent: with the names of all networks whose weights are.
    """
    found: list[BackboneSpec] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        try:
            found.append(networks.spec(name, fetch=fetch))
        except AbsentWeightsError as error:
            missing += error.names
    if missing:
        raise unreachable_error(missing) if fetch else not_downloaded_error(missing)
    return found


def require_computable(wanted: BackboneSpec) -> None:
    """Make sure, without loading anything, that this featstore has a network that computes a spec.

    Raises
    ------
    WeightsError
        If its vectors were imported, or come from an earlier featstore.
    """
    if wanted.is_imported:
        raise WeightsError(
            f"{wanted.name} was imported: there is no network here that computes its vectors.",
            "Fit again without it, or import vectors of these images, too, and use `featstore compare`.",
        )
    if wanted.revision != BACKBONE_REVISION:
        raise WeightsError(
            f"{wanted.name} is wanted as an earlier featstore computed it (revision {wanted.revision}).",
            "Run `featstore extract` and `featstore fuse` again.",
        )


@lru_cache(maxsize=1)
def _of_this_process(
    weights: tuple[tuple[str, str], ...],
    preprocess: str,
    engine: str,
    largest_batch: int,
    memory: int | None,
) -> Networks:
    return Networks(dict(weights), preprocess, engine=engine, largest_batch=largest_batch, memory=memory)


def _absolute(choice: str) -> str:
    if choice == IMAGENET or choice.startswith("random:"):
        return choice
    return str(Path(choice).expanduser().absolute())


# When a batch does not fit into a device's memory, it is halved.

log = logging.getLogger(__name__)


class ResizableBackbone(Protocol):
    """A backbone that can be compiled anew for a smaller batch."""

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the network."""
        ...

    @property
    def batch_size(self) -> int:
        """Images per call of `embed`."""
        ...

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map images to features; raises `OutOfMemoryError` where they do not fit."""
        ...

    @property
    def computation(self) -> Computation:
        """How its vectors come about."""
        ...

    def with_batch_size(self, batch_size: int) -> ResizableBackbone:
        """Return the same network compiled for another batch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class StartedBatch:
    """Images on the device, how many of them are computed at a time, and their vectors to be.

    There are none where there was no room to begin.
    """

    images: jax.Array
    size: int
    parts: list[jax.Array] | None


class BackoffBackbone:
    """A backbone that keeps its batch size to the outside, and works in smaller batches once memory ran out.

    A smaller batch can move the last bits of a row (law 2), so it is said in the log.

    Parameters
    ----------
    backbone
        The network; smaller ones are whole halves of its batch.
    """

    def __init__(self, backbone: ResizableBackbone) -> None:
        self.spec = backbone.spec
        self.batch_size = backbone.batch_size
        self.on_device: bool = getattr(backbone, "on_device", False)
        self._inner: Any = backbone

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time: `batch_size`, or less where memory ran out."""
        size: int = self._inner.batch_size
        return size

    @property
    def computation(self) -> Computation:
        """How its vectors come about, by the batch that is computed now."""
        found: Computation = self._inner.computation
        return found

    def with_maps(self, weights: NDArray[np.float64]) -> tuple[BackoffBackbone, tuple[int, int]]:
        """Look at a Keras network before its pooling; with the grid of its map. See `KerasBackbone.with_maps`."""
        mapped = self._inner.with_maps(weights)
        return BackoffBackbone(mapped), mapped.grid

    def start(self, images: jax.Array) -> StartedBatch:
        """Begin to compute the vectors of images on the device, a multiple of what is computed at a time."""
        size = self.effective_batch_size
        try:
            return StartedBatch(images, size, self._inner.start(images))
        except OutOfMemoryError:
            return StartedBatch(images, size, None)

    def fetch(self, started: StartedBatch) -> Features:
        """Wait for vectors ``(n, dimension)``; where memory ran out they are computed again, in smaller batches.

        Raises
        ------
        OutOfMemoryError
            If not even one image fits.
        """
        while True:
            try:
                parts = self._inner.start(started.images) if started.parts is None else started.parts
                found: Features = self._inner.fetch(parts)
            except OutOfMemoryError:
                size = self.effective_batch_size
                if size == 1:
                    raise
                if size == started.size:  # and not made smaller after this one had begun
                    self._back_off(size)
                started = StartedBatch(started.images, self.effective_batch_size, None)
            else:
                return found

    def note_batch(self, seconds: float) -> None:
        """Do nothing: see `TimedBackbone`."""

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map ``(batch_size, side, side, 3)`` to ``(batch_size, dimension)`` in as many batches as needed.

        Raises
        ------
        OutOfMemoryError
            If not even one image fits.
        """
        while True:
            chunk = self._inner.batch_size
            try:
                parts = [self._inner.embed(images[at : at + chunk]) for at in range(0, len(images), chunk)]
            except OutOfMemoryError:
                if chunk == 1:
                    raise
                self._back_off(chunk)
            else:
                return np.concatenate(parts)

    def _back_off(self, chunk: int) -> None:
        smaller = chunk // 2
        log.warning(
            "%s: %d images do not fit into memory, going on with %d at a time (last bits of features may differ)",
            self.spec.name,
            chunk,
            smaller,
        )
        self._inner = self._inner.with_batch_size(smaller)


# Timings: what each backbone of a pass costs, measured while it works

LEAST_BATCHES = 3
"""The first batch of a network pays for its start, and counts as loading; fewer others say nothing."""


class TimedBackbone:
    """A backbone that notes the seconds of each batch; otherwise the backbone itself."""

    def __init__(self, source: NetworkSource, wanted: BackboneSpec) -> None:
        started, had_tensorflow = time.perf_counter(), "tensorflow" in sys.modules
        self._backbone = source.load(wanted)
        importing = "tensorflow" in sys.modules and not had_tensorflow
        seconds = time.perf_counter() - started
        self.load_seconds = max(0.0, seconds - IMPORT_SECONDS) if importing else seconds
        self.batch_seconds: list[float] = []
        self.on_device: bool = getattr(self._backbone, "on_device", False)

    @property
    def spec(self) -> BackboneSpec:
        """Identity of the network."""
        return self._backbone.spec

    @property
    def batch_size(self) -> int:
        """Images per call of `embed`."""
        return self._backbone.batch_size

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time: `batch_size`, or less where memory ran out."""
        return self._backbone.effective_batch_size

    @property
    def computation(self) -> Computation:
        """How its vectors come about."""
        return self._backbone.computation

    @property
    def start_seconds(self) -> float:
        """Seconds before its first vector, once a batch has been computed."""
        return self.load_seconds + self.batch_seconds[0]

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Do what the backbone does, with an eye on the clock."""
        started = time.perf_counter()
        features = self._backbone.embed(images)
        self.batch_seconds.append(time.perf_counter() - started)
        return features

    def start(self, images: jax.Array) -> StartedBatch:
        """Begin to compute, see `BackoffBackbone.start`."""
        return self._backbone.start(images)

    def fetch(self, started: StartedBatch) -> Features:
        """Wait for what was begun; see `BackoffBackbone.fetch`."""
        return self._backbone.fetch(started)

    def note_batch(self, seconds: float) -> None:
        """Take note of how long a device was at work on a batch."""
        self.batch_seconds.append(seconds)


def record_timings(root: Path, backbones: Collection[TimedBackbone], seconds: float, threads: int) -> None:
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
            rate = BackboneTiming(each * threads, backbone.load_seconds + warm_up)
            record_timing(root, machine_name(), backbone.spec, rate)


# What weights have learned from, and where workers get networks


def training_records(specs: Iterable[BackboneSpec], weights: Mapping[str, str]) -> dict[str, TrainingRecord]:
    """Records inside the weights files of backbones, by name; those of weights that featstore did not tune have none.

    Parameters
    ----------
    specs
        The backbones.
    weights
        The choices that they were resolved from, as for `featstore.extract`.
    """
    found = {}
    for own in specs:
        choice = choice_for(own.name, weights)
        if own.weights.startswith(HASHED) and choice != IMAGENET:
            record = read_from_weights(Path(choice).expanduser(), own.weights)
            if record is not None:
                found[own.name] = record
    return found


class NetworkSource(Protocol):
    """Where a worker gets its backbones; picklable, and in one process the same networks every time."""

    def load(self, wanted: BackboneSpec) -> BackoffBackbone:
        """Build the backbone of a spec, or return the one that was built before."""
        ...

    def keep(self, wanted: Collection[BackboneSpec]) -> None:
        """Let go of all other backbones."""
        ...
