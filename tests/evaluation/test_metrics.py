"""Scores equal scikit-learn's, weight by weight."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from featstore.evaluation.metrics import (
    METRICS,
    SPECIFICITIES,
    auc,
    decide,
    equal_mass_bins,
    primary_score,
    score,
)
from featstore.testing import check_metric


def case(rng, n=40, classes=2):
    y = rng.permutation(np.arange(n) % classes)
    proba = rng.dirichlet(np.ones(classes), n).round(2)
    return y, proba / proba.sum(axis=1, keepdims=True)


def at_a_mark(truth, values, weights):
    """Sensitivity at fixed specificity and the reverse, read off scikit-learn's ROC curve."""
    alarms, hits, _ = reference.roc_curve(truth, values, sample_weight=weights, drop_intermediate=False)
    scores = {}
    for at in SPECIFICITIES:
        scores[f"sensitivity_at_specificity_{100 * at:.0f}"] = hits[alarms <= 1 - at + 1e-9].max()
        scores[f"specificity_at_sensitivity_{100 * at:.0f}"] = 1 - alarms[hits >= at - 1e-9].min()
    return scores


def one_against_rest(truth, called, values, weights):
    recall = lambda one, other: reference.recall_score(one, other, sample_weight=weights)  # noqa: E731
    # Of nothing that was called so there is no share.
    precision = lambda one, other: reference.precision_score(  # noqa: E731
        one, other, sample_weight=weights, zero_division=np.nan
    )
    bins = equal_mass_bins(values)
    error = sum(abs((weights * (values - truth))[bins == b].sum()) for b in set(bins)) / weights.sum()
    return {
        "auc": reference.roc_auc_score(truth, values, sample_weight=weights),
        "average_precision": reference.average_precision_score(truth, values, sample_weight=weights),
        "sensitivity": recall(truth, called),
        "specificity": recall(~truth, ~called),
        "ppv": precision(truth, called),
        "npv": precision(~truth, ~called),
        "f1": reference.f1_score(truth, called, sample_weight=weights),
        "brier": reference.brier_score_loss(truth, values, sample_weight=weights),
        "ece": error,
        **at_a_mark(truth, values, weights),
    }


def sklearn_scores(y, proba, weights, positive, predicted):
    classes = range(proba.shape[1])
    parts = [
        one_against_rest(y == c, predicted == c, proba[:, c], weights)
        for c in (classes if positive is None else [positive])
    ]
    return {
        **{name: np.mean([part[name] for part in parts]) for name in parts[0]},
        "accuracy": reference.accuracy_score(y, predicted, sample_weight=weights),
        "balanced_accuracy": reference.balanced_accuracy_score(y, predicted, sample_weight=weights),
        "log_loss": reference.log_loss(y, proba.clip(1e-12), sample_weight=weights, labels=classes),
    }


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one:UserWarning")
@settings(max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(2, 1, None), (2, 0, None), (2, 1, 0.3), (2, None, None), (3, None, None), (4, 2, 0.2)]),
)
def test_every_score_equals_scikit_learn_with_the_same_weights(seed, shape):
    classes, positive, threshold = shape
    rng = np.random.default_rng(seed)
    y, proba = case(rng, classes=classes)
    weights = rng.integers(0, 4, (3, len(y))).astype(float)
    weights[:, [np.flatnonzero(y == c)[0] for c in range(classes)]] += 1
    ours = score(y, proba, weights, positive, threshold)
    assert tuple(ours) == tuple(METRICS)
    predicted = decide(proba, positive, threshold)
    for at in range(3):
        expected = sklearn_scores(y, proba, weights[at], positive, predicted)
        assert {name: ours[name][at] for name in METRICS} == pytest.approx(expected, abs=1e-9, nan_ok=True)
    np.testing.assert_allclose(primary_score(y, proba, weights, positive), ours["auc"])


def test_many_resamples_are_scored_like_each_alone():
    rng = np.random.default_rng(3)
    y, proba = case(rng)
    weights = rng.integers(0, 3, (1100, len(y))).astype(float)
    together = score(y, proba, weights, 1)
    for at in (0, 511, 512, 1099):
        alone = score(y, proba, weights[[at]], 1)
        assert {k: v[at] for k, v in together.items()} == pytest.approx({k: v[0] for k, v in alone.items()})


