"""Each test of a difference against scipy, a published number or its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from featstore.evaluation.pairwise_tests import (
    bootstrap_p,
    corrected_t_p,
    delong_p,
    holm,
    mcnemar_p,
)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_exact_binomial_test(wins, losses):
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_p(np.array([wins]), np.array([losses]))[0] == pytest.approx(expected)


@pytest.mark.slow
def test_the_corrected_t_test_gives_the_number_in_scikit_learns_documentation():
    """User guide, "Statistical comparison of models using grid search": t = 0.750, one-sided p = 0.227."""
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.svm import SVC

    X, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    cv = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), X, y, cv=cv, scoring="roc_auc")
        for kernel in ("rbf", "linear")
    )
    assert corrected_t_p((rbf - linear)[None], 10 / 90)[0] == pytest.approx(2 * 0.227, abs=0.001)


def test_without_overlap_the_corrected_t_test_is_students():
    folds = np.random.default_rng(0).normal(0.3, 1, (4, 9))
    np.testing.assert_allclose(corrected_t_p(folds, 0.0), stats.ttest_1samp(folds, 0, axis=1).pvalue)


def test_standard_errors_become_p_values_by_the_textbook():
    delta, errors = np.array([1.96, 0.0, 3.0]), np.ones(3)
    assert delong_p(delta, errors) == pytest.approx([0.05, 1.0, 0.0027], abs=1e-4)


def test_the_bootstrap_counts_the_resamples_beyond_zero():
    shifted = np.arange(-50, 950.0)[None] + 0.5
    assert bootstrap_p(shifted, groups=30)[0] == pytest.approx(2 * 51 / 1001)
    assert bootstrap_p(-shifted, groups=30)[0] == pytest.approx(2 * 51 / 1001)
    assert bootstrap_p(np.tile([-1.0, 1.0], 500)[None], groups=30)[0] == 1.0
    assert bootstrap_p(np.zeros((1, 100)), groups=30)[0] == 1.0


def test_where_there_is_nothing_to_count_the_bootstrap_takes_the_tail_of_t():
    drawn = 6 + stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    expected = 2 * stats.t.sf(6 / drawn.std(ddof=1), 29)
    assert bootstrap_p(drawn[None], groups=30)[0] == pytest.approx(expected)
    assert bootstrap_p(np.full((1, 1999), 0.1), groups=30)[0] == pytest.approx(2 / 2000)


def test_no_difference_is_p_one_and_a_difference_without_spread_is_undefined():
    p = delong_p(np.array([0.0, 0.5]), np.zeros(2))
    assert p[0] == 1.0
    assert np.isnan(p[1])


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


def test_holm_does_not_count_a_test_that_is_undefined():
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.02])), [0.02, np.nan, 0.02])
