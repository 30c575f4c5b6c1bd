"""A comparison for a terminal: the score that verdicts are about as small bars, some of the others, the verdict.

What is piped is `featstore.report.terminal.scores.comparison_text`: every score with its interval, however wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from textwrap import fill
from typing import TYPE_CHECKING, Literal, NamedTuple

from featstore.evaluation.metrics import PRIMARY
from featstore.report.plain import printable, table
from featstore.report.terminal.findings import findings_brief
from featstore.report.terminal.scores import (
    HEADS,
    SHOWN,
    asides,
    data_text,
    first_text,
    leader_calibration,
    scored_on,
    unsaid,
)
from featstore.report.verdict import fusions_that_pay, summary, verdict_lines, winner_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from featstore.evaluation.comparison import Comparison
    from featstore.evaluation.standing import Standing

    Stress = Literal["", "strong", "told", "untold", "faint"]

NARROWEST, WIDEST = 60, 120
FEWEST_CELLS = 32
"""Columns that a bar has at least; a longer name has a line to itself."""
STEP = 0.05
"""The scale of the bars begins and ends at a multiple of it."""
CHANCE = 0.5
BESIDE = ("balanced_accuracy", "sensitivity", "specificity", "brier", "ece")
SHORT = {"balanced_accuracy": "bal. acc.", "sensitivity": "sens.", "specificity": "spec."}


class Marks(NamedTuple):
    """Characters for the low end, the line and the high end of an interval, for the mean, and for guessing."""

    low: str
    line: str
    high: str
    mean: str
    guess: str


DRAWN = Marks(*"├─┤●┊")
ASCII = Marks(*"|-|o:")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, or several, and how it is to stand out; it is up to the terminal how that looks."""

    text: str
    stress: Stress = ""


def comparison_screen(result: Comparison, width: int = 80, marks: Marks = DRAWN) -> list[Line]:
    """Lay a comparison out for a terminal.

    Parameters
    ----------
    result
        What `featstore.compare` returned.
    width
        Columns of the terminal.
    marks
        What bars are drawn with: `ASCII` where the terminal can show nothing else.
    """
    width = min(max(width, NARROWEST), WIDEST)
    shown = sorted(result.standings, key=lambda s: -s.primary)[:SHOWN]
    hidden = len(result.standings) - len(shown)
    listed = [*shown, *result.shortcuts]
    lines = [
        *_prose(f"{first_text(result)}{data_text(result.matrix)}", width),
        Line(""),
        Line(f"{HEADS[PRIMARY]}, {scored_on(result)}, with its 95 % interval", "strong"),
        *_bars(listed, width, marks),
        Line(""),
        Line("Other scores, mean of the folds; ECE of all images together", "strong"),
        *_others(listed, width),
        *_prose(leader_calibration(result), width),
        Line("Intervals and all other scores: --json, --csv, or pipe this.", "faint"),
    ]
    if hidden:
        lines.append(
            Line(f"These are the {SHOWN} with the highest AUC; {hidden} more are in --json.", "faint")
        )
    if told := findings_brief(unsaid(result.findings)):
        lines += [Line(""), *_prose(told, width, hanging="    ")]
    for part in filter(None, asides(result)):
        lines += [Line(""), Line(part)]
    lines += [Line(""), *_prose(winner_text(result), width), Line("")]
    lines += _verdict(result, width)
    stress: Stress = "told" if fusions_that_pay(result) else "untold"
    return [*lines, Line(""), *_prose(f"Found: {summary(result)}", width, stress)]


def bar(
    mean: float, interval: tuple[float, float] | None, scale: tuple[float, float], cells: int, marks: Marks
) -> str:
    """Draw a score with its interval on a scale of so many columns; guessing is marked where nothing else stands."""
    drawn = [" "] * cells

    def at(value: float) -> int:
        low, high = scale
        return round((min(max(value, low), high) - low) / (high - low) * (cells - 1))

    if scale[0] < CHANCE < scale[1]:
        drawn[at(CHANCE)] = marks.guess
    if interval:
        first, last = map(at, interval)
        drawn[first : last + 1] = marks.line * (last + 1 - first)
        drawn[first], drawn[last] = marks.low, marks.high
    drawn[at(mean)] = marks.mean
    return "".join(drawn).rstrip()


def _bars(shown: Sequence[Standing], width: int, marks: Marks) -> Iterator[Line]:
    """Yield a line per contestant under a common scale, the best first."""
    name = _name_width(shown, width, FEWEST_CELLS + len("  0.000  "))
    cells = width - name - len("  0.000  ")
    scale = _scale(shown)
    ends = f"{scale[0]:.2f}".ljust(cells - 4) + f"{scale[1]:.2f}"
    yield Line(" " * (width - cells) + ends, "faint")
    for standing in shown:
        estimate = standing.estimates[PRIMARY]
        value = "    -" if estimate.mean is None else f"{estimate.mean:.3f}"
        drawn = "" if estimate.mean is None else bar(estimate.mean, estimate.interval, scale, cells, marks)
        label = _label(standing, name, width)
        stress: Stress = "strong" if standing.primary == shown[0].primary else ""
        yield Line(f"{label}  {value}  {drawn}".rstrip(), stress)


def _others(shown: Sequence[Standing], width: int) -> Iterator[Line]:
    """Yield a line per contestant with the scores that have no bar."""
    heads = [SHORT.get(m, HEADS.get(m, m)) for m in BESIDE]
    numbers = [[_number(s.estimates[m].mean) for m in BESIDE] for s in shown]
    name = _name_width(shown, width, 2 + len(table(heads, numbers).partition("\n")[0]))
    top, *rows = table(heads, numbers).split("\n")
    yield Line(" " * (name + 2) + top, "faint")
    for standing, row in zip(shown, rows, strict=True):
        stress: Stress = "strong" if standing.primary == shown[0].primary else ""
        yield Line(f"{_label(standing, name, width)}  {row}", stress)


def _name_width(shown: Sequence[Standing], width: int, taken: int) -> int:
    """Columns for names: those of the longest that leaves `taken` columns to the rest."""
    lengths = [len(printable(s.contestant.label)) for s in shown]
    return max([length for length in lengths if length <= width - taken], default=0)


def _label(standing: Standing, columns: int, width: int) -> str:
    """Name padded to its columns; a longer one stands above, on lines of its own."""
    label = printable(standing.contestant.label)
    if len(label) <= columns:
        return label.ljust(columns)
    return f"{fill(label, width, subsequent_indent='  ')}\n{' ' * columns}"


def _scale(shown: Sequence[Standing]) -> tuple[float, float]:
    """Ends of the common scale, round numbers that hold every interval."""
    estimates = [s.estimates[PRIMARY] for s in shown if s.estimates[PRIMARY].mean is not None]
    values = [value for e in estimates for value in (e.mean, *(e.interval or ())) if value is not None]
    if not values:
        return 0.0, 1.0
    low, high = floor(min(values) / STEP), ceil(max(values) / STEP)
    return low * STEP, max(high, low + 1) * STEP


def _verdict(result: Comparison, width: int) -> Iterator[Line]:
    (head, _), *sentences = verdict_lines(result)
    yield from _prose(head, width, "strong")
    for sentence, told in sentences:
        yield from _prose(sentence, width, "told" if told else "", hanging="    ")


def _prose(text: str, width: int, stress: Stress = "", hanging: str = "") -> Iterator[Line]:
    for line in filter(None, text.split("\n")):
        yield Line(fill(printable(line), width, subsequent_indent=hanging, break_on_hyphens=False), stress)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
