"""Silence around Pillow, without changing anything for anyone else."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PILLOW = r"PIL(\.|$)"
_lock = threading.Lock()
_native = threading.Lock()
_inside = 0
_filter: Any = None

# Without a handler Python prints Pillow's rare log records to stderr; a handler of the application still gets them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def no_warnings() -> Iterator[None]:
    """Ignore the warnings of Pillow's modules while any thread is inside.

    `warnings.catch_warnings` saves and restores the filters of the whole process, so two threads that overlap
    can leave the wrong ones behind; here the first one in adds one filter and the last one out removes it.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


@contextmanager
def no_native_messages() -> Iterator[None]:
    """Point the stderr of the process at the null device, one thread at a time.

    libtiff prints to it from C when data is damaged. What another thread writes to stderr in these
    milliseconds is lost, so this is for compressed TIFF only.
    """
    with _native:
        try:
            saved = os.dup(2)
        except OSError:  # a service without stderr
            yield
            return
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _enter() -> None:
    global _inside, _filter  # noqa: PLW0603 - warning filters are global themselves
    with _lock:
        _inside += 1
        if _inside == 1 or _filter not in warnings.filters:
            warnings.filterwarnings("ignore", module=_PILLOW)
            _filter = warnings.filters[0]


def _leave() -> None:
    global _inside  # noqa: PLW0603
    with _lock:
        _inside -= 1
        if not _inside:
            with suppress(ValueError, AttributeError):  # somebody else has replaced the filters meanwhile
                warnings.filters.remove(_filter)  # type: ignore[attr-defined]
