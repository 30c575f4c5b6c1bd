"""Cases of a report that were answered wrong, and the pictures of a run."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry
from featstore.errors import FeatstoreError
from featstore.evaluation.candidates import STRATEGIES
from featstore.evaluation.metrics import PRIMARY
from featstore.images.augment import thumbnail
from featstore.images.reading import read_pixels
from featstore.matrix import FeatureMatrix, assemble
from featstore.reporting import figures
from featstore.results.comparison import Comparison
from featstore.results.fusion import Fusion
from featstore.runs import data_digest, keys_of
from featstore.serialization import SHORT_DIGITS
from featstore.store.store import Store, default_cache
from featstore.tables import printable
from featstore.types import IDENTITY, Decoding, ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.reporting.figures import Picture
    from featstore.reporting.figures.curves import Stated
    from featstore.reporting.predictions import RunPredictions
    from featstore.reporting.run_record import RunRecord
    from featstore.results.extraction import Check


# The cases that were answered wrong: what was said about each, and who said otherwise

SHOWN = 200
"""Cases on a page, the surest mistakes first; predictions.csv has all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One image that was answered wrong.

    Attributes
    ----------
    id
        First eight digits of the image id: no path, no patient.
    truth, answer
        Names of the classes.
    probability
        By class, for the answer that was given.
    votes
        By backbone the class that it alone would have answered, and whether that is right.
    thumbnail
        PNG as a data URI, or empty.
    """

    id: str
    truth: str
    answer: str
    probability: tuple[tuple[str, float], ...]
    votes: tuple[tuple[str, str, bool], ...]
    thumbnail: str

    @property
    def sure(self) -> float:
        """Probability of the class answered."""
        return dict(self.probability)[self.answer]

    @property
    def right_votes(self) -> int:
        """Backbones that alone would have been right."""
        return sum(right for _, _, right in self.votes)


@dataclass(frozen=True, slots=True)
class WrongCases:
    """The wrong answers about one split, or of one candidate.

    Attributes
    ----------
    about
        Split or candidate.
    images, wrong
        How many were answered, and how many of them wrong.
    kinds
        Cases by (true class, class answered), the most frequent confusion first.
    """

    about: str
    images: int
    wrong: int
    kinds: tuple[tuple[str, str, tuple[Case, ...]], ...]

    @property
    def hidden(self) -> int:
        """Cases that are not on the page."""
        return self.wrong - sum(len(cases) for _, _, cases in self.kinds)

    @property
    def votes_known(self) -> bool:
        """Whether it is known what each backbone alone would have answered."""
        return any(case.votes for _, _, cases in self.kinds for case in cases)


def wrong_cases(record: RunRecord, thumbnails: Mapping[str, str]) -> WrongCases | None:
    """Wrong answers of a fit on its test split, or of the leader of a comparison; None of an extraction.

    Parameters
    ----------
    thumbnails
        Data URI by image id, for those that have one.
    """
    if record.shown is None:
        return None
    answers, classes = record.predictions[record.shown], list(record.matrix["classes"])
    kinds: dict[tuple[str, str], list[Case]] = {}
    for row in answers.wrong[:SHOWN].tolist():
        truth, answer = classes[answers.y[row]], classes[answers.answered[row]]
        case = Case(
            answers.ids[row][:SHORT_DIGITS],
            truth,
            answer,
            tuple(zip(classes, answers.proba[row].tolist(), strict=True)),
            tuple(
                (name, classes[votes[row]], bool(votes[row] == answers.y[row]))
                for name, votes in answers.votes.items()
            ),
            thumbnails.get(answers.ids[row], ""),
        )
        kinds.setdefault((truth, answer), []).append(case)
    ordered = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    return WrongCases(
        record.shown,
        len(answers.ids),
        len(answers.wrong),
        tuple((truth, answer, tuple(cases)) for (truth, answer), cases in ordered),
    )


# Which pictures a run has, and what they are drawn from

BEST = 24
"""Candidates in a figure; the table has all."""
POINTS = 2000
"""Images on a map; more of them hide each other."""
CURVES = 5
"""Candidates whose curves can be told apart in one figure."""


def pictures_of(record: RunRecord) -> list[Picture]:
    """Pictures that a run's own numbers suffice for, the one that matters first."""
    match record.outcome:
        case Comparison() as comparison:
            return [
                *_comparison_pictures(record, comparison),
                *_answers(record, list(record.predictions)[:CURVES]),
                *_curves({name: comparison.curves[name] for name in list(record.predictions)[:CURVES]}),
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


def _comparison_pictures(record: RunRecord, comparison: Comparison) -> Iterator[Picture]:
    """Scores and ranks of the candidates."""
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


def _answers(record: RunRecord, names: list[str]) -> Iterator[Picture]:
    """What was answered, and how well the probabilities rank the images."""
    answers = record.predictions[record.shown or ""]
    classes = [printable(name) for name in record.matrix["classes"]]
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (answers.y, answers.answered), 1)
    yield figures.confusion(counts, classes)
    place = record.matrix["positive"]
    positive = None if place is None else list(record.matrix["classes"]).index(place)
    y = answers.y if positive is None else answers.y == positive
    scores = {printable(name): _ranked(record.predictions[name], answers, positive) for name in names}
    groups = answers.groups if record.matrix["has_groups"] else None
    yield figures.roc(y, scores, groups, stated=_stated(record, names, "auc"))
    yield figures.precision_recall(y, scores, groups, stated=_stated(record, names, "average_precision"))


