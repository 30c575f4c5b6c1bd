"""`FusionStrategy`, the base of every strategy: a scikit-learn classifier whose columns are named blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from featstore.errors import AuditError, UsageError
from featstore.types import COVARIATES, IMAGE, Block

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from featstore.fusion.linear import LinearModel


FOLDER = "featstore.fusion.strategies"
WHOLE = "all"
"""Name of the block where none are given."""
# Float input stays as it is; the first is what anything else becomes.
FLOATS = [np.float64, np.float32]


class SubsetModels(Protocol):
    """One fitted model per subset of the blocks."""

    def predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Class probabilities ``(subsets, n, n_classes)`` of ``X (n, d)``, the columns of all blocks."""


@runtime_checkable
class SubsetStrategy(Protocol):
    """What a strategy offers that can fit many subsets of its blocks together."""

    def fit_subsets(
        self, X: ArrayLike, y: ArrayLike, subsets: Sequence[Sequence[str]], groups: ArrayLike | None = None
    ) -> SubsetModels:
        """Fit each subset as `FusionStrategy.fit` would fit its columns alone; X has the columns of all blocks."""


@runtime_checkable
class ViewStrategy(Protocol):
    """What a strategy offers that is trained in epochs, and can meet another view of an image in each."""

    def fit_views(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None, images: ArrayLike) -> Self:
        """Fit on one row of each image per epoch; ``images (n,)`` says which image a row is a view of."""


