"""A fine-tuning as plain text."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from featstore.report.plain import counts, duration, table

if TYPE_CHECKING:
    from featstore.extraction.finetuning import Finetuning

ROLES = {"trained": "learned from", "validated": "to choose the epoch"}


def finetuning_text(result: Finetuning, data: str) -> str:
    """What was learned from what, whether it helped, and the next two commands."""
    sizes = ", ".join(
        f"{count} {ROLES.get(side, f'held out ({side})')}" for side, count in result.sizes.items()
    )
    rows = [
        [epoch, *(f"{value:.3f}" for value in values)]
        for epoch, values in enumerate(zip(*result.history.values(), strict=True), 1)
    ]
    head = f"{result.backbone}: the last {result.layers} of {result.of_layers} layers have learned"
    return "\n\n".join(
        [
            f"{head}; classes: {counts(result.classes)}.\nImages: {sizes}.",
            table(["epoch", *(name.replace("_", " ") for name in result.history)], rows),
            _verdict(result),
            f"The weights are in {result.weights}, with the ids of the images that they know.",
            "Next:\n" + "\n".join(f"  {line}" for line in next_commands(result, data)),
        ]
    )


def next_commands(result: Finetuning, data: str) -> tuple[str, str]:
    """Commands that extract and score features of the new weights, on images that they have not met."""
    options = result.options
    choice = ["--backbones", result.backbone, "--weights", f"{result.backbone}={result.weights}"]
    if options["preprocess"] != "official":
        choice += ["--preprocess", options["preprocess"]]
    if options["value_range"] is not None:
        choice += ["--range={:g},{:g}".format(*options["value_range"])]
    split = ["--test-size", f"{options['test_size']:g}", "--split-seed", str(options["split_seed"])]
    return (
        shlex.join(["featstore", "extract", data, *choice]),
        shlex.join(["featstore", "fuse", data, *choice, *split]),
    )


def _verdict(result: Finetuning) -> str:
    before, after = result.before, result.after
    if result.best_epoch == 0:
        return (
            f"No epoch was better than the frozen network under a linear probe (validation loss {before.loss:.3f},"
            f" accuracy {before.accuracy:.3f}):\nthe file holds the weights unchanged. Keep the old ones."
        )
    return (
        f"Best of {result.epochs} epochs: {result.best_epoch}. Validation loss {before.loss:.3f} before,"
        f" {after.loss:.3f} after; accuracy {before.accuracy:.3f} and {after.accuracy:.3f}"
        f" ({duration(result.seconds)})."
    )
