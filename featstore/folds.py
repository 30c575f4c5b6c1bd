"""Splits that keep every group, and with it every view of an image, on one side (law 6)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featstore.errors import AuditError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from featstore.types import ImageRecord

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
    """Stratified folds over whole groups (scikit-learn's StratifiedGroupKFold), the same for every contestant.

    Returns
    -------
    ``folds * repeats`` pairs (training images, test images) of row indices; each image is tested once a repeat.

    Raises
    ------
    AuditError
        If there is one class only, or a class with fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if folds < 2 or repeats < 1:  # noqa: PLR2004
        raise UsageError(f"{folds} folds, {repeats} times over, is no cross-validation.", "Use --folds 5.")
    _require_groups(table, folds)
    splits: list[Split] = []
    for repeat in range(repeats):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + repeat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows per class were checked above, by group
            splits.extend(splitter.split(table.y, table.y, table.groups))
    for train, test in splits:
        _require_every_class(table, train, "training")
        _require_every_class(table, test, "test")
    return splits


def inner_folds(table: Table, train: NDArray[np.intp], folds: int, seed: int = 0) -> list[Split]:
    """Folds within the training images, over whole groups: for whatever is chosen from out-of-fold probabilities.

    As many folds as asked for, or as the rarest class has groups.

    Returns
    -------
    Pairs of row indices of `table`; together the second halves are `train`.

    Raises
    ------
    AuditError
        If a class has a single group there, or its groups fall so that a fold lacks a class to train on.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    y, groups = table.y[train], table.groups[train]
    fewest = min(len(set(groups[y == c])) for c in range(len(table.classes)))
    if fewest < 2:  # noqa: PLR2004
        raise AuditError(
            "The training images of a class are of one group, so nothing can be chosen on held-out ones.",
            "Leave out --calibrate, --sensitivity and --nested, or add patients.",
        )
    splitter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows per class were checked above, by group
        splits = [(train[rest], train[part]) for rest, part in splitter.split(y, y, groups)]
    for rest, _ in splits:
        _require_every_class(table, rest, "inner training")
    return splits


def hold_out(table: Table, test_size: float, seed: int = 0) -> dict[str, NDArray[np.intp]]:
    """Training and evaluation images: the manifest's own splits, else a group-stratified share of `test_size`.

    Returns
    -------
    Row indices by split name; ``train`` and at least one of ``val`` and ``test``.
    """
    named = np.array([record.split or "" for record in table.records])
    if (named != "").any():
        return _own_splits(table, named)
    if not 0 < test_size <= 0.5:  # noqa: PLR2004
        raise UsageError(
            f"A test share of {test_size} cannot be held out.", "Use a share such as --test-size 0.25."
        )
    train, test = group_folds(table, max(2, round(1 / test_size)), seed=seed)[0]
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
        _require_every_class(table, rows, name)
    return splits


def _require_groups(table: Table, folds: int) -> None:
    if len(table.classes) < 2:  # noqa: PLR2004
        raise AuditError(
            f"There is one class only: {table.classes[0]}.{_losses(table)}",
            "Give images of at least two classes.",
        )
    counts = {name: len(set(table.groups[table.y == c])) for c, name in enumerate(table.classes)}
    if min(counts.values()) < folds:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise AuditError(
            f"{folds} folds need at least {folds} groups (patients) in each class;"
            f" there are: {listed}.{_losses(table)}",
            f"Use --folds {max(2, min(counts.values()))}, or add patients to the smallest class.",
        )


def _losses(table: Table) -> str:
    """What each class has lost to the quarantine, where the table knows it."""
    told = [finding.message for finding in getattr(table, "findings", ()) if finding.code == "FS301"]
    return f" {told[0]}" if told else ""


def _require_every_class(table: Table, rows: NDArray[np.intp], side: str) -> None:
    absent = [name for c, name in enumerate(table.classes) if not (table.y[rows] == c).any()]
    if absent:
        raise AuditError(
            f"A {side} set came out without any image of {', '.join(absent)}.",
            "Use fewer folds or another --fold-seed, or check how groups and classes overlap.",
        )