def test_the_calibration_error_is_that_of_scikit_learns_quantile_bins():
    rng = np.random.default_rng(5)
    p = rng.random(400)
    y = (rng.random(400) < p**2).astype(int)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    counts = np.bincount(equal_mass_bins(p))
    assert counts.tolist() == [40] * 10
    expected = (counts * abs(observed - predicted)).sum() / 400
    ours = score(y, np.column_stack([1 - p, p]), np.ones((1, 400)), 1)["ece"][0]
    assert ours == pytest.approx(expected)


def test_few_images_have_few_bins():
    values = np.random.default_rng(0).random(45)
    assert len(set(equal_mass_bins(values))) == 2
    assert set(equal_mass_bins(values[:10])) == {0}


def test_a_threshold_decides_for_the_positive_class_and_otherwise_for_the_likeliest_other():
    proba = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.45, 0.1, 0.45]])
    assert decide(proba).tolist() == [0, 2, 0]
    assert decide(proba, 1, 0.2).tolist() == [1, 1, 0]
    assert decide(proba, 2, 0.8).tolist() == [0, 1, 0]
    assert decide(proba, 2, 0.45).tolist() == [0, 2, 2]


def test_ties_count_one_half():
    truth = np.array([True, False, True, False])
    assert auc(truth, np.array([0.5, 0.5, 0.5, 0.5]), np.ones((1, 4)))[0] == 0.5
    assert auc(truth, np.array([0.9, 0.5, 0.5, 0.1]), np.ones((1, 4)))[0] == 0.875


def test_a_weight_of_two_is_the_image_drawn_twice():
    rng = np.random.default_rng(0)
    y, proba = case(rng, n=19)
    weights = rng.integers(0, 3, len(y)).astype(float)
    drawn = np.repeat(np.arange(len(y)), weights.astype(int))
    one = score(y, proba, weights[None], 1)
    two = score(y[drawn], proba[drawn], np.ones((1, len(drawn))), 1)
    assert {k: v[0] for k, v in one.items()} == pytest.approx({k: v[0] for k, v in two.items()})


def test_a_resample_without_a_class_has_no_score_about_it_rather_than_a_wrong_one():
    y, proba = np.array([0, 1]), np.array([[0.8, 0.2], [0.1, 0.9]])
    for lost, weights in enumerate(([0.0, 1.0], [1.0, 0.0])):
        scores = score(y, proba, np.array([weights, [1.0, 1.0]]), 1)
        undefined = {name for name in METRICS if np.isnan(scores[name][0])}
        needs_both = {name for name in METRICS if "_at_" in name} | {
            "auc",
            "balanced_accuracy",
            "ppv",
            "npv",
        }
        of_ill = {"average_precision", "sensitivity", "f1"}
        assert undefined == needs_both | (of_ill if lost == 1 else {"specificity"})
        assert scores["auc"][1] == 1.0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_row_keeps_what_the_shipped_contract_says(metric):
    check_metric(metric)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"group": "other"}, "another group"),
        ({"name": "Two words"}, "no name of small letters"),
        ({"function": lambda part: part.sums[0]}, "leaves 0 to 1"),
        ({"function": lambda _: 0.5}, r"shape \(\)"),
        (
            {"function": lambda part: np.full(len(part.weights), part.values.mean())},
            "repeated",
        ),
    ],
)
def test_a_row_that_breaks_the_contract_is_told_how(wrong, why):
    with pytest.raises(AssertionError, match=why):
        check_metric(replace(METRICS["f1"], **wrong))


def test_metrics_are_described_in_the_terms_of_a_journal_of_radiology():
    said = {name: row.meaning for name, row in METRICS.items()}
    for name, term in {
        "sensitivity": "true positives",
        "specificity": "true negatives",
        "ppv": "true positives",
        "npv": "true negatives",
        "average_precision": "precision-recall curve",
        "sensitivity_at_specificity_90": "specificity is at least 90 %",
        "specificity_at_sensitivity_95": "sensitivity is at least 95 %",
    }.items():
        assert term in said[name], name
    for private in ("alarm", "left alone", "suspicious", "found"):
        assert not any(private in text for text in said.values()), private
