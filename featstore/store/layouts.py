"""Which layout of processes is fastest on which machine: notes beside the shards, for a default alone."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from featstore import document
from featstore.fingerprint import canonical_json
from featstore.store import rooms
from featstore.store.commit import commit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def record_layouts(
    root: Path, machine: str, backbone: str, precision: str, speeds: Mapping[int, float]
) -> None:
    """Note images per second by number of processes, in place of an earlier note.

    Raises
    ------
    StoreError
        If the cache folder cannot be written.
    """
    note = {str(processes): speed for processes, speed in speeds.items()}
    commit(root, _page(root, machine, backbone, precision), canonical_json(note).encode())


def recorded_layouts(root: Path, machine: str, backbone: str, precision: str) -> dict[int, float]:
    """Return images per second by number of processes; empty where nothing sound was noted."""
    try:
        note = document.parse(rooms.read(root, _page(root, machine, backbone, precision), document.SMALL))
        speeds = {int(processes): float(speed) for processes, speed in note.items()}
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return {}
    sound = all(processes >= 1 and isfinite(speed) and speed > 0 for processes, speed in speeds.items())
    return speeds if sound else {}


def _page(root: Path, machine: str, backbone: str, precision: str) -> Path:
    return root / "layouts" / machine / f"{backbone}-{precision}.json"
