"""Patients as the unit that is scored: pooling against independent formulas, and what is refused."""

import numpy as np
import pytest
from fakes_matrix import make_matrix
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from featstore.errors import AuditError, FeatstoreError
from featstore.evaluation.estimates import EvaluationDesign
from featstore.evaluation.patients import POOLS, patients_of, pool_images, require_unit
from featstore.splits import group_folds

SHARES = st.floats(0.001, 0.999)


def reference(p, pool):
    """Probability of the positive class of one patient, from those of the images, by the book."""
    match pool:
        case "mean-logit":
            return expit(np.mean(logit(p)))
        case "mean":
            return np.mean(p)
        case "max":
            return max(p)
        case "noisy-or":
            return 1 - np.prod(1 - np.array(p))
        case _:
            return np.mean(sorted(p)[-int(pool.split("-")[1]) :])


@given(
    patients=st.lists(st.lists(SHARES, min_size=1, max_size=6), min_size=1, max_size=4),
    pool=st.sampled_from([*POOLS, "top-2"]),
)
def test_of_two_classes_every_pool_is_its_formula(patients, pool):
    p = np.concatenate(patients)
    numbers = np.repeat(np.arange(len(patients)), [len(one) for one in patients])
    for positive in (0, 1):
        proba = np.stack([p, 1 - p] if positive == 0 else [1 - p, p], axis=1)
        pooled = pool_images(proba, numbers, pool, positive)
        assert pooled[:, positive] == pytest.approx([reference(one, pool) for one in patients])
        assert pooled.sum(axis=1) == pytest.approx(1)


@given(
    proba=st.lists(st.lists(SHARES, min_size=3, max_size=3), min_size=1, max_size=6),
    pool=st.sampled_from(POOLS),
)
def test_of_three_classes_a_patient_of_one_image_has_its_answer(proba, pool):
    rows = np.array(proba) / np.sum(proba, axis=1, keepdims=True)
    alone = pool_images(rows, np.arange(len(rows)), pool)
    assert alone == pytest.approx(rows, abs=1e-5)
    together = pool_images(rows, np.zeros(len(rows), np.intp), pool)
    assert together.sum() == pytest.approx(1)
    twice = pool_images(np.repeat(rows, 2, axis=0), np.zeros(2 * len(rows), np.intp), pool)
    if pool in {"mean-logit", "mean", "max"}:  # no patient gains by being imaged more often
        assert twice == pytest.approx(together)


@given(
    values=st.lists(SHARES, min_size=1, max_size=3),
    times=st.lists(st.integers(1, 50), min_size=2, max_size=5),
    pool=st.sampled_from(["mean-logit", "mean"]),
)
def test_patients_with_the_same_answers_in_the_same_shares_are_ties(values, times, pool):
    p = np.concatenate([np.repeat(values, count) for count in times])
    numbers = np.repeat(np.arange(len(times)), len(values) * np.array(times))
    assert len(np.unique(pool_images(np.stack([1 - p, p], axis=1), numbers, pool, 1)[:, 1])) == 1


@pytest.mark.parametrize("pool", ["mean-logit", "mean", "max", "top-3"])
def test_a_constant_guess_about_patients_has_an_auc_of_one_half(pool):
    images = np.random.default_rng(0).integers(1, 40, 60)
    numbers = np.repeat(np.arange(60), images)
    for share in np.linspace(0.1, 0.9, 97):
        answer = pool_images(np.tile([1 - share, share], (len(numbers), 1)), numbers, pool, 1)
        assert roc_auc_score(np.arange(60) % 2, answer[:, 1]) == 0.5


def test_the_mean_of_logits_of_a_linear_model_is_its_answer_to_the_mean_vector():
    matrix = make_matrix(patients=12, images=4)
    X = matrix.features[0].astype(np.float64)
    model = LogisticRegression().fit(X, matrix.y)
    people = patients_of(matrix, "mean-logit", 1)
    means = X.reshape(12, 4, -1).mean(axis=1)
    pooled = people.pooled(model.predict_proba(X), np.arange(len(X)))
    assert pooled == pytest.approx(model.predict_proba(means))


def test_a_sure_image_does_not_outweigh_all_others():
    p = np.array([1.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    pooled = pool_images(np.stack([1 - p, p], axis=1), np.zeros(12, np.intp), "mean-logit", 1)
    assert pooled[0, 1] < 0.5


def test_folds_over_images_are_folds_over_the_same_patients():
    matrix = make_matrix(patients=20, images=3)
    images = EvaluationDesign(matrix.y, matrix.groups, group_folds(matrix, 4, 2), 2, 1)
    people = patients_of(matrix, "mean", 1)
    design = people.design(images)
    assert people.by_class == {"a": 10, "b": 10}
    for (train, test), (own_train, own_test) in zip(images.splits, design.splits, strict=True):
        assert set(design.groups[own_test]) == set(matrix.groups[test])
        assert set(design.groups[own_train]) == set(matrix.groups[train])
        assert (
            design.y[own_test] == [matrix.y[matrix.groups == g][0] for g in design.groups[own_test]]
        ).all()
    assert design.repeats == 2


def test_a_patient_of_two_classes_is_refused_with_an_example_and_a_way_out():
    matrix = make_matrix(patients=10, images=2)
    matrix.y[3] = 1 - matrix.y[3]
    with pytest.raises(AuditError, match=r"1 of 10 patients .* 'p001': 'a', 'b'") as error:
        patients_of(matrix, "mean-logit", 1)
    assert "without --unit group" in error.value.remedy


@pytest.mark.parametrize(
    ("unit", "pool", "told"),
    [
        ("patient", None, "no unit 'patient'"),
        ("image", "max", "images are scored"),
        ("group", "median", "no way of pooling 'median'"),
        ("group", "top-0", "no way of pooling"),
    ],
)
def test_what_cannot_be_meant_is_refused(unit, pool, told):
    with pytest.raises(FeatstoreError, match=told):
        require_unit(unit, pool)
    assert require_unit("group", None) == "mean-logit"
    assert require_unit("image", None) is None
