"""Going on from the weights of an earlier run: what the two must share, and what it changed."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import run
from featstore.errors import RunError, UsageError
from featstore.evaluation.bootstrap import group_weights
from featstore.evaluation.intervals import bases, difference_interval
from featstore.evaluation.metrics import BOUNDED, ENOUGH_IMAGES, decide, score
from featstore.evaluation.training_images import read_training_images
from featstore.fusion.bundle import read_bundle
from featstore.fusion.neural import NeuralStrategy
from featstore.store.known_images import KnownImages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.evaluation.intervals import Basis
    from featstore.matrix import FeatureMatrix


@dataclass(frozen=True, slots=True)
class Change:
    """A metric on the same held-out images before and after, and the difference with its paired 95 % interval.

    None where undefined. The interval: `featstore.evaluation.intervals.difference_interval`.
    """

    before: float | None
    after: float | None
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a fine-tuning went on from, and what came of it.

    Attributes
    ----------
    run
        Folder of the earlier run.
    frozen
        Blocks whose input weights stayed.
    held_out_then
        Whether the earlier run is known to have held out the images scored here; None where it saw another table,
        which may have held the same patients: "before" may then flatter it.
    changes
        By evaluated split and metric, on probabilities before any calibration.
    """

    run: str
    frozen: tuple[str, ...]
    held_out_then: bool | None
    changes: Mapping[str, Mapping[str, Change]]


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """A fitted network, and what its run says of itself."""

    folder: Path
    model: NeuralStrategy
    document: Mapping[str, Any]

    def options(self) -> dict[str, Any]:
        """Parameters to go on with: the same, but at a rate of its own."""
        params: dict[str, Any] = self.model.get_params(deep=False)
        return {key: value for key, value in params.items() if key not in {"blocks", "learning_rate"}}

    def learned(self) -> KnownImages:
        """What it has learned from, as far as it says so."""
        found = read_training_images(self.folder, self.document)
        return KnownImages(is_complete=False) if found is None else found

    def held_out(self, matrix: FeatureMatrix, rows: NDArray[np.intp]) -> bool | None:
        """Whether it held out these images, None if it saw another table.

        Raises
        ------
        UsageError
            If it saw this table, and was trained on some of them.
        """
        if self.document["matrix"]["data_sha256"] != run.data_digest(matrix.records):
            return None
        run.require_own(self.folder, self.document, run.PREDICTIONS)
        with (self.folder / run.PREDICTIONS).open(encoding="utf-8", newline="") as lines:
            known = {line["image_id"] for line in csv.DictReader(lines)}
        seen = sum(matrix.records[row].id not in known for row in rows)
        if seen:
            raise UsageError(
                f"{self.folder} was trained on {seen} of the {len(rows)} images held out here.",
                "Give the --test-size and --split-seed of that run.",
            )
        return True

    def changes(
        self,
        matrix: FeatureMatrix,
        tested: Mapping[str, NDArray[np.intp]],
        ask: Callable[[NeuralStrategy, NDArray[np.intp]], NDArray[np.float64]],
        after: Mapping[str, NDArray[np.float64]],
        positive: int | None,
    ) -> dict[str, dict[str, Change]]:
        """By split and metric, from its own answers to `ask` to the probabilities `after` ``(rows, classes)``."""
        found = {}
        for name, rows in tested.items():
            y, groups = matrix.y[rows], matrix.groups[rows]
            weights = np.vstack([np.ones((1, len(rows))), group_weights(groups)])
            both = ask(self.model, rows), after[name]
            old, new = (score(y, p, weights, positive) for p in both)
            first, last = (bases(y, p, decide(p, positive), groups, positive) for p in both)
            found[name] = {
                metric: _change(metric, (old[metric], new[metric]), (first[metric], last[metric]))
                for metric in new
            }
            if len(rows) < ENOUGH_IMAGES:
                found[name]["ece"] = Change(None, None, None, None)
        return found


def refuse_contradiction(
    init_from: str | Path | None, freeze_blocks: Sequence[str], *, calibrated: bool
) -> None:
    """Make sure that the options of a fine-tuning can be meant together.

    Raises
    ------
    UsageError
        If they cannot.
    """
    if freeze_blocks and init_from is None:
        raise UsageError("There are no earlier weights to freeze.", "Add --init-from RUN.")
    if calibrated and init_from is not None:
        raise UsageError(
            "A fine-tuned model cannot be calibrated: the earlier one may know the images to calibrate on.",
            "Leave out --calibrate and --sensitivity.",
        )


def read_earlier(folder: Path, strategy: str, matrix: FeatureMatrix) -> Earlier:
    """Read the network of a run, if `matrix` holds what it was fitted on.

    Raises
    ------
    RunError
        If there is no model, or it is damaged.
    UsageError
        If it is another strategy, no network, or one of other features or classes.
    """
    document = run.read_run(folder)
    if document.get("kind") != "fuse":
        raise RunError(f"{folder} holds no model.", "Give a run of `featstore fuse`.")
    if document["strategy"] != strategy:
        raise UsageError(
            f"{folder} holds {document['strategy']}, not {strategy}.",
            f"Add --strategy {document['strategy']}.",
        )
    run.require_own(folder, document, run.MODEL_STATE)
    model, extra = read_bundle(folder / run.MODEL)
    if not isinstance(model, NeuralStrategy):
        raise UsageError(
            f"{strategy} has no weights to go on from.",
            "Use concat_head, concat_mlp, gated_head or bilinear_head.",
        )
    theirs, ours = document["matrix"]["backbones"], _plain(run.describe(matrix, None)["backbones"])
    if theirs != ours:
        raise UsageError(
            f"{folder} was fitted on {_names(theirs)}, these features are {_names(ours)}"
            f"{' with other weights or preprocessing' if _names(theirs) == _names(ours) else ''}.",
            "Give the same --backbones, --weights, --preprocess and --precision.",
        )
    if extra.get("classes") != list(matrix.classes):
        raise UsageError(
            f"{folder} knows other classes: {', '.join(extra.get('classes', []))}.",
            "Fine-tune with the same classes.",
        )
    return Earlier(folder, model, document)


def _change(
    name: str,
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    around: tuple[Basis | None, Basis | None],
) -> Change:
    before, after = float(scores[0][0]), float(scores[1][0])
    if not np.isfinite(after - before):
        return Change(None, None, None, None)
    interval = difference_interval(
        (before, after), (scores[0][1:], scores[1][1:]), around, bounded=name in BOUNDED
    )
    return Change(before, after, after - before, interval)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def _names(specs: Sequence[Mapping[str, Any]]) -> str:
    return "+".join(str(spec["name"]) for spec in specs)
