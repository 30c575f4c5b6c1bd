"""Concatenate the backbones' vectors, then a logistic regression with L1 and L2 penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from featstore.errors import UsageError
from featstore.fusion.linear import LinearModel, LinearStrategy, fit_elasticnet, scaled_block, standardise
from featstore.types import Block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ConcatElasticnet(LinearStrategy):
    """Feature-level fusion by concatenation and a sparse logistic regression.

    The L1 penalty sets most coefficients to exactly zero, so a few hundred columns of thousands remain; the L2
    part keeps correlated columns together. Columns are standardised and, unlike in `ConcatLogreg`, blocks are
    not weighed: columns compete one by one. It helps where few columns matter, which is seldom so for frozen
    networks. Which of many correlated columns are kept varies from fold to fold: do not read meaning into it.
    The price is several times that of `ConcatLogreg`, more with a smaller penalty.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    penalty
        In units of the smallest penalty that silences every column; above 0, at most 1.
    l1_ratio
        Part of the L1 penalty, above 0, at most 1; 1 is the lasso.

    Attributes
    ----------
    model_
        The fitted `LinearModel` over all columns.

    References
    ----------
    Zou & Hastie 2005, "Regularization and variable selection via the elastic net", JRSS B 67; for logistic
    regression: Friedman, Hastie & Tibshirani 2010, J. Statistical Software 33(1).
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 0.7
    copies: ClassVar[float] = 3.3
    squares: ClassVar[float] = 0.2
    min_blocks: ClassVar[int] = 1

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        penalty: float = 0.15,
        l1_ratio: float = 0.5,
    ) -> None:
        self.blocks = blocks
        self.penalty = penalty
        self.l1_ratio = l1_ratio

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        if not (0 < self.penalty <= 1 and 0 < self.l1_ratio <= 1):
            raise UsageError(
                f"penalty={self.penalty}, l1_ratio={self.l1_ratio} is out of range.",
                "Set both above 0 and at most 1.",
            )
        mean, scale = standardise(X, [Block(str(i), i, i + 1) for i in range(X.shape[1])])
        scaled = scaled_block(X, Block("all", 0, X.shape[1]), mean, scale)
        self.model_ = LinearModel(*fit_elasticnet(scaled, y, self.penalty, self.l1_ratio), mean, scale)
