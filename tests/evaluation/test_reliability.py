"""Calibration beside what chance alone would show, against references written out slowly."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from featstore.evaluation.calibration import calibration_summary, curves, expected_error, recalibration


def sample(n, seed=0, slope=1.0, offset=0.0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-(slope * odds + offset)))
    return truth, 1 / (1 + np.exp(-odds))


def two(p):
    return np.column_stack([1 - p, p])


def ece(truth, p):
    """Ten quantile bins of scikit-learn."""
    observed, predicted = calibration_curve(truth, p, n_bins=10, strategy="quantile")
    return abs(observed - predicted).mean()


def test_the_error_by_chance_is_that_of_labels_drawn_from_the_probabilities():
    _, p = sample(400)
    rng = np.random.default_rng(9)
    slowly = np.mean([ece(rng.random(400) < p, p) for _ in range(600)])
    assert expected_error(two(p), 1) == pytest.approx(slowly, abs=0.0015)
    assert expected_error(two(p), 1) == expected_error(two(p), 1)
    assert expected_error(two(p), 0) == pytest.approx(expected_error(two(p), 1), abs=0.0015)


def test_chance_alone_makes_less_of_an_error_the_more_images_there_are():
    errors = [expected_error(two(sample(n)[1]), 1) for n in (100, 400, 1600, 6400)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.06
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.35)


def test_a_calibrated_model_shows_what_chance_would_and_a_sure_one_more():
    within = []
    for seed in range(20):
        truth, p = sample(300, seed)
        found = calibration_summary(truth.astype(int), two(p), 1)
        within.append(found["ece"] / found["expected"])
    assert np.mean(within) == pytest.approx(1.0, abs=0.15)
    truth, p = sample(300, 1, slope=0.3)
    found = calibration_summary(truth.astype(int), two(p), 1)
    assert found["ece"] > 2 * found["expected"]


def test_fewer_than_a_hundred_images_have_no_calibration_error():
    truth, p = sample(100)
    whole = calibration_summary(truth.astype(int), two(p), 1)
    assert whole["ece"] == pytest.approx(
        sum(abs((p - truth)[part].sum()) for part in np.array_split(np.argsort(p, kind="stable"), 5)) / 100
    )
    assert calibration_summary(truth[:99].astype(int), two(p[:99]), 1) == {
        "ece": None,
        "expected": None,
        "images": 99,
    }


def test_three_classes_have_the_mean_over_the_classes():
    proba = np.random.default_rng(0).dirichlet((2, 2, 2), 600)
    draws = np.random.default_rng(1)
    errors = []
    for _ in range(100):
        y = (draws.random(600)[:, None] > proba.cumsum(axis=1)[:, :2]).sum(axis=1)
        errors.append(np.mean([ece(y == c, proba[:, c]) for c in range(3)]))
    assert expected_error(proba) == pytest.approx(np.mean(errors), abs=0.003)


def test_slope_and_intercept_are_those_of_an_unpenalised_logistic_regression():
    truth, p = sample(500, 3, slope=0.6, offset=-0.4)
    odds = np.log(p / (1 - p))[:, None]
    fitted = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(odds, truth)
    found = recalibration(truth, p, np.arange(500).astype(str))
    assert found["slope"]["value"] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert found["intercept"]["value"] == pytest.approx(fitted.intercept_[0], abs=1e-4)
    for name, value in (("slope", 0.6), ("intercept", -0.4)):
        low, high = found[name]["interval"]
        assert low < value < high


def test_the_interval_of_the_slope_holds_one_for_a_calibrated_model_and_knows_copies():
    held = []
    for seed in range(40):
        truth, p = sample(150, seed)
        low, high = recalibration(truth, p, np.arange(150).astype(str))["slope"]["interval"]
        held.append(low <= 1 <= high)
    assert np.mean(held) >= 0.875
    once = recalibration(truth, p, np.arange(150).astype(str))
    copied = recalibration(np.repeat(truth, 4), np.repeat(p, 4), np.repeat(np.arange(150), 4).astype(str))
    assert copied["slope"]["interval"] == pytest.approx(once["slope"]["interval"], abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "p", "why"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], "part the classes without an error"),
        ([1, 1, 0, 0], [0.1, 0.4, 0.6, 0.9], "part the classes without an error"),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9], "part the classes without an error"),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], "the same probability"),
        ([1, 1, 1, 1], [0.1, 0.5, 0.5, 0.9], "one class"),
    ],
)
def test_a_slope_that_does_not_exist_is_said_to_be_undefined(truth, p, why):
    found = recalibration(np.array(truth) == 1, np.array(p), np.arange(4).astype(str))
    assert why in found["why"]
    assert found["slope"] == found["intercept"] == {"value": None, "interval": None}


def test_one_patient_of_a_class_allows_no_interval_of_the_slope():
    found = recalibration(
        np.array([True, True, True, False, False]),
        np.array([0.2, 0.6, 0.9, 0.5, 0.3]),
        np.array(["p", "p", "p", "q", "r"]),
    )
    assert found["slope"]["value"] > 0
    assert found["slope"]["interval"] is None


def test_sure_answers_of_zero_and_one_have_a_slope():
    truth = np.array([0, 0, 1, 1, 1, 0] * 20) == 1
    p = np.array([0.0, 0.3, 1.0, 0.6, 0.0, 1.0] * 20)
    found = recalibration(truth, p, np.arange(120).astype(str))
    assert np.isfinite(found["slope"]["value"])
    assert found["slope"]["value"] < 0.5


def test_curves_hold_all_of_it_at_one_place():
    truth, p = sample(200)
    drawn = curves(truth.astype(int), two(p), (p >= 0.5).astype(int), 1)
    bins = drawn["calibration"]
    gaps = abs(np.subtract(bins["predicted"], bins["observed"]))
    assert drawn["calibration_error"]["ece"] == pytest.approx(np.average(gaps, weights=bins["images"]))
    assert drawn["recalibration"]["why"] == ""
