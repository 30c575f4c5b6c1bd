"""The lines of ``predictions.csv``: what was said about each image that a model had not seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.images.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.standing import Standing
    from featstore.folds import Split
    from featstore.matrix import FeatureMatrix

IMAGE = ("image_id", "path", "frame", "group", "label")


def out_of_fold(
    matrix: FeatureMatrix, standings: Sequence[Standing], splits: Sequence[Split], data: str | Path | Manifest
) -> Iterator[list[Any]]:
    """A line per contestant, fold and image, the header first."""
    yield ["contestant", "fold", *IMAGE, "predicted", *(f"p({name})" for name in matrix.classes)]
    for s in standings:
        for fold, ((_, test), proba, answers) in enumerate(zip(splits, s.proba, s.decisions, strict=True)):
            for line in _lines(matrix, test, proba, answers, data):
                yield [s.contestant.label, fold, *line]


def held_out(
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
    proba: Mapping[str, NDArray[np.float64]],
    decisions: Mapping[str, NDArray[np.intp]],
    votes: Mapping[str, NDArray[np.intp]],
    data: str | Path | Manifest,
) -> Iterator[list[Any]]:
    """A line per evaluated split and image, the header first.

    The last columns are the class that each backbone alone would have answered, by split ``(images, backbones)``;
    a strategy whose backbones do not vote has none.
    """
    voters = matrix.backbones if votes else ()
    columns = [*(f"p({name})" for name in matrix.classes), *(f"vote({name})" for name in voters)]
    yield ["split", *IMAGE, "predicted", *columns]
    for name, values in proba.items():
        ballots = votes.get(name, np.empty((len(values), 0), np.intp))
        lines = _lines(matrix, splits[name], values, decisions[name], data)
        for line, ballot in zip(lines, ballots, strict=True):
            yield [name, *line, *(matrix.classes[vote] for vote in ballot)]


def _lines(
    matrix: FeatureMatrix,
    rows: NDArray[np.intp],
    proba: NDArray[np.float64],
    answers: NDArray[np.intp],
    data: str | Path | Manifest,
) -> Iterator[list[Any]]:
    """Which image, its path relative to the data set, the class answered and the probabilities."""
    root = _root(data)
    for row, p, answer in zip(rows, proba, answers, strict=True):
        record = matrix.records[row]
        path = record.path.relative_to(root) if record.path.is_relative_to(root) else record.path
        image = [record.id, str(path), record.frame, record.group, record.label]
        yield [*image, matrix.classes[answer], *map(float, p)]


def _root(data: str | Path | Manifest) -> Path:
    """Folder that the paths of a data set are relative to."""
    if isinstance(data, Manifest):
        return data.root
    return Path(data) if Path(data).is_dir() else Path(data).parent
