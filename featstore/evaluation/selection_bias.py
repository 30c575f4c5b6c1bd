"""Selection bias: the best of many candidates looks better than it is, since it was picked on the test images.

Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou & Borboudakis, Machine Learning 107, 2018): in each
resample of the patients the winner is picked anew, on the patients drawn, and scored on those that were not drawn. It
needs nothing but the out-of-fold probabilities that are there already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.calibration import INNER_FOLDS, NEUTRAL, OperatingPoint, fit_operating_point
from featstore.evaluation.estimates import CandidateScores, EvaluationDesign, primary_mean
from featstore.evaluation.intervals import minimal_interval, percentile_interval, score_interval
from featstore.evaluation.metrics import PRIMARY, primary_score
from featstore.results.comparison import NestedSelection, SelectionBias
from featstore.splits import Split, inner_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.calibration import OperatingPointRequest
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


# Correction by resampling


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
        metric=PRIMARY,
        apparent=apparent,
        corrected=corrected,
        interval=_interval(scores, corrected, scored_candidates[best]),
        optimism=apparent - corrected,
        selection_frequency=float((winners == best).mean()),
        nested=_nested(design, scored_candidates, weights, selected) if len(selected) else None,
    )


def _interval(scores: Vector, corrected: float, best: CandidateScores) -> tuple[float, float] | None:
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
        PRIMARY, mean, scores[1:], scored_candidates[selected[0]].sample_size, design.overlap_factor
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
        [primary_score(design.y[test], p, np.ones((1, len(test))), design.positive)[0] for test, p in answers]
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
