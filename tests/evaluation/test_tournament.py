"""The same folds for everyone: who takes part, and what each is given."""

import numpy as np
import pytest
from fakes_matrix import make_matrix

from featstore.errors import UnknownNameError, UsageError
from featstore.evaluation.contestants import build, line_up, reseed
from featstore.evaluation.folds import group_folds
from featstore.evaluation.tournament import play


def test_two_processes_give_the_numbers_of_one():
    matrix = make_matrix(patients=20)
    contestants = line_up(["concat_logreg"], "singles", matrix.backbones)
    splits = group_folds(matrix, 3)
    one, two = (list(play(matrix, contestants, splits, jobs)) for jobs in (1, 2))
    for (c, f, p), (c2, f2, p2) in zip(one, two, strict=True):
        assert (c, f) == (c2, f2)
        np.testing.assert_allclose(p, p2, atol=1e-9)


def test_all_views_of_the_training_images_are_trained_on_and_only_the_identity_is_scored(monkeypatch):
    from featstore.evaluation import contestants, tournament

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
    contestant = contestants.Contestant("concat_logreg", matrix.backbones, "all")
    (train, test), *_ = group_folds(matrix, 4)
    list(tournament.play(matrix, [contestant], [(train, test)]))
    assert seen == {"train": (3 * len(train),) * 3, "test": len(test)}


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
    return [c.label for c in line_up(*arguments)]


def test_the_line_up():
    nets = ("A", "B", "C")
    assert labels(["vote_backbones"], "singles", nets) == ["A", "B", "C", "vote_backbones"]
    assert len(labels("all", "all", nets)) == 3 + 4 * 3
    assert labels(["concat_logreg"], [["C", "A"], ["B"]], nets) == ["B", "concat_logreg:A+C"]
    assert labels("all", "singles", ("A",)) == ["A"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((["nonsense"], "singles", ("A", "B")), UnknownNameError),
        (("all", [["A", "X"]], ("A", "B")), UnknownNameError),
        (("all", "some", ("A", "B")), UsageError),
        (("all", "all", tuple("ABCDEFGHI")), UsageError),
        (([], [], ("A", "B")), UsageError),
    ],
)
def test_a_line_up_that_cannot_be_meant_is_refused(arguments, error):
    with pytest.raises(error):
        line_up(*arguments)


def test_only_training_that_draws_random_numbers_is_repeated_with_other_seeds():
    matrix = make_matrix()
    single, head = line_up(["concat_head"], "singles", matrix.backbones)[-2:]
    assert reseed(single, [1, 2]) == []
    reseeded = reseed(head, [1, 2])
    assert [build(c, matrix).random_state for c in reseeded] == [1, 2]
    assert build(head, matrix).random_state == 0
