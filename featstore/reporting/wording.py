"""Sentences on a run that its model card, its checklists and its verdict share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore import registry
from featstore.evaluation.candidates import STRATEGIES
from featstore.evaluation.metrics import PRIMARY
from featstore.findings import counted
from featstore.images.recipe import FILE_WINDOW, pairs, view_name
from featstore.reporting import run_record, verdict
from featstore.reporting.run_record import RunRecord, leader, subject
from featstore.reporting.terminal.comparison import operating_text, scored_on
from featstore.reporting.verdict import sure
from featstore.results.comparison import Comparison
from featstore.results.fusion import Fusion
from featstore.tables import counts, duration, short_weights
from featstore.types import COVARIATES, IMPORTED_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from featstore.reporting.run_record import RunPredictions


# What is known of a run

RANDOM = "random:"


def data(record: RunRecord) -> str:
    """How many images, patients and classes."""
    matrix = record.matrix
    if record.kind == "paper":
        networks, steps = len(record.metrics["networks"]), len(record.metrics["steps"])
        return f"{networks} networks, {len(record.paper_figures)} figures, {steps} steps."
    if record.outcome is None:
        return f"{matrix['images']:,} images{_aside(sum(matrix['quarantined'].values()))}."
    whom = (
        f"of {matrix['groups']:,} patients (groups)"
        if matrix["has_groups"]
        else "whose patients are not named"
    )
    return f"{matrix['images']:,} images {whom}; {counts(matrix['classes'])}{_aside(matrix['quarantined'])}."


def kept(record: RunRecord) -> str:
    """What was kept together, and is resampled."""
    return "patients" if record.matrix["has_groups"] else "images"


def disjoint(record: RunRecord) -> str:
    """At which level the parts of the data are disjoint."""
    if record.matrix.get("groups_set_aside"):
        return (
            "Images, on purpose: the data set names patients, who were not kept together. Images of one patient are"
            " on both sides of the split, and scores are too high. All views of an image stay together."
        )
    if record.matrix["has_groups"]:
        return (
            "Patients (groups): no patient is on both sides of a split. All views of an image stay together."
        )
    return (
        "Images: the data set names no patients, so that images of one patient may be on both sides of a split."
        " Scores may then be too high. All views of an image stay together."
    )


def partition(record: RunRecord) -> str:
    """How images came to be trained on or tested on."""
    match record.outcome:
        case Fusion() as fusion:
            sizes = ", ".join(f"{name} {size:,}" for name, size in fusion.sizes.items())
            asked = record.about.get("asked")
            seed = asked.get("split_seed") if isinstance(asked, dict) else None
            drawn = (
                f" (drawn by class with seed {seed} where the data set has no splits of its own)"
                if seed is not None
                else ""
            )
            return f"Whole groups held out{drawn}; images: {sizes}."
        case Comparison() as comparison:
            if comparison.sites is not None:
                found = comparison.sites
                of_several = (
                    f" Patients of several sites ({found.shared_patients}) are never on both sides."
                    if found.shared_patients
                    else ""
                )
                return (
                    f"Each site left out in turn (internal-external validation, Steyerberg & Harrell 2016):"
                    f" {len(found.sites)} sites; every candidate on the same sites.{of_several}"
                    f"{f' {told}' if (told := verdict.harmonised_text(comparison)) else ''}"
                )
            if comparison.protocol.left_out == "group":
                return (
                    f"Each patient left out in turn: {comparison.folds:,} {kept(record)}; and from training one more"
                    f" of every other class (seed {comparison.fold_seed}). Every candidate on the same patients."
                )
            if comparison.own_split:
                return "The data set's own split, scored once on its test images; every candidate on the same images."
            times = f", repeated {comparison.repeats} times" if comparison.repeats > 1 else ""
            return (
                f"{comparison.folds}-fold cross-validation over whole groups, stratified by class{times}"
                f" (seed {comparison.fold_seed}); every candidate on the same folds."
            )
        case _:
            return ""


def trained_on(record: RunRecord) -> str:
    """How many of the images a model was fitted on."""
    match record.outcome:
        case Fusion() as fusion:
            apart = [f"{size:,} of {name}" for name, size in fusion.sizes.items() if name != "train"]
            return f"Fitted on {fusion.sizes['train']:,} of them (train), without the {' and '.join(apart)}."
        case Comparison(own_split=True):
            return "Fitted on the data set's own training images alone."
        case Comparison():
            return "In each fold fitted on what is not tested in it."
        case _:
            return ""


def preprocessing(record: RunRecord) -> str:
    """How a file becomes the pixels at a network's door."""
    matrix = record.matrix
    decoding, backbones = matrix["decoding"] or {}, matrix["backbones"]
    backbones = [spec for spec in backbones if not is_table(spec)]
    if not backbones:
        return "No image was decoded here: the vectors come from another program."
    sides = sorted({spec["input_size"] for spec in backbones})
    how = {
        "official": "normalised as each network's authors do",
        "rescale": "divided by 255 for every network",
    }
    kinds = sorted({spec["preprocess"] for spec in backbones})
    between = f" to {sides[-1]}" if len(sides) > 1 else ""
    window = decoding.get("value_range")
    cut = f", {_window(window)} taken for black and white" if window else ""
    return (
        f"Decoded with {decoding.get('decoder', 'a decoder that is not recorded')}{cut}; resized to squares of"
        f" {sides[0]}{between} pixels ({decoding.get('interpolation', 'not recorded')}, stretched if need be);"
        f" {' or '.join(how.get(kind, kind) for kind in kinds)}."
    )


