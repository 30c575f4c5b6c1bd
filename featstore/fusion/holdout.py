"""Holding out validation rows: whole groups, every class in proportion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def hold_out(
    y: NDArray[np.intp], groups: NDArray[np.intp] | None, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mark the validation rows.

    Groups are taken whole, in random order, class by class, until about `fraction` of the rows of the class are held
    out; a group of mixed labels counts for its most frequent one. Every class keeps training rows, so a class
    with a single group has no validation rows, and the mask may be all False.

    Parameters
    ----------
    y
        ``(n,)`` class numbers.
    groups
        ``(n,)`` group numbers 0..n_groups-1; None makes every row its own group.
    fraction
        Part of the rows to hold out, 0 to below 1.
    rng
        Source of the order.

    Returns
    -------
    ``(n,)`` mask, True for validation.
    """
    groups = np.arange(len(y)) if groups is None else groups
    table = np.zeros((groups.max() + 1, y.max() + 1), dtype=np.intp)
    np.add.at(table, (groups, y), 1)
    sizes, owners = table.sum(axis=1), table.argmax(axis=1)
    held = np.zeros(len(sizes), dtype=np.bool_)
    for label in range(table.shape[1]):
        members = rng.permutation(np.flatnonzero(owners == label))
        held[_take(members, sizes, fraction)] = True
    for orphan in np.flatnonzero(table[~held].sum(axis=0) == 0):
        held[table[:, orphan].argmax()] = False
    return held[groups]


def _take(members: NDArray[np.intp], sizes: NDArray[np.intp], fraction: float) -> NDArray[np.intp]:
    """Shortest head of `members`, but the last, whose rows come closest to the fraction."""
    filled = np.concatenate([[0], np.cumsum(sizes[members])])
    wanted = fraction * filled[-1]
    count = int(np.abs(filled[: max(len(members), 1)] - wanted).argmin())
    return members[:count]
