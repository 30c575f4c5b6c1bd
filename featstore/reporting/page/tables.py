"""Tables of a report: for each kind of run, for its provenance, and for runs side by side."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.intervals import difference_interval, group_weights, sample_sizes
from featstore.evaluation.metrics import PRIMARY, decide, listed, metrics, score
from featstore.evaluation.primary_question import MARGIN
from featstore.images.recipe import range_option, view_name
from featstore.reporting import run_record
from featstore.reporting.run_record import RunRecord, subject
from featstore.reporting.terminal.comparison import scored_on
from featstore.reporting.verdict import (
    best_single,
    chance_text,
    phrase,
    planned_intervals,
    pooled_text,
    sets_text,
    sites_text,
    unlike_text,
)
from featstore.reporting.wording import is_table, kept
from featstore.results.comparison import (
    BackboneValue,
    CandidateResult,
    Comparison,
    PrimaryQuestion,
    ShortcutResult,
)
from featstore.results.fusion import Fusion, WarmStart
from featstore.serialization import digest
from featstore.tables import (
    SHORT,
    Cell,
    Table,
    count_cell,
    interval_text,
    number_cell,
    short_weights,
    size,
    text_cell,
    typeset,
)
from featstore.types import FeatureKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.reporting.run_record import RunPredictions


# Tables of each kind of run


def shown_tables(record: RunRecord) -> list[Table]:
    """Tables of a run that a reader must see, the one that matters first."""
    match record.outcome:
        case Comparison() as comparison:
            return [
                _brief_table(record, comparison),
                *_sites_tables(comparison),
                *filter(None, [_both_units(comparison)]),
                *filter(None, [_predictive_values_table(record)]),
                _definitions(record),
            ]
        case Fusion() as fusion:
            return [
                _scores(record, fusion),
                *filter(None, [_both_units_of_fit(record, fusion)]),
                *filter(None, [_predictive_values_table(record)]),
                *filter(None, [_abstention_table(record, fusion)]),
                *([] if fusion.warm_start is None else [_changes(fusion.warm_start)]),
            ]
        case _ if record.reproduction is not None:
            return run_record.paper_tables(record.reproduction)
        case _:
            return [_cells(record.about), _phases(record.about)]


EXPLAINED = {"explained": "it could", "apart": "above all without lung", "cannot_tell": "cannot tell"}


def controls_table(comparison: Comparison) -> Table | None:
    """Each model less each negative control; None where none were made."""
    found = comparison.negative_controls
    if found is None:
        return None
    scores = {s.candidate.label: s.estimates[PRIMARY] for s in comparison.candidates}
    controls = sorted(found.controls, key=lambda one: one.sees_lung)
    # One interval a number: the answer has that of the primary fusion's own test.
    planned = planned_intervals(comparison)
    own = (
        text_cell("Own AUC", "of each"),
        number_cell(None),
        *(number_cell(one.mean, one.interval) for one in controls),
    )
    rows = [
        (
            text_cell(name, EXPLAINED[found.verdict(name)]),
            number_cell(scores[name].mean, scores[name].interval),
            *(
                number_cell(one.delta, planned.get((name, control.name), one.interval), signed=True)
                for control in controls
                for one in (found.against(name)[control.name],)
            ),
        )
        for name in found.models
    ]
    tested = (
        " Where the primary fusion was tested against a control, the interval is that of the test."
        if planned
        else ""
    )
    return Table(
        "AUC of each model, less that of each control",
        ("Model", "AUC", *(one.name.removesuffix(" alone").capitalize() for one in controls)),
        (own, *rows),
        "Differences with 95 % intervals on the same patients and folds. The file: size, sides, format. The border:"
        " the outermost 6 % on each side. The background: outside the body. The grey histogram counts the lungs' grey"
        f" as well, and decides nothing here.{tested}",
    )


def folded_tables(record: RunRecord) -> list[Table]:
    """Tables of a run that wait until they are asked for: of a comparison every candidate with every metric."""
    if not isinstance(record.outcome, Comparison):
        return []
    comparison = record.outcome
    return [
        _candidates_table(record, comparison),
        *([_views(comparison)] if comparison.view_curve else []),
        *([] if comparison.backbone_value is None else _backbone_value_table(comparison.backbone_value)),
    ]


def metric_heading(metric: str) -> str:
    """Name of a metric for a table."""
    known = metrics()
    return known[metric].label if metric in known else metric.replace("_", " ")


NO_NARROWER = "never narrower than so many allow (AUC: Newcombe 2006; shares: Wilson 1927)"
BRIEF = ("sensitivity", "specificity", "brier")
"""Scores beside the primary metric in the table that fits a page."""
ROWS = 15
"""Candidates in that table: the primary fusion, the best single network and all guesses are always among them."""


def _brief_table(record: RunRecord, comparison: Comparison) -> Table:
    """Lay out candidates by score, each with its difference to the best single network; it fits a printed page."""
    shown, hidden = _in_brief(comparison)
    asked, single = comparison.primary_question, best_single(comparison)
    reference = None if single is None else single.candidate.label
    differences = _differences(comparison, reference)
    marked = subject(comparison).label
    rows = tuple(
        (
            text_cell(s.candidate.label, _role(s, asked, reference)),
            number_cell(s.estimates[PRIMARY].mean, s.estimates[PRIMARY].interval),
            Cell("reference", key=0.0)
            if s.candidate.label == reference
            else number_cell(*differences.get(s.candidate.label, (None, None)), signed=True),
            *(number_cell(s.estimates[m].mean, s.estimates[m].interval) for m in BRIEF),
        )
        for s in shown
    )
    more = f" {hidden} more below." if hidden else ""
    against = (
        f" Difference: {PRIMARY.upper()} less that of {reference}, the best single network;"
        if reference
        else ""
    )
    return Table(
        f"Scores, {scored_on(comparison)}",
        (
            "Candidate",
            metric_heading(PRIMARY),
            "Difference",
            *(metric_heading(m).capitalize() for m in BRIEF),
        ),
        rows,
        f"{_score_method(record)}{against}{_difference_method(comparison) if reference else ''}{more}",
        marked=next(at for at, s in enumerate(shown) if s.candidate.label == marked),
        sorted_by=1,
    )


def _sites_tables(comparison: Comparison) -> list[Table]:
    """Scores at each site left out, and what that costs every candidate; none where no site was."""
    found = comparison.sites
    if found is None:
        return []
    shown = (PRIMARY, *BRIEF)
    classes = list(comparison.matrix["classes"])
    by_site = tuple(
        (
            text_cell(one.site),
            count_cell(one.patients),
            *(count_cell(one.classes[name]) for name in classes),
            *(number_cell(one.scores[name].value, one.scores[name].interval) for name in shown),
            number_cell(one.inside, None),
        )
        for one in found.sites
    )
    drops = tuple(
        (
            text_cell(one.candidate),
            number_cell(one.inside, None),
            number_cell(one.inside_by_site, None),
            number_cell(one.outside, None),
            number_cell(one.outside_pooled, None),
            number_cell(one.drop, one.interval, signed=True),
        )
        for one in found.drops
    )
    scores = (
        metric_heading(name) if name == PRIMARY else metric_heading(name).capitalize() for name in shown
    )
    return [
        Table(
            f"Each site left out: {found.candidate}",
            ("Site", "Patients", *classes, *scores, f"{metric_heading(PRIMARY)} inside"),
            by_site,
            f"Trained on the other sites alone. Inside: the same images, by {found.inside_folds} folds over patients"
            f" of all sites. {sites_text(found)}",
        ),
        Table(
            "From inside to outside",
            ("Candidate", "Inside", "Inside, by site", "Site left out", "All sites ranked together", "Drop"),
            drops,
            f"{metric_heading(PRIMARY)}. Inside: mean over {found.inside_folds} folds; by site: the same answers"
            " ranked within each site. Drop: inside less site left out, with its 95 % interval over patients of these"
            " sites.",
            sorted_by=3,
        ),
    ]


UNITS = (PRIMARY, "sensitivity", "specificity")
"""Scores that stand side by side for patients and for images."""


def _both_units(comparison: Comparison) -> Table | None:
    """Patients and images side by side; None where images were scored."""
    by_image = comparison.by_image
    if by_image is None:
        return None
    shown = [s for s in _in_brief(comparison)[0] if s.candidate.label in by_image.estimates]
    rows = tuple(
        (
            text_cell(s.candidate.label),
            *(
                number_cell(found[name].mean, found[name].interval)
                for name in UNITS
                for found in (s.estimates, by_image.estimates[s.candidate.label])
            ),
        )
        for s in shown
    )
    patients, images = sum(by_image.patients.values()), comparison.matrix["images"]
    return Table(
        "Per patient and per image",
        (
            "Candidate",
            *(f"{metric_heading(m).capitalize() if m != PRIMARY else metric_heading(m)} {per}"
              for m in UNITS for per in ("per patient", "per image")),
        ),
        rows,
        f"{patients:,} patients, {images:,} images."
        f" {pooled_text(comparison.protocol.pool, [one.candidate.strategy for one in comparison.candidates])}"
        " Both resample patients;"
        " per image a patient with many images counts for more.",
    )  # fmt: skip


def _both_units_of_fit(record: RunRecord, fusion: Fusion) -> Table | None:
    """The same of a fit, every score."""
    shown = record.shown or ""
    if not fusion.by_image:
        return None
    found = (fusion.scores[shown], fusion.by_image[shown])
    rows = tuple(
        (
            text_cell(row.label, row.meaning),
            *(number_cell(scores[metric].value, scores[metric].interval) for scores in found),
        )
        for metric, row in listed(set(found[0]) & set(found[1])).items()
    )
    return Table(
        f"Per patient and per image, {shown}",
        ("Score", f"{fusion.patients[shown]:,} patients", f"{fusion.sizes[shown]:,} images"),
        rows,
        f"{pooled_text(fusion.pool, [fusion.strategy])} Both resample patients.",
    )


def _abstention_table(record: RunRecord, fusion: Fusion) -> Table | None:
    """What prediction sets did on held-out patients, by class; and how many images are unlike those of training."""
    shown = record.shown or ""
    if fusion.abstention is None:
        return None
    units = {"patients": fusion.abstention.by_patient, "images of patients": fusion.abstention.by_image}
    rows = tuple(
        (
            text_cell(f"{name}, {unit}"),
            count_cell(found.patients),
            number_cell(found.covered, found.interval),
            number_cell(found.unsure),
            number_cell(found.neither),
        )
        for unit, by_split in units.items()
        for name, found in by_split.get(shown, {}).items()
    )
    return Table(
        f"When not to answer: prediction sets at {100 * (1 - fusion.abstention.rule.alpha):.0f} %, {shown}",
        ("Class", "Patients", "Class in the set", "Not sure", "Neither"),
        rows,
        f"{sets_text(fusion, shown)} {unlike_text(fusion, shown)}".strip(),
    )


def _in_brief(comparison: Comparison) -> tuple[list[CandidateResult | ShortcutResult], int]:
    """Candidates of the brief table by score, and how many are not in it."""
    everyone: list[CandidateResult | ShortcutResult] = [*comparison.candidates, *comparison.shortcuts]
    ordered = sorted(everyone, key=lambda s: -s.primary)
    single = best_single(comparison)
    kept = {
        subject(comparison).label,
        *([] if single is None else [single.label]),
        *(s.label for s in comparison.shortcuts),
    }
    free = max(0, ROWS - len(kept))
    kept |= {label for s in ordered if (label := s.candidate.label) not in kept and (free := free - 1) >= 0}
    return [s for s in ordered if s.candidate.label in kept], len(ordered) - len(kept)


def _role(
    scored: CandidateResult | ShortcutResult, asked: PrimaryQuestion | None, reference: str | None
) -> str:
    label = scored.candidate.label
    if asked is not None and label == asked.primary:
        return "primary fusion"
    return "best single network" if label == reference else _made_of(scored.candidate.backbones)


def _differences(
    comparison: Comparison, reference: str | None
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Difference of each candidate to the best single network; that of the primary fusion as it was planned."""
    found = {}
    for pair in comparison.pairs:
        interval = pair.simultaneous or pair.interval
        if pair.b == reference:
            found[pair.a] = pair.delta, interval
        elif pair.a == reference:
            found[pair.b] = -pair.delta, None if interval is None else (-interval[1], -interval[0])
    asked = comparison.primary_question
    if asked is not None:
        for one in asked.singles:
            if one.name == reference:
                found[asked.primary] = one.delta, one.interval
    return found


