"""Run folders and predictions read back: checked against their seals, each number of the form it should have."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from msgspec import structs

from featstore import runs, serialization
from featstore.errors import RunError, UsageError
from featstore.evaluation.calibration import OperatingPointRequest, read_operating_point
from featstore.evaluation.metrics import ENOUGH_IMAGES, METRICS, SINCE_THEN
from featstore.evaluation.patients import is_pool
from featstore.reporting.verdict import calibration_error, phrase
from featstore.results.comparison import CandidateResult, Comparison, Looks, Planning, SelectionBias
from featstore.results.document import ROUNDING, ShapeError, read_result
from featstore.results.extraction import Extraction, ExtractionFields
from featstore.results.fusion import Abstention, Fusion, OperatingFields
from featstore.results.paper import Reproduction, ReproductionFields
from featstore.results.scores import Curves, MatrixFields, MetricEstimate, Score
from featstore.runs import csv_text
from featstore.serialization import digest_bytes
from featstore.tables import DASH, Cell, Table, count_cell, number_cell, short_weights, text_cell
from featstore.types import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.findings import Finding


# Records of runs


class Provenance(TypedDict):
    """What ``run.json`` says of every run."""

    kind: str
    created: str
    python: str
    machine: str
    libraries: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """A run folder that was read back.

    Attributes
    ----------
    folder
        Where it lies.
    name
        What a report calls it: the name of its folder, with the one above where two are called alike.
    kind
        ``extract``, ``fuse``, ``compare`` or ``paper``.
    about
        ``run.json``.
    metrics
        ``metrics.json``; empty of an extraction.
    outcome
        What a fit or a comparison found, but for its probabilities; None of other kinds.
    reproduction
        What a reproduction of the paper found; None of other kinds.
    paper_figures
        Figures that the run keeps as files; empty but for a reproduction of the paper.
    predictions
        By split, or by candidate: the one that the report is about, the leader and the single backbones, on the folds
        of the first repeat.
    patients
        The same of patients, where these were scored; else empty.
    """

    folder: Path
    name: str
    kind: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]
    outcome: Fusion | Comparison | None
    predictions: Mapping[str, RunPredictions]
    reproduction: Reproduction | None = None
    paper_figures: tuple[RecordedFigure, ...] = ()
    patients: Mapping[str, RunPredictions] = field(default_factory=dict)

    @property
    def scored(self) -> Mapping[str, RunPredictions]:
        """Answers about what was scored: images, or patients."""
        return self.patients or self.predictions

    @property
    def noun(self) -> str:
        """What was scored, for a sentence: ``images``, or ``patients``."""
        return "patients" if self.patients else "images"

    @property
    def data_sha256(self) -> str:
        """Digest of the table that it saw."""
        holder = self.about["arguments"] if self.kind == "paper" else self.matrix
        digest: str = holder["data_sha256"]
        return digest

    @property
    def matrix(self) -> Mapping[str, Any]:
        """What it was fitted or compared on; of other kinds, what ``run.json`` knows."""
        return self.outcome.matrix if self.outcome is not None else self.about

    @property
    def shown(self) -> str | None:
        """Split or candidate whose answers a report is about: the test split, the primary fusion, or the leader."""
        if isinstance(self.outcome, Fusion):
            return "test" if "test" in self.outcome.scores else list(self.outcome.scores)[-1]
        return None if self.outcome is None else subject(self.outcome).candidate.label


def read_records(folders: Sequence[Path]) -> list[RunRecord]:
    """Read several run folders, each under a name of its own.

    Raises
    ------
    UsageError
        If there is none, or one is given twice.
    RunError
        As for `read_record`.
    """
    places = [folder.resolve() for folder in folders]
    if not places or len(set(places)) < len(places):
        raise UsageError(
            "A report needs runs, each of them once.", "Give RUN folders: featstore report RUN..."
        )
    records = [read_record(folder) for folder in folders]
    names = [record.name for record in records]
    return [
        record if names.count(record.name) == 1 else replace(record, name="/".join(place.parts[-2:]))
        for record, place in zip(records, places, strict=True)
    ]


def read_record(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises
    ------
    RunError
        If a part of it is absent, damaged, or of another shape than featstore writes.
    """
    about = runs.read_run(folder)
    try:
        read_result(Provenance, about, runs.RUN)
        readers = {
            "fuse": _read_fuse,
            "compare": _read_compare,
            "extract": _read_extract,
            "paper": _read_paper,
        }
        if about["kind"] not in readers:
            raise RunError(
                f"{folder} holds a run of a kind that has no report: {about['kind'][:40]!r}.",
                "Give a run of `featstore extract`, `fuse`, `compare` or `paper`.",
            )
        return readers[about["kind"]](folder, about)
    except (ShapeError, serialization.DocumentError) as error:
        raise RunError(f"{folder} holds no readable run: {error}.", runs.REMEDY) from error


