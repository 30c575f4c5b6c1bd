"""Concatenate the backbones' vectors, then a linear support vector machine with Platt scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.svm import SVC

from featstore.errors import UsageError
from featstore.fusion.decision import fold_numbers, out_of_fold, scale_decisions
from featstore.fusion.linear import LinearModel, LinearStrategy, gram, standardise, unfold

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]


class ConcatSvm(LinearStrategy):
    """Feature-level fusion by concatenation and a linear support vector machine.

    Columns and blocks are weighed as in `ConcatLogreg`. Only rows near the boundary decide where it lies. With
    more than two classes each is separated from the rest. A machine gives distances, not probabilities; those
    come from Platt scaling of the distances of rows in inner folds whose groups the machine had not seen.
    `predict` is the class with the highest probability. The price is `inner_folds` more fits, solved in n
    dimensions.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        Price of a row on the wrong side, as in `sklearn.svm.SVC`.
    inner_folds
        Folds over groups inside the training rows, for Platt scaling; 2 or more.
    random_state
        Seed of the inner folds. The default 0 makes two fits the same bytes.

    Attributes
    ----------
    model_
        Machine and scaling as one `LinearModel` over all columns.

    References
    ----------
    Cortes & Vapnik 1995, Machine Learning 20; probabilities: Platt 1999. On concatenated frozen networks: Attallah,
    Ragab & Sharkas 2020, PeerJ 8:e10086.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.5
    copies: ClassVar[float] = 1.2
    squares: ClassVar[float] = 0.0
    kernels: ClassVar[float] = 3.5
    min_blocks: ClassVar[int] = 1

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 1.0,
        inner_folds: int = 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.C = C
        self.inner_folds = inner_folds
        self.random_state = random_state

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        if self.inner_folds < 2:  # noqa: PLR2004
            raise UsageError(f"inner_folds={self.inner_folds} holds nobody out.", "Set inner_folds=3.")
        fold_of = fold_numbers(y, groups, self.inner_folds, self.random_state)
        slope, offset = scale_decisions(out_of_fold(self._separate, X, y, fold_of), y)
        machine = self._machine(X, y)
        self.model_ = LinearModel(
            slope @ machine.coef, slope @ machine.intercept + offset, machine.mean, machine.scale
        )

    def _separate(self, X: NDArray[Any], y: NDArray[np.intp]) -> Callable[[NDArray[Any]], Floats]:
        return self._machine(X, y).decision

    def _machine(self, X: NDArray[Any], y: NDArray[np.intp]) -> LinearModel:
        mean, scale = standardise(X, self.blocks_)
        products = gram(X, self.blocks_, mean, scale)
        labels = range(len(self.classes_)) if len(self.classes_) > 2 else (1,)  # noqa: PLR2004
        machines = [SVC(C=self.C, kernel="precomputed").fit(products, y == label) for label in labels]
        dual = np.zeros((len(X), len(machines)))
        for column, machine in enumerate(machines):
            dual[machine.support_, column] = machine.dual_coef_[0]
        intercept = np.array([machine.intercept_[0] for machine in machines])
        return LinearModel(unfold(dual, X, self.blocks_, mean, scale), intercept, mean, scale)