def _score_method(record: RunRecord) -> str:
    mean = _averaged(record)
    return f"{mean[0].upper()}{mean[1:]}, with 95 % intervals by bootstrap of {kept(record)}, {NO_NARROWER}."


def _difference_method(comparison: Comparison) -> str:
    if comparison.protocol.adjustment == "holm":
        return " 95 % intervals by paired bootstrap, each for itself."
    planned = (
        ""
        if comparison.primary_question is None
        else " that of the primary fusion by its planned test alone, the others"
    )
    return (
        f"{planned} with simultaneous 95 % intervals (max-T, Westfall & Young 1993; clustered standard errors, DeLong"
        " 1988, Obuchowski 1997), exploration."
    )


def _own_split(record: RunRecord) -> bool:
    return isinstance(record.outcome, Comparison) and record.outcome.own_split


def _averaged(record: RunRecord) -> str:
    """What a score is a mean of."""
    if _own_split(record):
        return f"on the data set's own test {record.noun}"
    left_out = record.outcome.protocol.left_out if isinstance(record.outcome, Comparison) else ""
    return {
        "site": "mean over the sites left out where it is defined",
        "group": f"over all {kept(record)} left out one by one",
    }.get(left_out, "mean over the folds")


def _definitions(record: RunRecord) -> Table:
    """Say of each number what it is and where its interval comes from: each has one definition on the page."""
    whom, positive = kept(record), record.matrix["positive"]
    mean = _averaged(record)
    about = f"of {positive}" if positive else "averaged over the classes, each against the rest"
    bootstrap = (
        f"bootstrap of {whom} (2,000 resamples), widened for overlapping training sets (Nadeau & Bengio 2003)"
    )
    rows = [
        ("AUC", f"area under the ROC curve {about}, {mean}", f"{bootstrap}; not narrower than Newcombe 2006"),
        (
            "Sensitivity, specificity",
            f"true positives among all {positive or 'of a class'}, true negatives among all others, {mean}",
            f"{bootstrap}; not narrower than Wilson 1927",
        ),
        (
            "Brier, log-loss",
            f"mean squared difference of probability and outcome; mean negative log-likelihood; {mean}; 0 is best",
            bootstrap,
        ),
        (
            "Difference",
            f"AUC less AUC, {mean}, on the same {record.noun}",
            "clustered standard errors (DeLong 1988, Obuchowski 1997), t quantile",
        ),
        *(
            [("PPV, NPV", "from sensitivity and specificity at the prevalence that is named (Bayes)", MOVER)]
            if positive
            else []
        ),
        (
            "Counts, curves, ECE (expected calibration error)",
            f"all {record.noun} together, each tested once"
            + ("" if _own_split(record) else " (first repeat)"),
            f"bands: bootstrap of {whom} (500 resamples), each point alone",
        ),
    ]
    return Table(
        "What each number is",
        ("Number", "Definition", "95 % interval"),
        tuple(tuple(map(text_cell, row)) for row in rows),
    )