def _window(value_range: Sequence[float]) -> str:
    if tuple(value_range) == FILE_WINDOW:
        return "the ends of each file's own window"
    if len(value_range) > 2:  # noqa: PLR2004
        spans = [f"{low:g} to {high:g}" for low, high in pairs(value_range)]
        return f"grey values {', '.join(spans[:-1])} and {spans[-1]}, one channel each,"
    return f"grey values {value_range[0]:g} to {value_range[1]:g}"


def views(record: RunRecord) -> str:
    """Which views were trained on."""
    names = [view_name(view["recipe"], view["seed"]) for view in record.matrix["views"]]
    augmented = len(names) - 1
    if augmented < 1:
        return "No augmentation: every image in its identity view."
    more = ", ".join(names[1:])
    return f"The identity view and {augmented} augmented in training ({more}); tested on the identity view."


def networks(record: RunRecord) -> str:
    """The frozen networks and the length of their vectors, and what no network computed here."""
    specs = [spec for spec in record.matrix["backbones"] if not is_table(spec)]
    names = ", ".join(f"{spec['name']} ({spec['dimension']:,})" for spec in specs)
    total = sum(spec["dimension"] for spec in specs)
    pooled = (
        f"Global average pooling of {len(specs)} frozen {'network' if len(specs) == 1 else 'networks'}"
        f" ({names} values; together {total:,})."
    )
    tables = [spec for spec in record.matrix["backbones"] if is_table(spec)]
    return " ".join([*([pooled] if specs else []), *map(_table_text, tables)])


def is_table(spec: Mapping[str, Any]) -> bool:
    """Whether a block holds what no network computed here: covariates, or vectors of another program."""
    return str(spec["weights"]).startswith(IMPORTED_PREFIX)


def _table_text(spec: Mapping[str, Any]) -> str:
    if spec["name"] == COVARIATES:
        return f"Covariates of the table enter as {counted(spec['dimension'], 'value')}."
    return f"{spec['name']}: {spec['dimension']:,} values that another program computed, imported."


def predictors(record: RunRecord) -> str:
    """Whether anything beside vectors of images enters."""
    if any(spec["name"] == COVARIATES for spec in record.matrix["backbones"]):
        return "The vectors and the covariates are the only predictors."
    return "The vectors are the only predictors; no clinical variable enters."


def strategy(record: RunRecord) -> str:
    """What was fitted on the vectors."""
    match record.outcome:
        case Fusion() as fusion:
            options = ", ".join(f"{name} {value}" for name, value in sorted(fusion.options.items()))
            return f"{fusion.strategy}: {_told(fusion.strategy)}{f' Settings: {options}.' if options else ''}"
        case Comparison() as comparison:
            first = subject(comparison).candidate
            who = (
                "the one with the highest AUC is"
                if comparison.primary_question is None
                else "the primary fusion, named before any score was seen, is"
            )
            return f"{len(comparison.candidates)} candidates; {who} {first.label}: {_told(first.strategy)}"
        case _:
            return ""


def weights(record: RunRecord) -> str:
    """Where the weights of the networks come from."""
    specs = [spec for spec in record.matrix["backbones"] if not is_table(spec)]
    found = "; ".join(f"{spec['name']} {short_weights(spec['weights'])}" for spec in specs)
    return f"The networks are frozen, with weights {found}." if specs else "No network was used here."


def operating(record: RunRecord) -> str:
    """How an answer comes from a probability."""
    match record.outcome:
        case Fusion() as fusion:
            told = operating_text(fusion.operating, list(fusion.matrix["classes"]), fusion.unit)
        case Comparison(protocol=request):
            parts = [
                *(
                    []
                    if request.calibrate is None
                    else [f"Probabilities are calibrated ({request.calibrate})."]
                ),
                *(
                    []
                    if request.sensitivity is None
                    else [
                        f"The threshold aims at a sensitivity of {request.sensitivity:g}{sure(request.confidence)}."
                    ]
                ),
            ]
            told = " ".join([*parts, "Chosen within the training images of each fold."] if parts else [])
        case _:
            told = ""
    return told or "The most probable class is answered; probabilities are the model's own, not calibrated."


