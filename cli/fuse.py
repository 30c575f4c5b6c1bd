"""featstore fuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import print_json, print_text, say


@options.reads_data
def command(
    data: options.Data,
    strategy: Annotated[str, typer.Option(help="Name; `featstore strategies` lists them.")] = "concat_logreg",
    preset: Annotated[str | None, typer.Option(help="Named settings, such as paper for concat_head.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Parameter of the strategy, such as optimizer=sgd or epochs=200; repeat for more.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Run of the same network whose weights to go on from, at a lower rate."),
    ] = None,
    freeze_blocks: Annotated[
        str | None, typer.Option(help="Backbones, with commas, whose weights stay as --init-from has them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/STRATEGY.")] = None,
    overwrite: options.Overwrite = False,
    test_size: Annotated[float, typer.Option(help="Share held out where the data has no splits.")] = 0.25,
    split_seed: Annotated[int, typer.Option(help="Seed of that hold-out.")] = 0,
    positive: options.Positive = None,
    calibrate: options.Calibrate = None,
    sensitivity: options.Sensitivity = None,
    backbones: options.StoredBackbones = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of the views to train on; default as for --seeds.")
    ] = None,
    seeds: options.StoredSeeds = None,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    accept: options.Accept = None,
    json: options.Json = False,
) -> None:
    """Stage two: train one strategy and keep the model.

    Uses stored features only. Scores come from held-out patients: the data set's own splits where it has them.
    """
    from featstore.evaluation.fuse import fuse
    from featstore.report.terminal.scores import fusion_text

    say("fuse", "reading the data set and its features, then training", json=json)
    result = fuse(
        data,
        strategy=strategy,
        preset=preset,
        options=options.parse_settings(settings),
        test_size=test_size,
        split_seed=split_seed,
        positive=positive,
        calibrate=calibrate,
        sensitivity=sensitivity,
        init_from=init_from,
        freeze_blocks=[] if freeze_blocks is None else freeze_blocks.split(","),
        out=out or Path("runs") / strategy,
        overwrite=overwrite,
        accept=options.parse_codes(accept),
        progress=not json,
        **options.source(
            backbones,
            weights,
            preprocess,
            precision,
            recipe,
            seeds,
            value_range,
            cache,
            reading,
        ),
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(fusion_text(result))