# Predictive values at a stated prevalence

PREVALENCES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
"""From a screening to a clinic; the share among the images of a study is none of them."""
MOVER = "from those of sensitivity and specificity (MOVER: Donner & Zou 2012)"


@dataclass(frozen=True, slots=True)
class Bounded:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def complement(self) -> Bounded:
        """One minus it."""
        return Bounded(1 - self.value, 1 - self.high, 1 - self.low)


def predictive_values(
    sensitivity: Bounded, specificity: Bounded, prevalence: float
) -> tuple[Bounded | None, Bounded | None]:
    """Positive and negative predictive value at a prevalence; None where nobody is called so.

    Parameters
    ----------
    sensitivity, specificity
        With their intervals, taken to be independent: they are about different patients.
    prevalence
        Prevalence: share of the positive class among those who are tested, between 0 and 1 and neither of them.

    Returns
    -------
    Each is one over one plus a likelihood ratio times the odds against it; the interval is that of the ratio of two
    independent estimates by the method of variance estimates recovery.

    References
    ----------
    Donner & Zou, Closed-form confidence intervals for functions of the normal mean and standard deviation,
    Statistical Methods in Medical Research 21, 2012.
    """
    odds = prevalence / (1 - prevalence)
    return (
        _predictive(specificity.complement, sensitivity, 1 / odds),
        _predictive(sensitivity.complement, specificity, odds),
    )


