"""featstore predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .printing import finish, print_json, print_text, say


def command(
    run: Annotated[Path, typer.Argument(help="Folder that `featstore fuse` left.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    weights: options.Weights = None,
    json: options.Json = False,
) -> None:
    """Apply a kept model to new images."""
    from featstore.evaluation.predict import predict
    from featstore.report.terminal.text import predictions_text

    say("predict", f"loading the model of {run}, TensorFlow and the networks", json=json)
    result = predict(run, images, weights=options.parse_weights(weights))
    if json:
        print_json(result.to_json())
    else:
        print_text(predictions_text(result))
    finish(result.bad)
