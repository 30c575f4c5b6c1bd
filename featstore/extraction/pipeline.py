"""The forward pass over a plan: embed each batch, commit each finished step.

Batches are made one step ahead, and shards are committed while the next batch is embedded.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np

from featstore import processes
from featstore.backbones.engines import AUTO, choose_engine
from featstore.errors import BadImageError, NonFiniteFeaturesError, UsageError
from featstore.extraction.networks import BackoffBackbone, Networks
from featstore.extraction.plan import ImageBlock, Plan, Step, image_blocks, plan
from featstore.images import reading
from featstore.images.augment import DeviceImages, TooFarError, draw, resize, warp
from featstore.images.recipe import parse_recipe
from featstore.processes import threads
from featstore.store.notes import BadImage
from featstore.store.shard import NO_IDS
from featstore.types import BackboneSpec, Computation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.store.store import Store
    from featstore.types import Backbone, Decoding, FeatureKey, Features, ImageRecord, Pixels, View


# The pass

PROBLEMS_HERE = {reading.CHANGED, reading.MISSING, reading.PERMISSION, reading.NEEDS_PACKAGE}
"""Reasons that say something about this machine, not about the bytes: tried again next time."""
PHASES = ("pixels", "forward", "write", "writer")
SHOWN = ("pixels", "forward")
"""Phases beside the bar: what does not fit a narrow terminal is in the summary."""


class ProgressReporter(Protocol):
    """What is told of progress: `featstore.extraction.plan.ProgressBar` shows it."""

    def say(self, phase: str) -> object:
        """Name what is done now."""
        ...

    def update(self, n: int = 1, backbone: BackboneSpec | None = None) -> object:
        """Count `n` more vectors, of a backbone if these are of one batch."""
        ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> object:
        """Say something beside the bar."""
        ...


@dataclass(frozen=True, slots=True)
class NullProgress:
    """A progress bar that shows nothing."""

    def say(self, phase: str) -> None:
        """Do nothing."""

    def update(self, n: int = 1, backbone: BackboneSpec | None = None) -> None:
        """Do nothing."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Vectors that a backbone has computed, and the seconds that it took, waiting for nothing."""

    vectors: int = 0
    seconds: float = 0.0

    def __add__(self, other: Throughput) -> Throughput:
        """Both together."""
        return Throughput(self.vectors + other.vectors, self.seconds + other.seconds)


@dataclass(slots=True)
class PassStats:
    """What one pass did.

    Attributes
    ----------
    rows
        Vectors computed and committed.
    bad
        Images that did not decode, in order.
    left_to_others
        Vectors that other runs were computing, and that were left to them.
    seconds
        Wall time of the pass: waiting for pixels, in the forward pass, and waiting for the writer; and beside it
        the time that the writer was busy in the background.
    throughputs
        What each backbone did, by its name.
    computations
        How the vectors of each backbone came about.
    starts
        Seconds that each took before its first vector: loaded, compiled, one batch computed.
    peaks
        Peak resident bytes of each process that took part, by its name.
    """

    rows: int = 0
    bad: list[BadImage] = field(default_factory=list)
    left_to_others: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    throughputs: dict[str, Throughput] = field(default_factory=dict)
    computations: dict[str, Computation] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @property
    def idle(self) -> float:
        """Share of the pass in which no network was at work, 0 to 1."""
        wall = sum(self.seconds[phase] for phase in ("pixels", "forward", "write"))
        return 1 - self.seconds["forward"] / wall if wall else 0.0

    @property
    def rates(self) -> dict[str, float]:
        """Vectors per second by phase, of those phases that took any time."""
        return {phase: round(self.rows / s, 1) for phase, s in self.seconds.items() if s}

    def rates_text(self, vectors: int) -> str:
        """What a bar says of so many vectors: how many a second each phase made; the slowest holds up the rest."""
        return ", ".join(
            f"{phase} {vectors / s:.0f}/s" for phase, s in self.seconds.items() if s and phase in SHOWN
        )

    def add_batch(self, backbone: BackboneSpec, vectors: int, seconds: float) -> None:
        """Note a batch of a backbone."""
        self.throughputs[backbone.name] = self.throughputs.get(backbone.name, Throughput()) + Throughput(
            vectors, seconds
        )

    def add(self, other: PassStats) -> None:
        """Add what another pass did; an image that is bad in both counts once, seconds of workers add up."""
        self.rows += other.rows
        self.left_to_others += other.left_to_others
        known = {bad.id for bad in self.bad}
        self.bad += [bad for bad in other.bad if bad.id not in known]
        for account, seconds in other.seconds.items():
            self.seconds[account] = self.seconds.get(account, 0.0) + seconds
        for name, throughput in other.throughputs.items():
            self.throughputs[name] = self.throughputs.get(name, Throughput()) + throughput
        self.computations |= other.computations
        for name, seconds in other.starts.items():
            self.starts[name] = max(seconds, self.starts.get(name, 0.0))
        for process, peak in other.peaks.items():
            self.peaks[process] = max(peak, self.peaks.get(process, 0))


