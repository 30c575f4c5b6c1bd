"""stdout is data, stderr is talk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

QUARANTINED = 3


def print_text(text: str) -> None:
    """Print lines for people; whatever a stranger's name or cell would tell the terminal to do is spelt out."""
    from featstore.report.plain import printable_lines

    typer.echo(printable_lines(text))


def print_json(document: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))


def finish(bad: Sequence[object]) -> None:
    """End with the exit code that says whether images were set aside."""
    if bad:
        raise typer.Exit(QUARANTINED)