@runtime_checkable
class PatientStrategy(Protocol):
    """What a strategy offers that pools the images of a patient itself, before it answers.

    Its ``predict_proba`` takes every row for a patient of its own.
    """

    def predict_patients(self, X: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities ``(n, n_classes)``: the answer of a patient stands at each of the patient's rows."""

    def image_weights(self, X: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
        """Share ``(n,)`` that each row has in the answer of its patient; they sum to one for each patient."""


class FusionStrategy(ClassifierMixin, BaseEstimator):  # type: ignore[misc,unused-ignore]
    """Base of the strategies: reads and checks input, keeps the classes, and leaves two steps to the subclass.

    A subclass stores its parameters in ``__init__`` (``blocks`` among them), learns in `_fit` and predicts in
    `_predict_proba`. What it learns must live in attributes that end in an underscore and hold arrays, numbers, text,
    `ImageBlock`, `LinearModel`, `Projection`, another strategy, or lists, tuples and dicts of these: all that
    `featstore.fusion.model_io` needs to save it.

    A strategy to which many subsets of the backbones cost little more than one offers `SubsetStrategy`.

    Attributes
    ----------
    level
        Where it fuses: ``feature``, ``decision``, or ``floor`` for what a fusion should beat.
    unit
        What it answers for: ``image``, or ``group`` for patients, whose images it pools itself (`PatientStrategy`).
    price
        CPU time of a fit against that of `concat_logreg`, as ``benchmarks/strategies.py`` once measured it: declared,
        so that what follows from it is the same on every machine. None where nobody did.
    copies, squares, kernels
        Memory of a fit at its peak, about and rather too much, by what ``benchmarks/large_n.py`` measured: see
        `fit_bytes`.
    min_blocks
        Number of backbones from which the strategy makes sense.
    is_smooth
        Whether small changes of a vector change the answer a little, as they must for evidence maps. A count of votes
        or a rank stays as it is, and jumps; what looks at the direction from the mean alone jumps at the mean.
    classes_
        ``(n_classes,)`` labels, sorted.
    blocks_
        The blocks in force; one named "all" where none were given.
    covariates_
        ``(2, width)`` mean and scale of the covariates in the training rows, if a block of that name is there.
    n_features_in_
        Number of columns.

    Examples
    --------
    Columns of two backbones, and one of scikit-learn's pipelines over them:

    >>> import numpy as np
    >>> from featstore.types import make_blocks
    >>> from featstore.fusion.strategies.soft_vote import SoftVote
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = np.random.default_rng(0).normal(size=(40, 8)), np.repeat(["ill", "well"], 20)
    >>> X[:20] += 2
    >>> vote = SoftVote(blocks=make_blocks({"Xception": 3, "MobileNetV2": 5}))
    >>> pipeline = make_pipeline(StandardScaler(), vote).fit(X, y)
    >>> pipeline.predict_proba(X).shape, pipeline.score(X, y) > 0.9
    ((40, 2), True)
    """

    level: ClassVar[str]
    unit: ClassVar[str] = IMAGE
    price: ClassVar[float | None] = None
    copies: ClassVar[float] = 4.0
    squares: ClassVar[float] = 2.0
    kernels: ClassVar[float] = 0.0
    min_blocks: ClassVar[int] = 1
    is_smooth: ClassVar[bool] = True
    blocks: tuple[Block, ...] | None

    @classmethod
    def fit_bytes(cls, rows: int, widths: Sequence[int]) -> int:
        """Memory that a fit takes at its peak beyond its training rows, in bytes, about.

        It is `copies` times the rows in float32; `squares` matrices, in float64, of rows by rows or by columns, if
        these are fewer, of the widest block alone where blocks are fitted one by one; and `kernels` matrices of rows
        by rows.

        Parameters
        ----------
        rows
            Number of training rows, every view counted.
        widths
            Columns of each block.

        Examples
        --------
        >>> from featstore.fusion.strategies.concat_logreg import ConcatLogreg
        >>> ConcatLogreg.fit_bytes(10_000, [2048, 2048]) < ConcatLogreg.fit_bytes(20_000, [2048, 2048])
        True
        """
        side = min(rows, max(widths) if cls.level == "decision" else sum(widths))
        square = 8 * rows * (cls.squares * side + cls.kernels * rows)
        return int(4 * cls.copies * rows * sum(widths) + square)

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from image-views.

        Parameters
        ----------
        X
            ``(n, d)`` features, one row per view of an image.
        y
            ``(n,)`` labels: text or integers, two classes or more.
        groups
            ``(n,)`` patient (or other unit) of each row; whatever is held out inside is held out by group.

        Raises
        ------
        AuditError
            If only one class is present.
        UsageError
            If a feature is not finite, the blocks do not tile the columns, or a parameter is out of range.
        """
        self._fit(*self._validate(X, y, groups))
        return self

    def _validate(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None
    ) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp] | None]:
        """Check what is to be learned from, and number its classes and groups."""
        features, labels = validate_data(self, X, y, dtype=FLOATS, ensure_all_finite=False)
        check_classification_targets(labels)
        self.blocks_ = check_blocks(self.blocks, features.shape[1])
        self._learn_covariates(features)
        features = self.with_covariates(features)
        self._refuse_nonfinite(features)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:  # noqa: PLR2004
            raise AuditError(
                f"Only one class in the training rows: {self.classes_[0]!r}.", "Add images of a second class."
            )
        return features, numbers, None if groups is None else number_rows(groups, len(features), "group")

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities ``(n, n_classes)`` of ``X (n, d)``, columns in the order of `classes_`."""
        return self._predict_proba(self._check_features(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most probable label ``(n,)`` of each row of ``X (n, d)``; the first in `classes_` where two are level."""
        winners = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[winners]
        return labels

    def linear_logits(self) -> LinearModel | None:
        """Logits as a linear function of the columns, if they are one; then an image has an exact evidence map.

        Returns
        -------
        LinearModel or None
            Over all columns of `blocks_`: its `proba` is `predict_proba`, up to rounding. None where the strategy is
            not linear, as here by default.

        Raises
        ------
        NotFittedError
            If it has not been fitted.
        """
        check_is_fitted(self)
        return None

    def at_edge(self) -> tuple[str, float, float] | None:
        """Parameter that fitting chose at an end of its grid, the value, and the next one beyond; None if it did not.

        Raises
        ------
        NotFittedError
            If it has not been fitted.
        """
        check_is_fitted(self)
        return None

    def _fit(self, X: NDArray[Any], y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> None:
        """Fit on class numbers and group numbers."""
        raise NotImplementedError

    def _predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return probabilities of checked rows."""
        raise NotImplementedError

    def _check_features(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        features: NDArray[Any] = validate_data(self, X, dtype=FLOATS, ensure_all_finite=False, reset=False)
        features = self.with_covariates(features)
        self._refuse_nonfinite(features)
        return features

    def _learn_covariates(self, X: NDArray[Any]) -> None:
        """Mean and scale of each covariate over the training rows that have it, where there is such a block."""
        for block, part in zip(self.blocks_, split_columns(X, self.blocks_), strict=True):
            if block.name == COVARIATES:
                known = ~np.isnan(part)
                count = np.maximum(known.sum(axis=0), 1)
                mean = np.where(known, part, 0).sum(axis=0, dtype=np.float64) / count
                spread = np.sqrt((np.where(known, part - mean, 0) ** 2).sum(axis=0) / count)
                self.covariates_ = np.stack([mean, np.where(spread > 0, spread, 1.0)])

    def with_covariates(self, X: NDArray[Any]) -> NDArray[Any]:
        """Standardise covariates of ``X (n, d)`` by the training rows, whose mean stands for NaN; the rest stays."""
        for block in self.blocks_:
            if block.name == COVARIATES:
                mean, spread = self.covariates_
                part = (X[:, block.start : block.stop] - mean) / spread
                X = X.copy()
                X[:, block.start : block.stop] = np.where(np.isnan(part), 0, part)
        return X

    def _refuse_nonfinite(self, X: NDArray[Any]) -> None:
        for block, part in zip(self.blocks_, split_columns(X, self.blocks_), strict=True):
            bad = ~np.isfinite(part).all(axis=1)
            if bad.any():
                where = (
                    f"{bad.sum()} of {len(X)} rows of block {block.name!r}, the first is row {bad.argmax()}"
                )
                raise UsageError(f"NaN or infinity in {where}.", "Leave them out, or extract them again.")


def beyond_grid(name: str, value: float, grid: Sequence[float]) -> tuple[str, float, float] | None:
    """Parameter, value and the next one beyond if the value is an end of a geometric grid, for `at_edge`.

    Examples
    --------
    >>> from featstore.fusion.strategy import beyond_grid
    >>> beyond_grid("C", 50.0, (0.5, 5.0, 50.0)), beyond_grid("C", 5.0, (0.5, 5.0, 50.0))
    (('C', 50.0, 500.0), None)
    """
    low, *_, high = sorted(grid)
    if value not in {low, high}:
        return None
    step = (high / low) ** (1 / (len(grid) - 1))
    return name, value, float(f"{value * step if value == high else value / step:.2g}")


def number_rows(names: ArrayLike, n_rows: int, what: str) -> NDArray[np.intp]:
    """Number of the group, or image, of each row ``(n_rows,)``, from 0 in sorted order of the names.

    Raises
    ------
    UsageError
        If there is not one per row.
    """
    numbers: NDArray[np.intp] = np.unique(column_or_1d(names), return_inverse=True)[1]
    if len(numbers) != n_rows:
        raise UsageError(f"There are {len(numbers)} {what}s for {n_rows} rows.", f"Give one {what} per row.")
    return numbers


def check_blocks(blocks: Iterable[Block] | None, n_columns: int) -> tuple[Block, ...]:
    """Check that `blocks` cover all the columns once, left to right; None is one block named "all".

    Gaps are refused because a forgotten backbone would look like a bad one.

    Raises
    ------
    UsageError
        If a block is empty, named twice, out of place, or columns are left over.
    """
    tiled = (Block(WHOLE, 0, n_columns),) if blocks is None else tuple(blocks)
    edges = [0, *(block.stop for block in tiled)]
    in_place = all(block.start == edge for block, edge in zip(tiled, edges, strict=False))
    if not in_place or edges[-1] != n_columns or any(block.width < 1 for block in tiled):
        raise UsageError(
            f"The blocks {[(b.name, b.start, b.stop) for b in tiled]} do not tile {n_columns} columns.",
            "Give one block per backbone, side by side from column 0 to the last.",
        )
    if len({block.name for block in tiled}) < len(tiled):
        raise UsageError("Two blocks have the same name.", "Name every block after its own backbone.")
    return tiled


def split_columns(X: NDArray[Any], blocks: Iterable[Block]) -> list[NDArray[Any]]:
    """Views (not copies) of the columns of each block: ``(n, D)`` to a list of ``(n, width)``."""
    return [X[:, block.start : block.stop] for block in blocks]