def untrained(record: RunRecord) -> list[str]:
    """Warn of networks with random weights, which no number of a run can speak for."""
    names = [spec["name"] for spec in record.matrix["backbones"] if spec["weights"].startswith(RANDOM)]
    return [f"Random weights, never trained: {', '.join(names)}."] if names else []


def software(record: RunRecord) -> str:
    """Libraries with their versions."""
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(record.about["libraries"].items()))
    return f"Python {record.about['python']} on {record.about['machine']}; {libraries}."


def _told(name: str) -> str:
    """First line of a strategy's own description; what a stranger calls a strategy need not be one."""
    known = name in registry.names(STRATEGIES)
    return registry.summary(STRATEGIES, name) if known else "a strategy that this featstore does not know."


def _aside(quarantined: int) -> str:
    return f"; {quarantined:,} more could not be read and are in quarantine" if quarantined else ""


# What a run found, and how it was tested


def performance(record: RunRecord) -> str:
    """The primary metric with its interval, corrected where it is the best of many."""
    match record.outcome:
        case Fusion() as fusion:
            score = fusion.scores[record.shown or ""][PRIMARY]
            size = (fusion.patients or fusion.sizes)[record.shown or ""]
            told = verdict.phrase(score.value, score.interval)
            return f"{PRIMARY.upper()} {told} on {size:,} {record.noun} that it had not seen."
        case Comparison(primary_question=question) as comparison if question is not None:
            estimate = subject(comparison).estimates[PRIMARY]
            told = verdict.phrase(estimate.mean, estimate.interval)
            return f"{PRIMARY.upper()} of {question.primary} {told}, {scored_on(comparison)}."
        case Comparison(selection_bias=None) as comparison:
            estimate = leader(comparison).estimates[PRIMARY]
            return f"{PRIMARY.upper()} {verdict.phrase(estimate.mean, estimate.interval)}, {scored_on(comparison)}."
        case Comparison(selection_bias=winner) if winner is not None:
            return (
                f"Best of {winner.of}: {winner.name}, {winner.metric.upper()} {winner.apparent:.3f}; on other"
                f" patients expect {verdict.phrase(winner.corrected, winner.interval)}, since it was picked on these."
            )
        case _:
            return ""


def calibration(record: RunRecord) -> str:
    """How well its probabilities are calibrated, or those of the leader."""
    match record.outcome:
        case Fusion() | Comparison() as outcome:
            classes = list(outcome.matrix["classes"])
            return verdict.calibration_text(outcome.curves.get(record.shown or "", {}), classes, record.noun)
        case _:
            return ""


def abstention(record: RunRecord) -> list[str]:
    """When its model should not answer: prediction sets, and images unlike those of training; of a fit alone."""
    if not isinstance(record.outcome, Fusion):
        return []
    split = record.shown or ""
    sets = verdict.sets_text(record.outcome, split)
    unlike = verdict.unlike_text(record.outcome, split)
    return [
        sets or "The model keeps no prediction sets, so that featstore predict always answers one class.",
        unlike or "The model does not tell when an image is unlike those of training.",
    ]


def selection(record: RunRecord) -> str:
    """How the model was chosen among others."""
    match record.outcome:
        case Comparison() as comparison if comparison.primary_question is not None:
            return (
                f"{comparison.primary_question.primary} was named before any score was seen, and picked by none. The"
                f" highest AUC of the {len(comparison.candidates)} candidates is given corrected for having been"
                " picked (bootstrap bias-corrected cross-validation, Tsamardinos 2018)."
            )
        case Comparison() as comparison:
            return (
                f"The highest AUC of {len(comparison.candidates)} candidates, out of fold. The corrected estimate"
                " picks anew in each resample (bootstrap bias-corrected cross-validation, Tsamardinos 2018)."
            )
        case Fusion():
            return "One model was fitted; this run chose among none."
        case _:
            return ""


def internal(record: RunRecord) -> str:
    """What kind of testing the scores are."""
    whom = "patients" if record.matrix["has_groups"] else "images"
    if isinstance(record.outcome, Comparison) and record.outcome.sites is not None:
        return (
            "All scores are from sites that were left out of training (internal-external validation)."
            f" {verdict.drop_text(record.outcome.sites)}"
        )
    return f"All scores are from held-out {whom} of the same data set (internal testing)."


