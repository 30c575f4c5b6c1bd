"""Who may teach a network, who says when to stop, and who must never meet it (law 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import AuditError
from featstore.folds import hold_out
from featstore.fusion.holdout import hold_out as validation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from featstore.types import ImageRecord

    Rows = NDArray[np.intp]

SHARE = 0.2
"""Of the training side, in images: the validation by which the best epoch is chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """A data set, divided.

    Attributes
    ----------
    records, classes, y, groups
        The table: see `featstore.folds.Table`.
    trained, validated
        Row numbers of the images that teach, and of those by which the best epoch is chosen.
    held_out
        The rest, by split: what `featstore.fuse` scores.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    y: Rows
    groups: NDArray[np.str_]
    trained: Rows
    validated: Rows
    held_out: dict[str, Rows]

    @property
    def sizes(self) -> dict[str, int]:
        """Images by side."""
        held_out = {name: len(rows) for name, rows in self.held_out.items()}
        return {"trained": len(self.trained), "validated": len(self.validated), **held_out}

    def ids(self, rows: Rows) -> list[str]:
        """Image ids of rows."""
        return [self.records[row].id for row in rows]


def divide(records: Iterable[ImageRecord], test_size: float, split_seed: int, seed: int) -> Sides:
    """Hold out what `featstore.fuse` would hold out, and whole groups of the rest for validation.

    Parameters
    ----------
    records
        The images that decode, in manifest order: those that will have features.
    test_size, split_seed
        As for `featstore.fuse`; without effect where the data set has splits of its own.
    seed
        Of the validation groups.

    Raises
    ------
    AuditError
        If the split cannot be used, or a class has no group to spare for validation.
    """
    table = tuple(records)
    classes, y = np.unique([record.label for record in table], return_inverse=True)
    groups = np.array([record.group for record in table])
    nothing = np.empty(0, np.intp)
    whole = Sides(table, tuple(classes.tolist()), y, groups, nothing, nothing, {})
    held_out = hold_out(whole, test_size, split_seed)
    train = held_out.pop("train")
    chosen = _validated(whole, train, seed)
    if lacking := _lacking(whole, train[chosen]):
        raise AuditError(
            f"No group (patient) of {', '.join(lacking)} can be spared to tell when to stop learning.",
            _more_patients(whole, test_size, split_seed, seed),
        )
    return Sides(table, whole.classes, y, groups, train[~chosen], train[chosen], held_out)


def _validated(whole: Sides, train: Rows, seed: int) -> NDArray[np.bool_]:
    """Which of the training rows validate."""
    numbers = np.unique(whole.groups[train], return_inverse=True)[1]
    return validation(whole.y[train], numbers, SHARE, np.random.default_rng(seed))


def _lacking(whole: Sides, rows: Rows) -> list[str]:
    return [name for c, name in enumerate(whole.classes) if not (whole.y[rows] == c).any()]


def _more_patients(whole: Sides, test_size: float, split_seed: int, seed: int) -> str:
    """Remedy where a class has no group to validate on: a share that was tried, where one helps."""
    if any(record.split for record in whole.records):
        return "Move patients (groups) of every such class into train, until each has three there."
    for share in (0.4, 0.3, 0.25, 0.2, 0.1):
        if share < test_size:
            train = hold_out(whole, share, split_seed)["train"]
            if not _lacking(whole, train[_validated(whole, train, seed)]):
                return f"Hold out fewer, --test-size {share}, or add patients (groups) of these classes."
    return "Add patients (groups): of each class four or more are needed."
