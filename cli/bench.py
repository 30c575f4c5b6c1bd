"""featstore bench."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .printing import print_json, print_text


def command(
    backbones: options.Backbones = None,
    precisions: Annotated[str, typer.Option(help="Arithmetic, with commas: float32,bfloat16.")] = "float32",
    batch_sizes: Annotated[
        str,
        typer.Option(
            help="Images per call, with commas; for information, since extraction always takes 16 (law 2)."
        ),
    ] = "16",
    seconds: Annotated[float, typer.Option(help="Time for each combination.")] = 2.0,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Keep the speeds in the cache: extract --executor processes chooses --workers by them.",
        ),
    ] = False,
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Measure the backbones on this machine.

    Images per second by backbone, precision, batch size and layout of processes and threads, and the fastest.
    """
    from featstore.extraction.bench import bench
    from featstore.extraction.extract import DEFAULT_BACKBONES
    from featstore.report.terminal.text import bench_text

    result = bench(
        options.parse_names(backbones) or DEFAULT_BACKBONES,
        precisions=options.parse_names(precisions) or [],
        batch_sizes=options.parse_seeds(batch_sizes, "--batch-sizes", "1,16") or [],
        seconds=seconds,
        record=record,
        cache=cache,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(bench_text(result))
