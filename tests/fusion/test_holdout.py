"""Validation rows: whole groups, every class, never a class without training rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.splits import validation_mask as hold_out


@st.composite
def rows(draw):
    n = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    return np.unique(labels, return_inverse=True)[1], np.unique(groups, return_inverse=True)[1]


@given(rows(), st.floats(0, 0.95), st.integers(0, 99))
def test_groups_stay_whole_and_every_class_keeps_training_rows(data, fraction, seed):
    y, groups = data
    held = hold_out(y, groups, fraction, np.random.default_rng(seed))
    assert not set(groups[held]) & set(groups[~held])
    assert set(y[~held]) == set(y)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.4])
def test_single_rows_are_held_out_in_exact_proportion_of_each_class(fraction):
    y = np.repeat([0, 1, 2], [100, 40, 20])
    held = hold_out(y, None, fraction, np.random.default_rng(0))
    assert np.bincount(y[held], minlength=3).tolist() == [100 * fraction, 40 * fraction, 20 * fraction]


def test_rows_are_drawn_at_random_not_the_last():
    y = np.arange(200) % 2
    first, second = (hold_out(y, None, 0.25, np.random.default_rng(seed)) for seed in (0, 1))
    assert (first != second).any()
    for held in (first, second):
        assert 10 < held[:100].sum() < 40


def test_a_class_with_one_patient_is_not_held_out():
    y, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 3])
    held = hold_out(y, groups, 0.5, np.random.default_rng(0))
    assert not held[y == 1].any()
    assert held[y == 0].any()


def test_a_class_hidden_in_the_patients_of_another_keeps_training_rows():
    y, groups = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0]), np.repeat([0, 1, 2], 3)
    for seed in range(20):
        held = hold_out(y, groups, 0.7, np.random.default_rng(seed))
        assert not held[2]
