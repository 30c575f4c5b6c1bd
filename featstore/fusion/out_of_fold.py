"""Out-of-fold answers: what a model says about rows whose groups it has not seen."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.intp]
    Floats = NDArray[np.float64]

ALWAYS_TRAINED = -1


def inner_folds(
    y: Numbers, groups: Numbers | None, folds: int, random_state: int | np.random.RandomState | None
) -> Numbers:
    """Fold ``(n,)`` in which each row is held out: whole groups, every class in proportion.

    Every class must stay in training, so where all its rows came to lie in one fold, its largest group is never held
    out: fold -1. With a single group nobody can be held out.

    Parameters
    ----------
    y
        ``(n,)`` class numbers.
    groups
        ``(n,)`` group numbers; None makes every row its own group.
    folds
        Number of folds; fewer where there are fewer groups, or fewer rows in the largest class.
    random_state
        Source of the order.
    """
    groups = np.arange(len(y)) if groups is None else groups
    fold_of = np.full(len(y), ALWAYS_TRAINED)
    possible = min(folds, len(np.unique(groups)), int(np.bincount(y).max()))
    if possible < 2:  # noqa: PLR2004
        return fold_of
    splitter = StratifiedGroupKFold(possible, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small classes are looked after below
        for fold, (_, held) in enumerate(splitter.split(y, y, groups)):
            fold_of[held] = fold
    for label in np.unique(y):
        if len(np.unique(fold_of[y == label])) == 1:
            fold_of[groups == np.bincount(groups[y == label]).argmax()] = ALWAYS_TRAINED
    return fold_of


def out_of_fold(
    fit: Callable[[NDArray[Any], Numbers], Callable[[NDArray[Any]], Floats]],
    X: NDArray[Any],
    y: Numbers,
    fold_of: Numbers,
) -> Floats:
    """Answers ``(n, ...)`` of models that were not fitted to the row they answer for.

    Rows that are never held out get the answer of a model fitted to everything: optimistic, but it concerns only
    classes of a single group, for which no honest answer exists.

    Parameters
    ----------
    fit
        Takes rows and class numbers, returns a function of rows.
    X, y
        ``(n, d)`` features and ``(n,)`` class numbers.
    fold_of
        As from `inner_folds`.
    """
    answers: Floats | None = None
    for fold in np.unique(fold_of):
        asked = fold_of == fold
        learned = np.ones(len(y), np.bool_) if fold == ALWAYS_TRAINED else ~asked
        answer = fit(X[learned], y[learned])(X[asked])
        if answers is None:
            answers = np.empty((len(y), *answer.shape[1:]))
        answers[asked] = answer
    assert answers is not None  # noqa: S101  # there is at least one row
    return answers
