"""Curves against their definitions, written out slowly."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve as reference

from featstore.evaluation.calibration import calibration_curve, curves, decision_curve, risk_coverage


def sample(n=300, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random(n).round(2)
    return rng.random(n) < p, p


def test_net_benefit_is_vickers_and_elkins():
    truth, p = sample()
    curve = decision_curve(truth, p)
    for t, benefit, everyone in zip(
        curve["threshold"], curve["net_benefit"], curve["treat_all"], strict=True
    ):
        hits = sum(1 for ill, value in zip(truth, p, strict=True) if value >= t and ill)
        alarms = sum(1 for ill, value in zip(truth, p, strict=True) if value >= t and not ill)
        assert benefit == pytest.approx(hits / 300 - alarms / 300 * t / (1 - t))
        assert everyone == pytest.approx(truth.mean() - (1 - truth.mean()) * t / (1 - t))


def test_an_honest_model_is_worth_more_than_treating_everyone_or_no_one():
    curve = decision_curve(*sample(5000))
    assert (np.array(curve["net_benefit"]) >= np.maximum(0, curve["treat_all"]) - 0.005).all()


def test_leaving_the_least_sure_to_a_physician_lowers_the_risk_step_by_step():
    right, confidence = sample()
    curve = risk_coverage(right, confidence)
    assert curve["coverage"][-1] == 1.0
    assert curve["risk"][-1] == pytest.approx((~right).mean())
    assert curve["risk"][0] < curve["risk"][-1] / 3


def test_the_area_under_risk_and_coverage_is_the_mean_over_random_orders_of_ties():
    right, confidence = sample(60)
    confidence = confidence.round(1)
    rng = np.random.default_rng(1)
    areas = []
    for _ in range(3000):
        order = np.lexsort((rng.random(60), -confidence))
        areas.append((np.cumsum(~right[order]) / np.arange(1, 61)).mean())
    assert risk_coverage(right, confidence)["aurc"] == pytest.approx(np.mean(areas), abs=0.003)


def test_a_worked_risk_coverage_curve():
    """Four images by falling confidence: right, wrong, right, wrong."""
    curve = risk_coverage(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.6]))
    assert curve["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_the_calibration_curve_is_scikit_learns():
    truth, p = sample(400)
    p = p + 1e-4 * np.random.default_rng(3).random(400)
    observed, predicted = reference(truth, p.clip(0, 1), n_bins=10, strategy="quantile")
    ours = calibration_curve(truth, p.clip(0, 1))
    assert ours["observed"] == pytest.approx(observed.tolist())
    assert ours["predicted"] == pytest.approx(predicted.tolist())
    assert sum(ours["images"]) == 400


def test_without_a_positive_class_only_selective_prediction_has_a_curve():
    proba = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    three = curves(np.arange(30) % 3, proba, proba.argmax(axis=1), None)
    assert set(three) == {"risk_coverage", "calibration_error", "recalibration_by_class"}
    assert len(three["recalibration_by_class"]) == 3
    two = proba[:, :2] / proba[:, :2].sum(axis=1, keepdims=True)
    assert set(curves(np.arange(30) % 2, two, two.argmax(axis=1), 1)) == {
        "risk_coverage",
        "calibration_error",
        "decision",
        "calibration",
        "recalibration",
    }
