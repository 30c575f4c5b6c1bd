"""What is known of a run, in sentences that its card, its worksheet and its verdict share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featstore import registry
from featstore.evaluation.comparison import Comparison
from featstore.evaluation.contestants import STRATEGIES
from featstore.evaluation.fuse import Fusion
from featstore.report.plain import counts, short_weights, view_name
from featstore.report.records.record import leader
from featstore.report.terminal.scores import operating_text

if TYPE_CHECKING:
    from featstore.report.records.record import Record


RANDOM = "random:"


def data(record: Record) -> str:
    """How many images, patients and classes."""
    matrix = record.matrix
    if record.kind == "paper":
        networks, steps = len(record.metrics["networks"]), len(record.metrics["steps"])
        return f"{networks} networks, {len(record.twins)} figures, {steps} steps."
    if record.outcome is None:
        return f"{matrix['images']:,} images{_aside(sum(matrix['quarantined'].values()))}."
    whom = (
        f"of {matrix['groups']:,} patients (groups)"
        if matrix["has_groups"]
        else "whose patients are not named"
    )
    return f"{matrix['images']:,} images {whom}; {counts(matrix['classes'])}{_aside(matrix['quarantined'])}."


def kept(record: Record) -> str:
    """What was kept together, and is resampled."""
    return "patients" if record.matrix["has_groups"] else "images"


def disjoint(record: Record) -> str:
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


def partition(record: Record) -> str:
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
            times = f", repeated {comparison.repeats} times" if comparison.repeats > 1 else ""
            return (
                f"{comparison.folds}-fold cross-validation over whole groups, stratified by class{times}"
                f" (seed {comparison.fold_seed}); every contestant on the same folds."
            )
        case _:
            return ""


def preprocessing(record: Record) -> str:
    """How a file becomes the pixels at a network's door."""
    matrix = record.matrix
    decoding, backbones = matrix["decoding"] or {}, matrix["backbones"]
    sides = sorted({spec["input_size"] for spec in backbones})
    how = {
        "official": "normalised as each network's authors do",
        "rescale": "divided by 255 for every network",
    }
    kinds = sorted({spec["preprocess"] for spec in backbones})
    between = f" to {sides[-1]}" if len(sides) > 1 else ""
    window = decoding.get("value_range")
    cut = f", grey values {window[0]:g} to {window[1]:g} taken for black and white" if window else ""
    return (
        f"Decoded with {decoding.get('decoder', 'a decoder that is not recorded')}{cut}; resized to squares of"
        f" {sides[0]}{between} pixels ({decoding.get('interpolation', 'not recorded')}, stretched if need be);"
        f" {' or '.join(how.get(kind, kind) for kind in kinds)}."
    )


def views(record: Record) -> str:
    """Which views were trained on."""
    names = [view_name(view["recipe"], view["seed"]) for view in record.matrix["views"]]
    augmented = len(names) - 1
    if augmented < 1:
        return "No augmentation: every image in its identity view."
    more = ", ".join(names[1:])
    return f"The identity view and {augmented} augmented in training ({more}); tested on the identity view."


def networks(record: Record) -> str:
    """The frozen networks and the length of their vectors."""
    specs = record.matrix["backbones"]
    names = ", ".join(f"{spec['name']} ({spec['dimension']:,})" for spec in specs)
    total = sum(spec["dimension"] for spec in specs)
    return (
        f"Global average pooling of {len(specs)} frozen {'network' if len(specs) == 1 else 'networks'}"
        f" ({names} values; together {total:,})."
    )


def strategy(record: Record) -> str:
    """What was fitted on the vectors."""
    match record.outcome:
        case Fusion() as fusion:
            options = ", ".join(f"{name} {value}" for name, value in sorted(fusion.options.items()))
            return f"{fusion.strategy}: {_told(fusion.strategy)}{f' Settings: {options}.' if options else ''}"
        case Comparison() as comparison:
            first = leader(comparison).contestant
            return (
                f"{len(comparison.standings)} contestants; the one with the highest AUC is {first.label}:"
                f" {_told(first.strategy)}"
            )
        case _:
            return ""


def weights(record: Record) -> str:
    """Where the weights of the networks come from."""
    found = "; ".join(
        f"{spec['name']} {short_weights(spec['weights'])}" for spec in record.matrix["backbones"]
    )
    return f"The networks are frozen, with weights {found}."


def operating(record: Record) -> str:
    """How an answer comes from a probability."""
    match record.outcome:
        case Fusion() as fusion:
            told = operating_text(fusion.operating, list(fusion.matrix["classes"]))
        case Comparison(wish=wish):
            parts = [
                *([] if wish.calibrate is None else [f"Probabilities are calibrated ({wish.calibrate})."]),
                *(
                    []
                    if wish.sensitivity is None
                    else [f"The threshold aims at a sensitivity of {wish.sensitivity:g}."]
                ),
            ]
            told = " ".join([*parts, "Chosen within the training images of each fold."] if parts else [])
        case _:
            told = ""
    return told or "The most probable class is answered; probabilities are the model's own, not calibrated."


def untrained(record: Record) -> list[str]:
    """Warn of networks with random weights, which no number of a run can speak for."""
    names = [spec["name"] for spec in record.matrix["backbones"] if spec["weights"].startswith(RANDOM)]
    return [f"Random weights, never trained: {', '.join(names)}."] if names else []


def software(record: Record) -> str:
    """Libraries with their versions."""
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(record.about["libraries"].items()))
    return f"Python {record.about['python']} on {record.about['machine']}; {libraries}."


def _told(name: str) -> str:
    """First line of a strategy's own description; what a stranger calls a strategy need not be one."""
    known = name in registry.names(STRATEGIES)
    return registry.summary(STRATEGIES, name) if known else "a strategy that this featstore does not know."


def _aside(quarantined: int) -> str:
    return f"; {quarantined:,} more could not be read and are in quarantine" if quarantined else ""
