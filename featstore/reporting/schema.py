"""Schemas of ``run.json`` and ``metrics.json`` for each kind of run, and the reading of ``predictions.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.findings import CATALOGUE
from featstore.runs import csv_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray


# ``predictions.csv``: what a model answered for images that it had not seen

VOTE = "vote(", ")"
ID_DIGITS = 64


@dataclass(frozen=True, slots=True, eq=False)
class RunPredictions:
    """Answers of one candidate, or on one split.

    Attributes
    ----------
    ids
        Image id of each row; no path.
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
    data: bytes, by: str, wanted: Sequence[str], classes: Sequence[str], folds: int | None = None
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

    Raises
    ------
    ShapeError
        If it is no such table, or an image is twice in a part.
    """
    parts: dict[str, list[dict[str, str]]] = {_as_written(name): [] for name in wanted}
    first = None if folds is None else {str(fold) for fold in range(folds)}
    columns = [f"p({name})" for name in classes]
    known = {_as_written(name): at for at, name in enumerate(classes)}
    for line in _lines(data, {by, "image_id", "group", "label", "predicted", *map(_as_written, columns)}):
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
        raise ShapeError("an image stands in it twice")
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


# The shape that a foreign document must have before anyone looks into it

Shape = Callable[[Any, str], None]
"""Looks at a value, and raises `ShapeError` naming the place where it is not what it should be."""

LONGEST = 10_000
LARGEST = 2.0**63
ROUNDING = 1e-9


class ShapeError(ValueError):
    """A value of another shape than it should have. One line, without a full stop."""


def number(value: Any, where: str) -> None:  # noqa: ANN401
    """Finite, and no flag."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ShapeError(f"{where} is no number")


def share(value: Any, where: str) -> None:  # noqa: ANN401
    """From 0 to 1, but for rounding."""
    number(value, where)
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise ShapeError(f"{where} is not between 0 and 1")


def count(value: Any, where: str) -> None:  # noqa: ANN401
    """Whole, zero or more."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ShapeError(f"{where} is no count")


def flag(value: Any, where: str) -> None:  # noqa: ANN401
    """True or false."""
    if type(value) is not bool:
        raise ShapeError(f"{where} is neither true nor false")


def text(value: Any, where: str) -> None:  # noqa: ANN401
    """At most `LONGEST` characters; what they are is for whoever shows them to escape."""
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ShapeError(f"{where} is no text of up to {LONGEST} characters")


def anything(value: Any, where: str) -> None:  # noqa: ANN401
    """Whatever is there; for what is shown as JSON and not understood."""


def maybe(shape: Shape) -> Shape:
    """None, or a value of the shape."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if value is not None:
            shape(value, where)

    return check


def one_of(*known: str) -> Shape:
    """One of some words."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, str) or value not in known:
            raise ShapeError(f"{where} is none of {', '.join(known)}")

    return check


def each(shape: Shape) -> Shape:
    """Items of a list, all of one shape."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, list):
            raise ShapeError(f"{where} is no list")
        for at, part in enumerate(value):
            shape(part, f"{where}[{at}]")

    return check


def row(*shapes: Shape) -> Shape:
    """A list of exactly these."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, list) or len(value) != len(shapes):
            raise ShapeError(f"{where} is no list of {len(shapes)}")
        for at, (part, shape) in enumerate(zip(value, shapes, strict=True)):
            shape(part, f"{where}[{at}]")

    return check


def table(shape: Shape) -> Shape:
    """Values by name, all of one shape."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, dict):
            raise ShapeError(f"{where} is no table")
        for name, part in value.items():
            text(name, f"a name in {where}")
            shape(part, f"{where}.{name[:40]}")

    return check


def fields(**shapes: Shape) -> Shape:
    """At least these fields, each of its shape. Others may stand beside them: a later featstore knows more."""

    def check(value: Any, where: str) -> None:  # noqa: ANN401
        if not isinstance(value, dict):
            raise ShapeError(f"{where} is no table")
        for name, shape in shapes.items():
            if name not in value:
                raise ShapeError(f"{where} has no {name!r}")
            shape(value[name], f"{where}.{name}")

    return check


# Shapes of ``run.json`` and ``metrics.json``

INTERVAL = maybe(row(number, number))
BACKBONE = fields(
    name=text,
    weights=text,
    input_size=count,
    preprocess=text,
    dimension=count,
    precision=text,
    pooling=text,
    revision=count,
)
VIEW = fields(recipe=text, seed=count)
DECODING = fields(decoder=text, interpolation=text, value_range=maybe(row(number, number)), revision=count)
PROVENANCE = fields(
    kind=text, created=text, python=text, machine=text, libraries=table(text), files=table(text)
)
"""What every run has."""

