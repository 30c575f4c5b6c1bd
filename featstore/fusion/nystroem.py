"""A preconditioner for many Newton systems at once: what the leading directions of all blocks together explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

from featstore.fusion.grams import Kernel, apply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from featstore.fusion.likelihood import Curvature

    Floats = NDArray[np.floating[Any]]
    Mask = NDArray[np.bool_]

RANK = 64
JITTER = 1e-5
LEAST = 1e-30


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
    inverses
        Of the B; where a subset lacks a direction it is given a little of it.
    tails
        ``(subsets,)``: mean of the eigenvalues that U leaves out.
    """

    basis: Floats
    cores: Floats
    inverses: Floats
    tails: Floats

    @classmethod
    def of(cls, kernels: Sequence[Kernel], members: Mask) -> Self:
        """Sketch the kernels, in their precision."""
        n = kernels[0].rows
        everyone = np.ones((1, len(kernels)), np.bool_)
        start = np.random.default_rng(0).normal(size=(1, min(RANK, n), n)).astype(kernels[0].inner.dtype)
        for _ in range(2):
            start = np.linalg.qr(apply(kernels, everyone, start)[0].T)[0].T[None]
        basis = start[0].T
        cores = np.stack([kernel.times(basis.T) @ basis for kernel in kernels])
        cores = (cores + cores.swapaxes(1, 2)) / 2
        left_out = [k.diagonal().sum() - np.trace(core) for k, core in zip(kernels, cores, strict=True)]
        weights = members.astype(basis.dtype)
        tails = weights @ np.array(left_out, basis.dtype) / n
        sums = np.tensordot(weights, cores, axes=1)
        little = np.maximum(JITTER * np.trace(sums, axis1=1, axis2=2), LEAST)
        inverses = np.linalg.inv(sums + little[:, None, None] * np.eye(basis.shape[1]))
        return cls(basis, sums, inverses, np.maximum(tails, 0))

    def times(self, models: NDArray[np.intp], A: Floats) -> Floats:
        """Multiply ``(models, logits, n)`` by the sketched matrices of some of the subsets."""
        return ((A @ self.basis) @ self.cores[models]) @ self.basis.T + self.tails[models, None, None] * A

    def solver(self, curvature: Curvature, models: NDArray[np.intp]) -> Callable[[Floats], Floats]:
        """Approximate inverse of ``I + L' K L`` for some of the subsets, logit by logit, by Woodbury's identity."""
        weight = curvature.root**2
        scaling = 1 + self.tails[models, None, None] * weight
        arm = curvature.root / scaling
        # Not B (I + G B)^-1: that leaves 1/eigenvalue of what it subtracts from one, too little for float32.
        inner = _inverse(self.inverses[models, None] + self._moments(weight / scaling)).astype(weight.dtype)

        def solve(values: Floats) -> Floats:
            inside = (arm * values) @ self.basis
            return values / scaling - arm * ((inner @ inside[..., None])[..., 0] @ self.basis.T)

        return solve

    def _moments(self, weight: Floats) -> Floats:
        """``U' diag(w) U`` for each model and logit, ``(models, logits, rank, rank)``."""
        rows = weight.reshape(-1, len(self.basis), 1)
        moments = np.stack([(row * self.basis).T @ self.basis for row in rows])
        return moments.reshape(*weight.shape[:2], *moments.shape[1:])


def _inverse(A: Floats) -> Floats:
    """Inverses of positive definite matrices ``(..., rank, rank)``, three times as fast as numpy's."""
    rank = A.shape[-1]
    out = np.empty(A.shape, A.dtype)
    for matrix, inverse in zip(A.reshape(-1, rank, rank), out.reshape(-1, rank, rank), strict=True):
        factor, _ = dpotrf(matrix)
        upper = dpotri(factor)[0]
        inverse[:] = np.triu(upper) + np.triu(upper, 1).T
    return out
