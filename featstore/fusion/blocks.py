"""Column blocks: which columns of the matrix belong to which backbone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from featstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


WHOLE = "all"
COVARIATES = "covariates"
"""Name of the block that is of no network: columns of the table, such as age and sex."""


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Columns ``start`` to ``stop`` (excluded) of the matrix: the vector of one backbone.

    Attributes
    ----------
    name
        Name of the backbone.
    start, stop
        Column numbers; ``stop`` is one past the last.
    """

    name: str
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start


def make_blocks(widths: Mapping[str, int]) -> tuple[Block, ...]:
    """Blocks side by side, in the order of `widths` (name to number of columns).

    Examples
    --------
    >>> from featstore.fusion.blocks import make_blocks
    >>> make_blocks({"Xception": 2048, "MobileNetV2": 1280})[1]
    Block(name='MobileNetV2', start=2048, stop=3328)
    """
    edges = accumulate(widths.values(), initial=0)
    return tuple(Block(name, *edge) for name, edge in zip(widths, pairwise(edges), strict=True))


def check_blocks(blocks: Iterable[Block] | None, n_columns: int) -> tuple[Block, ...]:
    """Check that `blocks` cover all the columns once, left to right; None is one block named "all".

    Gaps are refused because a forgotten backbone would look like a bad one.

    Raises
    ------
    UsageError
        If a block is empty, named twice, out of place, or columns are left over.
    """
    tiled = (Block(WHOLE, 0, n_columns),) if blocks is None else tuple(blocks)
    edges = [0, *(block.stop for block in tiled)]
    in_place = all(block.start == edge for block, edge in zip(tiled, edges, strict=False))
    if not in_place or edges[-1] != n_columns or any(block.width < 1 for block in tiled):
        raise UsageError(
            f"The blocks {[(b.name, b.start, b.stop) for b in tiled]} do not tile {n_columns} columns.",
            "Give one block per backbone, side by side from column 0 to the last.",
        )
    if len({block.name for block in tiled}) < len(tiled):
        raise UsageError("Two blocks have the same name.", "Name every block after its own backbone.")
    return tiled


def split_columns(X: NDArray[Any], blocks: Iterable[Block]) -> list[NDArray[Any]]:
    """Views (not copies) of the columns of each block: ``(n, D)`` to a list of ``(n, width)``."""
    return [X[:, block.start : block.stop] for block in blocks]
