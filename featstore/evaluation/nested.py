"""What is chosen inside each fold, from folds within its training images: operating points, and a winner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.metrics import primary_score
from featstore.evaluation.operating import INNER_FOLDS, NEUTRAL, OperatingPoint, choose
from featstore.folds import inner_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.operating import Wish
    from featstore.evaluation.standing import Arena
    from featstore.folds import Split
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


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
