"""Product of the backbones' answers, weighed in each image by a gate that sees only the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax as exponential_shares

from featstore.errors import UsageError
from featstore.fusion.decision import TrainedDecisionStrategy, block_logits
from featstore.fusion.linear import probabilities

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]

PRECISION = {"maxiter": 500, "gtol": 1e-8, "ftol": 1e-14}


class LogitProduct(TrainedDecisionStrategy):
    """Decision-level fusion by a weighted product of probabilities, whose weights depend on the image.

    A gate reads the logits of all backbones and how sure each of them is, and gives every backbone a share; the
    logits are averaged with these shares. It is trained on the log-loss of the fused answer, by logits for groups
    that the backbones were not fitted to, and held to equal shares by a penalty: with little evidence it is
    `MeanLogit`. Of the paper only the abstract was at hand (fixed experts, a gate on logits alone, a weighted
    product); that the gate is linear, what it reads and its penalty are ours. The price is `inner_folds` more fits
    per backbone.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block, whose answer stands.
    C
        As in `ConcatLogreg`, for each backbone.
    inner_folds
        Folds over groups inside the training rows.
    random_state
        Seed of the inner folds.
    gate_C
        Inverse strength of the penalty on the gate; towards 0 all backbones have equal shares.

    Attributes
    ----------
    models_
        One `LinearModel` per block.
    gate_
        ``(n_inputs + 1, n_blocks)`` coefficients of the gate, the intercept last.
    input_mean_, input_scale_
        ``(n_inputs,)`` what the gate's inputs are standardised by.

    References
    ----------
    LogitProd: Huang et al. 2026, arXiv 2604.07779; products of experts: Hinton 2002, Neural Computation 14(8).
    """

    level: ClassVar[str] = "decision"
    price: ClassVar[float] = 3.0
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 3.5
    min_blocks: ClassVar[int] = 2

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        inner_folds: int = 3,
        random_state: int | np.random.RandomState | None = 0,
        gate_C: float = 0.1,
    ) -> None:
        super().__init__(blocks, C, inner_folds, random_state)
        self.gate_C = gate_C

    def shares(self, X: ArrayLike) -> Floats:
        """Share ``(n, n_blocks)`` of each backbone in the answer to each row of ``X (n, d)``; one together."""
        return self._shares(block_logits(self.models_, self._check_features(X), self.blocks_))

    def _fit_combiner(self, logits: Floats, y: NDArray[np.intp]) -> None:
        if not 0 < self.gate_C < np.inf:
            raise UsageError(f"gate_C={self.gate_C} is out of range.", "Set gate_C=0.1.")
        inputs = _inputs(logits)
        self.input_mean_, spread = inputs.mean(axis=0), inputs.std(axis=0)
        self.input_scale_ = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        self.gate_ = fit_gate(self._read(logits), logits, y, self.gate_C)

    def _combine(self, logits: Floats) -> Floats:
        fused: Floats = (self._shares(logits)[:, :, None] * logits).sum(axis=1)
        proba: Floats = probabilities(fused)
        return proba

    def _shares(self, logits: Floats) -> Floats:
        shares: Floats = exponential_shares(self._read(logits) @ self.gate_, axis=1)
        return shares

    def _read(self, logits: Floats) -> Floats:
        scaled = (_inputs(logits) - self.input_mean_) * self.input_scale_
        return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)


def _inputs(logits: Floats) -> Floats:
    """Logits of all backbones ``(n, n_blocks * n_logits)``, and by how much each prefers its first choice."""
    flat = logits.reshape(len(logits), -1)
    if logits.shape[2] == 1:
        return np.concatenate([flat, np.abs(flat)], axis=1)
    best = np.sort(logits, axis=2)
    return np.concatenate([flat, best[:, :, -1] - best[:, :, -2]], axis=1)


def fit_gate(inputs: Floats, logits: Floats, y: NDArray[np.intp], C: float) -> Floats:
    """Coefficients ``(n_inputs, n_blocks)`` of the shares that make the log-loss of the fused logits smallest.

    Minimises ``C * sum of log-losses + |coefficients|^2 / 2`` from equal shares on.

    Parameters
    ----------
    inputs
        ``(n, n_inputs)``.
    logits
        ``(n, n_blocks, n_logits)``; one logit is that of the second of two classes.
    y
        ``(n,)`` class numbers.
    C
        Above 0.
    """
    shape = inputs.shape[1], logits.shape[1]
    truth = np.eye(max(2, logits.shape[2]))[y][:, -logits.shape[2] :]

    def objective(coefficients: Floats) -> tuple[float, Floats]:
        shares = exponential_shares(inputs @ coefficients.reshape(shape), axis=1)
        fused = (shares[:, :, None] * logits).sum(axis=1)
        full = np.concatenate([np.zeros_like(fused), fused], axis=1) if fused.shape[1] == 1 else fused
        total = np.logaddexp.reduce(full, axis=1)
        loss = total.sum() - (fused * truth).sum()
        wrong = np.exp(full - total[:, None])[:, -fused.shape[1] :] - truth
        pull = (wrong[:, None] * (logits - fused[:, None])).sum(axis=2) * shares
        gradient = C * (inputs.T @ pull).ravel() + coefficients
        return float(C * loss + coefficients @ coefficients / 2), gradient

    start: Any = np.zeros(shape[0] * shape[1])
    found: Floats = minimize(objective, start, jac=True, method="L-BFGS-B", options=PRECISION).x
    return found.reshape(shape)
