"""Operating points chosen inside each fold, from folds within its training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featstore.evaluation.folds import inner_folds
from featstore.evaluation.operating import INNER_FOLDS, NEUTRAL, OperatingPoint, choose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.folds import Split
    from featstore.evaluation.operating import Wish
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]


def with_inner(matrix: FeatureMatrix, splits: Sequence[Split], wish: Wish, seed: int) -> list[Split]:
    """Return all rounds to be played: the splits, then, where something is wished for, those within each."""
    rounds = list(splits)
    if not wish.is_none:
        for train, _ in splits:
            rounds += inner_folds(matrix, train, INNER_FOLDS, seed)
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
    inner = iter(zip(rounds[len(splits) :], proba[len(splits) :], strict=True))
    return [_point(y, len(train), inner, wish) for train, _ in splits]


def _point(
    y: NDArray[np.intp], size: int, inner: Iterator[tuple[Split, Vector]], wish: Wish
) -> OperatingPoint:
    """Take rounds until every one of `size` training images has been tested once."""
    tests: list[NDArray[np.intp]] = []
    proba: list[Vector] = []
    while sum(len(test) for test in tests) < size:
        (_, test), values = next(inner)
        tests.append(test)
        proba.append(values)
    return choose(y[np.concatenate(tests)], np.concatenate(proba), wish)
