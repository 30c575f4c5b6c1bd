"""Shapley values, the Pareto front, CKA, LogME and H-score against brute force and published formulas."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from fakes_matrix import make_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from featstore.evaluation import backbone_value as worth_and_cost
from featstore.evaluation.backbone_value import (
    backbone_value,
    h_score,
    linear_cka,
    log_me,
    pareto,
    shapley,
    subsets_to_fit,
)
from featstore.evaluation.crossval import cross_validate
from featstore.evaluation.estimates import EvaluationDesign
from featstore.splits import group_folds
from featstore.time_estimates import CATALOGUE, TimeEstimate

RNG = np.random.default_rng(0)
FOUR = ("a", "b", "c", "d")


def test_shapley_is_the_mean_gain_over_all_orders():
    value = {frozenset(s): float(RNG.random()) for s in [(), *subsets_to_fit(FOUR)]}
    orders = list(permutations(FOUR))
    for name, worth in shapley(FOUR, value).items():
        gains = [
            value[frozenset(o[: o.index(name) + 1])] - value[frozenset(o[: o.index(name)])] for o in orders
        ]
        assert worth == pytest.approx(np.mean(gains))


def test_shapley_of_the_glove_game():
    """One left glove and two right ones (Shapley's standard example): 2/3, 1/6, 1/6."""
    names = ("left", "right", "other")
    value = {frozenset(s): float("left" in s and len(s) > 1) for s in [(), *subsets_to_fit(names)]}
    assert list(shapley(names, value).values()) == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_of_many_names_sampled_orders_still_share_out_the_whole():
    nine = tuple("abcdefghi")
    subsets = subsets_to_fit(nine)
    value = {frozenset(): 0.5, **{frozenset(s): 0.5 + 0.01 * len(s) for s in subsets}}
    assert {(name,) for name in nine} <= set(subsets)
    assert list(shapley(nine, value).values()) == pytest.approx([0.01] * 9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_whom_nobody_surpasses(points):
    cost, score = zip(*points, strict=True)
    front = pareto(cost, score)
    beaten = {p for p in points if any(c <= p[0] and s >= p[1] and (c, s) != p for c, s in points)}
    assert {points[at] for at in front} == set(points) - beaten
    assert len(front) == len({points[at] for at in front})


@pytest.mark.parametrize(("d", "e"), [(3, 5), (60, 80)], ids=["by columns", "by images"])
def test_cka_is_the_normalised_hsic_of_linear_kernels(d, e):
    X, Y = RNG.normal(size=(30, d)), RNG.normal(size=(30, e))
    H = np.eye(30) - 1 / 30
    K, L = X @ X.T, Y @ Y.T

    def hsic(A, B):
        return np.trace(A @ H @ B @ H)

    assert linear_cka(X, Y) == pytest.approx(hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L)))
    rotation = np.linalg.qr(RNG.normal(size=(d, d)))[0]
    assert linear_cka(X, 3 * X @ rotation + 1) == pytest.approx(1.0)


def test_log_me_is_the_largest_gaussian_evidence():
    y = np.repeat([0, 1], 20)
    X = RNG.normal(size=(40, 4)) + y[:, None]

    def loss(logs, target):
        covariance = np.eye(40) / np.exp(logs[1]) + X @ X.T / np.exp(logs[0])
        return -multivariate_normal.logpdf(target, np.zeros(40), covariance)

    best = [-minimize(loss, [0, 0], (1.0 * (y == c),), method="Nelder-Mead", tol=1e-10).fun for c in (0, 1)]
    assert log_me(X, y) == pytest.approx(np.mean(best) / 40, abs=1e-6)


def test_h_score_is_the_spread_between_classes_in_units_of_all():
    y = np.arange(4000) % 3
    X = RNG.normal(size=(4000, 5)) + np.eye(3, 5)[y]
    centred = X - X.mean(axis=0)
    between = np.cov(np.array([centred[y == c].mean(axis=0) for c in y]).T, bias=True)
    plain = np.trace(np.linalg.pinv(np.cov(centred.T, bias=True)) @ between)
    assert h_score(X, y) == pytest.approx(plain, rel=0.02)  # shrinkage goes with the number of images


def test_h_score_tells_networks_apart_that_have_more_columns_than_images():
    y = np.arange(60) % 2
    noise = RNG.normal(size=(60, 100))
    assert h_score(noise + 0.5 * y[:, None], y) > 1.2 * h_score(noise, y)


def test_what_knows_the_class_is_worth_more_than_what_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(
        worth_and_cost, "estimate_time", lambda specs, *_: TimeEstimate(0.0, dict.fromkeys(specs, 0.01), "")
    )
    matrix = make_matrix(signal=(3.0, 0.0, 1.0), patients=40, views=1)
    splits = group_folds(matrix, 2)
    design = EvaluationDesign(matrix.y, matrix.groups, splits, 1, 1)

    def play_all(candidates):
        proba = [[None] * len(splits) for _ in candidates]
        for c, f, values in cross_validate(matrix, candidates, splits):
            proba[c][f] = values
        return proba

    result = backbone_value(matrix, design, play_all, tmp_path)
    best, useless, middling = result.costs
    assert best.shapley > middling.shapley > useless.shapley
    assert best.caruana > useless.caruana
    assert sum(p.caruana for p in result.costs) == pytest.approx(1.0)
    assert best.log_me > useless.log_me
    assert result.exact
    assert [price.milliseconds for price in result.costs] == [10.0] * 3
    assert {price.basis for price in result.costs} == {CATALOGUE}
    assert all(a.milliseconds <= b.milliseconds and a.score < b.score for a, b in pairwise(result.front))
    np.testing.assert_allclose(np.diag(result.redundancy), 1.0)
    assert result.to_json()["agreement"].keys() == {"log_me", "h_score"}
