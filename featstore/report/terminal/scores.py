"""Scores of stage two as plain text: tables of contestants and of held-out images."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

from featstore.evaluation.metrics import DECISION, PROBABILITY
from featstore.evaluation.ranking import RANKING
from featstore.findings import CATALOGUE
from featstore.report.calibration import calibration_text, chance_text
from featstore.report.plain import counts, table, view_name
from featstore.report.terminal.economics import economics_text, view_curve_text
from featstore.report.terminal.findings import findings_brief
from featstore.report.verdict import verdict, winner_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.evaluation.comparison import Comparison
    from featstore.evaluation.fuse import Fusion
    from featstore.evaluation.standing import Standing
    from featstore.findings import Finding

SHOWN = 20
"""Contestants in a printed table."""
SAID_FIRST = ("FS114", "FS406")
"""Findings that `first_text` and `positive_text` tell, with the flag that changes it."""
PARTS = {
    "Does it put the ill above the well?": RANKING,
    "Does it answer right?": DECISION,
    "Can its probabilities be taken at their word? (0 is best)": PROBABILITY,
}
HEADS = {
    "average_precision": "avg precision",
    "balanced_accuracy": "balanced acc.",
    "brier": "Brier",
    "ece": "ECE",
    "f1": "F1",
    "log_loss": "log-loss",
    "auc": "AUC",
    **{f"sensitivity_at_specificity_{at}": f"sens. at spec. .{at}" for at in (90, 95)},
    **{f"specificity_at_sensitivity_{at}": f"spec. at sens. .{at}" for at in (90, 95)},
}


def comparison_text(result: Comparison) -> str:
    """Tables of a comparison, and the verdict in words."""
    shown = _best(result.standings)
    listed = [*shown, *result.shortcuts]
    names = [s.contestant.label for s in listed]
    head = f"{scored_on(result)} [95 %]; ECE: all images"
    rows = [
        {m: _number(e.mean, e.interval) for m, e in s.estimates.items()}
        | _error_cell(
            s.estimates["ece"].mean, s.estimates["ece"].interval, result.curves.get(s.contestant.label)
        )
        for s in listed
    ]
    hidden = len(result.standings) - len(shown)
    return "\n\n".join(
        part
        for part in (
            f"{first_text(result)}{data_text(result.matrix)}",
            _tables(head, names, rows),
            leader_calibration(result),
            f"These are the {SHOWN} with the highest AUC; {hidden} more are in --json." if hidden else "",
            findings_brief(unsaid(result.findings)),
            *asides(result),
            winner_text(result),
            verdict(result),
        )
        if part
    )


def first_text(result: Comparison) -> str:
    """A first line where the data set has a split of its own: whether scores are on it, and how they could be."""
    if result.own_split:
        return "Scored on the data set's own test images.\n"
    if not any(finding.code == "FS114" and not finding.accepted for finding in result.findings):
        return ""
    return (
        f"The data set's own split is NOT used (FS114): {result.folds} folds are drawn over all images."
        " To score on its test images: --folds split\n"
    )


def unsaid(found: Sequence[Finding]) -> list[Finding]:
    """Findings that the first lines of a result have not told yet."""
    return [finding for finding in found if finding.accepted or finding.code not in SAID_FIRST]


def scored_on(result: Comparison) -> str:
    """What the scores are means of."""
    if result.own_split:
        return "the data set's own test images"
    return f"mean of {result.folds * result.repeats} folds"


def _error_cell(
    value: float | None, interval: tuple[float, float] | None, curves: Mapping[str, Any] | None
) -> dict[str, str]:
    """ECE with that of a perfectly calibrated model beside it."""
    chance = chance_text(curves or {})
    return {"ece": f"{_number(value, interval)}{f' ({chance})' if chance else ''}"}


def leader_calibration(result: Comparison) -> str:
    """How well the probabilities of the one with the highest AUC are calibrated."""
    leader = max(result.standings, key=lambda s: s.primary).contestant.label
    told = calibration_text(result.curves.get(leader, {}))
    return f"{leader}, all images together: {told}" if told else ""


def _calibrations(result: Fusion) -> list[str]:
    texts = {name: calibration_text(part) for name, part in result.curves.items()}
    return [f"{name}: {text}" for name, text in texts.items() if text]


def asides(result: Comparison) -> tuple[str, ...]:
    """What a comparison says beside the scores, empty where it was not asked for."""
    return (
        _wish_text(result),
        _drafts_text(result.drafts),
        view_curve_text(result.view_curve) if result.view_curve else "",
        economics_text(result.economics) if result.economics else "",
    )


def _drafts_text(drafts: Sequence[Sequence[str]]) -> str:
    """Say which backbones the greedy contestants had."""
    chosen = [f"  fold {fold}: {', '.join(names)}" for fold, names in enumerate(drafts, 1)]
    head = "Greedy selection, made in each fold from its training images, took:"
    return "\n".join([head, *chosen]) if chosen else ""


def fusion_text(result: Fusion) -> str:
    """Scores of a fit."""
    sizes = ", ".join(f"{name} {count}" for name, count in result.sizes.items())
    names = [f"{name} ({result.sizes[name]} images)" for name in result.scores]
    rows = [
        {m: _number(s.value, s.interval) for m, s in part.items()}
        | _error_cell(part["ece"].value, part["ece"].interval, result.curves.get(split))
        for split, part in result.scores.items()
    ]
    for split, guesses in result.shortcuts.items():
        names += [f"{split}: {name}" for name in guesses]
        rows += [{m: _number(s.value, s.interval) for m, s in part.items()} for part in guesses.values()]
    return "\n\n".join(
        part
        for part in (
            data_text(result.matrix),
            f"{result.strategy}, fitted on the training images alone: {sizes}.",
            _tables("score [95 %]", names, rows),
            *_calibrations(result),
            operating_text(result.operating, list(result.matrix["classes"])),
            _continuation_text(result),
            findings_brief(unsaid(result.findings)),
            f"The run is in {result.run}: model/, metrics.json, predictions.csv, run.json.",
            f"Next: featstore predict {result.run} IMAGE...",
        )
        if part
    )


def _continuation_text(result: Fusion) -> str:
    """Say what fine-tuning changed on the images held out."""
    continuation = result.continuation
    if continuation is None:
        return ""
    frozen = f", weights of {', '.join(continuation.frozen)} kept" if continuation.frozen else ""
    lines = [f"Fine-tuned from {continuation.run}{frozen}. Before, after, and the difference [95 %]:"]
    for split, changes in continuation.changes.items():
        for metric in ("auc", "balanced_accuracy", "log_loss"):
            change = changes.get(metric)
            if change is None or change.before is None or change.after is None:
                continue
            difference = _number(change.difference, change.interval)
            name = HEADS.get(metric, metric)
            lines.append(f"  {split} {name}: {change.before:.3f}, {change.after:.3f}, {difference}")
    if continuation.held_out_then is None:
        lines.append(
            "  The earlier run saw another table. If these patients were in it, 'before' flatters it."
        )
    return "\n".join(lines)


def operating_text(operating: Mapping[str, Any], classes: Sequence[str]) -> str:
    """How a run's answers come about, where it is more than the most probable class."""
    calibration, threshold = operating["calibration"], operating["threshold"]
    sentences = []
    if calibration is not None:
        sentences.append(f"Probabilities are calibrated ({calibration['method']}).")
    if threshold is not None:
        sentences.append(
            f"An image is called {classes[operating['positive']]!r} from a probability of {threshold:.3g} on: this"
            f" found {100 * operating['sensitivity']:g} % of them in training, on images a model had not seen."
        )
    return " ".join(sentences)


