"""Metrics of class probabilities, for many weightings of the images at once, and the positive class.

A bootstrap resample is a vector of weights (how often each image was drawn), so every score here takes a whole
``(resamples, n)`` array of weights and returns one value per resample; weights of one give the plain score.

With a positive class, everything but accuracy, balanced accuracy and log-loss is about that class against the rest.
Without one it is taken for each class against the rest and averaged without weights (macro).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from featstore.errors import UnknownNameError, did_you_mean
from featstore.results.scores import PRIMARY as PRIMARY_METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Origin = Literal["asked", "names", "order", "macro"]

# Ranking: scores that need the order of the images and no threshold

SPECIFICITIES = (0.90, 0.95)
RANKING = (
    "auc",
    "average_precision",
    *(f"sensitivity_at_specificity_{100 * at:.0f}" for at in SPECIFICITIES),
    *(f"specificity_at_sensitivity_{100 * at:.0f}" for at in SPECIFICITIES),
)
SLACK = 1e-9
"""Rounding of a sum of weights must not push a rate of exactly 95 % under its mark."""


def rank_scores(truth: NDArray[np.bool_], values: Vector, weights: Vector) -> dict[str, Vector]:
    """Every score of `RANKING`, for many weightings of the images at once.

    Parameters
    ----------
    truth
        ``(n,)`` whether an image is positive.
    values
        ``(n,)`` score that should be higher for positives; images with equal scores cross a threshold together.
    weights
        ``(resamples, n)`` non-negative.

    Returns
    -------
    For each name one value per resample, ``(resamples,)``; NaN where positives or negatives are missing. Average
    precision is the step-wise sum of scikit-learn. Sensitivity at a specificity is the highest that a threshold
    reaches whose specificity is not below the mark, without interpolation; and the reverse.
    """
    gained, tp, fp = cumulative_counts(truth, values, weights)
    positives, negatives = tp[:, -1], fp[:, -1]
    called = tp + fp
    precision = np.divide(tp, called, out=np.zeros(tp.shape), where=called > 0)
    scores = {
        "auc": _area(gained, tp, fp),
        "average_precision": ratio((gained * precision).sum(axis=1), positives),
    }
    for at in SPECIFICITIES:
        reached = _last_allowed(tp, fp <= ((1 - at) + SLACK) * negatives[:, None])
        scores[f"sensitivity_at_specificity_{100 * at:.0f}"] = ratio(reached, positives, negatives)
    for at in SPECIFICITIES:
        first = (tp < (at - SLACK) * positives[:, None]).sum(axis=1).clip(max=tp.shape[1] - 1)
        spared = negatives - np.take_along_axis(fp, first[:, None], axis=1)[:, 0]
        scores[f"specificity_at_sensitivity_{100 * at:.0f}"] = ratio(spared, negatives, positives)
    return scores


def auc(truth: NDArray[np.bool_], values: Vector, weights: Vector) -> Vector:
    """Area under the ROC curve (Mann-Whitney; ties count one half); arguments as for `rank_scores`."""
    return _area(*cumulative_counts(truth, values, weights))


def cumulative_counts(
    truth: NDArray[np.bool_], values: Vector, weights: Vector
) -> tuple[Vector, Vector, Vector]:
    """From the highest score down, at each distinct score: positives gained; positives and negatives so far.

    Arguments as for `rank_scores`; three arrays ``(resamples, distinct scores)``.
    """
    order = np.argsort(-values, kind="stable")
    starts = np.flatnonzero(np.diff(-values[order], prepend=-np.inf))
    every = weights[:, order]
    gained = every * truth[order]
    if len(starts) < len(order):
        every, gained = (np.add.reduceat(part, starts, axis=1) for part in (every, gained))
    tp = np.cumsum(gained, axis=1)
    return gained, tp, np.cumsum(every, axis=1) - tp


def ratio(top: Vector, bottom: Vector, also: Vector | float = 1.0) -> Vector:
    """``top / bottom``; NaN where `bottom`, or `also`, is not above zero."""
    defined = (bottom > 0) & (np.asarray(also) > 0)
    quotient: Vector = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=defined)
    return quotient


def _area(gained: Vector, tp: Vector, fp: Vector) -> Vector:
    """Each positive beats the negatives below it, and half of those level with it."""
    negatives = fp[:, -1]
    level = np.diff(fp, axis=1, prepend=0.0)
    beaten = negatives[:, None] - fp + level / 2
    return ratio((gained * beaten).sum(axis=1), tp[:, -1] * negatives)


def _last_allowed(tp: Vector, within: NDArray[np.bool_]) -> Vector:
    count = within.sum(axis=1)
    last = np.take_along_axis(tp, count.clip(min=1)[:, None] - 1, axis=1)[:, 0]
    reached: Vector = np.where(count > 0, last, 0.0)
    return reached


# All scores

DECISION = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1")
PROBABILITY = ("brier", "ece", "log_loss")
METRICS = (*RANKING, *DECISION, *PROBABILITY)
BOUNDED = frozenset(METRICS) - {"log_loss"}
"""Scores that cannot leave 0 to 1, nor may their intervals."""
PRIMARY = PRIMARY_METRIC
"""Verdicts are about this one: it needs no threshold and does not change with the share of ill patients."""

BINS, IMAGES_PER_BIN = 10, 20
ENOUGH_IMAGES = 100
"""Below so many images a calibration error says more about their number than about the model: none is given."""
CHUNK = 512
"""Resamples scored at once: what they need should stay in a core's cache."""
ALMOST_NEVER = 1e-12
"""Probability below which log-loss takes an image to be: one sure mistake must not make everything infinite."""


