"""On the workers of a dask scheduler, on this machine or many; cache and images lie on a shared file system.

Futures of dask.distributed rather than joblib's dask backend: results come back one by one, so that progress is
shown; an error arrives as the exception it is; and only a bounded number of items wait at the scheduler.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from featstore.errors import UsageError, WorkerLostError
from featstore.processes import Place
from featstore.registry import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


T = TypeVar("T")
R = TypeVar("R")

WORKERS_EXPECTED = 8
AHEAD = 3
CONNECT_SECONDS = 20
_ADDRESS = re.compile(
    r"(?:[a-z][a-z0-9+]{0,15}://)?(?:[A-Za-z0-9_](?:[\w.-]{0,252})|\[[0-9A-Fa-f:.%\w]{2,60}\]):[0-9]{1,5}"
)
_LAST_PORT = 65535
FETCH_SECONDS = 30


class Dask:
    """The workers that a scheduler has, whoever started them.

    Parameters
    ----------
    workers
        How many are expected: small data sets are cut finely enough for so many.
    scheduler
        Address, such as ``tcp://10.0.0.1:8786``.
    """

    in_process: ClassVar[bool] = False

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if scheduler is None:
            raise UsageError(
                "The executor dask needs the address of a scheduler.",
                "Start one with `dask scheduler`, and say --scheduler tcp://HOST:8786.",
            )
        if not _is_address(scheduler):
            raise UsageError(
                f"{scheduler[:200]!r} is no address of a dask scheduler.",
                "Write it as `dask scheduler` prints it, such as tcp://10.0.0.1:8786.",
            )
        if workers is not None and workers < 1:
            raise UsageError(f"--workers is {workers}.", "Use 1 or more, or leave it out.")
        self.workers = workers or WORKERS_EXPECTED
        self._scheduler = scheduler

    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield ``work(item)`` as items are finished; see `featstore.types.Executor`.

        dask itself gives the item of a dead worker to another, up to its ``allowed-failures`` (3). Every beginning
        is therefore told to the scheduler, which passes it on before the answer: an item that began twice had a
        worker that died.
        """
        client = _connect(self._scheduler)
        pinned = _Pinned(work, f"featstore {secrets.token_hex(8)}")
        begun: list[object] = []
        try:
            client.subscribe_topic(pinned.topic, begun.append)
            ahead = AHEAD * max(self.workers, len(client.nthreads()))
            lost: list[T] = []
            yield from _answers(_finished(client, pinned, items, ahead), lost)
            any_died = bool(lost) or len(begun) > len(items)
            if (
                len(lost) > 1
            ):  # dask blames every item that waited on a dying worker: alone, the others are answered
                suspects, lost = lost, []
                yield from _answers(((client.submit(pinned, i, pure=False), i) for i in suspects), lost)
        finally:
            client.close()  # releases its futures: what is not running yet is cancelled
        if any_died:
            raise WorkerLostError.after(len(lost))


def _is_address(text: str) -> bool:
    """Whether it is worth waiting for an answer: one that is misspelt gives none, after a long while."""
    if text.startswith("inproc://"):
        return True
    return bool(_ADDRESS.fullmatch(text)) and int(text.rpartition(":")[2]) <= _LAST_PORT


def _finished(client: Any, work: Callable[[T], R], items: Sequence[T], ahead: int) -> Iterator[tuple[Any, T]]:  # noqa: ANN401
    """Futures of the items as they finish, with only so many waiting at the scheduler."""
    from distributed import as_completed

    waiting = iter(items)
    begun = {client.submit(work, item, pure=False): item for item in islice(waiting, ahead)}
    done = as_completed(begun, loop=client.loop)
    for future in done:
        for item in islice(waiting, 1):
            following = client.submit(work, item, pure=False)
            begun[following] = item
            done.add(following)
        yield future, begun.pop(future)


def _answers(futures: Iterable[tuple[Any, T]], lost: list[T]) -> Iterator[Any]:
    """Results of futures; the items of dead workers go to `lost`."""
    for future, item in futures:
        try:
            answer = _answer(future)
        except _LostError:
            lost.append(item)
        else:
            yield answer


class _LostError(Exception):
    """The workers that had an item are dead."""


def _answer(future: Any) -> Any:  # noqa: ANN401 - distributed is optional and has no types here
    """Wait for an item and fetch its result, small as it is: a worker that dies just then has it no longer."""
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        raise _LostError from error
    if error is not None:
        raise error
    try:
        return future.result(timeout=FETCH_SECONDS)
    except TimeoutError as late:
        raise _LostError from late


class _Pinned(Generic[T, R]):
    """Work with the threads of its dask worker, one item at a time per process, however many threads that has."""

    _turn: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, work: Callable[[T], R], topic: str) -> None:
        self.topic = topic
        self._work = work
        self._plugins = os.environ.get(PLUGINS)

    def __call__(self, item: T) -> R:
        from distributed import get_worker
        from distributed.utils import sync

        worker = get_worker()
        with self._turn:
            sync(
                worker.loop, worker.scheduler.log_event, topic=self.topic, msg="begun"
            )  # has arrived, if it dies
            if self._plugins:
                os.environ[PLUGINS] = self._plugins
            for name, value in Place(worker.state.nthreads).environment().items():
                os.environ.setdefault(name, value)
            return self._work(item)


def _connect(address: str) -> Any:  # noqa: ANN401 - distributed is optional and has no types here
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "The executor dask needs the package distributed.", "pip install 'featstore[dask]'"
        ) from error
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # a protocol that is not installed, or without its certificates, is anything
        raise UsageError(
            f"No dask scheduler answers at {address}: {' '.join(str(error).split())[:200] or type(error).__name__}",
            "Check the address that `dask scheduler` printed, and that this machine may reach it.",
        ) from error
