"""Uncertainty by resampling patients, not images.

Images of one patient are not independent, so a resample draws whole groups with replacement (cluster bootstrap:
Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The same resamples serve every
contestant, which makes differences between contestants paired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
BLOCK = 1 << 20
"""Weights that are held at once where resamples are drawn one block after the other."""
LEVEL = 0.95


def group_weights(groups: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """How often each image is drawn in each resample of the groups.

    Parameters
    ----------
    groups
        ``(n,)`` group of each image.

    Returns
    -------
    ``(resamples, n)`` float64, whole numbers.
    """
    names, index = np.unique(groups, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    return draws[:, index].astype(np.float64)


def weight_blocks(
    groups: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[NDArray[np.float64]]:
    """The rows of `group_weights`, a few at a time: memory does not grow with the number of images.

    Parameters
    ----------
    groups
        ``(n,)`` group of each image.
    """
    names, index = np.unique(groups, return_inverse=True)
    shares, rng = np.full(len(names), 1 / len(names)), np.random.default_rng(seed)
    step = max(1, BLOCK // len(index))
    for start in range(0, resamples, step):
        draws = rng.multinomial(len(names), shares, min(step, resamples - start))
        yield draws[:, index].astype(np.float64)


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval of resampled values; None where every resample lacked a class."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def overlap_factor(splits: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> float:
    """How much wider an interval over cross-validation must be than resampling the test images says.

    Folds share most of their training images, so their scores vary together when the sample changes: Nadeau and
    Bengio (Inference for the generalization error, Machine Learning 52, 2003) multiply the variance of the mean
    over J folds by ``1 + J * n_test / n_train``. One pass over all images makes that ``1 + n / n_train``, however
    often it is repeated.

    Parameters
    ----------
    splits
        Pairs (training images, test images).
    """
    if len(splits) == 1:
        return 1.0  # one test set: there is no mean over folds whose scores could vary together
    shares = [(len(train) + len(test)) / len(train) for train, test in splits]
    return float(np.sqrt(1 + np.mean(shares)))


def widen(values: NDArray[np.float64], centre: float, factor: float) -> NDArray[np.float64]:
    """Stretch resampled values and lay their median on the value that was seen.

    Resampling is noisier than the sample, which pushes some scores to one side (the calibration error up): the spread
    is to be believed, the shift is not.
    """
    finite = values[np.isfinite(values)]
    middle = np.median(finite) if finite.size else 0.0
    return centre + factor * (values - middle)
