"""featstore paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import finish, print_result, say


@options.reads_data
def command(
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
    positive: options.Positive = None,
    value_range: options.ValueRange = None,
    cache: options.Cache = None,
    reading: options.Reading = options.PLAIN,
    memory: Annotated[
        str | None, typer.Option(help="Memory budget of an extraction, such as 4GB.", metavar="SIZE")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes of the comparison; -1 for one per core.")] = 1,
    json: options.Json = False,
) -> None:
    """Reproduce Ji et al. 2020 on your images, beside an honest protocol.

    Prints the paper's accuracy, this run's under the paper's protocol (split by image) and under an honest one
    (patients kept together), says why they differ, and draws a twin of every figure of the paper. A network whose
    weights are absent is listed as such. The same command again computes no feature.
    """
    from featstore.report.terminal.reproduction import reproduction_text
    from featstore.reproduction.members import SEVEN
    from featstore.reproduction.paper import paper

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
        positive=positive,
        value_range=options.parse_range(value_range),
        cache=cache,
        **reading,
        memory=None if memory is None else options.parse_bytes(memory, "--memory"),
        jobs=jobs,
        progress=not json,
    )
    print_result(result, reproduction_text, json=json)
    finish([reason for reason, count in result.conversion.unread.items() if count])
