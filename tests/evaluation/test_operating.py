"""Operating points: calibrated as scikit-learn does it, chosen inside the fold, kept without pickle."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes_matrix import make_matrix
from scipy.stats import binom, norm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from featstore.errors import AuditError, FeatstoreError, RunError, UsageError
from featstore.evaluation.calibration import (
    METHODS,
    NEUTRAL,
    OperatingPoint,
    OperatingPointRequest,
    Platt,
    Temperature,
    fit_operating_point,
    patients_needed,
    read_operating_point,
    recalibration,
    tolerance_threshold,
)
from featstore.evaluation.estimates import EvaluationDesign
from featstore.evaluation.metrics import decide, score
from featstore.evaluation.selection_bias import operating_points, select_in_inner_folds, with_inner_folds
from featstore.splits import group_folds, inner_folds


def overconfident(rng, n=600, classes=2):
    """Labels drawn from honest probabilities, and the same probabilities with their logits doubled."""
    logits = rng.normal(size=(n, classes))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(classes, p=p) for p in honest])
    boasting = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    return y, honest, boasting


@pytest.mark.parametrize("classes", [2, 3])
def test_temperature_takes_back_what_overconfidence_added(classes):
    y, honest, boasting = overconfident(np.random.default_rng(0), 4000, classes)
    fitted = Temperature.fit(y, boasting)
    assert fitted.slope == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(fitted.apply(boasting), honest, atol=0.03)


@pytest.mark.parametrize(
    ("name", "classes"), [("temperature", 2), ("platt", 2), ("isotonic", 2), ("temperature", 3)]
)
def test_calibrated_probabilities_are_scikit_learns(name, classes):
    """On a classifier whose decision function is what we calibrate; of three classes, scikit-learn takes raw logits
    for Platt's and the isotonic map, featstore the log-odds of each class.
    """
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 4))
    y = (X[:, 0] + rng.normal(size=400) > 0).astype(int) + (classes == 3) * (X[:, 1] > 1)
    model = LogisticRegression(C=100).fit(X[:200], y[:200])
    theirs = CalibratedClassifierCV(
        FrozenEstimator(model), method={"platt": "sigmoid"}.get(name, name), cv=[(np.arange(200),) * 2]
    ).fit(X[200:], y[200:])
    ours = METHODS[name].fit(y[200:], model.predict_proba(X[200:]))
    np.testing.assert_allclose(ours.apply(model.predict_proba(X)), theirs.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_calibration_makes_probabilities_better_on_other_images(name, classes):
    rng = np.random.default_rng(2)
    y, _, boasting = overconfident(rng, 2000, classes)
    calibration = METHODS[name].fit(y[:1000], boasting[:1000])
    after = calibration.apply(boasting[1000:])
    np.testing.assert_allclose(after.sum(axis=1), 1)
    assert (after >= 0).all()
    positive = 1 if classes == 2 else None
    before, now = (score(y[1000:], p, np.ones((1, 1000)), positive) for p in (boasting[1000:], after))
    assert now["ece"][0] < 0.7 * before["ece"][0]
    assert now["brier"][0] < before["brier"][0]


@pytest.mark.parametrize("name", METHODS)
def test_certainty_survives_calibration(name):
    """Votes can be unanimous: a probability of exactly 0 or 1 has infinite log-odds."""
    y = np.tile([0, 1, 1, 0], 10)
    sure = np.tile([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7], [0.4, 0.6]], (10, 1))
    assert np.isfinite(METHODS[name].fit(y, sure).apply(sure)).all()


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 1.0])
def test_the_threshold_is_the_highest_that_reaches_the_sensitivity(target):
    rng = np.random.default_rng(3)
    y, _, proba = overconfident(rng, 300)
    point = fit_operating_point(y, proba, OperatingPointRequest(sensitivity=target, positive=1))
    reached = (proba[y == 1, 1] >= point.threshold).mean()
    assert reached >= target
    higher = np.nextafter(point.threshold, 1)
    assert (proba[y == 1, 1] >= higher).mean() < target
    np.testing.assert_array_equal(point.decide(proba), decide(proba, 1, point.threshold))


def test_ninety_percent_of_ten_is_nine():
    y = np.r_[np.ones(10, int), np.zeros(5, int)]
    p = np.r_[np.arange(10, 0, -1) / 11, np.full(5, 0.01)]
    assert (
        fit_operating_point(
            y, np.column_stack([1 - p, p]), OperatingPointRequest(sensitivity=0.9, positive=1)
        ).threshold
        == 2 / 11
    )


@pytest.mark.parametrize("name", [None, *METHODS])
@pytest.mark.parametrize("sensitivity", [None, 0.95])
def test_an_operating_point_comes_back_from_json_as_it_was(name, sensitivity):
    y, _, proba = overconfident(np.random.default_rng(4), 200)
    point = fit_operating_point(y, proba, OperatingPointRequest(name, sensitivity, 1))
    again = read_operating_point(json.loads(json.dumps(point.to_json())), 2)
    np.testing.assert_array_equal(again.calibrate(proba), point.calibrate(proba))
    np.testing.assert_array_equal(again.decide(again.calibrate(proba)), point.decide(point.calibrate(proba)))
    assert again.to_json() == point.to_json()


def test_a_run_from_before_there_were_operating_points_has_the_neutral_one():
    proba = np.array([[0.4, 0.6], [0.5, 0.5]])
    assert read_operating_point(None, 2) is NEUTRAL
    np.testing.assert_array_equal(NEUTRAL.calibrate(proba), proba)
    assert NEUTRAL.decide(proba).tolist() == [1, 0]


SOUND = OperatingPoint(Platt((1.0,), (0.0,)), 0.4, OperatingPointRequest("platt", 0.9, 1)).to_json()
DAMAGE = {
    "no calibration key": {"threshold": None, "sensitivity": None, "positive": None},
    "unknown method": {**SOUND, "calibration": {"method": "magic"}},
    "a method that is no name": {**SOUND, "calibration": {"method": ["platt"]}},
    "missing number": {**SOUND, "calibration": {"method": "platt", "slopes": [1.0]}},
    "a word for a number": {**SOUND, "calibration": {"method": "temperature", "slope": "x"}},
    "infinite": {**SOUND, "calibration": {"method": "temperature", "slope": float("inf")}},
    "of three classes": {
        **SOUND,
        "calibration": {"method": "platt", "slopes": [1.0] * 3, "offsets": [0.0] * 3},
    },
    "a threshold without a wish": {**SOUND, "sensitivity": None},
    "a threshold that is no number": {**SOUND, "threshold": float("nan")},
    "a class that is not there": {**SOUND, "positive": 7},
    "half a class": {**SOUND, "positive": 0.5},
    "not a dict": ["platt"],
}


@pytest.mark.parametrize("document", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_operating_point_is_refused(document):
    with pytest.raises(FeatstoreError) as caught:
        read_operating_point(document, 2)
    assert isinstance(caught.value, RunError)


@pytest.mark.parametrize("wish", [("magic", None, 1), (None, 0.95, None), (None, 95, 1), (None, 0, 1)])
def test_a_wish_that_cannot_be_meant_is_refused(wish):
    with pytest.raises(UsageError):
        OperatingPointRequest(*wish)


def test_inner_folds_stay_within_the_training_images_and_keep_patients_together():
    matrix = make_matrix(patients=30)
    for train, _ in group_folds(matrix, 3):
        folds = inner_folds(matrix, train, 5)
        assert len(folds) == 5
        np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), train)
        for rest, test in folds:
            assert not set(matrix.groups[rest]) & set(matrix.groups[test])
            assert set(rest) | set(test) == set(train)


def test_a_class_of_two_patients_has_two_inner_folds_and_of_one_none():
    matrix = make_matrix(patients=30)
    few = np.flatnonzero(np.isin(matrix.groups, ["p000", "p001", "p002", "p003"]))
    assert len(inner_folds(matrix, few, 5)) == 2
    with pytest.raises(AuditError):
        inner_folds(matrix, few[:6], 5)


def test_no_test_label_reaches_the_operating_point_of_its_fold():
    """Law 6: turning the labels of one fold's test images around leaves that fold's operating point as it was."""
    matrix = make_matrix(patients=40)
    splits = group_folds(matrix, 4)
    wish = OperatingPointRequest("platt", 0.9, 1)
    rounds = with_inner_folds(matrix, splits, 0)
    rng = np.random.default_rng(0)
    values = rng.random(len(matrix.y)) * 0.5 + 0.5 * matrix.y
    proba = [np.column_stack([1 - values[test], values[test]]) for _, test in rounds]
    before = operating_points(matrix.y, splits, rounds, proba, wish)
    turned = matrix.y.copy()
    turned[splits[0][1]] = 1 - turned[splits[0][1]]
    after = operating_points(turned, splits, rounds, proba, wish)
    assert before[0] == after[0]
    assert all(one != two for one, two in zip(before[1:], after[1:], strict=True))


def test_no_test_label_reaches_the_pick_of_its_fold():
    """Law 6, for the winner that is picked anew inside each fold."""
    matrix = make_matrix(patients=40)
    arena = EvaluationDesign(matrix.y, matrix.groups, group_folds(matrix, 4), 1, 1)
    rounds = with_inner_folds(matrix, arena.splits, 0)
    right = [[np.column_stack([1 - matrix.y[t], matrix.y[t]]).astype(float) for _, t in rounds]]
    wrong = [[1 - p for p in right[0]]]
    assert select_in_inner_folds(arena, rounds, right + wrong) == [0, 0, 0, 0]
    assert select_in_inner_folds(arena, rounds, wrong + right) == [1, 1, 1, 1]
    turned = matrix.y.copy()
    turned[arena.splits[0][1]] = 1 - turned[arena.splits[0][1]]
    for fold, pick in enumerate(select_in_inner_folds(replace(arena, y=1 - turned), rounds, right + wrong)):
        inner = turned[arena.splits[fold][0]] == matrix.y[arena.splits[fold][0]]
        assert pick == int(inner.mean() > 0.5)
    assert select_in_inner_folds(arena, arena.splits, right) == []


def test_nothing_wished_for_costs_nothing():
    matrix = make_matrix(patients=20)
    splits = group_folds(matrix, 3)
    assert operating_points(matrix.y, splits, splits, [], OperatingPointRequest()) == [NEUTRAL] * 3


def test_vector_scaling_brings_the_slope_of_each_of_five_classes_to_one():
    """Where Platt's curves, scaled to a sum of one, leave it far from there."""
    rng = np.random.default_rng(5)
    logits = 4 * rng.normal(size=(24000, 5))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random((24000, 1)) > np.cumsum(honest, axis=1)[:, :4]).sum(axis=1)
    told = np.exp(logits / 4)
    told /= told.sum(axis=1, keepdims=True)
    patients = np.arange(12000).astype(str)

    def slopes(name):
        after = METHODS[name].fit(y[:12000], told[:12000]).apply(told[12000:])
        return [recalibration(y[12000:] == c, after[:, c], patients)["slope"]["value"] for c in range(5)]

    assert slopes("vector") == pytest.approx([1.0] * 5, abs=0.1)
    assert min(slopes("platt")) > 1.15


