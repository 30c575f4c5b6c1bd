"""Nobody is judged on rows, or groups, they were fitted to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.fusion.decision import ALWAYS_TRAINED, fold_numbers, out_of_fold
from featstore.fusion.strategies.stacking import Stacking
from featstore.fusion.strategies.weighted_vote import WeightedVote
from featstore.types import make_blocks


@st.composite
def cohorts(draw):
    n_groups = draw(st.integers(1, 20))
    sizes = draw(st.lists(st.integers(1, 4), min_size=n_groups, max_size=n_groups))
    groups = np.repeat(np.arange(n_groups), sizes)
    y = np.array(draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))))
    return np.unique(y, return_inverse=True)[1], groups


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(2, 5))
def test_groups_stay_whole_and_every_class_stays_in_training(cohort, folds):
    y, groups = cohort
    fold_of = fold_numbers(y, groups, folds, 0)
    assert fold_of.max() < folds
    for group in np.unique(groups):
        assert len(set(fold_of[groups == group])) == 1
    for fold in set(fold_of) - {ALWAYS_TRAINED}:
        assert set(y[fold_of != fold]) == set(y)


def test_folds_share_rows_and_classes_evenly():
    y = np.tile([0, 0, 1], 40)
    fold_of = fold_numbers(y, np.arange(120) // 3, 4, 0)
    assert np.bincount(fold_of).tolist() == [30] * 4
    assert np.bincount(fold_of[y == 1]).tolist() == [10] * 4


def test_without_groups_every_row_is_its_own():
    assert len(set(fold_numbers(np.array([0, 1]).repeat(2), None, 2, 0))) == 2
    assert (fold_numbers(np.array([0, 1]), np.array([0, 0]), 5, 0) == ALWAYS_TRAINED).all()


def test_answers_come_from_models_that_never_saw_the_group():
    groups = np.arange(30) // 2
    y = groups % 2
    fold_of = fold_numbers(y, groups, 3, 0)

    def remember(rows, labels):
        seen = set(rows[:, 0].astype(int) // 2)
        assert len(labels) == len(rows)
        return lambda new: np.array([int(row) // 2 in seen for row in new[:, 0]], float)

    assert not out_of_fold(remember, np.arange(30.0)[:, None], y, fold_of).any()


def test_rows_that_are_never_held_out_are_answered_by_a_model_of_all_rows():
    y, fold_of = np.array([0, 0, 1, 1]), np.array([0, 0, 1, ALWAYS_TRAINED])
    answers = out_of_fold(
        lambda rows, _: lambda new: np.full(len(new), len(rows)), np.zeros((4, 1)), y, fold_of
    )
    assert answers.tolist() == [2, 2, 3, 4]


@pytest.mark.parametrize("kind", [WeightedVote, Stacking])
def test_a_backbone_that_only_recognises_patients_is_not_trusted(kind):
    """Each patient's rows are near each other in `memory`: by row it looks perfect, by group it knows nothing."""
    rng = np.random.default_rng(0)
    groups = np.arange(240) // 6
    y = rng.permutation(np.arange(40) % 2)[groups]
    memory = 3 * rng.normal(size=(40, 60))[groups] + 0.1 * rng.normal(size=(240, 60))
    honest = y[:, None] + rng.normal(size=(240, 5))
    X, blocks = np.concatenate([memory, honest], axis=1), make_blocks({"memory": 60, "honest": 5})

    def trust(strategy):
        weights = strategy.weights_ if kind is WeightedVote else strategy.stack_.coef[0]
        return weights[0] / np.abs(weights).sum()

    by_row, by_group = kind(blocks).fit(X, y), kind(blocks).fit(X, y, groups=groups)
    assert trust(by_row) > 0.6
    assert trust(by_group) < 0.3
