"""Class moments of projected vectors: what hospitals can add up to fit one linear model, without a vector leaving.

A linear discriminant needs of each class the number of images, the mean of their vectors and their scatter around it.
Those of several hospitals together follow from those of each, so the model is that of all images together, exactly.
Raw vectors have more columns than a class has images, and a scatter of so many columns would give the images away;
so every network's vector is first projected to a few dimensions by signs that are drawn from a seed alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore.fusion.linear import CONSTANT, LinearModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TOLERANCE = 1e-8
"""By how much, relatively, a scatter may fail to be that of any vectors: rounding, and no more."""
LARGEST = 1e30
"""No vector of a network has such numbers, and their squares are still numbers."""


def sign_projection(name: str, width: int, dimensions: int, seed: int) -> Floats:
    """Projection of a network's vectors ``(width, dimensions)``: signs over the root of `width`, alike everywhere.

    Parameters
    ----------
    name
        Of the network: each has signs of its own.
    width, dimensions
        Of its vector, and of what is kept of it.
    seed
        Of the signs.

    References
    ----------
    Achlioptas 2003, "Database-friendly random projections", J. Computer and System Sciences 66(4).
    """
    key = int.from_bytes(hashlib.sha256(f"featstore moments {seed} {name}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(-(-width * dimensions // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")[: width * dimensions]
    signs: Floats = (2.0 * bits - 1.0).reshape(width, dimensions) / np.sqrt(width)
    return signs


@dataclass(frozen=True, slots=True, eq=False)
class ClassMoments:
    """Mean and scatter of the images of one class.

    Attributes
    ----------
    images, patients
        How many.
    mean
        ``(k,)`` float64, of the projected vectors.
    scatter
        ``(k, k)`` float64, the sum of the outer products of their differences from it.
    """

    images: int
    patients: int
    mean: Floats
    scatter: Floats

    @classmethod
    def of(cls, projected: Floats, groups: NDArray[Any]) -> Self:
        """Moments of projected vectors ``(n, k)`` of patients ``(n,)``."""
        mean = projected.mean(axis=0)
        away = projected - mean
        return cls(len(projected), len(np.unique(groups)), mean, away.T @ away)

    def __post_init__(self) -> None:
        """Refuse what is no scatter of any vectors.

        Raises
        ------
        ValueError
            If counts, shapes or values do not belong together.
        """
        k = len(self.mean)
        if not 1 <= self.patients <= self.images or self.scatter.shape != (k, k):
            raise ValueError("counts and shapes do not belong together")
        if not ((np.abs(self.mean) < LARGEST).all() and (np.abs(self.scatter) < LARGEST).all()):
            raise ValueError("a number is too large or none")
        size = max(float(np.abs(self.scatter).max()), np.finfo(float).tiny)
        if np.abs(self.scatter - self.scatter.T).max() > TOLERANCE * size:
            raise ValueError("the scatter is not symmetric")
        if np.linalg.eigvalsh((self.scatter + self.scatter.T) / 2)[0] < -TOLERANCE * size * k:
            raise ValueError("the scatter is not that of any vectors")

    def __add__(self, other: Self) -> Self:
        """Moments of the images of both, of different patients.

        References
        ----------
        Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", The American Statistician 37(3).
        """
        images = self.images + other.images
        away = other.mean - self.mean
        return type(self)(
            images,
            self.patients + other.patients,
            self.mean + away * (other.images / images),
            self.scatter + other.scatter + np.outer(away, away) * (self.images * other.images / images),
        )


def oracle_shrinkage(covariance: Floats, n: int) -> float:
    """Share by which a covariance of `n` observations is moved to a multiple of the identity, from itself alone.

    References
    ----------
    Chen, Wiesel, Eldar & Hero 2010, "Shrinkage algorithms for MMSE covariance estimation", IEEE Trans. Signal
    Processing 58(10); OAS, as `sklearn.covariance.oas` has it.
    """
    p = len(covariance)
    alpha, mean = float((covariance**2).mean()), float(np.trace(covariance)) / p
    denominator = (n + 1.0) * (alpha - mean**2 / p)
    return 1.0 if denominator <= 0 else min((alpha + mean**2) / denominator, 1.0)


def discriminants(
    moments: Sequence[ClassMoments], projections: Sequence[Floats]
) -> tuple[LinearModel, float]:
    """Linear discriminants of the classes, as one linear model of the raw vectors, and the shrinkage.

    Columns are standardised by all images together, as their moments tell. The covariance within the classes is
    shrunk as for so many patients, not images. Where a vector enters, the mean of training is known in the projection
    alone; of all vectors with that projection the model holds the shortest.

    Parameters
    ----------
    moments
        Of each class, in order.
    projections
        Of each network, in the order of the columns.

    Raises
    ------
    ValueError
        If no column varies.
    """
    everyone = reduce(add, moments)
    images, mean = everyone.images, everyone.mean
    variance = np.diag(everyone.scatter) / images
    varies = variance > CONSTANT**2 * np.maximum(mean**2, np.finfo(float).tiny)
    if not varies.any():
        raise ValueError("no column varies")
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
    means = np.stack([one.mean for one in moments])
    within = np.sum([one.scatter for one in moments], axis=0) / images
    covariance: Floats = within * np.outer(scale, scale)
    shrinkage = oracle_shrinkage(covariance, everyone.patients)
    k = len(mean)
    target = float(np.trace(covariance)) / k
    shrunk = (1 - shrinkage) * covariance + shrinkage * target * np.eye(k)
    centres = (means - mean) * scale
    axes = np.linalg.solve(shrunk, centres.T).T
    share = np.array([one.images for one in moments]) / images
    intercept = np.log(share) - (axes * centres).sum(axis=1) / 2
    if len(moments) == 2:  # noqa: PLR2004
        axes, intercept = axes[1:] - axes[:1], intercept[1:] - intercept[:1]
    edges = np.cumsum([part.shape[1] for part in projections])[:-1]
    coef = [
        weights @ part.T
        for weights, part in zip(np.split(axes * scale, edges, axis=1), projections, strict=True)
    ]
    middle = [
        part @ np.linalg.solve(part.T @ part, own)
        for part, own in zip(projections, np.split(mean, edges), strict=True)
    ]
    width = sum(map(len, middle))
    return LinearModel(
        np.concatenate(coef, axis=1), intercept, np.concatenate(middle), np.ones(width)
    ), shrinkage
