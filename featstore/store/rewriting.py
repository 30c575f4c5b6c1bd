"""Replacing shards: the new one is read back before an old one goes, so that a crash leaves both or one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore.errors import StoreError
from featstore.store import rooms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from featstore.store.store import Store
    from featstore.types import FeatureKey, Features


def write_checked(
    store: Store, key: FeatureKey, ids: Sequence[str], features: Features, batch_size: int | None
) -> Path:
    """Commit rows as one new shard, and read them back.

    Raises
    ------
    StoreError
        If they do not come back as they went; nothing else was touched.
    """
    path = store.write(key, ids, features, batch_size)
    found = store.load(path)
    same = found is not None and (found.key, found.ids, found.batch_size) == (key, tuple(ids), batch_size)
    if found is None or not same or found.features.tobytes() != features.tobytes():
        raise StoreError(
            f"{path} did not come back as it was written; the old shards are untouched.", "Check the disk."
        )
    return path


def remove(root: Path, paths: Iterable[Path], keep: Collection[Path] = ()) -> None:
    """Delete shards in order of name, but those in `keep`.

    The order matters where two shards hold unequal vectors of one image: a reader takes the last by name, so that
    what it reads never changes on the way.
    """
    for path in sorted(paths):
        if path not in keep:
            rooms.unlink(root, path)
            rooms.sync(path.parent)
