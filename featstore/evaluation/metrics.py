"""Metrics of class probabilities, for many weightings of the images at once, and the positive class.

A bootstrap resample is a vector of weights (how often each image was drawn), so every score here takes a whole
``(resamples, n)`` array of weights and returns one value per resample; weights of one give the plain score.

With a positive class, everything but accuracy, balanced accuracy and log-loss is about that class against the rest.
Without one it is taken for each class against the rest and averaged without weights (macro).
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from featstore import registry
from featstore.errors import UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Origin = Literal["asked", "names", "order", "macro"]

# Ranking: scores that need the order of the images and no threshold

SPECIFICITIES = (0.90, 0.95)
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
    part = OneAgainstRest(truth, values >= CHANCE, values, weights)
    return {name: METRICS[name].function(part) for name in RANKING}


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


# Scores of all classes, and of each class against the rest

CHANCE = 0.5
BINS, IMAGES_PER_BIN = 10, 20
ENOUGH_IMAGES = 100
"""Below so many images a calibration error says more about their number than about the model: none is given."""
CHUNK = 512
"""Resamples scored at once: what they need should stay in a core's cache."""
ALMOST_NEVER = 1e-12
"""Probability below which log-loss takes an image to be: one sure mistake must not make everything infinite."""


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


class Answers:
    """Probabilities and answers about images of any number of classes, under many weightings.

    Attributes
    ----------
    y
        ``(n,)`` true class index.
    predicted
        ``(n,)`` class index that was answered.
    proba
        ``(n, classes)`` probabilities.
    weights
        ``(resamples, n)`` how often each resample has each image.
    loss
        ``(resamples,)`` sum of minus the logarithm of the true class's probability.
    counts, right
        ``(resamples, classes)`` images of each class, and those of them that were answered right.
    """

    def __init__(
        self, y: NDArray[np.intp], predicted: NDArray[np.intp], proba: Vector, weights: Vector
    ) -> None:
        self.y, self.predicted, self.proba, self.weights = y, predicted, proba, weights
        loss = -np.log(np.maximum(proba[np.arange(len(y)), y], ALMOST_NEVER))
        of_class = y[:, None] == np.arange(proba.shape[1])
        right = of_class & (predicted == y)[:, None]
        sums = weights @ np.column_stack([loss, of_class, right])
        self.loss: Vector = sums[:, 0]
        self.counts, self.right = np.split(sums[:, 1:], 2, axis=1)

    @cached_property
    def total(self) -> Vector:
        """Images of each resample."""
        total: Vector = self.counts.sum(axis=1)
        return total


class OneAgainstRest:
    """Probabilities of one class and answers for or against it, under many weightings of the images.

    Attributes
    ----------
    truth, predicted
        ``(n,)`` whether an image is of the class, and whether it was said to be.
    values
        ``(n,)`` probability of the class.
    weights
        ``(resamples, n)`` how often each resample has each image.
    """

    def __init__(
        self, truth: NDArray[np.bool_], predicted: NDArray[np.bool_], values: Vector, weights: Vector
    ) -> None:
        self.truth, self.predicted, self.values, self.weights = truth, predicted, values, weights

    @cached_property
    def cumulative(self) -> tuple[Vector, Vector, Vector]:
        """As `cumulative_counts` has them."""
        return cumulative_counts(self.truth, self.values, self.weights)

    @cached_property
    def sums(self) -> tuple[Vector, Vector, Vector, Vector, Vector, Vector]:
        """Of each resample: tp, positives, fp, negatives, squared distance; the gaps of `binned_gaps`."""
        truth, predicted, values = self.truth, self.predicted, self.values
        counts = [truth & predicted, truth, ~truth & predicted, ~truth, (values - truth) ** 2]
        sums = self.weights @ np.column_stack([*counts, binned_gaps(truth, values)])
        tp, positives, fp, negatives, square = sums[:, : len(counts)].T
        return tp, positives, fp, negatives, square, sums[:, len(counts) :]


def _auc(part: OneAgainstRest) -> Vector:
    return _area(*part.cumulative)


def _average_precision(part: OneAgainstRest) -> Vector:
    gained, tp, fp = part.cumulative
    called = tp + fp
    precision = np.divide(tp, called, out=np.zeros(tp.shape), where=called > 0)
    return ratio((gained * precision).sum(axis=1), tp[:, -1])


