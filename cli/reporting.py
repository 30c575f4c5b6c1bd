"""Commands `featstore report`, `paper` and `demo`, `doctor`, and the lists of backbones, strategies and recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .printing import (
    columns,
    finish,
    print_demonstration,
    print_json,
    print_result,
    print_screen,
    print_text,
    say,
)

if TYPE_CHECKING:
    from featstore.tables import Rows

NOT_READY = 1


@options.reads_data
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of extract, fuse and compare.", metavar="RUN")],
    out: Annotated[
        Path | None, typer.Option(help="The file; default report.html in the first RUN.", metavar="FILE")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="What the runs were made from: adds audit, distribution and map.", metavar="DATA"),
    ] = None,
    cache: options.Cache = None,
    with_images: Annotated[
        bool,
        typer.Option(
            "--with-images",
            help="Thumbnails of the cases answered wrong, and where the evidence lies; needs --data.",
        ),
    ] = False,
    weights: options.RunWeights = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names", help="Names of the files of these cases, for their owner alone; needs --data."
        ),
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(help="Every figure as a file of its own, with captions.", metavar="DIR")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Of these files, with commas.", metavar="pdf,png,svg")
    ] = "pdf,png,svg",
    dpi: Annotated[int, typer.Option(help="Dots per inch of a PNG.", min=72, max=1200)] = 300,
    reading: options.Reading = options.PLAIN,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is no report, and other figures.")
    ] = False,
    json: options.Json = False,
) -> None:
    """One HTML file that says what runs found.

    The answer with its picture, findings, patients, scores, figures, cases answered wrong, provenance, limits, model
    card and reporting checklists. It loads nothing and works offline; it prints on a few pages; several runs are set
    side by side.

    Example: featstore report runs/mine --data DATA
    """
    from featstore.api.report import write_report

    if with_images:
        say("report", "reading the runs and the images; for maps of a fit its networks are loaded", json=json)
    written = write_report(
        runs,
        out,
        data,
        cache,
        with_images=with_images,
        weights=options.parse_weights(weights),
        names=names,
        figures=figures,
        formats=options.parse_names(formats) or (),
        dpi=dpi,
        **reading,
        overwrite=overwrite,
    )
    if json:
        where = {} if figures is None else {"figures": str(figures)}
        print_json({"report": str(written), "bytes": written.stat().st_size, **where})
    else:
        drawn = "" if figures is None else f" Its figures are in {figures}."
        print_text(f"The report is in {written}: open it in any browser.{drawn}")


@options.reads_data
def paper(
    data: options.Data,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Names, with commas; default the seven of the paper. Others are extra.", metavar="A,B"
        ),
    ] = None,
    weights: options.Weights = None,
    precision: options.Precision = "float32",
    out: Annotated[Path, typer.Option(help="Folder of the run and of its steps.")] = Path("runs/paper"),
    overwrite: options.Overwrite = False,
    images: Annotated[
        int | None, typer.Option(help="About so many images, as whole patients; default all.", min=8)
    ] = None,
    views: Annotated[int, typer.Option(help="Augmented views of each training image.", min=1)] = 2,
    epochs: Annotated[int, typer.Option(help="Epochs of each head.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the sample of patients and of the splits.", min=0)] = 0,
    paper_split: Annotated[
        bool,
        typer.Option("--paper-split", help="The paper's proportions: 2,450 of 6,000 to train; default .45."),
    ] = False,
    positive: options.Positive = None,
    value_range: options.ValueRange = None,
    window: options.Window = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    memory: Annotated[
        str | None, typer.Option(help="Memory budget of an extraction, such as 4GB.", metavar="SIZE")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes of the comparison; -1 for one per core.")] = 1,
    json: options.Json = False,
) -> None:
    """Reproduce the source paper on your images, beside an honest protocol (Ji and others, 2020).

    Prints the paper's accuracy, this run's under the paper's protocol (split by image) and under an honest one
    (patients kept together), says why they differ, and draws every figure of the paper. A network whose
    weights are absent is listed as such. The same command again computes no feature.

    Example: featstore paper DATA --out runs/paper
    """
    from featstore.reporting.terminal.results import reproduction_text
    from featstore.reproduction.paper import paper
    from featstore.reproduction.protocol import SEVEN

    say("paper", "reading the data set", json=json)
    result = paper(
        data,
        backbones=options.parse_names(backbones) or SEVEN,
        weights=options.parse_weights(weights),
        precision=precision,
        out=out,
        overwrite=overwrite,
        images=images,
        views=views,
        epochs=epochs,
        seed=seed,
        paper_split=paper_split,
        positive=positive,
        value_range=options.parse_range(value_range, window),
        cache=cache,
        **reading,
        memory=None if memory is None else options.parse_bytes(memory, "--memory"),
        jobs=jobs,
        progress=not json,
    )
    print_result(result, reproduction_text, json=json)
    finish([reason for reason, count in result.conversion.unread.items() if count])


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the generated images and the runs.")] = Path(
        "runs/demo"
    ),
    cache: options.Cache = None,
    patients: Annotated[int, typer.Option(help="Generated patients, four slices each.")] = 48,
    json: options.Json = False,
) -> None:
    """Run everything on generated lung-CT slices, offline.

    Generates a data set, extracts features, fits a fusion, compares strategies, and writes a report.

    Example: featstore demo --out runs/demo
    """
    from featstore.api.demo import demo

    result = demo(out, cache=cache, patients=patients, progress=not json)
    if json:
        print_json(result.to_json())
    else:
        print_demonstration(result)


def doctor(
    backbones: Annotated[
        str | None,
        typer.Option(help="Networks whose weights must be here: Xception,MobileNetV2.", metavar="A,B"),
    ] = None,
    load_engines: Annotated[
        bool,
        typer.Option("--load-engines", help="Load TensorFlow and JAX, and ask them for their GPUs."),
    ] = False,
    cache: options.Cache = None,
    details: Annotated[
        bool, typer.Option("--details", help="Name every file of weights that is not here.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Look at this machine: what featstore finds here, what is missing, and what to do about it.

    Versions, engines, GPUs, bfloat16, memory, disk, weights and where missing files go, and the health of the cache.
    Changes and fetches nothing. Exit code 1 if something is missing that featstore cannot do without.

    Example: featstore doctor --backbones Xception
    """
    from featstore.api.doctor import doctor
    from featstore.reporting.terminal.machine import machine_text

    if load_engines:
        say("doctor", "loading the engines", json=json)
    result = doctor(
        cache,
        backbones=options.parse_names(backbones) or (),
        load_engines=load_engines,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(machine_text(result, details=details))
    if not result.ready:
        raise typer.Exit(NOT_READY)


def backbones(json: options.Json = False) -> None:
    """List the frozen networks: input size, dimension, cost, and whether their ImageNet weights are here."""
    from dataclasses import asdict

    from featstore.backbones import catalog
    from featstore.backbones.weights import ABSENT, UNPUBLISHED, backbones
    from featstore.findings import counted

    rows = backbones()
    if json:
        print_json([{**asdict(catalog.row(row.name)), "weights": row.weights} for row in rows])
        return
    here = sum(row.weights not in {ABSENT, UNPUBLISHED} for row in rows)
    _print_rows(f"{counted(len(rows), 'network')}, {here} of them with their weights here.", rows)


def strategies(json: options.Json = False) -> None:
    """List the fusion strategies: where they fuse, from how many backbones, and what they do."""
    from featstore.findings import counted
    from featstore.fusion.strategies import strategies

    rows = strategies()
    if json:
        print_json(
            {
                row.name: {"level": row.level, "min_blocks": row.min_blocks, "summary": row.summary}
                for row in rows
            }
        )
        return
    floors = sum(row.level == "floor" for row in rows)
    head = (
        f"{counted(len(rows), 'strategy', 'strategies')}, {floors} of them simple baselines (floor) to beat."
    )
    _print_rows(head, rows)


def recipes(json: options.Json = False) -> None:
    """List the augmentation presets."""
    from featstore.images.recipe import recipes

    rows = recipes()
    if json:
        print_json({row.name: row.recipe for row in rows})
        return
    _print_rows("`featstore extract DATA --recipe NAME` takes one of these, or a text of your own.", rows)


def _print_rows(head: str, rows: Rows[Any]) -> None:
    """Print a list under its first line, as wide as the terminal, and as wide as a page where there is none."""
    print_screen(head)
    print_text(f"\n{rows.text(columns())}")
