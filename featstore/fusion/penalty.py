"""Choosing C on inner folds over groups, for any number of subsets of blocks at once."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import UsageError
from featstore.fusion.dual import DualSolution, solve
from featstore.fusion.likelihood import loss, targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from featstore.fusion.grams import Kernel

    Mask = NDArray[np.bool_]
    Rows = NDArray[np.intp]

AUTO = "auto"
GRID = (0.05, 0.15, 0.5, 1.5, 5.0, 15.0, 50.0)
DEFAULT = 5.0
INNER_FOLDS = 3


def penalties(
    C: float | str, kernels: Sequence[Kernel], members: Mask, y: Rows, groups: Rows | None
) -> NDArray[np.float64]:
    """C of each subset ``(subsets,)``: the number given, or for "auto" the best of `GRID` on inner folds.

    The best has the least log-loss over all held-out rows; of equals the smallest. Where inner folds cannot be made
    (a class with a single group) it is `DEFAULT`.

    Parameters
    ----------
    C
        A positive number, or "auto".
    kernels, members
        As for `featstore.fusion.dual.solve`, over all training rows. Inner folds are parts of these matrices: their
        columns are scaled by the spread in all training rows, their means do not matter beside an intercept.
    y, groups
        ``(n,)`` class numbers and group numbers; None makes every row its own group.

    Raises
    ------
    UsageError
        If C is neither.
    """
    if C == AUTO:
        losses = held_out_losses(kernels, members, y, groups, GRID)
        if losses is None:
            return np.full(len(members), DEFAULT)
        return np.asarray(np.array(GRID)[losses.argmin(axis=0)])
    if isinstance(C, str) or not 0 < C < np.inf:
        raise UsageError(f"C={C!r} is out of range.", 'Give a positive number, or "auto".')
    return np.full(len(members), float(C))


def held_out_losses(
    kernels: Sequence[Kernel], members: Mask, y: Rows, groups: Rows | None, grid: Sequence[float]
) -> NDArray[np.float64] | None:
    """Mean log-loss ``(len(grid), subsets)`` over the rows that inner folds hold out; None where there are no folds.

    Each fold's models start, one C after the other, from those of the C before.
    """
    target = targets(y, int(y.max()) + 1)
    total, count = np.zeros((len(grid), len(members))), 0
    for train, test in inner_folds(y, groups):
        inside = [kernel.between(train, train) for kernel in kernels]
        across = [kernel.between(test, train) for kernel in kernels]
        solution: DualSolution | None = None
        for at, C in enumerate(grid):
            solution = solve(inside, members, target[:, train], np.full(len(members), C), solution)
            total[at] += loss(solution.logits(across, members), target[:, test])
        count += len(test)
    return total / count if count else None


def inner_folds(y: Rows, groups: Rows | None) -> Iterator[tuple[Rows, Rows]]:
    """Stratified folds of whole groups, every class in training; fewer, or none, where a class has few groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    units = np.arange(len(y)) if groups is None else groups
    smallest = min(len(np.unique(units[y == label])) for label in np.unique(y))
    folds = min(INNER_FOLDS, smallest)
    if folds < 2:  # noqa: PLR2004
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rows per class; groups were counted above
        splits = list(StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(y, y, units))
    for train, test in splits:
        if len(np.unique(y[train])) == len(np.unique(y)):
            yield train, test
