"""featstore demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import print_json, print_text


def command(
    out: Annotated[Path, typer.Option(help="Folder for the generated images and the runs.")] = Path(
        "runs/demo"
    ),
    cache: options.Cache = None,
    patients: Annotated[int, typer.Option(help="Generated patients, four slices each.")] = 48,
    json: options.Json = False,
) -> None:
    """Run everything on generated lung-CT slices, offline.

    Generates a data set, extracts features, fits a fusion, compares strategies, and writes a report.
    """
    from featstore.demonstration import demo
    from featstore.report.terminal.text import demo_text

    result = demo(out, cache=cache, patients=patients, progress=not json)
    if json:
        print_json(result.to_json())
    else:
        print_text(demo_text(result))