def _predictive(false: Bounded, true: Bounded, odds: float) -> Bounded | None:
    called = true.value + odds * false.value
    if called <= 0:
        return None
    low, high = _ratio_interval(false, true)
    return Bounded(true.value / called, 1 / (1 + odds * high), 1 / (1 + odds * low))


def _ratio_interval(top: Bounded, bottom: Bounded) -> tuple[float, float]:
    """Interval of the ratio of two independent shares; the upper end is infinite where the lower one may be 0."""
    both = top.value * bottom.value
    least = top.low * (2 * top.value - top.low)
    most = top.high * (2 * top.value - top.high)
    far = bottom.high * (2 * bottom.value - bottom.high)
    near = bottom.low * (2 * bottom.value - bottom.low)
    under = both + sqrt(max(0.0, both**2 - least * far))
    over = both + sqrt(max(0.0, both**2 - most * near))
    return (max(0.0, least / under) if under > 0 else 0.0), (over / near if near > 0 else inf)


def _predictive_values_table(record: RunRecord) -> Table | None:
    """PPV and NPV of what the report is about; None without a positive class, or without both intervals."""
    positive = record.matrix["positive"]
    found = [_bounded(record, name) for name in ("sensitivity", "specificity")]
    if positive is None or None in found:
        return None
    sensitivity, specificity = (one for one in found if one is not None)
    rows = tuple(
        (
            Cell(f"{100 * prevalence:g} %", key=prevalence),
            *map(_bounded_cell, predictive_values(sensitivity, specificity, prevalence)),
        )
        for prevalence in PREVALENCES
    )
    scored = record.scored[record.shown or ""].y
    share = float((scored == list(record.matrix["classes"]).index(positive)).mean())
    who = record.outcome.strategy if isinstance(record.outcome, Fusion) else record.shown
    return Table(
        f"Predictive values by prevalence ({who})",
        (f"Prevalence of {positive}", "PPV", "NPV"),
        rows,
        f"Positive and negative predictive value by Bayes' theorem from the sensitivity ({sensitivity.value:.3f}) and"
        f" specificity ({specificity.value:.3f}) above; 95 % intervals {MOVER}. Read the row of your own patients:"
        f" {positive} is {100 * share:.0f} % of these {record.noun}, which is how they were collected and no"
        " prevalence.",
    )


def _bounded(record: RunRecord, metric: str) -> Bounded | None:
    match record.outcome:
        case Fusion() as fusion:
            score = fusion.scores[record.shown or ""][metric]
            value, interval = score.value, score.interval
        case Comparison() as comparison:
            estimate = subject(comparison).estimates[metric]
            value, interval = estimate.mean, estimate.interval
        case _:
            return None
    if value is None or interval is None:
        return None
    return Bounded(value, min(interval[0], value), max(interval[1], value))


def _bounded_cell(found: Bounded | None) -> Cell:
    return number_cell(None) if found is None else number_cell(found.value, (found.low, found.high))


# Every candidate, every metric; and what else a run has


