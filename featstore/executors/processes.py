"""In N processes of this machine; one that dies takes nothing with it but its item.

joblib's loky starts the processes, since it needs no ``if __name__ == "__main__"`` in the user's script. Each
worker is a pool of its own: its threads and its GPU are set before it starts, and its death breaks no other.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from featstore import processes
from featstore.errors import UsageError, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


T = TypeVar("T")
R = TypeVar("R")


class Processes:
    """N worker processes that live for one `run`."""

    in_process: ClassVar[bool] = False

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if scheduler is not None:
            raise UsageError(
                "The executor processes has no scheduler.", "Say --executor dask --scheduler ADDRESS."
            )
        if workers is not None and workers < 1:
            raise UsageError(f"--workers is {workers}.", "Use 1 or more, or leave it out.")
        devices, cores = processes.visible_devices(os.environ), processes.available_cores()
        self.workers = workers or processes.default_workers(cores, devices)
        self._places = processes.places(self.workers, cores, devices)

    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield ``work(item)`` as items are finished; see `featstore.types.Executor`."""
        waiting, lost = deque(items), 0
        pools = {place: _pool(self._places[place]) for place in range(min(self.workers, len(items)))}
        running: dict[Future[R], int] = {}
        idle = set(pools)
        try:
            while waiting or running:
                while waiting and idle:
                    place = idle.pop()
                    running[pools[place].submit(work, waiting.popleft())] = place
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place = running.pop(future)
                    idle.add(place)
                    if isinstance(future.exception(), BrokenProcessPool):
                        lost += 1
                        _end(pools[place])
                        pools[place] = _pool(self._places[place])
                        continue
                    yield future.result()
        finally:
            for pool in pools.values():
                _end(pool)
        if lost:
            raise WorkerLostError.after(lost)


def _pool(place: processes.Place) -> Any:  # noqa: ANN401 - loky's class has no types
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(
        1, initializer=_serve_the_parent, initargs=processes.parent_info(), env=place.environment()
    )


def _end(pool: Any) -> None:  # noqa: ANN401
    pool.shutdown(wait=True, kill_workers=True)


def _serve_the_parent(parent: int, thread_stays: bool) -> None:
    """End with the parent and not before: Ctrl-C, which reaches every process of a terminal, is for it to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.end_with_parent(parent, thread_stays)