def _sensitivity_at(at: float, part: OneAgainstRest) -> Vector:
    _, tp, fp = part.cumulative
    positives, negatives = tp[:, -1], fp[:, -1]
    reached = _last_allowed(tp, fp <= ((1 - at) + SLACK) * negatives[:, None])
    return ratio(reached, positives, negatives)


def _specificity_at(at: float, part: OneAgainstRest) -> Vector:
    _, tp, fp = part.cumulative
    positives, negatives = tp[:, -1], fp[:, -1]
    first = (tp < (at - SLACK) * positives[:, None]).sum(axis=1).clip(max=tp.shape[1] - 1)
    spared = negatives - np.take_along_axis(fp, first[:, None], axis=1)[:, 0]
    return ratio(spared, negatives, positives)


def _sensitivity(part: OneAgainstRest) -> Vector:
    tp, positives, *_ = part.sums
    return ratio(tp, positives)


def _specificity(part: OneAgainstRest) -> Vector:
    _, _, fp, negatives, *_ = part.sums
    return ratio(negatives - fp, negatives)


def _ppv(part: OneAgainstRest) -> Vector:
    tp, positives, fp, negatives, *_ = part.sums
    return ratio(tp, tp + fp, positives * negatives)


def _npv(part: OneAgainstRest) -> Vector:
    tp, positives, fp, negatives, *_ = part.sums
    return ratio(negatives - fp, negatives - fp + positives - tp, positives * negatives)


def _f1(part: OneAgainstRest) -> Vector:
    tp, positives, fp, *_ = part.sums
    return ratio(2 * tp, positives + tp + fp, positives)


def _brier(part: OneAgainstRest) -> Vector:
    _, positives, _, negatives, square, _ = part.sums
    return ratio(square, positives + negatives)


def _ece(part: OneAgainstRest) -> Vector:
    _, positives, _, negatives, _, gaps = part.sums
    return ratio(np.abs(gaps).sum(axis=1), positives + negatives)


def _accuracy(answers: Answers) -> Vector:
    return ratio(answers.right.sum(axis=1), answers.total)


def _balanced_accuracy(answers: Answers) -> Vector:
    mean: Vector = ratio(answers.right, answers.counts).mean(axis=1)
    return mean


def _log_loss(answers: Answers) -> Vector:
    return ratio(answers.loss, answers.total)


# The table of metrics: a new one is a row

GROUPS = {
    "ranking": "Discrimination: does it rank the classes apart?",
    "decision": "Classification: are its answers right?",
    "probability": "Calibration: can its probabilities be trusted? (0 is best)",
}
"""Question that the metrics of each group answer; they stand together in tables."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table: one score of answers, and how it is computed, read and shown.

    Attributes
    ----------
    name
        In files, ``--json`` and figures: small letters, digits and ``_``.
    label
        Heading of a column.
    meaning
        One line for the report.
    group
        ``ranking`` (needs the order of the images alone), ``decision`` or ``probability``: see `GROUPS`.
    function
        Takes an `OneAgainstRest`, for each class in question, and the mean over the classes is the score; or
        `Answers`, with `of_all_classes`. Returns one value per resample ``(resamples,)``, NaN where it is undefined.
    better
        Whether ``higher`` or ``lower`` is better: the order in figures and ranks.
    of_all_classes
        Which of both `function` takes.
    bounded
        Whether it lies within 0 and 1, and so does its interval; else it is not below 0.
    rests_on
        How many patients speak for it, which its interval may not be narrower than: those of `SUPPORTS`. Empty if
        nobody knows: then it has no interval. So must one that can be below 0.
    short
        Heading beside the bars of a terminal; empty keeps it out of there.
    spoken
        Name in the title of a figure; by default `name` with spaces.
    """

    name: str
    label: str
    meaning: str
    group: str
    function: Callable[[Any], Vector]
    better: str = "higher"
    of_all_classes: bool = False
    bounded: bool = True
    rests_on: str = ""
    short: str = ""
    spoken: str = ""

    @property
    def title(self) -> str:
        """Name in a sentence."""
        return self.spoken or self.name.replace("_", " ")