def _candidates_table(record: RunRecord, comparison: Comparison) -> Table:
    everyone: list[CandidateResult | ShortcutResult] = [*comparison.candidates, *comparison.shortcuts]
    ranked = sorted(everyone, key=lambda s: -s.primary)
    shown = list(listed(set.intersection(*(set(s.estimates) for s in ranked))))
    rows = tuple(
        (
            text_cell(s.candidate.label, _made_of(s.candidate.backbones)),
            *(
                _beside(
                    m,
                    number_cell(s.estimates[m].mean, s.estimates[m].interval),
                    comparison.curves.get(s.candidate.label, {}),
                )
                for m in shown
            ),
        )
        for s in ranked
    )
    first = subject(comparison).label
    return Table(
        f"Every metric of all {len(comparison.candidates)} candidates, {scored_on(comparison)}",
        ("Candidate", *(metric_heading(m) for m in shown)),
        rows,
        f"Mean over the folds (ECE: all {record.noun} together), with its 95 % interval from resampled"
        f" {kept(record)}, never narrower than so many allow. Sort by any column.",
        marked=next(at for at, s in enumerate(ranked) if s.candidate.label == first),
        sorted_by=1 + shown.index(PRIMARY),
    )


def _beside(metric: str, cell: Cell, curves: Mapping[str, Any]) -> Cell:
    """Put the ECE of a perfectly calibrated model beside an ECE."""
    chance = chance_text(curves) if metric == "ece" else ""
    return replace(cell, small="; ".join(filter(None, (cell.small, chance)))) if chance else cell


def _made_of(backbones: tuple[str, ...]) -> str:
    if not backbones:
        return "no network"
    return "alone" if len(backbones) == 1 else f"{len(backbones)} backbones"


def _views(comparison: Comparison) -> Table:
    points = comparison.view_curve
    return Table(
        f"How many augmented views pay? ({points[0].candidate})",
        ("Augmented views", metric_heading(points[0].metric)),
        tuple((count_cell(p.views), number_cell(p.mean, p.interval)) for p in points),
        "Every view is a row in training.",
    )


def _backbone_value_table(found: BackboneValue) -> list[Table]:
    prices = tuple(
        (
            text_cell(p.name, size(p.bytes)),
            number_cell(p.milliseconds, digits=1),
            number_cell(p.alone),
            number_cell(p.shapley, signed=True),
            number_cell(p.caruana, digits=2),
        )
        for p in found.costs
    )
    front = tuple(
        (text_cell("+".join(b.backbones)), number_cell(b.milliseconds, digits=1), number_cell(b.score))
        for b in found.front
    )
    metric = metric_heading(found.metric)
    return [
        Table(
            "What a backbone costs, and what it is worth",
            ("Backbone", "ms per image", f"{metric} alone", "Shapley", "Caruana"),
            prices,
            f"Shapley: mean gain in {metric} when backbones join at random. Caruana: weight in a greedy ensemble.",
        ),
        Table(
            "Subsets that no cheaper one surpasses",
            ("Backbones", "ms per image", metric),
            front,
            "Point estimates, not verdicts.",
        ),
    ]


def _scores(record: RunRecord, fusion: Fusion) -> Table:
    shown = record.shown or ""
    splits = [shown, *(name for name in fusion.scores if name != shown)]
    rows = tuple(
        (
            text_cell(row.label, row.meaning),
            *(
                _beside(
                    metric,
                    number_cell(fusion.scores[s][metric].value, fusion.scores[s][metric].interval),
                    fusion.curves[s],
                )
                for s in splits
            ),
        )
        for metric, row in listed(set.intersection(*(set(fusion.scores[s]) for s in splits))).items()
    )
    return Table(
        f"Scores on {record.noun} that the model had not seen",
        ("Score", *(f"{name} ({_scored_size(fusion, name):,} {record.noun})" for name in splits)),
        rows,
        f"With 95 % intervals by bootstrap of {kept(record)}, {NO_NARROWER}."
        + ("" if fusion.matrix["positive"] else " Averaged over the classes, each against the rest."),
    )


def _scored_size(fusion: Fusion, split: str) -> int:
    return fusion.patients[split] if fusion.patients else fusion.sizes[split]


def _changes(warm_start: WarmStart) -> Table:
    rows = [
        (
            text_cell(f"{split} {metric_heading(metric)}"),
            number_cell(change.before),
            number_cell(change.after),
            number_cell(change.difference, change.interval, signed=True),
        )
        for split, changes in warm_start.changes.items()
        for metric, change in changes.items()
    ]
    return Table("What fine-tuning changed", ("Score", "Before", "After", "Difference"), tuple(rows))


def _cells(about: Mapping[str, Any]) -> Table:
    rows = tuple(
        (
            text_cell(c["backbone"]),
            text_cell(view_name(c["recipe"], c["seed"])),
            count_cell(c["stored"]),
            count_cell(c["missing"]),
        )
        for c in about["cells"]
    )
    return Table(
        "Vectors by backbone and view",
        ("Backbone", "View", "Stored before", "Computed for this run"),
        rows,
        "One vector per image.",
    )


