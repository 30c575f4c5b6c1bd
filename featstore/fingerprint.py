"""Canonical JSON and SHA-256: how a value becomes a name."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SHORT = 8


def canonical_json(value: Any) -> str:  # noqa: ANN401
    """Serialise `value` to the one JSON text that stands for it: sorted keys, no spaces, ASCII, finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:  # noqa: ANN401
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value).encode())


def short_digest(value: Any) -> str:  # noqa: ANN401
    """Return the first 8 hex digits of `digest`: enough to tell folders apart, never trusted alone."""
    return digest(value)[:SHORT]


def digest_bytes(data: bytes) -> str:
    """SHA-256 (64 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
