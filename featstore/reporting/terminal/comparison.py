"""Fits and comparisons as text for a terminal; what is piped is the same.

A comparison begins with its answer and has one table (`comparison_screen`); every other score is in ``--csv``,
``--json`` and the report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from shlex import quote
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from featstore.evaluation.calibration import not_enough_patients
from featstore.evaluation.metrics import ENOUGH_IMAGES, METRICS, PRIMARY, listed, metrics
from featstore.findings import CATALOGUE, Finding
from featstore.images.recipe import view_name
from featstore.reporting import verdict
from featstore.reporting.verdict import sure
from featstore.results.comparison import SPLIT
from featstore.tables import counts, duration, interval_text, printable, size, table
from featstore.types import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from featstore.results.comparison import (
        BackboneValue,
        CandidateResult,
        Comparison,
        Plan,
        ShortcutResult,
        ViewPoint,
    )
    from featstore.results.fusion import Fusion, SingleNetwork
    from featstore.results.paper import Demonstration

    Stress = Literal["", "strong", "told", "untold", "faint"]

# How a screen is laid out

NARROWEST, WIDEST = 60, 100
LINES = 40
"""Lines that a comparison fits, unless more was asked for than the answer."""
ROWS, WHOLE_ROWS, ENOUGH_ROWS, FEWEST_ROWS = 15, 12, 8, 6
"""Rows of the table; where findings need the room there are fewer."""
WITHIN, NO_BREAK = re.compile(r"\[\S+ to \S+\]|`[^`]{1,50}`"), "\N{NO-BREAK SPACE}"
"""An interval or a command in a sentence, and what keeps it together while lines are broken."""
SHORTEST = 12
"""Columns of a name; where a narrow terminal leaves fewer, intervals are written closer."""
BESIDE = (
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "balanced_accuracy",
    "average_precision",
    "brier",
    "ece",
)
"""Scores of the primary fusion that are told beside its AUC."""
WITH_INTERVAL = ("sensitivity", "specificity")
"""Those of them that a fit tells with an interval."""
SITES, FEWEST_SITES, LONGEST_SITE = 8, 4, 16
"""Sites that are shown, those that are where there is no room, and columns of their names."""
CUT, ELLIPSIS = "..", " ..."
"""What stands for the middle of a name, and for the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, or several, and how it is to stand out; it is up to the terminal how that looks."""

    text: str
    stress: Stress = ""


# Scores as plain text: tables of candidates and of held-out images

SHOWN_FIRST = ("FS114", "FS406")
"""Findings that `split_text` and `positive_text` tell, with the flag that changes it."""


def split_text(result: Comparison) -> str:
    """Where the data set has a split of its own: whether scores are on it, and how they could be."""
    if result.own_split:
        return "Scored on the data set's own test images."
    if not any(finding.code == "FS114" and not finding.accepted for finding in result.findings):
        return ""
    return (
        f"The data set's own split is NOT used (FS114): {result.folds} folds are drawn over all images."
        " To score on its test images: --folds split"
    )


def findings_not_shown_yet(found: Sequence[Finding]) -> list[Finding]:
    """Findings that the first lines of a result have not told yet."""
    return [finding for finding in found if finding.accepted or finding.code not in SHOWN_FIRST]


def scored_on(result: Comparison) -> str:
    """What the scores are means of."""
    whose = " per patient" if result.protocol.unit == GROUP else ""
    if result.own_split:
        return f"the data set's own test images{whose and ','}{whose}"
    if result.sites is not None:
        scored, every = verdict.ranked_sites(result.sites), len(result.sites.sites)
        return f"mean of {scored if scored == every else f'{scored} of {every}'} sites left out{whose and ','}{whose}"
    if result.protocol.left_out == GROUP:
        return (
            f"{result.folds} {verdict.unit(result)} left out one by one, all together{whose and ','}{whose}"
        )
    return f"mean of {result.folds * result.repeats} folds{whose and ','}{whose}"


def _error_cell(
    value: float | None, interval: tuple[float, float] | None, curves: Mapping[str, Any] | None
) -> str:
    """ECE with that of a perfectly calibrated model beside it."""
    chance = verdict.chance_text(curves or {})
    return f"{_number(value, interval)}{f' ({chance})' if chance else ''}"


def _calibrations(result: Fusion) -> list[str]:
    classes = list(result.matrix["classes"])
    texts = {
        name: verdict.calibration_text(part, classes, verdict.units(result))
        for name, part in result.curves.items()
    }
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


def fusion_text(result: Fusion, *, details: bool = False) -> str:
    """Return what a terminal shows of a fit, without its stresses."""
    return "\n".join(line.text for line in fusion_screen(result, WIDEST, details=details))


def fusion_screen(result: Fusion, width: int = WIDEST, *, details: bool = False) -> list[Line]:
    """Lay a fit out: the answer first, then one table, findings, where the run lies, what to do next.

    Parameters
    ----------
    result
        What `featstore.fuse` returned.
    width
        Columns of the terminal.
    details
        Whether every score of every split is shown, too.
    """
    width = min(max(width, NARROWEST), WIDEST)
    split = scored_split(result)
    sizes = ", ".join(f"{name} {count}" for name, count in result.sizes.items())
    where = quote(result.run)
    about = [
        f"Of {result.strategy}: {_fusion_beside(result, split)}.",
        f"Fitted on the training images alone: {sizes}.",
        operating_text(result.operating, list(result.matrix["classes"]), result.unit),
        _fit_by_image(result, split),
        verdict.sets_text(result, split),
        verdict.unlike_text(result, split) if details or result.abstention is not None else "",
        *([] if details or not _is_calibrated(result) else _calibrations(result)),
        _warm_start_text(result),
        "" if result.looks is None else verdict.looks_text(result.looks),
    ]
    found = findings_not_shown_yet(result.findings)
    kept = f"Run: {where} (model/, predictions.csv; metrics.json has every score, --details shows them)"
    below = [
        *(_sections(_fusion_details(result, width), width) if details else ()),
        *_prose(kept, width),
        Line(printable(f"Next: featstore predict {where} IMAGE...")),
        Line(printable(f"      featstore report {where}")),
    ]
    answer = [*_fusion_answer(result, split, width)]
    steps = [ScreenSize(rows) for rows in range(ROWS, FEWEST_ROWS - 1, -1)]
    steps += [ScreenSize(FEWEST_ROWS, "brief"), *(ScreenSize(FEWEST_ROWS, how, "scores") for how in BRIEFLY)]
    for size_of in steps:
        data = data_text(result.matrix, brief=size_of.said != "all")
        said = [line for part in (about[0], data, *about[1:]) for line in _prose(part, width)]
        told = _fusion_lines(result, split, width, size_of.rows)
        warnings = _warnings(found, width, size_of.findings)
        lines = [*answer, Line(""), *told, Line(""), *said, *warnings, *below]
        if details or _count(lines) <= LINES:
            break
    return lines


def scored_split(result: Fusion) -> str:
    """The split that tells what a fit is worth: ``test``, or the one that there is."""
    return "test" if "test" in result.scores else list(result.scores)[-1]


def _is_calibrated(result: Fusion) -> bool:
    return result.operating["calibration"] is not None


def _fusion_answer(result: Fusion, split: str, width: int) -> Iterator[Line]:
    """What the fit is worth on images that it had not seen, and beside the best network alone."""
    score = result.scores[split][PRIMARY]
    seen = f"on {_scored_size(result, split)} that it had not seen"
    label = METRICS[PRIMARY].label
    if score.value is None:
        yield from _prose(
            f"{result.strategy} has no {label} {seen}: a class is missing among them.", width, "untold"
        )
        return
    better = score.interval is not None and score.interval[0] > verdict.CHANCE
    reached = f"{result.strategy} reaches an {label} of {_number(score.value, score.interval)} {seen}"
    yield from _prose(f"{reached}: {verdict.above_guessing(score)}.", width, "told" if better else "untold")
    if better and (doubt := verdict.fusion_shortcut_text(result, split)):
        yield from _prose(doubt, width)
    singles = result.singles.get(split, ())
    best = singles[0] if singles else None
    if best is not None and best.score.value is not None and best.delta is not None:
        yield from _prose(
            f"The best single network on them is {best.name}, {label} {best.score.value:.3f}; the fusion differs by"
            f" {_signed(best.delta, best.interval)}, {verdict.told_apart(best.interval)}. One split says"
            " little: `featstore compare` asks over folds.",
            width,
        )


def _fusion_lines(result: Fusion, split: str, width: int, most: int) -> list[Line]:
    """One table: the fit, each network alone, and the guesses, by score."""
    singles = result.singles.get(split, ())
    best = singles[0] if singles else None
    cells = [
        (f"* {result.strategy}", result.scores[split][PRIMARY], "" if best is None else _reach(best), True)
    ]
    cells += [
        (f"  {one.name}", one.score, "(the best single)" if one is best else "", False) for one in singles
    ]
    guesses = result.shortcuts.get(split, {})
    cells += [(f"  {name}", scores[PRIMARY], "", False) for name, scores in guesses.items()]
    ordered = sorted(cells, key=lambda cell: -(cell[1].value or 0.0))
    kept = [cell for cell in ordered if cell[3] or cell[2] or cell[0].strip() in guesses]
    free = max(0, most - len(kept))
    others = [cell for cell in ordered if cell not in kept][:free]
    head = f"{METRICS[PRIMARY].label}, {_scored_size(result, split)} of {split} [95 %]"
    if best is not None:
        head += f"; difference to the best single network, {printable(best.name)}"
    shown = [cell for cell in ordered if cell in kept or cell in others]
    rows = [(name, _number(score.value, score.interval), reach, own) for name, score, reach, own in shown]
    hidden = len(ordered) - len(rows)
    notes = [f"* the fit, {METRICS[PRIMARY].label} of single networks by the linear probe"] if singles else []
    notes += [f"{hidden} more in --json"] if hidden else []
    return [
        *_prose(head, width, "strong"),
        *_score_lines(rows, width),
        *_prose(f"{'; '.join(notes)}." if notes else "", width, "faint"),
    ]


def _reach(best: SingleNetwork) -> str:
    return "" if best.delta is None else _signed(best.delta, best.interval)


def _fusion_beside(result: Fusion, split: str) -> str:
    """Other scores of the fit, with intervals where a decision hangs on them."""
    told = []
    for name, row in metrics().items():
        score = result.scores[split].get(name)
        if score is None or score.value is None or not (name in BESIDE or name not in METRICS):
            continue
        value = _number(score.value, score.interval) if name in WITH_INTERVAL else f"{score.value:.3f}"
        told.append(f"{row.label} {value}")
    enough = (
        ""
        if result.scores[split]["ece"].value is not None
        else f"; no ECE of fewer than {ENOUGH_IMAGES} {verdict.units(result)}"
    )
    chance = verdict.chance_text(result.curves.get(split, {}))
    return f"{', '.join(told)}{f' ({chance})' if chance else ''}{enough}{_prevalence(told, verdict.units(result))}"


def _prevalence(told: Sequence[str], units: str) -> str:
    """What predictive values hold for, where there are any."""
    some = any(one.startswith(("PPV", "NPV")) for one in told)
    return f"; PPV and NPV at the prevalence in these {units}" if some else ""


def _scored_size(result: Fusion, split: str) -> str:
    """How many images or patients of a split were scored."""
    return f"{(result.patients or result.sizes)[split]} {verdict.units(result)}"


def _fit_by_image(result: Fusion, split: str) -> str:
    """Where patients were scored: how their images become one answer, and the scores by image."""
    if not result.by_image:
        return ""
    told = [
        f"{METRICS[name].label} {_number(score.value, score.interval)}"
        for name in (PRIMARY, *WITH_INTERVAL)
        if (score := result.by_image[split][name]).value is not None
    ]
    pooled = verdict.pooled_text(result.pool, [result.strategy])
    return f"{pooled} Per image, {result.sizes[split]} images: {', '.join(told)}."


def _fusion_details(result: Fusion, width: int) -> list[str]:
    """Every score of every split, guesses without a network beside or below it, and how well it is calibrated."""
    parts = []
    for split, scores in result.scores.items():
        guesses = result.shortcuts.get(split, {})
        ece = {"ece": _error_cell(scores["ece"].value, scores["ece"].interval, result.curves.get(split))}
        cells = {name: _number(score.value, score.interval) for name, score in scores.items()} | ece
        images = result.by_image.get(split, {})
        known = listed(set(scores))
        rows = [
            [
                row.label,
                cells[name],
                *([_number(images[name].value, images[name].interval)] if name in images else []),
            ]
            for name, row in known.items()
        ]
        guessed = [[_plain_number(guess[name].value) for guess in guesses.values()] for name in known]
        where = f"{split}, {_scored_size(result, split)}"
        header = [
            where,
            f"{result.strategy} [95 %]",
            *([f"per image ({result.sizes[split]})"] if images else []),
        ]
        heads = [BRIEF_GUESSES.get(name, name) for name in guesses]
        whole = table([*header, *heads], [[*row, *cells] for row, cells in zip(rows, guessed, strict=True)])
        if _widest(whole) <= width:
            parts.append(whole)
            continue
        labels = [[row.label, *cells] for row, cells in zip(known.values(), guessed, strict=True)]
        parts += [table(header, rows), *([table([where, *heads], labels)] if heads else [])]
    told = {
        short: name
        for name, short in BRIEF_GUESSES.items()
        if any(name in g for g in result.shortcuts.values())
    }
    legend = f"Guesses without a network: {', '.join(f'{short}, {name}' for short, name in told.items())}."
    return [*parts, *([legend] if told else []), *_calibrations(result)]


BRIEF_GUESSES = {"file alone": "file", "grey histogram alone": "grey", "most frequent class": "majority"}
"""Heads of columns that stand for guesses without a network."""


def plan_text(plan: Plan, out: Path) -> str:
    """What was sealed, and what to do next."""
    whole = {
        SPLIT: "the data set's own split",
        "site": "each site left out",
        "group": "each patient left out",
    }
    folds = (
        whole[plan.folds]
        if isinstance(plan.folds, str)
        else f"{plan.folds} folds{'' if plan.repeats == 1 else f', {plan.repeats} times'}, seed {plan.fold_seed}"
    )
    folds += "" if plan.harmonise == "none" else f", harmonised {plan.harmonise}"
    looks = plan.looks
    known = (
        "No look at these images is known before it."
        if not looks.count
        else f"But scores of these images were computed before: {looks.compare} compare, {looks.fuse} fuse, the first"
        f" on {looks.first[:10]}. The comparison will say so."
    )
    return (
        f"Sealed in {out}: is {plan.primary} better than every single network ({', '.join(plan.backbones)})?\n"
        f"{plan.metric.upper()}, margin {plan.margin:g}; {folds}; {plan.images} images of {plan.groups} patients"
        f" (groups). {known}\nNext: featstore compare DATA --plan {quote(str(out))}"
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


def operating_text(operating: Mapping[str, Any], classes: Sequence[str], unit: str = "image") -> str:
    """How a run's answers come about, where it is more than the most probable class."""
    calibration, threshold = operating["calibration"], operating["threshold"]
    sentences = []
    if calibration is not None:
        sentences.append(f"Probabilities are calibrated ({calibration['method']}).")
    if threshold is not None:
        sentences.append(
            f"{'A patient' if unit == GROUP else 'An image'} is called {classes[operating['positive']]!r} from a"
            f" probability of {threshold:.3g} on:"
            f" {_reached(operating, 'patients' if unit == GROUP else 'images')}"
        )
    return " ".join(sentences)


