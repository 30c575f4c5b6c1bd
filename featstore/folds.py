"""Splits that keep every group, and with it every view of an image, on one side (law 6)."""

from __future__ import annotations

import unicodedata
import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featstore.errors import AuditError, UsageError
from featstore.findings import shown
from featstore.partition import divide, most_parts

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from featstore.types import ImageRecord

MOST_LISTED = 8
"""Classes that an error counts out, the smallest first."""

OWN_SPLIT = "split"
"""In place of a number of folds: the data set's own split."""
Split = tuple["NDArray[np.intp]", "NDArray[np.intp]"]


class Table(Protocol):
    """What a split looks at: images with class and group, before or after there are features.

    `records`, `classes`, `y` and `groups` are those of `featstore.matrix.FeatureMatrix`.
    """

    @property
    def records(self) -> Sequence[ImageRecord]:
        """The images."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, sorted."""
        ...

    @property
    def y(self) -> NDArray[np.intp]:
        """``(n,)`` index into `classes`."""
        ...

    @property
    def groups(self) -> NDArray[np.str_]:
        """``(n,)`` patient or other unit that must stay together."""
        ...


def group_folds(table: Table, folds: int, repeats: int = 1, seed: int = 0) -> list[Split]:
    """Stratified folds over whole groups, the same for every contestant.

    They are those of scikit-learn's StratifiedGroupKFold; where one of these lacks a class, others are searched for,
    and found wherever there are any (`featstore.partition`).

    Returns
    -------
    ``folds * repeats`` pairs (training images, test images) of row indices; each image is tested once a repeat.

    Raises
    ------
    AuditError
        If there is one class only, or the groups cannot be divided so that each fold tests every class.
    """
    if folds < 2 or repeats < 1:  # noqa: PLR2004
        raise UsageError(
            f"{folds} folds, {repeats} times over, is no cross-validation.", "Use --folds 5 --repeats 1."
        )
    _require_two_groups(table)
    if min(_groups_by_class(table)) < folds:
        raise _too_many(
            table,
            folds,
            f"{folds} folds need at least {folds} groups (patients) in each class; there are: {_listed(table)}."
            + _losses(table),
        )
    splits: list[Split] = []
    for repeat in range(repeats):
        drawn = _drawn(table.y, table.groups, folds, seed + repeat)
        if not all(_has_every_class(table, test) for _, test in drawn):
            drawn = _searched(table, folds, seed + repeat)
        splits.extend(drawn)
    return splits


def inner_folds(
    table: Table,
    train: NDArray[np.intp],
    folds: int,
    seed: int = 0,
    *,
    needed_by: str = "what is chosen here",
) -> list[Split]:
    """Folds within the training images, over whole groups: for whatever is chosen from out-of-fold probabilities.

    As many folds as asked for, or as the rarest class has groups; fewer, if only they have every class to train on.

    Parameters
    ----------
    table, train
        The images, and the rows that may be looked at.
    folds, seed
        As for `group_folds`.
    needed_by
        The caller's options that can be left out where there are no folds, for the remedy.

    Returns
    -------
    Pairs of row indices of `table`; together the second halves are `train`.

    Raises
    ------
    AuditError
        If a class has a single group there, or its groups fall so that a fold lacks a class to train on.
    """
    y, groups = table.y[train], table.groups[train]
    fewest = min(len(set(groups[y == c])) for c in range(len(table.classes)))
    if fewest < 2:  # noqa: PLR2004
        raise AuditError(
            "The training images of a class are of one group, so nothing can be chosen on held-out ones.",
            f"Leave out {needed_by}, or add patients.",
        )
    drawn = _drawn(y, groups, min(folds, fewest), seed)
    if not all(_has_every_class(table, train[rest]) for rest, _ in drawn):
        parts = most_parts(y, groups, min(folds, fewest))
        part_of = divide(y, groups, [1 / parts] * parts, seed) if parts > 1 else None
        if part_of is None:
            raise AuditError(
                "The groups (patients) of the training images cannot be divided so that every class is on both"
                " sides: groups are of several classes.",
                f"Leave out {needed_by}, or add patients.",
            )
        drawn = _by_part(part_of, parts)
    return [(train[rest], train[part]) for rest, part in drawn]


def hold_out(table: Table, test_size: float, seed: int = 0) -> dict[str, NDArray[np.intp]]:
    """Training and evaluation images: the manifest's own splits, else a group-stratified share of `test_size`.

    Where a share of whole groups with every class on both sides cannot be had by dealing out (a class with few
    groups), the nearest to it is searched for.

    Returns
    -------
    Row indices by split name; ``train`` and at least one of ``val`` and ``test``.

    Raises
    ------
    AuditError
        If the data set's own split lacks a class, or no split has every class on both sides.
    UsageError
        If the share is none.
    """
    named = np.array([record.split or "" for record in table.records])
    if (named != "").any():
        return _own_splits(table, named)
    if not 0 < test_size <= 0.5:  # noqa: PLR2004
        raise UsageError(
            f"A test share of {test_size} cannot be held out.", "Use a share such as --test-size 0.25."
        )
    _require_two_groups(table)
    folds = max(2, round(1 / test_size))
    if min(_groups_by_class(table)) >= folds:
        train, test = _drawn(table.y, table.groups, folds, seed)[0]
        if _has_every_class(table, test) and _has_every_class(table, train):
            return {"train": train, "test": test}
    part_of = divide(table.y, table.groups, (test_size, 1 - test_size), seed)
    if part_of is None:
        raise _indivisible(table)
    (train, test), _ = _by_part(part_of, 2)
    return {"train": train, "test": test}