def _phases(about: Mapping[str, Any]) -> Table:
    rows = tuple(
        (text_cell(name), number_cell(seconds, digits=1)) for name, seconds in about["phases"].items()
    )
    return Table(
        "Where the time went",
        ("Phase", "Seconds"),
        (*rows, (text_cell("all, wall time"), number_cell(about["seconds"], digits=1))),
        f"The networks idled {100 * about['idle']:.0f} % of the time. Peak memory {size(about['measured_bytes'])},"
        f" announced {size(about['announced_bytes'])}.",
    )


# Provenance: keys, digests, versions, and the command that makes a run again

RANDOM = "random:"


def command(record: RunRecord) -> str:
    """Command line that makes the run again, with DATA for the data set."""
    about = record.about
    words_ = ["featstore", record.kind, "DATA"]
    if record.kind == "paper":
        return shlex.join([*words_, *_reproducing(about["arguments"]), "--out", "RUN"])
    match record.outcome:
        case Fusion() as fusion:
            words_ += _fusing(fusion, _asked(about))
        case Comparison() as comparison:
            words_ += _comparing(comparison, _asked(about))
    return shlex.join([*words_, *_source(record.matrix), "--out", "RUN"])


def keys_table(record: RunRecord) -> Table | None:
    """The feature keys: everything that can change a vector, and the digest by which the cache names it.

    None of a reproduction: its steps are runs of their own and have them.
    """
    if record.kind == "paper":
        return None
    matrix = record.matrix
    rows = []
    for spec in matrix["backbones"]:
        for view in matrix["views"]:
            key = {"backbone": spec, "view": view, "decoding": matrix["decoding"]}
            rows.append(
                (
                    text_cell(spec["name"], short_weights(spec["weights"])),
                    text_cell(view_name(view["recipe"], view["seed"])),
                    number_cell(None) if is_table(spec) else count_cell(spec["input_size"]),
                    count_cell(spec["dimension"]),
                    text_cell(spec["preprocess"]),
                    text_cell(spec["precision"]),
                    text_cell(_address(key)[:SHORT]),
                )
            )
    heads = ("Backbone, weights", "View", "Input, px", "Values", "Preprocessing", "Precision", "Key")
    return Table("Feature keys", heads, tuple(rows))


def facts_of(record: RunRecord) -> list[tuple[str, str]]:
    """Digests and versions, each with its name."""
    about = record.about
    decoding = record.matrix.get("decoding") or {}
    files = sorted(about["files"].items())
    backbones = record.matrix.get("backbones", [])
    return [
        ("Made", about["created"]),
        ("Table of the data set, SHA-256", record.data_sha256),
        *((f"Weights of {spec['name']}", spec["weights"]) for spec in backbones),
        *([("Decoder", str(decoding["decoder"]))] if decoding else []),
        ("Python, machine", f"{about['python']}, {about['machine']}"),
        ("Libraries", ", ".join(f"{name} {found}" for name, found in sorted(about["libraries"].items()))),
        *((f"{name}, SHA-256", found) for name, found in files),
        *_taken(about.get("fits")),
    ]


def _taken(fits: object) -> list[tuple[str, str]]:
    """How many of a comparison's fits the cache had; older runs do not tell."""
    match fits:
        case {"asked": int(asked), "taken_from_cache": int(taken)}:
            return [("Fits taken from the cache", f"{taken} of {asked}")]
    return []


def _reproducing(arguments: Mapping[str, Any]) -> list[str]:
    networks = arguments.get("networks")
    known = networks if isinstance(networks, dict) else {}
    random = [
        f"{name}={str(found).partition(' ')[0]}"
        for name, found in known.items()
        if str(found).startswith(RANDOM)
    ]
    return [
        *_option("--backbones", ",".join(known)),
        *(part for choice in random for part in ("--weights", choice)),
        *_option("--precision", arguments.get("precision"), "float32"),
        *_option("--images", arguments.get("images")),
        *_option("--views", arguments.get("views")),
        *_option("--epochs", arguments.get("epochs")),
        *_option("--seed", arguments.get("seed")),
        *(["--paper-split"] if arguments.get("paper_split") is True else []),
        *_option("--positive", arguments.get("positive")),
    ]


def _address(key: dict[str, Any]) -> str:
    """Digest of a key; of one that cannot be read back as a key, of what stands there."""
    try:
        return digest(FeatureKey.from_json(key).to_json())
    except ValueError:
        return digest(key)


def _asked(about: Mapping[str, Any]) -> Mapping[str, Any]:
    asked = about.get("asked")
    return asked if isinstance(asked, dict) else {}


def _fusing(fusion: Fusion, asked: Mapping[str, Any]) -> list[str]:
    calibration = fusion.operating["calibration"]
    return [
        "--strategy", fusion.strategy,
        *_option("--preset", asked.get("preset")),
        *_settings(asked.get("options")),
        *_option("--test-size", asked.get("test_size"), 0.25),
        *_option("--split-seed", asked.get("split_seed"), 0),
        *_option("--positive", fusion.matrix["positive"]),
        *_option("--unit", fusion.unit, "image"),
        *_option("--pool", fusion.pool),
        *_option("--calibrate", None if calibration is None else calibration["method"]),
        *_option("--sensitivity", fusion.operating["sensitivity"]),
        *_option("--confidence", fusion.operating.get("confidence")),
        *_option("--abstain", asked.get("abstain")),
        *(["--init-from", "EARLIER"] if fusion.warm_start else []),
        *_option("--freeze-blocks", ",".join(fusion.warm_start.frozen) if fusion.warm_start else None, ""),
    ]  # fmt: skip


