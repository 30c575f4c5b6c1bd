"""Linear models as plain arrays: standardise blocks, solve a logistic regression, predict."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from sklearn.linear_model import LogisticRegression

from featstore.fusion.blocks import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from featstore.fusion.blocks import Block

    Floats = NDArray[np.float64]

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
    parts = [_standardise_block(part) for part in split(X, blocks)]
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
