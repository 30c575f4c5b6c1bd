"""featstore extract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import finish, print_json, print_text, say


@options.reads_data
def command(
    data: options.Data,
    backbones: options.Backbones = None,
    recipe: Annotated[
        str, typer.Option(help="Augmentation of the seeded views: a preset or recipe text.")
    ] = "paper",
    seeds: options.Seeds = None,
    weights: options.Weights = None,
    preprocess: options.Preprocess = "official",
    precision: options.Precision = "float32",
    value_range: options.ValueRange = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    executor: Annotated[
        str, typer.Option(help="Where to compute: serial, processes or dask; the features are the same.")
    ] = "serial",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes; default one per GPU, else as `featstore bench --record` found, else one per core.",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of the dask scheduler.")] = None,
    num_workers: Annotated[int, typer.Option(help="Jobs of the array that this one belongs to.")] = 1,
    worker_index: Annotated[
        int, typer.Option(help="Number of this job, from 0: its share of the images.")
    ] = 0,
    memory: Annotated[
        str | None, typer.Option(help="Budget, such as 4GB: networks take turns.", metavar="BYTES")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for run.json: what was done, and what it took; default none.")
    ] = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is stored and what is missing.")
    ] = False,
    precision_check: Annotated[
        bool,
        typer.Option(
            "--precision-check", help="Only say what bfloat16 (or --precision) costs on these images."
        ),
    ] = False,
    check_images: Annotated[int, typer.Option(help="Images that --precision-check looks at.")] = 64,
    json: options.Json = False,
) -> None:
    """Stage one: compute the features that are missing.

    Every image goes, once per view, through every backbone; the vectors are kept in the store. Run it again
    after adding images, seeds or backbones, or after a crash: only what is missing is computed.
    """
    from featstore.extraction.extract import DEFAULT_BACKBONES, extract
    from featstore.report.terminal.text import extraction_text

    if precision_check:
        check(
            data,
            backbones,
            weights,
            preprocess,
            precision,
            check_images,
            value_range,
            reading,
            json,
        )
        return
    result = extract(
        data,
        backbones=options.parse_names(backbones) or DEFAULT_BACKBONES,
        weights=options.parse_weights(weights),
        preprocess=preprocess,
        precision=precision,
        recipe=recipe,
        seeds=options.parse_seeds(seeds) or (),
        value_range=options.parse_range(value_range),
        cache=cache,
        **reading,
        executor=executor,
        workers=workers,
        scheduler=scheduler,
        num_workers=num_workers,
        worker_index=worker_index,
        memory=None if memory is None else options.parse_bytes(memory, "--memory"),
        out=out,
        overwrite=overwrite,
        dry_run=dry_run,
        progress=not json,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(extraction_text(result))
    finish(result.bad)


def check(
    data: Path,
    backbones: str | None,
    weights: list[str] | None,
    preprocess: str,
    precision: str,
    images: int,
    value_range: str | None,
    reading: options.Reading,
    json: bool,
) -> None:
    """Print what a precision costs, and store nothing."""
    from featstore.extraction.extract import DEFAULT_BACKBONES
    from featstore.extraction.precision import check_precision
    from featstore.report.terminal.text import precision_text

    say("extract", "reading some images, then loading TensorFlow and the networks", json=json)
    result = check_precision(
        data,
        backbones=options.parse_names(backbones) or DEFAULT_BACKBONES,
        weights=options.parse_weights(weights),
        preprocess=preprocess,
        precision="bfloat16" if precision == "float32" else precision,
        images=images,
        value_range=options.parse_range(value_range),
        **reading,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(precision_text(result))
    finish(result.bad)
