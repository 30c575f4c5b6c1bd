"""Support-vector machine on a sum of one Gaussian kernel per backbone, whose weights are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from featstore.errors import UsageError
from featstore.fusion.decision import fold_numbers, out_of_fold, scale_decisions
from featstore.fusion.linear import probabilities, rescale, standardise
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

HARD = 1e9
"""C of a machine that lets no row be on the wrong side; a ridge on the kernel makes that possible."""


class KernelSvm(FusionStrategy):
    """Feature-level fusion by a support-vector machine whose kernel is a weighted sum of the backbones' kernels.

    Each backbone has a Gaussian kernel on its standardised columns, as wide as the columns are spread, so that the
    finding need not be linear in the features. How much a backbone counts is learned (EasyMKL): its weight is the
    squared distance that its kernel puts between the classes, seen from the rows that are hardest to tell apart,
    never negative and one together. As in `ConcatSvm` decisions are turned into probabilities by Platt scaling on
    inner folds over groups, in which weights are learned anew. The price is one kernel matrix per backbone, four
    small fits, and that the model keeps the vectors of its support vectors: its bundle is large, and it carries
    patients' features wherever it goes.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        Price of a row on the wrong side, as in `sklearn.svm.SVC`.
    gamma
        Of ``exp(-gamma |x - x'|^2)``, on columns that together have variance one.
    evenness
        From 0 (weights from the rows nearest to the other class alone) to 1 (from all rows alike). None takes the
        plain mean of the kernels.
    inner_folds
        Folds over groups inside the training rows, for Platt scaling; 2 or more.
    random_state
        Seed of the inner folds. The default 0 makes two fits the same bytes.

    Attributes
    ----------
    weights_
        ``(n_blocks,)`` of the kernels.
    rows_
        ``(m, d)`` float32 support vectors, standardised and weighed.
    dual_, intercept_
        ``(m, n_logits)`` and ``(n_logits,)``: logits are ``kernel @ dual_ + intercept_``.
    mean_, scale_
        ``(d,)`` what new rows are standardised by.

    References
    ----------
    Weights: Aiolli & Donini 2015, "EasyMKL", Neurocomputing 169; that the mean of kernels is hard to beat: Gonen &
    Alpaydin 2011, JMLR 12; probabilities: Platt 1999.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 2.1
    copies: ClassVar[float] = 2.2
    squares: ClassVar[float] = 0.0
    kernels: ClassVar[float] = 11.5
    min_blocks: ClassVar[int] = 1

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 1.0,
        gamma: float = 1.0,
        evenness: float | None = 0.2,
        inner_folds: int = 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.C = C
        self.gamma = gamma
        self.evenness = evenness
        self.inner_folds = inner_folds
        self.random_state = random_state

    def _fit(self, X: NDArray[Any], y: Rows, groups: Rows | None) -> None:
        if self.inner_folds < 2:  # noqa: PLR2004
            raise UsageError(f"inner_folds={self.inner_folds} holds nobody out.", "Set inner_folds=3.")
        if self.evenness is not None and not 0 < self.evenness <= 1:
            raise UsageError(
                f"evenness={self.evenness} is out of range.", "Set it above 0, at most 1, or None."
            )
        self.mean_, self.scale_ = standardise(X, self.blocks_)
        rows = rescale(X, self.mean_, self.scale_)
        kernels = self._kernels(rows, rows)
        fold_of = fold_numbers(y, groups, self.inner_folds, self.random_state)

        def separate(inside: Rows, classes: Rows) -> Callable[[Rows], Floats]:
            weights, dual, intercept = self._machine(kernels[:, inside[:, None], inside], classes)

            def decide(asked: Rows) -> Floats:
                decisions: Floats = (
                    np.tensordot(weights, kernels[:, asked[:, None], inside], 1) @ dual + intercept
                )
                return decisions

            return decide

        slope, offset = scale_decisions(out_of_fold(separate, np.arange(len(y)), y, fold_of), y)
        self.weights_, dual, intercept = self._machine(kernels, y)
        support = np.flatnonzero(dual.any(axis=1))
        self.rows_, self.dual_ = rows[support], dual[support] @ slope.T
        self.intercept_ = slope @ intercept + offset

    def _predict_proba(self, X: NDArray[Any]) -> Floats:
        kernels = self._kernels(rescale(X, self.mean_, self.scale_), self.rows_)
        proba: Floats = probabilities(np.tensordot(self.weights_, kernels, 1) @ self.dual_ + self.intercept_)
        return proba

    def _kernels(self, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Floats:
        """Kernel ``(n_blocks, rows, columns)`` of each backbone."""
        return np.stack(
            [
                rbf_kernel(
                    *(Z[:, block.start : block.stop].astype(float) for Z in (rows, columns)), self.gamma
                )
                for block in self.blocks_
            ]
        )

    def _machine(self, kernels: Floats, y: Rows) -> tuple[Floats, Floats, Floats]:
        """Weights of the kernels, dual coefficients ``(n, n_logits)`` and intercepts, from class numbers."""
        labels = range(len(self.classes_)) if len(self.classes_) > 2 else (1,)  # noqa: PLR2004
        weights = np.full(len(kernels), 1 / len(kernels))
        if self.evenness is not None and len(kernels) > 1:
            weights = np.mean(
                [kernel_weights(kernels, y == label, self.evenness) for label in labels], axis=0
            )
        products = np.tensordot(weights, kernels, 1)
        dual, intercept = np.zeros((len(y), len(labels))), np.zeros(len(labels))
        for at, label in enumerate(labels):
            machine = SVC(C=self.C, kernel="precomputed").fit(products, y == label)
            dual[machine.support_, at], intercept[at] = machine.dual_coef_[0], machine.intercept_[0]
        return weights, dual, intercept


def kernel_weights(kernels: Floats, positive: NDArray[np.bool_], evenness: float) -> Floats:
    """Weights ``(n_kernels,)`` of EasyMKL: not negative, and one together.

    Two points are looked for, one in the convex hull of each class, that are nearest to each other under the mean of
    the kernels and a ridge of `evenness`: these are what a machine without errors finds. The weight of a kernel is
    their squared distance under it alone.

    Parameters
    ----------
    kernels
        ``(n_kernels, n, n)``.
    positive
        ``(n,)`` which rows are of the class; some are and some are not.
    evenness
        Above 0, at most 1.
    """
    products = (1 - evenness) * kernels.mean(axis=0)
    products.flat[:: len(products) + 1] += evenness
    machine = SVC(C=HARD, kernel="precomputed", tol=1e-6).fit(products, positive)
    signed = machine.dual_coef_[0]
    between = kernels[:, machine.support_[:, None], machine.support_] @ signed @ signed
    apart = np.maximum(between, 0)
    total = float(apart.sum())
    weights: Floats = apart / total if total > 0 else np.full(len(kernels), 1 / len(kernels))
    return weights