def study(rng, patients, images):
    """Probabilities of the positive images of a study, of patients who differ more than their images do."""
    own = rng.normal(size=(patients, 1)) + 0.6 * rng.normal(size=(patients, images))
    return own.ravel(), np.repeat(np.arange(patients), images).astype(str)


@pytest.mark.parametrize(("patients", "images"), [(80, 1), (200, 1), (80, 4)])
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_the_tolerance_bound_holds_in_95_of_100_studies_and_the_plain_threshold_in_about_half(
    patients, images, target
):
    rng = np.random.default_rng(6)
    reached = {"sure": 0, "plain": 0}
    deviation = np.sqrt(1 + 0.6**2)
    for _ in range(500):
        values, groups = study(rng, patients, images)
        sure = tolerance_threshold(values, groups, target)
        proba = 1 / (1 + np.exp(-values))
        point = fit_operating_point(
            np.ones(len(values), int),
            np.column_stack([1 - proba, proba]),
            OperatingPointRequest(sensitivity=target, positive=1),
            groups,
        )
        assert point.tolerance.threshold <= point.threshold
        plain = np.log(point.threshold / (1 - point.threshold))
        reached["sure"] += norm.sf(sure / deviation) >= target
        reached["plain"] += norm.sf(plain / deviation) >= target
    assert reached["sure"] >= 0.95 * 500 - 2 * np.sqrt(500 * 0.05 * 0.95)
    if images == 1:
        # At most this many are missed in the sample: an exact binomial tail says how often that is too few.
        missed = patients - int(np.ceil(round(target * patients, 9)))
        expected = binom.sf(missed, patients, 1 - target)
        assert 0.3 < expected < 0.6
        assert abs(reached["plain"] / 500 - expected) < 3 * np.sqrt(expected * (1 - expected) / 500)
    else:
        assert 0.3 * 500 < reached["plain"] < 0.6 * 500


