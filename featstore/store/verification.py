"""Is the cache whole: every shard, and everything beside the shards; and what to do about what is not."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore.errors import ShardCorruptError
from featstore.isolation.caller import LostError, call
from featstore.signatures import public
from featstore.store import header, layout, listing, shard, surroundings
from featstore.store.repair import Repair, mend
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

THREADS = 8
"""Beyond these, the disk or the one lock of the HDF5 library is the limit."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of `verify`.

    Attributes
    ----------
    shards, rows
        Good shards, and the vectors in them; `rows` is None after a fast look, which opens nothing.
    bad
        What is damaged, as (path, cause): shards, index segments, tables of bad images, pages of backbones.
    strangers
        Files in the cache that featstore did not put there; they do no harm and are left alone.
    temporaries
        What killed writers left, or living ones are writing: `featstore.gc` tells the two apart.
    quarantined
        Bad shards that were set aside before.
    repair
        What was done about `bad`; None if nothing was asked for.
    """

    shards: int
    rows: int | None
    bad: tuple[tuple[str, str], ...]
    strangers: tuple[str, ...] = ()
    temporaries: tuple[str, ...] = ()
    quarantined: int = 0
    repair: Repair | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


@public
def verify(
    cache: str | Path | None = None,
    *,
    fast: bool = False,
    repair: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> Verification:
    """Look at every file of a store; changes nothing unless told to repair.

    A shard must have the bytes of its name, pass the guard against hostile HDF5, have the shape that its key
    demands, finite values, and lie in the folder of its key.

    Parameters
    ----------
    cache
        The store's folder; default ``$FEATSTORE_CACHE`` or ``./cache``.
    fast
        Only names, sizes and headers: finds what is cut short, not what has rotten.
    repair
        Move bad shards to quarantine, put misplaced ones back, drop what can be rebuilt; see `Repair`.
    threads
        How many shards are hashed at a time; default one per core, at most 8.
    progress
        Show a bar on stderr if that is a terminal.

    Raises
    ------
    StoreError
        If something cannot be read or, in a repair, not be moved.
    """
    root = Path(cache) if cache is not None else default_cache()
    check = header.check if fast else partial(_rows, root=root)
    rows: list[int] = []
    bad: list[tuple[Path, str]] = []
    for path, outcome in _checked(check, list(listing.all_shards(root)), threads, progress=progress):
        if isinstance(outcome, ShardCorruptError):
            bad.append((path, outcome.cause))
        elif outcome is not None:
            rows.append(outcome)
    found = surroundings.survey(root)
    damaged = [*bad, *found.bad]
    return Verification(
        len(rows),
        None if fast else sum(rows),
        tuple((str(path), cause) for path, cause in damaged),
        tuple(map(str, found.strangers)),
        tuple(map(str, found.temporaries)),
        found.quarantined,
        mend(root, damaged) if repair else None,
    )


def _checked(
    check: Callable[[Path], int], paths: list[Path], threads: int | None, *, progress: bool
) -> Iterator[tuple[Path, int | ShardCorruptError | None]]:
    """Rows of each shard, or what is wrong with it; None for one that was compacted away meanwhile."""
    from tqdm import tqdm

    with ThreadPoolExecutor(threads or min(THREADS, os.cpu_count() or 1)) as pool:
        outcomes: Iterable[int | ShardCorruptError | None] = pool.map(partial(_outcome, check), paths)
        bar = tqdm(
            outcomes, total=len(paths), unit="shard", desc="verify", disable=None if progress else True
        )
        yield from zip(paths, bar, strict=True)


def _outcome(check: Callable[[Path], int], path: Path) -> int | ShardCorruptError | None:
    try:
        return check(path)
    except ShardCorruptError as error:
        return error
    except FileNotFoundError:
        return None
    except OSError as error:
        return ShardCorruptError(f"it cannot be read: {error.strerror}", "Check the disk and its rights.")


def _rows(path: Path, root: Path) -> int:
    """Rows of a good shard, which is opened by another process: the cache may be a stranger's."""
    try:
        rows, _ = call("featstore.store.verification:look", path, str(root))
    except LostError as error:
        raise ShardCorruptError(f"{error}", shard.REMEDY) from error
    return int(rows)


def look(path: Path, root: str) -> tuple[int, list[NDArray[Any]]]:
    """Rows of a shard; run by `featstore.isolation`.

    Raises
    ------
    ShardCorruptError
        If it is not good, or lies in the folder of another key.
    """
    found = shard.read(path)
    if layout.shard_folder(Path(root), found.key) != path.parent:
        raise ShardCorruptError("it lies in the folder of another key", shard.REMEDY)
    return len(found.ids), []
