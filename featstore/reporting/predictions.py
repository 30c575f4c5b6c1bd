"""``predictions.csv`` and ``patients.csv`` read back: what a model answered for what it had not seen."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.results.document import ROUNDING, ShapeError
from featstore.runs import csv_text
from featstore.serialization import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray


VOTE = "vote(", ")"
ID_DIGITS = 64


@dataclass(frozen=True, slots=True, eq=False)
class RunPredictions:
    """Answers of one candidate, or on one split.

    Attributes
    ----------
    ids
        Image id of each row; no path. Of a row about a patient, the digest of the name.
    groups
        ``(n,)`` patient of each row: to count and to resample them, never to be shown.
    y, answered
        ``(n,)`` index of the true class and of the one answered.
    proba
        ``(n, classes)``.
    votes
        By backbone ``(n,)``, the class that it alone would have answered; empty where that is not known.
    """

    ids: tuple[str, ...]
    groups: NDArray[np.str_]
    y: NDArray[np.intp]
    answered: NDArray[np.intp]
    proba: NDArray[np.float64]
    votes: Mapping[str, NDArray[np.intp]]

    @property
    def wrong(self) -> NDArray[np.intp]:
        """Rows that were answered wrong, the surest of these mistakes first."""
        rows = np.flatnonzero(self.y != self.answered)
        sure = self.proba[rows, self.answered[rows]]
        order: NDArray[np.intp] = rows[np.argsort(-sure, kind="stable")]
        return order


def read_predictions(
    data: bytes,
    by: str,
    wanted: Sequence[str],
    classes: Sequence[str],
    folds: int | None = None,
    *,
    of_patients: bool = False,
) -> dict[str, RunPredictions]:
    """Read the file, and part its rows by a column.

    Parameters
    ----------
    data
        Bytes of ``predictions.csv``.
    by
        ``split`` or ``contestant``.
    wanted
        Splits or candidates that must be there; rows of others are passed over.
    classes
        Names of the classes, in the order of the model.
    folds
        Folds that test every image once; rows of later ones are passed over. None where there are no folds.
    of_patients
        Whether it is ``patients.csv``.

    Raises
    ------
    ShapeError
        If it is no such table, or an image is twice in a part.
    """
    parts: dict[str, list[dict[str, str]]] = {_as_written(name): [] for name in wanted}
    first = None if folds is None else {str(fold) for fold in range(folds)}
    columns = [f"p({name})" for name in classes]
    known = {_as_written(name): at for at, name in enumerate(classes)}
    own = {by, "group", "label", "predicted", *map(_as_written, columns)}
    for line in _lines(data, own if of_patients else {"image_id", *own}):
        if of_patients:
            line["image_id"] = digest_bytes(line["group"].encode())
        if line[by] in parts and (first is None or line.get("fold") in first):
            parts[line[by]].append(line)
    return {
        name: _predictions(part, known, columns) for name, part in zip(wanted, parts.values(), strict=True)
    }


def with_votes(answers: RunPredictions, voters: Mapping[str, RunPredictions]) -> RunPredictions:
    """Add the votes of others about the same images.

    Raises
    ------
    ShapeError
        If they are not the same images, each with the same label.
    """
    votes = {}
    for name, other in voters.items():
        row = {image: at for at, image in enumerate(other.ids)}
        if set(row) != set(answers.ids):
            raise ShapeError("its candidates were not asked about the same images")
        order = np.array([row[image] for image in answers.ids])
        if (other.y[order] != answers.y).any():
            raise ShapeError("an image has two labels in it")
        votes[name] = other.answered[order]
    return replace(answers, votes=votes)


def _predictions(
    rows: Sequence[Mapping[str, str]], classes: Mapping[str, int], columns: Sequence[str]
) -> RunPredictions:
    if not rows:
        raise ShapeError("someone who was scored has no predictions")
    if len({row["image_id"] for row in rows}) < len(rows):
        raise ShapeError("an image or a patient stands in it twice")
    cells = [_as_written(name) for name in columns]
    proba = np.array([[_share(row[cell]) for cell in cells] for row in rows])
    names = [name for name in rows[0] if name.startswith(VOTE[0]) and name.endswith(VOTE[1])]
    return RunPredictions(
        tuple(_id(row["image_id"]) for row in rows),
        np.array([row["group"] for row in rows]),
        np.array([_class(row["label"], classes) for row in rows]),
        np.array([_class(row["predicted"], classes) for row in rows]),
        proba,
        {
            name[len(VOTE[0]) : -len(VOTE[1])]: np.array([_class(row[name], classes) for row in rows])
            for name in names
        },
    )


def _lines(data: bytes, wanted: set[str]) -> Iterator[dict[str, str]]:
    try:
        lines = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        header = next(lines, [])
        if len(set(header)) < len(header) or not wanted <= set(header):
            raise ShapeError("its columns are not those of predictions")
        for line in lines:
            yield dict(zip(header, line, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ShapeError("it is no CSV") from error
    except ValueError as error:
        raise ShapeError(str(error) if isinstance(error, ShapeError) else "a line is too short") from error


def _as_written(name: str) -> str:
    """A cell as the file has it, where formulas are quoted and what is no Unicode is spelt out."""
    (cell,) = next(csv.reader(io.StringIO(csv_text([[name]]), newline="")))
    return cell


def _class(cell: str, classes: Mapping[str, int]) -> int:
    if cell not in classes:
        raise ShapeError("a label is none of the classes")
    return classes[cell]


def _share(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise ShapeError("a probability is not between 0 and 1")
    return value


def _id(cell: str) -> str:
    if len(cell) != ID_DIGITS or not set(cell) <= set("0123456789abcdef"):
        raise ShapeError("an image id is none")
    return cell