def uncertainty(record: RunRecord) -> str:
    """Where intervals and p values come from."""
    whom = "patients, not images" if record.matrix["has_groups"] else "images, since no patients are named"
    told = (
        f"95 % intervals from 2,000 bootstrap resamples of {whom}, and never narrower than score intervals for so"
        " many (shares: Wilson 1927; AUC: Newcombe 2006)"
    )
    if not isinstance(record.outcome, Comparison):
        return f"{told}."
    if record.outcome.protocol.adjustment == "holm":
        how = "are paired, their p values adjusted for all pairs (Holm)"
    else:
        how = (
            "have clustered standard errors (DeLong 1988, Obuchowski 1997); the primary question is tested by"
            " intersection-union (Berger 1982), other pairs are adjusted by step-down max-T (Westfall & Young 1993)"
        )
    overlap = "the bootstrap is widened for the overlap of the training sets (Nadeau & Bengio 2003)"
    return f"{told}; {overlap}. Differences {how}."


def shortcuts(record: RunRecord) -> str:
    """How well the class is guessed without a network, on the images that the scores are about."""
    match record.outcome:
        case Fusion() as fusion:
            found = {
                name: (scores[PRIMARY].value, scores[PRIMARY].interval)
                for name, scores in fusion.shortcuts.get(record.shown or "", {}).items()
            }
        case Comparison() as comparison:
            found = {
                s.candidate.label: (s.estimates[PRIMARY].mean, s.estimates[PRIMARY].interval)
                for s in comparison.shortcuts
            }
        case _:
            found = {}
    told = "; ".join(f"{name} {verdict.phrase(*score)}" for name, score in found.items())
    return (
        f"Guessing without a network, on the same {record.noun}: {PRIMARY.upper()} of {told}." if told else ""
    )


def mistakes(record: RunRecord) -> str:
    """How many answers were wrong."""
    shown = _shown(record)
    if shown is None:
        return ""
    return (
        f"{len(shown.wrong):,} of {len(shown.ids):,} images were answered wrong ({record.shown}); the report lists"
        " them, the surest mistakes first."
    )


def tested_groups(record: RunRecord) -> int:
    """Patients among the images that the report's answers are about."""
    shown = _shown(record)
    return 0 if shown is None else len(set(shown.groups.tolist()))


def _shown(record: RunRecord) -> RunPredictions | None:
    return None if record.shown is None else record.predictions[record.shown]


# The verdict on a run: what a hurried reader should take away, and what he must not miss


def headline(record: RunRecord) -> tuple[str, ...]:
    """Sentences that a report begins with, the one that matters first; findings follow on their own."""
    match record.outcome:
        case Comparison() as comparison:
            lines = verdict.selection_bias_text(comparison).splitlines()
            return (
                verdict.summary(comparison),
                *verdict.planning_sentences(comparison),
                *verdict.consequences(comparison),
                *filter(
                    None, [verdict.drop_text(comparison.sites), verdict.patients_left_out_text(comparison)]
                ),
                *filter(None, [verdict.question_text(comparison)]),
                *lines,
                *untrained(record),
            )
        case Fusion() as fusion:
            return (
                verdict.fusion_summary(fusion, record.shown or "", tested_groups(record)),
                *([] if record.matrix["has_groups"] else [disjoint(record)]),
                *untrained(record),
                mistakes(record),
            )
        case _ if record.reproduction is not None:
            return tuple(run_record.paper_verdict(record.reproduction))
        case _:
            about = record.about
            done = f"{about['computed']:,} vectors computed in {duration(about['seconds'])}"
            of = (
                f"{len(about['backbones'])} networks, {len(about['views'])} views, {about['images']:,} images"
            )
            return (
                f"{done}, {about['stored']:,} were stored before: {of}.",
                _quarantine(about["quarantined"]),
            )


def _quarantine(reasons: Mapping[str, int]) -> str:
    if not reasons:
        return "Every image could be read."
    told = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
    return f"{sum(reasons.values()):,} images are in quarantine ({told}); nothing was computed from them."


# What a report must never be read without

PURPOSE = "Research only. featstore is no medical device, and nothing it computes may decide about a patient."
SHORTCUTS = (
    "A good score does not mean that the networks saw the disease: scanners, markers, cropping and compression can"
    " give a label away. The audit guesses the label from file sizes and grey levels alone; compare its AUC."
)
CAVEATS = (
    PURPOSE,
    SHORTCUTS,
    "It does not mean that the model works elsewhere: another hospital is another population.",
    "An interval tells what other patients like these would change: nothing of wrong labels or another hospital.",
    "The best of many was picked on the images it is scored on. Quote the corrected value, not the highest.",
)
