"""Facts of every image of a data set: taken from the cache, else from the files, and kept for the next command."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from featstore.errors import BadImageError
from featstore.extraction.engine import threads
from featstore.fingerprint import digest
from featstore.images.facts import FACT, FACTS_REVISION, look, notes_of, plausible
from featstore.images.near_copies import find_copies
from featstore.images.notes import findings_of_notes
from featstore.images.room import room_for
from featstore.store.facts import record_copies, record_facts, recorded_copies, recorded_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.findings import Finding
    from featstore.types import Decoding, ImageRecord, Pixels

    Seen = tuple[NDArray[np.void], Pixels] | BadImageError

ID_BYTES = 32
COPIES_REVISION = 1
"""Raised when copies are found otherwise."""


class Copy(NamedTuple):
    """Ids of two images that show the same picture, how alike they are (1 for equal), and in what way."""

    first: str
    second: str
    similarity: float
    how: str


@dataclass(frozen=True, slots=True, eq=False)
class FactTable:
    """What the images of a data set show without a network.

    Attributes
    ----------
    records
        The images whose facts are known, in the order of the data set.
    rows
        ``(len(records),)`` of dtype `featstore.images.facts.FACT`.
    bad
        The others, by id: reason and detail.
    miniatures
        By id, of those that were read just now. They are pictures of patients, and nowhere kept.
    """

    records: tuple[ImageRecord, ...]
    rows: NDArray[np.void]
    bad: Mapping[str, tuple[str, str]]
    miniatures: Mapping[str, Pixels]


def image_facts(
    records: Sequence[ImageRecord], decoding: Decoding, cache: Path | None = None, *, progress: bool = False
) -> FactTable:
    """Look at every image once, and at none whose facts are in the cache.

    Parameters
    ----------
    records
        Images; their files must be where the records say, unless their facts are known.
    decoding
        How bytes become pixels.
    cache
        Where facts are kept; None keeps none.
    progress
        Show a bar on stderr while files are read.
    """
    known = {}
    if cache is not None:
        kept = recorded_facts(cache, decoding, FACTS_REVISION, FACT)
        known = _by_id(kept[plausible(kept)])
    missing = [record for record in records if bytes.fromhex(record.id) not in known]
    bad: dict[str, tuple[str, str]] = {}
    fresh, miniatures = [], {}
    for record, seen in _looks(missing, decoding, progress=progress):
        if isinstance(seen, BadImageError):
            bad[record.id] = seen.reason, seen.detail
        else:
            row, miniatures[record.id] = seen
            fresh.append(row)
    if fresh:
        rows = np.array(fresh, FACT)
        known |= _by_id(rows)
        if cache is not None:
            record_facts(cache, decoding, FACTS_REVISION, rows)
    good = tuple(record for record in records if record.id not in bad)
    table = np.array([known[bytes.fromhex(record.id)] for record in good], FACT)
    return FactTable(good, table, bad, miniatures)


def image_copies(
    facts: FactTable,
    groups: Sequence[str],
    decoding: Decoding,
    cache: Path | None = None,
    *,
    progress: bool = False,
) -> tuple[Copy, ...]:
    """Find pairs of images of different groups that show the same picture, once for each data set.

    Parameters
    ----------
    facts
        The images.
    groups
        ``(n,)`` patient (group) of each of them.
    decoding, cache, progress
        As for `image_facts`. What is kept are ids, never a picture.

    Returns
    -------
    The most alike first.
    """
    ids = [record.id for record in facts.records]
    sides = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    key = {
        "revision": COPIES_REVISION,
        "decoding": digest(asdict(decoding)),
        "images": digest([[image, sides[group]] for image, group in zip(ids, groups, strict=True)]),
    }
    known = None if cache is None else recorded_copies(cache, key)
    if known is None or not {image for pair in known for image in pair[:2]} <= set(ids):
        known = _find_copies(facts, groups, decoding, progress=progress)
        if cache is not None:
            record_copies(cache, key, known)
    return tuple(Copy(*pair) for pair in known)


def _find_copies(
    facts: FactTable, groups: Sequence[str], decoding: Decoding, *, progress: bool
) -> list[tuple[str, str, float, str]]:
    """Look at those images again whose miniatures are not at hand, and compare all with all."""
    small = dict(facts.miniatures)
    missing = [record for record in facts.records if record.id not in small]
    for record, seen in _looks(missing, decoding, progress=progress):
        if not isinstance(seen, BadImageError):
            small[record.id] = seen[1]
    rows = [row for row, record in enumerate(facts.records) if record.id in small]
    if len(rows) < 2:  # noqa: PLR2004
        return []
    pairs = find_copies(
        np.stack([small[facts.records[row].id] for row in rows]),
        facts.rows["pixels"][rows],
        [groups[row] for row in rows],
    )
    ids = [facts.records[row].id for row in rows]
    return [(ids[pair.first], ids[pair.second], round(pair.similarity, 4), pair.how) for pair in pairs]


def _looks(
    records: Sequence[ImageRecord], decoding: Decoding, *, progress: bool
) -> Iterator[tuple[ImageRecord, Seen]]:
    from tqdm import tqdm

    with ThreadPoolExecutor(threads()) as pool:
        found = pool.map(partial(_look, decoding=decoding), records)
        hidden = not (progress and records)
        yield from zip(records, tqdm(found, "look", len(records), disable=hidden, unit="img"), strict=True)


def notes_found(facts: FactTable) -> tuple[Finding, ...]:
    """What decoding noted about the images, counted."""
    noted = [(record.path, notes_of(row)) for record, row in zip(facts.records, facts.rows, strict=True)]
    return findings_of_notes(noted)


def _look(record: ImageRecord, decoding: Decoding) -> Seen:
    try:
        with room_for(record.path):
            return look(record, decoding)
    except BadImageError as error:
        return error


def _by_id(rows: NDArray[np.void]) -> dict[bytes, NDArray[np.void]]:
    """Rows by id; NumPy drops the zeros at the end of bytes, which belong to an id."""
    return {bytes(row["id"]).ljust(ID_BYTES, b"\0"): row for row in rows}
