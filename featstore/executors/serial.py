"""In this process, one item after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from featstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


T = TypeVar("T")
R = TypeVar("R")


class Serial:
    """No process but this one; the items are not pickled."""

    in_process: ClassVar[bool] = True

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if scheduler is not None or workers not in {None, 1}:
            raise UsageError(
                "The executor serial is one process: it takes neither workers nor a scheduler.",
                "Say --executor processes --workers N, or --executor dask --scheduler ADDRESS.",
            )
        self.workers = 1

    def run(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield ``work(item)`` for each item, in order."""
        return map(work, items)
