"""Facts of images and which are copies, kept beside the shards: an accelerator that can be deleted at any time.

One file holds the rows of one pass, is written once and named by the hash of its bytes, like a shard, so writers
cannot disturb each other; whatever does not verify is passed over, and those images are looked at again.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featstore import document
from featstore.document import parse
from featstore.errors import StoreError
from featstore.fingerprint import canonical_json, digest, digest_bytes, short_digest
from featstore.store import rooms
from featstore.store.commit import commit, commit_named_by_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import Decoding

log = logging.getLogger(__name__)
FOLDER = "facts"
SUFFIX = ".rows"
MAX_BYTES = 1 << 31
MAX_HEAD = 1 << 12
SEGMENTS = 16
"""More files than these are merged when they are read."""


def record_facts(root: Path, decoding: Decoding, revision: int, rows: NDArray[np.void]) -> Path | None:
    """Keep rows and return their file; a cache that cannot be written costs only the next look.

    Parameters
    ----------
    root
        The cache folder.
    decoding, revision
        How the pixels were made, and the version of the facts.
    rows
        ``(n,)`` of a structured type with the field ``id``, 32 bytes each.
    """
    head = canonical_json({"featstore": "facts", "fields": _layout(rows.dtype)}).encode()
    try:
        folder, data = _folder(root, decoding, revision), head + b"\n" + rows.tobytes()
        return commit_named_by_hash(root, folder, data, SUFFIX, MAX_BYTES)
    except StoreError as error:
        log.warning("facts of images are not kept: %s", error.cause)
        return None


def recorded_facts(root: Path, decoding: Decoding, revision: int, dtype: np.dtype[Any]) -> NDArray[np.void]:
    """All rows that `record_facts` kept and that can be believed; one per image."""
    folder = _folder(root, decoding, revision)
    pages = rooms.files(root, folder, "facts")
    parts = []
    for page in pages:
        try:
            parts.append(read(page, dtype))
        except (OSError, ValueError) as error:
            log.debug("facts in %s passed over: %s", page, error)
    rows = np.concatenate(parts) if parts else np.zeros(0, dtype)
    rows = rows[np.unique(rows["id"], return_index=True)[1]]
    if len(pages) > SEGMENTS and (merged := record_facts(root, decoding, revision, rows)):
        for page in set(pages) - {merged}:
            with contextlib.suppress(OSError):
                rooms.unlink(root, page)
    return rows


class CopiesNote(NamedTuple):
    """Which images are copies of each other.

    Attributes
    ----------
    pairs
        Two ids, how alike they are, and how that was made; the most alike first.
    crowded, left
        Images and pairs that were not looked at closely.
    """

    pairs: Sequence[tuple[str, str, float, str]]
    crowded: int = 0
    left: int = 0


def record_copies(root: Path, key: Mapping[str, Any], copies: CopiesNote) -> None:
    """Keep which images are copies of each other: their ids, how alike they are, and how that was made.

    Parameters
    ----------
    root
        The cache folder.
    key
        Everything that can change the answer, as JSON.
    copies
        What is known; of more pairs than fit into a document none are kept.
    """
    note = document.seal(
        {
            "key": dict(key),
            "pairs": [list(pair) for pair in copies.pairs],
            "crowded": copies.crowded,
            "left": copies.left,
        }
    )
    text = canonical_json(note).encode()
    if len(text) > document.LARGE:
        return
    try:
        commit(root, _copies_page(root, key), text, document.LARGE)
    except StoreError as error:
        log.warning("copies are not kept: %s", error.cause)


def recorded_copies(root: Path, key: Mapping[str, Any]) -> CopiesNote | None:
    """What `record_copies` kept under `key`; None where there is nothing that can be believed."""
    try:
        note = document.unseal(document.parse(rooms.read(root, _copies_page(root, key), document.LARGE)))
        pairs = [(str(a), str(b), float(value), str(how)) for a, b, value, how in note["pairs"]]
        copies = CopiesNote(pairs, int(note["crowded"]), int(note["left"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return copies if note.get("key") == key else None


def _copies_page(root: Path, key: Mapping[str, Any]) -> Path:
    return root / FOLDER / f"{digest(dict(key))}.json"


def read(page: Path, dtype: np.dtype[Any] | None = None) -> NDArray[np.void]:
    """Rows of one file; OSError or ValueError if it is none, or not of the type that is asked for."""
    data = rooms.read_file(page, MAX_BYTES)
    if digest_bytes(data) != page.stem:
        raise ValueError("its bytes are not those of its name")
    return decode(data, dtype)


def decode(data: bytes, dtype: np.dtype[Any] | None = None) -> NDArray[np.void]:
    """Rows of the bytes of one file; ValueError if they are none, or not of the type that is asked for."""
    end = data.find(b"\n", 0, MAX_HEAD)
    if end < 0:
        raise ValueError("it has no head")
    head = parse(data[:end])
    if not isinstance(head, dict) or head.get("featstore") != "facts":
        raise ValueError("it holds no facts")
    if dtype is None:
        return np.zeros(0, "S32")
    if head.get("fields") != _layout(dtype) or (len(data) - end - 1) % dtype.itemsize:
        raise ValueError("its rows are of another form")
    return np.frombuffer(data, dtype, offset=end + 1)


def _layout(dtype: np.dtype[Any]) -> str:
    return repr(dtype.descr)


def _folder(root: Path, decoding: Decoding, revision: int) -> Path:
    return root / FOLDER / short_digest({"decoding": asdict(decoding), "revision": revision})
