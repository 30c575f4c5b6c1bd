"""No group, and no view of an image, is ever on both sides of a split."""

import itertools
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes_matrix import make_matrix
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from featstore import splits as partition
from featstore.errors import AuditError, UsageError
from featstore.splits import group_folds, hold_out, inner_folds, seen_or_same_group, stratified_folds
from featstore.types import ImageRecord


def table_of(counts, splits=None, names="abcdefgh"):
    """A table from images by group and class: ``{"p": (6, 2)}`` is a patient of 6 images of a and 2 of b."""
    rows = [(name, c) for name, row in counts.items() for c, count in enumerate(row) for _ in range(count)]
    groups, y = np.array([name for name, _ in rows]), np.array([c for _, c in rows])
    present, y = np.unique(y, return_inverse=True)
    classes = tuple(names[c] for c in present)
    records = tuple(
        ImageRecord(f"{at:064x}", Path(f"{at}.png"), classes[y[at]], name, splits and splits[name])
        for at, (name, _) in enumerate(rows)
    )
    return SimpleNamespace(records=records, classes=classes, y=y, groups=groups)


def divides(table, parts):
    """Whether any division of the groups gives every part every class, by trying them all."""
    names = sorted(set(table.groups))
    held = {name: set(table.y[table.groups == name].tolist()) for name in names}
    return any(
        all(
            set().union(*(held[n] for n, at in zip(names, dealt, strict=True) if at == part))
            == set(range(len(table.classes)))
            for part in range(parts)
        )
        for dealt in itertools.product(range(parts), repeat=len(names))
    )


def scikit_learns(table, folds, seed):
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(splitter.split(table.y, table.y, table.groups))


def assert_sound(table, splits):
    for train, test in splits:
        assert not set(table.groups[train]) & set(table.groups[test])
        assert set(table.y[train]) == set(table.y[test]) == set(range(len(table.classes)))


SMALL = st.dictionaries(
    st.sampled_from("pqrstuv"), st.tuples(*[st.sampled_from([0, 0, 1, 3])] * 3).filter(any), min_size=2
)
C3 = {"g0": (6, 2), "g1": (0, 8), "g2": (8, 0), "g3": (2, 0)}
ODD_CYCLE = {"g0": (3, 3, 0), "g1": (0, 3, 3), "g2": (3, 0, 3)}
"""Every class has two groups, and whatever the two sides, one lacks a class."""


