"""Gram matrices of standardised blocks: a linear model over any subset of backbones needs only their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore.fusion.blocks import split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from featstore.fusion.blocks import Block

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """Inner products ``Z_rows @ Z_columns.T`` of one block, as a matrix or as its two factors.

    Attributes
    ----------
    inner
        ``(columns, rows)``, or where `outer` is given ``(columns, d)``.
    outer
        ``(rows, d)``, or None. A block of few columns is quicker as two thin factors than as one square matrix.
    """

    inner: Floats
    outer: Floats | None

    @classmethod
    def of(cls, Z: Floats) -> Self:
        """Kernel of the rows of ``Z (n, d)`` among themselves."""
        return cls(Z, Z) if 2 * Z.shape[1] < len(Z) else cls(Z @ Z.T, None)

    @property
    def rows(self) -> int:
        """How many values it gives for one row of coefficients."""
        return self.inner.shape[1] if self.outer is None else len(self.outer)

    def times(self, A: Floats) -> Floats:
        """``(m, columns)`` coefficients to ``(m, rows)`` values."""
        inside: Floats = A @ self.inner
        return inside if self.outer is None else inside @ self.outer.T

    def between(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Kernel:
        """Part of it: what `rows` are to `columns`."""
        if self.outer is None:
            return Kernel(self.inner[np.ix_(columns, rows)], None)
        return Kernel(self.inner[columns], self.outer[rows])

    def astype(self, dtype: DTypeLike) -> Kernel:
        """Return the same in another precision."""
        inner = self.inner.astype(dtype, copy=False)
        if self.outer is self.inner:
            return Kernel(inner, inner)
        return Kernel(inner, None if self.outer is None else self.outer.astype(dtype, copy=False))

    def diagonal(self) -> Floats:
        """Inner product ``(n,)`` of each row with itself."""
        square: Floats = (
            self.inner.diagonal() if self.outer is None else np.einsum("nd,nd->n", self.inner, self.outer)
        )
        return square


def scaled_blocks(
    X: NDArray[Any], blocks: Sequence[Block], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Each block of ``(X - mean) * scale``, float64 ``(n, d)``."""
    parts = []
    for part, block in zip(split(X, blocks), blocks, strict=True):
        scaled = part - mean[block.start : block.stop]
        scaled *= scale[block.start : block.stop]
        parts.append(scaled)
    return parts


def membership(subsets: Sequence[Sequence[str]], blocks: Sequence[Block]) -> Mask:
    """``(subsets, blocks)``: which block is in which subset."""
    return np.array([[block.name in subset for block in blocks] for subset in subsets], dtype=np.bool_)


def apply(kernels: Sequence[Kernel], members: Mask, A: Floats) -> Floats:
    """Multiply each subset's coefficients by that subset's Gram matrix, the sum of its blocks'.

    One product per block serves all the subsets that contain it; no subset's matrix is ever formed.

    Parameters
    ----------
    kernels
        One per block, all of one shape ``(rows, columns)``.
    members
        ``(subsets, blocks)``, see `membership`.
    A
        ``(subsets, logits, columns)``.

    Returns
    -------
    ``(subsets, logits, rows)``.
    """
    n_subsets, n_logits, n_columns = A.shape
    out = np.zeros((n_subsets, n_logits, kernels[0].rows), A.dtype)
    for kernel, where in zip(kernels, members.T, strict=True):
        if where.any():
            product = kernel.times(A[where].reshape(-1, n_columns))
            out[where] += product.reshape(-1, n_logits, out.shape[2])
    return out
