"""featstore predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featstore.errors import UsageError

from . import options
from .printing import finish, print_csv, print_json, print_text, say

SHOWN = 20
"""Lines on the terminal where all of them go into a file."""


@options.reads_data
def command(
    run: Annotated[Path, typer.Argument(help="Folder that `featstore fuse` left.")],
    images: Annotated[
        list[str],
        typer.Argument(help="Images, folders of images, CSV files with a column path, or quoted patterns."),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the run's own weights are: a file, random:SEED or imagenet; repeat for more backbones."
            " By default they are looked for by their digest.",
            metavar="NAME=CHOICE",
        ),
    ] = None,
    reading: options.Reading = options.PLAIN,
    out: Annotated[
        Path | None, typer.Option(help="Write all answers to this .csv or .json file.", metavar="FILE")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print a CSV table to stdout.")] = False,
    json: options.Json = False,
) -> None:
    """Apply a kept model to new images.

    Every page of a TIFF gets an answer. Images that the model has learned from are told before anything is computed,
    and marked. The backbones' weights are found by their digest, or named with --weights.

    Example: featstore predict runs/mine new_scans --out answers.csv
    """
    if csv and json:
        raise UsageError(
            "--csv and --json both want stdout.", "Choose one; --out FILE.json may go beside --csv."
        )
    from featstore.evaluation.prediction_table import refuse_unwritable, write_table

    if out is not None:
        refuse_unwritable(out, overwrite=overwrite)
    from featstore.evaluation.predict import answer, prepare
    from featstore.report.terminal.findings import findings_text
    from featstore.report.terminal.text import predictions_text

    say("predict", "reading the images and what the run has learned from", json=json)
    prepared = prepare(
        run,
        images,
        weights=options.parse_weights(weights),
        **reading,
    )
    if prepared.findings:
        print_text(findings_text(prepared.findings), err=True)
    networks = ", ".join(prepared.weights)
    say("predict", f"{len(prepared.images.records)} images; loading {networks}", json=json)
    result = answer(prepared)
    if out is not None:
        write_table(out, result)
    if json:
        print_json(result.to_json())
    elif csv:
        print_csv(result.rows())
    else:
        print_text(predictions_text(result, SHOWN if out else None))
    if out is not None:
        print_text(f"Written to {out}.", err=True)
    finish(result.bad)
