"""Linear models as plain arrays: standardise blocks, project them, fit logistic regressions, predict."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from featstore.errors import UsageError
from featstore.fusion.strategy import FusionStrategy, number_rows, split_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from featstore.types import Block

    Floats = NDArray[np.float64]
    Solution = tuple[Floats, Floats]

# L2 logistic regression on standardised blocks

ROWS_AT_ONCE = 512
# A spread below this part of a column's magnitude is rounding of float32 features (4 x 2^-23), not signal.
CONSTANT = 4 * float(np.finfo(np.float32).eps)
# Columns of float64 with larger or smaller values are measured in units of the largest: squares of these overflow.
SQUARABLE = 1e-140, 1e140
# Ridge on the Gram matrix, relative to its mean diagonal: centring makes it singular, Cholesky needs it not to be.
JITTER = 1e-11

# Block weights make gradients small: scikit-learn's own 1e-4 would stop far from the optimum.
TOLERANCE = 1e-10
MAX_ITERATIONS = 5000


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Logits ``((x - mean) * scale) @ coef.T + intercept``; all arrays float64.

    Attributes
    ----------
    coef
        ``(1, d)`` for two classes (the logit of the second), ``(n_classes, d)`` for more.
    intercept
        ``(1,)`` or ``(n_classes,)``.
    mean, scale
        ``(d,)`` each. A scale of zero silences a column that was constant in training.

    Raises
    ------
    ValueError
        If the shapes do not belong together or a number is not finite.
    """

    coef: Floats
    intercept: Floats
    mean: Floats
    scale: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that could not predict."""
        n_logits, width = self.coef.shape
        shapes = {"intercept": (n_logits,), "mean": (width,), "scale": (width,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        for field in fields(self):
            array = getattr(self, field.name)
            if array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"{field.name} must be finite float64")

    def decision(self, X: NDArray[Any]) -> Floats:
        """Logits ``(n, 1)`` for two classes, ``(n, n_classes)`` for more, of ``X (n, d)`` of any float type."""
        logits = np.empty((len(X), len(self.coef)))
        for rows in _runs(len(X)):
            centred = X[rows] - self.mean
            centred *= self.scale
            logits[rows] = centred @ self.coef.T + self.intercept
        return logits

    def proba(self, X: NDArray[Any]) -> Floats:
        """Class probabilities ``(n, n_classes)`` of ``X (n, d)``; every row sums to one."""
        return probabilities(self.decision(X))


class LinearStrategy(FusionStrategy):
    """Base of the strategies that end in one linear model of all columns: subclasses leave it in `model_`.

    Attributes
    ----------
    model_
        The `LinearModel`.
    """

    def linear_logits(self) -> LinearModel:
        """Its logits are a linear function of the columns: `model_`."""
        check_is_fitted(self)
        model: LinearModel = self.model_
        return model

    def _predict_proba(self, X: NDArray[Any]) -> Floats:
        return self.linear_logits().proba(X)


def join_models(models: Sequence[LinearModel], mixes: Sequence[Floats], intercept: Floats) -> LinearModel:
    """One model of the columns of several blocks side by side, from a model of each and a mix of their logits.

    Parameters
    ----------
    models
        One per block, of ``m`` logits each.
    mixes
        ``(n_logits, m)`` for each model: logits are ``sum_b mix_b @ logits_b + intercept``.
    intercept
        ``(n_logits,)``.
    """
    pairs = list(zip(models, mixes, strict=True))
    return LinearModel(
        np.concatenate([mix @ model.coef for model, mix in pairs], axis=1),
        intercept + sum(mix @ model.intercept for model, mix in pairs),
        np.concatenate([model.mean for model in models]),
        np.concatenate([model.scale for model in models]),
    )


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax of ``(n, k)`` logits; a single column is the logit of the second of two classes."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    odds: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return odds


def standardise(X: NDArray[Any], blocks: Iterable[Block]) -> tuple[Floats, Floats]:
    """Mean and scale ``(d,)`` that give every column unit variance and every block the same total variance.

    A block of D columns is scaled by ``1/sqrt(D)`` on top of ``1/std``. An L2 penalty sees blocks through the sum of
    their Gram matrices; without the weight 4032 columns of NASNetLarge outvote 512 of VGG19 eight to one for their
    number alone, and one value of C would mean a different penalty for every subset of backbones.
    """
    parts = [_standardise_block(part) for part in split_columns(X, blocks)]
    return np.concatenate([mean for mean, _ in parts]), np.concatenate([scale for _, scale in parts])


def rescale(X: NDArray[Any], mean: Floats, scale: Floats) -> NDArray[np.float32]:
    """``(X - mean) * scale`` in float64, kept as float32 ``(n, d)``; a few rows at a time to spare memory."""
    scaled = np.empty(X.shape, np.float32)
    for rows in _runs(len(X)):
        scaled[rows] = (X[rows] - mean) * scale
    return scaled


def fit_logistic(X: NDArray[Any], y: NDArray[np.intp], blocks: tuple[Block, ...], C: float) -> LinearModel:
    """L2 logistic regression on standardised blocks, solved by scikit-learn's lbfgs in float64.

    With fewer rows than columns it is solved in n dimensions instead of d. Only inner products matter (representer
    theorem: Kimeldorf & Wahba 1971), so the Cholesky factor L of the Gram matrix can stand for the matrix Z, and
    ``Z.T @ inv(L).T`` brings the coefficients back without stretching an error.

    Parameters
    ----------
    X
        ``(n, d)`` float32 or float64.
    y
        ``(n,)`` class numbers 0..n_classes-1, all present.
    blocks
        Blocks that tile the columns.
    C
        As in `sklearn.linear_model.LogisticRegression`.
    """
    mean, scale = standardise(X, blocks)
    if len(X) >= X.shape[1]:
        return LinearModel(*solve_logistic((X - mean) * scale, y, C), mean, scale)
    root = _gram_root(gram(X, blocks, mean, scale))
    rotated, intercept = solve_logistic(root, y, C)
    dual = solve_triangular(root, rotated.T, lower=True, trans="T")
    return LinearModel(unfold(dual, X, blocks, mean, scale), intercept, mean, scale)


def solve_logistic(Z: Floats, y: NDArray[np.intp], C: float) -> tuple[Floats, Floats]:
    """Coefficients and intercept of scikit-learn's L2 logistic regression on the columns of `Z` as they are."""
    solver = LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS).fit(Z, y)
    return solver.coef_, solver.intercept_