@given(SMALL, st.integers(2, 3), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_folds_are_found_just_where_there_are_any_and_are_scikit_learns_where_these_do(counts, folds, seed):
    table = table_of(counts)
    assume(len(table.classes) > 1)
    if not divides(table, folds):
        with pytest.raises(AuditError):
            group_folds(table, folds, seed=seed)
        return
    splits = group_folds(table, folds, seed=seed)
    assert_sound(table, splits)
    theirs = scikit_learns(table, folds, seed) if len(set(table.groups)) >= folds else []
    if theirs and all(set(table.y[test]) == set(table.y) for _, test in theirs):
        for ours, expected in zip(splits, theirs, strict=True):
            np.testing.assert_array_equal(ours[1], expected[1])
    again = group_folds(table, folds, seed=seed)
    assert all((a[1] == b[1]).all() for a, b in zip(splits, again, strict=True))


@given(st.data(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_groups_are_dealt_as_scikit_learn_deals_them_ties_included(data, classes, seed):
    """Groups of one class and of several, of equal sizes (ties) and of very unequal ones."""
    sizes = data.draw(st.sampled_from([(1,), (2, 2, 3), (1, 5, 60), tuple(range(1, 9))]))
    chosen = np.random.RandomState(seed)
    names = chosen.choice(1000, data.draw(st.integers(2, 40)), replace=False)
    groups = names.repeat(chosen.choice(sizes, len(names)))
    of_group = chosen.randint(classes, size=len(groups))
    mixed = chosen.rand(len(groups)) < data.draw(st.sampled_from([0, 0.2, 1]))
    y = np.where(mixed, of_group, groups % classes)
    mingled = chosen.permutation(len(y))
    y, groups = y[mingled], groups[mingled]
    most = min(12, len(names), np.bincount(y).max())
    assume(most > 1)
    folds = data.draw(st.integers(2, most))
    table = SimpleNamespace(y=y, groups=groups.astype(str) if seed % 2 else groups)
    ours = stratified_folds(y, table.groups, folds, np.random.RandomState(seed))
    for mine, theirs in zip(ours, scikit_learns(table, folds, seed), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])


def test_more_folds_than_groups_are_refused():
    with pytest.raises(ValueError, match="2 groups cannot be dealt into 3 folds"):
        stratified_folds(np.array([0, 1, 0, 1]), np.array(["p", "p", "q", "q"]), 3)


@given(SMALL, st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_a_share_is_held_out_just_where_two_sides_can_have_every_class(counts, seed):
    table = table_of(counts)
    assume(len(table.classes) > 1)
    if divides(table, 2):
        splits = hold_out(table, 0.25, seed)
        assert_sound(table, [(splits["train"], splits["test"])])
    else:
        with pytest.raises(AuditError) as caught:
            hold_out(table, 0.25, seed)
        assert "--fold" not in str(caught.value)


@given(SMALL, st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_inner_folds_train_on_every_class_just_where_that_can_be(counts, seed):
    table = table_of(counts)
    train = np.arange(len(table.y))
    if divides(table, 2):
        splits = inner_folds(table, train, 5, seed)
        assert all(set(table.y[rest]) == set(table.y) for rest, _ in splits)
        assert sorted(np.concatenate([test for _, test in splits])) == train.tolist()
    else:
        with pytest.raises(AuditError, match="Leave out WORDS"):
            inner_folds(table, train, 5, seed, needed_by="WORDS")


@pytest.mark.parametrize("seed", range(10))
def test_four_patients_one_of_both_classes_have_two_folds_with_any_seed(seed):
    table = table_of(C3)
    splits = group_folds(table, 2, repeats=3, seed=seed)
    assert len(splits) == 6
    assert_sound(table, splits)
    # Of the three divisions the one that has the classes most alike on both sides.
    assert {frozenset(table.groups[test]) for _, test in splits} == {
        frozenset({"g0", "g3"}),
        frozenset({"g1", "g2"}),
    }


def test_three_classes_that_only_pairs_of_patients_hold_have_no_two_sides_and_the_remedy_works():
    table = table_of(ODD_CYCLE)
    with pytest.raises(AuditError, match="a 2, b 2, c 2") as caught:
        group_folds(table, 2)
    assert "--" not in caught.value.remedy
    without = re.search(r"without '(\w)' it works", caught.value.remedy)[1]
    c = table.classes.index(without)
    rest = {name: tuple(n for at, n in enumerate(row) if at != c) for name, row in ODD_CYCLE.items()}
    assert_sound(table_of(rest), group_folds(table_of(rest), 2))


@given(SMALL, st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_a_number_of_folds_that_an_error_names_can_be_had(counts, folds):
    table = table_of(counts)
    try:
        group_folds(table, folds)
    except AuditError as error:
        if named := re.search(r"--folds (\d+)", error.remedy):
            assert int(named[1]) < folds
            assert_sound(table, group_folds(table, int(named[1])))


def test_a_class_of_one_patient_is_named_with_what_helps():
    counts = {**{f"p{i}": (1, 0, 0) for i in range(9)}, **{f"q{i}": (0, 1, 0) for i in range(9)}}
    table = table_of({**counts, "r": (0, 0, 4)})
    for ask in (lambda t: group_folds(t, 2), lambda t: hold_out(t, 0.25)):
        with pytest.raises(AuditError, match="All images of 'c' are of one group") as caught:
            ask(table)
        assert "Add patients of 'c', or take the class out" in caught.value.remedy
        ask(table_of(counts))
        ask(table_of({**counts, "r": (0, 0, 4), "s": (0, 0, 1)}))


def test_two_patients_a_class_can_be_held_out_one_and_one():
    table = table_of({"p": (1, 0), "q": (1, 0), "r": (0, 1), "s": (0, 1)})
    splits = hold_out(table, 0.25)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "test": 2}
    assert_sound(table, [(splits["train"], splits["test"])])


def test_a_rare_class_does_not_change_the_share_of_the_others():
    counts = {f"p{i}": (2, 0) for i in range(40)} | {"q": (0, 2), "r": (0, 2)}
    table = table_of(counts)
    test = hold_out(table, 0.25)["test"]
    assert (table.y[test] == 0).sum() == 20
    assert (table.y[test] == 1).sum() == 2


def test_uneven_patients_are_told_how_many_folds_they_have():
    table = table_of(
        {f"P{i}": (0, 13 if i == 3 else 1) for i in range(4)} | {f"N{i}": (1, 0) for i in range(16)}
    )
    with pytest.raises(AuditError, match="a 16") as caught:
        group_folds(table, 5)
    assert "Use --folds 4" in caught.value.remedy
    assert_sound(table, group_folds(table, 4))


def test_a_search_that_is_given_up_says_that_nothing_was_found(monkeypatch):
    monkeypatch.setattr(partition, "MOST_STATES", 1)
    assert partition.partition_groups(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), [0.5, 0.5]) is None


def test_many_groups_are_divided_near_the_wanted_shares():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 9, 300))
    y = rng.integers(0, 5, len(groups))
    part_of = partition.partition_groups(y, groups, [0.5, 0.3, 0.2], seed=1)
    for c in range(5):
        shares = np.bincount(part_of[y == c], minlength=3) / (y == c).sum()
        np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.02)
    assert all(len(set(part_of[groups == g])) == 1 for g in range(300))


