"""Split every class into k-means sub-classes, fit another strategy to them, merge the probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.cluster import KMeans

from featstore import registry
from featstore.errors import UsageError
from featstore.fusion.linear import principal_parts, standardise
from featstore.fusion.strategy import FOLDER, FusionStrategy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featstore.types import Block


class ClassDecomposition(FusionStrategy):
    """A wrapper: within each class, k-means finds sub-classes; another strategy learns those; a class is their sum.

    A class of several looks (early and late disease, say) need not be linearly separable as a whole while its parts
    are. With few rows per sub-class it only adds noise. Sub-classes are found on the principal components of the
    standardised training rows and need mean nothing medically. The price is that of the inner strategy with
    `n_subclasses` times the classes.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    strategy
        Name of the strategy that learns the sub-classes, with its default parameters.
    n_subclasses
        Sub-classes of each class, 1 or more; fewer where a class has fewer rows.
    n_components
        Principal components per backbone that k-means sees.
    random_state
        Seed of PCA and k-means. The default 0 makes two fits the same bytes.

    Attributes
    ----------
    inner_
        The fitted inner strategy; its classes are sub-classes.
    parents_
        ``(n_subclasses in all,)`` the class number each sub-class belongs to.

    References
    ----------
    Abbas, Abdelsamea & Gaber 2021 (DeTraC), Applied Intelligence 51; class decomposition by k-means: Vilalta,
    Achari & Eick 2003, ICDM.
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 2.4
    copies: ClassVar[float] = 1.0
    squares: ClassVar[float] = 2.6
    min_blocks: ClassVar[int] = 1

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        strategy: str = "concat_logreg",
        n_subclasses: int = 2,
        n_components: int = 16,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.strategy = strategy
        self.n_subclasses = n_subclasses
        self.n_components = n_components
        self.random_state = random_state

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        if self.n_subclasses < 1:
            raise UsageError(f"n_subclasses={self.n_subclasses} leaves no class.", "Set n_subclasses=2.")
        kind = registry.load(FOLDER, self.strategy)
        if kind is type(self):
            raise UsageError("A class decomposition of itself has no end.", "Name another strategy.")
        subclass = self._decompose(X, y)
        numbers = np.unique(subclass)
        self.parents_ = np.array([y[subclass == number][0] for number in numbers])
        self.inner_ = kind(blocks=self.blocks_).fit(X, subclass, groups)

    def _predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        belongs = self.parents_[:, None] == np.arange(len(self.classes_))
        merged: NDArray[np.float64] = self.inner_.predict_proba(X) @ belongs.astype(np.float64)
        return merged

    def _decompose(self, X: NDArray[Any], y: NDArray[np.intp]) -> NDArray[np.intp]:
        """Sub-class number ``(n,)`` of every row, unique across classes."""
        mean, scale = standardise(X, self.blocks_)
        _, scores = principal_parts(X, self.blocks_, mean, scale, self.n_components, self.random_state)
        rows = np.concatenate(scores, axis=1)
        subclass = np.empty_like(y)
        for label in np.unique(y):
            members = y == label
            count = min(self.n_subclasses, len(np.unique(rows[members], axis=0)))
            found = KMeans(count, n_init=5, random_state=self.random_state).fit_predict(rows[members])
            subclass[members] = label * self.n_subclasses + found
        return subclass