SUPPORTS = (
    "area",
    "ranking",
    "mark",
    "images",
    "classes",
    "positives",
    "negatives",
    "called",
    "cleared",
    "overlap",
    "loss",
)
"""What a score can rest on: `featstore.evaluation.intervals.sample_sizes` counts the patients of each."""
_ROWS = (
    Metric(
        "auc",
        "AUC",
        "chance that a random positive image gets a higher probability than a random other one; 0.5 is guessing",
        "ranking",
        _auc,
        rests_on="area",
        spoken="AUC",
    ),
    Metric(
        "average_precision",
        "avg precision",
        "area under the precision-recall curve, as the mean precision at each positive image",
        "ranking",
        _average_precision,
        rests_on="ranking",
    ),
    *(
        Metric(
            f"sensitivity_at_specificity_{100 * at:.0f}",
            f"sens. at spec. .{100 * at:.0f}",
            f"sensitivity at the threshold whose specificity is at least {100 * at:.0f} %",
            "ranking",
            partial(_sensitivity_at, at),
            rests_on="mark",
        )
        for at in SPECIFICITIES
    ),
    *(
        Metric(
            f"specificity_at_sensitivity_{100 * at:.0f}",
            f"spec. at sens. .{100 * at:.0f}",
            f"specificity at the threshold whose sensitivity is at least {100 * at:.0f} %",
            "ranking",
            partial(_specificity_at, at),
            rests_on="mark",
        )
        for at in SPECIFICITIES
    ),
    Metric(
        "accuracy",
        "accuracy",
        "share classified correctly",
        "decision",
        _accuracy,
        of_all_classes=True,
        rests_on="images",
    ),
    Metric(
        "balanced_accuracy",
        "balanced acc.",
        "mean over the classes of the share classified correctly",
        "decision",
        _balanced_accuracy,
        of_all_classes=True,
        rests_on="classes",
        short="bal. acc.",
    ),
    Metric(
        "sensitivity",
        "sensitivity",
        "true positives among all positives",
        "decision",
        _sensitivity,
        rests_on="positives",
        short="sens.",
    ),
    Metric(
        "specificity",
        "specificity",
        "true negatives among all negatives",
        "decision",
        _specificity,
        rests_on="negatives",
        short="spec.",
    ),
    Metric(
        "ppv",
        "PPV",
        "true positives among all called positive, at the prevalence among those scored",
        "decision",
        _ppv,
        rests_on="called",
        short="PPV",
        spoken="PPV",
    ),
    Metric(
        "npv",
        "NPV",
        "true negatives among all called negative, at the prevalence among those scored",
        "decision",
        _npv,
        rests_on="cleared",
        short="NPV",
        spoken="NPV",
    ),
    Metric(
        "f1",
        "F1",
        "harmonic mean of sensitivity and PPV",
        "decision",
        _f1,
        rests_on="overlap",
        spoken="F1",
    ),
    Metric(
        "brier",
        "Brier",
        "mean squared difference of the probability and the outcome (0 or 1); 0 is best",
        "probability",
        _brier,
        "lower",
        rests_on="loss",
        short="Brier",
        spoken="Brier score",
    ),
    Metric(
        "ece",
        "ECE",
        "expected calibration error: mean difference of predicted probability and observed proportion over bins; 0 is"
        " best, never quite 0 by chance",
        "probability",
        _ece,
        "lower",
        rests_on="loss",
        short="ECE",
        spoken="ECE",
    ),
    Metric(
        "log_loss",
        "log-loss",
        "mean negative log-likelihood of the true class, which punishes sure mistakes most; 0 is best",
        "probability",
        _log_loss,
        "lower",
        of_all_classes=True,
        bounded=False,
        rests_on="loss",
    ),
)
METRICS = {row.name: row for row in _ROWS}
"""The metrics of featstore by name; `metrics` has those of plug-ins too."""
SINCE_THEN = frozenset({"ppv", "npv"})
"""Those of them that runs from before 2026-11-28 lack."""
RANKING = tuple(row.name for row in _ROWS if row.group == "ranking")
BOUNDED = frozenset(row.name for row in _ROWS if row.bounded)
"""Scores that cannot leave 0 to 1, nor may their intervals."""
PRIMARY = "auc"
"""Verdicts are about this one: it needs no threshold and does not change with the prevalence."""


def metrics() -> dict[str, Metric]:
    """The rows in force by name: those of featstore, then those of plug-ins (`featstore.registry`).

    Raises
    ------
    UsageError
        If a plug-in lists what is no row, or a name that there is already.
    """
    return {**METRICS, **_of_others(os.environ.get(registry.PLUGINS, ""))}


def listed(found: Collection[str]) -> dict[str, Metric]:
    """The rows of the metrics in `found`, in the order of the table; what a run of others has beside is left out."""
    return {name: row for name, row in metrics().items() if name in found}


