"""Scores with their intervals, over folds and held out; the winner's, corrected; lines of ``predictions.csv``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation import metrics
from featstore.evaluation.calibration import INNER_FOLDS, NEUTRAL, OperatingPoint, fit_operating_point
from featstore.evaluation.intervals import (
    Z,
    group_weights,
    minimal_interval,
    overlap_factor,
    percentile_interval,
    ranking_sample_sizes,
    sample_sizes,
    score_interval,
    weight_blocks,
)
from featstore.processes import PhaseProgress
from featstore.results.comparison import NestedSelection, SelectionBias
from featstore.results.scores import MetricEstimate, Score, VarianceComponents
from featstore.splits import inner_folds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.calibration import OperatingPointRequest
    from featstore.evaluation.intervals import SampleSize
    from featstore.evaluation.patients import Patients
    from featstore.images.manifest import Manifest
    from featstore.matrix import FeatureMatrix
    from featstore.results.comparison import Candidate
    from featstore.splits import LabelledImages, Split
    from featstore.types import ImageRecord

    Vector = NDArray[np.float64]


# Candidates over folds


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationDesign:
    """What everyone is tested on.

    Attributes
    ----------
    y
        ``(n,)`` true class index.
    groups
        ``(n,)`` patient of each image.
    splits
        Folds of the first repeat, then of the second, and so on.
    repeats
        How many times all images are tested.
    positive
        Class that sensitivity is about; None for macro averages.
    sites
        The site that each fold leaves out, where folds are sites; a score is then the mean over the sites where it is
        defined.
    factor
        Overlap factor where it is not that of the folds.
    """

    y: NDArray[np.intp]
    groups: NDArray[np.str_]
    splits: Sequence[Split]
    repeats: int = 1
    positive: int | None = None
    sites: tuple[str, ...] = ()
    factor: float | None = None

    @property
    def overlap_factor(self) -> float:
        """How much wider intervals are for the overlap of the training sets."""
        return overlap_factor(self.splits) if self.factor is None else self.factor

    @property
    def ranked_folds(self) -> list[int]:
        """Folds whose test images can be ranked: all, unless they are sites, of which some may lack a class."""
        every = np.unique(self.y)
        return [
            at
            for at, (_, test) in enumerate(self.splits)
            if not self.sites
            or len(np.unique(self.y[test] == self.positive if self.positive is not None else self.y[test]))
            == (2 if self.positive is not None else len(every))
        ]

    @property
    def first_repeat(self) -> range:
        """Folds that test every image once."""
        return range(len(self.splits) // self.repeats)


@dataclass(frozen=True, slots=True, eq=False)
class CandidateScores:
    """A candidate with its out-of-fold probabilities, its decisions and its scores.

    Attributes
    ----------
    proba, decisions
        For each fold, probabilities ``(test images, classes)`` and class index ``(test images,)``.
    estimates
        By metric.
    variance_components
        Of the primary metric.
    resampled
        ``(resamples,)`` primary metric in each resample, mean over folds, not widened.
    minimal_interval
        The narrowest interval of the primary metric that so many patients allow; None if they are too few.
    sample_size
        What the primary metric rests on.
    """

    candidate: Candidate
    proba: tuple[Vector, ...]
    decisions: tuple[NDArray[np.intp], ...]
    estimates: Mapping[str, MetricEstimate]
    variance_components: VarianceComponents
    resampled: Vector
    minimal_interval: tuple[float, float] | None = None
    sample_size: SampleSize | None = None

    @property
    def primary(self) -> float:
        """Mean of the primary metric over the folds."""
        return self.estimates[metrics.PRIMARY].mean or 0.0


def score_candidates(
    design: EvaluationDesign,
    candidates: Sequence[Candidate],
    proba: Sequence[Sequence[Vector]],
    weights: Vector,
    thresholds: Sequence[Sequence[float | None]] | None = None,
    reseeded: Mapping[Candidate, Sequence[Sequence[Vector]]] | None = None,
    bars: PhaseProgress = PhaseProgress(),  # noqa: B008  # frozen
) -> list[CandidateScores]:
    """Score every candidate.

    Parameters
    ----------
    design
        What they were tested on.
    candidates
        In the order of `proba`.
    proba
        For each candidate and split, probabilities ``(test images, classes)``.
    weights
        ``(resamples, n)`` of `featstore.evaluation.intervals.group_weights`, shared by all.
    thresholds
        For each candidate and split, the probability from which an image is called positive; None for the most
        probable class.
    reseeded
        By candidate, for each training seed, the uncalibrated probabilities on the folds of the first repeat.
    bars
        Told of every fold that is scored.
    """
    cuts = thresholds or [[None] * len(design.splits)] * len(candidates)
    scores: list[list[dict[str, Vector]]] = [[] for _ in candidates]
    with bars.counter("score", "fold", len(design.splits)) as step:
        for at, (_, test) in enumerate(design.splits):
            # The plain score comes first and the resamples after it, so that one pass over the images gives both.
            drawn = np.vstack([np.ones((1, len(test))), weights[:, test]])
            for mine, values, cut in zip(scores, proba, cuts, strict=True):
                mine.append(metrics.score(design.y[test], values[at], drawn, design.positive, cut[at]))
            step()
    return [
        _score_candidate(design, candidate, values, cut, mine, weights, (reseeded or {}).get(candidate, ()))
        for candidate, values, cut, mine in zip(candidates, proba, cuts, scores, strict=True)
    ]


def score_primary(
    design: EvaluationDesign,
    candidates: Sequence[Candidate],
    proba: Sequence[Sequence[Vector]],
    weights: Vector,
) -> list[CandidateScores]:
    """As `score_candidates`, by the primary metric alone and without its variance components."""
    found = []
    for candidate, values in zip(candidates, proba, strict=True):
        tests = [test for _, test in design.splits]
        scores = [
            metrics.primary_score(
                design.y[test], p, np.vstack([np.ones((1, len(test))), weights[:, test]]), design.positive
            )
            for test, p in zip(tests, values, strict=True)
        ]
        decisions = tuple(metrics.decide(p, design.positive) for p in values)
        size = _sample_sizes(design, values, decisions)[metrics.PRIMARY]
        resampled = fold_mean([part[1:] for part in scores])
        seen = np.array([part[0] for part in scores])
        estimate = _metric_estimate(metrics.PRIMARY, seen, resampled, size, design)
        spread = VarianceComponents(patients=None, folds=None, training=None)
        found.append(
            CandidateScores(
                candidate,
                tuple(values),
                decisions,
                {metrics.PRIMARY: estimate},
                spread,
                resampled,
                sample_size=size,
            )
        )
    return found


def fold_mean(values: Sequence[Vector]) -> Vector:
    """Mean over folds, leaving out the folds in which a resample lacks a class; NaN where all do."""
    stacked = np.array(values)
    defined = np.isfinite(stacked)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    mean: Vector = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def primary_mean(
    design: EvaluationDesign, proba: Sequence[Vector], weights: Vector, folds: Sequence[int]
) -> Vector:
    """Primary metric, mean over `folds`, for each row of ``weights (resamples, n)``."""
    tests = [design.splits[at][1] for at in folds]
    return fold_mean(
        [
            metrics.primary_score(design.y[test], p, weights[:, test], design.positive)
            for test, p in zip(tests, proba, strict=True)
        ]
    )


def _score_candidate(
    design: EvaluationDesign,
    candidate: Candidate,
    proba: Sequence[Vector],
    cuts: Sequence[float | None],
    scores: Sequence[dict[str, Vector]],
    weights: Vector,
    reseeded: Sequence[Sequence[Vector]],
) -> CandidateScores:
    decisions = tuple(metrics.decide(p, design.positive, cut) for p, cut in zip(proba, cuts, strict=True))
    known = _sample_sizes(design, proba, decisions)
    estimates, resampled = {}, {}
    for name in metrics.metrics():
        resampled[name] = fold_mean([part[name][1:] for part in scores])
        folds = np.array([part[name][0] for part in scores])
        estimates[name] = _metric_estimate(name, folds, resampled[name], known[name], design)
    estimates["ece"] = _pooled_error(design, proba, weights, known["ece"])
    seen = np.array([part[metrics.PRIMARY][0] for part in scores])
    least = None
    ranked = seen[design.ranked_folds]
    if len(ranked) and np.isfinite(ranked).all():
        least = minimal_interval(float(ranked.mean()), resampled[metrics.PRIMARY], known[metrics.PRIMARY])
    spread = _variance_components(design, seen, resampled[metrics.PRIMARY], least, reseeded)
    return CandidateScores(
        candidate,
        tuple(proba),
        decisions,
        estimates,
        spread,
        resampled[metrics.PRIMARY],
        least,
        known[metrics.PRIMARY],
    )


def _sample_sizes(
    design: EvaluationDesign, proba: Sequence[Vector], decisions: Sequence[NDArray[np.intp]]
) -> dict[str, SampleSize | None]:
    """What the scores rest on: every image once, ranked within its fold."""
    found = _sizes_of_folds(design, design.first_repeat, proba, decisions)
    ranked = design.ranked_folds
    if len(ranked) == len(design.splits):
        return found
    if not ranked:
        return found | dict.fromkeys(metrics.RANKING)
    of_ranked = _sizes_of_folds(design, ranked, proba, decisions)
    return found | {name: of_ranked[name] for name in metrics.RANKING}


def _sizes_of_folds(
    design: EvaluationDesign,
    folds: Sequence[int],
    proba: Sequence[Vector],
    decisions: Sequence[NDArray[np.intp]],
) -> dict[str, SampleSize | None]:
    tests = [design.splits[at][1] for at in folds]
    rows = np.concatenate(tests)
    ends = np.cumsum([len(test) for test in tests])
    return sample_sizes(
        design.y[rows],
        np.concatenate([proba[at] for at in folds]),
        np.concatenate([decisions[at] for at in folds]),
        design.groups[rows],
        design.positive,
        np.split(np.arange(len(rows)), ends[:-1]),
    )


def _metric_estimate(
    name: str, folds: Vector, resampled: Vector, sample_size: SampleSize | None, design: EvaluationDesign
) -> MetricEstimate:
    each = tuple(float(value) if np.isfinite(value) else None for value in folds)
    defined = folds[np.isfinite(folds)] if design.sites else folds
    if not len(defined) or not np.isfinite(defined).all():
        return MetricEstimate(mean=None, deviation=None, interval=None, folds=each)
    mean = float(defined.mean())
    return MetricEstimate(
        mean=mean,
        deviation=_deviation(defined),
        interval=score_interval(name, mean, resampled, sample_size, design.overlap_factor),
        folds=each,
    )


def _pooled_error(
    design: EvaluationDesign, proba: Sequence[Vector], weights: Vector, sample_size: SampleSize | None
) -> MetricEstimate:
    """Calibration error of all images together: a fold alone has too few for bins."""
    folds = design.first_repeat
    rows = np.concatenate([design.splits[at][1] for at in folds])
    order = np.argsort(rows, kind="stable")
    tested, values = rows[order], np.concatenate([proba[at] for at in folds])[order]
    # All images as a rule, which spares a copy of the weights.
    drawn = weights if np.array_equal(tested, np.arange(len(design.y))) else weights[:, tested]
    y = design.y[tested]
    seen, errors = (
        metrics.calibration_error(y, values, each, design.positive) for each in (np.ones((1, len(y))), drawn)
    )
    none = (None,) * len(design.splits)
    if not np.isfinite(seen[0]):
        return MetricEstimate(mean=None, deviation=None, interval=None, folds=none)
    value = float(seen[0])
    return MetricEstimate(
        mean=value,
        deviation=None,
        interval=score_interval("ece", value, errors, sample_size, design.overlap_factor),
        folds=none,
    )


def _variance_components(
    design: EvaluationDesign,
    folds: Vector,
    resampled: Vector,
    least: tuple[float, float] | None,
    reseeded: Sequence[Sequence[Vector]],
) -> VarianceComponents:
    means = (folds[np.isfinite(folds)] if design.sites else folds).reshape(design.repeats, -1).mean(axis=1)
    plain = np.ones((1, len(design.y)))
    seeds = [primary_mean(design, p, plain, design.first_repeat)[0] for p in reseeded]
    patients = None
    if least is not None:
        finite = resampled[np.isfinite(resampled)]
        drawn = design.overlap_factor * float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
        # No number between 0 and 1 can deviate by more than one half.
        patients = min(0.5, max(drawn, (least[1] - least[0]) / (2 * Z)))
    return VarianceComponents(
        patients=patients, folds=_deviation(means), training=_deviation(np.array(seeds))
    )


def _deviation(values: Vector) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


# Selection bias: the best of many candidates looks better than it is, since it was picked on the test images.
#
# Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou & Borboudakis, Machine Learning 107, 2018): in
# each resample of the patients the winner is picked anew, on the patients drawn, and scored on those that were not
# drawn. It needs nothing but the out-of-fold probabilities that are there already.


def correct_selection_bias(
    design: EvaluationDesign,
    scored_candidates: Sequence[CandidateScores],
    weights: Vector,
    selected: Sequence[int] = (),
) -> SelectionBias | None:
    """Pick the winner in each resample, and score it on the patients left out.

    Parameters
    ----------
    design, scored_candidates
        As of `featstore.evaluation.estimates.score_candidates`.
    weights
        ``(resamples, n)``, those that the candidates were scored with.
    selected
        Of `selected`: who is best inside each split, if anyone asked.

    Returns
    -------
    None where there is nothing to pick from.
    """
    if len(scored_candidates) < 2:  # noqa: PLR2004
        return None
    best = max(range(len(scored_candidates)), key=lambda at: scored_candidates[at].primary)
    drawn = np.array([s.resampled for s in scored_candidates])
    winners = np.where(np.isfinite(drawn), drawn, -1.0).argmax(axis=0)
    scores = np.full(len(winners), np.nan)
    for at in np.unique(winners):
        mine = winners == at
        folds = range(len(design.splits))
        left_out = (weights[mine] == 0).astype(np.float64)
        scores[mine] = primary_mean(design, scored_candidates[at].proba, left_out, folds)
    if not np.isfinite(scores).any():
        return None
    apparent = scored_candidates[best].primary
    corrected = min(apparent, float(np.nanmean(scores)))
    return SelectionBias(
        name=scored_candidates[best].candidate.label,
        of=len(scored_candidates),
        metric=metrics.PRIMARY,
        apparent=apparent,
        corrected=corrected,
        interval=_corrected_interval(scores, corrected, scored_candidates[best]),
        optimism=apparent - corrected,
        selection_frequency=float((winners == best).mean()),
        nested=_nested(design, scored_candidates, weights, selected) if len(selected) else None,
    )


def _corrected_interval(
    scores: Vector, corrected: float, best: CandidateScores
) -> tuple[float, float] | None:
    """Interval of scores on patients left out, laid around the corrected value where that was lowered.

    Some 37 % of the patients are left out, so these scores spread wider than those of all patients would: the
    interval is wide enough for the overlap of the training sets without being widened again (decision 005). Where
    all of them are perfect it is what so many patients allow.
    """
    least = minimal_interval(corrected, best.resampled, best.sample_size)
    drawn = percentile_interval((scores - np.nanmean(scores) + corrected).clip(0.0, 1.0))
    if least is None or drawn is None:
        return None
    return min(least[0], drawn[0]), max(least[1], drawn[1])


def _nested(
    design: EvaluationDesign,
    scored_candidates: Sequence[CandidateScores],
    weights: Vector,
    selected: Sequence[int],
) -> NestedSelection:
    answers = [scored_candidates[chosen].proba[at] for at, chosen in enumerate(selected)]
    drawn = np.vstack([np.ones((1, weights.shape[1])), weights])
    scores = primary_mean(design, answers, drawn, range(len(design.splits)))
    mean = float(scores[0])
    interval = score_interval(
        metrics.PRIMARY, mean, scores[1:], scored_candidates[selected[0]].sample_size, design.overlap_factor
    )
    return NestedSelection(
        mean=mean,
        interval=interval,
        selected=tuple(scored_candidates[chosen].candidate.label for chosen in selected),
    )


# Choices inside each fold, from folds within its training images: operating points, and a winner


def with_inner_folds(matrix: FeatureMatrix, splits: Sequence[Split], seed: int) -> list[Split]:
    """Return all splits to be fitted where something is chosen inside: the splits, then those within each."""
    rounds = list(splits)
    for train, _ in splits:
        rounds += inner_folds(
            matrix, train, INNER_FOLDS, seed, needed_by="--calibrate, --sensitivity and --nested"
        )
    return rounds


def operating_points(
    y: NDArray[np.intp],
    splits: Sequence[Split],
    rounds: Sequence[Split],
    proba: Sequence[Vector],
    request: OperatingPointRequest,
    groups: NDArray[np.str_] | None = None,
) -> list[OperatingPoint]:
    """Operating point of one candidate for each split.

    Parameters
    ----------
    y
        ``(n,)`` true class index of all images.
    splits, rounds
        As `with_inner_folds` took and gave them.
    proba
        Probabilities of the test images of each round.
    request
        What to choose.
    groups
        ``(n,)`` patient of each image; None takes every image for a patient of its own.
    """
    if request.is_none:
        return [NEUTRAL] * len(splits)
    points = []
    for inner in _inner_positions(splits, rounds):
        rows = np.concatenate([rounds[at][1] for at in inner])
        patients = None if groups is None else groups[rows]
        points.append(
            fit_operating_point(y[rows], np.concatenate([proba[at] for at in inner]), request, patients)
        )
    return points


def select_in_inner_folds(
    design: EvaluationDesign, rounds: Sequence[Split], proba: Sequence[Sequence[Vector]]
) -> list[int]:
    """Which candidate has the highest primary metric within the training images of each split.

    Parameters
    ----------
    design, rounds
        As `with_inner_folds` took its splits and gave the rounds.
    proba
        By candidate, probabilities of the test images of each round.

    Returns
    -------
    A position for each split; the earlier candidate where two are level. Empty where no inner fold was fitted.
    """
    if len(rounds) == len(design.splits):
        return []
    return [
        int(np.argmax([_mean_score(design, [(rounds[at][1], mine[at]) for at in inner]) for mine in proba]))
        for inner in _inner_positions(design.splits, rounds)
    ]


def _mean_score(design: EvaluationDesign, answers: Sequence[tuple[NDArray[np.intp], Vector]]) -> float:
    """Mean over inner folds; those whose test images lack a class do not count."""
    scores = np.array(
        [
            metrics.primary_score(design.y[test], p, np.ones((1, len(test))), design.positive)[0]
            for test, p in answers
        ]
    )
    defined = scores[np.isfinite(scores)]
    return float(defined.mean()) if len(defined) else -np.inf


def _inner_positions(splits: Sequence[Split], rounds: Sequence[Split]) -> list[range]:
    """Positions of the inner rounds of each split: as many as test each of its training images once."""
    found, at = [], len(splits)
    for train, _ in splits:
        start, tested = at, 0
        while tested < len(train):
            tested += len(rounds[at][1])
            at += 1
        found.append(range(start, at))
    return found


# One model on held-out images


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredUnits:
    """Images or patients that were answered, as a table that is scored.

    Attributes
    ----------
    classes
        Names of the classes.
    y
        ``(units,)`` true class index.
    groups
        ``(units,)`` what is resampled as a whole.
    records
        None are needed to score.
    """

    classes: tuple[str, ...]
    y: NDArray[np.intp]
    groups: NDArray[np.str_]
    records: tuple[ImageRecord, ...] = ()


def held_out_scores(
    matrix: LabelledImages,
    rows: NDArray[np.intp],
    proba: NDArray[np.float64],
    positive: int | None,
    threshold: float | None = None,
) -> dict[str, Score]:
    """Every metric with its interval over resamples of the held-out groups; no ECE of too few images."""
    y, groups = matrix.y[rows], matrix.groups[rows]
    weights = np.vstack([np.ones((1, len(rows))), group_weights(groups)])
    scores = metrics.score(y, proba, weights, positive, threshold)
    if len(rows) < metrics.ENOUGH_IMAGES:
        scores["ece"] = np.full(len(weights), np.nan)
    known = sample_sizes(y, proba, metrics.decide(proba, positive, threshold), groups, positive)
    return {name: _score(name, values[0], values[1:], known[name]) for name, values in scores.items()}


def held_out_primary(
    matrix: LabelledImages,
    rows: NDArray[np.intp],
    answers: Mapping[str, NDArray[np.float64]],
    positive: int | None,
) -> dict[str, Score]:
    """`PRIMARY` of each one's answers, as `held_out_scores` gives it, without holding all resamples at once."""
    y, groups = matrix.y[rows], matrix.groups[rows]
    resampled: dict[str, list[NDArray[np.float64]]] = {name: [] for name in answers}
    for weights in weight_blocks(groups):
        for name, proba in answers.items():
            resampled[name].append(metrics.primary_score(y, proba, weights, positive))
    scores = {}
    for name, proba in answers.items():
        targets = [positive] if positive is not None else range(proba.shape[1])
        sample_size = ranking_sample_sizes([(y == c, proba[:, c]) for c in targets], groups)[metrics.PRIMARY]
        value = float(metrics.primary_score(y, proba, np.ones((1, len(rows))), positive)[0])
        scores[name] = _score(metrics.PRIMARY, value, np.concatenate(resampled[name]), sample_size)
    return scores


