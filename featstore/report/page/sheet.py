"""Tables for a page: what stands in a cell, and by what it is sorted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


DASH = "\N{EN DASH}"
"""Stands where there is no number."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is read in a place of a table.

    Attributes
    ----------
    text
        The words or the number.
    small
        What stands beneath it, such as an interval.
    key
        Number to sort by; None sorts by the text.
    """

    text: str
    small: str = ""
    key: float | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table whose first column names its rows.

    Attributes
    ----------
    title
        Caption.
    columns
        Heads.
    rows
        Cells, as many a row as there are columns.
    note
        One sentence beneath it.
    marked
        Row that stands out, if any.
    sorted_by
        Column by which the rows come, the largest first; None where they come in an order of their own.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    marked: int | None = None
    sorted_by: int | None = None

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers, and stand to the right."""
        return tuple(
            any(row[c].key is not None for row in self.rows) and c > 0 for c in range(len(self.columns))
        )


def words(text: str, small: str = "") -> Cell:
    """A cell of text."""
    return Cell(text, small)


def figure(
    value: float | None, interval: Sequence[float] | None = None, digits: int = 3, *, signed: bool = False
) -> Cell:
    """A cell with a number and its interval; a dash where it is undefined, which sorts last."""
    if value is None:
        return Cell(DASH, "", float("-inf"))
    form = f"{'+' if signed else ''},.{digits}f"
    small = "" if interval is None else " to ".join(format(end, form) for end in interval)
    return Cell(_minus(format(value, form)), _minus(small), value)


def whole(value: int) -> Cell:
    """A cell with a count."""
    return Cell(f"{value:,}", "", float(value))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
