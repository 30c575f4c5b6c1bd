"""Memory for pictures that are being decoded: no more at once than a budget has room for."""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from featstore.images.extent import decoding_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_M_MMAP_THRESHOLD, _LARGE = -3, 1 << 20


class Room:
    """So many bytes; a picture that takes more has all of it for itself."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._turn = threading.Lock()
        self._change = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Wait for room, first come first served, and take it until the block ends."""
        with self._turn, self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + wanted <= self._limit)
            self._taken += wanted
        try:
            yield
        finally:
            with self._change:
                self._taken -= wanted
                self._change.notify_all()


_room: Room | None = None


@contextmanager
def bounded(limit: int | None) -> Iterator[None]:
    """Let pictures of this process share `limit` bytes until the block ends; None sets no bound."""
    global _room  # noqa: PLW0603  # memory is the process's
    if limit is not None:
        _return_what_is_free()
    before, _room = _room, None if limit is None else Room(limit)
    try:
        yield
    finally:
        _room = before


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Hold what decoding a file takes, if memory is bounded."""
    room = _room
    if room is None:
        yield
        return
    with room.taken(decoding_bytes(path)):
        yield


def _return_what_is_free() -> None:
    """Have glibc give large blocks back as they are freed: else each thread keeps those of its last pictures."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.malloc_trim(0)
