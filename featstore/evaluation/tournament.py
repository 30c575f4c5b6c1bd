"""Everyone on the same folds, scored with the same resamples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.bootstrap import (
    group_weights,
    holm,
    overlap_factor,
    percentile_interval,
    two_sided_p,
    widen,
)
from featstore.evaluation.contestants import (
    Contestant,
    build,
    competing_options,
    fit,
    fits_subsets,
    play_together,
    predict_proba,
    select_backbones,
)
from featstore.evaluation.metrics import METRICS, score

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.folds import Split
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]

ALPHA = 0.05
PRIMARY = "auc"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of one contestant.

    Attributes
    ----------
    mean, deviation
        Over the folds; the deviation has ``ddof=1``.
    interval
        95 %, by bootstrap over groups of the mean over folds, widened for the overlap of the training sets
        (`featstore.evaluation.bootstrap.overlap_factor`); None where undefined.
    folds
        The value in each fold.
    """

    mean: float
    deviation: float
    interval: tuple[float, float] | None
    folds: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A contestant with its out-of-fold probabilities, its scores, and the primary metric of each resample."""

    contestant: Contestant
    proba: tuple[Vector, ...]
    estimates: dict[str, Estimate]
    resampled: Vector
    factor: float


@dataclass(frozen=True, slots=True)
class Duel:
    """The difference ``a - b`` in the primary metric, on the same images and resamples.

    `p` is adjusted for the number of duels (Holm); `verdict` is ``a_better``, ``b_better`` or ``cannot_tell``.
    """

    a: str
    b: str
    metric: str
    delta: float
    interval: tuple[float, float] | None
    p: float
    verdict: str


def play(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    splits: Sequence[Split],
    jobs: int = 1,
    drafts: Sequence[tuple[str, ...]] | None = None,
) -> Iterator[tuple[int, int, Vector]]:
    """Fit every contestant on every fold; yield (contestant, fold, probabilities of the test images).

    Contestants whose strategy can fit many subsets together (`featstore.fusion.strategy.SubsetStrategy`) share a fit
    in each fold. `drafts` is what `draft` returns, for callers who want to know it too.
    """
    from joblib import Parallel, delayed

    drafts = draft(matrix, contestants, splits, jobs) if drafts is None else drafts
    rounds = [(team, f) for team in teams(contestants) for f in range(len(splits))]
    results = Parallel(n_jobs=jobs, return_as="generator")(
        delayed(_one_round)(matrix, [_fielded(contestants[c], drafts, f) for c in team], splits[f])
        for team, f in rounds
    )
    for (team, f), probas in zip(rounds, results, strict=True):
        for c, proba in zip(team, probas, strict=True):
            yield c, f, proba


def draft(
    matrix: FeatureMatrix, contestants: Sequence[Contestant], splits: Sequence[Split], jobs: int = 1
) -> list[tuple[str, ...]]:
    """Backbones for the greedy contestants, chosen in each fold from its training images; empty if no one is greedy.

    The linear probe chooses for all strategies: it is cheap, and they meet on the same backbones.
    """
    from joblib import Parallel, delayed

    if not any(contestant.greedy for contestant in contestants):
        return []
    return list(Parallel(n_jobs=jobs)(delayed(select_backbones)(matrix, train) for train, _ in splits))


def teams(contestants: Sequence[Contestant]) -> list[list[int]]:
    """Who is fitted together, as positions: all of one strategy where it offers that, else each alone."""
    by_strategy: dict[str, list[int]] = {}
    for at, contestant in enumerate(contestants):
        by_strategy.setdefault(contestant.strategy, []).append(at)
    return [
        team
        for strategy, members in by_strategy.items()
        for team in ([members] if fits_subsets(strategy) else [[at] for at in members])
    ]


def _fielded(contestant: Contestant, drafts: Sequence[tuple[str, ...]], fold: int) -> Contestant:
    return replace(contestant, backbones=drafts[fold]) if contestant.greedy else contestant


def _one_round(matrix: FeatureMatrix, team: Sequence[Contestant], split: Split) -> list[Vector]:
    """Fit a team on one fold, and return each member's probabilities of the test images."""
    train, test = split
    if len(team) > 1:
        return play_together(matrix, team, train, test)
    (contestant,) = team
    unfitted = build(contestant, matrix, competing_options(contestant.strategy))
    estimator = fit(unfitted, matrix, train, contestant.backbones)
    return [predict_proba(estimator, matrix, test, contestant.backbones)]


