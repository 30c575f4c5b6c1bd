"""featstore compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import print_comparison, print_json, print_text, say


@options.reads_data
def command(
    data: options.Data,
    strategies: Annotated[str, typer.Option(help="all, or names with commas.")] = "all",
    subsets: Annotated[
        str, typer.Option(help="singles, all, greedy, A+B, or several with commas.")
    ] = "singles",
    folds: Annotated[
        str,
        typer.Option(
            help="Folds of the cross-validation, over whole groups; split: the data set's own test images.",
            metavar="N|split",
        ),
    ] = "5",
    repeats: Annotated[int, typer.Option(help="Times to repeat it with other folds.")] = 1,
    fold_seed: Annotated[int, typer.Option(help="Seed of folds and resamples.")] = 0,
    training_seeds: Annotated[
        int, typer.Option(help="Seeds to train with, for strategies that draw random numbers.")
    ] = 1,
    positive: options.Positive = None,
    calibrate: options.Calibrate = None,
    sensitivity: options.Sensitivity = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; default none is written.")] = None,
    overwrite: options.Overwrite = False,
    views: Annotated[
        str, typer.Option(help="Training on views: identity, expand, average, sample, with commas.")
    ] = "expand",
    test_views: Annotated[str, typer.Option(help="Testing on views: identity or average.")] = "identity",
    view_curve: Annotated[
        str | None,
        typer.Option(
            help="Score of this strategy against the number of augmented views.", metavar="STRATEGY"
        ),
    ] = None,
    economics: Annotated[
        bool, typer.Option("--economics", help="Cost and worth of each backbone; fits all subsets.")
    ] = False,
    nested: Annotated[
        bool,
        typer.Option("--nested", help="Pick the winner anew inside each fold too; five further fits of all."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(help="Processes, one thread each; -1 for one per core; numbers stay.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option(help="Take fits that an earlier comparison left in the cache.")
    ] = True,
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
    csv: Annotated[bool, typer.Option("--csv", help="Print one line of CSV per contestant.")] = False,
) -> None:
    """Stage two: compare strategies, with a verdict.

    Strategies and single backbones on identical folds over whole patients, from stored features only.
    """
    from featstore.evaluation.compare import compare
    from featstore.run import csv_text

    names = options.parse_names(strategies) or []
    say("compare", "reading the data set and its features", json=json)
    result = compare(
        data,
        strategies="all" if strategies == "all" else names,
        subsets=subsets,
        folds=options.parse_folds(folds),
        repeats=repeats,
        fold_seed=fold_seed,
        training_seeds=training_seeds,
        positive=positive,
        calibrate=calibrate,
        sensitivity=sensitivity,
        out=out,
        overwrite=overwrite,
        views=options.parse_names(views) or [],
        test_views=test_views,
        view_curve=view_curve,
        economics=economics,
        nested=nested,
        jobs=jobs,
        resume=resume,
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
    if result.fits_taken:
        taken = f"{result.fits_taken} of {result.fits} fits were taken as earlier runs left them in the cache"
        say("compare", f"{taken}; --no-resume fits them anew", json=json)
    if json:
        print_json(result.to_json())
    elif csv:
        print_text(csv_text(result.rows()).rstrip("\n"))
    else:
        print_comparison(result)
