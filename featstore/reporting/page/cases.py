"""What a report shows of the images: who they were of, the cases answered wrong, and the pictures of a run."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
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
from featstore.reporting.wording import is_table
from featstore.results.comparison import Comparison
from featstore.results.fusion import Fusion
from featstore.runs import data_digest, keys_of
from featstore.serialization import SHORT_DIGITS
from featstore.store.store import Store, default_cache
from featstore.tables import DASH, Cell, Table, count_cell, printable, text_cell
from featstore.types import IDENTITY, Decoding, ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.reporting.figures import Picture
    from featstore.reporting.figures.curves import Stated
    from featstore.reporting.run_record import RunPredictions, RunRecord
    from featstore.results.extraction import Check
    from featstore.types import Pixels


# Who the images were of: patients and images by class, split and site, and what was set aside


@dataclass(frozen=True, slots=True)
class Count:
    """Images, and the patients that they are of; None where patients are not known."""

    images: int
    patients: int | None = None

    def cell(self, *, named: bool) -> Cell:
        """Patients (images), the patients a dash where they are not known; images alone of data that name none."""
        if not named:
            return count_cell(self.images)
        patients = DASH if self.patients is None else f"{self.patients:,}"
        return Cell(f"{patients} ({self.images:,})", key=float(self.images))


@dataclass(frozen=True, slots=True)
class Members:
    """A part of the images by class, and all of it.

    Attributes
    ----------
    kind, name
        ``split`` or ``site`` and which one; of all images the kind is empty.
    """

    kind: str
    name: str
    classes: Mapping[str, Count]
    whole: Count


ALL_IMAGES, NO_SITE = "All images used", "not said"


def members(record: RunRecord, dataset: Dataset | None) -> list[Members]:
    """Images and patients by class: all, by split, and, where the data set is at hand, by site."""
    matrix, classes = record.matrix, list(record.matrix["classes"])
    scored: Mapping[str, RunPredictions] = {}
    if isinstance(record.outcome, Fusion):
        scored = record.predictions
    elif isinstance(record.outcome, Comparison):
        scored = {"scored": record.predictions[record.shown or ""]}
    known = {
        image: (split, classes[label], group)
        for split, part in scored.items()
        for image, label, group in zip(part.ids, part.y.tolist(), part.groups.tolist(), strict=True)
    }
    is_compared = isinstance(record.outcome, Comparison)
    is_whole = isinstance(record.outcome, Comparison) and not record.outcome.own_split
    if dataset is not None:
        # Merged patients bear one name in the run; the table is about those that the data set names.
        own = dataset.manifest.has_groups
        rows = [
            (
                (r.split or "") if is_compared else known.get(r.id, (r.split or "train",))[0],
                r.site or "",
                r.label,
                r.group if own or r.id not in known else known[r.id][2],
            )
            for r in dataset.images.values()
            if not is_whole or r.id in known
        ]
    else:
        rows = [(split, "", label, group) for split, label, group in known.values()]
    named = matrix["has_groups"]
    whole = Count(matrix["images"], matrix["groups"] if named else None)
    complete = len(rows) == matrix["images"]
    every = (
        _members("", ALL_IMAGES, rows, classes, named=named)
        if complete
        else Members("", ALL_IMAGES, {label: Count(n) for label, n in matrix["classes"].items()}, whole)
    )
    splits = [one for one in ("train", "val", "test", "scored") if any(row[0] == one for row in rows)]
    parts = [
        _members("split", one, [row for row in rows if row[0] == one], classes, named=named)
        for one in splits
        if not (one == "scored" and complete)
    ]
    if isinstance(record.outcome, Fusion) and dataset is None:
        parts.insert(0, _rest(matrix["classes"], parts))
    sites = sorted({row[1] for row in rows})
    by_site = [
        _members("site", site or NO_SITE, [row for row in rows if row[1] == site], classes, named=named)
        for site in (sites if any(sites) else ())
    ]
    return [every, *(parts if len(parts) > 1 or not complete else []), *by_site]


def _members(
    kind: str, name: str, rows: Sequence[tuple[str, str, str, str]], classes: Sequence[str], *, named: bool
) -> Members:
    def count(part: Sequence[tuple[str, str, str, str]]) -> Count:
        return Count(len(part), len({row[3] for row in part}) if named else None)

    by_class = {label: count([row for row in rows if row[2] == label]) for label in classes}
    return Members(kind, name, by_class, count(rows))


def _rest(classes: Mapping[str, int], scored: Sequence[Members]) -> Members:
    """Images of a fit that it was trained on: all but those scored; whose they are is not in the run."""
    left = {
        label: Count(n - sum(part.classes[label].images for part in scored)) for label, n in classes.items()
    }
    return Members("split", "train", left, Count(sum(count.images for count in left.values())))


def _left_out(record: RunRecord) -> int:
    """Training images that a fit did not learn from, since the same pictures are tested under another patient."""
    if not isinstance(record.outcome, Fusion):
        return 0
    images: int = record.matrix["images"]
    return max(0, images - sum(record.outcome.sizes.values()))


def table_one(record: RunRecord, dataset: Dataset | None) -> Table | None:
    """Patients and images by class, split and site; None of a run that scored nothing."""
    if record.outcome is None:
        return None
    rows, named = members(record, dataset), record.matrix["has_groups"]
    sites = "" if dataset is not None else f" Sites are in the data set alone: {WITHOUT_DATA}"
    several = (
        " A patient with images of several classes counts in each."
        if any(count.patients for count in rows[0].classes.values())
        and sum(count.patients or 0 for count in rows[0].classes.values()) > (rows[0].whole.patients or 0)
        else ""
    )
    listed, used = rows[0].whole.patients or 0, record.matrix["groups"]
    merged = (
        f" {listed - used} of {listed} show the same picture as another and were taken for one with it: {used} in all"
        " (FS103)."
        if listed > used
        else ""
    )
    if left := _left_out(record):
        merged += (
            f" {left} of the images of train were not learned from: the same pictures are tested (FS103)."
        )
    return Table(
        f"{'Patients (images)' if named else 'Images'} by class",
        ("", *record.matrix["classes"], "All"),
        tuple(
            (
                text_cell(row.name, row.kind),
                *(count.cell(named=named) for count in (*row.classes.values(), row.whole)),
            )
            for row in rows
        ),
        f"Age, sex and scanner are not known to featstore: add them.{several}{merged}{sites}",
    )


def flow_of(record: RunRecord, dataset: Dataset | None) -> Picture | None:
    """Flow of the images from those found to those used; None of a run that scored nothing."""
    if record.outcome is None:
        return None
    matrix, rows = record.matrix, members(record, dataset)
    unread = matrix["quarantined"]
    why = Counter(reason for _, reason, _ in dataset.audit.bad) if dataset is not None else Counter()
    reasons = (
        {f"not readable ({reason})": why[reason] for reason in sorted(why)}
        if why.total() == unread
        else {"not readable": unread}
    )
    splits = [row for row in rows if row.kind == "split"]
    if splits:
        parts = {
            row.name: [
                _plural(row.whole.images, "image"),
                *([] if row.whole.patients is None else [_plural(row.whole.patients, "patient")]),
                *(f"{label}: {count.images:,}" for label, count in row.classes.items()),
            ]
            for row in splits
        }
        if left := _left_out(record):
            parts["train"].insert(1, f"{left:,} left out (FS103)")
    else:
        parts = {
            label: [
                _plural(count.images, "image"),
                *([] if count.patients is None else [_plural(count.patients, "patient")]),
            ]
            for label, count in rows[0].classes.items()
        }
    return figures.flow_diagram(
        matrix["images"] + unread + matrix.get("set_apart", 0),
        {**reasons, "tuned a network": matrix.get("set_apart", 0)},
        {printable(name): list(map(printable, lines)) for name, lines in parts.items()},
        patients=matrix["groups"] if matrix["has_groups"] else None,
    )


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


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
    name
        Of the file within the data set, for its owner; empty unless it was asked for.
    """

    id: str
    truth: str
    answer: str
    probability: tuple[tuple[str, float], ...]
    votes: tuple[tuple[str, str, bool], ...]
    thumbnail: str
    name: str = ""

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


