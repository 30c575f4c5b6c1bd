"""Facts of every image of a data set: taken from the cache, else from the files, and kept for the next command."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import BadImageError
from featstore.extraction.engine import threads
from featstore.images.facts import FACT, FACTS_REVISION, look, notes_of
from featstore.images.notes import findings_of_notes
from featstore.store.facts import record_facts, recorded_facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.findings import Finding
    from featstore.types import Decoding, ImageRecord

ID_BYTES = 32


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
    """

    records: tuple[ImageRecord, ...]
    rows: NDArray[np.void]
    bad: Mapping[str, tuple[str, str]]


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
    from tqdm import tqdm

    known = {} if cache is None else _by_id(recorded_facts(cache, decoding, FACTS_REVISION, FACT))
    missing = [record for record in records if bytes.fromhex(record.id) not in known]
    bad: dict[str, tuple[str, str]] = {}
    fresh = []
    with ThreadPoolExecutor(threads()) as pool:
        found = pool.map(partial(_look, decoding=decoding), missing)
        hidden = not (progress and missing)
        for record, row in zip(
            missing, tqdm(found, "look", len(missing), disable=hidden, unit="img"), strict=True
        ):
            if isinstance(row, BadImageError):
                bad[record.id] = row.reason, row.detail
            else:
                fresh.append(row)
    if fresh:
        rows = np.array(fresh, FACT)
        known |= _by_id(rows)
        if cache is not None:
            record_facts(cache, decoding, FACTS_REVISION, rows)
    good = tuple(record for record in records if record.id not in bad)
    table = np.array([known[bytes.fromhex(record.id)] for record in good], FACT)
    return FactTable(good, table, bad)


def notes_found(facts: FactTable) -> tuple[Finding, ...]:
    """What decoding noted about the images, counted."""
    noted = [(record.path, notes_of(row)) for record, row in zip(facts.records, facts.rows, strict=True)]
    return findings_of_notes(noted)


def _look(record: ImageRecord, decoding: Decoding) -> NDArray[np.void] | BadImageError:
    try:
        return look(record, decoding)
    except BadImageError as error:
        return error


def _by_id(rows: NDArray[np.void]) -> dict[bytes, NDArray[np.void]]:
    """Rows by id; NumPy drops the zeros at the end of bytes, which belong to an id."""
    return {bytes(row["id"]).ljust(ID_BYTES, b"\0"): row for row in rows}