def leader(comparison: Comparison) -> CandidateResult:
    """Candidate with the highest primary metric."""
    return max(comparison.candidates, key=lambda scored: scored.primary)


def subject(comparison: Comparison) -> CandidateResult:
    """Candidate that a report is about: the primary fusion; where no question was asked, the leader."""
    asked = comparison.primary_question
    named = [s for s in comparison.candidates if asked is not None and s.label == asked.primary]
    return named[0] if named else leader(comparison)


def _read_extract(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    read_result(ExtractionFields, about, runs.RUN)
    # Findings of an extraction are shown on its screen alone.
    read_result(Extraction, {name: part for name, part in about.items() if name != "findings"}, runs.RUN)
    return RunRecord(folder, folder.resolve().name, "extract", about, {}, None, {})


def _read_paper(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    read_result(ReproductionFields, about, runs.RUN)
    metrics = _metrics(folder, about)
    reproduction = read_result(Reproduction, metrics, "the reproduction", opaque={"arguments"})
    return RunRecord(
        folder,
        folder.resolve().name,
        "paper",
        about,
        metrics,
        None,
        {},
        reproduction,
        recorded_figures(folder, about, reproduction),
    )


def _read_fuse(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    metrics = _metrics(folder, about)
    outcome = read_fusion(metrics)
    if "looks" in about:
        outcome = structs.replace(outcome, looks=read_result(Looks, about["looks"], "the looks"))
    answers = read_predictions(
        runs.read_verified(folder, about, runs.PREDICTIONS),
        "split",
        list(outcome.scores),
        list(outcome.matrix["classes"]),
    )
    patients = _patients(folder, about, outcome, "split", list(outcome.scores))
    return RunRecord(
        folder, folder.resolve().name, "fuse", about, metrics, outcome, answers, patients=patients
    )


def _patients(
    folder: Path, about: Mapping[str, Any], outcome: Fusion | Comparison, by: str, wanted: Sequence[str]
) -> dict[str, RunPredictions]:
    """Answers about patients, where these were scored."""
    unit = outcome.unit if isinstance(outcome, Fusion) else outcome.protocol.unit
    if unit != GROUP:
        return {}
    classes = list(outcome.matrix["classes"])
    folds = outcome.folds if isinstance(outcome, Comparison) else None
    data = runs.read_verified(folder, about, runs.PATIENTS)
    return read_predictions(data, by, wanted, classes, folds, of_patients=True)


def _read_compare(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    metrics = _metrics(folder, about)
    outcome = read_comparison(metrics)
    if "planning" in about:
        outcome = structs.replace(outcome, planning=_planning(about["planning"], outcome))
    first, singles = subject(outcome).candidate, _voters(outcome)
    answers = read_predictions(
        runs.read_verified(folder, about, runs.PREDICTIONS),
        "contestant",
        list(dict.fromkeys([first.label, leader(outcome).label, *singles])),
        list(outcome.matrix["classes"]),
        outcome.folds,
    )
    voters = {backbone: answers[label] for label, backbone in singles.items()}
    voted = with_votes(answers[first.label], voters)
    return RunRecord(
        folder,
        folder.resolve().name,
        "compare",
        about,
        metrics,
        outcome,
        {**answers, first.label: voted},
        patients=_patients(folder, about, outcome, "contestant", list(answers)),
    )


def _planning(document: Any, comparison: Comparison) -> Planning:  # noqa: ANN401
    planning = read_result(Planning, document, "the planning")
    _require(planning.plan == comparison.protocol.plan, "it was run by another plan than its scores say")
    return planning


def _voters(comparison: Comparison) -> dict[str, str]:
    """Backbone by label of the single backbones that had the same views as the candidate a report is about."""
    first = subject(comparison).candidate
    return {
        s.candidate.label: s.candidate.backbones[0]
        for s in comparison.candidates
        if len(s.candidate.backbones) == 1
        and (s.candidate.views, s.candidate.test_views) == (first.views, first.test_views)
    }


def _metrics(folder: Path, about: Mapping[str, Any]) -> Any:  # noqa: ANN401
    return serialization.parse_json(runs.read_verified(folder, about, runs.METRICS))


# Outcomes of `featstore.fuse` and `featstore.compare` from their numbers, without probabilities


def read_fusion(document: Any) -> Fusion:  # noqa: ANN401
    """Fit that `Fusion.to_json` described.

    Raises
    ------
    ShapeError
        If the document is of another shape, or its parts do not fit together.
    """
    fusion = read_result(Fusion, document, "the fit", opaque={"options"})
    _require_classes(fusion.matrix)
    for split, scores in fusion.scores.items():
        _require(split in fusion.sizes, f"nobody knows the size of the split {split!r}")
        _require_metrics(scores)
        _require(split in fusion.curves, f"the split {split!r} has no curves")
        _require_curves(fusion.curves[split], fusion.matrix)
    _require(bool(fusion.scores), "no split was scored")
    _require_point(fusion.operating, len(fusion.matrix["classes"]))
    _require(
        fusion.singles.keys() <= fusion.scores.keys(), "networks were scored on a split that nobody knows"
    )
    _require_pool(fusion.unit, fusion.pool)
    if fusion.unit == GROUP:
        _require(fusion.scores.keys() <= fusion.patients.keys(), "nobody knows how many patients were scored")
        _require(fusion.scores.keys() == fusion.by_image.keys(), "scores by image are missing")
    for scores in fusion.by_image.values():
        _require_metrics(scores)
    if fusion.abstention is not None:
        _require_sets(fusion.abstention, list(fusion.matrix["classes"]))
    for split, found in fusion.shortcuts.items():
        _require(split in fusion.scores, "shortcuts were scored on a split that nobody knows")
        for scores in found.values():
            _require_metrics(scores)
    return structs.replace(
        fusion,
        scores={
            split: {**scores, **_pooled_score(fusion.curves[split])}
            for split, scores in fusion.scores.items()
        },
        findings=_without_examples(fusion.findings),
    )


def _require_sets(found: Abstention, classes: Sequence[str]) -> None:
    """Refuse prediction sets of other classes than the model's."""
    rule = found.rule
    parts = [rule.patients, rule.by_image, *([] if rule.by_patient is None else [rule.by_patient])]
    _require(all(len(part) == len(classes) for part in parts), "its prediction sets are of other classes")
    told = [*found.by_image.values(), *found.by_patient.values()]
    _require(all(by.keys() <= set(classes) for by in told), "its prediction sets are of other classes")


def read_comparison(document: Any) -> Comparison:  # noqa: ANN401
    """Comparison that `Comparison.to_json` described, but for probabilities and decisions.

    Raises
    ------
    ShapeError
        If the document is of another shape, or its parts do not fit together.
    """
    comparison = read_result(Comparison, document, "the comparison")
    _require_classes(comparison.matrix)
    names = [s.label for s in comparison.candidates]
    _require(bool(names), "there are no candidates")
    _require(len(set(names)) == len(names), "two candidates have one name")
    for candidate in comparison.candidates:
        _require_metrics(candidate.estimates)
        _require_curves(candidate.curves, comparison.matrix)
        _require(bool(candidate.backbones), f"{candidate.label} has no backbone")
    for pair in comparison.pairs:
        _require({pair.a, pair.b} <= set(names), "strangers are compared")
    asked = comparison.primary_question
    if asked is not None:
        fused = {asked.primary, asked.against, *(one.name for one in asked.singles)}
        _require(bool(asked.singles) and fused <= set(names), "the question is about strangers")
    for shortcut in comparison.shortcuts:
        _require_metrics(shortcut.estimates)
    _require_pool(comparison.protocol.unit, comparison.protocol.pool)
    by_image = comparison.by_image
    _require((by_image is not None) == (comparison.protocol.unit == GROUP), "scores by image are missing")
    if by_image is not None:
        _require(set(by_image.estimates) == set(names), "scores by image are those of strangers")
        _require(set(by_image.patients) == set(comparison.matrix["classes"]), "patients are of other classes")
        for estimates in by_image.estimates.values():
            _require_metrics(estimates)
    _require_sites(comparison, names)
    _require_controls(comparison, names)
    bias, value = comparison.selection_bias, comparison.backbone_value
    _require(bias is None or bias.name in names, "a stranger won")
    if value is not None:
        square = all(len(row) == len(value.costs) for row in (*value.redundancy, value.redundancy))
        _require(square, "the redundancy is no square")
    _require_request(comparison)
    return structs.replace(
        comparison,
        candidates=tuple(map(_with_pooled_error, comparison.candidates)),
        selection_bias=None if bias is None else _lowered(bias),
        findings=_without_examples(comparison.findings),
    )


def _without_examples(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Examples name files and patients: a forged run may hold some."""
    return tuple(replace(finding, examples=()) for finding in findings)


def _with_pooled_error(candidate: CandidateResult) -> CandidateResult:
    pooled = _pooled_score(candidate.curves)
    if "ece" not in pooled:
        return candidate
    error = MetricEstimate(mean=pooled["ece"].value, deviation=None, interval=None, folds=())
    return structs.replace(candidate, estimates={**candidate.estimates, "ece": error})


def _pooled_score(curves: Curves) -> dict[str, Score]:
    """ECE of a run from before it was pooled, by its own bins: a table must not have another than the figure."""
    if "calibration_error" in curves or "calibration" not in curves:
        return {}
    bins = curves["calibration"]
    enough = sum(bins["images"]) >= ENOUGH_IMAGES
    return {"ece": Score(value=calibration_error(bins) if enough else None, interval=None)}


def _lowered(bias: SelectionBias) -> SelectionBias:
    """Runs of before could expect more than was seen, by the luck of the resamples."""
    corrected = min(bias.apparent, bias.corrected)
    return structs.replace(bias, corrected=corrected, optimism=bias.apparent - corrected)


def _require_classes(matrix: MatrixFields) -> None:
    classes, positive = matrix["classes"], matrix["positive"]
    _require(len(classes) > 1, "there are fewer than two classes")
    _require(positive is None or positive in classes, "the positive class is none of them")
    _require(bool(matrix["backbones"]), "there is no backbone")
    _require(bool(matrix["views"]), "there is no view")


def _require_point(operating: OperatingFields, classes: int) -> None:
    try:
        read_operating_point(operating, classes)
    except RunError as error:
        raise ShapeError("the operating point is none of this model") from error


def _require_request(comparison: Comparison) -> None:
    positive = comparison.matrix["positive"]
    index = None if positive is None else list(comparison.matrix["classes"]).index(positive)
    try:
        asked = comparison.protocol
        OperatingPointRequest(asked.calibrate, asked.sensitivity, index, asked.confidence)
    except ValueError as error:
        raise ShapeError("nothing can be calibrated as the protocol says") from error


def _require_pool(unit: str, pool: str | None) -> None:
    right = pool is None if unit != GROUP else pool is not None and is_pool(pool)
    _require(right, "nobody pools images so")


def _require_controls(comparison: Comparison, names: Sequence[str]) -> None:
    found = comparison.negative_controls
    if found is not None:
        pairs = {(one.model, one.control) for one in found.differences}
        controls = {one.name for one in found.controls}
        _require(set(found.models) <= set(names), "strangers are measured against negative controls")
        _require(
            pairs == {(model, control) for model in found.models for control in controls}
            and len(pairs) == len(found.differences),
            "differences to negative controls are missing",
        )


def _require_sites(comparison: Comparison, names: Sequence[str]) -> None:
    sites = comparison.sites
    _require((sites is not None) == (comparison.protocol.left_out == "site"), "scores by site are missing")
    if sites is None:
        return
    drops = [one.candidate for one in sites.drops]
    _require(sorted(drops) == sorted(names) and sites.candidate in names, "sites are scored of strangers")
    for one in sites.sites:
        _require_metrics(one.scores)
        _require(set(one.classes) == set(comparison.matrix["classes"]), "patients are of other classes")


def _require_metrics(found: Iterable[str]) -> None:
    missing = sorted(set(METRICS) - SINCE_THEN - set(found))
    _require(not missing, f"there is no {', '.join(missing)}")


def _require_curves(curves: Curves, matrix: MatrixFields) -> None:
    _require(
        matrix["positive"] is None or {"decision", "calibration"} <= set(curves),
        "curves of the positive class are missing",
    )
    for name, curve in curves.items():
        if isinstance(curve, dict):
            lengths = {len(part) for part in curve.values() if isinstance(part, list)}
            _require(len(lengths) < 2, f"the {name} curve is torn")  # noqa: PLR2004


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise ShapeError(otherwise)


# A reproduction of the paper read back: its numbers beside the paper's, and its figures by their numbers

URI = "data:image/svg+xml;base64,"
PROTOCOLS = {"by_image": "split by image", "by_patient": "patients kept together"}
SPOKEN = {
    "by_image": "under the paper's protocol, which splits by image,",
    "honest": "under an honest one, which keeps patients together,",
}
STEPS = {"head": "fusion head", "tuned": "fusion head, fine-tuned", "vote": "majority vote over networks"}


@dataclass(frozen=True, slots=True)
class RecordedFigure:
    """A figure that a run keeps as a file.

    Attributes
    ----------
    number
        Of this figure in the paper; None where the paper has none.
    title, alt, caption
        As the run has them.
    shows_images
        Whether it holds images of the data set.
    source
        The drawing as a data URI: an image can neither run code nor load anything.
    """

    number: int | None
    title: str
    alt: str
    caption: str
    shows_images: bool
    source: str


def recorded_figures(
    folder: Path, about: Mapping[str, Any], reproduction: Reproduction
) -> tuple[RecordedFigure, ...]:
    """Figures of a reproduction, each checked against the digest in ``run.json``.

    Raises
    ------
    RunError
        If a figure is absent or damaged.
    """
    found = []
    for figure in reproduction.figures:
        name = figure.file
        if name.count("/") != 1 or not name.startswith(f"{runs.FIGURES}/") or not name.endswith(".svg"):
            raise ShapeError("a figure lies elsewhere than in its folder")
        data = runs.read_verified(folder, about, name)
        source = URI + base64.b64encode(data).decode()
        found.append(
            RecordedFigure(
                figure.number, figure.title, figure.alt, figure.caption, figure.shows_images, source
            )
        )
    return tuple(found)


def paper_verdict(found: Reproduction) -> Iterator[str]:
    """The paper's accuracy and this run's in one sentence, then why they differ."""
    scores = {claim.name: claim.accuracy for claim in found.claims}
    told = [
        f"{words} {phrase(scores[name].value, scores[name].interval)}"
        for name, words in SPOKEN.items()
        if name in scores and scores[name].value is not None
    ]
    claimed = scores["paper"].value if "paper" in scores else None
    paper = "" if claimed is None else f"The paper claims an accuracy of {claimed:.2f}; "
    yield f"{paper}this run reaches {', and '.join(told) or 'none'}."
    yield from found.reasons


def paper_tables(found: Reproduction) -> list[Table]:
    """The claims, the networks, the fusions under both protocols, and the sides of the splits."""
    claims = tuple(
        (
            text_cell(c.title, c.basis),
            number_cell(c.accuracy.value, c.accuracy.interval),
            *(text_cell(DASH) if n is None else count_cell(n) for n in (c.images, c.patients)),
        )
        for c in found.claims
    )
    networks = tuple(
        (
            text_cell(n.label, n.reason or short_weights(n.digest or "")),
            text_cell("yes" if n.in_paper else "extra"),
            count_cell(n.input_size),
            count_cell(n.dimension),
            _score_cell(found.heads.get(n.name)),
        )
        for n in found.networks
    )
    fusions = tuple(
        (text_cell(STEPS.get(step, step)), text_cell(PROTOCOLS.get(protocol, protocol)), _score_cell(score))
        for protocol, steps in found.fusions.items()
        for step, score in steps.items()
    )
    hits = tuple(
        (
            text_cell(PROTOCOLS.get(protocol, protocol)),
            *(number_cell(shares.get(name), None) for name in ("all", "right", "wrong")),
        )
        for protocol, shares in found.hit_probability.items()
    )
    sides = tuple(
        (text_cell(PROTOCOLS.get(protocol, protocol)), text_cell(split), text_cell(label), count_cell(count))
        for protocol, splits in found.splits.items()
        for split, labels in splits.items()
        for label, count in labels.items()
    )
    return [
        Table("The paper's accuracy and this run's", ("Accuracy of", "Accuracy", "Images", "Patients"), claims,
              f"Always answering the most frequent class is right in {found.majority_baseline:.3f} of the test"
              " images."),
        Table("Networks", ("Network", "In the paper", "Input, px", "Values", "Accuracy of its own head"), networks,
              "Under the paper's protocol: split by image."),
        Table("Fusions", ("Fusion", "Protocol", "Accuracy"), fusions, "On test images."),
        *([Table("Hit probability of the majority", ("Protocol", "All", "Answered right", "Answered wrong"), hits,
                 "Mean over the test images: what the paper puts out beside the class.")] if hits else []),
        Table("Sides of the splits", ("Protocol", "Side", "Class", "Images"), sides),
    ]  # fmt: skip


def _score_cell(score: Score | None) -> Cell:
    return number_cell(None) if score is None else number_cell(score.value, score.interval)


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