def gram(X: NDArray[Any], blocks: Iterable[Block], mean: Floats, scale: Floats) -> Floats:
    """Inner products ``(n, n)`` of the rows of ``(X - mean) * scale``, block by block to spare memory."""
    products = np.zeros((len(X), len(X)))
    for block in blocks:
        scaled = scaled_block(X, block, mean, scale)
        products += scaled @ scaled.T
    return products


def unfold(dual: Floats, X: NDArray[Any], blocks: Iterable[Block], mean: Floats, scale: Floats) -> Floats:
    """Coefficients ``(n_logits, d)`` of the columns from dual coefficients ``(n, n_logits)`` of the rows."""
    return np.concatenate([dual.T @ scaled_block(X, block, mean, scale) for block in blocks], axis=1)


def scaled_block(X: NDArray[Any], block: Block, mean: Floats, scale: Floats) -> Floats:
    """Columns of one block ``(n, width)`` of ``(X - mean) * scale`` in float64."""
    scaled: Floats = X[:, block.start : block.stop] - mean[block.start : block.stop]
    scaled *= scale[block.start : block.stop]
    return scaled


def _gram_root(products: Floats) -> Floats:
    products.flat[:: len(products) + 1] += JITTER * max(products.trace() / len(products), 1.0)
    root: Floats = cholesky(products, lower=True, overwrite_a=True)
    return root