def wrong_cases(
    record: RunRecord, thumbnails: Mapping[str, str], names: Mapping[str, str]
) -> WrongCases | None:
    """Wrong answers of a fit on its test split, or of the subject of a comparison; None of an extraction.

    Parameters
    ----------
    thumbnails
        Data URI by image id, for those that have one.
    names
        File by image id, where these may be told.
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
            names.get(answers.ids[row], ""),
        )
        kinds.setdefault((truth, answer), []).append(case)
    ordered = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    return WrongCases(
        record.shown,
        len(answers.ids),
        len(answers.wrong),
        tuple((truth, answer, tuple(cases)) for (truth, answer), cases in ordered),
    )


# Where the evidence lies, beside wrong answers and a fair sample of right ones

MAPPED = 12
"""Images of each with a map."""


@dataclass(frozen=True, slots=True)
class MappedCase:
    """An image with the evidence in it.

    Attributes
    ----------
    id, truth, answer, probability
        As of `Case`; the probability is that of the answer.
    image, overlay
        PNG as data URIs: the image, and the evidence over it.
    words
        What the maps say, in a sentence.
    """

    id: str
    truth: str
    answer: str
    probability: float
    image: str
    overlay: str
    words: str


@dataclass(frozen=True, slots=True)
class MappedCases:
    """What a report shows of where the evidence lies, or why it shows nothing.

    Attributes
    ----------
    told
        Sentences above the pictures.
    groups
        Title and cases: wrong answers, right ones.
    """

    told: tuple[str, ...]
    groups: tuple[tuple[str, tuple[MappedCase, ...]], ...] = ()


def mapped_rows(answers: RunPredictions, seed: int = 0) -> tuple[list[int], list[int]]:
    """Rows of the surest wrong answers, and of right ones drawn at random, `MAPPED` of each at most."""
    wrong = answers.wrong.tolist()
    right = np.setdiff1d(np.arange(len(answers.ids)), answers.wrong)
    drawn = np.random.default_rng(seed).permutation(right)[:MAPPED]
    return wrong[:MAPPED], sorted(drawn.tolist())


def uri(pixels: Pixels) -> str:
    """A small PNG of pixels as a data URI."""
    return URI + base64.b64encode(thumbnail(pixels)).decode()


# Which pictures a run has, and what they are drawn from

BEST = 24
"""Candidates in a figure; the table has all."""
POINTS = 2000
"""Images on a map; more of them hide each other."""
CURVES = 5
"""Candidates whose curves can be told apart in one figure."""


WITHOUT_DATA = "featstore report RUN --data DATA adds them."
MAIN = ("roc", "confusion", "reliability", "decision-curves")
"""Pictures of a comparison that are shown at once; the others wait until they are asked for."""


def answer_picture(record: RunRecord) -> Picture | None:
    """Forest plot of the differences that the primary question is about; None where none was asked."""
    if not isinstance(record.outcome, Comparison) or record.outcome.primary_question is None:
        return None
    return figures.differences(record.metrics["primary_question"])


def pictures_of(record: RunRecord) -> list[Picture]:
    """Pictures that a run's own numbers suffice for, the one that matters first; none that would be empty."""
    return [picture for picture in _pictures_of(record) if not picture.is_empty]


