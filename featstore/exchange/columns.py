"""Which columns of a foreign table are features: not those that count its rows or tell its classes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

NAMELESS = re.compile(
    r"\s*|unnamed: ?\d+(_level_\d+)?|__index_level_\d+__|level_\d+|\(column \d+\)", re.IGNORECASE
)
"""Headers that pandas gives to what has no name: first of all to the row numbers."""
NO_FEATURE = frozenset({
    "label", "labels", "class", "classes", "classname", "class_name", "class_id", "class_index",
    "class_label", "category", "target", "targets", "y", "y_true", "ytrue", "truth", "ground_truth", "gt",
    "diagnosis", "outcome", "status", "dx", "split", "fold", "folds", "set", "subset", "partition", "phase",
    "is_train", "is_test", "train", "test", "val", "group", "groups", "patient", "patients", "patient_id",
    "patientid", "subject", "subjects", "subject_id", "subjectid", "case", "case_id", "study", "study_id",
    "series", "series_id", "site", "center", "centre", "hospital", "frame", "page", "slice", "id", "ids",
    "uid", "index", "idx", "row", "row_id", "row_number", "rownames", "no", "nr", "number", "path", "paths",
    "file", "files", "filename", "filenames", "name", "names", "image", "images", "image_id", "image_path",
    "filepath", "prediction", "pred", "y_pred", "predicted",
})  # fmt: skip
"""Columns that are called so are about the row; what they hold is no feature of the picture."""
FEWEST = 6
"""Rows below which numbers that happen to count, or to follow the class, are taken for chance."""
SURE = 12
"""Rows from which numbers that only ever rise, or fall, cannot be chance even among thousands of columns."""
LISTED = 10


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Columns that are taken, and those that are not.

    Attributes
    ----------
    values
        ``(n, d)``.
    names
        Of the columns of `values`.
    unused
        Name and reason of every column that is left out.
    doubtful
        Name and reason of every column that was taken only because it was named.
    """

    values: NDArray[Any]
    names: tuple[str, ...]
    unused: dict[str, str]
    doubtful: dict[str, str]


def select(
    values: NDArray[Any],
    names: Sequence[str],
    labels: Sequence[str],
    *,
    named: bool,
    ignore: Sequence[str] = (),
) -> Selection:
    """Sort out the columns of a table.

    Parameters
    ----------
    values
        ``(n, d)`` numbers.
    names
        Of the columns.
    labels
        Class of each row.
    named
        Whether the caller named these columns one by one; then all are taken.
    ignore
        Names of columns to leave out, or patterns with ``*``.

    Raises
    ------
    UsageError
        If nothing is left, or `ignore` names what is not there.
    """
    dropped = {name: "--ignore" for pattern in ignore for name in matching(pattern, names, "--ignore")}
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
    order = np.argsort(classes, kind="stable")
    doubts = {
        name: why
        for at, name in enumerate(names)
        if name not in dropped and (why := doubt(name, values[:, at], classes, order))
    }
    unused = dropped if named else {**dropped, **doubts}
    kept = [at for at, name in enumerate(names) if name not in unused]
    if not kept:
        raise UsageError(
            f"No column of features is left: {listed(unused)}.",
            "Name those that are features all the same: --features A,B, or with a pattern: --features 'f*'.",
        )
    whole = len(kept) == len(names)
    return Selection(
        values if whole else values[:, kept],
        tuple(names[at] for at in kept),
        {name: unused[name] for name in names if name in unused},
        doubts if named else {},
    )


def doubt(name: str, column: NDArray[Any], classes: NDArray[np.intp], order: NDArray[np.intp]) -> str:
    """Why a column is probably no feature; empty if nothing speaks against it.

    Parameters
    ----------
    name, column
        The column.
    classes
        ``(n,)`` number of each row's class.
    order
        The rows, class by class.
    """
    called = name.strip().casefold()
    if NAMELESS.fullmatch(called):
        return "it has no name, as row numbers have"
    if re.sub(r"[\s.-]+", "_", called) in NO_FEATURE:
        return "it is called like a label, a split, a patient or a row number"
    if counts_rows(column):
        return "it counts the rows"
    if tells_class(column[order], classes[order]):
        return "its values tell the class"
    return ""


def counts_rows(column: NDArray[Any]) -> bool:
    """Whether a column is a row number, a counter, or one that was shuffled."""
    rows = len(column)
    if rows < FEWEST or not np.isfinite(column).all():
        return False
    steps = np.diff(column.astype(np.float64))
    if rows >= SURE and ((steps > 0).all() or (steps < 0).all()):
        return True
    if not (np.mod(column, 1) == 0).all():
        return False
    even = bool((steps == steps[0]).all()) and steps[0] != 0
    return even or bool((np.diff(np.sort(column)) == 1).all())


def tells_class(column: NDArray[Any], classes: NDArray[np.intp]) -> bool:
    """Whether a column is a label in numbers: one value within each class, or a few of which each is of one class.

    Parameters
    ----------
    column, classes
        Values and classes of the rows, sorted by class.
    """
    starts = np.flatnonzero(np.diff(classes)) + 1
    if len(column) < FEWEST or not len(starts):
        return False
    parts = np.split(column, starts)
    distinct = [np.unique(part) for part in parts]
    if all(len(mine) == 1 for mine in distinct):
        return len({mine[0] for mine in distinct}) > 1
    repeats = all(2 * len(mine) <= len(part) for mine, part in zip(distinct, parts, strict=True))
    return repeats and len(np.unique(column)) == sum(map(len, distinct))


def matching(pattern: str, names: Sequence[str], option: str) -> list[str]:
    """Names that a pattern with ``*`` and ``?`` fits; one that has none of these fits itself.

    Raises
    ------
    UsageError
        If it fits none.
    """
    found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UsageError(
            f"{option} names {pattern!r}, and there is no such column of numbers.",
            f"Columns of numbers are: {listed(dict.fromkeys(names, ''))}.",
        )
    return found


def spanned(names: Sequence[str]) -> str:
    """``5 columns: f0 … f4``."""
    if len(names) == 1:
        return f"1 column: {names[0]}"
    return f"{len(names)} columns: {names[0]} … {names[-1]}"


def listed(reasons: dict[str, str]) -> str:
    """Names, each with its reason in brackets."""
    shown: Iterable[str] = (f"{name} ({why})" if why else name for name, why in [*reasons.items()][:LISTED])
    more = [f"{len(reasons) - LISTED} more"] if len(reasons) > LISTED else []
    return ", ".join([*shown, *more]) or "none"