def _score(name: str, value: float, resampled: NDArray[np.float64], sample_size: SampleSize | None) -> Score:
    if not np.isfinite(value):
        return Score(value=None, interval=None)
    return Score(value=float(value), interval=score_interval(name, float(value), resampled, sample_size))


# Lines of ``predictions.csv``: answers about images that a model had not seen

IMAGE = ("image_id", "path", "frame", "group", "label")
PATIENT = ("group", "images", "label")


def out_of_fold(
    matrix: FeatureMatrix,
    scored_candidates: Sequence[CandidateScores],
    splits: Sequence[Split],
    data: str | Path | Manifest,
) -> Iterator[list[Any]]:
    """A line per candidate, fold and image, the header first."""
    yield ["contestant", "fold", *IMAGE, "predicted", *(f"p({name})" for name in matrix.classes)]
    for s in scored_candidates:
        for fold, ((_, test), proba, answers) in enumerate(zip(splits, s.proba, s.decisions, strict=True)):
            for line in _lines(matrix, test, proba, answers, data):
                yield [s.candidate.label, fold, *line]


def patients_out_of_fold(
    patients: Patients, scored_candidates: Sequence[CandidateScores], splits: Sequence[Split]
) -> Iterator[list[Any]]:
    """A line per candidate, fold and patient, the header first; splits are over images."""
    yield ["contestant", "fold", *PATIENT, "predicted", *(f"p({name})" for name in patients.classes)]
    for s in scored_candidates:
        for fold, ((_, test), proba, answers) in enumerate(zip(splits, s.proba, s.decisions, strict=True)):
            for line in _patient_lines(patients, test, proba, answers):
                yield [s.candidate.label, fold, *line]