def run_pass(
    wanted: Iterable[ImageBlock],
    records: Mapping[str, ImageRecord],
    decoding: Decoding,
    backbones: Mapping[BackboneSpec, Backbone],
    sink: Sink,
    progress: ProgressReporter,
) -> PassStats:
    """Compute every vector of the blocks that are wanted, and commit it.

    A kill at any moment loses the vectors since the last committed step, at most one block of images in one view.

    Raises
    ------
    NonFiniteFeaturesError
        If a backbone returns NaN or infinity.
    StoreError
        If a shard cannot be written.
    """
    work = _Pass(backbones, progress)
    batch_size = max((b.batch_size for b in backbones.values() if not _is_on_device(b)), default=1)
    device = DeviceBatches.of(backbones)
    stream = prefetch(batches(wanted, records, decoding, batch_size, threads(), device))
    clock = _PhaseTimer(work.stats.seconds)
    with closing(stream), BackgroundWriter(sink) as writer:
        for item in stream:
            processes.raise_if_requested()
            clock.lap("pixels")
            if not isinstance(item, Batch):
                _quarantine(item, decoding, writer, work.stats)
                continue
            work.begin(item)
            while work.is_late:
                _finish_batch(work, writer, clock)
        while work.is_busy:
            _finish_batch(work, writer, clock)
    clock.lap("write")
    work.stats.seconds["writer"] = writer.seconds
    return work.stats


def _finish_batch(work: _Pass, writer: BackgroundWriter, clock: _PhaseTimer) -> None:
    work.collect()
    clock.lap("forward")
    work.say()
    work.write(writer)
    clock.lap("write")


def _is_on_device(backbone: Backbone) -> bool:
    return getattr(backbone, "on_device", False)


def computation_of(backbone: Backbone) -> Computation:
    """How the vectors of a backbone come about: what it says itself, or at least the size of its batches."""
    return getattr(backbone, "computation", None) or Computation(backbone.effective_batch_size)


