"""The lines of ``predictions.csv``: what was said about each image that a model had not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from featstore.evaluation.standing import Standing
    from featstore.folds import Split
    from featstore.matrix import FeatureMatrix

IMAGE = ("image_id", "path", "frame", "group", "label")


def out_of_fold(
    matrix: FeatureMatrix, standings: Sequence[Standing], splits: Sequence[Split], data: Path
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
    data: Path,
) -> Iterator[list[Any]]:
    """A line per evaluated split and image, the header first."""
    yield ["split", *IMAGE, "predicted", *(f"p({name})" for name in matrix.classes)]
    for name, values in proba.items():
        for line in _lines(matrix, splits[name], values, decisions[name], data):
            yield [name, *line]


def _lines(
    matrix: FeatureMatrix,
    rows: NDArray[np.intp],
    proba: NDArray[np.float64],
    answers: NDArray[np.intp],
    data: Path,
) -> Iterator[list[Any]]:
    """Which image, its path relative to the data set, the class answered and the probabilities."""
    root = data if data.is_dir() else data.parent
    for row, p, answer in zip(rows, proba, answers, strict=True):
        record = matrix.records[row]
        path = record.path.relative_to(root) if record.path.is_relative_to(root) else record.path
        image = [record.id, str(path), record.frame, record.group, record.label]
        yield [*image, matrix.classes[answer], *map(float, p)]