def patients_held_out(
    patients: Patients,
    splits: Mapping[str, NDArray[np.intp]],
    proba: Mapping[str, NDArray[np.float64]],
    decisions: Mapping[str, NDArray[np.intp]],
) -> Iterator[list[Any]]:
    """A line per evaluated split and patient, the header first; rows of splits are those of images."""
    yield ["split", *PATIENT, "predicted", *(f"p({name})" for name in patients.classes)]
    for name, values in proba.items():
        for line in _patient_lines(patients, splits[name], values, decisions[name]):
            yield [name, *line]


def _patient_lines(
    patients: Patients,
    tested: NDArray[np.intp],
    proba: NDArray[np.float64],
    answers: NDArray[np.intp],
) -> Iterator[list[Any]]:
    """How many of the tested images are whose, and what the patient was answered."""
    images = np.bincount(patients.number[tested])
    for row, p, answer in zip(patients.rows(tested), proba, answers, strict=True):
        who = [str(patients.groups[row]), int(images[row]), patients.classes[patients.y[row]]]
        yield [*who, patients.classes[answer], *map(float, p)]


def held_out(
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
    proba: Mapping[str, NDArray[np.float64]],
    decisions: Mapping[str, NDArray[np.intp]],
    votes: Mapping[str, NDArray[np.intp]],
    data: str | Path | Manifest,
) -> Iterator[list[Any]]:
    """A line per evaluated split and image, the header first.

    The last columns are the class that each backbone alone would have answered, by split ``(images, backbones)``;
    a strategy whose backbones do not vote has none.
    """
    voters = matrix.backbones if votes else ()
    columns = [*(f"p({name})" for name in matrix.classes), *(f"vote({name})" for name in voters)]
    yield ["split", *IMAGE, "predicted", *columns]
    for name, values in proba.items():
        ballots = votes.get(name, np.empty((len(values), 0), np.intp))
        lines = _lines(matrix, splits[name], values, decisions[name], data)
        for line, ballot in zip(lines, ballots, strict=True):
            yield [name, *line, *(matrix.classes[vote] for vote in ballot)]


def _lines(
    matrix: FeatureMatrix,
    rows: NDArray[np.intp],
    proba: NDArray[np.float64],
    answers: NDArray[np.intp],
    data: str | Path | Manifest,
) -> Iterator[list[Any]]:
    """Which image, its path relative to the data set, its patient as scored, the class answered, the probabilities.

    Patients who share a picture were merged: all files of a run call them by the same name.
    """
    root = _root(data)
    for row, p, answer in zip(rows, proba, answers, strict=True):
        record = matrix.records[row]
        path = record.path.relative_to(root) if record.path.is_relative_to(root) else record.path
        image = [record.id, str(path), record.frame, str(matrix.groups[row]), record.label]
        yield [*image, matrix.classes[answer], *map(float, p)]


def _root(data: str | Path | Manifest) -> Path:
    """Folder that the paths of a data set are relative to."""
    if not isinstance(data, str | Path):
        return data.root
    return Path(data) if Path(data).is_dir() else Path(data).parent