class _Pass:
    """Batches on their way: begun, collected (one batch later where a device computes), written step by step."""

    def __init__(self, backbones: Mapping[BackboneSpec, Backbone], progress: ProgressReporter) -> None:
        self.stats = PassStats()
        self._backbones: Mapping[BackboneSpec, Any] = backbones  # those on a device have `start` and `fetch`
        self._progress = progress
        self._begun: deque[tuple[Batch, float, list[Any]]] = deque()
        self._pending: defaultdict[FeatureKey, list[Features]] = defaultdict(list)
        self._ids: list[str] = []
        self._finished: tuple[FeatureKey, ...] = ()
        self._embedded = 0
        self._last = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a batch was begun and not collected."""
        return bool(self._begun)

    @property
    def is_late(self) -> bool:
        """Whether a batch has to be collected now: on a device the last one may go on."""
        return len(self._begun) > (1 if self._begun and self._begun[-1][0].on_device else 0)

    def begin(self, batch: Batch) -> None:
        """Start the networks of a batch on the device; the processor computes when it is collected."""
        started = perf_counter()
        there = batch.keys if batch.on_device else ()
        self._begun.append(
            (batch, started, [self._backbones[key.backbone].start(batch.pixels) for key in there])
        )

    def collect(self) -> None:
        """Take the vectors of the oldest batch."""
        batch, started, found = self._begun.popleft()
        self._last = max(self._last, started)
        self._ids.extend(batch.ids)
        for at, key in enumerate(batch.keys):
            backbone = self._backbones[key.backbone]
            try:
                features = backbone.fetch(found[at]) if found else backbone.embed(batch.pixels)
            except NonFiniteFeaturesError as error:
                if not error.rows:
                    raise
                raise NonFiniteFeaturesError.of_rows(
                    key.backbone.name, error.rows, len(batch.ids), error.remedy
                ) from error
            self._pending[key].append(features[: len(batch.ids)])
            seconds, self._last = perf_counter() - self._last, perf_counter()
            self.stats.add_batch(key.backbone, len(batch.ids), seconds)
            if found:
                backbone.note_batch(seconds)
            self._progress.update(len(batch.ids), key.backbone)
        self._embedded += len(batch.ids) * len(batch.keys)
        self._finished = batch.keys if batch.is_last else ()

    def say(self) -> None:
        """Say the rates so far: of all vectors that were collected, in all seconds that they took."""
        self._progress.set_postfix_str(self.stats.rates_text(self._embedded), refresh=False)

    def write(self, writer: BackgroundWriter) -> None:
        """Hand the rows of a finished step to the writer."""
        for key in self._finished:
            computation = computation_of(self._backbones[key.backbone])
            writer.write(key, self._ids, np.concatenate(self._pending.pop(key)), computation)
            self.stats.rows += len(self._ids)
        if self._finished:
            self._ids, self._finished = [], ()


def _quarantine(bad: BadImage, decoding: Decoding, sink: Sink, stats: PassStats) -> None:
    stats.bad.append(bad)
    if bad.reason not in PROBLEMS_HERE:
        sink.record_bad_image(decoding, bad)


class _PhaseTimer:
    """Adds the time since the last lap to a named account."""

    def __init__(self, accounts: dict[str, float]) -> None:
        self._accounts = accounts
        self._last = time.perf_counter()

    def lap(self, account: str) -> None:
        now = time.perf_counter()
        self._accounts[account] += now - self._last
        self._last = now


# From a block of files to batches: read, decode, resize, warp, stack

CHANNELS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images of one step as a batch for its backbones.

    Attributes
    ----------
    keys
        Feature keys to compute from these pixels.
    ids
        Image ids of the real rows; the rest of `pixels` is padding, the last of them again.
    pixels
        ``(batch_size, side, side, 3)`` float32, RGB, 0..255; a `jax.Array` where its backbones compute on a device.
    is_last
        Whether the step ends with this batch.
    on_device
        Whether the pixels are there.
    """

    keys: tuple[FeatureKey, ...]
    ids: tuple[str, ...]
    pixels: Any
    is_last: bool
    on_device: bool = False


@dataclass(frozen=True, slots=True)
class DeviceBatches:
    """Which backbones compute on a device, and how many images of an input size are shown to them at a time.

    Attributes
    ----------
    specs
        The backbones; all others get pixels that the host has warped.
    sizes
        Images by input size: the largest batch of its backbones, which all other batches divide.
    """

    specs: frozenset[BackboneSpec] = frozenset()
    sizes: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, backbones: Mapping[BackboneSpec, Backbone]) -> DeviceBatches:
        """Look which of the backbones of a pass take pixels on a device."""
        found = {spec: backbone for spec, backbone in backbones.items() if _is_on_device(backbone)}
        sizes: dict[int, int] = {}
        for spec, backbone in found.items():
            sizes[spec.input_size] = max(backbone.batch_size, sizes.get(spec.input_size, 1))
        return cls(frozenset(found), sizes)


NO_DEVICE = DeviceBatches()


