"""How long a vector took on which machine: notes beside the shards, for estimates alone."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING

from featstore import document
from featstore.errors import StoreError
from featstore.fingerprint import canonical_json, digest
from featstore.store import rooms
from featstore.store.commit import commit
from featstore.types import BackboneSpec

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rate:
    """What one backbone costs on one machine.

    Attributes
    ----------
    core_seconds
        Seconds per vector times cores in use, from file to shard.
    load_seconds
        Seconds to build the network and load its weights.
    """

    core_seconds: float
    load_seconds: float


def record_rate(root: Path, machine: str, backbone: BackboneSpec, rate: Rate) -> None:
    """Note the latest rate of a backbone; a folder that cannot be written costs only the estimate."""
    note = {"backbone": asdict(backbone), **asdict(rate)}
    try:
        page = _folder(root, machine) / f"{digest(asdict(backbone))}.json"
        commit(root, page, canonical_json(note).encode())
    except StoreError as error:
        log.debug("rate not recorded: %s", error.cause)


def recorded_rates(root: Path, machine: str) -> dict[BackboneSpec, Rate]:
    """Return the latest rate of every backbone that a machine has run; notes that make no sense are passed over."""
    notes = (_read(page) for page in rooms.files(root, _folder(root, machine), "rate"))
    return dict(note for note in notes if note is not None)


def _read(page: Path) -> tuple[BackboneSpec, Rate] | None:
    try:
        note = document.parse(rooms.read_file(page, document.SMALL))
        backbone = BackboneSpec.from_json(note.pop("backbone"))
        rate = Rate(**note)
        sound = all(isinstance(seconds, int | float) and isfinite(seconds) for seconds in note.values())
        sound = sound and rate.core_seconds > 0 <= rate.load_seconds
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return (backbone, rate) if sound else None


def _folder(root: Path, machine: str) -> Path:
    return root / "rates" / machine
