"""Findings about the use of a result: one answer for everyone, too few patients, a guessed positive class.

They are pure functions of labels and answers. Messages name classes, splits and candidates, never a path or a
patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.findings import Finding, ordered, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import EvaluationDesign
    from featstore.evaluation.metrics import Positive
    from featstore.results.comparison import Comparison

MISSED = 0.05
"""Share of a class found, from which down the class is as good as never answered."""
FEW = 10
"""Patients of a class: with all of ten answered right, the interval still begins at 0.72."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImages:
    """Images that were answered.

    Attributes
    ----------
    name
        What a message calls them: a split, or a candidate.
    y, answers
        ``(n,)`` true class index, and the one answered.
    groups
        ``(n,)`` patient of each image.
    noun
        What each row is: images, or patients.
    """

    name: str
    y: NDArray[np.intp]
    answers: NDArray[np.intp]
    groups: NDArray[np.str_]
    noun: str = "images"


def fusion_findings(
    classes: Sequence[str], tested: Sequence[ScoredImages], positive: Positive, *, has_groups: bool = True
) -> tuple[Finding, ...]:
    """Findings of a fit.

    Parameters
    ----------
    classes
        Names, in the order of the class indices.
    tested
        Each evaluated split.
    positive
        The positive class and who chose it.
    has_groups
        Whether groups are patients; otherwise each image counts for one.
    """
    found = [
        *(_one_answer(f"On the split {part.name!r} the model", classes, part) for part in tested),
        *(_few_patients(classes, part.y, part.groups, part.name, has_groups=has_groups) for part in tested),
        guessed_positive_class(classes, positive),
    ]
    return ordered(finding for finding in found if finding is not None)


def comparison_findings(
    classes: Sequence[str],
    tested: Sequence[ScoredImages],
    leader: str,
    positive: Positive,
    *,
    has_groups: bool = True,
) -> tuple[Finding, ...]:
    """Findings of a comparison.

    Parameters
    ----------
    classes, positive, has_groups
        As for `fusion_findings`.
    tested
        Answers of each candidate about the same images, every image once.
    leader
        Name of the candidate with the highest primary metric.
    """
    found = [
        _one_sided(classes, tested, leader),
        *(_few_patients(classes, part.y, part.groups, "", has_groups=has_groups) for part in tested[:1]),
        guessed_positive_class(classes, positive),
    ]
    return ordered(finding for finding in found if finding is not None)


def findings_of(
    result: Comparison, design: EvaluationDesign, positive: Positive, *, has_groups: bool = True
) -> tuple[Finding, ...]:
    """`comparison_findings` of the answers that a comparison holds."""
    folds = design.first_repeat
    rows = np.concatenate([design.splits[at][1] for at in folds])
    tested = [
        ScoredImages(
            s.candidate.label,
            design.y[rows],
            np.concatenate([s.decisions[at] for at in folds]),
            design.groups[rows],
            "patients" if result.protocol.unit == "group" else "images",
        )
        for s in result.candidates
    ]
    leader = max(result.candidates, key=lambda s: s.primary).candidate.label
    return comparison_findings(
        list(result.matrix["classes"]), tested, leader, positive, has_groups=has_groups
    )


def guessed_positive_class(classes: Sequence[str], positive: Positive) -> Finding | None:
    """FS406 where featstore chose the positive class."""
    if not positive.guessed or positive.index is None:
        return None
    name, other = classes[positive.index], classes[1 - positive.index]
    why = (
        f"because {other!r} names the absence of it"
        if positive.origin == "names"
        else "a mere guess: neither name says which class is the disease, so the last in sorted order was taken"
    )
    return Finding(
        "FS406",
        f"The positive class is {name!r}, {why}. Sensitivity, specificity, F1 and average precision depend on it.",
        remedy=f"If that is wrong: --positive {_shell(other)}; if it is right: --positive {_shell(name)}",
    )


def _shell(name: str) -> str:
    """A name as a shell takes it."""
    from shlex import quote

    return quote(name)


def missed_classes(classes: Sequence[str], part: ScoredImages) -> list[str]:
    """Say of each class that is as good as never answered how many of its images were found."""
    missed = []
    for at, name in enumerate(classes):
        mine = part.y == at
        right = int((mine & (part.answers == at)).sum())
        if mine.any() and right <= MISSED * mine.sum():
            missed.append(f"{right} of {int(mine.sum())} {part.noun} of {name!r} are found")
    return missed


def _one_answer(whose: str, classes: Sequence[str], part: ScoredImages) -> Finding | None:
    missed = missed_classes(classes, part)
    if not missed:
        return None
    given, counts = np.unique(part.answers, return_counts=True)
    most = int(counts.argmax())
    return Finding(
        "FS402",
        f"{whose} answers {classes[given[most]]!r} for {int(counts[most])} of {len(part.y)} {part.noun}:"
        f" {', '.join(missed)}.",
        count=int(counts[most]),
    )


def _one_sided(classes: Sequence[str], tested: Sequence[ScoredImages], leader: str) -> Finding | None:
    """One finding for all candidates, the leader's case spelt out."""
    flagged = [part for part in tested if missed_classes(classes, part)]
    if not flagged:
        return None
    names = quoted([part.name for part in flagged if part.name != leader])
    first = next((part for part in flagged if part.name == leader), None)
    if first is None:
        one = flagged[0].noun.removesuffix("s")
        message = (
            f"{len(flagged)} of {len(tested)} candidates give (nearly) every {one} one answer: {names}; the one"
            " with the highest AUC does not."
        )
        return Finding("FS402", message, count=len(flagged))
    finding = _one_answer(f"{leader}, which has the highest AUC,", classes, first)
    if finding is None:
        return None
    also = f" So do {len(flagged) - 1} of the {len(tested) - 1} others: {names}." if names else ""
    return Finding("FS402", finding.message + also, count=len(flagged))


def _few_patients(
    classes: Sequence[str],
    y: NDArray[np.intp],
    groups: NDArray[np.str_],
    split: str,
    *,
    has_groups: bool,
) -> Finding | None:
    """FS403 where a class has so few patients that intervals are wide, or one, which allows none."""
    counts = {name: len(np.unique(groups[y == at])) for at, name in enumerate(classes)}
    few = {name: count for name, count in counts.items() if count < FEW}
    if not few:
        return None
    told = ", ".join(
        f"{_units(count, has_groups=has_groups)} of class {name!r}" for name, count in few.items()
    )
    where = f"On the split {split!r}" if split else "In all"
    least = min(few.values())
    # The class with one patient is said in the words of a table: "no interval: 1 patient of class X".
    alone = [name for name, count in few.items() if count == 1]
    consequence = (
        "intervals say next to nothing"
        if least > 1
        else f"no interval: {_units(least, has_groups=has_groups)} of class {alone[0]!r}"
        if alone
        else "what needs that class has no value"
    )
    return Finding(
        "FS403",
        f"{where}, {told} {'was' if list(few.values()) == [1] else 'were'} scored: {consequence}.",
        count=least,
    )


def _units(count: int, *, has_groups: bool) -> str:
    unit = "patient" if has_groups else "image"
    return f"{count} {unit}{'' if count == 1 else 's'}"
