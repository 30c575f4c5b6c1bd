"""Decision level: every backbone has a logistic regression of its own, and only their answers are fused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.errors import UsageError
from featstore.fusion.blocks import Block, split
from featstore.fusion.linear import LinearModel, fit_logistic, probabilities
from featstore.fusion.out_of_fold import inner_folds, out_of_fold
from featstore.fusion.strategy import FusionStrategy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


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
        return softmax(ask(self.models_, self._read(X), self.blocks_))

    def _learn(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        self.models_ = fit_each(X, y, self.blocks_, self.C)

    def _fuse(self, X: NDArray[Any]) -> Floats:
        return self._combine(ask(self.models_, X, self.blocks_))

    def _combine(self, logits: Floats) -> Floats:
        """Probabilities ``(n, n_classes)`` from ``(n, n_blocks, n_logits)``; one logit for two classes."""
        raise NotImplementedError


class TrainedDecisionStrategy(DecisionStrategy):
    """Decision level with something to learn about the backbones, from answers they give out of fold.

    In the rows they were fitted to, all backbones look perfect. So each is fitted again on inner folds that keep
    groups whole, and judged by its answers for groups it has not seen; the backbones that predict later are fitted
    to all rows. The price is `inner_folds` more fits per backbone.

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

    def _learn(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        if self.inner_folds < 2:  # noqa: PLR2004
            raise UsageError(f"inner_folds={self.inner_folds} holds nobody out.", "Set inner_folds=3.")
        super()._learn(X, y, groups)
        fold_of = inner_folds(y, groups, self.inner_folds, self.random_state)
        self._judge(out_of_fold(self._fit_inside, X, y, fold_of), y)

    def _fit_inside(self, X: NDArray[Any], y: NDArray[np.intp]) -> Any:  # noqa: ANN401
        models = fit_each(X, y, self.blocks_, self.C)
        return lambda rows: ask(models, rows, self.blocks_)

    def _judge(self, logits: Floats, y: NDArray[np.intp]) -> None:
        """Learn from out-of-fold logits ``(n, n_blocks, n_logits)`` and class numbers ``(n,)``."""
        raise NotImplementedError


def fit_each(
    X: NDArray[Any], y: NDArray[np.intp], blocks: tuple[Block, ...], C: float
) -> tuple[LinearModel, ...]:
    """One logistic regression per block, on its own columns."""
    parts = zip(blocks, split(X, blocks), strict=True)
    return tuple(fit_logistic(part, y, (Block(block.name, 0, block.width),), C) for block, part in parts)


def ask(models: tuple[LinearModel, ...], X: NDArray[Any], blocks: tuple[Block, ...]) -> Floats:
    """Logits ``(n, n_blocks, n_logits)`` of each backbone."""
    parts = zip(models, split(X, blocks), strict=True)
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
