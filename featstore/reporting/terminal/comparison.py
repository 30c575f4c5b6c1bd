"""Fits and comparisons as plain text, and a comparison laid out for a terminal.

Plain text, which is what is piped, has every score with its interval, however wide (`comparison_text`). A terminal
shows the score that verdicts are about as small bars, some of the others, and the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from shlex import quote
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from featstore.evaluation.calibration import not_enough_patients
from featstore.evaluation.metrics import GROUPS, METRICS, PRIMARY, listed
from featstore.findings import CATALOGUE, Finding
from featstore.reporting import verdict
from featstore.reporting.tables import counts, printable, size, table, view_name
from featstore.reporting.verdict import sure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.results.comparison import (
        BackboneValue,
        CandidateResult,
        Comparison,
        ShortcutResult,
        ViewPoint,
    )
    from featstore.results.fusion import Fusion

    Stress = Literal["", "strong", "told", "untold", "faint"]

# Scores as plain text: tables of candidates and of held-out images

SHOWN = 20
"""Candidates in a printed table."""
SHOWN_FIRST = ("FS114", "FS406")
"""Findings that `first_text` and `positive_text` tell, with the flag that changes it."""


def comparison_text(result: Comparison) -> str:
    """Tables of a comparison, and the verdict in words."""
    shown = _best(result.candidates)
    listed: list[CandidateResult | ShortcutResult] = [*shown, *result.shortcuts]
    names = [s.candidate.label for s in listed]
    head = f"{scored_on(result)} [95 %]; ECE: all images"
    rows = [
        {m: _number(e.mean, e.interval) for m, e in s.estimates.items()}
        | _error_cell(
            s.estimates["ece"].mean, s.estimates["ece"].interval, result.curves.get(s.candidate.label)
        )
        for s in listed
    ]
    hidden = len(result.candidates) - len(shown)
    return "\n\n".join(
        part
        for part in (
            f"{first_text(result)}{data_text(result.matrix)}",
            _tables(head, names, rows),
            leader_calibration(result),
            f"These are the {SHOWN} with the highest AUC; {hidden} more are in --json." if hidden else "",
            verdict.findings_brief(findings_not_shown_yet(result.findings)),
            *extra_sections(result),
            verdict.selection_bias_text(result),
            verdict.verdict(result),
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


def findings_not_shown_yet(found: Sequence[Finding]) -> list[Finding]:
    """Findings that the first lines of a result have not told yet."""
    return [finding for finding in found if finding.accepted or finding.code not in SHOWN_FIRST]


def scored_on(result: Comparison) -> str:
    """What the scores are means of."""
    if result.own_split:
        return "the data set's own test images"
    return f"mean of {result.folds * result.repeats} folds"


def _error_cell(
    value: float | None, interval: tuple[float, float] | None, curves: Mapping[str, Any] | None
) -> dict[str, str]:
    """ECE with that of a perfectly calibrated model beside it."""
    chance = verdict.chance_text(curves or {})
    return {"ece": f"{_number(value, interval)}{f' ({chance})' if chance else ''}"}


def leader_calibration(result: Comparison) -> str:
    """How well the probabilities of the one with the highest AUC are calibrated."""
    leader = max(result.candidates, key=lambda s: s.primary).candidate.label
    told = verdict.calibration_text(result.curves.get(leader, {}))
    return f"{leader}, all images together: {told}" if told else ""


def _calibrations(result: Fusion) -> list[str]:
    texts = {name: verdict.calibration_text(part) for name, part in result.curves.items()}
    return [f"{name}: {text}" for name, text in texts.items() if text]


def extra_sections(result: Comparison) -> tuple[str, ...]:
    """What a comparison says beside the scores, empty where it was not asked for."""
    return (
        _request_text(result),
        _selected_backbones_text(result.selected_backbones),
        view_curve_text(result.view_curve) if result.view_curve else "",
        backbone_value_text(result.backbone_value) if result.backbone_value else "",
    )


def _selected_backbones_text(selections: Sequence[Sequence[str]]) -> str:
    """Say which backbones the greedy candidates had."""
    chosen = [f"  fold {fold}: {', '.join(names)}" for fold, names in enumerate(selections, 1)]
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
            _warm_start_text(result),
            verdict.findings_brief(findings_not_shown_yet(result.findings)),
            f"The run is in {result.run}: model/, metrics.json, predictions.csv, run.json.",
            f"Next: featstore predict {result.run} IMAGE...",
        )
        if part
    )


def _warm_start_text(result: Fusion) -> str:
    """Say what fine-tuning changed on the images held out."""
    warm_start = result.warm_start
    if warm_start is None:
        return ""
    frozen = f", weights of {', '.join(warm_start.frozen)} kept" if warm_start.frozen else ""
    lines = [f"Fine-tuned from {warm_start.run}{frozen}. Before, after, and the difference [95 %]:"]
    for split, changes in warm_start.changes.items():
        for metric in ("auc", "balanced_accuracy", "log_loss"):
            change = changes.get(metric)
            if change is None or change.before is None or change.after is None:
                continue
            difference = _number(change.difference, change.interval)
            name = METRICS[metric].label
            lines.append(f"  {split} {name}: {change.before:.3f}, {change.after:.3f}, {difference}")
    if warm_start.held_out_then is None:
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
            f"An image is called {classes[operating['positive']]!r} from a probability of {threshold:.3g} on:"
            f" {_reached(operating)}"
        )
    return " ".join(sentences)


def _reached(operating: Mapping[str, Any]) -> str:
    """What the threshold in use reaches, and the other one beside it: plain, or with a tolerance bound."""
    share = f"{100 * operating['sensitivity']:g} %"
    tolerance, plain = operating.get("tolerance"), operating.get("confidence") is None
    found = f"this found {share} of them in training, on images a model had not seen."
    if tolerance is None:
        return found
    certain = f"{100 * tolerance['confidence']:g} % sure"
    if not plain:
        return (
            f"it is {certain} that this finds {share} of them in other patients ({tolerance['patients']} patients;"
            f" exact tolerance bound). {tolerance['plain']:.3g} found as many in training."
        )
    if tolerance["threshold"] is None:
        return f"{found} {not_enough_patients(tolerance, operating['sensitivity'])}"
    return (
        f"{found} In other patients that is reached at best about half the time; from"
        f" {tolerance['threshold']:.3g} on it is {certain} (--confidence {tolerance['confidence']:g})."
    )


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


def _best(scored_candidates: Sequence[CandidateResult]) -> list[CandidateResult]:
    """Everyone who fits on the screen, in the order of the candidates."""
    kept = sorted(scored_candidates, key=lambda s: -s.primary)[:SHOWN]
    return [s for s in scored_candidates if s in kept]


def _tables(head: str, names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """One table per question, since all scores side by side fit no screen."""
    parts = []
    known = listed(set.intersection(*(set(row) for row in rows)) if rows else METRICS)
    for group, question in GROUPS.items():
        metrics = [row for row in known.values() if row.group == group]
        lines = [[name, *(row[m.name] for m in metrics)] for name, row in zip(names, rows, strict=True)]
        parts.append(f"{question}\n{table([head, *(m.label for m in metrics)], lines)}")
    return "\n\n".join(parts)


def _request_text(result: Comparison) -> str:
    request = result.protocol
    parts = []
    if request.calibrate is not None:
        parts.append(f"probabilities calibrated ({request.calibrate})")
    if request.sensitivity is not None:
        parts.append(f"threshold for a sensitivity of {request.sensitivity:g}{sure(request.confidence)}")
    chosen = " and ".join(parts)
    return (
        f"{chosen[0].upper()}{chosen[1:]}, chosen within the training images of each fold." if chosen else ""
    )


def _number(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else " [no interval]")


# Cost and worth of backbones and views


def backbone_value_text(result: BackboneValue) -> str:
    """Tables of prices, of the Pareto front and of redundancy."""
    names = [price.name for price in result.costs]
    prices = [
        [
            p.name,
            "-" if p.milliseconds is None else f"{p.milliseconds:.1f}",
            size(p.bytes),
            f"{p.alone:.3f}",
            f"{p.shapley:+.3f}",
            f"{p.caruana:.2f}",
            f"{p.log_me:.4f}",
            f"{p.h_score:.4f}",
        ]
        for p in result.costs
    ]
    front = [["+".join(b.backbones), f"{b.milliseconds:.1f}", f"{b.score:.3f}"] for b in result.front]
    alike = [[name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, result.redundancy, strict=True)]
    metric = result.metric.upper()
    how = "over all subsets" if result.exact else "over sampled permutations"
    basis = "; ".join(dict.fromkeys(price.basis for price in result.costs))
    return "\n\n".join(
        [
            "What does a backbone cost, and what is it worth?\n"
            + table(
                [
                    "backbone",
                    "ms/image",
                    "vector",
                    f"{metric} alone",
                    "Shapley",
                    "Caruana",
                    "LogME",
                    "H-score",
                ],
                prices,
            ),
            f"Times: {basis}. Shapley: mean gain in {metric} {how}, by the linear probe. {_advice(result)}",
            "Subsets that no cheaper one surpasses (point estimates, not verdicts):\n"
            + table(["backbones", "ms/image", metric], front),
            "How alike are they? (linear CKA; 1 is the same)\n" + table(["", *names], alike),
        ]
    )


def view_curve_text(points: Sequence[ViewPoint]) -> str:
    """One line per number of augmented views."""
    rows = [
        [
            p.views,
            "-" if p.mean is None else f"{p.mean:.3f}",
            f"[{p.interval[0]:.3f}, {p.interval[1]:.3f}]" if p.interval else "",
        ]
        for p in points
    ]
    first = points[0]
    head = table(["augmented views", first.metric.upper(), "95 %"], rows)
    return f"How many views pay? ({first.candidate}, every view a row in training)\n{head}"


def _advice(result: BackboneValue) -> str:
    known = [
        f"{name} {value:+.2f}"
        for name, value in zip(("LogME", "H-score"), result.agreement.values(), strict=True)
        if value is not None
    ]
    if not known:
        return "LogME and H-score are advice only."
    return (
        f"LogME and H-score are advice only: their rank correlation with {result.metric.upper()} alone is"
        f" {', '.join(known)} over {len(result.costs)} backbones."
    )


# A comparison for a terminal

NARROWEST, WIDEST = 60, 120
FEWEST_CELLS = 32
"""Columns that a bar has at least; a longer name has a line to itself."""
STEP = 0.05
"""The scale of the bars begins and ends at a multiple of it."""
CHANCE = 0.5


class Marks(NamedTuple):
    """Characters for the low end, the line and the high end of an interval, for the mean, and for guessing."""

    low: str
    line: str
    high: str
    mean: str
    guess: str


DRAWN = Marks(*"├─┤●┊")
ASCII = Marks(*"|-|o:")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, or several, and how it is to stand out; it is up to the terminal how that looks."""

    text: str
    stress: Stress = ""


