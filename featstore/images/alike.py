"""Which pictures are most like each, without comparing all with all: an inverted file of cells.

Up to `ALL_WITH_ALL` pictures are compared all with all. Beyond, spherical k-means on a sample finds centres, one for
`PER_CELL` pictures; each picture lies in the cell of its nearest centre and is compared with the pictures of its
`PROBES` nearest cells (Sivic & Zisserman, Video Google, 2003; Jegou et al., Product quantization for nearest
neighbor search, 2011). A cell that holds more than `MOST_IN_CELL` is sorted along its longest axis, and each picture
is compared with the `MOST_IN_CELL` that lie nearest on it. So time and memory per picture are bounded, whatever the
pictures show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.intp]

ALL_WITH_ALL = 2048
PER_CELL, PROBES = 256, 4
MOST_CELLS = 1024
MOST_IN_CELL = 1024
LEARNED, ROUNDS = 16, 3
"""Pictures for each cell that its centre is learned from, and rounds of k-means."""
ROWS = 512
"""Pictures that are compared at once."""
FULL = 127.0


@dataclass(frozen=True, slots=True)
class Bands:
    """Unit vectors with mean 0, a byte for each value.

    Attributes
    ----------
    values
        ``(n, d)`` int8.
    shows
        ``(n,)`` whether there is anything to be seen; what is empty is like nothing.
    """

    values: NDArray[np.int8]
    shows: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int, dimension: int) -> Bands:
        """Room for so many, to be filled by `put`."""
        return cls(np.zeros((count, dimension), np.int8), np.zeros(count, bool))

    def put(self, start: int, vectors: Floats, shows: NDArray[np.bool_]) -> None:
        """Keep unit vectors from row `start` on."""
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-9)
        self.values[start : start + len(vectors)] = np.rint(vectors * (FULL / largest))
        self.shows[start : start + len(vectors)] = shows

    def rows(self, at: Rows | slice) -> Floats:
        """Unit vectors of some rows."""
        return unit(self.values[at].astype(np.float32))


class Look(NamedTuple):
    """A way of looking at the second picture of each pair: how its vectors follow from the plain ones."""

    mirrored: bool
    enlarged: bool
    seen: Callable[[Floats], Floats]


class Likest(NamedTuple):
    """The pictures that each is most like, the most alike first; -1 where there are fewer."""

    rows: NDArray[np.int32]
    values: Floats


@dataclass(frozen=True, slots=True)
class Cells:
    """Where each picture lies.

    Attributes
    ----------
    centres
        ``(cells, d)``; a single one for few pictures.
    probed
        ``(n, probes)`` the cells that a picture is compared with, its own first.
    """

    centres: Floats
    probed: NDArray[np.int32]


def unit(vectors: Floats) -> Floats:
    """Vectors of norm 1; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Floats = vectors / np.maximum(norms, 1e-9)
    return units


