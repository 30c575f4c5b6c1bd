"""All subsets of backbones at once, against scikit-learn, which fits them one by one and knows no Gram matrix."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from featstore.errors import UsageError
from featstore.fusion.dual_newton import Kernel, membership, multiply_gram, solve, targets
from featstore.fusion.strategies.concat_logreg import (
    GRID,
    ConcatLogreg,
    SubsetLogistic,
    forward_selection,
    penalty_folds,
)
from featstore.fusion.strategy import SubsetStrategy
from featstore.types import Block, make_blocks

SAME = 1e-6


def gap_like(n, widths, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    latent = rng.normal(size=(n, 8))
    latent[:, :n_classes] += np.eye(n_classes)[y]
    X = latent @ rng.normal(size=(8, sum(widths.values()))) / 3 + rng.normal(size=(n, sum(widths.values())))
    return np.maximum(X, 0).astype(np.float32), y


def all_subsets(blocks):
    names = [block.name for block in blocks]
    return [s for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]


def one_by_one(X, y, X_new, blocks, subset, C):
    """Newton on the columns themselves: StandardScaler, block weights, LogisticRegression."""
    parts = [block for block in blocks if block.name in subset]
    columns = np.concatenate([np.arange(b.start, b.stop) for b in parts])
    weights = np.concatenate([np.full(b.width, b.width**-0.5) for b in parts])
    scaler = StandardScaler().fit(X[:, columns].astype(float))
    solver = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at machine precision its line search gives up
        solver.fit(scaler.transform(X[:, columns]) * weights, y)
    return solver.predict_proba(scaler.transform(X_new[:, columns]) * weights)


def assert_same(X, y, X_new, blocks, C=5.0, tolerance=SAME):
    subsets = all_subsets(blocks)
    proba = SubsetLogistic.fit(X, y, blocks, subsets, C).predict_proba(X_new)
    for subset, ours in zip(subsets, proba, strict=True):
        theirs = one_by_one(X, y, X_new, blocks, subset, C)
        assert np.abs(ours - theirs).max() <= tolerance, subset


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n", [40, 150], ids=["fewer rows than columns", "more rows than columns"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_subset_is_the_model_scikit_learn_finds(n, n_classes, seed):
    widths = {"a": 30, "b": 7, "c": 60}
    X, y = gap_like(n, widths, n_classes, seed)
    X_new, _ = gap_like(50, widths, n_classes, seed + 100)
    assert_same(X, y, X_new, make_blocks(widths))


@given(
    n=st.integers(12, 40),
    widths=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    n_classes=st.integers(2, 3),
    C=st.sampled_from([1e-3, 0.1, 5.0, 100.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_whatever_the_shape(n, widths, n_classes, C, seed):
    named = {str(at): width for at, width in enumerate(widths)}
    X, y = gap_like(n, named, n_classes, seed)
    X_new, _ = gap_like(20, named, n_classes, seed + 1)
    assert_same(X, y, X_new, make_blocks(named), C)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_columns_that_carry_nothing_new_do_no_harm(n_classes):
    widths = {"plain": 20, "copies": 30, "constant": 5, "zero": 4}
    X, y = gap_like(60, widths, n_classes)
    X_new, _ = gap_like(30, widths, n_classes, seed=1)
    for Z in (X, X_new):
        Z[:, 20:35] = Z[:, 35:50]
        Z[:, 50:53] = 7.5
        Z[:, 55:] = 0.0
    assert_same(X, y, X_new, make_blocks(widths))


def test_repeated_rows_do_no_harm():
    widths = {"a": 80, "b": 10}
    X, y = gap_like(25, widths)
    X_new, _ = gap_like(30, widths, seed=1)
    assert_same(np.tile(X, (3, 1)), np.tile(y, 3), X_new, make_blocks(widths))


def test_a_hardly_penalised_model_of_separable_rows_still_converges():
    widths = {"a": 200, "b": 50}
    X, y = gap_like(60, widths)
    X_new, _ = gap_like(30, widths, seed=1)
    assert_same(X, y, X_new, make_blocks(widths), C=1e4, tolerance=1e-5)


def test_one_lonely_image_of_a_class_is_enough():
    widths = {"a": 30}
    X, _ = gap_like(40, widths)
    assert_same(X, (np.arange(40) == 3).astype(int), X, make_blocks(widths))


def test_the_solution_is_stationary_and_does_not_depend_on_where_it_started():
    widths = {"a": 30, "b": 90}
    _, y = gap_like(50, widths)
    rng = np.random.default_rng(0)
    kernels = [Kernel.of(rng.normal(size=(50, width)) * width**-0.5) for width in widths.values()]
    members = membership(all_subsets(make_blocks(widths)), make_blocks(widths))
    target = targets(y, 2)
    cold = solve(kernels, members, target, np.full(3, 5.0))
    warm = solve(kernels, members, target, np.full(3, 5.0), solve(kernels, members, target, np.full(3, 0.5)))
    logits = cold.logits(kernels, members)
    np.testing.assert_allclose(cold.dual, 5.0 * (target - 1 / (1 + np.exp(-logits))), atol=1e-6)
    np.testing.assert_allclose(cold.dual.sum(axis=2), 0, atol=1e-6)
    np.testing.assert_allclose(warm.logits(kernels, members), logits, atol=1e-6)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_thin_factors_and_square_matrices_are_the_same_kernel(n, width, seed):
    rng = np.random.default_rng(seed)
    Z, A = rng.normal(size=(n, width)), rng.normal(size=(3, n))
    rows, columns = rng.integers(0, n, 4), rng.permutation(n)[: max(1, n // 2)]
    square, thin = Kernel(Z @ Z.T, None), Kernel(Z, Z)
    for kernel in (square, thin, Kernel.of(Z)):
        np.testing.assert_allclose(kernel.times(A), A @ Z @ Z.T, atol=1e-10)
        np.testing.assert_allclose(kernel.diagonal(), (Z**2).sum(axis=1), atol=1e-10)
        part = kernel.between(rows, columns)
        np.testing.assert_allclose(
            part.times(A[:, columns]), A[:, columns] @ Z[columns] @ Z[rows].T, atol=1e-10
        )


def test_a_subset_is_multiplied_by_the_sum_of_its_blocks():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(9, width)) for width in (2, 30)]
    A = rng.normal(size=(3, 2, 9))
    members = np.array([[True, False], [False, True], [True, True]])
    grams = [sum(Z @ Z.T for Z, inside in zip(parts, row, strict=True) if inside) for row in members]
    expected = np.stack([a @ gram for a, gram in zip(A, grams, strict=True)])
    np.testing.assert_allclose(multiply_gram([Kernel.of(Z) for Z in parts], members, A), expected, atol=1e-12)


def test_concat_logreg_offers_its_subsets_together():
    widths = {"a": 40, "b": 15}
    X, y = gap_like(60, widths, 3)
    labels = np.array(["x", "y", "z"])[y]
    strategy = ConcatLogreg(make_blocks(widths), C=2.0)
    assert isinstance(strategy, SubsetStrategy)
    together = strategy.fit_subsets(X, labels, [("b",), ("a", "b")]).predict_proba(X)
    alone = ConcatLogreg(make_blocks({"b": 15}), C=2.0).fit(X[:, 40:], labels).predict_proba(X[:, 40:])
    np.testing.assert_allclose(together[0], alone, atol=SAME)
    np.testing.assert_allclose(together[1], strategy.fit(X, labels).predict_proba(X), atol=SAME)


def loss_on_inner_folds(X, y, groups, blocks, C):
    """Log-loss per row that scikit-learn leaves on the same folds, scaled once on all training rows."""
    weights = np.concatenate([np.full(b.width, b.width**-0.5) for b in blocks])
    Z = StandardScaler().fit_transform(X.astype(float)) * weights
    total = 0.0
    for train, test in penalty_folds(y, groups):
        solver = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10).fit(Z[train], y[train])
        total -= solver.predict_log_proba(Z[test])[np.arange(len(test)), y[test]].sum()
    return total


@pytest.mark.parametrize("n_classes", [2, 3])
def test_c_is_the_best_of_the_grid_on_inner_folds_and_the_same_alone_as_together(n_classes):
    widths = {"a": 40, "b": 15}
    X, y = gap_like(60, widths, n_classes)
    groups = np.arange(60) // 2
    blocks = make_blocks(widths)
    best = min(GRID, key=lambda C: loss_on_inner_folds(X, y, groups, blocks, C))
    alone = ConcatLogreg(blocks, C="auto").fit(X, y, groups=groups)
    together = ConcatLogreg(blocks, C="auto").fit_subsets(X, y, [("a",), ("a", "b")], groups)
    single = ConcatLogreg(C="auto").fit(X[:, :40], y, groups=groups)
    assert together.C.tolist() == [single.C_, alone.C_]
    assert best == alone.C_
    np.testing.assert_allclose(together.predict_proba(X)[1], alone.predict_proba(X), atol=SAME)


def test_inner_folds_keep_groups_whole_and_every_class_in_training():
    y = np.arange(60) % 3
    groups = np.arange(60) // 6
    folds = list(penalty_folds(y, groups))
    assert len(folds) == 3
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert set(y[train]) == {0, 1, 2}
    assert list(penalty_folds(y, y)) == []


def test_where_nothing_can_be_held_out_c_is_the_default():
    X, y = gap_like(30, {"a": 10})
    assert ConcatLogreg(C="auto").fit(X, y, groups=y).C_ == ConcatLogreg().C


@pytest.mark.parametrize("C", ["best", 0, -1.0, np.inf, np.nan])
def test_a_penalty_that_cannot_be_meant_is_refused(C):
    X, y = gap_like(30, {"a": 10})
    with pytest.raises(UsageError, match="out of range"):
        ConcatLogreg(C=C).fit(X, y)


def test_forward_selection_takes_what_carries_signal_and_leaves_noise():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    blocks = make_blocks({"noise": 10, "left": 10, "copy": 10, "right": 10})
    X = rng.normal(size=(200, 40))
    X[:, 10] += 1.5 * y
    X[:, 30] += 1.5 * y
    X[:, 20:30] = X[:, 10:20]
    chosen = forward_selection(X, y, blocks, 5.0, np.arange(200) // 2)
    assert "noise" not in chosen
    assert "right" in chosen
    assert {"left", "copy"} & set(chosen)


def test_forward_selection_without_enough_groups_keeps_everything():
    X, y = gap_like(30, {"a": 5, "b": 5})
    assert forward_selection(X, y, (Block("a", 0, 5), Block("b", 5, 10)), 5.0, y) == ("a", "b")
