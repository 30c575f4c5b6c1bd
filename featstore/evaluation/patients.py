"""Patients as the unit that is scored: from the probabilities of a patient's images to one answer about the patient.

A physician decides per patient, and a patient with forty slices must not count forty times. How images become one
answer is fixed in advance, by name, and is no part of the fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featstore.errors import AuditError, UnknownNameError, UsageError, did_you_mean
from featstore.findings import quoted
from featstore.types import IMAGE, UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import EvaluationDesign
    from featstore.matrix import FeatureMatrix
    from featstore.splits import LabelledImages, Split
    from featstore.types import ImageRecord

    Vector = NDArray[np.float64]
    Rows = NDArray[np.intp]

# How the images of a patient become one answer

MEAN_LOGIT, MEAN, MAX, TOP, NOISY_OR = POOLS = ("mean-logit", "mean", "max", "top-3", "noisy-or")
"""Ways to pool; of ``top-3`` the number is free."""
_TOP = re.compile(r"top-([1-9]\d{0,3})")
SURE = 1e-6
"""No image is taken to be surer than this, so that none outweighs all others in a mean of logits."""


def require_unit(unit: str, pool: str | None) -> str | None:
    """Return the way of pooling that is meant: `MEAN_LOGIT` for patients unless another is named, None for images.

    Raises
    ------
    UsageError
        If the unit or the way does not exist, or images are to be scored and a way of pooling is named.
    """
    if unit not in UNITS:
        raise UnknownNameError(f"There is no unit {unit!r}.", did_you_mean(unit, UNITS))
    if unit == IMAGE:
        if pool is not None:
            raise UsageError(f"--pool {pool} is for patients, and images are scored.", "Add --unit group.")
        return None
    return require_pool(pool or MEAN_LOGIT)


def is_pool(pool: str) -> bool:
    """Whether images can be pooled so."""
    return pool in POOLS or _TOP.fullmatch(pool) is not None


def require_pool(pool: str) -> str:
    """Return the way of pooling, if there is one of that name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if not is_pool(pool):
        raise UnknownNameError(f"There is no way of pooling {pool!r}.", did_you_mean(pool, POOLS))
    return pool


def pool_images(proba: Vector, numbers: Rows, pool: str, positive: int | None = None) -> Vector:
    """Probabilities of patients from those of their images.

    Parameters
    ----------
    proba
        ``(n, classes)``, each row summing to one.
    numbers
        ``(n,)`` number of the patient of each image; all of ``0 .. patients-1`` are there.
    pool
        ``mean-logit``: the mean of the log-probabilities, rescaled, which for two classes is the mean of the logits;
        ``mean``: of the probabilities; ``max``: that of the image which speaks most for the positive class;
        ``top-3``: the mean over the three that do; ``noisy-or``: one less the product of what speaks against, as if
        images erred independently. With `mean-logit` no probability counts for less than a millionth.
    positive
        Index of the class that the last three ask about, of two; None takes each class for itself and rescales.

    Returns
    -------
    ``(patients, classes)`` float64, each row summing to one. A patient of one image has the answer of that image but
    for rounding.
    """
    count = int(numbers.max()) + 1 if len(numbers) else 0
    if pool == MEAN_LOGIT:
        logs = _mean(np.log(np.clip(proba, SURE, None)), numbers, count)
        return _rescaled(np.exp(logs - logs.max(axis=1, keepdims=True)))
    if pool == MEAN:
        return _mean(proba, numbers, count)
    two = proba.shape[1] == 2 and positive is not None  # noqa: PLR2004
    asked = proba[:, positive : positive + 1] if positive is not None and two else proba
    if pool == NOISY_OR:
        against = np.zeros((count, asked.shape[1]))
        np.add.at(against, numbers, np.log1p(-np.clip(asked, 0.0, 1 - np.finfo(np.float64).eps)))
        pooled = -np.expm1(against)
    else:
        most = 1 if pool == MAX else int(pool.removeprefix("top-"))
        pooled = np.concatenate([_largest(asked[numbers == at], most) for at in range(count)])
    if not two:
        return _rescaled(pooled)
    whole = np.repeat(1 - pooled, 2, axis=1)
    whole[:, positive] = pooled[:, 0]
    return whole


def _mean(values: Vector, numbers: Rows, count: int) -> Vector:
    """Means ``(count, classes)``; the same values in the same shares give the same mean, to the last bit.

    A sum over three images rounds otherwise than one over four, and would rank patients who are equal.
    """
    images = np.bincount(numbers, minlength=count)
    mean = np.empty((count, values.shape[1]))
    for c, column in enumerate(values.T):
        order = np.lexsort((column, numbers))
        at, ascending = numbers[order], column[order]
        runs = np.flatnonzero(np.diff(at, prepend=-1) | (np.diff(ascending, prepend=np.nan) != 0))
        least = ascending[np.flatnonzero(np.diff(at, prepend=-1))]
        shares = np.diff(runs, append=len(at)) / images[at[runs]]
        above = shares * (ascending[runs] - least[at[runs]])
        mean[:, c] = least + np.bincount(at[runs], above, count)
    return mean


