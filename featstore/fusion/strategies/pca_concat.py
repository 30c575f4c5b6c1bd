"""PCA of each backbone, concatenate the scores, then one L2 logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from featstore.fusion.linear import LinearStrategy, fit_concatenated, principal_parts, standardise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featstore.types import Block


class PcaConcat(LinearStrategy):
    """Feature-level fusion: the first principal components of each backbone, side by side.

    PCA is fitted to the standardised training rows of one backbone and looks at no label. It discards directions of
    small variance: noise, or the finding, if that is subtle. An L2 penalty already shrinks such directions, so expect
    about the result of `ConcatLogreg`; what is gained is a small model. The price is a randomised PCA per
    backbone, less than the logistic regression itself.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        As in `ConcatLogreg`; every block's scores together have variance one.
    n_components
        Components per backbone, at most its rank in the training rows.
    random_state
        Seed of the randomised PCA of large blocks. The default 0 makes two fits the same bytes.

    Attributes
    ----------
    model_
        PCA and regression as one `LinearModel` over all columns.

    References
    ----------
    PCA of each frozen network, then concatenation: Attallah, Ragab & Sharkas 2020 (MULTI-DEEP), PeerJ 8:e10086; they
    put a support vector machine behind it.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.3
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 2.0
    min_blocks: ClassVar[int] = 1

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        C: float = 5.0,
        n_components: int = 64,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.C = C
        self.n_components = n_components
        self.random_state = random_state

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:  # noqa: ARG002
        mean, scale = standardise(X, self.blocks_)
        axes, scores = principal_parts(X, self.blocks_, mean, scale, self.n_components, self.random_state)
        self.model_ = fit_concatenated(scores, axes, y, self.C, mean, scale)
