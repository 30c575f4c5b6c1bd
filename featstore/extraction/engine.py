"""The forward pass over a plan: embed each batch, commit each finished step."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featstore import interruption
from featstore.errors import UsageError
from featstore.extraction.batches import Batch, batches
from featstore.extraction.prefetch import prefetch
from featstore.extraction.writer import BackgroundWriter
from featstore.images.reading import CHANGED, MISSING, PERMISSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from featstore.extraction.plan import Block
    from featstore.extraction.writer import Sink
    from featstore.store.quarantine import BadImage
    from featstore.types import Backbone, BackboneSpec, Decoding, FeatureKey, Features, ImageRecord

OF_THE_FILE = {CHANGED, MISSING, PERMISSION}
"""Reasons that say something about the file system, not about the bytes: tried again next time."""

THREADS = "FEATSTORE_THREADS"
_DIGITS = 4
"""More threads than these can count are a slip of the hand."""
PHASES = ("pixels", "forward", "write", "writer")
SHOWN = ("pixels", "forward")
"""Phases beside the bar: what does not fit a narrow terminal is in the summary."""


class Progress(Protocol):
    """What is told of progress: `featstore.extraction.bar.Bar` shows it."""

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
class Silence:
    """A progress bar that shows nothing."""

    def say(self, phase: str) -> None:
        """Do nothing."""

    def update(self, n: int = 1, backbone: BackboneSpec | None = None) -> None:
        """Do nothing."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Vectors that a backbone has computed, and the seconds that it took, waiting for nothing."""

    vectors: int = 0
    seconds: float = 0.0

    def __add__(self, other: Pace) -> Pace:
        """Both together."""
        return Pace(self.vectors + other.vectors, self.seconds + other.seconds)


@dataclass(slots=True)
class Tally:
    """What one pass did.

    Attributes
    ----------
    rows
        Vectors computed and committed.
    bad
        Images that did not decode, in order.
    left
        Vectors that other runs were computing, and that were left to them.
    seconds
        Wall time of the pass: waiting for pixels, in the forward pass, and waiting for the writer; and beside it
        the time that the writer was busy in the background.
    paces
        What each backbone did, by its name.
    peaks
        Peak resident bytes of each process that took part, by its name.
    """

    rows: int = 0
    bad: list[BadImage] = field(default_factory=list)
    left: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    paces: dict[str, Pace] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @property
    def idle(self) -> float:
        """Share of the pass in which no network was at work, 0 to 1."""
        wall = sum(self.seconds[phase] for phase in ("pixels", "forward", "write"))
        return 1 - self.seconds["forward"] / wall if wall else 0.0

    @property
    def throughput(self) -> dict[str, float]:
        """Vectors per second by phase, of those phases that took any time."""
        return {phase: round(self.rows / s, 1) for phase, s in self.seconds.items() if s}

    def so_far(self, vectors: int) -> str:
        """What a bar says of so many vectors: how many a second each phase made; the slowest holds up the rest."""
        return ", ".join(
            f"{phase} {vectors / s:.0f}/s" for phase, s in self.seconds.items() if s and phase in SHOWN
        )

    def paced(self, backbone: BackboneSpec, vectors: int, seconds: float) -> None:
        """Note a batch of a backbone."""
        self.paces[backbone.name] = self.paces.get(backbone.name, Pace()) + Pace(vectors, seconds)

    def add(self, other: Tally) -> None:
        """Add what another pass did; an image that is bad in both counts once, seconds of workers add up."""
        self.rows += other.rows
        self.left += other.left
        known = {bad.id for bad in self.bad}
        self.bad += [bad for bad in other.bad if bad.id not in known]
        for account, seconds in other.seconds.items():
            self.seconds[account] = self.seconds.get(account, 0.0) + seconds
        for name, pace in other.paces.items():
            self.paces[name] = self.paces.get(name, Pace()) + pace
        for process, peak in other.peaks.items():
            self.peaks[process] = max(peak, self.peaks.get(process, 0))


def run(
    wanted: Iterable[Block],
    records: Mapping[str, ImageRecord],
    decoding: Decoding,
    backbones: Mapping[BackboneSpec, Backbone],
    sink: Sink,
    progress: Progress,
) -> Tally:
    """Compute every vector of the blocks that are wanted, and commit it.

    A kill at any moment loses the vectors since the last committed step, at most one block of images in one view.

    Raises
    ------
    NonFiniteFeaturesError
        If a backbone returns NaN or infinity.
    StoreError
        If a shard cannot be written.
    """
    tally = Tally()
    pending: defaultdict[FeatureKey, list[Features]] = defaultdict(list)
    finished: list[str] = []
    embedded = 0
    (batch_size,) = {backbone.batch_size for backbone in backbones.values()}
    stream = prefetch(batches(wanted, records, decoding, batch_size, threads()))
    clock = _Clock(tally.seconds)
    with closing(stream), BackgroundWriter(sink) as writer:
        for item in stream:
            interruption.heed()
            clock.lap("pixels")
            if not isinstance(item, Batch):
                _set_aside(item, decoding, writer, tally)
                continue
            finished.extend(item.ids)
            for key in item.keys:
                started = time.perf_counter()
                pending[key].append(backbones[key.backbone].embed(item.pixels)[: len(item.ids)])
                tally.paced(key.backbone, len(item.ids), time.perf_counter() - started)
                progress.update(len(item.ids), key.backbone)
            clock.lap("forward")
            embedded += len(item.ids) * len(item.keys)
            progress.set_postfix_str(tally.so_far(embedded), refresh=False)
            if item.is_last:
                for key in item.keys:
                    portion = backbones[key.backbone].portion
                    writer.write(key, finished, np.concatenate(pending.pop(key)), portion)
                    tally.rows += len(finished)
                finished = []
            clock.lap("write")
    clock.lap("write")
    tally.seconds["writer"] = writer.seconds
    return tally


def threads() -> int:
    """Threads that make pixels: all cores, or a worker's share of them.

    Raises
    ------
    UsageError
        If ``FEATSTORE_THREADS`` is set and no number of threads.
    """
    wanted = os.environ.get(THREADS, "").strip()
    if not wanted:
        return os.cpu_count() or 1
    if not (wanted.isascii() and wanted.isdecimal() and int(wanted[:_DIGITS]) > 0 and len(wanted) <= _DIGITS):
        raise UsageError(
            f"{THREADS}={wanted[:40]!r} is no number of threads.",
            f"Set it to a whole number such as 4, or to nothing: unset {THREADS}",
        )
    return int(wanted)


def _set_aside(bad: BadImage, decoding: Decoding, sink: Sink, tally: Tally) -> None:
    tally.bad.append(bad)
    if bad.reason not in OF_THE_FILE:
        sink.record_bad_image(decoding, bad)


class _Clock:
    """Adds the time since the last lap to a named account."""

    def __init__(self, accounts: dict[str, float]) -> None:
        self._accounts = accounts
        self._last = time.perf_counter()

    def lap(self, account: str) -> None:
        now = time.perf_counter()
        self._accounts[account] += now - self._last
        self._last = now