MATRIX = fields(
    data_sha256=text,
    images=count,
    quarantined=count,
    groups=count,
    has_groups=flag,
    classes=table(count),
    positive=maybe(text),
    backbones=each(BACKBONE),
    views=each(VIEW),
    decoding=DECODING,
)
OPERATING = fields(
    calibration=maybe(fields(method=text)),
    threshold=maybe(number),
    sensitivity=maybe(share),
    positive=maybe(count),
)
CURVES = fields(
    risk_coverage=fields(coverage=each(share), risk=each(share), aurc=number),
)
CALIBRATION_ERROR = fields(ece=maybe(share), expected=maybe(share), images=count)
COEFFICIENT = fields(value=maybe(number), interval=INTERVAL)
LATER_CURVES = {
    "calibration_error": CALIBRATION_ERROR,
    "recalibration": fields(slope=COEFFICIENT, intercept=COEFFICIENT, why=text),
}
"""Parts that runs of earlier versions lack."""
TWO_CLASS_CURVES = {
    "decision": fields(threshold=each(share), net_benefit=each(number), treat_all=each(number)),
    "calibration": fields(predicted=each(share), observed=each(share), images=each(count)),
}
CHANGE = fields(before=maybe(number), after=maybe(number), difference=maybe(number), interval=INTERVAL)
FUSION = fields(
    strategy=text,
    options=table(anything),
    matrix=MATRIX,
    sizes=table(count),
    operating=OPERATING,
    scores=table(table(fields(value=maybe(number), interval=INTERVAL))),
    curves=table(CURVES),
    history=maybe(table(each(number))),
    continuation=maybe(
        fields(run=text, frozen=each(text), held_out_then=maybe(flag), changes=table(table(CHANGE)))
    ),
)

ESTIMATE = fields(mean=maybe(number), deviation=maybe(number), interval=INTERVAL, folds=each(maybe(number)))
CANDIDATE = fields(
    name=text,
    strategy=text,
    backbones=each(text),
    views=text,
    test_views=text,
    chosen=maybe(each(each(text))),
    metrics=table(ESTIMATE),
    spread=fields(patients=maybe(number), folds=maybe(number), training=maybe(number)),
    curves=CURVES,
)
PAIRWISE_DIFFERENCE = fields(
    a=text,
    b=text,
    metric=text,
    delta=number,
    interval=INTERVAL,
    p=share,
    verdict=one_of("a_better", "b_better", "cannot_tell"),
    needed=maybe(count),
    tests=table(fields(p=maybe(share), adjusted=maybe(share))),
)
SELECTION_BIAS = fields(
    name=text,
    of=count,
    metric=text,
    naive=number,
    guarded=number,
    interval=INTERVAL,
    optimism=number,
    picked=share,
)
VIEW_POINT = fields(contestant=text, metric=text, views=count, mean=maybe(number), interval=INTERVAL)
BACKBONE_COST = fields(
    name=text,
    milliseconds=maybe(number),
    basis=text,
    bytes=count,
    alone=number,
    shapley=number,
    caruana=number,
    log_me=number,
    h_score=number,
)
BACKBONE_VALUE = fields(
    metric=text,
    prices=each(BACKBONE_COST),
    exact=flag,
    front=each(fields(backbones=each(text), milliseconds=number, score=number)),
    redundancy=each(each(number)),
    agreement=table(maybe(number)),
)
PROTOCOL = fields(
    folds=count, repeats=count, fold_seed=count, calibrate=maybe(text), sensitivity=maybe(share)
)
FINDING = fields(
    code=one_of(*CATALOGUE),
    message=text,
    count=count,
    value=maybe(number),
    interval=INTERVAL,
    accepted=flag,
    remedy=text,
)
FINDINGS = each(FINDING)
"""What older runs lack."""
SHORTCUTS = each(fields(name=text, metrics=table(ESTIMATE)))
HELD_OUT_SHORTCUTS = table(table(table(fields(value=maybe(number), interval=INTERVAL))))
COMPARISON = fields(
    matrix=MATRIX,
    protocol=PROTOCOL,
    contestants=each(CANDIDATE),
    comparisons=each(PAIRWISE_DIFFERENCE),
    winner=maybe(SELECTION_BIAS),
    view_curve=each(VIEW_POINT),
    economics=maybe(BACKBONE_VALUE),
)

KEY_SUMMARY = fields(backbone=text, weights=text, recipe=text, seed=count, stored=count, missing=count)
EXTRACTION = fields(
    data_sha256=text,
    images=count,
    quarantined=table(count),
    backbones=each(BACKBONE),
    views=each(VIEW),
    decoding=maybe(DECODING),
    cells=each(KEY_SUMMARY),
    computed=count,
    missing=count,
    stored=count,
    seconds=number,
    phases=table(number),
    idle=number,
    announced_bytes=count,
    measured_bytes=count,
    precision=text,
    batch_size=count,
)

SCORE = fields(value=maybe(number), interval=INTERVAL)
REPRODUCTION = fields(
    networks=each(
        fields(
            name=text,
            label=text,
            in_paper=flag,
            digest=maybe(text),
            reason=text,
            input_size=count,
            dimension=count,
        )
    ),
    sides=table(table(table(count))),
    floor=share,
    heads=table(SCORE),
    fusions=table(table(SCORE)),
    claims=each(
        fields(name=text, title=text, accuracy=SCORE, images=maybe(count), patients=maybe(count), basis=text)
    ),
    reasons=each(text),
    figures=each(
        fields(number=maybe(count), file=text, title=text, alt=text, caption=text, shows_images=flag)
    ),
    steps=table(text),
    computed=count,
    stored=count,
)
REPRODUCED = fields(arguments=fields(data_sha256=text))
"""``run.json`` of a reproduction, beside `PROVENANCE`."""
