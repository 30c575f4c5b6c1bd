"""The same folds for everyone: who takes part, and what each is given."""

import numpy as np
import pytest
from fakes_matrix import make_matrix

from featstore import registry
from featstore.errors import UnknownNameError, UsageError
from featstore.evaluation.candidates import (
    STRATEGIES,
    Candidate,
    build,
    joint_fits,
    make_candidates,
    with_seeds,
)
from featstore.evaluation.crossval import cross_validate, select_per_fold
from featstore.splits import group_folds


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_to_the_last_bit():
    matrix = make_matrix(patients=20)
    all_candidates = make_candidates(["concat_logreg"], "singles", matrix.backbones)
    splits = group_folds(matrix, 3)
    one, two = (list(cross_validate(matrix, all_candidates, splits, jobs=jobs)) for jobs in (1, 2))
    for (c, f, p), (c2, f2, p2) in zip(one, two, strict=True):
        assert (c, f) == (c2, f2)
        np.testing.assert_array_equal(p, p2)


def test_all_views_of_the_training_images_are_trained_on_and_only_the_identity_is_scored(monkeypatch):
    from featstore.evaluation import candidates as all_candidates
    from featstore.evaluation import crossval as tournament

    matrix = make_matrix(views=3)
    seen = {}

    class Spy:
        def fit(self, X, y, groups):
            seen["train"] = (len(X), len(y), len(groups))
            return self

        def predict_proba(self, X):
            seen["test"] = len(X)
            return np.full((len(X), 2), 0.5)

    monkeypatch.setattr(tournament, "build", lambda *_: Spy())
    candidate = all_candidates.Candidate("concat_logreg", matrix.backbones, "all")
    (train, test), *_ = group_folds(matrix, 4)
    list(tournament.cross_validate(matrix, [candidate], [(train, test)]))
    assert seen == {"train": (3 * len(train),) * 3, "test": len(test)}


def alone(matrix, candidate, split):
    """What a contestant answers when nobody else plays."""
    ((_, _, proba),) = cross_validate(matrix, [candidate], [split])
    return proba


def test_who_plays_together_answers_as_if_alone():
    matrix = make_matrix(signal=(1.0, 0.5, 1.0), patients=18, classes=("a", "b", "c"), width=3)
    all_candidates = make_candidates(["concat_logreg"], "all", matrix.backbones)
    splits = group_folds(matrix, 2)
    results = list(cross_validate(matrix, all_candidates, splits))
    assert {(c, f) for c, f, _ in results} == {(c, f) for c in range(len(all_candidates)) for f in range(2)}
    for c, f, proba in results:
        np.testing.assert_allclose(proba, alone(matrix, all_candidates[c], splits[f]), atol=1e-6)


def test_only_strategies_that_fit_subsets_together_are_teamed_up():
    all_candidates = make_candidates(["concat_logreg", "vote_backbones"], "all", ("A", "B", "C"))
    together = [len(team) for team in joint_fits(all_candidates)]
    assert together == [7, 1, 1, 1, 1]


def test_greedy_plays_in_each_fold_what_that_folds_training_images_chose():
    matrix = make_matrix(signal=(3.0, 0.0, 3.0), patients=40, views=1, width=3)
    splits = group_folds(matrix, 2)
    all_candidates = make_candidates(["concat_logreg", "vote_backbones"], "greedy", matrix.backbones)
    drafts = select_per_fold(matrix, all_candidates, splits)
    assert all({"NetA", "NetC"} <= set(names) for names in drafts)
    assert select_per_fold(matrix, all_candidates[:3], splits) == []
    for c, f, proba in cross_validate(matrix, all_candidates, splits, drafts):
        if all_candidates[c].greedy:
            fixed = Candidate(all_candidates[c].strategy, drafts[f], "fixed")
            np.testing.assert_allclose(proba, alone(matrix, fixed, splits[f]), atol=1e-6)