def data_text(matrix: Mapping[str, Any]) -> str:
    """What a result rests on, in two or three lines."""
    views = [view_name(view["recipe"], view["seed"]) for view in matrix["views"]]
    groups = f"{matrix['groups']} groups"
    if matrix["groups_set_aside"]:
        groups = "GROUPS SET ASIDE (patients are on both sides of the split: scores are inflated)"
    elif not matrix["has_groups"]:
        groups = "no groups given (each image is its own: a leak cannot be excluded)"
    aside = f", {matrix['quarantined']} in quarantine" if matrix["quarantined"] else ""
    names = ", ".join(matrix["tuned"])
    tuned = (
        f"\nLeft out: {matrix['set_apart']} images from which, or from whose patients, {names} has learned."
        if matrix["set_apart"]
        else ""
    )
    about = (
        f"; sensitivity is about {matrix['positive']!r}" if matrix["positive"] else "; averaged over classes"
    )
    return (
        f"{positive_text(matrix)}\n"
        f"{matrix['images']} images{aside}, {groups}, classes: {counts(matrix['classes'])}{about}.\n"
        f"Backbones: {', '.join(spec['name'] for spec in matrix['backbones'])}. Views: {', '.join(views)}.{tuned}"
    )


def positive_text(matrix: Mapping[str, Any]) -> str:
    """The positive class, and where nobody said which it is, who chose it and how to say so."""
    name = matrix["positive"]
    if name is None:
        return "No positive class: scores are averaged over the classes, each against the rest."
    origin = matrix.get("positive_origin", "asked")
    if origin not in {"names", "order"}:
        return f"Positive class: {name!r}."
    others = [other for other in matrix["classes"] if other != name]
    why = (
        f"since {others[0]!r} names its absence"
        if origin == "names"
        else "A MERE GUESS, the last in sorted order"
    )
    return (
        f"Positive class: {name!r} (FS406 {CATALOGUE['FS406'].name}: {why}; if it is the other one, add"
        f" --positive {quote(others[0])})."
    )


def _best(standings: Sequence[Standing]) -> list[Standing]:
    """Everyone who fits on the screen, in the order of the line-up."""
    kept = sorted(standings, key=lambda s: -s.primary)[:SHOWN]
    return [s for s in standings if s in kept]


def _tables(head: str, names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """One table per question, since all scores side by side fit no screen."""
    parts = []
    for question, metrics in PARTS.items():
        lines = [[name, *(row[m] for m in metrics)] for name, row in zip(names, rows, strict=True)]
        parts.append(f"{question}\n{table([head, *(HEADS.get(m, m) for m in metrics)], lines)}")
    return "\n\n".join(parts)


def _wish_text(result: Comparison) -> str:
    wish = result.wish
    parts = []
    if wish.calibrate is not None:
        parts.append(f"probabilities calibrated ({wish.calibrate})")
    if wish.sensitivity is not None:
        parts.append(f"threshold for a sensitivity of {wish.sensitivity:g}")
    chosen = " and ".join(parts)
    return (
        f"{chosen[0].upper()}{chosen[1:]}, chosen within the training images of each fold." if chosen else ""
    )


def _number(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else " [no interval]")
