"""Labelled images in batches for a network that learns: the same pixels that an extraction would make (law 1)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from featstore import interruption
from featstore.errors import BadImageError
from featstore.extraction.batches import Batch, batches
from featstore.extraction.engine import threads
from featstore.extraction.plan import Block, Step
from featstore.extraction.prefetch import prefetch
from featstore.images.reading import read_pixels
from featstore.store.quarantine import BadImage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from featstore.types import Decoding, ImageRecord, View

    Rows = NDArray[np.intp]
    Pixels = NDArray[np.float32]

BATCHES = 8
"""Decoded at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Images with what a network should say of them.

    Attributes
    ----------
    records
        The images.
    y
        ``(n,)`` int32 class numbers.
    factors
        ``(n,)`` float32 factors on the loss of each image.
    decoding
        How their pixels are made.
    side, batch_size
        Of the network.
    """

    records: tuple[ImageRecord, ...]
    y: NDArray[np.int32]
    factors: NDArray[np.float32]
    decoding: Decoding
    side: int
    batch_size: int

    def __len__(self) -> int:
        """Number of images."""
        return len(self.records)

    def stream(self, view: View, order: Rows | None = None) -> Iterator[tuple[Rows, Pixels]]:
        """Yield row numbers, and pixels ``(batch_size, side, side, 3)`` float32 of which the last may be padding.

        Parameters
        ----------
        view
            How every image is shown.
        order
            Row numbers in the order wanted; None for all as they are.

        Raises
        ------
        BadImageError
            If a file has changed or vanished since it was looked at.
        """
        rows = np.arange(len(self)) if order is None else order
        by_id = {record.id: record for record in self.records}
        numbers = {record.id: row for row, record in enumerate(self.records)}
        wanted = self._blocks(view, [self.records[row].id for row in rows])
        source = prefetch(batches(wanted, by_id, self.decoding, self.batch_size, threads()))
        with closing(source):
            for item in source:
                interruption.heed()
                if not isinstance(item, Batch):
                    raise BadImageError(item.reason, f"{by_id[item.id].path}: {item.detail}")
                yield np.array([numbers[i] for i in item.ids]), item.pixels

    def padded(self, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Classes and factors ``(batch_size,)`` of a batch; padding counts nothing."""
        y = np.zeros(self.batch_size, np.int32)
        factors = np.zeros(self.batch_size, np.float32)
        y[: len(rows)], factors[: len(rows)] = self.y[rows], self.factors[rows]
        return y, factors

    def _blocks(self, view: View, ids: list[str]) -> Iterator[Block]:
        size = BATCHES * self.batch_size
        for start in range(0, len(ids), size):
            part = tuple(ids[start : start + size])
            yield Block(part, (Step(view, self.side, part, ()),))


def unreadable(records: Iterable[ImageRecord], decoding: Decoding) -> dict[str, BadImage]:
    """Images that do not decode, by id: they will have no features, hence no place in a split."""
    with ThreadPoolExecutor(threads(), thread_name_prefix="pixels") as pool:
        found = pool.map(partial(_trouble, decoding=decoding), records)
        return {bad.id: bad for bad in found if bad is not None}


def _trouble(record: ImageRecord, decoding: Decoding) -> BadImage | None:
    try:
        read_pixels(record, decoding)
    except BadImageError as error:
        return BadImage(record.id, error.reason, error.detail)
    return None
