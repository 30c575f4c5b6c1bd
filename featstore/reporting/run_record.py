"""Run folders read back: checked against their seals, and every number of the shape that it should have."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import runs, serialization
from featstore.errors import RunError, UsageError
from featstore.evaluation.backbone_value import BackboneCost, BackboneValue, ParetoPoint, ViewPoint
from featstore.evaluation.calibration import OperatingPointRequest
from featstore.evaluation.candidates import Candidate
from featstore.evaluation.estimates import CandidateScores, MetricEstimate, Score, VarianceComponents
from featstore.evaluation.metrics import ENOUGH_IMAGES, METRICS
from featstore.evaluation.pairwise_tests import PairwiseDifference, TestResult
from featstore.evaluation.selection_bias import SelectionBias
from featstore.findings import Finding
from featstore.reporting.schema import (
    COMPARISON,
    EXTRACTION,
    FINDINGS,
    FUSION,
    HELD_OUT_SHORTCUTS,
    LATER_CURVES,
    PROVENANCE,
    REPRODUCED,
    REPRODUCTION,
    SHORTCUTS,
    TWO_CLASS_CURVES,
    RunPredictions,
    ShapeError,
    fields,
    read_predictions,
    with_votes,
)
from featstore.reporting.tables import DASH, Table, count_cell, number_cell, short_weights, text_cell
from featstore.reporting.verdict import calibration_error, phrase
from featstore.results.comparison import Comparison
from featstore.results.fusion import Fusion, MetricChange, WarmStart

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


# Records of runs


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
    paper_figures
        Figures that the run keeps as files; empty but for a reproduction of the paper.
    predictions
        By split, or by candidate: the leader and the single backbones, on the folds of the first repeat.
    """

    folder: Path
    name: str
    kind: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]
    outcome: Fusion | Comparison | None
    predictions: Mapping[str, RunPredictions]
    paper_figures: tuple[RecordedFigure, ...] = ()

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
        """Split or candidate whose answers a report is about: the test split, or the leader."""
        if isinstance(self.outcome, Fusion):
            return "test" if "test" in self.outcome.scores else list(self.outcome.scores)[-1]
        return None if self.outcome is None else leader(self.outcome).candidate.label


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
        PROVENANCE(about, runs.RUN)
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


def leader(comparison: Comparison) -> CandidateScores:
    """Candidate with the highest primary metric."""
    return max(comparison.candidates, key=lambda scored: scored.primary)