def _standardise_block(part: NDArray[Any]) -> tuple[Floats, Floats]:
    largest = np.abs(part).max(axis=0)
    mean, std = _moments(part)
    magnitude = largest.astype(np.float64)
    extreme = (magnitude > 0) & ((magnitude < SQUARABLE[0]) | (magnitude > SQUARABLE[1]))
    if extreme.any():
        unit = largest[extreme]
        mean[extreme], std[extreme] = (moment * unit for moment in _moments(part[:, extreme] / unit))
    varies = std > CONSTANT * largest
    scale = np.divide(part.shape[1] ** -0.5, std, out=np.zeros_like(std), where=varies)
    return mean, scale


def _moments(part: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column."""
    with np.errstate(over="ignore", invalid="ignore"):  # such columns are measured anew
        return part.mean(axis=0, dtype=np.float64), part.std(axis=0, dtype=np.float64)


def _runs(n_rows: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, n_rows, ROWS_AT_ONCE))


# Projections of a block onto a few axes, and the logistic regression behind them

# Directions with less than this part of the first one's spread are rounding.
NEGLIGIBLE = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Scores ``((x - mean) * scale) @ axes`` of one block; all arrays float64.

    Attributes
    ----------
    axes
        ``(width, n_axes)``.
    mean, scale
        ``(width,)`` each.

    Raises
    ------
    ValueError
        If the shapes do not belong together or a number is not finite.
    """

    axes: Floats
    mean: Floats
    scale: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that could not project."""
        width = (self.axes.shape[0],)
        if self.axes.ndim != 2 or self.mean.shape != width or self.scale.shape != width:  # noqa: PLR2004
            raise ValueError(
                f"axes {self.axes.shape}, mean {self.mean.shape}, scale {self.scale.shape} do not match"
            )
        for field in fields(self):
            array = getattr(self, field.name)
            if array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"{field.name} must be finite float64")

    def score(self, part: NDArray[Any]) -> Floats:
        """Scores ``(n, n_axes)`` of the columns ``(n, width)`` of the block."""
        scores: Floats = ((part - self.mean) * self.scale) @ self.axes
        return scores


def principal_axes(Z: Floats, n_axes: int, random_state: int | np.random.RandomState | None) -> Floats:
    """First principal axes ``(width, m)`` of centred columns ``(n, width)``, m at most `n_axes` and the rank.

    scikit-learn's PCA, whose ``svd_solver="auto"`` is exact for small blocks and randomised (Halko, Martinsson
    & Tropp 2011) for large ones.
    """
    if n_axes < 1:
        raise UsageError(f"{n_axes} components are too few.", "Ask for at least one.")
    if not Z.any():  # nothing varies, and shares of no variance are no numbers
        return np.zeros((Z.shape[1], 1))
    pca = PCA(min(n_axes, *Z.shape), random_state=random_state).fit(Z)
    spread = pca.singular_values_
    axes: Floats = pca.components_[spread > NEGLIGIBLE * max(spread[0], NEGLIGIBLE)].T
    return axes if axes.size else np.zeros((Z.shape[1], 1))


def principal_parts(
    X: NDArray[Any],
    blocks: Sequence[Block],
    mean: Floats,
    scale: Floats,
    n_axes: int,
    random_state: int | np.random.RandomState | None,
) -> tuple[list[Floats], list[Floats]]:
    """Principal axes ``(width, m)`` and scores ``(n, m)`` of each standardised block."""
    axes, scores = [], []
    for block in blocks:
        scaled = scaled_block(X, block, mean, scale)
        axes.append(principal_axes(scaled, n_axes, random_state))
        scores.append(scaled @ axes[-1])
    return axes, scores


def fit_concatenated(
    scores: Sequence[Floats],
    axes: Sequence[Floats],
    y: NDArray[np.intp],
    C: float,
    mean: Floats,
    scale: Floats,
) -> LinearModel:
    """Logistic regression on the blocks' scores side by side, each block weighed to a total variance of one.

    A projection followed by a linear model is a linear model of the columns, so that is what comes back.

    Parameters
    ----------
    scores
        ``(n, m)`` of each block, centred.
    axes
        ``(width, m)`` of each block.
    y, C
        As for `featstore.fusion.linear.fit_logistic`.
    mean, scale
        ``(d,)`` of all columns.
    """
    weights = [unit_variance_factor(part) for part in scores]
    joined = np.concatenate([part * weight for part, weight in zip(scores, weights, strict=True)], axis=1)
    coef, intercept = solve_logistic(joined, y, C)
    parts = np.split(coef, np.cumsum([part.shape[1] for part in scores])[:-1], axis=1)
    columns = [part @ (axis * weight).T for part, axis, weight in zip(parts, axes, weights, strict=True)]
    return LinearModel(np.concatenate(columns, axis=1), intercept, mean, scale)


def fit_merged(scores: Floats, y: NDArray[np.intp], C: float) -> LinearModel:
    """Logistic regression on merged scores ``(n, m)``, centred and weighed to a total variance of one."""
    mean = scores.mean(axis=0)
    scale = np.full(len(mean), unit_variance_factor(scores))
    return LinearModel(*solve_logistic((scores - mean) * scale, y, C), mean, scale)


def unit_variance_factor(scores: Floats) -> float:
    """Factor that gives ``(n, m)`` scores a total variance of one; 0 where they do not vary."""
    total = float(scores.var(axis=0).sum())
    return total**-0.5 if total > NEGLIGIBLE**2 else 0.0


def project(X: NDArray[Any], blocks: Sequence[Block], projections: Sequence[Projection]) -> list[Floats]:
    """Scores ``(n, m)`` of each block."""
    return [
        projection.score(part) for projection, part in zip(projections, split_columns(X, blocks), strict=True)
    ]


# Elastic-net logistic regression on many columns of which few matter

# Of the largest penalty: by so much a silent column may break its optimality condition.
SLACK = 1e-6
FIRST_COLUMNS = 100
MAX_ROUNDS = 50
PRECISION = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9}


def fit_elasticnet(Z: Floats, y: NDArray[np.intp], penalty: float, l1_ratio: float) -> Solution:
    """Minimise ``mean log-loss + strength * (l1_ratio * |w|_1 + (1 - l1_ratio) / 2 * |w|_2^2)``, intercept free.

    The strength is `penalty` times the smallest one at which all coefficients vanish, so that one number means
    about the same for any number of rows and columns. Few columns matter, so the problem is solved on a growing
    working set until no column outside it breaks its optimality condition (Friedman, Hastie & Tibshirani 2010,
    section 2.6); on the set by L-BFGS-B, every coefficient being the difference of two that are not negative.

    Parameters
    ----------
    Z
        ``(n, d)`` float64 columns, standardised.
    y
        ``(n,)`` class numbers 0..n_classes-1, all present.
    penalty
        Above 0; 1 and more silence every column.
    l1_ratio
        Above 0, at most 1, which is the lasso.

    Returns
    -------
    Coefficients ``(1, d)`` and intercept ``(1,)`` for two classes; ``(n_classes, d)`` and ``(n_classes,)`` for more.
    """
    truth = np.eye(y.max() + 1)[y]
    targets = truth[:, 1:] if truth.shape[1] == 2 else truth  # noqa: PLR2004
    coef, intercept = np.zeros((targets.shape[1], Z.shape[1])), np.log(truth.mean(axis=0))
    intercept = intercept[1:] - intercept[:1] if targets.shape[1] == 1 else intercept
    threshold = penalty * float(np.abs(_slope(Z, targets, coef, intercept)).max())
    ridge = threshold * (1 - l1_ratio) / l1_ratio
    working = np.zeros(Z.shape[1], np.bool_)
    for _ in range(MAX_ROUNDS):
        excess = np.abs(_slope(Z, targets, coef, intercept)).max(axis=0) - threshold
        broken = np.flatnonzero((excess > SLACK * threshold) & ~working)
        if not broken.size or not threshold:
            break
        room = max(FIRST_COLUMNS, int(working.sum()))
        working[broken[np.argsort(-excess[broken], kind="stable")[:room]]] = True
        start = coef[:, working], intercept
        coef[:, working], intercept = _solve(Z[:, working], targets, threshold, ridge, start)
    return coef, intercept


def _slope(Z: Floats, targets: Floats, coef: Floats, intercept: Floats) -> Floats:
    """Gradient ``(n_logits, d)`` of the mean log-loss."""
    slope: Floats = _residuals(Z @ coef.T + intercept, targets).T @ Z / len(Z)
    return slope


def _residuals(logits: Floats, targets: Floats) -> Floats:
    residuals: Floats = probabilities(logits)[:, -targets.shape[1] :] - targets
    return residuals


def _solve(Z: Floats, targets: Floats, threshold: float, ridge: float, start: Solution) -> Solution:
    """Solution on all the given columns."""
    shape = start[0].shape
    size = start[0].size

    def objective(parts: Floats) -> tuple[float, Floats]:
        up, down, intercept = parts[:size], parts[size : 2 * size], parts[2 * size :]
        coef = (up - down).reshape(shape)
        logits = Z @ coef.T + intercept
        residuals = _residuals(logits, targets)
        slope = (residuals.T @ Z / len(Z) + ridge * coef).ravel()
        value = _log_loss(logits, targets) + threshold * (up.sum() + down.sum()) + ridge / 2 * (coef**2).sum()
        gradient = np.concatenate([slope + threshold, threshold - slope, residuals.mean(axis=0)])
        return float(value), gradient

    coef, intercept = start
    first = np.concatenate([np.maximum(coef, 0).ravel(), np.maximum(-coef, 0).ravel(), intercept])
    bounds = [(0, None)] * (2 * size) + [(None, None)] * shape[0]
    best = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=PRECISION).x
    return (best[:size] - best[size : 2 * size]).reshape(shape), best[2 * size :]


def _log_loss(logits: Floats, targets: Floats) -> float:
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    of_truth = (logits[:, -targets.shape[1] :] * targets).sum(axis=1)
    return float((np.logaddexp.reduce(logits, axis=1) - of_truth).mean())


# A common space for all backbones: generalised Procrustes analysis of principal components

MAX_ROTATIONS = 100
ROTATION_TOLERANCE = 1e-12


class ProcrustesStrategy(FusionStrategy):
    """Base of the strategies that bring every backbone into one space of `n_components` axes.

    The principal components of each backbone are rotated, never stretched one against another, until axis i means
    the same in every backbone; subclasses say how the scores are then merged.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    C
        Inverse strength of the penalty on the merged scores, which together have variance one.
    n_components
        Axes of the common space, at most the rank of the smallest block.
    random_state
        Seed of the randomised PCA of large blocks. The default 0 makes two fits the same bytes.
    """

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
        shared = min(part.shape[1] for part in scores)
        weights = [unit_variance_factor(part[:, :shared]) for part in scores]
        leading = [part[:, :shared] * weight for part, weight in zip(scores, weights, strict=True)]
        self.projections_ = tuple(
            Projection(
                axis[:, :shared] @ turn * weight,
                mean[block.start : block.stop],
                scale[block.start : block.stop],
            )
            for axis, turn, weight, block in zip(axes, align(leading), weights, self.blocks_, strict=True)
        )
        self.model_ = fit_merged(self._merge(project(X, self.blocks_, self.projections_)), y, self.C)

    def _predict_proba(self, X: NDArray[Any]) -> Floats:
        return self.model_.proba(self._merge(project(X, self.blocks_, self.projections_)))

    def _merge(self, scores: list[Floats]) -> Floats:
        """Features ``(n, k)`` of aligned scores ``(n, m)``, one array per block."""
        raise NotImplementedError


def align(scores: Sequence[Floats]) -> list[Floats]:
    """Rotations ``(m, m)`` that bring centred scores ``(n, m)`` as near to their mean as rotations can.

    Each is turned to the mean of all, and the mean taken again, until it settles (Gower 1975). At the end all are
    turned together to the principal axes of the mean, so that the outcome does not hang on which one came first.
    """
    rotations = [np.eye(scores[0].shape[1])] * len(scores)
    mean: Floats = scores[0]
    for _ in range(MAX_ROTATIONS):
        rotations = [_rotation(part.T @ mean) for part in scores]
        before, mean = (
            mean,
            np.mean([part @ turn for part, turn in zip(scores, rotations, strict=True)], axis=0),
        )
        if ((mean - before) ** 2).sum() <= ROTATION_TOLERANCE * (mean**2).sum():
            break
    _, _, principal = np.linalg.svd(mean, full_matrices=False)
    final = principal.T * np.where(principal.sum(axis=1) < 0, -1.0, 1.0)
    return [turn @ final for turn in rotations]


def _rotation(product: Floats) -> Floats:
    left, _, right = np.linalg.svd(product)
    rotation: Floats = left @ right
    return rotation


# Answers for patients: the logits of the images, weighted


class PooledLogits:
    """Mixin of the strategies that answer for patients: a patient's logits are a weighted mean of the images'.

    So an image by itself has a linear model and an exact evidence map, and a patient's evidence is the weighted mean
    of the maps. A subclass says in `_image_scores` whom it listens to.
    """

    def predict_patients(self, X: ArrayLike, groups: ArrayLike) -> Floats:
        """Class probabilities of patients, at each of their rows.

        Parameters
        ----------
        X
            ``(n, d)`` features, one row per image.
        groups
            ``(n,)`` patient of each row.

        Returns
        -------
        ``(n, n_classes)`` float64, columns in the order of ``classes_``, alike in all rows of a patient.
        """
        features = self._check_features(X)  # type: ignore[attr-defined]
        numbers = number_rows(groups, len(features), "group")
        weights = softmax_by_group(self._image_scores(features), numbers)
        logits = self.linear_logits().decision(features)  # type: ignore[attr-defined]
        pooled = np.stack([np.bincount(numbers, weights * column) for column in logits.T], axis=1)
        return probabilities(pooled)[numbers]

    def image_weights(self, X: ArrayLike, groups: ArrayLike) -> Floats:
        """Share ``(n,)`` of each row of ``X (n, d)`` in its patient's logits; they sum to one for each patient."""
        features = self._check_features(X)  # type: ignore[attr-defined]
        return softmax_by_group(self._image_scores(features), number_rows(groups, len(features), "group"))

    def _image_scores(self, X: NDArray[Any]) -> Floats:
        """Scores ``(n,)`` whose softmax over the images of a patient are their weights; equal ones here."""
        return np.zeros(len(X))


def softmax_by_group(scores: Floats, numbers: NDArray[np.intp]) -> Floats:
    """Softmax ``(n,)`` of ``scores (n,)`` over the rows of each group, ``numbers (n,)`` from 0."""
    top = np.full(int(numbers.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(top, numbers, scores)
    parts = np.exp(scores - top[numbers])
    shares: Floats = parts / np.bincount(numbers, parts)[numbers]
    return shares


def number_bags(y: NDArray[np.intp], groups: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """Number of the patient of each row ``(n,)``, from 0; every row is one where there are no groups.

    Rows of a group that have another class are a patient of their own: no answer could be right for both.
    """
    if groups is None:
        return np.arange(len(y))
    numbers: NDArray[np.intp] = np.unique(groups * (int(y.max(initial=0)) + 1) + y, return_inverse=True)[1]
    return numbers
