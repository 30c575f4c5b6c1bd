"""Covariance of the AUCs of many contestants on the same images, without resampling.

One image per patient: DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988. Several: Obuchowski, Biometrics 53, 1997,
which sums the same components over each patient first, so that images of a patient may depend on each other; with one
image per patient its formula *is* DeLong's, so there is one function for both. Components by mid-ranks, which is what
makes it quick: Sun & Xu, IEEE Signal Processing Letters 21, 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


def auc_covariance(
    truth: NDArray[np.bool_], values: Vector, groups: NDArray[np.str_]
) -> tuple[Vector, Vector]:
    """AUC of each contestant, and the covariance of these AUCs over samples of patients.

    Parameters
    ----------
    truth
        ``(n,)`` whether an image is positive.
    values
        ``(contestants, n)`` score that should be higher for positives.
    groups
        ``(n,)`` patient of each image.

    Returns
    -------
    AUCs ``(contestants,)`` and covariances ``(contestants, contestants)``; not finite where there are fewer than
    two patients with positive, or with negative, images.
    """
    above, below = _placements(truth, values)
    areas = above.mean(axis=1)
    of_ill, n_ill = _sum_by_group(above - areas[:, None], groups[truth])
    of_well, n_well = _sum_by_group(below - areas[:, None], groups[~truth])
    ill, well = truth.sum(), (~truth).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        within = np.float64(n_ill) / (n_ill - 1) / ill**2 * (of_ill @ of_ill.T)
        within = within + np.float64(n_well) / (n_well - 1) / well**2 * (of_well @ of_well.T)
    return areas, within + _mixed(above, below, areas, truth, groups)


def _placements(truth: NDArray[np.bool_], values: Vector) -> tuple[Vector, Vector]:
    """Share of negatives that each positive beats, and of positives that beat each negative; ties count one half."""
    from scipy.stats import rankdata

    together = rankdata(values, axis=1)
    ill, well = values[:, truth], values[:, ~truth]
    above = (together[:, truth] - rankdata(ill, axis=1)) / well.shape[1]
    below = 1 - (together[:, ~truth] - rankdata(well, axis=1)) / ill.shape[1]
    return above, below


def _sum_by_group(parts: Vector, groups: NDArray[np.str_]) -> tuple[Vector, int]:
    names, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), len(parts)))
    np.add.at(sums, index, parts.T)
    return sums.T, len(names)


def _mixed(
    above: Vector, below: Vector, areas: Vector, truth: NDArray[np.bool_], groups: NDArray[np.str_]
) -> Vector:
    """Obuchowski's S11: patients with positive and negative images both tie the two halves together."""
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2 or not np.intersect1d(groups[truth], groups[~truth]).size:  # noqa: PLR2004
        return np.zeros((len(areas), len(areas)))
    of_ill, of_well = np.zeros((2, len(names), len(areas)))
    np.add.at(of_ill, index[truth], (above - areas[:, None]).T)
    np.add.at(of_well, index[~truth], (below - areas[:, None]).T)
    cross = of_ill.T @ of_well
    scale = len(names) / (len(names) - 1) / (truth.sum() * (~truth).sum())
    mixed: Vector = scale * (cross + cross.T)
    return mixed
