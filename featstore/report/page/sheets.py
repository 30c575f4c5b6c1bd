"""The tables of each kind of run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from featstore.evaluation.comparison import Comparison
from featstore.evaluation.fuse import Fusion
from featstore.evaluation.metrics import METRICS, PRIMARY
from featstore.report.calibration import chance_text
from featstore.report.page.facts import kept
from featstore.report.page.sheet import Cell, Sheet, figure, whole, words
from featstore.report.plain import size, view_name
from featstore.report.records import reproduced
from featstore.report.records.record import leader
from featstore.report.terminal.scores import HEADS, PARTS, scored_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from featstore.evaluation.continuation import Continuation
    from featstore.evaluation.economics import Economics
    from featstore.report.records.record import Record

MEANING = {
    "auc": "chance that a random positive image gets a higher probability than a random other one; 0.5 is guessing",
    "average_precision": "mean share of true alarms along the list from most to least suspicious",
    "sensitivity_at_specificity_90": "positives found when at most 10 % of the others are called positive",
    "sensitivity_at_specificity_95": "positives found when at most 5 % of the others are called positive",
    "specificity_at_sensitivity_90": "others left alone when 90 % of the positives must be found",
    "specificity_at_sensitivity_95": "others left alone when 95 % of the positives must be found",
    "accuracy": "right answers",
    "balanced_accuracy": "mean over the classes of the share found",
    "sensitivity": "positives that were found",
    "specificity": "others that were left alone",
    "f1": "harmonic mean of sensitivity and precision",
    "brier": "mean squared distance of the probability from the truth; 0 is best",
    "ece": "how far probabilities are from observed shares, over all images; 0 is best, never quite 0 by chance",
    "log_loss": "punishes sure mistakes most; 0 is best",
}


def sheets_of(record: Record) -> list[Sheet]:
    """Tables of a run, the one that matters first."""
    match record.outcome:
        case Comparison() as comparison:
            return [
                _contestants(record, comparison),
                *([_views(comparison)] if comparison.view_curve else []),
                *([] if comparison.economics is None else _economics(comparison.economics)),
            ]
        case Fusion() as fusion:
            return [
                _scores(record, fusion),
                *([] if fusion.continuation is None else [_changes(fusion.continuation)]),
            ]
        case _ if record.kind == "paper":
            return reproduced.sheets(record.metrics)
        case _:
            return [_cells(record.about), _phases(record.about)]


def head(metric: str) -> str:
    """Name of a metric for a table."""
    return HEADS.get(metric, metric.replace("_", " "))


def _contestants(record: Record, comparison: Comparison) -> Sheet:
    ranked = sorted([*comparison.standings, *comparison.shortcuts], key=lambda s: -s.primary)
    rows = tuple(
        (
            words(s.contestant.label, _made_of(s.contestant.backbones)),
            *(
                _beside(
                    m,
                    figure(s.estimates[m].mean, s.estimates[m].interval),
                    comparison.curves.get(s.contestant.label, {}),
                )
                for m in METRICS
            ),
        )
        for s in ranked
    )
    first = leader(comparison).contestant.label
    return Sheet(
        f"All {len(comparison.standings)} contestants, {scored_on(comparison)}",
        ("Contestant", *(head(m) for m in METRICS)),
        rows,
        f"Mean over the folds (ECE: all images together), with its 95 % interval from resampled {kept(record)}, never"
        " narrower than so many allow. Sort by any column.",
        marked=next(at for at, s in enumerate(ranked) if s.contestant.label == first),
        sorted_by=1 + METRICS.index(PRIMARY),
    )


def _beside(metric: str, cell: Cell, curves: Mapping[str, Any]) -> Cell:
    """Put the ECE of a perfectly calibrated model beside an ECE."""
    chance = chance_text(curves) if metric == "ece" else ""
    return replace(cell, small="; ".join(filter(None, (cell.small, chance)))) if chance else cell


def _made_of(backbones: tuple[str, ...]) -> str:
    if not backbones:
        return "no network"
    return "alone" if len(backbones) == 1 else f"{len(backbones)} backbones"


def _views(comparison: Comparison) -> Sheet:
    points = comparison.view_curve
    return Sheet(
        f"How many augmented views pay? ({points[0].contestant})",
        ("Augmented views", head(points[0].metric)),
        tuple((whole(p.views), figure(p.mean, p.interval)) for p in points),
        "Every view is a row in training.",
    )


def _economics(found: Economics) -> list[Sheet]:
    prices = tuple(
        (
            words(p.name, size(p.bytes)),
            figure(p.milliseconds, digits=1),
            figure(p.alone),
            figure(p.shapley, signed=True),
            figure(p.caruana, digits=2),
        )
        for p in found.prices
    )
    front = tuple(
        (words("+".join(b.backbones)), figure(b.milliseconds, digits=1), figure(b.score)) for b in found.front
    )
    metric = head(found.metric)
    return [
        Sheet(
            "What a backbone costs, and what it is worth",
            ("Backbone", "ms per image", f"{metric} alone", "Shapley", "Caruana"),
            prices,
            f"Shapley: mean gain in {metric} when backbones join at random. Caruana: weight in a greedy ensemble.",
        ),
        Sheet(
            "Subsets that no cheaper one surpasses",
            ("Backbones", "ms per image", metric),
            front,
            "Point estimates, not verdicts.",
        ),
    ]


def _scores(record: Record, fusion: Fusion) -> Sheet:
    shown = record.shown or ""
    splits = [shown, *(name for name in fusion.scores if name != shown)]
    rows = tuple(
        (
            words(head(metric), MEANING[metric]),
            *(
                _beside(
                    metric,
                    figure(fusion.scores[s][metric].value, fusion.scores[s][metric].interval),
                    fusion.curves[s],
                )
                for s in splits
            ),
        )
        for metrics in PARTS.values()
        for metric in metrics
    )
    return Sheet(
        "Scores on images that the model had not seen",
        ("Score", *(f"{name} ({fusion.sizes[name]:,} images)" for name in splits)),
        rows,
        f"With the 95 % interval from resampled {kept(record)}."
        + ("" if fusion.matrix["positive"] else " Averaged over the classes, each against the rest."),
    )


def _changes(continuation: Continuation) -> Sheet:
    rows = [
        (
            words(f"{split} {head(metric)}"),
            figure(change.before),
            figure(change.after),
            figure(change.difference, change.interval, signed=True),
        )
        for split, changes in continuation.changes.items()
        for metric, change in changes.items()
    ]
    return Sheet("What fine-tuning changed", ("Score", "Before", "After", "Difference"), tuple(rows))


def _cells(about: Mapping[str, Any]) -> Sheet:
    rows = tuple(
        (
            words(c["backbone"]),
            words(view_name(c["recipe"], c["seed"])),
            whole(c["stored"]),
            whole(c["missing"]),
        )
        for c in about["cells"]
    )
    return Sheet(
        "Vectors by backbone and view",
        ("Backbone", "View", "Stored before", "Computed for this run"),
        rows,
        "One vector per image.",
    )


def _phases(about: Mapping[str, Any]) -> Sheet:
    rows = tuple((words(name), figure(seconds, digits=1)) for name, seconds in about["phases"].items())
    return Sheet(
        "Where the time went",
        ("Phase", "Seconds"),
        (*rows, (words("all, wall time"), figure(about["seconds"], digits=1))),
        f"The networks idled {100 * about['idle']:.0f} % of the time. Peak memory {size(about['measured_bytes'])},"
        f" announced {size(about['announced_bytes'])}.",
    )