def comparison_screen(result: Comparison, width: int = 80, marks: Marks = DRAWN) -> list[Line]:
    """Lay a comparison out for a terminal.

    Parameters
    ----------
    result
        What `featstore.compare` returned.
    width
        Columns of the terminal.
    marks
        What bars are drawn with: `ASCII` where the terminal can show nothing else.
    """
    width = min(max(width, NARROWEST), WIDEST)
    shown = sorted(result.candidates, key=lambda s: -s.primary)[:SHOWN]
    hidden = len(result.candidates) - len(shown)
    listed: list[CandidateResult | ShortcutResult] = [*shown, *result.shortcuts]
    lines = [
        *_prose(f"{first_text(result)}{data_text(result.matrix)}", width),
        Line(""),
        Line(f"{METRICS[PRIMARY].label}, {scored_on(result)}, with its 95 % interval", "strong"),
        *_bars(listed, width, marks),
        Line(""),
        Line("Other scores, mean of the folds; ECE of all images together", "strong"),
        *_others(listed, width),
        *_prose(leader_calibration(result), width),
        Line("Intervals and all other scores: --json, --csv, or pipe this.", "faint"),
    ]
    if hidden:
        lines.append(
            Line(f"These are the {SHOWN} with the highest AUC; {hidden} more are in --json.", "faint")
        )
    if told := verdict.findings_brief(findings_not_shown_yet(result.findings)):
        lines += [Line(""), *_prose(told, width, hanging="    ")]
    for part in filter(None, extra_sections(result)):
        lines += [Line(""), Line(part)]
    lines += [Line(""), *_prose(verdict.selection_bias_text(result), width), Line("")]
    lines += _verdict(result, width)
    stress: Stress = "told" if verdict.fusions_that_pay(result) else "untold"
    return [*lines, Line(""), *_prose(f"Found: {verdict.summary(result)}", width, stress)]


