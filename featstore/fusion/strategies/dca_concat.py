"""Discriminant correlation axes of each backbone, concatenated, then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featstore.fusion.linear import LinearStrategy, fit_concatenated, scaled_block, standardise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]

RANK = 1e-6


class DcaConcat(LinearStrategy):
    """Feature-level fusion: the few axes of each backbone along which class means differ, paired across backbones.

    Of each backbone at most (classes - 1) axes remain, those that span the class means, scaled to make the
    scatter between classes the identity. They are then turned so that axis i of one backbone correlates only
    with axis i of the others: for two backbones by the SVD of their covariance, as in the paper; for more each
    against the sum of the others (ours; the paper fuses pair by pair, which depends on the order). With two
    classes one number per backbone is left: how far the image lies along the line between the class means. Few
    parameters, so little to overfit; but correlated columns are not weighed against each other. The price is
    next to nothing.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        As in `ConcatLogreg`; every block's scores together have variance one.

    Attributes
    ----------
    model_
        Projections and regression as one `LinearModel` over all columns.

    References
    ----------
    Haghighat, Abdel-Mottaleb & Alhalabi 2016, "Discriminant correlation analysis", IEEE Trans. Information Forensics
    and Security 11(9), 10.1109/TIFS.2016.2569061; fusion by concatenation.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 0.2
    copies: ClassVar[float] = 2.6
    squares: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 2

    def __init__(self, blocks: tuple[Block, ...] | None = None, C: float = 5.0) -> None:
        self.blocks = blocks
        self.C = C

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        mean, scale = standardise(X, self.blocks_)
        scaled = [scaled_block(X, block, mean, scale) for block in self.blocks_]
        axes = [separating_axes(part, y) for part in scaled]
        rank = min(axis.shape[1] for axis in axes)
        axes = [axis[:, :rank] for axis in axes]
        scores = [part @ axis for part, axis in zip(scaled, axes, strict=True)]
        rotations = pairing_rotations(scores)
        paired = [part @ turn for part, turn in zip(scores, rotations, strict=True)]
        turned = [axis @ turn for axis, turn in zip(axes, rotations, strict=True)]
        self.model_ = fit_concatenated(paired, turned, y, self.C, mean, scale)


def separating_axes(Z: Floats, y: NDArray[np.intp]) -> Floats:
    """Axes ``(width, r)`` in which the scatter between classes of centred ``Z (n, width)`` is the identity.

    The scatter is ``P P'`` with one column ``sqrt(n_c) * class mean`` per class, so its axes come from the small
    matrix ``P' P``; r is its rank, at most the number of classes less one.
    """
    labels, counts = np.unique(y, return_counts=True)
    means = np.stack([Z[y == label].mean(axis=0) for label in labels], axis=1)
    means -= Z.mean(axis=0)[:, None]
    P = means * np.sqrt(counts)
    values, vectors = np.linalg.eigh(P.T @ P)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > RANK * max(values[0], np.finfo(float).tiny)
    axes: Floats = P @ (vectors[:, kept] / values[kept])
    return axes if axes.size else np.zeros((Z.shape[1], 1))


def pairing_rotations(scores: Sequence[Floats]) -> list[Floats]:
    """Matrices ``(r, r)`` that make the covariance of each block with the sum of the others the identity."""
    total = sum(scores[1:], scores[0])
    rotations = []
    for part in scores:
        others = total - part if len(scores) > 1 else part
        left, strength, _ = np.linalg.svd(part.T @ others)
        rotations.append(left / np.sqrt(np.maximum(strength, RANK * max(strength[0], RANK))))
    return [
        turn * _signs(scores[0] @ rotations[0], part @ turn)
        for part, turn in zip(scores, rotations, strict=True)
    ]


def _signs(reference: Floats, score: Floats) -> Floats:
    """Make every axis ``(r,)`` run the same way as in the first block; an SVD leaves that open."""
    signs: Floats = np.where((reference * score).sum(axis=0) < 0, -1.0, 1.0)
    return signs
