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
    curves,
    fit_operating_point,
    patients_needed,
    read_operating_point,
    tolerance_threshold,
)
from featstore.evaluation.estimates import (
    EvaluationDesign,
    operating_points,
    select_in_inner_folds,
    with_inner_folds,
)
from featstore.evaluation.metrics import decide, score
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


def vector(classes):
    return {"method": "vector", "slopes": [1.0] * classes, "offsets": [0.0] * classes}


def staircase(odds, heights):
    return {"method": "isotonic", "odds": [odds], "heights": [heights]}


BOUND = {"confidence": 0.95, "threshold": 0.3, "plain": 0.4, "patients": 80, "needed": 29}
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
    "a threshold without a request": {**SOUND, "sensitivity": None},
    "a threshold that is no number": {**SOUND, "threshold": float("nan")},
    "a class that is not there": {**SOUND, "positive": 7},
    "half a class": {**SOUND, "positive": 0.5},
    "not a dict": ["platt"],
    "a text for a number": {**SOUND, "calibration": {"method": "temperature", "slope": "1.5"}},
    "a truth for a number": {**SOUND, "calibration": {"method": "temperature", "slope": True}},
    "an integer beyond all measure": {**SOUND, "calibration": {"method": "temperature", "slope": 10**400}},
    "a number beyond all measure": {**SOUND, "calibration": {"method": "temperature", "slope": 1e300}},
    "numbers in numbers": {**SOUND, "calibration": {"method": "platt", "slopes": [[1.0]], "offsets": [0.0]}},
    "a vector of three classes": {**SOUND, "calibration": vector(3)},
    "a vector of one class": {**SOUND, "calibration": vector(1)},
    "a vector with fewer offsets": {**SOUND, "calibration": vector(2) | {"offsets": [0.0]}},
    "a vector with an infinite slope": {**SOUND, "calibration": vector(2) | {"slopes": [1.0, float("inf")]}},
    "a vector with a huge slope": {**SOUND, "calibration": vector(2) | {"slopes": [1.0, -1e308]}},
    "a vector of words": {**SOUND, "calibration": vector(2) | {"offsets": ["a", "b"]}},
    "a staircase that falls": {**SOUND, "calibration": staircase([0.0, 1.0], [0.9, 0.1])},
    "a staircase out of order": {**SOUND, "calibration": staircase([1.0, 0.0], [0.1, 0.9])},
    "a staircase above one": {**SOUND, "calibration": staircase([0.0, 1.0], [0.1, 7.0])},
    "a staircase of no step": {**SOUND, "calibration": staircase([], [])},
    "a torn staircase": {**SOUND, "calibration": staircase([0.0, 1.0], [0.1])},
    "a threshold above one": {**SOUND, "threshold": 1.5},
    "a threshold in words": {**SOUND, "threshold": "0.4"},
    "a sensitivity that is a truth": {**SOUND, "sensitivity": True},
    "a confidence without its bound": {**SOUND, "confidence": 0.95},
    "a confidence that is none": {**SOUND, "confidence": 1.0, "tolerance": BOUND | {"confidence": 1.0}},
    **{
        f"a bound with {name} {value!r}": {**SOUND, "tolerance": BOUND | {name: value}}
        for name, values in {
            "confidence": (0.0, 1.0, -1, "0.95", None, True),
            "threshold": (1.5, -1.0, float("nan"), "0.3", [0.3]),
            "plain": (0.5, None, 2.0, float("nan")),
            "patients": (0, -1, 1.5, 2**80, "80", None),
            "needed": (0, -29, 2.5, 10**400, float("inf")),
        }.items()
        for value in values
    },
    "a bound that lacks a number": {**SOUND, "tolerance": {k: v for k, v in BOUND.items() if k != "plain"}},
    "a bound that is a list": {**SOUND, "tolerance": [0.95, 0.3, 0.4, 80, 29]},
    "a bound without a sensitivity": {**SOUND, "tolerance": BOUND, "sensitivity": None, "threshold": None},
    "a threshold that is not that of its bound": {**SOUND, "confidence": 0.95, "tolerance": BOUND},
    "another confidence than that of its bound": {
        **SOUND,
        "threshold": 0.3,
        "confidence": 0.9,
        "tolerance": BOUND,
    },
}