def test_a_split_of_the_data_that_lacks_a_class_is_named_with_what_helps():
    counts = {"p": (4, 0, 0), "q": (0, 4, 0), "r": (0, 0, 4), "s": (1, 0, 0), "t": (0, 1, 0), "u": (0, 0, 2)}
    splits = {"p": "train", "q": "train", "r": "train", "s": "test", "t": "test", "u": "train"}
    with pytest.raises(AuditError, match="split test has no image of 'c'") as caught:
        hold_out(table_of(counts, splits), 0.25)
    assert "Move some patients of 'c' into test" in caught.value.remedy
    assert "leave out the split" in caught.value.remedy
    assert len(hold_out(table_of(counts, {**splits, "u": "test"}), 0.25)["test"]) == 4
    assert set(hold_out(table_of(counts), 0.25)) == {"train", "test"}
    assert len(hold_out(table_of({**counts, "r": (0, 0, 0), "u": (0, 0, 0)}, splits), 0.25)["test"]) == 2


def test_a_class_in_another_spelling_is_pointed_at():
    counts = {"p": (4, 0, 0, 0), "q": (0, 4, 0, 0), "r": (0, 0, 4, 0), "s": (0, 0, 0, 1)}
    splits = {"p": "train", "q": "train", "r": "test", "s": "test"}
    names = ("NORMAL", "PNEUMONIA", "Normal", "Pneumonia")
    with pytest.raises(AuditError, match="split train has no image of 'Normal', 'Pneumonia'") as caught:
        hold_out(table_of(counts, splits, names), 0.25)
    assert "'Normal' and 'NORMAL' look like one class" in caught.value.remedy


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
    mask = seen_or_same_group(matrix, {matrix.records[row].id for row in rows})
    assert {*matrix.groups[mask]} == {matrix.groups[row] for row in rows}
    assert not {*matrix.groups[mask]} & {*matrix.groups[~mask]}
