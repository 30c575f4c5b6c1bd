"""Commands `featstore cache`: list, verify, repair and compact the store, export and import features.

Export and import carry features to and from tools that know nothing of featstore.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from featstore.errors import UsageError

from . import options
from .printing import columns, finish, print_json, print_result, print_screen, print_text, say

# Export and import


@options.reads_data
def export(
    data: options.Data,
    out: Annotated[
        Path, typer.Argument(help="X.npz, X.parquet, or a folder for gap_<Backbone>.h5.", metavar="OUT")
    ],
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
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Write the stored features of DATA in one view to OUT, for tools that know nothing of featstore.

    Rows carry image id, relative path, label, group and split: keep the file as safe as the images.

    Example: featstore cache export DATA features.npz
    """
    from featstore.api.exchange import export_features
    from featstore.reporting.terminal.results import export_text

    source = options.source(
        backbones,
        weights,
        preprocess,
        precision,
        recipe,
        None,
        value_range,
        window,
        cache,
        reading,
    )
    result = export_features(data, out, layout=layout, seed=seed, overwrite=overwrite, **source)
    print_result(result, export_text, json=json)


@options.reads_data
def import_(
    data: options.Data,
    file: Annotated[
        Path, typer.Argument(help="Features of another program: .npz, .h5, .parquet or .csv.", metavar="FILE")
    ],
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
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Take in vectors that another program computed, as a backbone of their own.

    Rows are matched to the images of DATA by image id, relative path or a name that fits one image alone, never by
    position. Columns without a name, that count the rows or that tell the class are left out and listed. A file that
    could run code or reaches outside itself is refused, and so is one with a row that belongs to no image.

    Example: featstore cache import DATA radiomics.csv --name radiomics
    """
    from featstore.api.exchange import import_features
    from featstore.reporting.terminal.results import import_text

    result = import_features(
        data,
        file,
        name,
        features=features,
        ignore=options.parse_names(ignore) or (),
        rows=rows,
        value_range=options.parse_range(value_range, window),
        cache=cache,
        **reading,
    )
    print_result(result, import_text, json=json)


# The commands on the store itself

app = typer.Typer(
    no_args_is_help=True, help="Look at the store, mend it, tidy it up; carry features in and out."
)
DRIFTED, STORE_FAILED = 1, 4

By = Annotated[str, typer.Option(help="backbone, view or age.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command("ls", cls=options.GroupedCommand)
def ls(by: By = "backbone", cache: options.Cache = None, json: options.Json = False) -> None:
    """List what is stored, a line per backbone and view, in the order of --by.

    Example: featstore cache ls --by age
    """
    from featstore.api.cache import inventory
    from featstore.reporting.terminal.results import inventory_text

    entries = inventory(cache, by=by)
    if json:
        print_json([asdict(entry) for entry in entries])
    else:
        print_screen(inventory_text(entries, columns()))


@app.command("du", cls=options.GroupedCommand)
def du(by: By = "backbone", cache: options.Cache = None, json: options.Json = False) -> None:
    """Sum the bytes by backbone, view or age, and those of quarantine.

    Example: featstore cache du --by view
    """
    from featstore.api.cache import usage
    from featstore.reporting.terminal.results import usage_text

    sizes = usage(cache, by=by)
    if json:
        print_json(sizes)
    else:
        print_text(usage_text(sizes))


@app.command("verify", cls=options.GroupedCommand)
def verify(
    fast: Annotated[bool, typer.Option("--fast", help="Only names, sizes and headers.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is bad, and say what must be computed again.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="Shards at a time; default one per core.", show_default=False)
    ] = None,
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Check every file: hash, structure, shape and finite values of shards, and what lies beside them.

    Changes nothing without --repair. Exit code 4 if anything is bad.

    Example: featstore cache verify --fast
    """
    from featstore.api.cache import verify
    from featstore.reporting.terminal.results import verification_text

    result = verify(cache, fast=fast, repair=repair, threads=threads, progress=not json)
    print_result(result, verification_text, json=json)
    if result.bad:
        raise typer.Exit(STORE_FAILED)


@app.command("gc", cls=options.GroupedCommand)
@options.reads_data
def gc(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="All data sets still wanted; without any, no image's vectors go.",
            metavar="DATA",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    reading: options.Reading = options.PLAIN,
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Delete what no run will ask for: leftovers of killed writers, vectors of an earlier featstore.

    With DATA also the vectors of images that are in none of these data sets. Lists everything and asks first.
    Quarantine is left alone; delete it by hand when you no longer need it.

    Example: featstore cache gc DATA --dry-run
    """
    from featstore.api.cache import gc
    from featstore.reporting.terminal.results import garbage_text

    if not (dry_run or yes) and (json or not sys.stdin.isatty()):
        raise UsageError("There is nobody here to ask.", "Look with --dry-run first, then delete with --yes.")

    def confirm(found: Any) -> bool:
        print_text(garbage_text(found, columns()), err=True)
        return typer.confirm("Delete this?", err=True)

    result = gc(*data or [], cache=cache, dry_run=dry_run, confirm=None if yes else confirm, **reading)
    print_result(result, lambda found: garbage_text(found, columns()), json=json)


@app.command("compact", cls=options.GroupedCommand)
def compact(
    target: Annotated[str, typer.Option(help="Bytes of vectors per shard.", metavar="BYTES")] = "4MB",
    dry_run: DryRun = False,
    cache: options.Cache = None,
    json: options.Json = False,
) -> None:
    """Merge small shards into few; the same rows, read back before the old files go.

    Example: featstore cache compact --dry-run
    """
    from featstore.api.cache import compact
    from featstore.reporting.terminal.results import compaction_text

    result = compact(cache, target=options.parse_bytes(target, "--target"), dry_run=dry_run)
    print_result(result, compaction_text, json=json)


@app.command("drift", cls=options.GroupedCommand)
@options.reads_data
def drift(
    data: options.Data,
    rows: Annotated[int, typer.Option(help="Stored vectors to compute again, per backbone.")] = 20,
    backbones: options.Backbones = None,
    weights: options.Weights = None,
    preprocess: options.Preprocess = "official",
    precision: options.Precision = "float32",
    engine: options.Engine = "auto",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    tolerance: Annotated[float, typer.Option(help="Share of the spread between images.")] = 0.001,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Compute some stored vectors again: whether a library or the machine has changed what comes out.

    Exit code 1 if a value moved by more than --tolerance of the spread between images.

    Example: featstore cache drift DATA --rows 50
    """
    from featstore.api.cache import drift
    from featstore.reporting.terminal.results import drift_text

    say("drift", "reading the data set, then loading the networks", json=json)
    result = drift(
        data,
        rows=rows,
        backbones=options.parse_names(backbones),
        weights=options.parse_weights(weights),
        preprocess=preprocess,
        precision=precision,
        engine=engine,
        value_range=options.parse_range(value_range, window),
        cache=cache,
        seed=seed,
        tolerance=tolerance,
        **reading,
    )
    print_result(result, drift_text, json=json)
    if result.drifted:
        raise typer.Exit(DRIFTED)
    finish(result.bad)


app.command("export", cls=options.GroupedCommand)(export)
app.command("import", cls=options.GroupedCommand)(import_)
