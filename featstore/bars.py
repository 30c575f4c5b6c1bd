"""A bar on stderr for work on a data set that no command asked for by name: listing its files, hashing them."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Item = TypeVar("Item")

FEW = 32
"""Items that are done before anyone could read a bar."""
DELAY = 0.5
"""Seconds after which a bar appears."""
_shown: ContextVar[bool] = ContextVar("shown", default=False)


@contextmanager
def showing_bars(*, wanted: bool) -> Iterator[None]:
    """Show bars within; what was asked for outside stays."""
    before = _shown.set(wanted or _shown.get())
    try:
        yield
    finally:
        _shown.reset(before)


def over(items: Iterable[Item], phase: str, unit: str, total: int) -> Iterator[Item]:
    """Items as they come, `total` of them, under a bar if bars are wanted and the items are many."""
    if total < FEW or not _shown.get():
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=phase, unit=unit, total=total, delay=DELAY, leave=False)