def _read_extract(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    EXTRACTION(about, runs.RUN)
    return RunRecord(folder, folder.resolve().name, "extract", about, {}, None, {})


def _read_paper(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    REPRODUCED(about, runs.RUN)
    metrics = _metrics(folder, about)
    return RunRecord(
        folder,
        folder.resolve().name,
        "paper",
        about,
        metrics,
        None,
        {},
        recorded_figures(folder, about, metrics),
    )


def _read_fuse(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    metrics = _metrics(folder, about)
    outcome = read_fusion(metrics)
    answers = read_predictions(
        runs.read_verified(folder, about, runs.PREDICTIONS),
        "split",
        list(outcome.scores),
        list(outcome.matrix["classes"]),
    )
    return RunRecord(folder, folder.resolve().name, "fuse", about, metrics, outcome, answers)


def _read_compare(folder: Path, about: Mapping[str, Any]) -> RunRecord:
    metrics = _metrics(folder, about)
    outcome = read_comparison(metrics)
    first, singles = leader(outcome).candidate, _voters(outcome)
    answers = read_predictions(
        runs.read_verified(folder, about, runs.PREDICTIONS),
        "contestant",
        list(dict.fromkeys([first.label, *singles])),
        list(outcome.matrix["classes"]),
        outcome.folds,
    )
    voters = {backbone: answers[label] for label, backbone in singles.items()}
    voted = with_votes(answers[first.label], voters)
    return RunRecord(
        folder, folder.resolve().name, "compare", about, metrics, outcome, {**answers, first.label: voted}
    )


def _voters(comparison: Comparison) -> dict[str, str]:
    """Backbone by label of the single backbones that trained and were tested on the views that the leader had."""
    first = leader(comparison).candidate
    return {
        s.candidate.label: s.candidate.backbones[0]
        for s in comparison.candidates
        if len(s.candidate.backbones) == 1
        and (s.candidate.views, s.candidate.test_views) == (first.views, first.test_views)
    }


def _metrics(folder: Path, about: Mapping[str, Any]) -> Any:  # noqa: ANN401
    return serialization.parse(runs.read_verified(folder, about, runs.METRICS))


# Outcomes of `featstore.fuse` and `featstore.compare` from their numbers, without probabilities


def read_fusion(document: Any) -> Fusion:  # noqa: ANN401
    """Fit that `Fusion.to_json` described.

    Raises
    ------
    ShapeError
        If the document is of another shape, or its parts do not fit together.
    """
    FUSION(document, "the fit")
    matrix = document["matrix"]
    _require_classes(matrix)
    for split, scores in document["scores"].items():
        _require(split in document["sizes"], f"nobody knows the size of the split {split!r}")
        _require_metrics(scores)
        _require(split in document["curves"], f"the split {split!r} has no curves")
        _require_curves(document["curves"][split], matrix)
    _require(bool(document["scores"]), "no split was scored")
    _require_point(document["operating"], len(matrix["classes"]))
    return Fusion(
        run=document.get("run", ""),
        strategy=document["strategy"],
        options=document["options"],
        matrix=matrix,
        sizes=document["sizes"],
        operating=document["operating"],
        scores={
            split: {name: Score(s["value"], _pair(s["interval"])) for name, s in scores.items()}
            | _pooled_score(document["curves"][split])
            for split, scores in document["scores"].items()
        },
        curves=document["curves"],
        history=document["history"],
        continuation=_warm_start(document["continuation"]),
        shortcuts=_held_out_shortcuts(document.get("shortcuts", {}), document["scores"]),
        findings=read_findings(document.get("findings", [])),
    )


def read_comparison(document: Any) -> Comparison:  # noqa: ANN401
    """Comparison that `Comparison.to_json` described, but for probabilities, decisions and resamples.

    Raises
    ------
    ShapeError
        If the document is of another shape, or its parts do not fit together.
    """
    COMPARISON(document, "the comparison")
    matrix, protocol = document["matrix"], document["protocol"]
    _require_classes(matrix)
    names = [candidate["name"] for candidate in document["contestants"]]
    _require(bool(names), "there are no candidates")
    _require(len(set(names)) == len(names), "two candidates have one name")
    for candidate in document["contestants"]:
        _require_metrics(candidate["metrics"])
        _require_curves(candidate["curves"], matrix)
        _require(bool(candidate["backbones"]), f"{candidate['name']} has no backbone")
    for pair in document["comparisons"]:
        _require({pair["a"], pair["b"]} <= set(names), "strangers are compared")
    winner = document["winner"]
    _require(winner is None or winner["name"] in names, "a stranger won")
    selections: list[list[str]] = next((c["chosen"] for c in document["contestants"] if c["chosen"]), [])
    return Comparison(
        matrix=matrix,
        folds=protocol["folds"],
        repeats=protocol["repeats"],
        fold_seed=protocol["fold_seed"],
        operating_point_request=_operating_point_request(protocol, matrix),
        candidates=tuple(_candidate_scores(candidate) for candidate in document["contestants"]),
        pairs=tuple(_pairwise_difference(pair) for pair in document["comparisons"]),
        selection_bias=None if winner is None else _selection_bias(winner),
        curves={c["name"]: c["curves"] for c in document["contestants"]},
        selected_backbones=tuple(tuple(selection) for selection in selections),
        view_curve=tuple(_view_point(point) for point in document["view_curve"]),
        backbone_value=_backbone_value(document["economics"]),
        own_split=protocol.get("own_split") is True,
        shortcuts=_shortcuts(document.get("shortcuts", [])),
        findings=read_findings(document.get("findings", [])),
    )


def read_findings(document: Any) -> tuple[Finding, ...]:  # noqa: ANN401
    """Findings that `Finding.to_json` described, without their examples; ShapeError if they are none."""
    FINDINGS(document, "the findings")
    return tuple(
        Finding(
            code=entry["code"],
            message=entry["message"],
            count=entry["count"],
            value=entry["value"],
            interval=_pair(entry["interval"]),
            accepted=entry["accepted"],
            remedy=entry["remedy"],
        )
        for entry in document
    )


def _held_out_shortcuts(document: Any, scored: Iterable[str]) -> dict[str, dict[str, dict[str, Score]]]:  # noqa: ANN401
    HELD_OUT_SHORTCUTS(document, "the shortcuts")
    for split, found in document.items():
        _require(split in scored, "shortcuts were scored on a split that nobody knows")
        for scores in found.values():
            _require_metrics(scores)
    return {
        split: {
            name: {metric: Score(s["value"], _pair(s["interval"])) for metric, s in scores.items()}
            for name, scores in found.items()
        }
        for split, found in document.items()
    }


def _shortcuts(document: Any) -> tuple[CandidateScores, ...]:  # noqa: ANN401
    SHORTCUTS(document, "the shortcuts")
    for shortcut in document:
        _require_metrics(shortcut["metrics"])
    return tuple(
        CandidateScores(
            Candidate("shortcut", (), shortcut["name"]),
            (),
            (),
            _estimates(shortcut["metrics"]),
            VarianceComponents(None, None, None),
            np.empty(0),
        )
        for shortcut in document
    )


def _estimates(document: Mapping[str, Any]) -> dict[str, MetricEstimate]:
    return {
        name: MetricEstimate(e["mean"], e["deviation"], _pair(e["interval"]), tuple(e["folds"]))
        for name, e in document.items()
    }


def _operating_point_request(protocol: Mapping[str, Any], matrix: Mapping[str, Any]) -> OperatingPointRequest:
    positive = matrix["positive"]
    index = None if positive is None else list(matrix["classes"]).index(positive)
    try:
        return OperatingPointRequest(protocol["calibrate"], protocol["sensitivity"], index)
    except ValueError as error:
        raise ShapeError("nothing can be calibrated as the protocol says") from error


def _candidate_scores(document: Mapping[str, Any]) -> CandidateScores:
    candidate = Candidate(
        document["strategy"],
        tuple(document["backbones"]),
        document["name"],
        greedy=document["chosen"] is not None,
        views=document["views"],
        test_views=document["test_views"],
    )
    estimates = _estimates(document["metrics"])
    pooled = _pooled_score(document["curves"])
    if "ece" in pooled:
        estimates["ece"] = MetricEstimate(pooled["ece"].value, None, None, ())
    spread = document["spread"]
    return CandidateScores(
        candidate,
        (),
        (),
        estimates,
        VarianceComponents(spread["patients"], spread["folds"], spread["training"]),
        np.empty(0),
    )


def _pooled_score(curves: Mapping[str, Any]) -> dict[str, Score]:
    """ECE of a run from before it was pooled, by its own bins: a table must not have another than the figure."""
    if "calibration_error" in curves or "calibration" not in curves:
        return {}
    bins = curves["calibration"]
    enough = sum(bins["images"]) >= ENOUGH_IMAGES
    return {"ece": Score(calibration_error(bins) if enough else None, None)}


def _pairwise_difference(document: Mapping[str, Any]) -> PairwiseDifference:
    tests = {name: TestResult(t["p"], t["adjusted"]) for name, t in document["tests"].items()}
    known = {name: document[name] for name in ("a", "b", "metric", "delta", "p", "verdict", "needed")}
    return PairwiseDifference(**known, interval=_pair(document["interval"]), tests=tests)


def _selection_bias(document: Mapping[str, Any]) -> SelectionBias:
    # Runs of before could expect more than was seen, by the luck of the resamples.
    corrected = min(document["naive"], document["guarded"])
    known = {name: document[name] for name in ("name", "of", "metric", "naive", "picked")}
    return SelectionBias(
        **known,
        guarded=corrected,
        optimism=document["naive"] - corrected,
        interval=_pair(document["interval"]),
    )


def _view_point(document: Mapping[str, Any]) -> ViewPoint:
    return ViewPoint(
        document["contestant"],
        document["metric"],
        document["views"],
        document["mean"],
        _pair(document["interval"]),
    )


def _backbone_value(document: Mapping[str, Any] | None) -> BackboneValue | None:
    if document is None:
        return None
    prices = tuple(
        BackboneCost(**{name: price[name] for name in BackboneCost.__dataclass_fields__})
        for price in document["prices"]
    )
    front = tuple(
        ParetoPoint(tuple(b["backbones"]), b["milliseconds"], b["score"]) for b in document["front"]
    )
    redundancy = tuple(tuple(row) for row in document["redundancy"])
    _require(all(len(row) == len(prices) for row in (*redundancy, redundancy)), "the redundancy is no square")
    return BackboneValue(
        document["metric"], prices, document["exact"], front, redundancy, document["agreement"]
    )


def _warm_start(document: Mapping[str, Any] | None) -> WarmStart | None:
    if document is None:
        return None
    changes = {
        split: {
            name: MetricChange(c["before"], c["after"], c["difference"], _pair(c["interval"]))
            for name, c in part.items()
        }
        for split, part in document["changes"].items()
    }
    return WarmStart(document["run"], tuple(document["frozen"]), document["held_out_then"], changes)


def _require_classes(matrix: Mapping[str, Any]) -> None:
    classes, positive = matrix["classes"], matrix["positive"]
    _require(len(classes) > 1, "there are fewer than two classes")
    _require(positive is None or positive in classes, "the positive class is none of them")
    _require(bool(matrix["backbones"]), "there is no backbone")
    _require(bool(matrix["views"]), "there is no view")


def _require_point(operating: Mapping[str, Any], classes: int) -> None:
    threshold, sensitivity, positive = (operating[name] for name in ("threshold", "sensitivity", "positive"))
    _require(positive is None or positive < classes, "the positive class is none")
    _require(
        (threshold is None) == (sensitivity is None), "a threshold without a sensitivity, or the reverse"
    )
    _require(threshold is None or positive is not None, "nobody knows whose threshold it is")


def _require_metrics(found: Iterable[str]) -> None:
    missing = sorted(set(METRICS) - set(found))
    _require(not missing, f"there is no {', '.join(missing)}")


def _require_curves(curves: Any, matrix: Mapping[str, Any]) -> None:  # noqa: ANN401
    if matrix["positive"] is not None:
        fields(**TWO_CLASS_CURVES)(curves, "the curves")
    for name in LATER_CURVES.keys() & curves.keys():
        LATER_CURVES[name](curves[name], "the curves")
    for name, curve in curves.items():
        if isinstance(curve, dict):
            lengths = {len(part) for part in curve.values() if isinstance(part, list)}
            _require(len(lengths) < 2, f"the {name[:40]} curve is torn")  # noqa: PLR2004


def _require(right: bool, otherwise: str) -> None:
    if not right:
        raise ShapeError(otherwise)


def _pair(value: list[float] | None) -> tuple[float, float] | None:
    return None if value is None else (value[0], value[1])


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
    folder: Path, about: Mapping[str, Any], document: Mapping[str, Any]
) -> tuple[RecordedFigure, ...]:
    """Figures of a reproduction, each checked against the digest in ``run.json``.

    Raises
    ------
    RunError
        If a figure is absent or damaged.
    """
    REPRODUCTION(document, "the reproduction")
    found = []
    for figure in document["figures"]:
        name = figure["file"]
        if name.count("/") != 1 or not name.startswith(f"{runs.FIGURES}/") or not name.endswith(".svg"):
            raise ShapeError("a figure lies elsewhere than in its folder")
        data = runs.read_verified(folder, about, name)
        source = URI + base64.b64encode(data).decode()
        known = {key: figure[key] for key in ("number", "title", "alt", "caption", "shows_images")}
        found.append(RecordedFigure(**known, source=source))
    return tuple(found)


def paper_verdict(document: Mapping[str, Any]) -> Iterator[str]:
    """The paper's accuracy and this run's in one sentence, then why they differ."""
    scores = {claim["name"]: claim["accuracy"] for claim in document["claims"]}
    told = [
        f"{words} {phrase(*_score(scores[name]))}"
        for name, words in SPOKEN.items()
        if name in scores and scores[name]["value"] is not None
    ]
    claimed = scores.get("paper", {}).get("value")
    paper = "" if claimed is None else f"The paper claims an accuracy of {claimed:.2f}; "
    yield f"{paper}this run reaches {', and '.join(told) or 'none'}."
    yield from document["reasons"]


def paper_tables(document: Mapping[str, Any]) -> list[Table]:
    """The claims, the networks, the fusions under both protocols, and the sides of the splits."""
    claims = tuple(
        (
            text_cell(c["title"], c["basis"]),
            number_cell(c["accuracy"]["value"], c["accuracy"]["interval"]),
            *(text_cell(DASH) if c[key] is None else count_cell(c[key]) for key in ("images", "patients")),
        )
        for c in document["claims"]
    )
    heads = document["heads"]
    networks = tuple(
        (
            text_cell(n["label"], n["reason"] or short_weights(n["digest"] or "")),
            text_cell("yes" if n["in_paper"] else "extra"),
            count_cell(n["input_size"]),
            count_cell(n["dimension"]),
            number_cell(*_score(heads.get(n["name"]))),
        )
        for n in document["networks"]
    )
    fusions = tuple(
        (
            text_cell(STEPS.get(step, step)),
            text_cell(PROTOCOLS.get(protocol, protocol)),
            number_cell(*_score(score)),
        )
        for protocol, steps in document["fusions"].items()
        for step, score in steps.items()
    )
    sides = tuple(
        (text_cell(PROTOCOLS.get(protocol, protocol)), text_cell(split), text_cell(label), count_cell(count))
        for protocol, splits in document["sides"].items()
        for split, labels in splits.items()
        for label, count in labels.items()
    )
    return [
        Table("The paper's accuracy and this run's", ("Accuracy of", "Accuracy", "Images", "Patients"), claims,
              f"Always answering the most frequent class is right in {document['floor']:.3f} of the test images."),
        Table("Networks", ("Network", "In the paper", "Input, px", "Values", "Accuracy of its own head"), networks,
              "Under the paper's protocol: split by image."),
        Table("Fusions", ("Fusion", "Protocol", "Accuracy"), fusions, "On test images."),
        Table("Sides of the splits", ("Protocol", "Side", "Class", "Images"), sides),
    ]  # fmt: skip


def _score(document: Mapping[str, Any] | None) -> tuple[float | None, tuple[float, float] | None]:
    if document is None:
        return None, None
    interval = document["interval"]
    return document["value"], None if interval is None else (interval[0], interval[1])