def score(
    y: NDArray[np.intp],
    proba: Vector,
    weights: Vector,
    positive: int | None = None,
    threshold: float | None = None,
) -> dict[str, Vector]:
    """Every score of `METRICS`.

    Parameters
    ----------
    y
        ``(n,)`` true class index.
    proba
        ``(n, classes)`` probabilities.
    weights
        ``(resamples, n)`` non-negative.
    positive
        Index of the class that sensitivity is about; None for the macro average over all classes.
    threshold
        As for `decide`.

    Returns
    -------
    For each name in `METRICS` one value per resample, ``(resamples,)``; NaN where a resample lacks a class.
    """
    predicted = decide(proba, positive, threshold)
    starts = range(0, len(weights), CHUNK)
    parts = [_score(y, proba, predicted, weights[at : at + CHUNK], positive) for at in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _score(
    y: NDArray[np.intp], proba: Vector, predicted: NDArray[np.intp], weights: Vector, positive: int | None
) -> dict[str, Vector]:
    targets = [positive] if positive is not None else range(proba.shape[1])
    per_class = [_one_against_rest(y == c, predicted == c, proba[:, c], weights) for c in targets]
    scores = {name: np.mean([part[name] for part in per_class], axis=0) for name in per_class[0]}
    return scores | _over_all_classes(y, predicted, proba, weights)


def primary_score(y: NDArray[np.intp], proba: Vector, weights: Vector, positive: int | None = None) -> Vector:
    """Return `PRIMARY` alone, as `score` gives it."""
    targets = [positive] if positive is not None else range(proba.shape[1])
    mean: Vector = np.mean([auc(y == c, proba[:, c], weights) for c in targets], axis=0)
    return mean


def calibration_error(
    y: NDArray[np.intp], proba: Vector, weights: Vector, positive: int | None = None
) -> Vector:
    """Return the ECE alone, as `score` gives it; NaN of fewer than `ENOUGH_IMAGES`."""
    if len(y) < ENOUGH_IMAGES:
        return np.full(len(weights), np.nan)
    total = weights.sum(axis=1)
    targets = [positive] if positive is not None else range(proba.shape[1])
    errors = [np.abs(weights @ binned_gaps(y == c, proba[:, c])).sum(axis=1) for c in targets]
    return ratio(np.mean(errors, axis=0), total)


def binned_gaps(truth: NDArray[np.bool_], values: Vector) -> Vector:
    """Probability minus truth of each image, in the column of its bin ``(n, bins)``."""
    bins = equal_mass_bins(values)
    gaps: Vector = (values - truth)[:, None] * (bins[:, None] == np.arange(bins.max() + 1))
    return gaps


def decide(proba: Vector, positive: int | None = None, threshold: float | None = None) -> NDArray[np.intp]:
    """Class index ``(n,)`` of each image: the most probable one.

    With a `threshold`, the positive class wherever its probability is not below it, else the most probable other.
    """
    if threshold is None or positive is None:
        likeliest: NDArray[np.intp] = proba.argmax(axis=1)
        return likeliest
    others = proba.copy()
    others[:, positive] = -1.0
    answers: NDArray[np.intp] = np.where(proba[:, positive] >= threshold, positive, others.argmax(axis=1))
    return answers


def equal_mass_bins(values: Vector) -> NDArray[np.intp]:
    """Bin number ``(n,)`` of each probability: at most ten equal-mass bins (quantiles) of 20 images or more.

    The bins are those of the sample and stay the same in every resample. Images with one probability share a bin.
    """
    count = min(BINS, max(1, len(values) // IMAGES_PER_BIN))
    edges = np.percentile(values, np.linspace(0, 100, count + 1)[1:-1])
    return np.searchsorted(edges, values)


def _over_all_classes(
    y: NDArray[np.intp], predicted: NDArray[np.intp], proba: Vector, weights: Vector
) -> dict[str, Vector]:
    loss = -np.log(np.maximum(proba[np.arange(len(y)), y], ALMOST_NEVER))
    of_class = y[:, None] == np.arange(proba.shape[1])
    right = of_class & (predicted == y)[:, None]
    sums = weights @ np.column_stack([loss, of_class, right])
    counts, tp = np.split(sums[:, 1:], 2, axis=1)
    total = counts.sum(axis=1)
    return {
        "accuracy": ratio(tp.sum(axis=1), total),
        "balanced_accuracy": ratio(tp, counts).mean(axis=1),
        "log_loss": ratio(sums[:, 0], total),
    }


def _one_against_rest(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], values: Vector, weights: Vector
) -> dict[str, Vector]:
    counts = [truth & predicted, truth, ~truth & predicted, ~truth, (values - truth) ** 2]
    sums = weights @ np.column_stack([*counts, binned_gaps(truth, values)])
    hit, ill, alarm, well, square = sums[:, : len(counts)].T
    total = ill + well
    return {
        **rank_scores(truth, values, weights),
        "sensitivity": ratio(hit, ill),
        "specificity": ratio(well - alarm, well),
        "f1": ratio(2 * hit, ill + hit + alarm, ill),
        "brier": ratio(square, total),
        "ece": ratio(np.abs(sums[:, len(counts) :]).sum(axis=1), total),
    }


# The positive class, where nobody said which one it is

TWO = 2
ABSENT_WORDS = """
normal healthy health negative neg negatives control controls ctrl ctl benign no none non not absent
absence well clean clear false background unaffected uninfected unremarkable 0 00 nil without
gesund gesunde negativ negativer kontrolle kontrollen kein keine keiner ohne unauffällig gutartig nein
falsch
sain saine sains normale normaux négatif négative témoin témoins bénin bénigne sans aucun aucune
sano sana sanos negativo negativa controles benigno benigna ninguno ninguna sin ausente normali saudável
controllo controlli nessuno nessuna senza nenhum nenhuma sem não
正常 健康 阴性 陰性 对照 對照 良性 无 無 没有 沒有 否 対照 なし 異常なし 정상 음성 대조군 없음
норма здоровый здоровые здоров отрицательный контроль нет
"""
ABSENT = frozenset(ABSENT_WORDS.split())
"""Words that name the absence of a finding, alone or as the first word of a name (``no finding``, ``non-covid``)."""
MILD = frozenset(
    ["control", "controls", "benign", "benigno", "benigna", "bénin", "bénigne", "gutartig", "良性"]
)
"""Beside a word for health these are the other class."""
NEGATING = (
    "not",
    "non",
    "no",
    "un",
    "without",
    "kein",
    "keine",
    "keiner",
    "nicht",
    "ohne",
    "sans",
    "sin",
    "senza",
    "sem",
)
SIGNS = frozenset({"-", "\N{MINUS SIGN}", "\N{EN DASH}"})


@dataclass(frozen=True, slots=True)
class Positive:
    """The positive class, and who chose it.

    Attributes
    ----------
    index
        Of the class; None for averages over all classes.
    origin
        ``asked`` by the user, the only one of two ``names`` that does not say "normal", the last in sorted ``order``
        where the names say nothing, or ``macro``: there is none.
    """

    index: int | None
    origin: Origin

    @property
    def guessed(self) -> bool:
        """Whether featstore chose."""
        return self.origin in {"names", "order"}


def positive_class(classes: Sequence[str], asked: str | None = None) -> Positive:
    """Choose the positive class.

    The one asked for; else of two classes the one that is not called normal, healthy, negative, control, 0 or the
    like in some language; else, where names do not say it, the last in sorted order. More than two have none.

    Raises
    ------
    UnknownNameError
        If there is no such class.
    """
    if asked is not None:
        if asked not in classes:
            raise UnknownNameError(f"There is no class {asked!r}.", did_you_mean(asked, classes))
        return Positive(list(classes).index(asked), "asked")
    if len(classes) != TWO:
        return Positive(None, "macro")
    first, second = (says_absent(name, other) for name, other in (classes, classes[::-1]))
    if first != second:
        return Positive(1 if first else 0, "names")
    return Positive(1, "order")


def says_absent(name: str, other: str = "") -> bool:
    """Whether the name of a class says that nothing was found, or that the `other` class was not."""
    words, others = _words(name), _words(other)
    while len(words) > 1 and len(others) > 1 and words[0] == others[0]:
        words, others = words[1:], others[1:]
    whole, theirs = "".join(words), "".join(others)
    if whole in MILD and theirs in ABSENT - MILD:
        return False
    negated = _negated(words, whole, theirs)
    if negated is not None:
        return negated not in ABSENT
    if name.strip() in SIGNS:
        return True
    return whole in ABSENT or any(word in ABSENT for word in (words[:1] + words[-1:]))


def _negated(words: list[str], whole: str, theirs: str) -> str | None:
    """What a name says is not there (``covid`` of ``non-covid``); None where it denies nothing."""
    if len(words) > 1 and words[0] in NEGATING:
        return "".join(words[1:])
    for word in NEGATING:
        rest = whole.removeprefix(word)
        if theirs and rest != whole and rest and theirs.startswith(rest):
            return rest
    return None


def _words(name: str) -> list[str]:
    """Words in lower case, apart at anything that is no letter or digit and between capitals (``NoFinding``)."""
    text = unicodedata.normalize("NFC", name.strip())
    text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", text)
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]
