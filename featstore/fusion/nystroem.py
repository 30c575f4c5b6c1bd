"""A preconditioner for many Newton systems at once: what the leading directions of all blocks together explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore.fusion.grams import Kernel, apply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from featstore.fusion.likelihood import Curvature

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]

RANK = 48
ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """Every subset's Gram matrix as ``U B U' + tail I``, with one basis U for all subsets.

    U spans about the leading eigenvectors of the sum over all blocks (two rounds of subspace iteration, Halko et al.
    2011); B is, like the Gram matrix, a sum over the blocks of the subset.

    Attributes
    ----------
    basis
        ``(n, rank)``, orthonormal.
    cores
        ``(subsets, rank, rank)``: the B.
    tails
        ``(subsets,)``: mean of the eigenvalues that U leaves out.
    """

    basis: Floats
    cores: Floats
    tails: Floats

    @classmethod
    def of(cls, kernels: Sequence[Kernel], members: Mask) -> Self:
        """Sketch the kernels, in their precision."""
        n = len(kernels[0].left)
        everyone = np.ones((1, len(kernels)), np.bool_)
        start = np.random.default_rng(0).normal(size=(1, min(RANK, n), n)).astype(kernels[0].left.dtype)
        for _ in range(2):
            start = np.linalg.qr(apply(kernels, everyone, start)[0].T)[0].T[None]
        basis = start[0].T
        cores = np.stack([kernel.times(basis.T) @ basis for kernel in kernels])
        left_out = [k.diagonal().sum() - np.trace(core) for k, core in zip(kernels, cores, strict=True)]
        weights = members.astype(basis.dtype)
        tails = weights @ np.array(left_out, basis.dtype) / n
        return cls(basis, np.tensordot(weights, cores, axes=1), np.maximum(tails, 0))

    def times(self, models: NDArray[np.intp], A: Floats) -> Floats:
        """Multiply ``(models, logits, n)`` by the sketched matrices of some of the subsets."""
        return ((A @ self.basis) @ self.cores[models]) @ self.basis.T + self.tails[models, None, None] * A

    def solver(self, curvature: Curvature, models: NDArray[np.intp]) -> Callable[[Floats], Floats]:
        """Approximate inverse of ``I + L' K L`` for some of the subsets, logit by logit, by Woodbury's identity."""
        weight = curvature.root**2
        scaling = 1 + self.tails[models, None, None] * weight
        root = np.sqrt(weight) / scaling
        # In float64: what Woodbury subtracts from one leaves 1/eigenvalue.
        cores = self.cores[models, None].astype(np.float64)
        inner = np.eye(cores.shape[2]) + cores @ self._moments(weight / scaling)
        inverse = np.linalg.solve(inner, np.broadcast_to(cores, inner.shape))
        inverse = (inverse + inverse.swapaxes(2, 3)).astype(weight.dtype) / 2

        def solve(values: Floats) -> Floats:
            inside = (root * values) @ self.basis
            return values / scaling - root * ((inverse @ inside[..., None])[..., 0] @ self.basis.T)

        return solve

    def _moments(self, weight: Floats) -> Floats:
        """``U' diag(w) U`` for each model and logit, ``(models, logits, rank, rank)``: one product for them all."""
        rank = self.basis.shape[1]
        i, j = np.triu_indices(rank)
        upper = np.zeros((*weight.shape[:2], len(i)), weight.dtype)
        for start in range(0, len(self.basis), ROWS_AT_ONCE):
            part = self.basis[start : start + ROWS_AT_ONCE]
            upper += weight[:, :, start : start + ROWS_AT_ONCE] @ (part[:, i] * part[:, j])
        total = np.empty((*weight.shape[:2], rank, rank), weight.dtype)
        total[..., i, j] = total[..., j, i] = upper
        return total
