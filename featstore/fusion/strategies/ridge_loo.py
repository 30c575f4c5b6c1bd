"""Concatenate the backbones' vectors, then ridge regression tuned by leaving out every patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featstore.errors import UsageError
from featstore.fusion.decision import scale_decisions
from featstore.fusion.dual_newton import in_threads, membership, scaled_blocks
from featstore.fusion.linear import LinearModel, LinearStrategy, standardise
from featstore.fusion.strategies.concat_logreg import AUTO, SubsetLogistic, WithCovariates
from featstore.fusion.strategy import beyond_grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from featstore.fusion.strategy import SubsetModels
    from featstore.types import Block

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

PENALTIES: tuple[float, ...] = tuple(float(number) for number in np.geomspace(1000, 0.1, 20))
"""Choices of "auto", the largest first: of equals it is taken."""
DEFAULT_PENALTY = 1.0
"""Where all rows are of one patient, and nobody can be left out."""
MAX_CHOICE = 8
"""Backbones of which all subsets are tried."""
PAIRED = 16
"""Rows of a group, at most, whose pairs are multiplied for all penalties at once."""
PAIRS_AT_ONCE = 512


class RidgeLoo(LinearStrategy):
    """Feature-level fusion by ridge regression on the classes, whose penalty is the best for patients left out.

    The targets are -1 and 1 for two classes, one-hot for more; the intercept is not penalised. Columns and blocks
    are weighed as in `ConcatLogreg`. For least squares what the model would predict for each patient without having
    seen that patient has a closed form (`left_out`). So every patient is held out, and not a few folds of them, which
    with 60 patients are a matter of luck. On these predictions the penalty is chosen (least squared error), if wanted
    also the backbones, and decisions are turned into probabilities (Platt scaling). The price is one
    eigendecomposition of the Gram matrix.

    Parameters
    ----------
    blocks
        Columns of each backbone; None means a single block.
    penalty
        Above 0, times ``|w|^2``, beside the sum of squared errors; "auto" takes the best of 20 from 0.1 to 1000.
    choose_blocks
        Whether to take the best of all subsets of the backbones, 8 at most, by the same predictions. One
        eigendecomposition for each subset.

    Attributes
    ----------
    penalty_
        The penalty in force.
    chosen_
        Names of the backbones in use.
    model_
        Regression and scaling of its decisions as one `LinearModel` over all columns.
    PRESETS
        Named parameters; ``chosen`` chooses the backbones.

    References
    ----------
    Hoerl & Kennard 1970, Technometrics 12(1); leaving out in closed form: Allen 1974, Technometrics 16(1); whole
    groups: Pahikkala, Boberg & Salakoski 2006, SCAI; as a classifier: Rifkin & Lippert 2007, MIT-CSAIL-TR-2007-025.

    Examples
    --------
    >>> import numpy as np
    >>> from featstore.fusion.strategies.ridge_loo import RidgeLoo
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> X = rng.normal(size=(60, 20)) + y[:, None]
    >>> ridge = RidgeLoo().fit(X, y, groups=np.arange(60) // 3)
    >>> ridge.chosen_, ridge.score(X, y) > 0.9
    (('all',), True)
    """

    level: ClassVar[str] = "feature"
    price: ClassVar[float] = 1.6
    copies: ClassVar[float] = 2.2
    squares: ClassVar[float] = 12.5
    min_blocks: ClassVar[int] = 1
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"chosen": {"choose_blocks": True}}

    def __init__(
        self,
        blocks: tuple[Block, ...] | None = None,
        penalty: float | str = AUTO,
        choose_blocks: bool = False,
    ) -> None:
        self.blocks = blocks
        self.penalty = penalty
        self.choose_blocks = choose_blocks

    def fit_subsets(
        self, X: ArrayLike, y: ArrayLike, subsets: Sequence[Sequence[str]], groups: ArrayLike | None = None
    ) -> SubsetModels:
        """Fit each subset of the blocks, as `fit` would on its columns alone; Gram matrices are made once for all."""
        features, numbers, units = self._validate(X, y, groups)
        task = self._task(features, numbers, units)
        members = membership(subsets, self.blocks_)
        found = task.choose(members)
        coefs = [
            np.stack([one.coefs[at] for one in found if at in one.coefs]) if where.any() else np.empty(0)
            for at, where in enumerate(members.T)
        ]
        intercepts = np.stack([one.intercept for one in found])
        penalties = np.array([one.penalty for one in found])
        family = SubsetLogistic(
            self.blocks_, members, task.mean, task.scale, tuple(coefs), intercepts, 1 / penalties
        )
        return WithCovariates(family, self) if hasattr(self, "covariates_") else family

    def at_edge(self) -> tuple[str, float, float] | None:
        """The penalty, if "auto" chose the smallest or the largest."""
        check_is_fitted(self)
        return beyond_grid("penalty", self.penalty_, PENALTIES) if self.penalty == AUTO else None

    def _fit(self, X: NDArray[Any], y: Rows, groups: Rows | None) -> None:
        task = self._task(X, y, groups)
        members = np.ones((1, len(self.blocks_)), np.bool_)
        if self.choose_blocks:
            if len(self.blocks_) > MAX_CHOICE:
                raise UsageError(
                    f"{len(self.blocks_)} backbones have too many subsets to try them all.",
                    f"Name {MAX_CHOICE} or fewer, or set choose_blocks=False.",
                )
            names = [block.name for block in self.blocks_]
            sizes = range(1, len(names) + 1)
            members = membership([s for size in sizes for s in combinations(names, size)], self.blocks_)
        best = min(task.choose(members), key=lambda one: one.error)
        self.penalty_ = best.penalty
        self.chosen_ = tuple(block.name for at, block in enumerate(self.blocks_) if at in best.coefs)
        coef = np.zeros((len(best.intercept), X.shape[1]))
        for at, part in best.coefs.items():
            coef[:, self.blocks_[at].start : self.blocks_[at].stop] = part
        self.model_ = LinearModel(coef, best.intercept, task.mean, task.scale)

    def _task(self, X: NDArray[Any], y: Rows, groups: Rows | None) -> _Task:
        if self.penalty != AUTO and (isinstance(self.penalty, str) or not 0 < self.penalty < np.inf):
            raise UsageError(
                f"penalty={self.penalty!r} is out of range.", 'Give a positive number, or "auto".'
            )
        units = np.arange(len(y)) if groups is None else groups
        if self.penalty != AUTO:
            penalties: tuple[float, ...] = (float(self.penalty),)
        else:
            penalties = PENALTIES if len(np.unique(units)) > 1 else (DEFAULT_PENALTY,)
        mean, scale = standardise(X, self.blocks_)
        parts = scaled_blocks(X, self.blocks_, mean, scale)
        return _Task(parts, y, _class_targets(y), units, penalties, mean, scale)


def _class_targets(y: Rows) -> Floats:
    """``(n, 1)`` of -1 and 1 for two classes, ``(n, n_classes)`` one-hot for more."""
    one_hot = np.eye(int(y.max()) + 1)[y]
    return 2 * one_hot[:, 1:] - 1 if one_hot.shape[1] == 2 else one_hot  # noqa: PLR2004


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """What one subset learned: logits are ``sum of part @ coef.T + intercept``, by number of the block."""

    coefs: dict[int, Floats]
    intercept: Floats
    penalty: float
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """Blocks ``(n, width)`` standardised and weighed, classes, targets and groups of the rows, and the penalties."""

    parts: list[Floats]
    y: Rows
    targets: Floats
    groups: Rows
    penalties: tuple[float, ...]
    mean: Floats
    scale: Floats

    def choose(self, members: NDArray[np.bool_]) -> list[_Fit]:
        """Best fit of each subset ``(subsets, blocks)``, with as many at a time as BLAS has threads."""
        rows, widths = len(self.y), np.array([part.shape[1] for part in self.parts])
        square = members[members @ widths >= rows].any(axis=0)
        grams = {at: centred_gram(self.parts[at]) for at in np.flatnonzero(square)}
        found: dict[int, _Fit] = {}

        def settle(subsets: Rows) -> int:
            for subset in subsets:
                inside = np.flatnonzero(members[subset])
                if widths[inside].sum() < rows:
                    spectrum = Spectrum.of_columns(np.concatenate([self.parts[at] for at in inside], axis=1))
                else:
                    total = sum((grams[at] for at in inside), np.zeros((rows, rows)))
                    spectrum = Spectrum.of_gram(total)
                found[int(subset)] = self._best(spectrum, inside)
            return 0

        in_threads(settle, len(members), least=1)
        return [found[subset] for subset in range(len(members))]

    def _best(self, spectrum: Spectrum, inside: Rows) -> _Fit:
        apart = len(np.unique(self.groups)) > 1
        if apart:
            predicted = left_out(spectrum, self.targets, self.groups, self.penalties)
        else:
            predicted = self.targets - spectrum.residuals(self.targets, self.penalties)
        errors = ((predicted - self.targets) ** 2).sum(axis=2).mean(axis=1)
        at = int(errors.argmin())
        penalty = self.penalties[at]
        dual = spectrum.residuals(self.targets, (penalty,))[0] / penalty
        coefs = {block: dual.T @ self.parts[block] for block in inside.tolist()}
        level = self.targets.mean(axis=0)
        intercept = level - sum(coef @ self.parts[block].mean(axis=0) for block, coef in coefs.items())
        decisions = predicted[at] - (_mean_of_others(self.targets, self.groups) - level if apart else 0)
        slope, offset = scale_decisions(decisions, self.y)
        scaled = {block: slope @ coef for block, coef in coefs.items()}
        return _Fit(scaled, slope @ intercept + offset, penalty, float(errors[at]))


def _mean_of_others(targets: Floats, groups: Rows) -> Floats:
    """Mean target ``(n, m)`` of all rows of other groups.

    It is in what is predicted for a patient left out, and is the lower the more of that patient's rows are above
    it: where features say nothing, that alone would make predictions the reverse of the truth.
    """
    count = np.bincount(groups)[groups][:, None]
    own = np.stack([np.bincount(groups, column)[groups] for column in targets.T], axis=1)
    others: Floats = (targets.sum(axis=0) - own) / (len(targets) - count)
    return others


# Ridge regression in the eigenvectors, for all penalties at once


def centred_gram(Z: Floats) -> Floats:
    """Inner products ``(n, n)`` of the rows of ``Z (n, d)`` less their mean."""
    centred = Z - Z.mean(axis=0)
    products: Floats = centred @ centred.T
    return products


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Eigenvectors in which the ridge regressions of all penalties are diagonal.

    With an unpenalised intercept the residuals of ridge regression are ``R @ y``, where R is the upper left part of
    the inverse of the bordered Gram matrix ``[[K + penalty, 1], [1, 0]]``, times the penalty. That is ``V
    diag(weights) V.T``, to which in d dimensions the centring matrix ``I - 1/n`` is added.

    Attributes
    ----------
    vectors
        ``(n, n - 1)`` eigenvectors of the centred Gram matrix, or where there are fewer columns than rows the
        ``(n, d)`` principal scores of the columns.
    values
        Eigenvalues, not negative.
    base
        0 or 1: the factor of the centring matrix.
    """

    vectors: Floats
    values: Floats
    base: int

    @classmethod
    def of_gram(cls, products: Floats) -> Self:
        """From the centred Gram matrix ``(n, n)``; that of several blocks is the sum of theirs.

        The constant vector is given the largest eigenvalue, and so comes out by itself and can be left away; its own
        eigenvalue of nought would be lost in the rounding of the others, and with it digits of who is left out.
        """
        largest = 2 * float(np.linalg.norm(products)) or 1.0
        values, vectors = np.linalg.eigh(products + largest / len(products))
        return cls(vectors[:, :-1], np.maximum(values[:-1], 0), 0)

    @classmethod
    def of_columns(cls, Z: Floats) -> Self:
        """From columns ``(n, d)``, in d dimensions or, where that is fewer, in n."""
        if Z.shape[1] >= len(Z):
            return cls.of_gram(centred_gram(Z))
        centred = Z - Z.mean(axis=0)
        values, axes = np.linalg.eigh(centred.T @ centred)
        return cls(centred @ axes, np.maximum(values, 0), 1)

    def scores(self, rows: Rows) -> Floats:
        """Principal scores of some rows: columns that have the same Gram matrix."""
        scores: Floats = self.vectors[rows] if self.base else self.vectors[rows] * np.sqrt(self.values)
        return scores

    def weights(self, penalties: Sequence[float]) -> Floats:
        """Weights ``(eigenvectors, penalties)``."""
        plus = self.values[:, None] + np.asarray(penalties)
        weights: Floats = -1 / plus if self.base else np.asarray(penalties) / plus
        return weights

    def residuals(self, targets: Floats, penalties: Sequence[float]) -> Floats:
        """Residuals ``(penalties, n, m)`` of ``targets (n, m)`` in the rows that the model is fitted to."""
        centred = targets - targets.mean(axis=0)
        inside = self.weights(penalties).T[:, :, None] * (self.vectors.T @ centred)
        residuals: Floats = self.vectors @ inside
        residuals += self.base * centred
        return residuals


def left_out(spectrum: Spectrum, targets: Floats, groups: Rows, penalties: Sequence[float]) -> Floats:
    """What the model would predict for each group if it were fitted to all others, in closed form.

    The residuals of a group left out are ``solve(R_gg, R_g y)``: a block of the inverse of the bordered Gram matrix
    is the inverse of the block's Schur complement. Equal to fitting again up to rounding, with the columns' scales
    as they are.

    Parameters
    ----------
    spectrum
        Of all rows.
    targets
        ``(n, m)``.
    groups
        ``(n,)`` numbers of two groups or more, of any sizes.
    penalties
        Each above 0.

    Returns
    -------
    Predictions ``(penalties, n, m)``.

    Examples
    --------
    >>> import numpy as np
    >>> from featstore.fusion.strategies.ridge_loo import Spectrum, left_out
    >>> from sklearn.linear_model import Ridge
    >>> rng = np.random.default_rng(0)
    >>> Z, y, groups = rng.normal(size=(30, 50)), rng.normal(size=(30, 1)), np.arange(30) // 5
    >>> closed = left_out(Spectrum.of_columns(Z), y, groups, [2.0])[0, groups == 3]
    >>> again = Ridge(2.0).fit(Z[groups != 3], y[groups != 3]).predict(Z[groups == 3])
    >>> bool(np.abs(closed.ravel() - again.ravel()).max() < 1e-10)
    True
    """
    weights = spectrum.weights(penalties)
    errors = spectrum.residuals(targets, penalties)
    for rows in _alike(groups):
        size = rows.shape[1]
        if 2 * size > len(groups):
            errors[:, rows[0]] = targets[rows[0]] - _by_the_rest(spectrum, targets, rows[0], penalties)
            continue
        blocks = _paired(spectrum, rows, weights) if size <= PAIRED else _whole(spectrum, rows[0], weights)
        blocks += spectrum.base * (np.eye(size) - 1 / len(groups))
        errors[:, rows] = np.linalg.solve(blocks, errors[:, rows])
    predictions: Floats = targets - errors
    return predictions


def _alike(groups: Rows) -> Iterator[Rows]:
    """Rows ``(groups, size)`` of groups of the same size: small ones together in parts, each larger one by itself."""
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    starts = np.cumsum(counts) - counts
    for size in np.unique(counts[counts > 0]):
        rows = order[starts[counts == size][:, None] + np.arange(size)]
        some = max(1, PAIRS_AT_ONCE // (size * size)) if size <= PAIRED else 1
        yield from (rows[at : at + some] for at in range(0, len(rows), some))


def _by_the_rest(spectrum: Spectrum, targets: Floats, rows: Rows, penalties: Sequence[float]) -> Floats:
    """Predictions ``(penalties, size, m)`` for more than half of the rows: by fitting to the few others.

    That is cheaper than the block, whose inverse would lose digits too.
    """
    rest = np.delete(np.arange(len(targets)), rows)
    scores = spectrum.scores(rest)
    dual = Spectrum.of_columns(scores).residuals(targets[rest], penalties)
    dual /= np.asarray(penalties)[:, None, None]
    away = spectrum.scores(rows) - scores.mean(axis=0)
    predictions: Floats = away @ (scores.T @ dual) + targets[rest].mean(axis=0)
    return predictions


def _paired(spectrum: Spectrum, rows: Rows, weights: Floats) -> Floats:
    """Blocks ``(penalties, groups, size, size)`` of ``V diag(weights) V.T``, one product for all penalties."""
    count, size = rows.shape
    first, second = np.triu_indices(size)
    inside = spectrum.vectors[rows]
    pairs = inside[:, first] * inside[:, second]
    values = (pairs.reshape(count * len(first), -1) @ weights).T.reshape(-1, count, len(first))
    blocks = np.empty((len(values), count, size, size))
    blocks[..., first, second] = values
    blocks[..., second, first] = values
    return blocks


def _whole(spectrum: Spectrum, rows: Rows, weights: Floats) -> Floats:
    """Block ``(penalties, 1, size, size)`` of one large group, one product for each penalty."""
    inside = spectrum.vectors[rows]
    return np.stack([(inside * weight) @ inside.T for weight in weights.T])[:, None]
