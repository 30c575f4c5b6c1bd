"""Files that strangers laid out, read without waiting or overflowing; files that only their owner may read."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
# A pipe would keep its reader waiting for a writer that never comes; this flag makes opening it return at once.
_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class UnfitFileError(OSError):
    """A path that holds something else than a file of acceptable size; `strerror` says what."""


def open_regular(path: Path, *, follow_links: bool = True) -> BufferedReader:
    """Open a file for reading; what is no file, perhaps behind a link, is refused without waiting for it.

    The look is at the open file, so that nothing can be put in its place between looking and opening.

    Raises
    ------
    UnfitFileError
        If the path holds a folder, pipe, socket or device; or a link, where none are followed.
    OSError
        If it cannot be opened.
    """
    try:
        descriptor = os.open(path, _AT_ONCE if follow_links else _AT_ONCE | _NO_LINK)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise UnfitFileError(errno.ELOOP, "it is a link", str(path)) from error
        if error.errno in {errno.ENXIO, errno.EISDIR}:  # a socket; a folder, on some systems
            raise _no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int, *, follow_links: bool = True) -> bytes:
    """All bytes of a file, if they are at most `limit`; what is longer is not read at all.

    Raises
    ------
    UnfitFileError
        If the path holds a folder, pipe, socket or device, more than `limit` bytes, or a link that is not followed.
    OSError
        If it cannot be read.
    """
    with open_regular(path, follow_links=follow_links) as file:
        return read_bounded(file, path, limit)


def read_bounded(file: BufferedReader, path: Path, limit: int) -> bytes:
    """All bytes of an open file; see `read_regular`."""
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise UnfitFileError(errno.EFBIG, f"it has {size:,} bytes, more than {limit:,}", str(path))
    return file.read(size)


def write_private(path: Path, data: bytes) -> None:
    """Put a file in its place at once, readable for its owner alone."""
    draft = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _no_file(path: Path) -> UnfitFileError:
    return UnfitFileError(errno.EINVAL, "it is a folder, pipe, socket or device", str(path))
