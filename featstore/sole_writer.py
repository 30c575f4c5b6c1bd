"""One writer for a run folder: who comes second is refused at once, and the folder stays whole.

The lock is the kernel's, on a file in the folder, so that it ends with its owner, however that ends. Where a file
system knows no locks, nobody is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from featstore.errors import UsageError
from featstore.files import PRIVATE_FILE, PRIVATE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
"""File that is there while somebody writes to the folder; what a killed one left is nobody's."""
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_HELD = {errno.EWOULDBLOCK, errno.EACCES}
_OWNER = re.compile(rb"process \d+ on [\w.-]+")
_MOST_BYTES = 300
_ATTEMPTS = 100
"""Each fails only because another writer has ended in the very moment."""
_mine: ContextVar[frozenset[Path]] = ContextVar(
    "folders of which this call is the writer", default=frozenset()
)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Be the only one who writes to a folder, until the block ends; who is it already goes on.

    The folder is made if need be, for its owner alone, and taken away again if nothing came of it.

    Raises
    ------
    UsageError
        If another process, or another thread of this one, is writing to it.
    OSError
        If the folder cannot be made or written to.
    """
    place = folder.resolve()
    if place in _mine.get():
        yield
        return
    made, descriptor = _take(place, folder)
    token = _mine.set(_mine.get() | {place})
    try:
        yield
    finally:
        _mine.reset(token)
        with suppress(OSError):
            (place / LOCK).unlink()
        os.close(descriptor)
        for path in made:
            with suppress(OSError):  # it holds what was written
                path.rmdir()


def _take(place: Path, named: Path) -> tuple[list[Path], int]:
    """Lock the folder; return the folders that were made for it, the innermost first, and the open lock."""
    made = [path for path in (place, *place.parents) if not path.exists()]
    for _ in range(_ATTEMPTS):
        try:
            place.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            descriptor = os.open(place / LOCK, _OPEN, PRIVATE_FILE)
        except (FileNotFoundError, FileExistsError):  # taken away in between by a writer that had made it
            if place.exists() and not place.is_dir():
                raise
            continue
        if not _lock(descriptor):
            owner = _OWNER.fullmatch(os.pread(descriptor, _MOST_BYTES, 0))
            os.close(descriptor)
            raise _busy(named, owner)
        if _is_at(descriptor, place / LOCK):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return made, descriptor
        os.close(descriptor)  # its owner took the file away before this process had it
    raise _busy(named, None)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _busy(folder: Path, owner: re.Match[bytes] | None) -> UsageError:
    by = owner[0].decode() if owner else "another process"
    return UsageError(
        f"{folder} is being written to by {by}.", "Choose another --out, or wait until that has ended."
    )
