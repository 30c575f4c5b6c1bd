"""Put bytes on disk whole or not at all (law 3)."""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING

from featstore.errors import StoreError
from featstore.fingerprint import digest_bytes
from featstore.store import rooms
from featstore.store.rooms import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = "Check that the cache folder is writable, or choose another with --cache."


def commit_named_by_hash(
    root: Path, folder: Path, data: bytes, suffix: str, limit: int | None = None
) -> Path:
    """Write `data` to ``folder/<sha256><suffix>`` and return that path; nothing to do where it exists."""
    target = folder / f"{digest_bytes(data)}{suffix}"
    if not (rooms.enter(root, folder) and rooms.is_file(target)):
        commit(root, target, data, limit)
    return target


def commit(root: Path, target: Path, data: bytes, limit: int | None = None) -> None:
    """Write `data` to `target`: any reader at any time, power cuts included, sees all of it or nothing.

    Parameters
    ----------
    root
        The cache folder.
    target
        One of `rooms.FILES` in it.
    data
        What it shall hold; its rights are `rooms.file_mode`.
    limit
        Bytes that its readers take; None where they take any file that is written here.

    Raises
    ------
    StoreError
        If the disk is full, read-only, or fails; as for `rooms.make`; or if nobody would read so much again.
    """
    if limit is not None and len(data) > limit:
        raise StoreError(
            f"{target} would have {len(data):,} bytes, and at most {limit:,} are read back.",
            "Split the data set.",
        )
    try:
        rooms.make(root, target.parent)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            _write_through(root, temporary, data)
            rooms.rename(root, temporary, target)
        except BaseException:
            rooms.unlink(root, temporary)
            raise
        rooms.sync(target.parent)
    except StoreError:
        raise
    except OSError as error:
        raise _store_error(error, target, len(data)) from error


def require_writable(root: Path) -> None:
    """Make sure, before hours of work, that the cache folder is there and can be written to.

    Raises
    ------
    StoreError
        If it cannot.
    """
    probe = root / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        rooms.make(root, root)
        os.close(rooms.create(root, probe))
        rooms.unlink(root, probe)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"Cannot write to {root}: {error.strerror or error}", ELSEWHERE) from error


def _write_through(root: Path, path: Path, data: bytes) -> None:
    with os.fdopen(rooms.create(root, path), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _store_error(error: OSError, target: Path, size: int) -> StoreError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    remedy = (
        f"Free at least {size:,} bytes there and run the same command again: it goes on where it stopped."
        if full
        else ELSEWHERE
    )
    return StoreError(f"Cannot write {size:,} bytes to {target}: {error.strerror or error}", remedy)
