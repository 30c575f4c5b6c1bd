"""featstore bench."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .printing import print_json, print_text


def command(
    backbones: options.Backbones = None,
    precisions: Annotated[str, typer.Option(help="Arithmetic, with commas: float32,bfloat16.")] = "float32",
    batch_sizes: Annotated[str, typer.Option(help="Images per call, with commas.")] = "16",
    seconds: Annotated[float, typer.Option(help="Time for each combination.")] = 2.0,
    json: options.Json = False,
) -> None:
    """Measure the backbones on this machine.

    Images per second by backbone, precision, batch size and layout of processes and threads, and the fastest.
    """
    from featstore.extraction.bench import bench
    from featstore.extraction.extract import DEFAULT_BACKBONES
    from featstore.report.text import bench_text

    result = bench(
        options.parse_names(backbones) or DEFAULT_BACKBONES,
        precisions=options.parse_names(precisions) or [],
        batch_sizes=options.parse_seeds(batch_sizes) or [],
        seconds=seconds,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(bench_text(result))
