"""Printing: results on stdout, as text, CSV or JSON; everything else on stderr."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from featstore.reporting.terminal.comparison import Line
    from featstore.results.comparison import Comparison
    from featstore.results.fusion import Fusion
    from featstore.results.paper import Demonstration


QUARANTINED = 3
PLAIN_ASCII = "plain_ascii"
STYLES: dict[str, dict[str, Any]] = {
    "strong": {"bold": True},
    "told": {"fg": "green", "bold": True},
    "untold": {"fg": "yellow", "bold": True},
    "faint": {"dim": True},
}
"""How a terminal shows what a `Line` stresses."""


def escape_unshowable() -> None:
    r"""Let stdout and stderr spell out what their encoding lacks (``\u6570``): a name must not cost the answer.

    That is met under ``PYTHONIOENCODING``, in old locales and on Windows; UTF-8 shows everything.
    """
    codecs.register(_plain_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            strict = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=PLAIN_ASCII if strict else stream.encoding, errors="backslashreplace")


def _plain_ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by a name of its own: typer takes a stream called ASCII for a mistake, and writes UTF-8 to it."""
    if name != PLAIN_ASCII:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        ascii_.streamreader,
        ascii_.streamwriter,
        ascii_.incrementalencoder,
        ascii_.incrementaldecoder,
        name=PLAIN_ASCII,
    )


def say(command: str, phase: str, *, json: bool) -> None:
    """Name on stderr what a command is about to do, before it does it; a caller that wants JSON is told nothing."""
    from featstore.tables import printable

    if not json:
        typer.echo(f"{command}: {printable(phase)}", err=True)


def print_text(text: str, *, err: bool = False) -> None:
    """Print lines for people; whatever a stranger's name or cell would tell the terminal to do is spelt out.

    On stderr sentences are wrapped where that is a terminal.
    """
    from featstore.tables import printable_lines, wrapped

    width = error_columns() if err else None
    shown = printable_lines(text)
    typer.echo(shown if width is None else wrapped(shown, width), err=err)


def print_screen(text: str) -> None:
    """Print the text of a result: sentences are wrapped where the terminal ends, tables and commands are not."""
    from featstore.tables import wrapped

    print_text(wrapped(text, columns()))


def print_csv(rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as CSV, formulas quoted, whatever would steer a terminal spelt out."""
    from featstore.runs import csv_text
    from featstore.tables import printable

    cells = ([printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    typer.echo(csv_text(cells), nl=False)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))


def print_result(result: Any, text: Callable[[Any], str], *, json: bool) -> None:
    """Print a result as one JSON document, or as text."""
    if json:
        print_json(result.to_json())
    else:
        print_screen(text(result))


def print_comparison(
    result: Comparison, out: Path | None = None, *, pairs: bool = False, details: bool = False
) -> None:
    """Print a comparison: the same text wherever it goes, with stresses where stdout is a terminal."""
    from featstore.reporting.terminal.comparison import comparison_screen

    _print_lines(comparison_screen(result, columns(), out=out, pairs=pairs, details=details))


def print_fusion(result: Fusion, *, details: bool = False) -> None:
    """Print a fit, as `print_comparison` does."""
    from featstore.reporting.terminal.comparison import fusion_screen

    _print_lines(fusion_screen(result, columns(), details=details))


def print_demonstration(result: Demonstration) -> None:
    """Print the demonstration, as `print_comparison` does."""
    from featstore.reporting.terminal.comparison import demonstration_screen

    _print_lines(demonstration_screen(result, columns()))


def columns() -> int:
    """Columns of the terminal, at most those that a screen is made for, which is what a pipe gets."""
    from featstore.tables import WIDTH

    return min(shutil.get_terminal_size((WIDTH, 40)).columns, WIDTH)


def error_columns() -> int | None:
    """Columns of the terminal that stderr is, at most those that a screen is made for; None where it is none."""
    from featstore.tables import WIDTH

    if not sys.stderr.isatty():
        return None
    try:
        there = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.stderr.fileno()).columns
    except (ValueError, OSError):
        there = 0
    return min(there or WIDTH, WIDTH)


def _print_lines(lines: Sequence[Line]) -> None:
    """Print lines in the styles of a terminal, or plainly where it has none or the user wants none (no-color.org)."""
    from featstore.tables import printable_lines

    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    for line in lines:
        text = printable_lines(line.text)
        typer.echo(typer.style(text, **STYLES[line.stress]) if line.stress and not plain else text)


def finish(bad: Sequence[object]) -> None:
    """End with the exit code that says whether images were set aside."""
    if bad:
        raise typer.Exit(QUARANTINED)