def _largest(values: Vector, most: int) -> Vector:
    top = np.sort(values, axis=0)[-most:]
    return _mean(top, np.zeros(len(top), np.intp), 1)


def _rescaled(values: Vector) -> Vector:
    total = values.sum(axis=1, keepdims=True)
    scaled: Vector = np.divide(values, total, out=np.full(values.shape, 1 / values.shape[1]), where=total > 0)
    return scaled


# Patients of a data set


@dataclass(frozen=True, slots=True, eq=False)
class Patients:
    """The patients of a data set, as a table that is scored like one of images.

    Attributes
    ----------
    records
        The first image of each.
    classes
        Names of the classes.
    y
        ``(patients,)`` true class index.
    groups
        ``(patients,)`` their names, sorted.
    number
        ``(images,)`` number of the patient of each image.
    pool
        How images become one answer: `pool_images`.
    positive
        The positive class, None for averages.
    """

    records: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    y: Rows
    groups: NDArray[np.str_]
    number: Rows
    pool: str
    positive: int | None

    def rows(self, images: Rows) -> Rows:
        """Numbers of the patients who have these images, sorted."""
        return np.unique(self.number[images])

    def pooled(self, proba: Vector, images: Rows) -> Vector:
        """Probabilities of `rows` from those of the images."""
        return pool_images(
            proba, np.unique(self.number[images], return_inverse=True)[1], self.pool, self.positive
        )

    def split(self, split: Split) -> Split:
        """The same fold over patients."""
        train, test = split
        return self.rows(train), self.rows(test)

    def design(self, design: EvaluationDesign) -> EvaluationDesign:
        """The same folds over patients."""
        splits = [self.split(one) for one in design.splits]
        return replace(design, y=self.y, groups=self.groups, splits=splits)

    def pooled_folds(self, proba: Sequence[Vector], splits: Sequence[Split]) -> list[Vector]:
        """Probabilities of the patients of each fold from those of its test images."""
        return [self.pooled(values, test) for values, (_, test) in zip(proba, splits, strict=False)]

    @property
    def by_class(self) -> dict[str, int]:
        """Patients by class."""
        return {name: int((self.y == c).sum()) for c, name in enumerate(self.classes)}


def patients_of(matrix: FeatureMatrix, pool: str, positive: int | None) -> Patients:
    """Return the patients behind the images of a matrix.

    Raises
    ------
    AuditError
        If no patients are known, or one has images of several classes.
    """
    if not matrix.has_groups:
        raise AuditError(
            "No patients (groups) are known, so that none can be scored.",
            "Name them, --columns group=patient_id or --group-pattern; or leave out --unit group.",
        )
    return _patients(matrix, pool, positive)


def patients_unless_torn(matrix: FeatureMatrix, pool: str, positive: int | None) -> Patients | None:
    """The same; None where one has images of several classes, or none are known."""
    try:
        return patients_of(matrix, pool, positive)
    except AuditError:
        return None


def _patients(table: LabelledImages, pool: str, positive: int | None) -> Patients:
    names, first, number = np.unique(table.groups, return_index=True, return_inverse=True)
    y = table.y[first]
    torn = np.unique(number[table.y != y[number]])
    if len(torn):
        example = int(torn[0])
        classes = [table.classes[c] for c in np.unique(table.y[number == example])]
        raise AuditError(
            f"{len(torn)} of {len(names)} patients (groups) have images of several classes, for example"
            f" {quoted([str(names[example])])}: {quoted(classes)}. A patient has one.",
            "Score images, without --unit group; or give all images of a patient one label.",
        )
    return Patients(
        tuple(table.records[at] for at in first),
        tuple(table.classes),
        y,
        names,
        number,
        pool,
        positive,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What is scored of a data set: its images, or its patients.

    Attributes
    ----------
    images
        The table of images.
    patients
        Its patients; None where images are scored.
    """

    images: LabelledImages
    patients: Patients | None = None

    @property
    def noun(self) -> str:
        """What each row of `table` is, in a sentence."""
        return "images" if self.patients is None else "patients"

    @property
    def table(self) -> LabelledImages:
        """The table that scores are about."""
        return self.images if self.patients is None else self.patients

    def rows(self, images: Rows) -> Rows:
        """Rows of `table` that images belong to."""
        return images if self.patients is None else self.patients.rows(images)

    def pooled(self, proba: Vector, images: Rows) -> Vector:
        """Probabilities of `rows` from those of the images."""
        return proba if self.patients is None else self.patients.pooled(proba, images)