def test_greedy_selection_cannot_see_the_test_images():
    matrix = make_matrix(signal=(1.0, 1.0, 1.0), patients=20, views=1)
    splits = group_folds(matrix, 2)
    all_candidates = make_candidates(["concat_logreg"], "greedy", matrix.backbones)
    before = select_per_fold(matrix, all_candidates, splits)
    for fold, (_, test) in enumerate(splits):
        shuffled = make_matrix(signal=(1.0, 1.0, 1.0), patients=20, views=1)
        shuffled.features[:, test] = np.random.default_rng(0).normal(size=shuffled.features[:, test].shape)
        shuffled.y[test] = 1 - shuffled.y[test]
        assert select_per_fold(shuffled, all_candidates, splits)[fold] == before[fold]


def test_rows_put_the_columns_of_a_subset_side_by_side():
    matrix = make_matrix(signal=(1.0, 1.0, 1.0), views=2)
    images = np.array([5, 2])
    rows = matrix.rows(images, ("NetA", "NetC"), [0, 1])
    expected = np.concatenate(
        [np.hstack([matrix.features[v][images][:, :6], matrix.features[v][images][:, 12:]]) for v in (0, 1)]
    )
    np.testing.assert_array_equal(rows, expected)
    assert [(b.name, b.start, b.stop) for b in matrix.columns(("NetA", "NetC"))] == [
        ("NetA", 0, 6),
        ("NetC", 6, 12),
    ]


def labels(*arguments):
    return [c.label for c in make_candidates(*arguments)]


def test_the_line_up():
    nets = ("A", "B", "C")
    assert labels(["vote_backbones"], "singles", nets) == ["A", "B", "C", "vote_backbones"]
    everyone = set(registry.names(STRATEGIES))
    for pool, left_out in (
        (None, {"attention_pooling", "mean_vector"}),
        ("noisy-or", {"attention_pooling", "mean_vector"}),
        ("mean-logit", set()),
    ):
        named = {label.split(":")[0] for label in labels("all", "all", nets, pool)}
        assert named == {*nets, *everyone} - left_out
    assert len(labels("all", "all", nets)) == 3 + 4 * (len(everyone) - 2)
    assert labels(["all", "knn"], "all", nets) == labels("all", "all", nets)
    assert labels(["concat_logreg"], [["C", "A"], ["B"]], nets) == ["B", "concat_logreg:A+C"]
    assert labels("all", "singles", ("A",)) == ["A"]
    assert labels(["concat_logreg"], "A,B+C", nets) == ["A", "concat_logreg:B+C"]
    assert labels(["concat_logreg"], "greedy", nets) == [
        "A",
        "B",
        "C",
        "concat_logreg",
        "concat_logreg:greedy",
    ]
    assert labels(["concat_logreg"], "greedy", ("A",)) == ["A"]
    everyone = labels(["concat_logreg"], "all,greedy", nets)
    assert (len(everyone), everyone[-1]) == (8, "concat_logreg:greedy")


def test_of_more_than_eight_backbones_all_means_greedy():
    nine = tuple("ABCDEFGHI")
    assert labels(["concat_logreg"], "all", nine) == [*nine, "concat_logreg", "concat_logreg:greedy"]
    assert len(labels(["concat_logreg"], "all", nine[:8])) == 255


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((["nonsense"], "singles", ("A", "B")), UnknownNameError),
        (("all", [["A", "X"]], ("A", "B")), UnknownNameError),
        (("all", "some", ("A", "B")), UnknownNameError),
        (("all", "A,B+X", ("A", "B")), UnknownNameError),
        (([], [], ("A", "B")), UsageError),
    ],
)
def test_a_line_up_that_cannot_be_meant_is_refused(arguments, error):
    with pytest.raises(error):
        make_candidates(*arguments)


def test_only_training_that_draws_random_numbers_is_repeated_with_other_seeds():
    matrix = make_matrix()
    single, head = make_candidates(["concat_head"], "singles", matrix.backbones)[-2:]
    assert with_seeds(single, [1, 2]) == []
    reseeded = with_seeds(head, [1, 2])
    assert [build(c, matrix).random_state for c in reseeded] == [1, 2]
    assert build(head, matrix).random_state == 0
