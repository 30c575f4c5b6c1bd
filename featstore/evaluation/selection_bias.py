"""The winner's curse: the best of many looks better than it is, because it was picked on the images it is scored on.

Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou & Borboudakis, Machine Learning 107, 2018): in each
resample of the patients the winner is picked anew, on the patients drawn, and scored on those that were not drawn. It
needs nothing but the out-of-fold probabilities that are there already.

What is chosen inside each fold, from folds within its training images: operating points, and a winner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.calibration import INNER_FOLDS, NEUTRAL, OperatingPoint, choose
from featstore.evaluation.estimates import primary_mean
from featstore.evaluation.intervals import least_interval, percentile_interval, score_interval
from featstore.evaluation.metrics import PRIMARY, primary_score
from featstore.splits import inner_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.calibration import Wish
    from featstore.evaluation.estimates import Arena, Standing
    from featstore.matrix import FeatureMatrix
    from featstore.splits import Split

    Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Nested:
    """What picking anew inside each fold, from its training images alone, is worth on its test images.

    Attributes
    ----------
    mean, interval
        Primary metric over the folds, and its 95 % interval as of `featstore.evaluation.estimates.Estimate`.
    picked
        Who was picked in each fold.
    """

    mean: float
    interval: tuple[float, float] | None
    picked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Winner:
    """The best of k, with and without the curse.

    Attributes
    ----------
    name, of
        The contestant with the highest primary metric, and how many there were.
    naive
        Its score as it stands in the table.
    guarded
        What picking the best of these contestants is worth on patients that had no part in the picking; never above
        `naive`, since a correction for luck does not raise a score.
    interval
        95 %, of `guarded`; None where a class has fewer than two patients.
    optimism
        ``naive - guarded``.
    picked
        Share of the resamples in which this one won.
    nested
        The same question answered by inner folds; None where none were played.
    """

    name: str
    of: int
    metric: str
    naive: float
    guarded: float
    interval: tuple[float, float] | None
    optimism: float
    picked: float
    nested: Nested | None = None


def guard(
    arena: Arena, standings: Sequence[Standing], weights: Vector, picks: Sequence[int] = ()
) -> Winner | None:
    """Pick the winner in each resample, and score it on the patients left out.

    Parameters
    ----------
    arena, standings
        As of `featstore.evaluation.estimates.standings`.
    weights
        ``(resamples, n)``, those that the standings were resampled with.
    picks
        Of `picks`: who is best inside each split, if anyone asked.

    Returns
    -------
    None where there is nothing to pick from.
    """
    if len(standings) < 2:  # noqa: PLR2004
        return None
    best = max(range(len(standings)), key=lambda at: standings[at].primary)
    drawn = np.array([s.resampled for s in standings])
    winners = np.where(np.isfinite(drawn), drawn, -1.0).argmax(axis=0)
    scores = np.full(len(winners), np.nan)
    for at in np.unique(winners):
        mine = winners == at
        folds = range(len(arena.splits))
        left_out = (weights[mine] == 0).astype(np.float64)
        scores[mine] = primary_mean(arena, standings[at].proba, left_out, folds)
    if not np.isfinite(scores).any():
        return None
    naive = standings[best].primary
    guarded = min(naive, float(np.nanmean(scores)))
    return Winner(
        standings[best].contestant.label,
        len(standings),
        PRIMARY,
        naive,
        guarded,
        _interval(scores, guarded, standings[best]),
        naive - guarded,
        float((winners == best).mean()),
        _nested(arena, standings, weights, picks) if len(picks) else None,
    )


def _interval(scores: Vector, guarded: float, best: Standing) -> tuple[float, float] | None:
    """Interval of scores on patients left out, laid around the guarded value where that was lowered.

    Some 37 % of the patients are left out, so these scores spread wider than those of all patients would: the
    interval is wide enough for the overlap of the training sets without being widened again (decision 005). Where
    all of them are perfect it is what so many patients allow.
    """
    least = least_interval(guarded, best.resampled, best.basis)
    drawn = percentile_interval((scores - np.nanmean(scores) + guarded).clip(0.0, 1.0))
    if least is None or drawn is None:
        return None
    return min(least[0], drawn[0]), max(least[1], drawn[1])


def _nested(arena: Arena, standings: Sequence[Standing], weights: Vector, picks: Sequence[int]) -> Nested:
    answers = [standings[pick].proba[at] for at, pick in enumerate(picks)]
    drawn = np.vstack([np.ones((1, weights.shape[1])), weights])
    scores = primary_mean(arena, answers, drawn, range(len(arena.splits)))
    mean = float(scores[0])
    interval = score_interval(PRIMARY, mean, scores[1:], standings[picks[0]].basis, arena.factor)
    return Nested(mean, interval, tuple(standings[pick].contestant.label for pick in picks))


def with_inner(matrix: FeatureMatrix, splits: Sequence[Split], seed: int) -> list[Split]:
    """Return all rounds to be played where something is chosen inside: the splits, then those within each."""
    rounds = list(splits)
    for train, _ in splits:
        rounds += inner_folds(
            matrix, train, INNER_FOLDS, seed, needed_by="--calibrate, --sensitivity and --nested"
        )
    return rounds


def points(
    y: NDArray[np.intp], splits: Sequence[Split], rounds: Sequence[Split], proba: Sequence[Vector], wish: Wish
) -> list[OperatingPoint]:
    """Operating point of one contestant for each split.

    Parameters
    ----------
    y
        ``(n,)`` true class index of all images.
    splits, rounds
        As `with_inner` took and gave them.
    proba
        Probabilities of the test images of each round.
    wish
        What to choose.
    """
    if wish.is_none:
        return [NEUTRAL] * len(splits)
    return [
        choose(
            y[np.concatenate([rounds[at][1] for at in inner])],
            np.concatenate([proba[at] for at in inner]),
            wish,
        )
        for inner in _within(splits, rounds)
    ]


def picks(arena: Arena, rounds: Sequence[Split], proba: Sequence[Sequence[Vector]]) -> list[int]:
    """Which contestant has the highest primary metric within the training images of each split.

    Parameters
    ----------
    arena, rounds
        As `with_inner` took its splits and gave the rounds.
    proba
        By contestant, probabilities of the test images of each round.

    Returns
    -------
    A position for each split; the earlier contestant where two are level. Empty where no inner round was played.
    """
    if len(rounds) == len(arena.splits):
        return []
    return [
        int(np.argmax([_mean_score(arena, [(rounds[at][1], mine[at]) for at in inner]) for mine in proba]))
        for inner in _within(arena.splits, rounds)
    ]


def _mean_score(arena: Arena, answers: Sequence[tuple[NDArray[np.intp], Vector]]) -> float:
    """Mean over inner folds; those whose test images lack a class do not count."""
    scores = np.array(
        [primary_score(arena.y[test], p, np.ones((1, len(test))), arena.positive)[0] for test, p in answers]
    )
    defined = scores[np.isfinite(scores)]
    return float(defined.mean()) if len(defined) else -np.inf


def _within(splits: Sequence[Split], rounds: Sequence[Split]) -> list[range]:
    """Positions of the inner rounds of each split: as many as test each of its training images once."""
    found, at = [], len(splits)
    for train, _ in splits:
        start, tested = at, 0
        while tested < len(train):
            tested += len(rounds[at][1])
            at += 1
        found.append(range(start, at))
    return found