def batches(
    blocks: Iterable[ImageBlock],
    records: Mapping[str, ImageRecord],
    decoding: Decoding,
    batch_size: int,
    threads: int,
    device: DeviceBatches = NO_DEVICE,
) -> Iterator[Batch | BadImage]:
    """Stream batches, and each image that does not decode as a `BadImage` in its place.

    A file is read and decoded once for all views, resized once per input size, warped once per view and size.
    Grey images keep one channel until the door. For backbones on a device a block is uploaded once per size, as 8-bit
    numbers, warped there, and the next block is decoded meanwhile.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="pixels") as pool:
        for block, loaded in _loaded(blocks, records, decoding, pool, ahead=1 if device.specs else 0):
            images: dict[str, dict[int, Pixels]] = {}
            for image, result in zip(block.ids, loaded, strict=True):
                if isinstance(result, BadImage):
                    yield result
                else:
                    images[image] = result
            uploads = _Uploads(images, device)
            for step in block.steps:
                here = tuple(key for key in step.keys if key.backbone not in device.specs)
                there = tuple(key for key in step.keys if key.backbone in device.specs)
                if here or not there:  # fine-tuning asks for pixels and names no key
                    yield from _step_batches(replace(step, keys=here), images, batch_size, pool)
                if there:
                    yield from _device_batches(replace(step, keys=there), uploads, device)


def _loaded(
    blocks: Iterable[ImageBlock],
    records: Mapping[str, ImageRecord],
    decoding: Decoding,
    pool: ThreadPoolExecutor,
    ahead: int,
) -> Iterator[tuple[ImageBlock, Iterator[dict[int, Pixels] | BadImage]]]:
    """Blocks and their decoded images, `ahead` blocks of which are begun before they are asked for."""
    begun: deque[tuple[ImageBlock, Iterator[dict[int, Pixels] | BadImage]]] = deque()
    for block in blocks:
        load = partial(_load, decoding=decoding, sizes=sorted({step.input_size for step in block.steps}))
        begun.append((block, pool.map(load, (records[i] for i in block.ids))))
        if len(begun) > ahead:
            yield begun.popleft()
    yield from begun


def view_pixels(pixels: Pixels, view: View, image: str) -> NDArray[np.float32]:
    """Show `pixels` in one view: the same numbers for every backbone, batch, worker and order (law 1).

    Parameters
    ----------
    pixels
        ``(side, side, 1 or 3)`` uint8, already of the input size.
    view
        Recipe and seed.
    image
        Image id; with the seed it fixes the transform.

    Returns
    -------
    ``(side, side, 1 or 3)`` float32, 0..255.
    """
    if view.is_identity:
        return pixels.astype(np.float32)
    recipe = _parsed(view.recipe)
    height, width, _ = pixels.shape
    return warp(pixels, draw(recipe, view.seed, image, height, width), recipe.fill, recipe.cval)


_parsed = cache(parse_recipe)


def _load(record: ImageRecord, decoding: Decoding, sizes: Sequence[int]) -> dict[int, Pixels] | BadImage:
    with reading.reserve_for_decoding(record.path):
        try:
            pixels = reading.read_pixels(record, decoding)
        except BadImageError as error:
            return BadImage(record.id, error.reason, error.detail)
        return {size: resize(pixels, size) for size in sizes}


def _step_batches(
    step: Step, images: Mapping[str, Mapping[int, Pixels]], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[Batch]:
    ids = tuple(i for i in step.ids if i in images)
    for start in range(0, len(ids), batch_size):
        part = ids[start : start + batch_size]
        pixels = np.zeros((batch_size, step.input_size, step.input_size, CHANNELS), np.float32)
        views = pool.map(lambda i: view_pixels(images[i][step.input_size], step.view, i), part)
        for row, seen in enumerate(views):
            pixels[row] = seen
        pixels[len(part) :] = pixels[
            len(part) - 1
        ]  # what no network has to fear more than the images themselves
        yield Batch(step.keys, part, pixels, is_last=start + batch_size >= len(ids))


class _Uploads:
    """Images of a block on the device, by input size, uploaded when the first view of that size is wanted."""

    def __init__(self, images: Mapping[str, Mapping[int, Pixels]], device: DeviceBatches) -> None:
        self._images = images
        self._device = device
        self._uploaded: dict[int, DeviceImages] = {}
        self.rows = {image: row for row, image in enumerate(images)}

    def of_size(self, size: int) -> DeviceImages:
        """All images of the block at this input size."""
        if size not in self._uploaded:
            pixels = [sizes[size] for sizes in self._images.values()]
            self._uploaded[size] = DeviceImages.upload(pixels, self._device.sizes[size])
        return self._uploaded[size]

    def pixels(self, image: str, size: int) -> Pixels:
        """Pixels of an image on the host."""
        return self._images[image][size]


def _device_batches(step: Step, uploads: _Uploads, device: DeviceBatches) -> Iterator[Batch]:
    ids = tuple(i for i in step.ids if i in uploads.rows)
    size = step.input_size
    batch_size = device.sizes[size]
    for start in range(0, len(ids), batch_size):
        part = ids[start : start + batch_size]
        rows = [uploads.rows[i] for i in part]
        there = uploads.of_size(size)
        if step.view.is_identity:
            pixels = there.seen(rows)
        else:
            recipe = _parsed(step.view.recipe)
            transforms = [draw(recipe, step.view.seed, image, size, size) for image in part]
            try:
                pixels = there.seen(rows, transforms, recipe.fill, recipe.cval)
            except TooFarError:  # a recipe beyond all reason: the host has no such bounds
                seen = [view_pixels(uploads.pixels(i, size), step.view, i) for i in part]
                pixels = there.from_host(seen)
        is_last = start + batch_size >= len(ids)
        yield Batch(step.keys, part, pixels, is_last, on_device=True)


# The next batch is made while the current one is embedded.

T = TypeVar("T")


def prefetch(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items` in order while one thread keeps up to `depth` of them ready.

    Memory is bounded by `depth`; an exception in `items` is raised here, in its place.
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        ready = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := ready.popleft().result()) is not end:
            ready.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]  # `end` is the only item that is not a T


# Shards are committed while the next batch is embedded.

DEPTH = 8
"""Shards that may wait to be written; bounds memory where the disk is slower than the networks."""


class Sink(Protocol):
    """Destination of finished rows: a `Store`, or memory."""

    def write(
        self, key: FeatureKey, ids: Sequence[str], features: Features, computation: Computation
    ) -> object:
        """Take rows ``(len(ids), dimension)`` float32, and how they were computed."""
        ...

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Take note of an image whose bytes do not decode."""
        ...