@cache
def _of_others(_places: str) -> dict[str, Metric]:
    offered = [point.load() for _, point in sorted(registry.offered("metrics").items())]
    rows: dict[str, Metric] = {}
    for row in [*offered, *registry.plugins("metrics")]:
        if why := what_is_wrong(row):
            raise UsageError(
                f"METRICS of a plug-in: {why}.",
                "`featstore.testing.check_metric` says what a metric has to be.",
            )
        if row.name in METRICS or row.name in rows:
            raise UsageError(f"There are two metrics {row.name!r}.", "Rename the one of the plug-in.")
        rows[row.name] = row
    return rows


def what_is_wrong(row: object) -> str:
    """Why a row cannot be meant; empty if it can."""
    if not isinstance(row, Metric):
        return f"{str(row)[:100]!r} is no featstore.evaluation.metrics.Metric"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", row.name):
        return f"{row.name[:100]!r} is no name of small letters, digits and _"
    known = {"group": GROUPS, "better": ("higher", "lower"), "rests_on": ("", *SUPPORTS)}
    for column, values in known.items():
        if getattr(row, column) not in values:
            return f"{row.name} has another {column} than {', '.join(filter(None, values))}"
    return "" if callable(row.function) else f"the function of {row.name} cannot be called"


# Scores of the whole table


def score(
    y: NDArray[np.intp],
    proba: Vector,
    weights: Vector,
    positive: int | None = None,
    threshold: float | None = None,
) -> dict[str, Vector]:
    """Every score of `metrics`.

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
    For each name one value per resample, ``(resamples,)``; NaN where a resample lacks a class.
    """
    rows = metrics()
    predicted = decide(proba, positive, threshold)
    starts = range(0, len(weights), CHUNK)
    parts = [_score(rows, y, proba, predicted, weights[at : at + CHUNK], positive) for at in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in rows}


def _score(
    rows: Mapping[str, Metric],
    y: NDArray[np.intp],
    proba: Vector,
    predicted: NDArray[np.intp],
    weights: Vector,
    positive: int | None,
) -> dict[str, Vector]:
    targets = [positive] if positive is not None else range(proba.shape[1])
    per_class = [OneAgainstRest(y == c, predicted == c, proba[:, c], weights) for c in targets]
    answers = Answers(y, predicted, proba, weights)
    return {
        name: row.function(answers)
        if row.of_all_classes
        else np.mean([row.function(part) for part in per_class], axis=0)
        for name, row in rows.items()
    }


# The positive class, where nobody said which one it is

TWO = 2
ABSENT_WORDS = """
normal healthy health negative neg negatives control controls ctrl ctl benign no none non not absent
absence well clean clear false background unaffected uninfected unremarkable 0 00 nil without
gesund gesunde negativ negativer kontrolle kontrollen kein keine keiner ohne unauffällig gutartig nein
falsch
sain saine sains normale normaux négatif témoin témoins bénin bénigne sans aucun aucune
sano sana sanos negativo negativa controles benigno benigna ninguno ninguna sin ausente normali saudável
controllo controlli nessuno nessuna senza nenhum nenhuma sem não
正常 健康 阴性 陰性 对照 對照 良性 无 無 没有 沒有 否 対照 なし 異常なし 정상 음성 대조군 없음
норма здоровый здоровые здоров отрицательный контроль нет здоровий здорові здрав здрава здрави
zdrowy zdrowa zdrowi prawidłowy prawidłowe ujemny bez zdravý zdravá zdraví zdrav negativní
kontrola egészséges sănătos sănătoși υγιής υγιείς φυσιολογικό φυσιολογικός αρνητικό
sağlıklı hayır yok
gezond gezonde normaal negatief niet geen nee frisk friska friske rask raske nej nei ikke
inte ingen terve terveet sehat tidak không khỏe سليم سليمة طبيعي سلبي בריא בריאה שלילי स्वस्थ सामान्य ปกติ ไม่
健常 健常者 未感染 无病 無病 否定 wildtype wt nilm nevus naevus nevi naevi
other others rest norm good ok intact undetected sham placebo vehicle
"""  # noqa: RUF001

PLAIN = str.maketrans("\u0131\u0142\u00f8\u0111", "ilod")
"""Letters that are not taken apart into one and its accent: i without a dot, l, o and d with a stroke."""


def _spelling(text: str) -> str:
    """Small letters, without the accents and strokes that capitals and plain keyboards often lack."""
    apart = unicodedata.normalize("NFKD", text.casefold()).translate(PLAIN)
    return unicodedata.normalize("NFC", "".join(c for c in apart if not "\u0300" <= c <= "\u036f"))


