"""Put bytes on disk whole or not at all (law 3)."""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING

from featstore.errors import StoreError
from featstore.fingerprint import digest_bytes

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
ELSEWHERE = "Check that the cache folder is writable, or choose another with --cache."


def commit_named_by_hash(folder: Path, data: bytes, suffix: str) -> Path:
    """Write `data` to ``folder/<sha256><suffix>`` and return that path; nothing to do where it exists."""
    target = folder / f"{digest_bytes(data)}{suffix}"
    if not target.exists():
        commit(target, data)
    return target


def commit(target: Path, data: bytes) -> None:
    """Write `data` to `target`: any reader at any time, power cuts included, sees all of it or nothing.

    Raises
    ------
    StoreError
        If the disk is full, read-only, or fails.
    """
    try:
        make_folder(target.parent)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            _write_through(temporary, data)
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise _store_error(error, target, len(data)) from error


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents, each made durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def require_writable(folder: Path) -> None:
    """Make sure, before hours of work, that `folder` is there and can be written to.

    Raises
    ------
    StoreError
        If it cannot.
    """
    probe = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        make_folder(folder)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise StoreError(f"Cannot write to {folder}: {error.strerror or error}", ELSEWHERE) from error


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_error(error: OSError, target: Path, size: int) -> StoreError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    remedy = (
        f"Free at least {size:,} bytes there and run the same command again: it goes on where it stopped."
        if full
        else ELSEWHERE
    )
    return StoreError(f"Cannot write {size:,} bytes to {target}: {error.strerror or error}", remedy)