def cells_of(bands: Bands) -> Cells:
    """Sort pictures into cells of like ones."""
    count = len(bands.values)
    shown = np.flatnonzero(bands.shows)
    number = 1 if len(shown) <= ALL_WITH_ALL else min(MOST_CELLS, -(-len(shown) // PER_CELL))
    centres = _centres(bands, shown, number)
    probes = min(PROBES, number)
    probed = np.zeros((count, probes), np.int32)
    if number > 1:
        for part, near in _by_part(count, lambda part: bands.rows(part) @ centres.T):
            best = np.argpartition(-near, probes - 1, axis=1)[:, :probes]
            ranked = np.argsort(-np.take_along_axis(near, best, axis=1), axis=1, kind="stable")
            probed[part] = np.take_along_axis(best, ranked, axis=1)
    return Cells(centres, probed)


def crowded(bands: Bands, cells: Cells) -> int:
    """How many pictures lie in cells that hold more than each of them is compared with."""
    if len(cells.centres) == 1:
        return 0
    sizes = np.bincount(cells.probed[bands.shows, 0], minlength=len(cells.centres))
    return int(sizes[sizes > MOST_IN_CELL].sum())


def likest(
    bands: Bands,
    cells: Cells,
    look: Look,
    side: NDArray[np.intp],
    keep: int,
    done: Callable[[int], object] = lambda _: None,
) -> Likest:
    """Find the pictures of other sides that each is most like.

    Parameters
    ----------
    bands, cells
        The pictures, and where they lie.
    look
        How the others are looked at.
    side
        ``(n,)`` patient of each.
    keep
        How many are wanted of each.
    done
        Is told how many were looked for just now.
    """
    count = len(side)
    best = Likest(np.full((count, keep), -1, np.int32), np.full((count, keep), -1.0, np.float32))
    number = len(cells.centres)
    shown = np.flatnonzero(bands.shows)
    in_cell = _grouped(_homes(bands, cells, look)[shown], shown, number)
    probes = cells.probed.shape[1]
    by_cell = _grouped(cells.probed[shown].ravel(), np.repeat(shown, probes), number)
    whole = number == 1
    for members, asking in zip(in_cell, by_cell, strict=True):
        for ones, others in _windows(bands, look, asking, members, whole=whole):
            values = bands.rows(ones) @ look.seen(bands.rows(others)).T
            values[side[ones][:, None] == side[others]] = -1.0
            _merge(best, ones, others, values)
        done(len(asking))
    return best


def _grouped(cells: NDArray[np.int32], rows: Rows, number: int) -> list[Rows]:
    """Rows of each cell, in rising order."""
    order = np.argsort(cells, kind="stable")
    return np.split(rows[order], np.searchsorted(cells[order], np.arange(1, number)))


def _homes(bands: Bands, cells: Cells, look: Look) -> NDArray[np.int32]:
    """The cell that each picture lies in when it is looked at in this way."""
    if len(cells.centres) == 1:
        return np.zeros(len(bands.values), np.int32)
    homes = np.empty(len(bands.values), np.int32)
    near = _by_part(len(homes), lambda part: look.seen(bands.rows(part)) @ cells.centres.T)
    for part, values in near:
        homes[part] = values.argmax(axis=1)
    return homes


def _windows(
    bands: Bands, look: Look, asking: Rows, members: Rows, *, whole: bool
) -> Iterator[tuple[Rows, Rows]]:
    """Pictures to be compared with each other, few at a time: all of a cell, or the near ones of a large cell."""
    if not len(members):
        return
    if whole or len(members) <= MOST_IN_CELL:
        for start in range(0, len(asking), ROWS):
            yield asking[start : start + ROWS], members
        return
    axis = _longest_axis(bands.rows(members[:: -(-len(members) // MOST_IN_CELL)]))
    along = _project(members, lambda part: look.seen(bands.rows(part)), axis)
    order = np.argsort(along, kind="stable")
    members, along = members[order], along[order]
    places = np.searchsorted(along, _project(asking, bands.rows, axis))
    order = np.argsort(places, kind="stable")
    asking, places = asking[order], places[order]
    step = MOST_IN_CELL // 8
    for start in range(0, len(asking), step):
        middle = int(places[start : start + step][len(places[start : start + step]) // 2])
        first = min(max(0, middle - MOST_IN_CELL // 2), len(members) - MOST_IN_CELL)
        yield asking[start : start + step], members[first : first + MOST_IN_CELL]


def _merge(best: Likest, ones: Rows, others: Rows, values: Floats) -> None:
    """Keep the most alike of what was known and what is new."""
    keep = best.rows.shape[1]
    if values.shape[1] > keep:
        top = np.argpartition(-values, keep - 1, axis=1)[:, :keep]
        values, found = np.take_along_axis(values, top, axis=1), others[top]
    else:
        found = np.broadcast_to(others, values.shape)
    found = np.where(values > -1.0, found, -1)
    all_values = np.concatenate([best.values[ones], values], axis=1)
    all_rows = np.concatenate([best.rows[ones], found.astype(np.int32)], axis=1)
    order = np.argsort(-all_values, axis=1, kind="stable")[:, :keep]
    best.values[ones] = np.take_along_axis(all_values, order, axis=1)
    best.rows[ones] = np.take_along_axis(all_rows, order, axis=1)


def _centres(bands: Bands, shown: Rows, number: int) -> Floats:
    """Spherical k-means on a sample, the same for the same pictures."""
    if number == 1:
        return np.zeros((1, bands.values.shape[1]), np.float32)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(shown, min(len(shown), LEARNED * number), replace=False))
    centres = bands.rows(np.sort(rng.choice(sample, number, replace=False)))
    for _ in range(ROUNDS):
        sums = np.zeros_like(centres)
        for start in range(0, len(sample), ROWS):
            vectors = bands.rows(sample[start : start + ROWS])
            np.add.at(sums, (vectors @ centres.T).argmax(axis=1), vectors)
        moved = unit(sums)
        centres = np.where(moved.any(axis=1, keepdims=True), moved, centres)
    return centres


def _longest_axis(vectors: Floats) -> Floats:
    """First principal component, by power iteration."""
    spread = vectors - vectors.mean(axis=0)
    axis: Floats = spread[np.abs(spread).sum(axis=1).argmax()].copy()
    for _ in range(ROUNDS):
        axis = spread.T @ (spread @ axis)
        axis /= max(float(np.linalg.norm(axis)), 1e-9)
    return axis


def _project(rows: Rows, vectors: Callable[[Rows], Floats], axis: Floats) -> Floats:
    parts = [vectors(rows[start : start + ROWS]) @ axis for start in range(0, len(rows), ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _by_part(count: int, value: Callable[[slice], Floats]) -> Iterator[tuple[slice, Floats]]:
    for start in range(0, count, ROWS):
        part = slice(start, min(start + ROWS, count))
        yield part, value(part)