def own_split(table: Table) -> dict[str, NDArray[np.intp]]:
    """The data set's own split, to be scored on its test images.

    Returns
    -------
    Row indices by split name; ``train`` and ``test`` are there, ``val`` may be.

    Raises
    ------
    AuditError
        If the data set has no split, or one that cannot be used.
    """
    named = np.array([record.split or "" for record in table.records])
    if not (named == "test").any():
        raise AuditError(
            "The data set has no test images of its own.", "Leave out --folds split, and folds are drawn."
        )
    return _own_splits(table, named)


def acquainted(table: Table, ids: Collection[str]) -> NDArray[np.bool_]:
    """Images ``(n,)`` that are among `ids`, or of the same group (patient) as one that is."""
    known = np.array([record.id in ids for record in table.records], np.bool_)
    return np.isin(table.groups, table.groups[known])


def _own_splits(table: Table, named: NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    splits = {
        name: np.flatnonzero(named == name) for name in ("train", "val", "test") if (named == name).any()
    }
    if "train" not in splits or len(splits) < 2 or (named == "").any():  # noqa: PLR2004
        counts = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
        raise AuditError(
            f"The data set's own split cannot be used: {counts}, without a split {(named == '').sum()}.",
            "Give every image a split, with `train` and at least one of `val` and `test`; or give none at all.",
        )
    for name, rows in splits.items():
        if absent := _absent(table, rows):
            raise AuditError(
                f"The data set's own split {name} has no image of {shown(absent)}.",
                _cure_of_absence(table, absent, name),
            )
    return splits


def _cure_of_absence(table: Table, absent: Sequence[str], split: str) -> str:
    """What to do about classes that a split lacks; often they are there in another spelling."""
    for name in absent:
        alike = [other for other in table.classes if other != name and _plain(other) == _plain(name)]
        if alike:
            return f"{name!r} and {alike[0]!r} look like one class: spell it in one way everywhere."
    return (
        f"Move some patients of {shown(absent, 1)} into {split}, or take the class out of the data set; or leave out"
        " the split (no column, no folders train and test): then patients are held out by chance."
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isalnum())


def _drawn(y: NDArray[np.intp], groups: NDArray[np.str_], folds: int, seed: int) -> list[Split]:
    """What scikit-learn deals out, whatever it is."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rows per class; what counts are groups
        return list(splitter.split(y, y, groups))


def _searched(table: Table, folds: int, seed: int) -> list[Split]:
    part_of = divide(table.y, table.groups, [1 / folds] * folds, seed)
    if part_of is None:
        raise _too_many(
            table,
            folds,
            f"The groups (patients) cannot be divided into {folds} folds that have every class each: too many groups"
            f" are of several classes. Groups by class: {_listed(table)}.",
        )
    return _by_part(part_of, folds)


def _by_part(part_of: NDArray[np.intp], parts: int) -> list[Split]:
    return [(np.flatnonzero(part_of != part), np.flatnonzero(part_of == part)) for part in range(parts)]


def _require_two_groups(table: Table) -> None:
    """Refuse a single class, and a class that cannot be on both sides of any split."""
    if len(table.classes) < 2:  # noqa: PLR2004
        raise AuditError(
            f"There is one class only: {table.classes[0]}.{_losses(table)}",
            "Give images of at least two classes.",
        )
    lone = [name for name, count in zip(table.classes, _groups_by_class(table), strict=True) if count < 2]  # noqa: PLR2004
    if lone:
        raise AuditError(
            f"All images of {shown(lone)} are of one group (patient): they can be learned from or scored, not both.",
            f"Add patients of {shown(lone, 1)}, or take the class out of the data set.",
        )


def _too_many(table: Table, folds: int, cause: str) -> AuditError:
    """Error of too many folds, with a number that was tried, if there is one."""
    possible = most_parts(table.y, table.groups, min(folds - 1, *_groups_by_class(table)))
    if possible < 2:  # noqa: PLR2004
        return _indivisible(table)
    return AuditError(cause, f"Use --folds {possible}, or add patients to the smallest class.")


def _indivisible(table: Table) -> AuditError:
    """Error of groups that cannot be on two sides with every class on both; names a class to take out that helps."""
    several = len(table.classes) > 2  # noqa: PLR2004
    helps = [name for c, name in enumerate(table.classes) if several and _divides_without(table, c)]
    take_out = f", or take a class out of the data set: without {helps[0]!r} it works" if helps else ""
    return AuditError(
        "The groups (patients) cannot be divided into a training and a test side that have every class each: groups"
        f" are of several classes. Groups by class: {_listed(table)}.",
        f"Check that groups are patients, add patients of a single class{take_out}.",
    )


def _divides_without(table: Table, c: int) -> bool:
    rest = table.y != c
    numbers = np.unique(table.y[rest], return_inverse=True)[1]
    return most_parts(numbers, table.groups[rest], 2) > 1


def _groups_by_class(table: Table) -> list[int]:
    return [len(set(table.groups[table.y == c])) for c in range(len(table.classes))]


def _listed(table: Table) -> str:
    counts = sorted(zip(_groups_by_class(table), table.classes, strict=True))
    more = (
        f" and {len(counts) - MOST_LISTED} classes with as many or more" if len(counts) > MOST_LISTED else ""
    )
    return ", ".join(f"{name} {count}" for count, name in counts[:MOST_LISTED]) + more


def _has_every_class(table: Table, rows: NDArray[np.intp]) -> bool:
    return not _absent(table, rows)


def _absent(table: Table, rows: NDArray[np.intp]) -> list[str]:
    present = set(table.y[rows].tolist())
    return [name for c, name in enumerate(table.classes) if c not in present]


def _losses(table: Table) -> str:
    """What each class has lost to the quarantine, where the table knows it."""
    told = [finding.message for finding in getattr(table, "findings", ()) if finding.code == "FS301"]
    return f" {told[0]}" if told else ""
