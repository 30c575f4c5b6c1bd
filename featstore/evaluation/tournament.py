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
from featstore.evaluation.crew import work
from featstore.evaluation.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from featstore.evaluation.ledger import Ledger
    from featstore.folds import Split
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


def play(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    splits: Sequence[Split],
    drafts: Sequence[tuple[str, ...]] = (),
    jobs: int = 1,
    ledger: Ledger | None = None,
) -> Iterator[tuple[int, int, Vector]]:
    """Fit every contestant on every fold; yield (contestant, fold, probabilities of the test images).

    Contestants whose strategy can fit many subsets together (`featstore.fusion.strategy.SubsetStrategy`) share a fit
    in each fold. `drafts` is what `draft` returns; without greedy contestants nobody looks at it. What the ledger
    knows is taken from it and comes first; what is new is entered there by the process that computed it, at once.
    """
    fresh = []
    for team, f in ((team, f) for team in teams(contestants) for f in range(len(splits))):
        fielded = [_fielded(contestants[c], drafts, f) for c in team]
        known = ledger.find(matrix, fielded, splits[f]) if ledger else None
        if known is None:
            fresh.append((team, f, fielded))
        else:
            yield from zip(team, [f] * len(team), known, strict=True)
    calls = [(matrix, fielded, splits[f], ledger) for _, f, fielded in fresh]
    for (team, f, _), proba in zip(fresh, work(_one_round, calls, jobs), strict=True):
        yield from zip(team, [f] * len(team), proba, strict=True)


def draft(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    splits: Sequence[Split],
    jobs: int = 1,
    bars: Progress = Progress(),  # noqa: B008  # frozen
) -> list[tuple[str, ...]]:
    """Backbones for the greedy contestants, chosen in each fold from its training images; empty if no one is greedy.

    The linear probe chooses for all strategies: it is cheap, and they meet on the same backbones.
    """
    if not any(contestant.greedy for contestant in contestants):
        return []
    chosen = work(select_backbones, [(matrix, train) for train, _ in splits], jobs)
    return list(bars.over(chosen, "choose", "fold", len(splits)))


def teams(contestants: Sequence[Contestant]) -> list[list[int]]:
    """Who is fitted together, as positions: all of a strategy on the same rows if it offers that, else each alone."""
    alike: dict[tuple[str, str, str, int | None], list[int]] = {}
    for at, one in enumerate(contestants):
        alike.setdefault((one.strategy, one.views, one.test_views, one.seed), []).append(at)
    return [
        team
        for (strategy, *_), members in alike.items()
        for team in ([members] if fits_subsets(strategy) else [[at] for at in members])
    ]


def _fielded(contestant: Contestant, drafts: Sequence[tuple[str, ...]], fold: int) -> Contestant:
    return replace(contestant, backbones=drafts[fold]) if contestant.greedy else contestant


def _one_round(
    matrix: FeatureMatrix, team: Sequence[Contestant], split: Split, ledger: Ledger | None
) -> list[Vector]:
    """Fit a team on one fold, and return each member's probabilities of the test images."""
    train, test = split
    if len(team) > 1:
        proba = play_together(matrix, team, train, test)
    else:
        (contestant,) = team
        unfitted = build(contestant, matrix, competing_options(contestant.strategy))
        proba = [predict_proba(fit(unfitted, matrix, train, contestant), matrix, test, contestant)]
    if ledger is not None:
        ledger.enter(matrix, team, split, proba)
    return proba
