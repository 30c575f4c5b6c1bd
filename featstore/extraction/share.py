"""The images of one job of an array: the same share for the same job, whoever asks and whatever is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from featstore.errors import UsageError

if TYPE_CHECKING:
    from featstore.images.manifest import Manifest

DIGITS = 16


def share(manifest: Manifest, num_workers: int, worker_index: int) -> Manifest:
    """Keep the images whose id, a hash, falls to worker `worker_index` (from 0) of `num_workers`.

    The shares are disjoint and together complete, so that jobs need not know of each other. Files without an
    id, which could not even be read, are reported by worker 0.

    Raises
    ------
    UsageError
        If there is no such worker.
    """
    if not 0 <= worker_index < num_workers:
        raise UsageError(
            f"There is no worker {worker_index} among {num_workers}.",
            "Workers are numbered from 0: --num-workers 4 has --worker-index 0 to 3.",
        )
    if num_workers == 1:
        return manifest
    return replace(
        manifest,
        records=tuple(r for r in manifest.records if _owner(r.id, num_workers) == worker_index),
        unreadable=tuple(q for q in manifest.unreadable if _owner(q.id, num_workers) == worker_index),
        copies=tuple(r for r in manifest.copies if _owner(r.id, num_workers) == worker_index),
    )


def _owner(image: str | None, num_workers: int) -> int:
    return 0 if image is None else int(image[:DIGITS], 16) % num_workers
