"""For patients: the mean vector of a patient's images, then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featstore.fusion.linear import LinearStrategy, PooledLogits, fit_logistic, number_bags
from featstore.fusion.strategies.concat_logreg import AUTO, GRID, choose_penalty
from featstore.fusion.strategy import beyond_grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from featstore.types import Block


class MeanVector(PooledLogits, LinearStrategy):
    """Feature-level fusion for patients: `ConcatLogreg` on the mean vector of all images (and views) of a patient.

    Every patient is one row of the fit and counts once, however many images there are. Its model is linear, so that a
    patient's logit is the mean of those of the images; each of them has the same weight.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        Inverse strength of the penalty, as of `ConcatLogreg`; "auto" chooses it on inner folds over patients.

    Attributes
    ----------
    C_
        The C in force.
    model_
        The fitted `LinearModel` over all columns, of a patient's mean vector or of an image by itself.
    PRESETS
        Named parameters; ``tuned`` chooses C.

    References
    ----------
    Mean pooling of instances under one linear model: Gartner, Flach, Kowalczyk & Smola 2002, Multi-instance kernels,
    ICML (the normalised set kernel of a linear kernel).

    Examples
    --------
    Two images of each patient, answered together:

    >>> import numpy as np
    >>> from featstore.fusion.strategies.mean_vector import MeanVector
    >>> rng = np.random.default_rng(0)
    >>> y, patients = np.repeat([0, 1], 20), np.arange(40) // 2
    >>> X = rng.normal(size=(40, 8)) + y[:, None]
    >>> proba = MeanVector().fit(X, y, groups=patients).predict_patients(X, patients)
    >>> proba.shape, bool((proba[0] == proba[1]).all())
    ((40, 2), True)
    """

    level: ClassVar[str] = "feature"
    unit: ClassVar[str] = "group"
    price: ClassVar[float] = 0.6
    copies: ClassVar[float] = 2.0
    squares: ClassVar[float] = 2.0
    min_blocks: ClassVar[int] = 1
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tuned": {"C": AUTO}}

    def __init__(self, blocks: tuple[Block, ...] | None = None, C: float | str = 5.0) -> None:
        self.blocks = blocks
        self.C = C

    def at_edge(self) -> tuple[str, float, float] | None:
        """C, if "auto" chose the smallest or the largest of its grid."""
        check_is_fitted(self)
        return beyond_grid("C", self.C_, GRID) if self.C == AUTO else None

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        numbers = number_bags(y, groups)
        first = np.unique(numbers, return_index=True)[1]
        means = np.zeros((len(first), X.shape[1]))
        np.add.at(means, numbers, X)
        means /= np.bincount(numbers)[:, None]
        self.C_ = choose_penalty(
            means, y[first], self.blocks_, self.C, None if groups is None else groups[first]
        )
        self.model_ = fit_logistic(means, y[first], self.blocks_, self.C_)
