"""Resampling draws patients, and its p values and intervals keep their promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.evaluation.bootstrap import group_weights, holm, percentile_interval, two_sided_p


def test_images_of_a_patient_are_drawn_together():
    groups = np.array(["a", "b", "a", "c", "b", "a"])
    weights = group_weights(groups, resamples=50)
    for name in "abc":
        members = weights[:, groups == name]
        assert (members == members[:, :1]).all()
    first = [int(np.flatnonzero(groups == name)[0]) for name in "abc"]
    assert (weights[:, first].sum(axis=1) == 3).all()


def test_the_same_seed_draws_the_same():
    groups = np.array(["a", "b", "c"])
    assert np.array_equal(group_weights(groups, 20, seed=4), group_weights(groups, 20, seed=4))
    assert not np.array_equal(group_weights(groups, 20, seed=4), group_weights(groups, 20, seed=5))


def test_patients_make_the_interval_wider_than_images_would():
    """20 patients with 10 equal images each carry the information of 20 images, not of 200."""
    values = np.repeat(np.random.default_rng(1).normal(size=20), 10)
    by_patient = np.repeat([f"p{i}" for i in range(20)], 10)
    by_image = np.array([f"i{i}" for i in range(200)])
    widths = []
    for groups in (by_patient, by_image):
        weights = group_weights(groups)
        low, high = percentile_interval((weights @ values) / weights.sum(axis=1))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(10), rel=0.15)


def test_the_interval_of_a_mean_is_that_of_the_textbook():
    values = np.random.default_rng(2).normal(size=400)
    weights = group_weights(np.arange(400).astype(str), resamples=4000)
    low, high = percentile_interval((weights @ values) / weights.sum(axis=1))
    half = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_no_finite_value_is_no_interval():
    assert percentile_interval(np.array([np.nan, np.nan])) is None


def test_p_is_small_when_all_resamples_agree_and_one_when_they_balance():
    assert two_sided_p(np.full(1999, 0.1)) == pytest.approx(2 / 2000)
    assert two_sided_p(np.tile([-1.0, 1.0], 500)) == 1.0
    assert two_sided_p(np.zeros(100)) == 1.0


p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(p_lists)
def test_holm_equals_its_definition(values):
    """Holm 1979: walk up from the smallest p; the k-th is multiplied by m - k + 1 and never falls."""
    p = np.array(values)
    expected = np.empty(len(p))
    running = 0.0
    for rank, at in enumerate(np.argsort(p)):
        running = max(running, min(1.0, (len(p) - rank) * p[at]))
        expected[at] = running
    np.testing.assert_allclose(holm(p), expected)


def test_holm_on_an_example_worked_by_hand():
    """Worked by hand: 4 x .005, 3 x .01, 2 x .03, then .04 lifted to .06."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
