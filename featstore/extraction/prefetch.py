"""Work one step ahead: the next batch is made while the current one is embedded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

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