class BackgroundWriter:
    """A sink that writes to another one in a single thread, in order.

    An error of the sink is raised by the next call, at the latest on leaving the context, which waits for what is
    under way: after Ctrl-C every shard is either committed or was never begun.

    Attributes
    ----------
    seconds
        Time that the thread has spent writing.
    """

    def __init__(self, sink: Sink) -> None:
        self.seconds = 0.0
        self._sink = sink
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        """Start taking rows."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish everything; if the block fails, or this is interrupted, only what is under way.

        Results are waited for before threads: in CPython 3.11 a join that a signal interrupts takes the thread for
        ended, and the process would leave in the middle of a commit.
        """
        try:
            if error is None:
                self._raise_errors(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def write(
        self, key: FeatureKey, ids: Sequence[str], features: Features, computation: Computation
    ) -> None:
        """Queue rows, waiting while `DEPTH` shards wait already."""
        self._raise_errors(DEPTH - 1)
        self._waiting.append(self._pool.submit(self._timed_write, key, tuple(ids), features, computation))

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Pass an image on; it is rare and small."""
        self._sink.record_bad_image(decoding, bad)

    def _timed_write(
        self, key: FeatureKey, ids: Sequence[str], features: Features, computation: Computation
    ) -> None:
        started = perf_counter()
        self._sink.write(key, ids, features, computation)
        self.seconds += perf_counter() - started

    def _raise_errors(self, allowed: int) -> None:
        while self._waiting and (len(self._waiting) > allowed or self._waiting[0].done()):
            self._waiting.popleft().result()


# Images of more than 8 bits need a declared range.


def images_without_vector(manifest: Manifest, todo: Plan) -> list[ImageRecord]:
    """Images that lack a vector."""
    ids = frozenset(NO_IDS.union(*(cell.missing for cell in todo.key_plans)))
    return [record for record in manifest.records if record.id in ids]


def refuse_undeclared_range(records: Iterable[ImageRecord], decoding: Decoding) -> None:
    """Refuse 16-bit and float images before any work: without a range they would be silently wrong.

    Raises
    ------
    UsageError
        If an image is deep, and no range is declared.
    """
    if decoding.value_range is not None:
        return
    deep = [record.path for record in records if reading.needs_range(record)]
    if deep:
        raise UsageError(
            f"{len(deep)} images hold 16-bit or float values and no range is declared; the first is {deep[0]}.",
            "Declare what is black and what is white: --range LOW,HIGH (lung CT in HU: --range=-1350,150).",
        )


# Vectors of a few images for a finished model, with or without a store


def embed_images(
    records: Sequence[ImageRecord],
    keys: Sequence[FeatureKey],
    weights: Mapping[str, str],
    engine: str = AUTO,
    change: Callable[[BackoffBackbone], Backbone] | None = None,
    store: Store | None = None,
) -> tuple[dict[str, Features], dict[str, BadImage]]:
    """Compute the vectors of images under `keys`, backbones side by side.

    Parameters
    ----------
    records
        The images; those of one id are computed once.
    keys
        One key per backbone, all of one view and one decoding.
    weights
        Where the weights are now, as for `featstore.extract`; they must be those of the keys.
    engine
        As for `featstore.extract`.
    change
        Makes of each network what computes in its place, for rows of something else than its vectors.
    store
        Where vectors are taken from, and kept as they come, so that what was interrupted goes on; None keeps none.

    Returns
    -------
    features, bad
        By image id: ``(columns,)`` float32, network by network; and why the others do not decode.
    """
    images = {record.id: record for record in records}
    sink, decoding = (MemorySink() if store is None else store), keys[0].decoding
    known = {} if store is None else store.bad_images(decoding)
    todo = plan(keys, list(images), {} if store is None else store.stored(keys), known)
    wanted = [key_plan.key for key_plan in todo.key_plans if key_plan.missing]
    bad = {image: known[image] for image in images if image in known}
    if wanted:
        networks = Networks(
            weights, wanted[0].backbone.preprocess, "float32", choose_engine(engine, here=True)
        )
        loaded = {key.backbone: networks.load(key.backbone) for key in wanted}
        backbones: Mapping[BackboneSpec, Backbone] = (
            loaded if change is None else {spec: change(backbone) for spec, backbone in loaded.items()}
        )
        stats = run_pass(image_blocks(todo), images, decoding, backbones, sink, NullProgress())
        bad |= {found.id: found for found in stats.bad}
    good = [image for image in images if image not in bad]
    if isinstance(sink, MemorySink):
        return {image: np.concatenate([sink.rows[key][image] for key in keys]) for image in good}, bad
    sink.flush()
    rows = np.concatenate([sink.read(key, good) for key in keys], axis=1)
    return dict(zip(good, rows, strict=True)), bad


class MemorySink:
    """A sink that keeps rows by key and image id."""

    def __init__(self) -> None:
        self.rows: dict[FeatureKey, dict[str, Features]] = {}
        self.bad: dict[str, BadImage] = {}

    def write(
        self,
        key: FeatureKey,
        ids: Sequence[str],
        features: Features,
        computation: Computation,  # noqa: ARG002
    ) -> None:
        """Keep rows."""
        self.rows.setdefault(key, {}).update(zip(ids, features, strict=True))

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:  # noqa: ARG002
        """Keep a note of an image that does not decode."""
        self.bad[bad.id] = bad