def _reached(operating: Mapping[str, Any], units: str) -> str:
    """What the threshold in use reaches, and the other one beside it: plain, or with a tolerance bound."""
    share = f"{100 * operating['sensitivity']:g} %"
    tolerance, plain = operating.get("tolerance"), operating.get("confidence") is None
    found = f"this found {share} of them in training, on {units} a model had not seen."
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
        f" {tolerance['threshold']:.3g} on it is {certain} (`featstore fuse DATA --sensitivity"
        f" {operating['sensitivity']:g} --confidence {tolerance['confidence']:g}`)."
    )


def data_text(matrix: Mapping[str, Any], *, brief: bool = False) -> str:
    """What a result rests on, in two or three lines; in brief without networks and views."""
    views = [view_name(view["recipe"], view["seed"]) for view in matrix["views"]]
    groups = f"{matrix['groups']} patients (groups)"
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
    used = f"Backbones: {', '.join(spec['name'] for spec in matrix['backbones'])}. Views: {', '.join(views)}."
    return (
        f"{positive_text(matrix)}\n"
        f"{matrix['images']} images{aside}, {groups}, classes: {counts(matrix['classes'])}.\n"
        f"{'' if brief else used}{tuned}"
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


def _request_text(result: Comparison) -> str:
    request = result.protocol
    parts = []
    if request.calibrate is not None:
        parts.append(f"probabilities calibrated ({request.calibrate})")
    if request.sensitivity is not None:
        parts.append(f"threshold for a sensitivity of {request.sensitivity:g}{sure(request.confidence)}")
    if not parts:
        return ""
    chosen = " and ".join(parts)
    told = f"{chosen[0].upper()}{chosen[1:]}, chosen within the training images of each fold."
    asked = result.primary_question
    if request.calibrate is None or asked is None:
        return told
    after = verdict.calibration_text(
        result.curves.get(asked.primary, {}), list(result.matrix["classes"]), verdict.units(result)
    )
    return f"{told} {asked.primary} after that: {after}" if after else told


def _number(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" [{interval_text(interval)}]" if interval else " [no interval]")


def _plain_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


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
            f"{p.shapley:+z.3f}",
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
                    "alone",
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
            f"[{interval_text(p.interval)}]" if p.interval else "",
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


# A comparison: the answer, one table, what bears on it, where it lies


def comparison_text(result: Comparison) -> str:
    """Return what a terminal shows, without its stresses."""
    return "\n".join(line.text for line in comparison_screen(result, WIDEST))


def comparison_screen(
    result: Comparison,
    width: int = WIDEST,
    *,
    out: Path | None = None,
    pairs: bool = False,
    details: bool = False,
) -> list[Line]:
    """Lay a comparison out: the answer first, then one table, findings, where the run lies, what to do next.

    It fits 40 lines of 80 or 100 columns, but for what was asked for beside the answer.

    Parameters
    ----------
    result
        What `featstore.compare` returned.
    width
        Columns of the terminal.
    out
        Folder of the run; None if none was written.
    pairs
        Whether pairs are shown, too.
    details
        Whether every score of the primary fusion is shown, too, and where patients were scored those by image.
    """
    width = min(max(width, NARROWEST), WIDEST)
    asked = [
        *filter(None, extra_sections(result)),
        *([_comparison_details(result, width)] if details else []),
        *([verdict.pairs_text(result)] if pairs else []),
    ]
    answer = [
        *_answer(result, width),
        *_prose(split_text(result), width),
    ]
    following = [*_prose(_next_text(out), width)]
    found = findings_not_shown_yet(result.findings)
    for size_of in _sizes(len(result.candidates) + len(result.shortcuts), details=details):
        about = [line for part in _about(result, size_of.said, details) for line in _prose(part, width)]
        told = [*_warnings(found, width, size_of.findings)]
        beside = [*_site_lines(result, width, None if details else size_of.sites)]
        body = [
            *answer,
            Line(""),
            *_table_lines(result, width, size_of.rows),
            *beside,
            Line(""),
            *about,
            *told,
        ]
        if _count([*body, *following]) <= LINES:
            break
    return [*body, *_sections(asked, width), *following]


Warned = Literal["whole", "brief", "codes"]
"""How findings are told: whole, a line for each code that is cut where the screen ends, or by their codes alone."""
BRIEFLY: tuple[Warned, ...] = ("brief", "codes")
Said = Literal["all", "scores", "little", "least"]
"""What is told beside the table: all; not networks, views and images of patients; of the scores only sensitivity and
specificity; and nothing of the best of many."""


@dataclass(frozen=True, slots=True)
class ScreenSize:
    """How much of a comparison is shown; what is not is in ``--details``."""

    rows: int
    findings: Warned = "whole"
    said: Said = "all"
    sites: int = SITES


def _sizes(candidates: int, *, details: bool) -> Iterator[ScreenSize]:
    """From much room to little: where findings need it the table has fewer rows, then they are cut, then the rest.

    A table of few candidates, which somebody has named, stays whole before that.
    """
    few = candidates <= WHOLE_ROWS
    if details:
        yield ScreenSize(candidates if few else ROWS)
        return
    if few:
        yield ScreenSize(candidates)
        yield ScreenSize(candidates, "brief")
        yield ScreenSize(candidates, "brief", "scores")
    yield from (ScreenSize(rows) for rows in range(ROWS, ENOUGH_ROWS - 1, -1))
    yield from (ScreenSize(rows, "brief") for rows in range(ENOUGH_ROWS, FEWEST_ROWS - 1, -1))
    yield from (ScreenSize(rows, "brief", "scores") for rows in range(ENOUGH_ROWS, FEWEST_ROWS - 1, -1))
    yield ScreenSize(FEWEST_ROWS, "brief", "little")
    yield ScreenSize(FEWEST_ROWS, "codes", "little")
    yield ScreenSize(FEWEST_ROWS, "codes", "least")
    yield ScreenSize(FEWEST_ROWS, "codes", "least", FEWEST_SITES)


def _about(result: Comparison, said: Said, details: bool) -> list[str]:
    """What goes with the scores: the data, other metrics, images beside patients, the luck of the best."""
    names = WITH_INTERVAL if said in {"little", "least"} else BESIDE
    return [
        data_text(result.matrix, brief=said != "all"),
        _beside_text(result, names),
        _by_image_text(result) if said == "all" and not details else "",
        verdict.selection_bias_text(result) if said != "least" else "",
    ]


def _warnings(found: Sequence[Finding], width: int, how: Warned) -> Iterator[Line]:
    """Findings as the screen has room for them."""
    match how:
        case "whole":
            yield from _prose(verdict.findings_brief(found), width, hanging="    ")
        case "brief":
            for line in verdict.findings_by_code(found).split("\n"):
                yield Line(shorten(printable(line), width))
        case "codes":
            yield from _prose(verdict.findings_codes(found), width, hanging="    ")


def _count(lines: Sequence[Line]) -> int:
    return sum(line.text.count("\n") + 1 for line in lines)


def _answer(result: Comparison, width: int) -> list[Line]:
    first, *rest = verdict.answer_sentences(result)
    asked = result.primary_question
    pays = bool(verdict.fusions_that_pay(result)) if asked is None else asked.verdict == "better"
    lines = [*_prose(first, width, "told" if pays else "untold")]
    left_out = (verdict.drop_text(result.sites), verdict.patients_left_out_text(result))
    for sentence in (*left_out, verdict.harmonised_text(result), *rest):
        lines += _prose(sentence, width)
    return lines


def _table_lines(result: Comparison, width: int, rows: int) -> list[Line]:
    """Lay out the table by score: always the primary fusion, the networks that the answer names, and all guesses.

    Where not all have room, fusions go before the other single networks.
    """
    listed: list[CandidateResult | ShortcutResult] = [*result.candidates, *result.shortcuts]
    asked, single = result.primary_question, verdict.best_single(result)
    primary = None if asked is None else asked.primary
    reference = None if single is None else single.candidate.label
    ordered = sorted(listed, key=lambda s: -s.primary)
    against = None if asked is None else asked.against
    kept = {primary, reference, against, *(s.candidate.label for s in result.shortcuts)}
    free = max(0, rows - sum(s.candidate.label in kept for s in ordered))
    fusions_first = sorted(ordered, key=lambda s: len(s.candidate.backbones) == 1)
    others = [s.candidate.label for s in fusions_first if s.candidate.label not in kept][:free]
    shown = [s for s in ordered if s.candidate.label in {*kept, *others}] if rows else []
    hidden = len(ordered) - len(shown)
    differences = _differences(result, reference)
    cells = []
    for s in shown:
        label = s.candidate.label
        estimate = s.estimates[PRIMARY]
        name = f"{'*' if label == primary else ' '} {printable(label)}"
        reach = differences.get(label, "(the best single)" if label == reference else "")
        cells.append((name, _number(estimate.mean, estimate.interval), reach, label == primary))
    head = f"{METRICS[PRIMARY].label}, {scored_on(result)} [95 %]"
    if reference is not None:
        head += f"; difference to the best single network, {printable(reference)}"
    lines = [*_prose(head, width, "strong"), *_score_lines(cells, width)]
    notes = [] if primary is None else ["* the primary fusion, named before any score was seen"]
    if primary is not None and len(differences) > 1:
        notes.append("the other differences are exploration, their intervals hold together")
    if hidden:
        notes.append(f"{hidden} more in --csv and --json")
    lines += _prose(f"{'; '.join(notes)}." if notes else "", width, "faint")
    return lines


def _site_lines(result: Comparison, width: int, most: int | None) -> list[Line]:
    """Lay out the scores of the shown candidate by site, the lowest first; and what they do not say."""
    found = result.sites
    if found is None:
        return []
    positive, label = result.matrix["positive"], METRICS[PRIMARY].label
    ordered = sorted(
        found.sites, key=lambda one: (one.scores[PRIMARY].value is None, one.scores[PRIMARY].value)
    )
    shown = ordered[:most]
    told = [name for name in WITH_INTERVAL if positive is not None]
    rows = [
        [
            cut(printable(one.site), LONGEST_SITE),
            str(one.patients),
            "/".join(map(str, _with_class(one.classes, positive))),
            _number(one.scores[PRIMARY].value, one.scores[PRIMARY].interval),
            _plain_number(one.inside),
            *(_plain_number(one.scores[name].value) for name in told),
        ]
        for one in shown
    ]
    classes = [printable(positive)] if positive is not None else list(result.matrix["classes"])
    header = ["site left out", "patients", cut("/".join(classes), LONGEST_SITE), f"{label} [95 %]", "inside"]
    header += [METRICS[name].label.lower()[:4] + "." for name in told]
    hidden = len(ordered) - len(shown)
    more = f" {hidden} more site{'' if hidden == 1 else 's'} in --details." if hidden else ""
    head = f"{found.candidate} by site (inside: by folds over patients of all sites)"
    return [
        Line(""),
        *_prose(head, width, "strong"),
        *(Line(line) for line in table(header, rows).split("\n")),
        *_prose(verdict.sites_text(found) + more, width, "faint"),
    ]


def _with_class(classes: Mapping[str, int], positive: str | None) -> list[int]:
    return list(classes.values()) if positive is None else [classes[positive]]


def _score_lines(cells: Sequence[tuple[str, str, str, bool]], width: int) -> list[Line]:
    """Names, scores and differences side by side, long names cut; which row stands out comes last."""
    second = max([len(cell[1]) for cell in cells], default=0)
    third = max([len(cell[2]) for cell in cells], default=0)
    longest = max([len(cell[0]) for cell in cells], default=0)
    if width - second - third - 4 < min(longest, SHORTEST):
        closer = [(a, b.replace(" to ", ", "), c.replace(" to ", ", "), own) for a, b, c, own in cells]
        if closer != list(cells):
            return _score_lines(closer, width)
    first = min(longest, width - second - third - 4)
    lines = []
    for name, score, reach, is_primary in cells:
        text = f"{cut(printable(name), first):<{first}}  {score:<{second}}  {reach}".rstrip()
        lines.append(Line(text, "strong" if is_primary else ""))
    return lines


def _differences(result: Comparison, reference: str | None) -> dict[str, str]:
    """Difference of each candidate to the best single network, with its interval."""
    told = {}
    for pair in result.pairs:
        interval = pair.simultaneous or pair.interval
        if pair.b == reference:
            told[pair.a] = _signed(pair.delta, interval)
        elif pair.a == reference:
            told[pair.b] = _signed(-pair.delta, None if interval is None else (-interval[1], -interval[0]))
    asked = result.primary_question
    for one in () if asked is None else asked.singles:
        if asked is not None and one.name == reference:
            told[asked.primary] = _signed(one.delta, one.interval)
    return told


def _signed(delta: float, interval: tuple[float, float] | None) -> str:
    return f"{delta:+z.3f}" + (f" [{interval_text(interval, signed=True)}]" if interval else "")


def cut(name: str, columns: int) -> str:
    """Shorten a long name in its middle: strategies begin it, and the last networks tell it from others."""
    if len(name) <= columns:
        return name
    left = (columns - len(CUT)) // 2
    return f"{name[:left]}{CUT}{name[len(name) - (columns - len(CUT) - left) :]}"


def shorten(text: str, columns: int) -> str:
    """As much of a text as fits, of whole words and with an ellipsis behind them."""
    if len(text) <= columns:
        return text
    room = columns - len(ELLIPSIS)
    words = text[: room + 1].rpartition(" ")[0].rstrip(" ,;:.(")
    return f"{words or text[:room]}{ELLIPSIS}"


def _shown_candidate(result: Comparison) -> str:
    """The primary fusion, or the highest AUC where there is none."""
    asked = result.primary_question
    if asked is not None:
        return asked.primary
    return max(result.candidates, key=lambda s: s.primary).candidate.label


def _by_image_text(result: Comparison) -> str:
    """Where patients were scored: how their images become one answer, and scores by image."""
    beside = result.by_image
    if beside is None:
        return ""
    label = _shown_candidate(result)
    told = [
        f"{METRICS[name].label} {_number(estimate.mean, estimate.interval)}"
        for name in (PRIMARY, *WITH_INTERVAL)
        if (estimate := beside.estimates[label][name]).mean is not None
    ]
    pooled = _pooled_text(result)
    return (
        f"Scored: {sum(beside.patients.values())} patients. {pooled} Per image {label} has {', '.join(told)}."
    )


def _comparison_details(result: Comparison, width: int) -> str:
    """Every score of the primary fusion, by image, too, where patients were scored; a long label stands above."""
    label, beside = _shown_candidate(result), result.by_image
    estimates = next(s.estimates for s in result.candidates if s.candidate.label == label)
    images = {} if beside is None else beside.estimates[label]
    rows = [
        [
            row.label,
            _number(estimates[name].mean, estimates[name].interval),
            *([_number(images[name].mean, images[name].interval)] if name in images else []),
        ]
        for name, row in listed(set(estimates)).items()
    ]
    if beside is None:
        return _labelled(f"{label}, {scored_on(result)}", ["[95 %]"], rows, width)
    patients = f"per patient ({sum(beside.patients.values())})"
    header = [patients, f"per image ({result.matrix['images']})"]
    return f"{_pooled_text(result)}\n{_labelled(label, header, rows, width)}"


def _labelled(label: str, header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A table whose first head says what it is of; above it where that is too long for a head."""
    text = table([label, *header], rows)
    return text if _widest(text) <= width else f"{label}:\n{table(['', *header], rows)}"


def _widest(text: str) -> int:
    return max(map(len, text.split("\n")))


def _pooled_text(result: Comparison) -> str:
    """How the images of a patient become one answer, by the way of pooling or by a strategy itself."""
    return verdict.pooled_text(result.protocol.pool, [one.candidate.strategy for one in result.candidates])


def _beside_text(result: Comparison, names: Sequence[str] = BESIDE) -> str:
    """Other scores of the primary fusion, or of the highest AUC where there is none."""
    label = _shown_candidate(result)
    estimates = next(s.estimates for s in result.candidates if s.candidate.label == label)
    known = [
        f"{row.label} {estimates[name].mean:.3f}"
        for name, row in metrics().items()
        if (name in names or name not in METRICS)  # those of plug-ins are what the reader asks about
        and name in estimates
        and estimates[name].mean is not None
    ]
    chance = verdict.chance_text(result.curves.get(label, {})) if "ece" in names else ""
    enough = (
        ""
        if "ece" not in names or estimates["ece"].mean is not None
        else f"; no ECE of fewer than {ENOUGH_IMAGES} {verdict.units(result)}"
    )
    also = f"{f' ({chance})' if chance else ''}{enough}{_prevalence(known, verdict.units(result))}"
    return f"Of {label}: {', '.join(known)}{also}." if known else ""


def _sections(parts: Sequence[str], width: int) -> Iterator[Line]:
    for part in parts:
        yield Line("")
        for line in part.split("\n"):
            # Tables keep their columns; sentences are wrapped.
            yield from ([Line(line)] if "  " in line.strip() else _prose(line, width, hanging="    "))


def _next_text(out: Path | None) -> str:
    if out is None:
        return "Next: --out runs/NAME keeps this run; --details and --pairs show more, --csv and --json all scores."
    where = quote(str(out))
    kept = "metrics.json has all scores and pairs, --details shows more"
    return f"Run: {where} ({kept}). Next: featstore report {where}"


def _prose(text: str, width: int, stress: Stress = "", hanging: str = "") -> Iterator[Line]:
    for line in filter(None, text.split("\n")):
        # An interval stays on one line, and so does a command.
        kept = WITHIN.sub(lambda found: found[0].replace(" ", NO_BREAK), printable(line))
        whole = fill(kept, width, subsequent_indent=hanging, break_on_hyphens=False)
        yield Line(whole.replace(NO_BREAK, " "), stress)


# The demonstration: what a comparison says, and how to go on

DEMO_ROWS = 8
"""Rows of its table, so that all of it is one page."""
NEXT = """On your own images (folders of classes, or a CSV: path,label[,group][,split]):
  featstore check   DATA
  featstore extract DATA --recipe mild --seeds 1-2
  featstore compare DATA --out runs/mine"""


def demonstration_screen(result: Demonstration, width: int = WIDEST) -> list[Line]:
    """Lay the demonstration out: what was done, what it found, where it lies, what to do next; one page."""
    width = min(max(width, NARROWEST), WIDEST)
    found, done = result.comparison, result.extraction
    vectors = sum(key.stored_now for key in done.keys)
    first = (
        f"Done in {duration(result.seconds)}, offline: {found.matrix['images']} generated images of"
        f" {found.matrix['groups']} patients, {vectors:,} vectors of {len(found.matrix['backbones'])} networks,"
        f" {len(found.candidates)} candidates compared."
    )
    warnings = findings_not_shown_yet(found.findings)
    above = [
        *_answer(found, width),
        Line(""),
        *_table_lines(found, width, DEMO_ROWS),
        Line(""),
        *_prose(first, width),
    ]
    below = [
        *_prose(f"Look at it: {result.report} (one file, works offline in any browser).", width, "strong"),
        *_prose(f"The runs are beside it; the images are in {result.data}.", width),
        *(Line(line) for line in NEXT.split("\n")),
    ]
    told = [*_warnings(warnings, width, "whole")]
    brief = [*_warnings(warnings, width, "brief")]
    return [*above, *(told if _count([*above, *told, *below]) <= LINES else brief), *below]
