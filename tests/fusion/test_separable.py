"""Classes that are apart have a finite best model, and both solvers find it: against an independent Newton method."""

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featstore.fusion import dual_newton as dual
from featstore.fusion.dual_newton import best_intercept, inverse_link, loss, targets
from featstore.fusion.linear import standardise
from featstore.fusion.strategies.concat_logreg import GRID, ConcatLogreg, SubsetLogistic
from featstore.types import make_blocks

WIDTHS = {"a": 12, "b": 5}
BLOCKS = make_blocks(WIDTHS)
BOTH = [("a",), ("a", "b")]


def clusters(n_classes, n, gap, seed=0):
    """Rows around centres that are so many standard deviations from the origin, in 17 columns."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    X = rng.normal(size=(n, 17)) + gap * rng.normal(size=(n_classes, 17))[y]
    return X.astype(np.float32), y


def newton(X, y, C):
    """Softmax regression by Newton's method with step halving on all weights at once, to rounding."""
    n_classes, hot = y.max() + 1, np.eye(y.max() + 1)[y]
    mean, scale = standardise(X, BLOCKS)
    Z = np.column_stack([(X - mean) * scale, np.ones(len(X))])
    ridge = np.diag(
        np.append(np.ones(Z.shape[1] - 1), 1e-12)
    )  # an unpenalised intercept, but for the common shift

    def objective(W):
        logits = Z @ W
        own = (logits * hot).sum(axis=1)
        return C * np.logaddexp.reduce(logits - own[:, None], axis=1).sum() + (W * (ridge @ W)).sum() / 2

    W = np.zeros((Z.shape[1], n_classes))
    for _ in range(100):
        logits = Z @ W
        proba = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        slope = C * Z.T @ (proba - hot) + ridge @ W
        hessian = np.einsum("nk,kl->nkl", proba, np.eye(n_classes)) - proba[:, :, None] * proba[:, None]
        full = C * np.einsum("nd,nkl,ne->dkel", Z, hessian, Z)
        full += np.einsum("de,kl->dkel", ridge, np.eye(n_classes))
        step = np.linalg.lstsq(full.reshape(W.size, -1), slope.ravel(), rcond=1e-15)[0].reshape(W.shape)
        part = 1.0
        while part > 1e-9 and objective(W - part * step) > objective(W):
            part /= 2
        W = W - part * step
        if np.sqrt((step * slope).sum()) < 1e-9:  # |W - W*|, as the penalty alone bends that much
            break
    logits = Z @ W
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])


@pytest.fixture(autouse=True)
def _nothing_warned():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("C", [0.05, 5.0, 50.0, 500.0])
@pytest.mark.parametrize("gap", [0, pytest.param(1, marks=pytest.mark.slow), 10])
@pytest.mark.parametrize("n_classes", [3, pytest.param(4, marks=pytest.mark.slow), 5])
def test_separable_classes_have_the_model_of_newtons_method(n_classes, gap, C):
    X, y = clusters(n_classes, 20, gap)
    exact = newton(X, y, C)
    family = SubsetLogistic.fit(X, y, BLOCKS, BOTH, C).predict_proba(X)
    np.testing.assert_allclose(family[1], exact, atol=1e-6)
    np.testing.assert_allclose(ConcatLogreg(BLOCKS, C).fit(X, y).predict_proba(X), exact, atol=1e-6)


def test_newton_of_this_test_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    X, y = clusters(3, 40, 0.3)
    mean, scale = standardise(X, BLOCKS)
    Z = (X - mean) * scale
    theirs = LogisticRegression(C=5, solver="newton-cholesky", tol=1e-10).fit(Z, y).predict_proba(Z)
    np.testing.assert_allclose(newton(X, y, 5.0), theirs, atol=1e-8)


