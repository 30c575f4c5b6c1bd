"""What has to be computed: wanted minus stored, as a pure function (law 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from featstore.store.ids import NO_IDS, IdSet, pack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.types import FeatureKey, View

T = TypeVar("T")
FLOAT_BYTES = 4
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Cell:
    """One feature key and the images that lack a vector under it."""

    key: FeatureKey
    missing: IdSet
    stored: int

    @property
    def bytes_missing(self) -> int:
        """Size of the vectors to come, in bytes."""
        return len(self.missing) * self.key.backbone.dimension * FLOAT_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of one extraction, and the image ids in the order in which they will be read."""

    ids: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def rows_missing(self) -> int:
        """Number of vectors to compute: one per image, view and backbone."""
        return sum(len(cell.missing) for cell in self.cells)

    @property
    def rows_stored(self) -> int:
        """Number of wanted vectors that are in the store already."""
        return sum(cell.stored for cell in self.cells)

    @property
    def bytes_missing(self) -> int:
        """Size of all vectors to come, in bytes."""
        return sum(cell.bytes_missing for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Step:
    """Images of one block that go through the same backbones of one input size, seen in one view."""

    view: View
    input_size: int
    ids: tuple[str, ...]
    keys: tuple[FeatureKey, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Images decoded once, then used for every step. After each step its shards are committed."""

    ids: tuple[str, ...]
    steps: tuple[Step, ...]


def plan(
    keys: Sequence[FeatureKey],
    ids: Sequence[str],
    stored: Mapping[FeatureKey, Collection[str]],
    bad: Collection[str] = (),
) -> Plan:
    """Subtract what is stored, and what is known not to decode, from what is wanted.

    Parameters
    ----------
    keys
        Feature keys wanted for every image.
    ids
        Image ids, distinct, in reading order.
    stored
        For each key the ids that the store holds; more than are wanted do no harm.
    bad
        Quarantined ids.
    """
    good = tuple(i for i in ids if i not in bad)
    wanted = IdSet.of(good)
    held = [stored.get(key, NO_IDS) for key in keys]
    missing = {id(there): wanted.difference(there) for there in _once(held)}
    return Plan(
        good, tuple(_cell(key, wanted, missing[id(there)]) for key, there in zip(keys, held, strict=True))
    )


def blocks(todo: Plan, rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Cut a plan into blocks of at most `rows` images, leaving out images that lack nothing."""
    cells = [cell for cell in todo.cells if cell.missing]
    lacks = _lacking(cells, todo.ids)
    lacking = np.flatnonzero(lacks.any(axis=0))
    for start in range(0, len(lacking), rows):
        block = lacking[start : start + rows]
        ids = tuple(todo.ids[at] for at in block)
        yield Block(ids, tuple(_steps(cells, ids, lacks[:, block])))


def _once(objects: Iterable[T]) -> Collection[T]:
    """Each object once: views of the same images share one set of ids, and a million ids take their time."""
    return {id(found): found for found in objects}.values()


def _cell(key: FeatureKey, wanted: IdSet, missing: IdSet) -> Cell:
    return Cell(key, missing, len(wanted) - len(missing))


def _lacking(cells: Sequence[Cell], ids: Sequence[str]) -> NDArray[np.bool_]:
    """``(cells, ids)``: whether a cell lacks an id. Sorted questions are answered several times faster."""
    packed = pack(ids)
    order = np.argsort(packed)
    ascending = packed[order]
    lacks = np.zeros((len(cells), len(ids)), bool)
    for missing in _once(cell.missing for cell in cells):
        alike = [cell.missing is missing for cell in cells]
        answer = np.empty(len(ids), bool)
        answer[order] = missing.holds(ascending)
        lacks[alike] = answer
    return lacks


def _steps(cells: Sequence[Cell], block: tuple[str, ...], lacks: NDArray[np.bool_]) -> Iterator[Step]:
    """Keys that share view, input size and missing images share one warp; they go through together."""
    together: dict[tuple[View, int, tuple[str, ...]], list[FeatureKey]] = {}
    for cell, row in zip(cells, lacks, strict=True):
        if row.any():
            ids = tuple(block[at] for at in np.flatnonzero(row))
            together.setdefault((cell.key.view, cell.key.backbone.input_size, ids), []).append(cell.key)
    for (view, size, ids), keys in together.items():
        yield Step(view, size, ids, tuple(keys))
