"""How long a vector took on which machine: notes beside the shards, for estimates alone."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING

from featstore.errors import StoreError
from featstore.fingerprint import canonical_json, digest
from featstore.store.commit import commit

if TYPE_CHECKING:
    from pathlib import Path

    from featstore.types import BackboneSpec

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
    try:
        commit(_page(root, machine, backbone), canonical_json(asdict(rate)).encode())
    except StoreError as error:
        log.debug("rate not recorded: %s", error.cause)


def recorded_rate(root: Path, machine: str, backbone: BackboneSpec) -> Rate | None:
    """Return the latest rate of a backbone on a machine, or None where there is no note that makes sense."""
    try:
        rate = Rate(**json.loads(_page(root, machine, backbone).read_text("utf-8")))
        sound = isfinite(rate.core_seconds) and rate.core_seconds > 0 <= rate.load_seconds
    except (OSError, ValueError, TypeError):
        return None
    return rate if sound else None


def _page(root: Path, machine: str, backbone: BackboneSpec) -> Path:
    return root / "rates" / machine / f"{backbone.name}@{digest(asdict(backbone))[:8]}.json"
