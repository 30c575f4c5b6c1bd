"""No group, and no view of an image, is ever on both sides of a split."""

import numpy as np
import pytest
from fakes_matrix import make_matrix
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import AuditError, UsageError
from featstore.folds import acquainted, group_folds, hold_out


@given(st.integers(2, 6), st.integers(1, 3), st.integers(0, 99), st.integers(12, 30))
def test_groups_stay_together_and_every_image_is_tested_once_a_repeat(folds, repeats, seed, patients):
    matrix = make_matrix(patients=patients, images=2, seed=seed)
    splits = group_folds(matrix, folds, repeats, seed)
    assert len(splits) == folds * repeats
    for train, test in splits:
        assert not set(matrix.groups[train]) & set(matrix.groups[test])
        assert set(matrix.y[train]) == set(matrix.y[test]) == {0, 1}
    tested = np.sort(np.concatenate([test for _, test in splits]))
    np.testing.assert_array_equal(tested, np.repeat(np.arange(len(matrix.y)), repeats))


def test_the_same_seed_gives_the_same_folds_and_another_one_others():
    matrix = make_matrix()
    tests = [[tuple(test) for _, test in group_folds(matrix, 4, seed=seed)] for seed in (1, 1, 2)]
    assert tests[0] == tests[1] != tests[2]


def test_too_few_patients_are_counted_out_with_a_number_to_use():
    with pytest.raises(AuditError, match=r"5 folds need at least 5 groups .* a 2, b 2") as caught:
        group_folds(make_matrix(patients=4), 5)
    assert "--folds 2" in caught.value.remedy
    assert caught.value.exit_code == 5


def test_one_class_is_refused():
    with pytest.raises(AuditError, match="one class only"):
        group_folds(make_matrix(classes=("a",)), 2)


@pytest.mark.parametrize(("folds", "repeats"), [(1, 1), (0, 1), (5, 0)])
def test_no_cross_validation_is_a_usage_error(folds, repeats):
    with pytest.raises(UsageError):
        group_folds(make_matrix(), folds, repeats)


def test_a_share_of_whole_groups_is_held_out():
    matrix = make_matrix()
    splits = hold_out(matrix, 0.25)
    assert not set(matrix.groups[splits["train"]]) & set(matrix.groups[splits["test"]])
    assert len(splits["test"]) / len(matrix.y) == pytest.approx(0.25, abs=0.05)


def test_the_data_sets_own_splits_are_used():
    names = np.repeat(["train", "val", "test", "train"], 30).tolist()
    splits = hold_out(make_matrix(splits=names), 0.25)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 60, "val": 30, "test": 30}


@pytest.mark.parametrize(
    "names",
    [["train"] * 120, ["test"] * 120, ["train"] * 60 + ["test"] * 59 + [None]],
    ids=["train only", "test only", "one image without"],
)
def test_half_a_split_is_refused(names):
    with pytest.raises(AuditError, match="own split"):
        hold_out(make_matrix(splits=names), 0.25)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.9])
def test_a_share_that_cannot_be_held_out_is_refused(share):
    with pytest.raises(UsageError):
        hold_out(make_matrix(), share)


@given(st.sets(st.integers(0, 119)), st.integers(0, 99))
def test_whoever_shares_a_patient_with_a_known_image_is_acquainted(rows, seed):
    matrix = make_matrix(seed=seed)
    mask = acquainted(matrix, {matrix.records[row].id for row in rows})
    assert {*matrix.groups[mask]} == {matrix.groups[row] for row in rows}
    assert not {*matrix.groups[mask]} & {*matrix.groups[~mask]}
