"""The paper's number beside this run's, and why they differ."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from featstore.evaluation.scores import Score
from featstore.reproduction.outcome import Claim
from featstore.reproduction.protocol import HONEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featstore.evaluation.comparison import Comparison
    from featstore.evaluation.standing import Standing
    from featstore.reproduction.outcome import Leak, Member
    from featstore.reproduction.protocol import Fits

PAPER = 0.96
"""Accuracy that Ji et al. 2020 report."""
METRIC = "accuracy"
LEARNT = 0.9
"""Accuracy in training, with dropout, from which a head knows its training images."""


def claims(by_image: Fits, by_patient: Fits | None, honest: Comparison) -> tuple[Claim, ...]:
    """Lay the accuracies side by side: the paper's, its protocol here, the same by patient, and the honest one."""
    tested = by_image.tuned.sizes["test"]
    rows = [
        Claim(
            "paper",
            f"Ji et al. 2020, as claimed (interval as if on {tested} test images)",
            Score(PAPER, exact_interval(PAPER, tested)),
            None,
            None,
            "exact binomial; the paper's own test size is not known here",
        ),
        _held_out(
            "by_image", "the paper's protocol here, split by image", by_image, "images as if independent"
        ),
    ]
    if by_patient is not None:
        rows.append(_held_out("by_patient", "the same, but patients kept together", by_patient, "patients"))
    chosen = contestant(honest)
    unit = "patients" if honest.matrix["has_groups"] else "images"
    estimate = chosen.estimates[METRIC]
    rows.append(
        Claim(
            "honest",
            f"honest: {chosen.contestant.label}, {honest.folds}-fold over {unit}, each network's own preprocessing",
            Score(estimate.mean, estimate.interval),
            honest.matrix["images"],
            honest.matrix["groups"] if honest.matrix["has_groups"] else None,
            f"bootstrap over {unit}, widened for the overlap of the folds",
        )
    )
    return tuple(rows)


def contestant(honest: Comparison) -> Standing:
    """Who the honest number is about: settled in advance, not the best."""
    fused = [s for s in honest.standings if s.contestant.label == HONEST]
    return (fused or list(honest.standings))[0]


def exact_interval(share: float, images: int) -> tuple[float, float]:
    """95 % interval of a share of so many images: Clopper & Pearson, Biometrika 26, 1934."""
    from scipy.stats import binomtest

    found = binomtest(round(share * images), images).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def floor(sides: Mapping[str, Mapping[str, int]]) -> float:
    """Accuracy on the test images of answering what is most frequent among the training images."""
    train, test = sides["train"], sides["test"]
    return test[max(train, key=lambda name: train[name])] / sum(test.values())


def reasons(
    found: Sequence[Claim],
    leak: Leak | None,
    members: Sequence[Member],
    by_image: Fits,
    honest: Comparison,
    audit: Mapping[str, object],
) -> tuple[str, ...]:
    """Sentences on why the numbers differ, the heaviest first."""
    by_name = {claim.name: claim for claim in found}
    return tuple(
        sentence
        for sentence in (
            *_untrained(members),
            _leak(leak, by_name),
            _preprocessing(by_name),
            _training(by_image),
            _selection(by_image, honest),
            _size(by_name),
            _shortcuts(audit),
        )
        if sentence
    )


def _held_out(name: str, title: str, fits: Fits, unit: str) -> Claim:
    fusion = fits.tuned
    return Claim(
        name,
        title,
        fusion.scores["test"][METRIC],
        fusion.sizes["test"],
        None,
        f"bootstrap over {unit}; one split",
    )


def _untrained(members: Sequence[Member]) -> Iterator[str]:
    here = [member for member in members if member.is_here]
    if absent := [member.name for member in members if not member.is_here]:
        yield f"Weights absent: {', '.join(absent)} did not take part, so this is not the paper's set of networks."
    if drawn := [member.name for member in here if member.weights == "random"]:
        yield (
            f"Random weights, never trained: {', '.join(drawn)} ({len(drawn)} of {len(here)} networks)."
            " No number of this run says what trained ones would give."
        )


def _leak(leak: Leak | None, by_name: Mapping[str, Claim]) -> str:
    if leak is None:
        return (
            "Leak: the data set names no patients, so nothing can be kept together, and the honest protocol cannot be"
            " more honest than the paper's here. Add a group column, or --group-pattern."
        )
    counted = (
        f"Leak: split by image, {leak.in_both} of {leak.patients} patients have images on both sides, and"
        f" {leak.known_images} of {leak.test_images} test images show a patient whom the model was trained on."
    )
    apart, together = by_name["by_image"].accuracy.value, by_name["by_patient"].accuracy.value
    if apart is None or together is None:
        return counted
    return (
        f"{counted} With everything else equal and patients kept together: {together:.3f} instead of {apart:.3f}"
        f" ({apart - together:+.3f} for the split by image; one split each, so the luck of the split is in it)."
    )


def _preprocessing(by_name: Mapping[str, Claim]) -> str:
    return (
        "Preprocessing: the paper divides pixels by 255 for every network; most were trained on other scales, and the"
        " honest protocol gives each its own. It also trains on plain images only, and fuses by"
        f" {by_name['honest'].title.partition(': ')[2].partition(',')[0]}."
    )


def _training(by_image: Fits) -> str:
    """Say how far the paper's head came: its rate is made for many steps."""
    history = by_image.head.history
    if not history or not history["loss"]:
        return ""
    loss, right = history["loss"], history["accuracy"]
    guessing = log(len(by_image.head.matrix["classes"]))
    told = (
        f"Training: in {len(loss)} epochs at a rate of {by_image.head.options['learning_rate']:g} the loss of the"
        f" fusion head went from {loss[0]:.3f} to {loss[-1]:.3f} nats (guessing: {guessing:.3f}), its accuracy in"
        f" training to {right[-1]:.3f}."
    )
    return told if right[-1] > LEARNT else f"{told} The less it knows its own images, the less a leak shows."


def _selection(by_image: Fits, honest: Comparison) -> str:
    tried = {**by_image.heads, **by_image.fusions}
    scores = {name: fit.scores["test"][METRIC].value for name, fit in tried.items()}
    known = {name: value for name, value in scores.items() if value is not None}
    if not known:
        return ""
    best = max(known, key=lambda name: known[name])
    told = (
        f"Selection: {len(known)} models were scored on the same test images; the best, {best}, has"
        f" {known[best]:.3f}. Whoever picks the best on the images that it is scored on reports luck as well"
    )
    if honest.winner is None:
        return f"{told}."
    return (
        f"{told}: in the honest comparison the best AUC of {honest.winner.of} is {honest.winner.naive:.3f}, and"
        f" {honest.winner.guarded:.3f} without the luck of having been picked."
    )


def _size(by_name: Mapping[str, Claim]) -> str:
    small, honest = by_name["by_image"], by_name["honest"]
    units = f" of {honest.patients} patients" if honest.patients is not None else ""
    return (
        f"Size: {small.images} test images of one split against {honest.images} images{units}, each tested once."
        " Two numbers whose intervals overlap are not told apart."
    )


def _shortcuts(audit: Mapping[str, object]) -> str:
    shortcuts = audit.get("shortcuts")
    if not isinstance(shortcuts, dict) or not shortcuts:
        return ""
    guessed = ", ".join(f"{name} {auc:.3f}" for name, auc in shortcuts.items())
    return f"Shortcuts: AUC of guessing the label without looking at anatomy: {guessed}."