@pytest.mark.parametrize(("n_classes", "gap"), [(3, 0), (3, 3), (5, 1)])
def test_c_auto_ends_and_is_on_the_grid(n_classes, gap):
    X, y = clusters(n_classes, 24, gap)
    tuned = ConcatLogreg(BLOCKS, C="auto").fit_subsets(X, y, BOTH, np.arange(24) // 2)
    alone = ConcatLogreg(BLOCKS, **ConcatLogreg.PRESETS["tuned"]).fit(X, y, groups=np.arange(24) // 2)
    assert set(tuned.C) <= set(GRID)
    assert tuned.C[1] == alone.C_
    np.testing.assert_allclose(alone.predict_proba(X), tuned.predict_proba(X)[1], atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["one image a class", "lonely classes", "copies", "constant", "huge", "tiny"]
)
@pytest.mark.parametrize("C", [0.05, 500.0])
def test_odd_rows_have_the_model_of_newtons_method(kind, C):
    X, y = clusters(3, 30, 1)
    if kind == "one image a class":
        X, y = clusters(4, 4, 1)
    elif kind == "lonely classes":
        y = np.append([0, 1], np.full(28, 2))
    elif kind == "copies":
        X, y = np.tile(X[:10], (3, 1)), np.tile(y[:10], 3)
    elif kind == "constant":
        X[:, ::3] = 7.5
    elif kind == "huge":
        X = X * np.float32(1e30)
    elif kind == "tiny":
        X = X * np.float32(1e-30)
    exact = newton(X, y, C)
    family = SubsetLogistic.fit(X, y, BLOCKS, BOTH, C).predict_proba(X)
    np.testing.assert_allclose(family[1], exact, atol=1e-6)
    np.testing.assert_allclose(ConcatLogreg(BLOCKS, C).fit(X, y).predict_proba(X), exact, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_columns_whose_squares_do_not_fit_a_number_are_standardised_all_the_same(scale):
    X, y = clusters(3, 30, 1)
    plain = ConcatLogreg(BLOCKS).fit(X.astype(float), y)
    scaled = ConcatLogreg(BLOCKS).fit(X.astype(float) * scale, y)
    new = clusters(3, 10, 1, seed=1)[0].astype(float)
    np.testing.assert_allclose(scaled.predict_proba(new * scale), plain.predict_proba(new), atol=1e-9)


def test_columns_that_are_all_constant_leave_the_shares_of_the_classes():
    y = np.array([0] * 5 + [1] * 3 + [2] * 2)
    proba = (
        ConcatLogreg(BLOCKS)
        .fit_subsets(np.ones((10, 17), np.float32), y, BOTH)
        .predict_proba(np.ones((2, 17), np.float32))
    )
    np.testing.assert_allclose(proba, np.broadcast_to([0.5, 0.3, 0.2], proba.shape), atol=1e-9)


APART = np.full((2, 3, 9), -106.0)
APART[1, [0, 0, 0, 0, 1, 1, 1, 2, 2], [2, 5, 7, 8, 1, 4, 6, 0, 3]] = 0


@given(
    arrays(np.float64, (2, 3, 9), elements=st.floats(-1e6, 1e6)),
    st.floats(-12, 6),
    st.permutations([0, 1, 2] * 3),
)
@example(APART, 0.0, [0, 1, 2] * 3)
@settings(max_examples=30, deadline=None)
def test_the_best_intercept_is_finite_never_worse_and_shifts_nothing_in_common(values, exponent, y):
    values, target = values * 10**exponent, targets(np.array(y), 3)
    start = np.zeros((2, 3))
    found = best_intercept(values, target, start)
    after, before = loss(values + found[:, :, None], target), loss(values, target)
    assert np.isfinite(found).all()
    assert (after <= before * (1 + 1e-9) + 1e-9).all()
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-6 * (1 + np.abs(found).max()))


def test_the_best_intercept_of_separated_classes_is_found():
    values = np.array([[[9.0, 9, 0, 0, 0, 0], [0, 0, 9, 9, 0, 0], [0, 0, 0, 0, 9, 1]]])
    target = targets(np.array([0, 0, 1, 1, 2, 2]), 3)
    found = best_intercept(values, target, np.zeros((1, 3)))
    slope = (inverse_link(values + found[:, :, None]) - target).sum(axis=2)
    np.testing.assert_allclose(slope, 0, atol=1e-12)


@pytest.mark.parametrize("size", [1e3, 1e8, 1e300])
def test_likelihood_does_not_overflow(size):
    logits = size * np.array([[[1.0, -1], [0, 0], [-1, 1]]])
    assert inverse_link(logits).tolist() == [[[1, 0], [0, 0], [0, 1]]]
    assert loss(logits, targets(np.array([0, 2]), 3)) == 0
    np.testing.assert_allclose(loss(logits, targets(np.array([1, 0]), 3)), 3 * size)
    np.testing.assert_allclose(loss(logits[:, :1], targets(np.array([1, 1]), 2)), size)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_step_that_is_no_number_ends_with_the_state_before_it(n_classes, monkeypatch):
    X, y = clusters(n_classes, 30, 1)
    monkeypatch.setattr(dual.NewtonSystem, "solve", lambda _, slope, *__: (slope * np.nan, slope * np.nan))
    with pytest.warns(UserWarning, match="2 subsets did not reach the optimum"):
        family = SubsetLogistic.fit(X, y, BLOCKS, BOTH, 5.0)
    assert np.isfinite(family.predict_proba(X)).all()