def bar(
    mean: float, interval: tuple[float, float] | None, scale: tuple[float, float], cells: int, marks: Marks
) -> str:
    """Draw a score with its interval on a scale of so many columns; guessing is marked where nothing else stands."""
    drawn = [" "] * cells

    def at(value: float) -> int:
        low, high = scale
        return round((min(max(value, low), high) - low) / (high - low) * (cells - 1))

    if scale[0] < CHANCE < scale[1]:
        drawn[at(CHANCE)] = marks.guess
    if interval:
        first, last = map(at, interval)
        drawn[first : last + 1] = marks.line * (last + 1 - first)
        drawn[first], drawn[last] = marks.low, marks.high
    drawn[at(mean)] = marks.mean
    return "".join(drawn).rstrip()


def _bars(shown: Sequence[CandidateResult | ShortcutResult], width: int, marks: Marks) -> Iterator[Line]:
    """Yield a line per candidate under a common scale, the best first."""
    name = _name_width(shown, width, FEWEST_CELLS + len("  0.000  "))
    cells = width - name - len("  0.000  ")
    scale = _scale(shown)
    ends = f"{scale[0]:.2f}".ljust(cells - 4) + f"{scale[1]:.2f}"
    yield Line(" " * (width - cells) + ends, "faint")
    for scored in shown:
        estimate = scored.estimates[PRIMARY]
        value = "    -" if estimate.mean is None else f"{estimate.mean:.3f}"
        drawn = "" if estimate.mean is None else bar(estimate.mean, estimate.interval, scale, cells, marks)
        label = _label(scored, name, width)
        stress: Stress = "strong" if scored.primary == shown[0].primary else ""
        yield Line(f"{label}  {value}  {drawn}".rstrip(), stress)


