"""One logistic regression per subset of blocks, all fitted together from Gram matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore.fusion.dual import solve
from featstore.fusion.grams import Kernel, membership, scaled_blocks
from featstore.fusion.likelihood import inverse_link, targets
from featstore.fusion.linear import standardise
from featstore.fusion.penalty import AUTO, held_out_losses, penalties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.fusion.blocks import Block

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class LogisticFamily:
    """The same models as `ConcatLogreg` fitted on each subset by itself, to 1e-6 in any probability.

    A column's mean and scale, and its block's weight, do not depend on which other blocks are there, so one
    standardisation serves all subsets.

    Attributes
    ----------
    blocks
        Blocks of all the columns.
    members
        ``(subsets, blocks)``.
    mean, scale
        ``(d,)``, as of `featstore.fusion.linear.standardise`.
    coefs
        By block, ``(subsets with it, logits, width)``.
    intercepts
        ``(subsets, logits)``.
    C
        ``(subsets,)`` in force.
    """

    blocks: tuple[Block, ...]
    members: Mask
    mean: Floats
    scale: Floats
    coefs: tuple[NDArray[Any], ...]
    intercepts: NDArray[Any]
    C: Floats

    @classmethod
    def fit(
        cls,
        X: NDArray[Any],
        y: Rows,
        blocks: tuple[Block, ...],
        subsets: Sequence[Sequence[str]],
        C: float | str,
        groups: Rows | None = None,
    ) -> Self:
        """Fit every subset.

        Parameters
        ----------
        X
            ``(n, d)`` float32 or float64.
        y
            ``(n,)`` class numbers 0..n_classes-1, all present.
        blocks
            Blocks that tile the columns.
        subsets
            Names of blocks, one or more for each subset.
        C
            As in `ConcatLogreg`; "auto" is chosen for each subset by itself.
        groups
            ``(n,)`` group numbers, for the inner folds of "auto".
        """
        mean, scale = standardise(X, blocks)
        parts = scaled_blocks(X, blocks, mean, scale)
        kernels = [Kernel.of(part) for part in parts]
        members = membership(subsets, blocks)
        penalty = penalties(C, kernels, members, y, groups)
        solution = solve(kernels, members, targets(y, int(y.max()) + 1), penalty)
        coefs = tuple(solution.dual[where] @ part for part, where in zip(parts, members.T, strict=True))
        return cls(blocks, members, mean, scale, coefs, solution.intercept, penalty)

    def predict_proba(self, X: NDArray[Any]) -> Floats:
        """Class probabilities ``(subsets, n, n_classes)`` of ``X (n, d)``, all blocks side by side."""
        logits = np.tile(self.intercepts[:, :, None], len(X))
        parts = scaled_blocks(X, self.blocks, self.mean, self.scale)
        for part, coef, where in zip(parts, self.coefs, self.members.T, strict=True):
            logits[where] += coef @ part.T
        proba = np.asarray(inverse_link(logits), np.float64)
        if proba.shape[1] == 1:
            proba = np.concatenate([1 - proba, proba], axis=1)
        return proba.swapaxes(1, 2)


def choose_penalty(
    X: NDArray[Any], y: Rows, blocks: tuple[Block, ...], C: float | str, groups: Rows | None
) -> float:
    """C for one model over all blocks: the number given, or for "auto" just what `LogisticFamily` would choose."""
    kernels = _kernels(X, blocks) if C == AUTO else ()
    return float(penalties(C, kernels, np.ones((1, len(blocks)), np.bool_), y, groups)[0])


def forward_selection(
    X: NDArray[Any], y: Rows, blocks: tuple[Block, ...], C: float, groups: Rows | None
) -> tuple[str, ...]:
    """Names of the blocks that greedy forward selection picks, in column order.

    From none, always the block is added that lowers the log-loss on inner folds over groups most, until none lowers
    it. All candidates of a round are fitted together. Call it with training rows only: it is part of the training.
    Where inner folds cannot be made, all blocks are kept.
    """
    kernels = _kernels(X, blocks)
    chosen, best = np.zeros(len(blocks), np.bool_), np.inf
    while not chosen.all():
        rest = np.flatnonzero(~chosen)
        candidates = np.tile(chosen, (len(rest), 1))
        candidates[np.arange(len(rest)), rest] = True
        losses = held_out_losses(kernels, candidates, y, groups, [C])
        if losses is None:
            return tuple(block.name for block in blocks)
        if losses.min() >= best:
            break
        best, chosen = losses.min(), candidates[losses.argmin()]
    return tuple(block.name for block, taken in zip(blocks, chosen, strict=True) if taken)


def _kernels(X: NDArray[Any], blocks: tuple[Block, ...]) -> list[Kernel]:
    return [Kernel.of(part) for part in scaled_blocks(X, blocks, *standardise(X, blocks))]
