"""View policies: which rows are trained on, and which are answered for."""

import numpy as np
import pytest
from fakes_matrix import make_matrix

from featstore.errors import UsageError
from featstore.evaluation.backbone_value import view_curve
from featstore.evaluation.candidates import (
    Candidate,
    build,
    fit_candidate,
    make_candidates,
    predict_views,
    training_rows,
    with_seeds,
    with_views,
)
from featstore.evaluation.crossval import cross_validate
from featstore.evaluation.estimates import EvaluationDesign
from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.training import TrainingRows
from featstore.splits import group_folds

MATRIX = make_matrix(signal=(1.0, 1.0), patients=20, views=3)
IMAGES = np.array([4, 1, 30])
NETS = MATRIX.backbones


def test_identity_expand_and_average_are_what_they_say():
    features = MATRIX.features[:, IMAGES]
    rows = {name: training_rows(MATRIX, IMAGES, NETS, name) for name in ("identity", "expand", "average")}
    np.testing.assert_array_equal(rows["identity"][0], features[0])
    np.testing.assert_array_equal(rows["expand"][0], np.concatenate(list(features)))
    np.testing.assert_allclose(rows["average"][0], features.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert [len(r[1]) for r in rows.values()] == [len(r[2]) for r in rows.values()] == [3, 9, 3]
    np.testing.assert_array_equal(rows["expand"][2], np.tile(MATRIX.groups[IMAGES], 3))


def test_a_sample_is_one_view_per_image_from_the_seed_and_the_image_alone():
    everyone = np.arange(len(MATRIX.y))
    rows, y, _ = training_rows(MATRIX, everyone, NETS, "sample", seed=1)
    view = [int(np.flatnonzero((MATRIX.features[:, i] == rows[i]).all(axis=1))[0]) for i in everyone]
    assert set(view) == {0, 1, 2}
    np.testing.assert_array_equal(y, MATRIX.y)
    np.testing.assert_array_equal(training_rows(MATRIX, IMAGES, NETS, "sample", 1)[0], rows[IMAGES])
    assert (training_rows(MATRIX, everyone, NETS, "sample", 2)[0] != rows).any()


def test_test_views_average_answers_or_the_vectors_where_mean_vectors_were_learned():
    def predict(rows):
        return np.stack([rows[:, 0] ** 2, rows[:, 1]], axis=1)

    features = MATRIX.features[:, IMAGES].astype(np.float64)
    mean_answer = np.mean([predict(view) for view in features], axis=0)
    np.testing.assert_allclose(
        predict_views(predict, MATRIX, IMAGES, NETS, "expand", "average"), mean_answer, 1e-5
    )
    to_mean = predict(features.mean(axis=0))
    np.testing.assert_allclose(
        predict_views(predict, MATRIX, IMAGES, NETS, "average", "average"), to_mean, 1e-4
    )
    np.testing.assert_allclose(predict_views(predict, MATRIX, IMAGES, NETS), predict(features[0]), 1e-5)


def test_policies_multiply_the_line_up_only_where_there_are_views():
    three = make_candidates(["concat_logreg"], "singles", NETS)
    both = with_views(three, ["identity", "average"], "identity", 3)
    assert [c.label for c in both[2:4]] == ["concat_logreg@identity", "NetA@average"]
    assert [c.label for c in with_views(three, ["average"], "average", 3)] == [c.label for c in three]
    assert with_views(three, ["identity", "expand"], "average", 1) == three


@pytest.mark.parametrize(
    ("policies", "test_policy"), [(["some"], "identity"), ([], "identity"), (["expand"], "expand")]
)
def test_a_policy_that_does_not_exist_is_refused(policies, test_policy):
    with pytest.raises(UsageError):
        with_views([], policies, test_policy, 2)


def test_who_plays_together_by_another_policy_answers_as_if_alone():
    all_candidates = with_views(
        make_candidates(["concat_logreg"], "all", NETS), ["identity", "average"], "average", len(MATRIX.views)
    )
    splits = group_folds(MATRIX, 2)
    for c, f, proba in cross_validate(MATRIX, all_candidates, splits):
        ((_, _, alone),) = cross_validate(MATRIX, [all_candidates[c]], [splits[f]])
        np.testing.assert_allclose(proba, alone, atol=1e-6)


def test_sampled_views_are_drawn_anew_for_each_training_seed():
    (single, *_) = make_candidates(["concat_logreg"], "singles", NETS)
    (sampled,) = with_views([single], ["sample"], "identity", 3)
    split = group_folds(MATRIX, 2)[:1]
    one, two = [next(cross_validate(MATRIX, [c], split))[2] for c in with_seeds(sampled, [1, 2])]
    assert (one != two).any()


def test_a_network_that_samples_meets_every_view_of_an_image_in_turn_and_one_in_each_epoch():
    images = np.repeat(np.arange(7), 3)
    rows = TrainingRows(np.zeros((21, 1), np.float32), np.zeros((21, 1), np.float32), None, images)
    rng = np.random.default_rng(0)
    epochs = [rows.order(rng) for _ in range(40)]
    assert all(sorted(images[epoch]) == list(range(7)) for epoch in epochs)
    assert set(np.concatenate(epochs)) == set(range(21))
    assert any((images[epoch] != images[epochs[0]]).any() for epoch in epochs)


@pytest.mark.parametrize("name", ["concat_head", "gated_head"])
def test_sampling_gives_a_network_all_views_and_others_one(name, monkeypatch):
    """Trained on one drawn view per image for good, a network would answer as `identity` does on these rows."""
    met = []
    monkeypatch.setattr("featstore.fusion.neural.train", lambda *given: met.append(given[2]) or {"loss": []})
    sampled = Candidate(name, NETS, name, views="sample")
    fit_candidate(build(sampled, MATRIX, {"validation_fraction": 0.0}), MATRIX, IMAGES, sampled)
    (rows,) = met
    assert len(rows.X) == len(IMAGES) * len(MATRIX.views)
    assert len(np.unique(rows.images)) == len(IMAGES)
    np.testing.assert_array_equal(rows.images[: len(IMAGES)], rows.images[len(IMAGES) : 2 * len(IMAGES)])


def test_images_must_be_as_many_as_rows():
    with pytest.raises(UsageError, match="2 images for 3 rows"):
        ConcatHead().fit_views(np.zeros((3, 2)), [0, 1, 0], None, [1, 2])


def test_the_view_curve_scores_the_contestant_on_each_number_of_views():
    splits = group_folds(MATRIX, 2)
    design = EvaluationDesign(MATRIX.y, MATRIX.groups, splits, 1, 1)
    seen = []

    def spy(part, candidate):
        seen.append(len(part.views))
        return [proba for *_, proba in cross_validate(part, [candidate], splits)]

    candidate = Candidate("concat_logreg", NETS, "concat_logreg")
    points = view_curve(MATRIX, design, candidate, spy, np.ones((3, len(MATRIX.y))))
    assert seen == [1, 2, 3]
    assert [p.views for p in points] == [0, 1, 2]
    assert all(p.interval[0] <= p.mean <= p.interval[1] for p in points)