def _others(shown: Sequence[CandidateResult | ShortcutResult], width: int) -> Iterator[Line]:
    """Yield a line per candidate with the scores that have no bar."""
    beside = [row for row in listed(shown[0].estimates).values() if row.short]
    numbers = [[_screen_number(s.estimates[row.name].mean) for row in beside] for s in shown]
    heads = [row.short for row in beside]
    name = _name_width(shown, width, 2 + len(table(heads, numbers).partition("\n")[0]))
    top, *rows = table(heads, numbers).split("\n")
    yield Line(" " * (name + 2) + top, "faint")
    for scored, row in zip(shown, rows, strict=True):
        stress: Stress = "strong" if scored.primary == shown[0].primary else ""
        yield Line(f"{_label(scored, name, width)}  {row}", stress)


def _name_width(shown: Sequence[CandidateResult | ShortcutResult], width: int, taken: int) -> int:
    """Columns for names: those of the longest that leaves `taken` columns to the rest."""
    lengths = [len(printable(s.candidate.label)) for s in shown]
    return max([length for length in lengths if length <= width - taken], default=0)


def _label(scored: CandidateResult | ShortcutResult, columns: int, width: int) -> str:
    """Name padded to its columns; a longer one stands above, on lines of its own."""
    label = printable(scored.candidate.label)
    if len(label) <= columns:
        return label.ljust(columns)
    return f"{fill(label, width, subsequent_indent='  ')}\n{' ' * columns}"


def _scale(shown: Sequence[CandidateResult | ShortcutResult]) -> tuple[float, float]:
    """Ends of the common scale, round numbers that hold every interval."""
    estimates = [s.estimates[PRIMARY] for s in shown if s.estimates[PRIMARY].mean is not None]
    values = [value for e in estimates for value in (e.mean, *(e.interval or ())) if value is not None]
    if not values:
        return 0.0, 1.0
    low, high = floor(min(values) / STEP), ceil(max(values) / STEP)
    return low * STEP, max(high, low + 1) * STEP


def _verdict(result: Comparison, width: int) -> Iterator[Line]:
    (head, _), *sentences = verdict.verdict_lines(result)
    yield from _prose(head, width, "strong")
    for sentence, told in sentences:
        yield from _prose(sentence, width, "told" if told else "", hanging="    ")


def _prose(text: str, width: int, stress: Stress = "", hanging: str = "") -> Iterator[Line]:
    for line in filter(None, text.split("\n")):
        yield Line(fill(printable(line), width, subsequent_indent=hanging, break_on_hyphens=False), stress)


def _screen_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
