"""Which shard files there are, while others write and compact."""

from __future__ import annotations

import contextlib
from itertools import count
from typing import TYPE_CHECKING

from featstore.store import layout, rooms

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def folders(root: Path) -> list[Path]:
    """Folders of a store that hold the shards of one feature key each, in order of name."""
    found = [layout.features_folder(root)]
    for depth in (1, 2, 3):
        found = [inner for folder in found for inner in rooms.rooms(root, folder, depth, "shard")]
    return sorted(found)


def shards(folder: Path) -> list[Path]:
    """Shard files of one folder, in order of name; other files are passed over."""
    return rooms.files(layout.root_of(folder), folder, "shard")


def settled(folder: Path) -> Iterator[Path]:
    """Shard files of one folder, listed again until a second look brings nothing new.

    Compaction commits the new form of a row before the old one goes. Whoever lists, reads, and lists again meets
    one of the two, even if both moves fall into the time of one listing.
    """
    seen: set[Path] = set()
    for look in count():
        fresh = [path for path in shards(folder) if path not in seen]
        if look and not fresh:
            return
        seen.update(fresh)
        yield from fresh


def stats(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Each file with its size and times; one that is gone by now is passed over."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield path, path.lstat()


def all_shards(root: Path) -> Iterator[Path]:
    """Every shard file of a store, folder by folder."""
    for folder in folders(root):
        yield from shards(folder)