def _stated(record: RunRecord, names: list[str], metric: str) -> dict[str, Stated]:
    """The numbers of the table, so that no figure has others."""
    match record.outcome:
        case Fusion() as fusion:
            found = {name: fusion.scores[name][metric] for name in names}
            return {printable(n): (s.value, s.interval) for n, s in found.items() if s.value is not None}
        case Comparison() as comparison:
            means = {s.candidate.label: s.estimates[metric] for s in comparison.candidates}
            return {
                printable(n): (mean, means[n].interval) for n in names if (mean := means[n].mean) is not None
            }
        case _:
            return {}


def _ranked(answers: RunPredictions, first: RunPredictions, positive: int | None) -> NDArray[np.float64]:
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


def _diagram(record: RunRecord, strategy: str) -> Picture:
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


URI = "data:image/png;base64,"
WHOLE = "all"
"""Split of a data set that has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set with its audit and its images, for the pictures of a report.

    Attributes
    ----------
    manifest
        Its table.
    audit
        What `featstore.check` found.
    images
        By image id, those that decode.
    decoding
        How they are decoded.
    """

    manifest: Manifest
    audit: Check
    images: Mapping[str, ImageRecord]
    decoding: Decoding

    def is_of(self, record: RunRecord) -> bool:
        """Whether the run saw this table: with the images that do not decode, or without them."""
        tables = (self.manifest.records, self.images.values())
        return record.data_sha256 in {data_digest(table) for table in tables}

    def thumbnails(self, ids: Iterable[str]) -> dict[str, str]:
        """Small picture of each image as a data URI; a file that has changed or gone since has none."""
        found = {}
        for image in ids:
            try:
                pixels = read_pixels(self.images[image], self.decoding)
            except (FeatstoreError, LookupError):
                continue
            found[image] = URI + base64.b64encode(thumbnail(pixels)).decode()
        return found

    def counts(self, record: RunRecord) -> dict[str, dict[str, int]]:
        """Images by split and class: the run's hold-out, else the data set's own splits, else all together."""
        held = {}
        if isinstance(record.outcome, Fusion):
            held = {image: split for split, part in record.predictions.items() for image in part.ids}
        rest = "train" if held else WHOLE
        found = Counter((held.get(r.id, r.split or rest), r.label) for r in self.images.values())
        classes = sorted({label for _, label in found})
        splits = sorted({split for split, _ in found}, key=["train", "val", "test", WHOLE].index)
        return {split: {label: found[split, label] for label in classes} for split in splits}

    def matrix(self, record: RunRecord, cache: Path | None) -> FeatureMatrix:
        """Vectors of the identity view that the run was about.

        Raises
        ------
        FeatstoreError
            If they are not in the cache.
        """
        specs = [key.backbone for key in keys_of({"matrix": record.matrix})]
        return assemble(self.manifest, Store(cache or default_cache()), specs, [IDENTITY], self.decoding)
