"""Projections of a block onto a few axes, and the logistic regression behind them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from featstore.errors import UsageError
from featstore.fusion.blocks import split
from featstore.fusion.linear import LinearModel, scaled_block, solve_logistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.fusion.blocks import Block

    Floats = NDArray[np.float64]

# Directions with less than this part of the first one's spread are rounding.
NEGLIGIBLE = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Scores ``((x - mean) * scale) @ axes`` of one block; all arrays float64.

    Attributes
    ----------
    axes
        ``(width, n_axes)``.
    mean, scale
        ``(width,)`` each.

    Raises
    ------
    ValueError
        If the shapes do not belong together or a number is not finite.
    """

    axes: Floats
    mean: Floats
    scale: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that could not project."""
        width = (self.axes.shape[0],)
        if self.axes.ndim != 2 or self.mean.shape != width or self.scale.shape != width:  # noqa: PLR2004
            raise ValueError(
                f"axes {self.axes.shape}, mean {self.mean.shape}, scale {self.scale.shape} do not match"
            )
        for field in fields(self):
            array = getattr(self, field.name)
            if array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"{field.name} must be finite float64")

    def score(self, part: NDArray[Any]) -> Floats:
        """Scores ``(n, n_axes)`` of the columns ``(n, width)`` of the block."""
        scores: Floats = ((part - self.mean) * self.scale) @ self.axes
        return scores


def principal_axes(Z: Floats, n_axes: int, random_state: int | np.random.RandomState | None) -> Floats:
    """First principal axes ``(width, m)`` of centred columns ``(n, width)``, m at most `n_axes` and the rank.

    scikit-learn's PCA, whose ``svd_solver="auto"`` is exact for small blocks and randomised (Halko, Martinsson
    & Tropp 2011) for large ones.
    """
    if n_axes < 1:
        raise UsageError(f"{n_axes} components are too few.", "Ask for at least one.")
    pca = PCA(min(n_axes, *Z.shape), random_state=random_state).fit(Z)
    spread = pca.singular_values_
    axes: Floats = pca.components_[spread > NEGLIGIBLE * max(spread[0], NEGLIGIBLE)].T
    return axes if axes.size else np.zeros((Z.shape[1], 1))


def principal_parts(
    X: NDArray[Any],
    blocks: Sequence[Block],
    mean: Floats,
    scale: Floats,
    n_axes: int,
    random_state: int | np.random.RandomState | None,
) -> tuple[list[Floats], list[Floats]]:
    """Principal axes ``(width, m)`` and scores ``(n, m)`` of each standardised block."""
    axes, scores = [], []
    for block in blocks:
        scaled = scaled_block(X, block, mean, scale)
        axes.append(principal_axes(scaled, n_axes, random_state))
        scores.append(scaled @ axes[-1])
    return axes, scores


def fit_concatenated(
    scores: Sequence[Floats],
    axes: Sequence[Floats],
    y: NDArray[np.intp],
    C: float,
    mean: Floats,
    scale: Floats,
) -> LinearModel:
    """Logistic regression on the blocks' scores side by side, each block weighed to a total variance of one.

    A projection followed by a linear model is a linear model of the columns, so that is what comes back.

    Parameters
    ----------
    scores
        ``(n, m)`` of each block, centred.
    axes
        ``(width, m)`` of each block.
    y, C
        As for `featstore.fusion.linear.fit_logistic`.
    mean, scale
        ``(d,)`` of all columns.
    """
    weights = [weight_of(part) for part in scores]
    joined = np.concatenate([part * weight for part, weight in zip(scores, weights, strict=True)], axis=1)
    coef, intercept = solve_logistic(joined, y, C)
    parts = np.split(coef, np.cumsum([part.shape[1] for part in scores])[:-1], axis=1)
    columns = [part @ (axis * weight).T for part, axis, weight in zip(parts, axes, weights, strict=True)]
    return LinearModel(np.concatenate(columns, axis=1), intercept, mean, scale)


def fit_merged(scores: Floats, y: NDArray[np.intp], C: float) -> LinearModel:
    """Logistic regression on merged scores ``(n, m)``, centred and weighed to a total variance of one."""
    mean = scores.mean(axis=0)
    scale = np.full(len(mean), weight_of(scores))
    return LinearModel(*solve_logistic((scores - mean) * scale, y, C), mean, scale)


def weight_of(scores: Floats) -> float:
    """Factor that gives ``(n, m)`` scores a total variance of one; 0 where they do not vary."""
    total = float(scores.var(axis=0).sum())
    return total**-0.5 if total > NEGLIGIBLE**2 else 0.0


def project(X: NDArray[Any], blocks: Sequence[Block], projections: Sequence[Projection]) -> list[Floats]:
    """Scores ``(n, m)`` of each block."""
    return [projection.score(part) for projection, part in zip(projections, split(X, blocks), strict=True)]