ABSENT = frozenset(_spelling(ABSENT_WORDS).split())
"""Words that name the absence of a finding, alone or as the first word of a name (``no finding``, ``non-covid``)."""
MILD_WORDS = """
control controls benign benigno benigna bénin bénigne gutartig 良性 nevus naevus nevi naevi other others rest
"""
MILD = frozenset(_spelling(MILD_WORDS).split())
"""Beside a word for health these are the other class."""
NEGATING_WORDS = """
not non no un without kein keine keiner nicht ohne sans sin senza sem niet geen ikke inte nie bez ne
не без 未 非 无 無
"""
NEGATING = tuple(_spelling(NEGATING_WORDS).split())
FREE = ("free", "frei", "freie", "vrij")
"""Endings that deny what stands before them (``TB-free``, ``tumorfrei``)."""
STEMS = ("normal", "kontroll", "正常", "健康", "阴性", "陰性", "정상")
"""Beginnings of longer words that say the same (``Normalbefund``, ``Kontrollgruppe``, ``正常肺``)."""
COUNTERPARTS = (
    (
        frozenset(["hc", "cn", "nc", "nl", "td", "ctr"]),
        frozenset(
            ["ad", "mci", "pd", "asd", "ms", "sz", "scz", "adhd", "als", "hd", "mdd", "patient", "patients"]
        ),
    ),
    (
        frozenset(["n", "ne", "nu", "ni", "nie", "nem", "ei"]),
        frozenset(["y", "j", "s", "o", "t", "d", "da", "ja", "tak", "igen", "kylla", "sim"]),
    ),
)
"""Short names that say "healthy" or "no" beside such a name alone: on their own they are too short to say so."""
ENOUGH_LETTERS = 4
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
    mine, theirs = _sign(name), _sign(other)
    if mine and theirs and mine != theirs:
        return mine == "-"
    words, others = _distinct(_words(name), _words(other))
    if len(words) > 1 and len(others) > 1 and words[0].isdigit() and others[0].isdigit():
        without, against = _absent(words[1:], others[1:]), _absent(others[1:], words[1:])
        if without != against:
            return without
    return _absent(words, others)


def _sign(name: str) -> str:
    """``-`` or ``+`` where a name is or ends in one, else nothing."""
    last = name.strip()[-1:]
    return "-" if last in SIGNS else "+" if last == "+" else ""


def _distinct(words: list[str], others: list[str]) -> tuple[list[str], list[str]]:
    """Two names without the words that both begin or end with, and without numbers behind words."""
    for at in (0, -1):
        while len(words) > 1 and len(others) > 1 and words[at] == others[at]:
            words, others = (part[1:] if at == 0 else part[:-1] for part in (words, others))
    bare, theirs = (
        [part[0], *(w for w in part[1:] if not w.isdigit())] if part else [] for part in (words, others)
    )
    return (words, others) if bare == theirs else (bare, theirs)


def _absent(words: list[str], others: list[str]) -> bool:
    whole, theirs = "".join(words), "".join(others)
    if whole in MILD and theirs in ABSENT - MILD:
        return False
    if any(whole in absent and theirs in present for absent, present in COUNTERPARTS):
        return True
    negated = _negated(words, whole, theirs)
    if negated is not None:
        return negated not in ABSENT
    if whole.startswith(STEMS):
        return True
    return whole in ABSENT or any(word in ABSENT for word in (words[:1] + words[-1:]))


def _negated(words: list[str], whole: str, theirs: str) -> str | None:
    """What a name says is not there (``covid`` of ``non-covid``); None where it denies nothing."""
    if len(words) > 1 and words[0] in NEGATING:
        return "".join(words[1:])
    if len(words) > 1 and words[-1] in FREE:
        return "".join(words[:-1])
    cut = [whole.removeprefix(word) for word in NEGATING] + [whole.removesuffix(word) for word in FREE]
    for rest in cut:
        if rest not in {whole, ""} and (
            theirs == rest or (len(rest) >= ENOUGH_LETTERS and theirs.startswith(rest))
        ):
            return rest
    return None


def _words(name: str) -> list[str]:
    """Words as `_spelling` has them and numbers, apart at anything else and between capitals (``NoFinding``)."""
    text = unicodedata.normalize("NFC", name.strip())
    text = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", text)
    return re.findall(r"\d+|(?:[^\W\d_]|[\u0900-\u0dff\u0e00-\u0e7f])+", _spelling(text))
