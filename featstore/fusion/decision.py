"""Decision-level fusion: one logistic regression per backbone, and only their answers are fused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state

from featstore.errors import UsageError
from featstore.fusion.linear import LinearModel, fit_logistic, probabilities
from featstore.fusion.strategy import FusionStrategy, split_columns
from featstore.splits import stratified_folds
from featstore.types import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Numbers = NDArray[np.intp]


# Strategies at decision level


class DecisionStrategy(FusionStrategy):
    """Base of the strategies at decision level: subclasses say in `_combine` how answers become one.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, whose answer stands.
    C
        As in `ConcatLogreg`, for each backbone.

    Attributes
    ----------
    models_
        One `LinearModel` per block.
    """

    level: ClassVar[str] = "decision"
    min_blocks: ClassVar[int] = 2

    def __init__(self, blocks: tuple[Block, ...] | None = None, C: float = 5.0) -> None:
        self.blocks = blocks
        self.C = C

    def votes(self, X: ArrayLike) -> NDArray[np.intp]:
        """Class number ``(n, n_blocks)`` that each backbone votes for; an index into `classes_`."""
        ballots: NDArray[np.intp] = self.block_proba(X).argmax(axis=2)
        return ballots

    def block_proba(self, X: ArrayLike) -> Floats:
        """Probabilities ``(n, n_blocks, n_classes)`` of each backbone alone."""
        return softmax(block_logits(self.models_, self._check_features(X), self.blocks_))

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        self.models_ = fit_each(X, y, self.blocks_, self.C)

    def _predict_proba(self, X: NDArray[Any]) -> Floats:
        return self._combine(block_logits(self.models_, X, self.blocks_))

    def _combine(self, logits: Floats) -> Floats:
        """Probabilities ``(n, n_classes)`` from ``(n, n_blocks, n_logits)``; one logit for two classes."""
        raise NotImplementedError


class TrainedDecisionStrategy(DecisionStrategy):
    """Decision level with something to learn about the backbones, from answers they give out of fold.

    In the rows they were fitted to, all backbones look perfect. So each is fitted again on inner folds that keep
    groups whole, and judged by its answers for groups it has not seen; the backbones that predict later are fitted
    to all rows. The price is `fold_numbers` more fits per backbone.

    Parameters
    ----------
    inner_folds
        Folds over groups inside the training rows, 2 or more.
    random_state
        Seed of the inner folds. The default 0 makes two fits the same bytes.
    """

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        inner_folds: int = 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        super().__init__(blocks, C)
        self.inner_folds = inner_folds
        self.random_state = random_state

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        if self.inner_folds < 2:  # noqa: PLR2004
            raise UsageError(f"inner_folds={self.inner_folds} holds nobody out.", "Set inner_folds=3.")
        super()._fit(X, y, groups)
        fold_of = fold_numbers(y, groups, self.inner_folds, self.random_state)
        self._fit_combiner(out_of_fold(self._fit_inside, X, y, fold_of), y)

    def _fit_inside(self, X: NDArray[Any], y: NDArray[np.intp]) -> Any:  # noqa: ANN401
        models = fit_each(X, y, self.blocks_, self.C)
        return lambda rows: block_logits(models, rows, self.blocks_)

    def _fit_combiner(self, logits: Floats, y: NDArray[np.intp]) -> None:
        """Learn from out-of-fold logits ``(n, n_blocks, n_logits)`` and class numbers ``(n,)``."""
        raise NotImplementedError


def fit_each(
    X: NDArray[Any], y: NDArray[np.intp], blocks: tuple[Block, ...], C: float
) -> tuple[LinearModel, ...]:
    """One logistic regression per block, on its own columns."""
    parts = zip(blocks, split_columns(X, blocks), strict=True)
    return tuple(fit_logistic(part, y, (Block(block.name, 0, block.width),), C) for block, part in parts)


def block_logits(models: tuple[LinearModel, ...], X: NDArray[Any], blocks: tuple[Block, ...]) -> Floats:
    """Logits ``(n, n_blocks, n_logits)`` of each backbone."""
    parts = zip(models, split_columns(X, blocks), strict=True)
    return np.stack([model.decision(part) for model, part in parts], axis=1)


def softmax(logits: Floats) -> Floats:
    """Probabilities ``(n, n_blocks, n_classes)`` from ``(n, n_blocks, n_logits)``."""
    n_rows, n_blocks, n_logits = logits.shape
    flat: Floats = probabilities(logits.reshape(n_rows * n_blocks, n_logits))
    return flat.reshape(n_rows, n_blocks, -1)


def balanced_accuracies(proba: Floats, y: NDArray[np.intp]) -> Floats:
    """Mean recall of the classes ``(n_blocks,)``, so that a frequent class does not flatter a backbone."""
    hit = proba.argmax(axis=2) == y[:, None]
    recalls: Floats = np.stack([hit[y == label].mean(axis=0) for label in np.unique(y)])
    accuracies: Floats = recalls.mean(axis=0)
    return accuracies


# Out-of-fold answers: what a model says about rows whose groups it has not seen

ALWAYS_TRAINED = -1


def fold_numbers(
    y: Numbers, groups: Numbers | None, folds: int, random_state: int | np.random.RandomState | None
) -> Numbers:
    """Fold ``(n,)`` in which each row is held out: whole groups, every class in proportion.

    Every class must stay in training, so where all its rows came to lie in one fold, its largest group is never held
    out: fold -1. With a single group nobody can be held out.

    Parameters
    ----------
    y
        ``(n,)`` class numbers.
    groups
        ``(n,)`` group numbers; None makes every row its own group.
    folds
        Number of folds; fewer where there are fewer groups, or fewer rows in the largest class.
    random_state
        Source of the order.
    """
    groups = np.arange(len(y)) if groups is None else groups
    fold_of = np.full(len(y), ALWAYS_TRAINED)
    possible = min(folds, len(np.unique(groups)), int(np.bincount(y).max()))
    if possible < 2:  # noqa: PLR2004
        return fold_of
    for fold, (_, held) in enumerate(
        stratified_folds(y, groups, possible, check_random_state(random_state))
    ):  # small classes are looked after below
        fold_of[held] = fold
    for label in np.unique(y):
        if len(np.unique(fold_of[y == label])) == 1:
            fold_of[groups == np.bincount(groups[y == label]).argmax()] = ALWAYS_TRAINED
    return fold_of


def out_of_fold(
    fit: Callable[[NDArray[Any], Numbers], Callable[[NDArray[Any]], Floats]],
    X: NDArray[Any],
    y: Numbers,
    fold_of: Numbers,
) -> Floats:
    """Answers ``(n, ...)`` of models that were not fitted to the row they answer for.

    Rows that are never held out get the answer of a model fitted to everything: optimistic, but it concerns only
    classes of a single group, for which no honest answer exists.

    Parameters
    ----------
    fit
        Takes rows and class numbers, returns a function of rows.
    X, y
        ``(n, d)`` features and ``(n,)`` class numbers.
    fold_of
        As from `fold_numbers`.
    """
    answers: Floats | None = None
    for fold in np.unique(fold_of):
        asked = fold_of == fold
        learned = np.ones(len(y), np.bool_) if fold == ALWAYS_TRAINED else ~asked
        answer = fit(X[learned], y[learned])(X[asked])
        if answers is None:
            answers = np.empty((len(y), *answer.shape[1:]))
        answers[asked] = answer
    assert answers is not None  # noqa: S101  # there is at least one row
    return answers


# Platt scaling: decision values into probabilities


def scale_decisions(decisions: Floats, y: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Slope ``(m, m)`` and offset ``(m,)`` such that ``decisions @ slope.T + offset`` are logits.

    A logistic regression on decision values the machine gave to rows it was not fitted to. A row of a class
    with N rows counts as that class by ``(N + 1) / (N + k)`` and as each of the other k - 1 classes by ``1 / (N
    + k)``: Platt's targets for k = 2, which keep the slope finite where the classes do not overlap.

    Of two classes the slope is never negative: decisions that were the reverse of the truth on these few rows say
    nothing, and a model that answered the reverse of them would make noise look like knowledge where every patient
    is left out. Then it is zero, and the share of the classes is all that is answered.

    Parameters
    ----------
    decisions
        ``(n, m)``: one column for two classes, one per class for more.
    y
        ``(n,)`` class numbers, all present.

    References
    ----------
    Platt 1999, "Probabilistic outputs for support vector machines"; Lin, Lin & Weng 2007, Machine Learning 68.
    """
    counts = np.bincount(y)
    n_classes = len(counts)
    share = (1.0 + np.eye(n_classes) * counts) / (counts + n_classes)[:, None]
    likely = share[y].mean(axis=0)
    if np.ptp(decisions, axis=0).max() <= np.finfo(float).eps * np.abs(decisions).max():
        flat = likely[1:] / likely[:1] if n_classes == 2 else likely  # noqa: PLR2004
        return np.zeros((len(flat), decisions.shape[1])), np.log(flat)
    spread = max(float(decisions.std()), np.finfo(float).tiny)
    regression = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    rows, labels = np.repeat(decisions / spread, n_classes, axis=0), np.tile(np.arange(n_classes), len(y))
    regression.fit(rows, labels, sample_weight=share[y].ravel())
    if n_classes == 2 and regression.coef_[0, 0] < 0:  # noqa: PLR2004
        return np.zeros((1, 1)), np.log(likely[1:] / likely[:1])
    return regression.coef_ / spread, regression.intercept_
