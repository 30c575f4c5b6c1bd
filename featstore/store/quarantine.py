"""What was set aside: shards that do not verify, and images that do not decode. Never deleted silently."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from featstore.fingerprint import canonical_json, short_digest
from featstore.store.commit import commit, make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from featstore.types import Decoding


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image whose bytes do not decode.

    Attributes
    ----------
    id
        Image id, 64 hex digits.
    reason
        Short code, such as ``truncated``.
    detail
        What exactly was met; holds no path.
    """

    id: str
    reason: str
    detail: str


def set_aside_shard(folder: Path, shard: Path, cause: str) -> Path:
    """Move a bad shard into `folder`, with its cause beside it, and return its new path."""
    target = folder / "shards" / f"{shard.stem}-{short_digest(str(shard))}{shard.suffix}"
    make_folder(target.parent)
    shard.rename(target)
    commit(target.with_suffix(".json"), canonical_json({"from": str(shard), "cause": cause}).encode())
    return target


def record_bad_image(folder: Path, decoding: Decoding, bad: BadImage) -> None:
    """Enter one image in the table: one small file a row, so that writers cannot disturb each other."""
    target = _table(folder, decoding) / f"{bad.id}.json"
    if not target.exists():
        commit(target, canonical_json(asdict(bad)).encode())


def bad_images(folder: Path, decoding: Decoding) -> dict[str, BadImage]:
    """Return the table of bad images under one decoding, by image id."""
    rows = (json.loads(p.read_text("utf-8")) for p in sorted(_table(folder, decoding).glob("*.json")))
    return {row["id"]: BadImage(**row) for row in rows}


def check(path: Path) -> None:
    """Raise ValueError, TypeError or OSError if a file is no row of the table of bad images."""
    if BadImage(**json.loads(path.read_bytes())).id != path.stem:
        raise ValueError("it speaks of another image than its name")


def _table(folder: Path, decoding: Decoding) -> Path:
    return folder / "images" / short_digest(asdict(decoding))