@pytest.mark.parametrize("document", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_operating_point_is_refused(document):
    with pytest.raises(FeatstoreError) as caught:
        read_operating_point(document, 2)
    assert isinstance(caught.value, RunError)
    assert str(caught.value).count("\n") == 1, "a line of cause and one of remedy"


def test_a_sound_bound_is_read_and_what_a_later_version_adds_is_passed_over():
    point = read_operating_point({**SOUND, "tolerance": BOUND | {"later": 1}, "later": []}, 2)
    assert point.to_json() == {**SOUND, "confidence": None, "tolerance": BOUND}


@pytest.mark.parametrize("asked", [("magic", None, 1), (None, 0.95, None), (None, 95, 1), (None, 0, 1)])
def test_a_request_that_cannot_be_meant_is_refused(asked):
    with pytest.raises(UsageError):
        OperatingPointRequest(*asked)


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
    asked = OperatingPointRequest("platt", 0.9, 1)
    rounds = with_inner_folds(matrix, splits, 0)
    rng = np.random.default_rng(0)
    values = rng.random(len(matrix.y)) * 0.5 + 0.5 * matrix.y
    proba = [np.column_stack([1 - values[test], values[test]]) for _, test in rounds]
    before = operating_points(matrix.y, splits, rounds, proba, asked)
    turned = matrix.y.copy()
    turned[splits[0][1]] = 1 - turned[splits[0][1]]
    after = operating_points(turned, splits, rounds, proba, asked)
    assert before[0] == after[0]
    assert all(one != two for one, two in zip(before[1:], after[1:], strict=True))


def test_no_test_label_reaches_the_pick_of_its_fold():
    """Law 6, for the winner that is picked anew inside each fold."""
    matrix = make_matrix(patients=40)
    design = EvaluationDesign(matrix.y, matrix.groups, group_folds(matrix, 4), 1, 1)
    rounds = with_inner_folds(matrix, design.splits, 0)
    right = [[np.column_stack([1 - matrix.y[t], matrix.y[t]]).astype(float) for _, t in rounds]]
    wrong = [[1 - p for p in right[0]]]
    assert select_in_inner_folds(design, rounds, right + wrong) == [0, 0, 0, 0]
    assert select_in_inner_folds(design, rounds, wrong + right) == [1, 1, 1, 1]
    turned = matrix.y.copy()
    turned[design.splits[0][1]] = 1 - turned[design.splits[0][1]]
    for fold, pick in enumerate(select_in_inner_folds(replace(design, y=1 - turned), rounds, right + wrong)):
        inner = turned[design.splits[fold][0]] == matrix.y[design.splits[fold][0]]
        assert pick == int(inner.mean() > 0.5)
    assert select_in_inner_folds(design, design.splits, right) == []


def test_nothing_asked_for_costs_nothing():
    matrix = make_matrix(patients=20)
    splits = group_folds(matrix, 3)
    assert operating_points(matrix.y, splits, splits, [], OperatingPointRequest()) == [NEUTRAL] * 3


@pytest.mark.parametrize("classes", [3, 5])
def test_vector_scaling_brings_the_slope_of_each_class_to_one(classes):
    """Where Platt's curves, scaled to a sum of one, leave 1.34 to 1.42 with three classes."""
    rng = np.random.default_rng(5)
    logits = 6 * rng.normal(size=(12000, classes))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random((12000, 1)) > np.cumsum(honest, axis=1)[:, :-1]).sum(axis=1)
    told = np.exp(0.12 * logits)
    told /= told.sum(axis=1, keepdims=True)

    def slopes(name):
        after = METHODS[name].fit(y[:6000], told[:6000]).apply(told[6000:])
        drawn = curves(y[6000:], after, after.argmax(axis=1), None)
        return [part["slope"]["value"] for part in drawn["recalibration_by_class"]]

    assert slopes("vector") == pytest.approx([1.0] * classes, abs=0.1)
    assert min(slopes("platt")) > 1.3


def study(rng, patients, images):
    """Probabilities of the positive images of a study, of patients who differ more than their images do."""
    own = rng.normal(size=(patients, 1)) + 0.6 * rng.normal(size=(patients, images))
    return own.ravel(), np.repeat(np.arange(patients), images).astype(str)


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("patients", [60, 80, 200, 1000])
def test_with_one_image_per_patient_the_bound_is_the_largest_rank_that_holds_in_95_of_100_studies(
    patients, target
):
    """The (k + 1)-th lowest value reaches the target with the probability of a binomial tail."""
    values = np.random.default_rng(6).permutation(patients).astype(float)
    names = np.arange(patients).astype(str)
    rank = tolerance_threshold(values, names, target)
    assert binom.sf(rank, patients, 1 - target) >= 0.95
    assert binom.sf(rank + 1, patients, 1 - target) < 0.95
    proba = np.column_stack([1 - values / patients, values / patients])
    point = fit_operating_point(np.ones(patients, int), proba, OperatingPointRequest(None, target, 1), names)
    assert 0.3 < binom.sf(round(point.threshold * patients), patients, 1 - target) < 0.6


def test_with_several_images_per_patient_the_bound_holds_too_and_the_plain_threshold_in_about_half():
    rng = np.random.default_rng(6)
    studies, target, deviation = 200, 0.9, np.sqrt(1 + 0.6**2)
    reached = {"sure": 0, "plain": 0}
    for _ in range(studies):
        values, groups = study(rng, 80, 4)
        proba = 1 / (1 + np.exp(-values))
        bound = fit_operating_point(
            np.ones(len(values), int),
            np.column_stack([1 - proba, proba]),
            OperatingPointRequest(None, target, 1),
            groups,
        ).tolerance
        assert bound.threshold <= bound.plain
        for name, threshold in (("sure", bound.threshold), ("plain", bound.plain)):
            reached[name] += norm.sf(np.log(threshold / (1 - threshold)) / deviation) >= target
    # A bound that held in less than 95 of 100 studies would pass this once in a thousand runs at 91 of 100.
    assert reached["sure"] >= binom.ppf(0.01, studies, 0.95)
    assert binom.ppf(0.001, studies, 0.35) < reached["plain"] < binom.ppf(0.999, studies, 0.55)


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


@pytest.mark.parametrize("asked", [(None, 0.9, 1, 1.0), (None, 0.9, 1, 95), (None, None, 1, 0.95)])
def test_a_confidence_that_cannot_be_meant_is_refused(asked):
    with pytest.raises(UsageError, match="confidence"):
        OperatingPointRequest(*asked)
