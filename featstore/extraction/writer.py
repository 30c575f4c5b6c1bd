"""Commit shards while the next batch is embedded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from featstore.store.quarantine import BadImage
    from featstore.types import Decoding, FeatureKey, Features

DEPTH = 8
"""Shards that may wait to be written; bounds memory where the disk is slower than the networks."""


class Sink(Protocol):
    """Where finished rows go: a `Store`, or memory."""

    def write(self, key: FeatureKey, ids: Sequence[str], features: Features) -> object:
        """Take rows ``(len(ids), dimension)`` float32."""
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

    def write(self, key: FeatureKey, ids: Sequence[str], features: Features) -> None:
        """Queue rows, waiting while `DEPTH` shards wait already."""
        self._raise_errors(DEPTH - 1)
        self._waiting.append(self._pool.submit(self._timed_write, key, tuple(ids), features))

    def record_bad_image(self, decoding: Decoding, bad: BadImage) -> None:
        """Pass an image on; it is rare and small."""
        self._sink.record_bad_image(decoding, bad)

    def _timed_write(self, key: FeatureKey, ids: Sequence[str], features: Features) -> None:
        started = perf_counter()
        self._sink.write(key, ids, features)
        self.seconds += perf_counter() - started

    def _raise_errors(self, allowed: int) -> None:
        while self._waiting and (len(self._waiting) > allowed or self._waiting[0].done()):
            self._waiting.popleft().result()