def _pictures_of(record: RunRecord) -> list[Picture]:
    match record.outcome:
        case Comparison() as comparison:
            return [
                *_comparison_pictures(record, comparison),
                *_answers(record, list(record.predictions)[:CURVES]),
                *_curves(
                    {name: comparison.curves[name] for name in list(record.predictions)[:CURVES]}, record.noun
                ),
                *_prices(record.metrics),
            ]
        case Fusion() as fusion:
            return [
                *_answers(record, [record.shown or ""]),
                *_curves({fusion.strategy: fusion.curves[record.shown or ""]}, record.noun),
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
    answers = record.scored[record.shown or ""]
    classes = [printable(name) for name in record.matrix["classes"]]
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (answers.y, answers.answered), 1)
    shown = printable(record.outcome.strategy if isinstance(record.outcome, Fusion) else record.shown or "")
    yield figures.confusion(counts, classes, title=f"Confusion matrix of {shown}", unit=record.noun)
    place = record.matrix["positive"]
    positive = None if place is None else list(record.matrix["classes"]).index(place)
    y = answers.y if positive is None else answers.y == positive
    scores = {printable(name): _ranked(record.scored[name], answers, positive) for name in names}
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


def _curves(curves: Mapping[str, Any], unit: str) -> Iterator[Picture]:
    """What the probabilities are worth."""
    named = {printable(name): part for name, part in curves.items()}
    if any("calibration" in part for part in named.values()):
        yield figures.reliability(named, unit=unit)
        yield figures.decision_curves(named, unit=unit)
    yield figures.risk_coverage(named, title=f"Errors among the {unit} answered", unit=unit)


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
        tables=[spec["name"] for spec in specs if is_table(spec)],
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
            found[image] = uri(pixels)
        return found

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """File of each image within the data set, with the page where it has several."""
        found = {}
        for image in ids:
            if image in self.images:
                record = self.images[image]
                path, root = record.path, self.manifest.root
                name = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
                found[image] = f"{name}, page {record.frame + 1}" if record.frame else str(name)
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
