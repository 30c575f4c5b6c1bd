"""Scores equal scikit-learn's, weight by weight."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from featstore.evaluation.metrics import METRICS, auc, score


def case(rng, n=40, classes=2):
    y = rng.permutation(np.arange(n) % classes)
    proba = rng.dirichlet(np.ones(classes), n).round(2)
    return y, proba


def sklearn_scores(y, proba, weights, positive):
    classes = [positive] if positive is not None else range(proba.shape[1])
    predicted = proba.argmax(axis=1)
    recall = lambda truth, guess: reference.recall_score(truth, guess, sample_weight=weights)  # noqa: E731
    per_class = {
        "auc": [reference.roc_auc_score(y == c, proba[:, c], sample_weight=weights) for c in classes],
        "sensitivity": [recall(y == c, predicted == c) for c in classes],
        "specificity": [recall(y != c, predicted != c) for c in classes],
        "f1": [reference.f1_score(y == c, predicted == c, sample_weight=weights) for c in classes],
    }
    accuracy = reference.accuracy_score(y, predicted, sample_weight=weights)
    return {"accuracy": accuracy, **{name: np.mean(values) for name, values in per_class.items()}}


@given(st.integers(0, 10**6), st.sampled_from([(2, 1), (2, 0), (2, None), (3, None), (4, 2)]))
def test_every_score_equals_scikit_learn_with_the_same_weights(seed, shape):
    classes, positive = shape
    rng = np.random.default_rng(seed)
    y, proba = case(rng, classes=classes)
    weights = rng.integers(0, 4, (3, len(y))).astype(float)
    weights[:, :classes] += [[np.any(y == c) for c in range(classes)]] * 3
    weights += 1e-9
    ours = score(y, proba, weights, positive)
    for at in range(3):
        expected = sklearn_scores(y, proba, weights[at], positive)
        assert {name: ours[name][at] for name in METRICS} == pytest.approx(expected, abs=1e-7)


def test_ties_count_one_half():
    truth = np.array([True, False, True, False])
    assert auc(truth, np.array([0.5, 0.5, 0.5, 0.5]), np.ones((1, 4)))[0] == 0.5
    assert auc(truth, np.array([0.9, 0.5, 0.5, 0.1]), np.ones((1, 4)))[0] == 0.875


def test_a_weight_of_two_is_the_image_drawn_twice():
    rng = np.random.default_rng(0)
    y, proba = case(rng)
    weights = rng.integers(0, 3, len(y)).astype(float)
    drawn = np.repeat(np.arange(len(y)), weights.astype(int))
    one = score(y, proba, weights[None], 1)
    two = score(y[drawn], proba[drawn], np.ones((1, len(drawn))), 1)
    assert {k: v[0] for k, v in one.items()} == pytest.approx({k: v[0] for k, v in two.items()})


def test_a_resample_without_a_class_has_no_auc_rather_than_a_wrong_one():
    y, proba = np.array([0, 1]), np.array([[0.8, 0.2], [0.1, 0.9]])
    scores = score(y, proba, np.array([[1.0, 0.0], [1.0, 1.0]]), 1)
    assert np.isnan(scores["auc"][0])
    assert np.isnan(scores["sensitivity"][0])
    assert scores["auc"][1] == 1.0