def standing(
    matrix: FeatureMatrix,
    contestant: Contestant,
    splits: Sequence[Split],
    proba: Sequence[Vector],
    positive: int | None,
    weights: Vector,
) -> Standing:
    """Score one contestant's folds; `weights` are the ``(resamples, n)`` of `group_weights`."""
    plain = np.ones((1, len(matrix.y)))
    folds = [
        _fold_scores(matrix, test, p, positive, plain) for (_, test), p in zip(splits, proba, strict=True)
    ]
    drawn = [
        _fold_scores(matrix, test, p, positive, weights) for (_, test), p in zip(splits, proba, strict=True)
    ]
    resampled = {name: _mean([scores[name] for scores in drawn]) for name in METRICS}
    factor = overlap_factor(splits)
    estimates = {
        name: _estimate(np.array([scores[name][0] for scores in folds]), resampled[name], factor)
        for name in METRICS
    }
    return Standing(contestant, tuple(proba), estimates, resampled[PRIMARY], factor)


def duels(standings: Sequence[Standing]) -> list[Duel]:
    """Each fusion against the best single backbone; without singles, the leader against everyone else.

    The best single is chosen after the fact, which favours it: a fusion that still beats it has earned that.
    """
    singles = [s for s in standings if len(s.contestant.backbones) == 1]
    fused = [s for s in standings if len(s.contestant.backbones) > 1]
    reference = max(singles or standings, key=_primary)
    rivals = [s for s in (fused if singles else standings) if s is not reference]
    if not rivals:
        rivals = [s for s in standings if s is not reference]
    raw = [two_sided_p(_differences(rival, reference)) for rival in rivals]
    adjusted = holm(np.array(raw))
    return [_duel(rival, reference, float(p)) for rival, p in zip(rivals, adjusted, strict=True)]


def resamples(matrix: FeatureMatrix, seed: int) -> Vector:
    """Return the bootstrap weights that all contestants share."""
    return group_weights(matrix.groups, seed=seed)


def _duel(a: Standing, b: Standing, p: float) -> Duel:
    delta = _primary(a) - _primary(b)
    interval = percentile_interval(_differences(a, b))
    verdict = "cannot_tell" if p >= ALPHA else "a_better" if delta > 0 else "b_better"
    return Duel(a.contestant.label, b.contestant.label, PRIMARY, delta, interval, p, verdict)


def _differences(a: Standing, b: Standing) -> Vector:
    return widen(a.resampled - b.resampled, _primary(a) - _primary(b), a.factor)


def _primary(standing: Standing) -> float:
    return standing.estimates[PRIMARY].mean


def _fold_scores(
    matrix: FeatureMatrix, test: NDArray[np.intp], proba: Vector, positive: int | None, weights: Vector
) -> dict[str, Vector]:
    return score(matrix.y[test], proba, weights[:, test], positive)


def _mean(values: Sequence[Vector]) -> Vector:
    """Mean over folds, leaving out the folds in which a resample lacks a class; NaN where all do."""
    stacked = np.array(values)
    defined = np.isfinite(stacked)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    mean: Vector = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _estimate(folds: Vector, resampled: Vector, factor: float) -> Estimate:
    mean = float(folds.mean())
    return Estimate(
        mean,
        float(folds.std(ddof=1)),
        percentile_interval(np.clip(widen(resampled, mean, factor), 0.0, 1.0)),
        tuple(folds.tolist()),
    )
