"""featstore cache export and import: features to and from tools that know nothing of featstore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import print_result


@options.reads_data
def export(
    data: options.Data,
    out: Annotated[Path, typer.Argument(help="X.npz, X.parquet, or a folder for gap_<Backbone>.h5.")],
    layout: Annotated[
        str | None,
        typer.Option("--format", help="npz, parquet or gap; default by the name of OUT.", show_default=False),
    ] = None,
    backbones: options.StoredBackbones = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the view, where several are stored.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the augmented view; default the identity view.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    weights: options.Weights = None,
    preprocess: options.StoredPreprocess = None,
    precision: options.StoredPrecision = None,
    value_range: options.ValueRange = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Write the stored features of DATA in one view to OUT, for tools that know nothing of featstore.

    Rows carry image id, relative path, label, group and split: keep the file as safe as the images.
    """
    from featstore.exchange.export import export_features
    from featstore.report.terminal.cache import export_text

    source = options.source(
        backbones,
        weights,
        preprocess,
        precision,
        recipe,
        None,
        value_range,
        cache,
        reading,
    )
    result = export_features(data, out, layout=layout, seed=seed, overwrite=overwrite, **source)
    print_result(result, export_text, json=json)


@options.reads_data
def import_(
    data: options.Data,
    file: Annotated[Path, typer.Argument(help="Features of another program: .npz, .h5, .parquet or .csv.")],
    name: Annotated[str, typer.Option(help="What the backbone shall be called.")],
    features: Annotated[
        str | None,
        typer.Option(
            help="Block of numbers in the file, where it has several; or columns, A,B or 'f*', whatever they are.",
            show_default=False,
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(help="Columns that are no features: A,B or 'meta*'.", show_default=False, metavar="A,B"),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="Column of image ids or paths in the file.", show_default=False)
    ] = None,
    value_range: options.ValueRange = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Take in vectors that another program computed, as a backbone of their own.

    Rows are matched to the images of DATA by image id, relative path or a name that fits one image alone, never by
    position. Columns without a name, that count the rows or that tell the class are left out and listed. A file that
    could run code or reaches outside itself is refused, and so is one with a row that belongs to no image.
    """
    from featstore.exchange.foreign import import_features
    from featstore.report.terminal.cache import import_text

    result = import_features(
        data,
        file,
        name,
        features=features,
        ignore=options.parse_names(ignore) or (),
        rows=rows,
        value_range=options.parse_range(value_range),
        cache=cache,
        **reading,
    )
    print_result(result, import_text, json=json)
