"""Everyone on the same folds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from featstore.evaluation.folds import Split
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


def play(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    splits: Sequence[Split],
    drafts: Sequence[tuple[str, ...]] = (),
    jobs: int = 1,
) -> Iterator[tuple[int, int, Vector]]:
    """Fit every contestant on every fold; yield (contestant, fold, probabilities of the test images).

    Contestants whose strategy can fit many subsets together (`featstore.fusion.strategy.SubsetStrategy`) share a fit
    in each fold. `drafts` is what `draft` returns; without greedy contestants nobody looks at it.
    """
    from joblib import Parallel, delayed

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
