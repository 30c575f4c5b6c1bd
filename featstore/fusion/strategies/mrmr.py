"""Select columns by relevance over redundancy (mRMR), then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.feature_selection import f_classif
from sklearn.utils.validation import check_is_fitted

from featstore.errors import UsageError
from featstore.fusion.linear import LinearModel, fit_logistic, rescale, standardise
from featstore.fusion.strategy import FusionStrategy
from featstore.types import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CANDIDATES_PER_COLUMN = 10


class Mrmr(FusionStrategy):
    """Feature-level fusion by selection: columns that tell the classes apart and do not repeat each other.

    Minimum redundancy, maximum relevance: the first column has the highest F statistic, each further one the
    highest F divided by its mean absolute correlation with those already chosen (the quotient form, FCQ; F has
    no upper limit, so a difference would hardly see the redundancy). Only the ten times `n_columns` most
    relevant columns are candidates. The model is small and can be listed; what is chosen varies from fold to
    fold, and dropping thousands of weakly informative columns usually costs accuracy. The price is below that
    of `ConcatLogreg`.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        As in `ConcatLogreg`, over the chosen columns as one block.
    n_columns
        Columns to choose, 1 or more; all where there are fewer.

    Attributes
    ----------
    chosen_
        Column numbers, in the order they were chosen.
    model_
        The `LinearModel` over the chosen columns.

    References
    ----------
    Peng, Long & Ding 2005, IEEE TPAMI 27(8); the F statistic and the quotient: Ding & Peng 2005, J.
    Bioinformatics and Computational Biology 3(2).
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.3
    copies: ClassVar[float] = 7.6
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1

    def __init__(self, blocks: tuple[Block, ...] | None = None, C: float = 5.0, n_columns: int = 200) -> None:
        self.blocks = blocks
        self.C = C
        self.n_columns = n_columns

    def linear_logits(self) -> LinearModel:
        """Its logits are a linear function of the columns: nought of those that were not chosen."""
        check_is_fitted(self)
        model: LinearModel = self.model_
        coef = np.zeros((len(model.coef), self.n_features_in_))
        mean, scale = np.zeros((2, self.n_features_in_))
        coef[:, self.chosen_], mean[self.chosen_], scale[self.chosen_] = model.coef, model.mean, model.scale
        return LinearModel(coef, model.intercept, mean, scale)

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        if self.n_columns < 1:
            raise UsageError(f"n_columns={self.n_columns} chooses none.", "Set n_columns=200.")
        self.chosen_ = choose(X, y, self.n_columns)
        self.model_ = fit_logistic(X[:, self.chosen_], y, (Block("chosen", 0, len(self.chosen_)),), self.C)

    def _predict_proba(self, X: NDArray[Any]) -> Floats:
        return self.model_.proba(X[:, self.chosen_])


def choose(X: NDArray[Any], y: NDArray[np.intp], n_columns: int) -> NDArray[np.intp]:
    """Numbers ``(m,)`` of the chosen columns of ``X (n, d)``, m = min(n_columns, d), best first."""
    mean, scale = standardise(X, [Block(str(i), i, i + 1) for i in range(X.shape[1])])
    relevance = _relevance(X, y, mean, scale)
    candidates = np.argsort(-relevance, kind="stable")[: CANDIDATES_PER_COLUMN * n_columns]
    unit = rescale(X[:, candidates], mean[candidates], scale[candidates])
    value, redundancy = relevance[candidates], np.zeros(len(candidates))
    open_ = np.ones(len(candidates), np.bool_)
    chosen = [0]
    for size in range(1, min(n_columns, len(candidates))):
        open_[chosen[-1]] = False
        redundancy += np.abs(unit.T @ unit[:, chosen[-1]]) / len(X)
        merit = value / np.maximum(redundancy / size, 1e-3)
        chosen.append(int(np.where(open_, merit, -np.inf).argmax()))
    return candidates[chosen]


def _relevance(X: NDArray[Any], y: NDArray[np.intp], mean: Floats, scale: Floats) -> Floats:
    """F statistics ``(d,)``, 0 for constant columns."""
    varies = np.flatnonzero(scale)
    relevance = np.zeros(X.shape[1])
    if varies.size:
        with np.errstate(divide="ignore"):  # a column that is the same within each class
            relevance[varies] = f_classif((X[:, varies] - mean[varies]) * scale[varies], y)[0]
    largest = np.finfo(float).max ** 0.5
    return np.nan_to_num(relevance, nan=0.0, posinf=largest)
