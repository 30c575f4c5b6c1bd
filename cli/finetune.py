"""featstore finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import finish, print_json, print_text, say


@options.reads_data
def command(
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
    """
    from featstore.extraction.finetune import finetune
    from featstore.report.terminal.finetuning import finetuning_text

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
        value_range=options.parse_range(value_range),
        **reading,
        out=out,
        overwrite=overwrite,
        progress=not json,
    )
    if json:
        print_json(result.to_json())
    else:
        print_text(finetuning_text(result, str(data)))
    finish(result.bad)