def _settings(options: Any) -> list[str]:  # noqa: ANN401
    """Parameters as ``--set`` takes them: text as it is, everything else as a Python literal."""
    given = options.items() if isinstance(options, dict) else ()
    texts = [f"{name}={value if isinstance(value, str) else repr(value)}" for name, value in given]
    return [part for text in texts for part in ("--set", text)]


def _comparing(comparison: Comparison, asked: Mapping[str, Any]) -> list[str]:
    return [
        *_option("--strategies", _joined(asked.get("strategies")), "all"),
        *_option("--subsets", _joined(asked.get("subsets")), "singles"),
        *_option("--plan", "PLAN.json" if comparison.protocol.plan else None),
        *_option("--primary", asked.get("primary")),
        *_option("--margin", asked.get("margin"), MARGIN),
        *_option("--folds", comparison.protocol.asked_folds),
        *(_option("--repeats", comparison.repeats) if comparison.protocol.asked_folds == comparison.folds else []),
        *_option("--fold-seed", comparison.fold_seed),
        *_option("--harmonise", comparison.protocol.harmonise, "none"),
        *_option("--training-seeds", asked.get("training_seeds"), 1),
        *_option("--positive", comparison.matrix["positive"]),
        *_option("--unit", comparison.protocol.unit, "image"),
        *_option("--pool", comparison.protocol.pool),
        *_option("--calibrate", comparison.protocol.calibrate),
        *_option("--sensitivity", comparison.protocol.sensitivity),
        *_option("--confidence", comparison.protocol.confidence),
        *_option("--views", _joined(asked.get("views")), "expand"),
        *_option("--test-views", asked.get("test_views"), "identity"),
        *_option("--view-curve", asked.get("view_curve")),
        *(["--economics"] if asked.get("economics") is True else []),
        *(["--nested"] if asked.get("nested") is True else []),
    ]  # fmt: skip


def _source(matrix: Mapping[str, Any]) -> list[str]:
    specs, views = matrix["backbones"], matrix["views"]
    augmented = [view for view in views if view["recipe"] != "identity"]
    decoding = matrix["decoding"] or {}
    window = decoding.get("value_range")
    random = [
        f"{spec['name']}={spec['weights'].partition(' ')[0]}"
        for spec in specs
        if spec["weights"].startswith(RANDOM)
    ]
    return [
        *_option("--backbones", ",".join(spec["name"] for spec in specs)),
        *(part for choice in random for part in ("--weights", choice)),
        *_option("--preprocess", specs[0]["preprocess"] if specs else None, "official"),
        *_option("--precision", specs[0]["precision"] if specs else None, "float32"),
        *_option("--recipe", augmented[0]["recipe"] if augmented else None),
        *_option("--seeds", ",".join(str(view["seed"]) for view in augmented) or "none"),
        *([] if window is None else [range_option(window)]),
    ]


def _option(name: str, value: Any, default: Any = None) -> list[str]:  # noqa: ANN401
    """A flag with its value, unless that is what the command does anyway."""
    if value is None or value == default or isinstance(value, dict | list):
        return []
    return [name, str(value)]


def _joined(value: Any) -> Any:  # noqa: ANN401
    """Lists as the command line has them: names with commas, subsets with plus signs."""
    if not isinstance(value, list):
        return value
    return ",".join("+".join(map(str, part)) if isinstance(part, list) else str(part) for part in value)


# Runs side by side: paired on the images that both were tested on, where they saw the same table

ENOUGH = 2
"""Groups from which resampling them says anything."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Comparisons of every two runs of a report.

    Attributes
    ----------
    table
        The pairs that could be compared; None without any.
    sentences
        What may be said of each pair, and why the others may not be compared.
    """

    table: Table | None
    sentences: tuple[str, ...]


def compare_runs(records: Sequence[RunRecord]) -> SideBySide | None:
    """Set fits and comparisons side by side; None where there are fewer than two."""
    scored = [record for record in records if record.outcome is not None]
    if len(scored) < 2:  # noqa: PLR2004
        return None
    rows, sentences = [], []
    for one, two in combinations(scored, 2):
        why = _why_unpaired(one, two)
        if why:
            sentences.append(why)
            continue
        y, groups, proba = _common(one, two)
        values, interval = _difference(y, groups, proba, _positive(one))
        rows.append(
            (
                text_cell(
                    f"{one.name} and {two.name}", " and ".join(dict.fromkeys((_model(one), _model(two))))
                ),
                number_cell(_minus(values), interval, signed=True),
                number_cell(values[0]),
                number_cell(values[1]),
                count_cell(len(y)),
            )
        )
        sentences.append(_sentence(one, two, len(y), values, interval))
    heads = ("Runs", "Difference", f"{PRIMARY.upper()} of the first", "of the second", "Images in common")
    note = (
        f"Images answered unseen by both, all together (a comparison's own table has means over folds); 95 % interval"
        f" from resampled {kept(scored[0])}, for each pair alone."
    )
    sheet = Table("The same images, two runs", heads, tuple(rows), note) if rows else None
    return SideBySide(sheet, tuple(map(typeset, sentences)))


