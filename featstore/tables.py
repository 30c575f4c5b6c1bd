"""Tables: building blocks of plain text (columns, sizes, durations, harmless names), and cells of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from html import escape
from textwrap import fill, indent, wrap
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


T = TypeVar("T")

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


def wrapped(text: str, width: int) -> str:
    """Text whose sentences are at most `width` columns wide; tables, and commands to be copied, stay as they are."""
    return "\n".join(
        line
        if len(line) <= width or _is_kept(line)
        else fill(
            IN_SENTENCE.sub(lambda found: found[0].replace(" ", NO_BREAK), line),
            width,
            subsequent_indent=_indent(line) + "    ",
            break_on_hyphens=False,
            break_long_words=False,
        ).replace(NO_BREAK, " ")
        for line in text.split("\n")
    )


COMMAND = re.compile(r"\s*(?:[\w ]+: )?featstore ")
"""How a line begins that is a command to be copied, such as ``Next: featstore extract DATA``."""
IN_SENTENCE, NO_BREAK = re.compile(r"`[^`]+`|(?<=: )featstore [^`]+$"), "\N{NO-BREAK SPACE}"
"""A command in a sentence or at its end, and what keeps it together while lines are broken."""


def wrapped_error(text: str, width: int, lead: str = "") -> str:
    """A cause or a remedy, broken at words; what is to be copied stays on one line, and ends no later than a path.

    Parameters
    ----------
    text
        One line.
    width
        Columns of the terminal.
    lead
        What stands before it; lines that follow are indented by as much.
    """
    return fill(
        COPIED.sub(lambda found: found[0].replace(" ", NO_BREAK), text),
        max(width, len(lead) + NARROWEST),
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
        break_long_words=False,
    ).replace(NO_BREAK, " ")


COPIED = re.compile(
    r"`[^`]+`"  # a command
    r"|(?<=: )featstore [^`]+$"  # one at the end
    r"|(?<!\S)--[a-z][\w-]* \S+"  # an option and its value
    r"|(?<!\w)'[^']+'"  # what was given, as it was given
    r"|\S*/\S*(?: (?:\S+ ){0,3}?(?:\S*/\S*|\S*\w\.\w{1,8}\b))*"  # a path, also through names with spaces
)
"""What a reader of an error copies."""


def _is_kept(line: str) -> bool:
    return "  " in line.strip() or COMMAND.match(line) is not None


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


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


def short_weights(text: str) -> str:
    """Weights of a network as a feature key has them, with the first digits of their digest alone."""
    digest = re.search(r"[0-9a-f]{64}$", text)
    return text if digest is None else f"{text[: digest.start()]}{digest[0][:SHORT]}…"


def printable(text: str) -> str:
    """Text on one line, without what moves a cursor, colours, renames a window or turns writing round.

    File names and CSV cells can hold all of that, and a terminal would obey.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def counts(classes: Mapping[str, int]) -> str:
    """Classes with their numbers: ``covid 349, normal 397``, or ``0: 349, 1: 397`` where a name ends in a digit."""
    mark = ":" if any(name[-1:].isdigit() for name in classes) else ""
    return ", ".join(f"{printable(name)}{mark} {count}" for name, count in classes.items())


def printable_lines(text: str) -> str:
    """As `printable`, but for the line breaks that a text has of its own."""
    return "\n".join(map(printable, text.split("\n")))


def _is_number(cell: Any) -> bool:  # noqa: ANN401
    return isinstance(cell, int | float) or (isinstance(cell, str) and cell.replace(".", "", 1).isdigit())


# Rows of a result, for whoever works in Python

WIDTH = 100
"""Columns of a terminal that a table is made for."""
NARROWEST = 36
"""Columns that a sentence at the end of a row needs; where there are fewer it goes below."""
MOST_ROWS = 15
"""Rows that a notebook shows of a table."""


class Rows(tuple[T, ...]):
    """A tuple of frozen dataclasses that prints as a table: what `featstore.strategies` and its like return.

    ``pandas.DataFrame(rows)`` makes a data frame of it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Table of all rows."""
        return self.text()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        heads = [] if not self else _heads(self[0])
        return html_table("", [dict(zip(heads, _cells(row), strict=True)) for row in self], len(self))

    def text(self, width: int = WIDTH) -> str:
        """Plain text of at most `width` columns: what ends a row is wrapped, or goes below where it has no room."""
        if not self:
            return "()"
        lines = [_heads(self[0]), *map(_cells, self)]
        short = table(lines[0][:-1], [line[:-1] for line in lines[1:]]).split("\n")
        before = max(map(len, short)) + 2
        if width - before < min(NARROWEST, max(len(str(line[-1])) for line in lines)):
            rest = [[""], *([fill(str(line[-1]), width - 4)] for line in lines[1:])]
            below = [indent(text, "    ") for (text,) in rest]
            return "\n".join(part for both in zip(short, below, strict=True) for part in both if part)
        ends = [wrap(str(line[-1]), width - before, break_on_hyphens=False) or [""] for line in lines]
        return "\n".join(
            printable(f"{start:<{before}}{end}").rstrip()
            for first, parts in zip(short, ends, strict=True)
            for start, end in zip([first, *[""] * (len(parts) - 1)], parts, strict=True)
        )


def html_table(caption: str, rows: Sequence[Mapping[str, Any]], most: int = MOST_ROWS) -> str:
    """HTML of the first rows, every text in it harmless; the columns are those of the first row."""
    heads = list(rows[0]) if rows else []
    more = f"<p>and {len(rows) - most} more</p>" if len(rows) > most else ""
    lines = ["".join(f"<td>{_html(row.get(head))}</td>" for head in heads) for row in rows[:most]]
    return (
        "<table>"
        + (f"<caption>{_html(caption)}</caption>" if caption else "")
        + f"<thead><tr>{''.join(f'<th>{_html(head)}</th>' for head in heads)}</tr></thead>"
        + f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>{more}"
    )


def _html(value: Any) -> str:  # noqa: ANN401
    text = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return escape(printable(text), quote=True)


def _heads(row: Any) -> list[str]:  # noqa: ANN401
    return [str(f.metadata.get("title", f.name.replace("_", " "))) for f in fields(row)]


def _cells(row: Any) -> list[Any]:  # noqa: ANN401
    return [_cell(getattr(row, f.name)) for f in fields(row)]


def _cell(value: Any) -> Any:  # noqa: ANN401
    match value:
        case bool():
            return "yes" if value else ""
        case float():
            return f"{value:.1f}" if value else ""
    return value


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


def interval_text(interval: Sequence[float], digits: int = 3, *, signed: bool = False) -> str:
    """An interval in words, where a comma or a dash could be taken for a sign: ``-0.010 to +0.050``."""
    form = f"{'+' if signed else ''}z,.{digits}f"
    return " to ".join(format(end, form) for end in interval)


def typeset(text: str) -> str:
    """A sentence as a page has it: a real minus before numbers, not a hyphen."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "\N{MINUS SIGN}", text)


def number_cell(
    value: float | None, interval: Sequence[float] | None = None, digits: int = 3, *, signed: bool = False
) -> Cell:
    """A cell with a number and its interval; a dash where it is undefined, which sorts last."""
    if value is None:
        return Cell(DASH, "", float("-inf"))
    form = f"{'+' if signed else ''}z,.{digits}f"
    small = "" if interval is None else interval_text(interval, digits, signed=signed)
    return Cell(_minus(format(value, form)), _minus(small), value)


def count_cell(value: int) -> Cell:
    """A cell with a count."""
    return Cell(f"{value:,}", "", float(value))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
