"""Commands that compute on images: `featstore extract`, `convert`, `finetune` and `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import finish, print_json, print_result, print_screen, say


@options.reads_data
def extract(
    data: options.Data,
    backbones: options.Backbones = None,
    recipe: Annotated[
        str, typer.Option(help="Augmentation of the seeded views: a preset or recipe text.")
    ] = "paper",
    seeds: options.Seeds = None,
    weights: options.Weights = None,
    preprocess: options.Preprocess = "official",
    precision: options.Precision = "float32",
    engine: options.Engine = "auto",
    value_range: options.ValueRange = None,
    window: options.Window = None,
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

    Example: featstore extract DATA --recipe mild --seeds 1-2
    """
    from featstore.api.extract import DEFAULT_BACKBONES, extract
    from featstore.reporting.terminal.results import extraction_text

    if precision_check:
        check(
            data,
            backbones,
            weights,
            preprocess,
            precision,
            engine,
            check_images,
            value_range,
            window,
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
        engine=engine,
        recipe=recipe,
        seeds=options.parse_seeds(seeds) or (),
        value_range=options.parse_range(value_range, window),
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
        print_screen(extraction_text(result))
    finish(result.bad)


def check(
    data: Path,
    backbones: str | None,
    weights: list[str] | None,
    preprocess: str,
    precision: str,
    engine: str,
    images: int,
    value_range: str | None,
    window: str | None,
    reading: options.Reading,
    json: bool,
) -> None:
    """Print what a precision costs, and store nothing."""
    from featstore.api.extract import DEFAULT_BACKBONES, check_precision
    from featstore.reporting.terminal.results import precision_text

    say("extract", "reading some images, then loading the networks", json=json)
    result = check_precision(
        data,
        backbones=options.parse_names(backbones) or DEFAULT_BACKBONES,
        weights=options.parse_weights(weights),
        preprocess=preprocess,
        precision="bfloat16" if precision == "float32" else precision,
        engine=engine,
        images=images,
        value_range=options.parse_range(value_range, window),
        **reading,
    )
    if json:
        print_json(result.to_json())
    else:
        print_screen(precision_text(result))
    finish(result.bad)


@options.reads_data
def finetune(
    data: options.Data,
    backbone: Annotated[
        str, typer.Option(help="Name; `featstore backbones` lists them.", metavar="NAME", show_default=False)
    ],
    weights: options.Weights = None,
    recipe: Annotated[
        str, typer.Option(help="Augmentation, another view in each epoch: a preset or recipe text.")
    ] = "mild",
    epochs: Annotated[int, typer.Option(help="At most so many.")] = 10,
    patience: Annotated[
        int, typer.Option(help="Epochs without a better validation loss before it ends.")
    ] = 3,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-5,
    unfreeze: Annotated[
        int | None,
        typer.Option(
            help="How many of the last layers with weights learn; default a quarter.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 16,
    seed: Annotated[int, typer.Option(help="Of validation groups, order and dropout.")] = 0,
    test_size: Annotated[
        float, typer.Option(help="Share held out where the data has no splits, as for fuse.")
    ] = 0.25,
    split_seed: Annotated[int, typer.Option(help="Seed of that hold-out, as for fuse.")] = 0,
    preprocess: options.Preprocess = "official",
    value_range: options.ValueRange = None,
    window: options.Window = None,
    reading: options.Reading = options.PLAIN,
    out: Annotated[Path, typer.Option(help="Folder of the run; the weights lie there.")] = Path(
        "runs/finetune"
    ),
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Let the last layers of a backbone learn from the training images, and write a weights file.

    The file goes back through extract: --weights NAME=PATH. It carries the ids of the images that it has learned
    from, and neither fuse nor compare will score features of these weights on them. With a few hundred images the
    frozen network is usually as good: compare before you keep it.

    Example: featstore finetune DATA --backbone MobileNetV2 --out runs/tuned
    """
    from featstore.api.finetune import finetune
    from featstore.reporting.terminal.results import finetuning_text

    say("finetune", f"reading the data set, then loading TensorFlow and {backbone}", json=json)
    result = finetune(
        data,
        backbone=backbone,
        weights=options.parse_weights(weights),
        recipe=recipe,
        epochs=epochs,
        patience=patience,
        learning_rate=learning_rate,
        unfreeze=unfreeze,
        batch_size=batch_size,
        seed=seed,
        test_size=test_size,
        split_seed=split_seed,
        preprocess=preprocess,
        value_range=options.parse_range(value_range, window),
        **reading,
        out=out,
        overwrite=overwrite,
        progress=not json,
    )
    if json:
        print_json(result.to_json())
    else:
        print_screen(finetuning_text(result, [str(data), *options.reading_flags(reading)]))
    finish(result.bad)


@options.reads_data
def convert(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="An empty folder, or a new one.", metavar="FOLDER")],
    value_range: options.ValueRange = None,
    window: options.Window = None,
    reading: options.Reading = options.PLAIN,
    json: options.Json = False,
) -> None:
    """Write what extraction sees as PNG, with a manifest that every command reads as DATA.

    For slices and volumes these are the pixels of the window, before a network resizes them. The manifest keeps
    classes, groups, splits and sites, and says which file and page each image was made from.

    Example: featstore convert scans --window lung --out pngs
    """
    from featstore.api.convert import convert
    from featstore.reporting.terminal.results import convert_text

    say("convert", "reading the data set", json=json)
    result = convert(data, out, value_range=options.parse_range(value_range, window), **reading)
    print_result(result, convert_text, json=json)
    finish(result.bad)


def bench(
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

    Example: featstore bench --backbones EfficientNetLite0
    """
    from featstore.api.bench import bench
    from featstore.api.extract import DEFAULT_BACKBONES
    from featstore.reporting.terminal.results import bench_text

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
        print_screen(bench_text(result))