@pytest.mark.parametrize(("target", "needed"), [(0.9, 29), (0.95, 59)])
def test_the_fewest_patients_for_a_tolerance_bound_are_those_of_the_tables(target, needed):
    assert patients_needed(target) == needed
    values = np.arange(needed) / needed
    names = np.arange(needed).astype(str)
    assert tolerance_threshold(values, names, target) == 0
    assert tolerance_threshold(values[1:], names[1:], target) is None
    # Images of a patient are no further patients.
    assert tolerance_threshold(np.repeat(values[1:], 5), np.repeat(names[1:], 5), target) is None


def test_equal_probabilities_are_called_together():
    values = np.repeat([0.1, 0.2, 0.3], 40)
    assert tolerance_threshold(values, np.arange(120).astype(str), 0.9) == 0.1
    assert tolerance_threshold(values, np.arange(120).astype(str), 0.5) == 0.2


def test_too_few_patients_for_a_confidence_are_told_in_one_line():
    y, _, proba = overconfident(np.random.default_rng(7), 40)
    with pytest.raises(UsageError, match=r"^Not enough patients .* 59 are needed"):
        fit_operating_point(y, proba, OperatingPointRequest(None, 0.95, 1, 0.95))
    with pytest.raises(UsageError, match="no number is enough"):
        fit_operating_point(y, proba, OperatingPointRequest(None, 1.0, 1, 0.95))
    assert fit_operating_point(y, proba, OperatingPointRequest(None, 0.95, 1)).tolerance.threshold is None


def test_with_a_confidence_the_tolerance_bound_decides_and_comes_back_from_json():
    y, _, proba = overconfident(np.random.default_rng(8), 400)
    point = fit_operating_point(y, proba, OperatingPointRequest("vector", 0.9, 1, 0.95))
    assert point.threshold == point.tolerance.threshold < point.tolerance.plain
    assert read_operating_point(json.loads(json.dumps(point.to_json())), 2) == point


@pytest.mark.parametrize("wish", [(None, 0.9, 1, 1.0), (None, 0.9, 1, 95), (None, None, 1, 0.95)])
def test_a_confidence_that_cannot_be_meant_is_refused(wish):
    with pytest.raises(UsageError, match="confidence"):
        OperatingPointRequest(*wish)
