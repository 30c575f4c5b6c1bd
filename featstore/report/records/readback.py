"""Outcomes of `featstore.fuse` and `featstore.compare` from the numbers that they left, without probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.comparison import Comparison
from featstore.evaluation.contestants import Contestant
from featstore.evaluation.continuation import Change, Continuation
from featstore.evaluation.duels import Duel, Test
from featstore.evaluation.economics import Bargain, Economics, Price
from featstore.evaluation.fuse import Fusion
from featstore.evaluation.metrics import ENOUGH_IMAGES, METRICS
from featstore.evaluation.operating import Wish
from featstore.evaluation.scores import Score
from featstore.evaluation.standing import Estimate, Spread, Standing
from featstore.evaluation.viewcurve import ViewPoint
from featstore.evaluation.winner import Winner
from featstore.findings import Finding
from featstore.report.calibration import calibration_error
from featstore.report.records.schema import (
    COMPARISON,
    FINDINGS,
    FUSION,
    HELD_OUT_SHORTCUTS,
    LATER_CURVES,
    SHORTCUTS,
    TWO_CLASS_CURVES,
)
from featstore.report.records.shape import ShapeError, fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
        continuation=_continuation(document["continuation"]),
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
    names = [contestant["name"] for contestant in document["contestants"]]
    _require(bool(names), "there are no contestants")
    _require(len(set(names)) == len(names), "two contestants have one name")
    for contestant in document["contestants"]:
        _require_metrics(contestant["metrics"])
        _require_curves(contestant["curves"], matrix)
        _require(bool(contestant["backbones"]), f"{contestant['name']} has no backbone")
    for duel in document["comparisons"]:
        _require({duel["a"], duel["b"]} <= set(names), "strangers are compared")
    winner = document["winner"]
    _require(winner is None or winner["name"] in names, "a stranger won")
    drafts: list[list[str]] = next((c["chosen"] for c in document["contestants"] if c["chosen"]), [])
    return Comparison(
        matrix=matrix,
        folds=protocol["folds"],
        repeats=protocol["repeats"],
        fold_seed=protocol["fold_seed"],
        wish=_wish(protocol, matrix),
        standings=tuple(_standing(contestant) for contestant in document["contestants"]),
        duels=tuple(_duel(duel) for duel in document["comparisons"]),
        winner=None if winner is None else _winner(winner),
        curves={c["name"]: c["curves"] for c in document["contestants"]},
        drafts=tuple(tuple(draft) for draft in drafts),
        view_curve=tuple(_view_point(point) for point in document["view_curve"]),
        economics=_economics(document["economics"]),
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


def _shortcuts(document: Any) -> tuple[Standing, ...]:  # noqa: ANN401
    SHORTCUTS(document, "the shortcuts")
    for shortcut in document:
        _require_metrics(shortcut["metrics"])
    return tuple(
        Standing(
            Contestant("shortcut", (), shortcut["name"]),
            (),
            (),
            _estimates(shortcut["metrics"]),
            Spread(None, None, None),
            np.empty(0),
        )
        for shortcut in document
    )


def _estimates(document: Mapping[str, Any]) -> dict[str, Estimate]:
    return {
        name: Estimate(e["mean"], e["deviation"], _pair(e["interval"]), tuple(e["folds"]))
        for name, e in document.items()
    }


def _wish(protocol: Mapping[str, Any], matrix: Mapping[str, Any]) -> Wish:
    positive = matrix["positive"]
    index = None if positive is None else list(matrix["classes"]).index(positive)
    try:
        return Wish(protocol["calibrate"], protocol["sensitivity"], index)
    except ValueError as error:
        raise ShapeError("nothing can be calibrated as the protocol says") from error


def _standing(document: Mapping[str, Any]) -> Standing:
    contestant = Contestant(
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
        estimates["ece"] = Estimate(pooled["ece"].value, None, None, ())
    spread = document["spread"]
    return Standing(
        contestant,
        (),
        (),
        estimates,
        Spread(spread["patients"], spread["folds"], spread["training"]),
        np.empty(0),
    )


def _pooled_score(curves: Mapping[str, Any]) -> dict[str, Score]:
    """ECE of a run from before it was pooled, by its own bins: a table must not have another than the figure."""
    if "calibration_error" in curves or "calibration" not in curves:
        return {}
    bins = curves["calibration"]
    enough = sum(bins["images"]) >= ENOUGH_IMAGES
    return {"ece": Score(calibration_error(bins) if enough else None, None)}


def _duel(document: Mapping[str, Any]) -> Duel:
    tests = {name: Test(t["p"], t["adjusted"]) for name, t in document["tests"].items()}
    known = {name: document[name] for name in ("a", "b", "metric", "delta", "p", "verdict", "needed")}
    return Duel(**known, interval=_pair(document["interval"]), tests=tests)


def _winner(document: Mapping[str, Any]) -> Winner:
    # Runs of before could expect more than was seen, by the luck of the resamples.
    guarded = min(document["naive"], document["guarded"])
    known = {name: document[name] for name in ("name", "of", "metric", "naive", "picked")}
    return Winner(
        **known,
        guarded=guarded,
        optimism=document["naive"] - guarded,
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


def _economics(document: Mapping[str, Any] | None) -> Economics | None:
    if document is None:
        return None
    prices = tuple(
        Price(**{name: price[name] for name in Price.__dataclass_fields__}) for price in document["prices"]
    )
    front = tuple(Bargain(tuple(b["backbones"]), b["milliseconds"], b["score"]) for b in document["front"])
    redundancy = tuple(tuple(row) for row in document["redundancy"])
    _require(all(len(row) == len(prices) for row in (*redundancy, redundancy)), "the redundancy is no square")
    return Economics(document["metric"], prices, document["exact"], front, redundancy, document["agreement"])


def _continuation(document: Mapping[str, Any] | None) -> Continuation | None:
    if document is None:
        return None
    changes = {
        split: {
            name: Change(c["before"], c["after"], c["difference"], _pair(c["interval"]))
            for name, c in part.items()
        }
        for split, part in document["changes"].items()
    }
    return Continuation(document["run"], tuple(document["frozen"]), document["held_out_then"], changes)


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