def _why_unpaired(one: RunRecord, two: RunRecord) -> str:
    """Why two runs may not be paired; empty where they may."""
    if one.data_sha256 != two.data_sha256:
        return (
            f"{one.name} and {two.name} saw different tables of images and labels: their numbers stand beside each"
            " other, but a difference between them may be the data's and not the method's."
        )
    if list(one.matrix["classes"]) != list(two.matrix["classes"]) or _positive(one) != _positive(two):
        return f"{one.name} and {two.name} are about different classes: their scores cannot be compared."
    _, groups, _ = _common(one, two)
    if len(set(groups.tolist())) < ENOUGH:
        return f"{one.name} and {two.name} were tested on no images in common: their scores cannot be paired."
    return ""


def _common(
    one: RunRecord, two: RunRecord
) -> tuple[NDArray[np.intp], NDArray[np.str_], list[NDArray[np.float64]]]:
    """True classes, groups and both probabilities of the images in common, in the order of the first."""
    first, second = _answers(one), _answers(two)
    place = {image: row for row, image in enumerate(second.ids)}
    rows = np.array([row for row, image in enumerate(first.ids) if image in place], np.intp)
    others = np.array([place[first.ids[row]] for row in rows], np.intp)
    return first.y[rows], first.groups[rows], [first.proba[rows], second.proba[others]]


def _difference(
    y: NDArray[np.intp], groups: NDArray[np.str_], proba: Sequence[NDArray[np.float64]], positive: int | None
) -> tuple[tuple[float | None, float | None], tuple[float, float] | None]:
    weights = np.vstack([np.ones((1, len(y))), group_weights(groups)])
    one, two = (score(y, p, weights, positive)[PRIMARY] for p in proba)
    if not np.isfinite(one[0] + two[0]):
        return (None, None), None
    values = float(one[0]), float(two[0])
    first, second = (sample_sizes(y, p, decide(p, positive), groups, positive)[PRIMARY] for p in proba)
    return values, difference_interval(values, (one[1:], two[1:]), (first, second))


def _minus(values: tuple[float | None, float | None]) -> float | None:
    one, two = values
    return None if one is None or two is None else two - one


def _sentence(
    one: RunRecord,
    two: RunRecord,
    images: int,
    values: tuple[float | None, float | None],
    interval: tuple[float, float] | None,
) -> str:
    if values[0] is None or values[1] is None or interval is None:
        why = (
            "a class is missing"
            if values[0] is None
            else "a class has a single patient, so nothing can be tested"
        )
        return f"On the {images:,} images that {_who(one)} and {_who(two)} were both tested on, {why}."
    low, high = interval
    delta = values[1] - values[0]
    if low <= 0 <= high and round(delta, 3) == 0:
        return (
            f"On the {images:,} images that both were tested on, {_who(two)} and {_who(one)} differ in AUC by 0.000"
            f" (95 % interval {interval_text(interval, signed=True)}); that may be chance."
        )
    if low <= 0 <= high:
        return (
            f"On the {images:,} images that both were tested on, the AUC of {_who(two)} less that of {_who(one)} is"
            f" {delta:+z.3f} (95 % interval {interval_text(interval, signed=True)}); that may be chance."
        )
    word = "higher" if delta >= 0 else "lower"
    by = phrase(delta, (low, high)) if delta >= 0 else phrase(-delta, (-high, -low))
    told = f"On the {images:,} images that both were tested on, {_who(two)} has an AUC {by} {word}"
    return f"{told} than {_who(one)}; {_chosen_models(one, two) or 'that is more than chance would explain'}."


def _chosen_models(*records: RunRecord) -> str:
    """Say whose part was picked by its score: a primary fusion was named before."""
    picked = [
        record.name
        for record in records
        if isinstance(record.outcome, Comparison) and record.outcome.primary_question is None
    ]
    if not picked:
        return ""
    return f"but the leader of {' and '.join(picked)} was picked on these images, so that part of it is luck"


def _who(record: RunRecord) -> str:
    return f"{record.name} ({_model(record)})"


def _model(record: RunRecord) -> str:
    """The strategy of a fit, or the candidate of a comparison that is shown."""
    return record.outcome.strategy if isinstance(record.outcome, Fusion) else str(record.shown)


def _answers(record: RunRecord) -> RunPredictions:
    return record.predictions[record.shown or ""]


def _positive(record: RunRecord) -> int | None:
    matrix = record.matrix
    return None if matrix["positive"] is None else list(matrix["classes"]).index(matrix["positive"])
