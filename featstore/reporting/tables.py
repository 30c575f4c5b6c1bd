"""Tables: building blocks of plain text (columns, sizes, durations, harmless names), and cells of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featstore.images.recipe import PRESETS, parse_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# Plain text

UNITS = ("B", "kB", "MB", "GB", "TB")
STEP = 1000
SHORT = 12
"""Digits of a digest that tell it from others on a page."""


def table(header: Sequence[str] | None, rows: Sequence[Sequence[Any]]) -> str:
    """Columns side by side: text to the left, numbers to the right; cells are made `printable`."""
    lines = [[printable(str(cell)) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not lines:
        return ""
    widths = [max(len(line[c]) for line in lines) for c in range(len(lines[0]))]
    right = [bool(rows) and all(_is_number(row[c]) for row in rows) for c in range(len(widths))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def size(count: int) -> str:
    """Bytes for people: ``2.1 MB``."""
    value = float(count)
    for unit in UNITS[:-1]:
        if value < STEP:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= STEP
    return f"{value:.1f} {UNITS[-1]}"


def duration(seconds: float) -> str:
    """Seconds for people: ``2 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    )


def view_name(recipe: str, seed: int) -> str:
    """Name of a view: the preset where its recipe is one, else the recipe's text; then the seed."""
    named = next((name for name in PRESETS if str(parse_recipe(name)) == recipe), recipe)
    return named if recipe == "identity" else f"{named} #{seed}"


def short_weights(text: str) -> str:
    """Weights of a network as a feature key has them, with the first digits of their digest alone."""
    kind, colon, found = text.partition("sha256:")
    return f"{kind}{colon}{found[:SHORT]}…" if colon else text


def printable(text: str) -> str:
    """Text on one line, without what moves a cursor, colours, renames a window or turns writing round.

    File names and CSV cells can hold all of that, and a terminal would obey.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def counts(classes: Mapping[str, int]) -> str:
    """Classes with their numbers: ``covid 349, normal 397``."""
    return ", ".join(f"{printable(name)} {count}" for name, count in classes.items())


def printable_lines(text: str) -> str:
    """As `printable`, but for the line breaks that a text has of its own."""
    return "\n".join(map(printable, text.split("\n")))


def _is_number(cell: Any) -> bool:  # noqa: ANN401
    return isinstance(cell, int | float) or (isinstance(cell, str) and cell.replace(".", "", 1).isdigit())


# Tables for a page: what stands in a cell, and by what it is sorted

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
class Table:
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


def text_cell(text: str, small: str = "") -> Cell:
    """A cell of text."""
    return Cell(text, small)


def number_cell(
    value: float | None, interval: Sequence[float] | None = None, digits: int = 3, *, signed: bool = False
) -> Cell:
    """A cell with a number and its interval; a dash where it is undefined, which sorts last."""
    if value is None:
        return Cell(DASH, "", float("-inf"))
    form = f"{'+' if signed else ''},.{digits}f"
    small = "" if interval is None else " to ".join(format(end, form) for end in interval)
    return Cell(_minus(format(value, form)), _minus(small), value)


def count_cell(value: int) -> Cell:
    """A cell with a count."""
    return Cell(f"{value:,}", "", float(value))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
