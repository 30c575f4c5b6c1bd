"""What was set aside: shards that do not verify, and images that do not decode. Never deleted silently."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from featstore import document
from featstore.document import DocumentError
from featstore.fingerprint import canonical_json, short_digest
from featstore.store.commit import commit, make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from featstore.types import Decoding

log = logging.getLogger(__name__)
DIGEST = 64
"""Characters of a shard's name; one that a stranger gave may leave no room for more."""


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
    """Move a bad shard into `folder`, with its cause beside it, and return its new path.

    The note says where in the cache it lay; where the cache lies is nobody's business who is sent the note.
    """
    origin = shard.relative_to(folder.parent).as_posix()
    target = folder / "shards" / f"{shard.stem[:DIGEST]}-{short_digest(origin)}{shard.suffix}"
    make_folder(target.parent)
    shard.rename(target)
    commit(target.with_suffix(".json"), canonical_json({"from": origin, "cause": cause}).encode())
    return target


def record_bad_image(folder: Path, decoding: Decoding, bad: BadImage) -> None:
    """Enter one image in the table: one small file a row, so that writers cannot disturb each other."""
    target = _table(folder, decoding) / f"{bad.id}.json"
    if not target.exists():
        commit(target, canonical_json(document.seal(asdict(bad))).encode())


def bad_images(folder: Path, decoding: Decoding) -> dict[str, BadImage]:
    """Return the table of bad images under one decoding, by image id.

    A damaged row says nothing: it is taken out, and the next extraction looks at that image again.
    """
    table, damaged = {}, 0
    for page in sorted(_table(folder, decoding).glob("*.json")):
        try:
            bad = read(page)
        except (OSError, DocumentError) as error:
            log.debug("row %s of the quarantine table dropped: %s", page, error)
            damaged += 1
            with contextlib.suppress(OSError):
                page.unlink()
        else:
            table[bad.id] = bad
    if damaged:
        log.warning("%d damaged rows of the quarantine table dropped: those images are tried again", damaged)
    return table


def read(page: Path) -> BadImage:
    """Read one row of the table; OSError or DocumentError if the file is none."""
    row = document.unseal(document.read(page))
    if set(row) != {field.name for field in fields(BadImage)} or not all(
        isinstance(v, str) for v in row.values()
    ):
        raise DocumentError("it is no row of the table")
    if row["id"] != page.stem:
        raise DocumentError("it speaks of another image than its name")
    return BadImage(**row)


def _table(folder: Path, decoding: Decoding) -> Path:
    return folder / "images" / short_digest(asdict(decoding))
