"""Which pictures a run has, and what they are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry
from featstore.evaluation.comparison import Comparison
from featstore.evaluation.contestants import STRATEGIES
from featstore.evaluation.fuse import Fusion
from featstore.evaluation.metrics import PRIMARY
from featstore.report import figures
from featstore.report.plain import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.report.figures import Picture
    from featstore.report.figures.bands import Stated
    from featstore.report.records.answers import Answers
    from featstore.report.records.record import Record

BEST = 24
"""Contestants in a figure; the table has all."""
POINTS = 2000
"""Images on a map; more of them hide each other."""
CURVES = 5
"""Contestants whose curves can be told apart in one figure."""


def pictures_of(record: Record) -> list[Picture]:
    """Pictures that a run's own numbers suffice for, the one that matters first."""
    match record.outcome:
        case Comparison() as comparison:
            return [
                *_standings(record, comparison),
                *_answers(record, list(record.answers)[:CURVES]),
                *_curves({name: comparison.curves[name] for name in list(record.answers)[:CURVES]}),
                *_prices(record.metrics),
            ]
        case Fusion() as fusion:
            return [
                *_answers(record, [record.shown or ""]),
                *_curves({fusion.strategy: fusion.curves[record.shown or ""]}),
                *_training(fusion),
                _diagram(record, fusion.strategy),
            ]
        case _:
            return []


def distribution_of(counts: Mapping[str, Mapping[str, int]]) -> Picture:
    """Images by split and class."""
    return figures.distribution(
        {split: {printable(label): n for label, n in part.items()} for split, part in counts.items()}
    )


def maps_of(matrix: FeatureMatrix) -> list[Picture]:
    """Feature vectors in the plane, coloured by label, patient and site; patients are numbered, not named.

    Of more than `POINTS` images, every so-many-th is drawn.
    """
    step = -(-len(matrix.records) // POINTS)
    numbers = {group: f"patient {at}" for at, group in enumerate(sorted(set(matrix.groups.tolist())), 1)}
    colours = {"label": [printable(record.label) for record in matrix.records]}
    if matrix.has_groups:
        colours["patient"] = [numbers[group] for group in matrix.groups.tolist()]
    if any(record.site for record in matrix.records):
        colours["site"] = [printable(record.site or "not said") for record in matrix.records]
    return [
        figures.embedding_map(
            matrix.features[0, ::step],
            {name: values[::step]},
            name=f"map-{name}",
            title=f"The images by their vectors, coloured by {name}",
        )
        for name, values in colours.items()
    ]


def _standings(record: Record, comparison: Comparison) -> Iterator[Picture]:
    """Who stands where."""
    everyone = sorted(record.metrics["contestants"], key=lambda c: -(c["metrics"][PRIMARY]["mean"] or 0.0))
    best = everyone[:BEST]
    yield figures.forest(best)
    if len(best) > 2:  # noqa: PLR2004 - ranks of two say what the forest says
        yield figures.critical_difference({c["name"]: c["metrics"][PRIMARY]["folds"] for c in everyone})
    subsets = {tuple(c["backbones"]) for c in everyone if c["chosen"] is None}
    if len(subsets) > len(record.matrix["backbones"]) + 1:  # more than the singles and all together
        yield figures.lattice(record.metrics["contestants"])
    if comparison.view_curve:
        yield figures.views_curve(record.metrics["view_curve"])


def _answers(record: Record, names: list[str]) -> Iterator[Picture]:
    """What was answered, and how well the probabilities rank the images."""
    answers = record.answers[record.shown or ""]
    classes = [printable(name) for name in record.matrix["classes"]]
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (answers.y, answers.answered), 1)
    yield figures.confusion(counts, classes)
    place = record.matrix["positive"]
    positive = None if place is None else list(record.matrix["classes"]).index(place)
    y = answers.y if positive is None else answers.y == positive
    scores = {printable(name): _ranked(record.answers[name], answers, positive) for name in names}
    groups = answers.groups if record.matrix["has_groups"] else None
    yield figures.roc(y, scores, groups, stated=_stated(record, names, "auc"))
    yield figures.precision_recall(y, scores, groups, stated=_stated(record, names, "average_precision"))


def _stated(record: Record, names: list[str], metric: str) -> dict[str, Stated]:
    """The numbers of the table, so that no figure has others."""
    match record.outcome:
        case Fusion() as fusion:
            found = {name: fusion.scores[name][metric] for name in names}
            return {printable(n): (s.value, s.interval) for n, s in found.items() if s.value is not None}
        case Comparison() as comparison:
            means = {s.contestant.label: s.estimates[metric] for s in comparison.standings}
            return {
                printable(n): (mean, means[n].interval) for n in names if (mean := means[n].mean) is not None
            }
        case _:
            return {}


def _ranked(answers: Answers, first: Answers, positive: int | None) -> NDArray[np.float64]:
    """Probabilities of the same images in the order of the first."""
    row = {image: at for at, image in enumerate(answers.ids)}
    order = np.array([row[image] for image in first.ids])
    ranked: NDArray[np.float64] = answers.proba[order] if positive is None else answers.proba[order, positive]
    return ranked


def _curves(curves: Mapping[str, Any]) -> Iterator[Picture]:
    """What the probabilities are worth."""
    named = {printable(name): part for name, part in curves.items()}
    if any("calibration" in part for part in named.values()):
        yield figures.reliability(named)
        yield figures.decision_curves(named)
    yield figures.risk_coverage(named)


def _training(fusion: Fusion) -> Iterator[Picture]:
    history = fusion.history or {}
    if "accuracy" in history:
        yield figures.accuracy_curves(history, name="accuracy", title="Accuracy by epoch")
    if "loss" in history:
        yield figures.loss_curves(history, name="loss", title="Loss by epoch")


def _diagram(record: Record, strategy: str) -> Picture:
    specs = record.matrix["backbones"]
    return figures.fusion_diagram(
        {spec["name"]: spec["dimension"] for spec in specs},
        strategy,
        [printable(name) for name in record.matrix["classes"]],
        inputs={spec["name"]: spec["input_size"] for spec in specs},
        level=registry.load(STRATEGIES, strategy).level,
    )


def _prices(metrics: Mapping[str, Any]) -> Iterator[Picture]:
    economics = metrics["economics"]
    if economics is not None and economics["front"]:
        yield figures.pareto(economics["front"])
