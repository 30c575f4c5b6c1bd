"""Intervals know how many patients there are, also where every answer is right."""

import itertools

import numpy as np
import pytest
from fakes_matrix import make_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest

from featstore.api.fuse import _metric_change
from featstore.evaluation.candidates import Candidate
from featstore.evaluation.estimates import (
    EvaluationDesign,
    correct_selection_bias,
    held_out_scores,
    score_candidates,
)
from featstore.evaluation.intervals import (
    correlation,
    difference_interval,
    group_weights,
    newcombe,
    paired,
    sample_sizes,
    wilson,
)
from featstore.evaluation.metrics import BOUNDED, METRICS, decide, score
from featstore.evaluation.pairwise_tests import pairwise_tests
from featstore.splits import group_folds


class Table:
    """Labels and patients, as much of a matrix as scores look at."""

    def __init__(self, y, groups):
        self.y, self.groups = np.asarray(y), np.asarray(groups).astype(str)
        self.classes = tuple("abc"[: self.y.max() + 1])


def two(p):
    return np.column_stack([1 - np.asarray(p, float), p])


def scored(y, p, groups=None, positive=1, threshold=None):
    groups = np.arange(len(y)) if groups is None else groups
    proba = two(p) if np.ndim(p) == 1 else np.asarray(p)
    return held_out_scores(Table(y, groups), np.arange(len(y)), proba, positive, threshold)


@pytest.mark.parametrize(("right", "of"), [(0, 6), (6, 6), (3, 9), (99, 100), (1, 2)])
def test_a_share_of_whole_numbers_has_wilsons_interval(right, of):
    expected = binomtest(right, of).proportion_ci(method="wilson")
    assert wilson(right / of, of) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("area", [0.0, 0.3, 0.889, 1.0])
@pytest.mark.parametrize(("ill", "well"), [(3, 3), (5, 40), (200, 100)])
def test_the_ends_of_an_areas_interval_solve_newcombes_equation(area, ill, well):
    """Statistics in Medicine 25, 2006, 559: |estimate - end| = z sqrt(V(end)), V with N* = (m + n) / 2 - 1."""

    def outside(end):
        spread = 1 + ((ill + well) / 2 - 1) * ((1 - end) / (2 - end) + end / (1 + end))
        return (end - area) ** 2 - 1.959964**2 * end * (1 - end) * spread / (ill * well)

    low, high = newcombe(area, ill, well)
    assert low == (0.0 if area == 0 else pytest.approx(brentq(outside, 0.0, area - 1e-9), abs=1e-5))
    assert high == (1.0 if area == 1 else pytest.approx(brentq(outside, area + 1e-9, 1.0), abs=1e-5))


def test_six_images_all_answered_right():
    """Three patients of each class: their scores are one, and might well be a half."""
    found = scored([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.1, 0.9, 0.8, 0.9])
    three, six = (binomtest(n, n).proportion_ci(method="wilson").low for n in (3, 6))
    for name in ("sensitivity", "specificity", "average_precision", "sensitivity_at_specificity_95"):
        assert found[name].interval == pytest.approx((three, 1.0))
    for name in ("accuracy", "balanced_accuracy"):
        assert found[name].interval == pytest.approx((six, 1.0))
    # Of the three that are ill or called so, all are both: F1 = 2 q / (1 + q) of that share q.
    assert found["f1"].interval == pytest.approx((2 * three / (1 + three), 1.0))
    assert found["auc"].interval == pytest.approx((newcombe(1.0, 3, 3)[0], 1.0))
    assert found["auc"].interval[0] == pytest.approx(0.501, abs=0.001)
    assert found["brier"].interval[1] > 0.3
    assert found["log_loss"].interval[1] > 0.5
    assert found["ece"].value is None


def test_an_interval_in_the_middle_holds_the_value_and_moves_away_from_it_on_both_sides():
    """The row that was seen: 0.889 [0.889, 0.889] on six images."""
    found = scored([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.7, 0.9, 0.8, 0.6])
    assert found["auc"].value == pytest.approx(8 / 9)
    low, high = found["auc"].interval
    assert low < 0.5
    assert 0.95 < high <= 1.0


def test_one_patient_of_a_class_allows_no_interval_of_what_needs_that_class():
    found = scored([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.1, 0.3, 0.9, 0.8], list("pqrstt"))
    without = {name for name in METRICS if found[name].interval is None}
    assert without >= {"auc", "average_precision", "sensitivity", "balanced_accuracy", "f1"}
    assert without.isdisjoint({"specificity", "accuracy", "brier", "log_loss"})
    assert found["auc"].value == found["sensitivity"].value == 1.0


def test_all_images_of_one_patient_allow_no_interval_at_all():
    found = scored([0, 1] * 60, np.tile([0.2, 0.7], 60), ["p"] * 120)
    assert {name for name in METRICS if found[name].interval is not None} == set()
    assert found["auc"].value == 1.0
    assert found["ece"].value is not None


def test_images_of_a_patient_count_as_one_where_nothing_tells_them_apart():
    y, p = np.repeat([0, 1], 4), np.repeat([0.1, 0.9], 4)
    once = scored(y, p)
    copied = scored(np.repeat(y, 10), np.repeat(p, 10), np.repeat(np.arange(8), 10))
    for name in ("auc", "sensitivity", "f1", "brier"):
        assert copied[name].interval == pytest.approx(once[name].interval)


def test_a_patient_with_most_of_the_images_leaves_fewer_effective_ones():
    """Kish: (9 + 1 + 1)^2 / (81 + 1 + 1) patients."""
    y = np.array([1] * 11 + [0] * 11)
    groups = ["a"] * 9 + ["b", "c"] + ["d"] * 9 + ["e", "f"]
    low, _ = scored(y, np.where(y == 1, 0.9, 0.1), groups)["sensitivity"].interval
    assert low == pytest.approx(wilson(1.0, 121 / 83)[0])


def random_scores(seed, patients, images, classes=2, signal=1.0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(patients) % classes, images)
    logits = rng.normal(size=(len(y), classes)) + signal * np.eye(classes)[y]
    proba = np.exp(3 * logits)
    return y, proba / proba.sum(axis=1, keepdims=True), np.repeat(np.arange(patients), images)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(4, 25),
    st.integers(1, 3),
    st.sampled_from([0.0, 1.0, 6.0, 40.0, -40.0]),
    st.sampled_from([(2, 1), (2, 0), (2, None), (3, None), (3, 2)]),
)
def test_every_interval_holds_its_value_is_within_bounds_and_never_a_point(
    seed, patients, images, signal, shape
):
    classes, positive = shape
    patients = max(patients, 2 * classes)
    y, proba, groups = random_scores(seed, patients, images, classes, signal)
    for name, found in scored(y, proba, groups, positive).items():
        if found.value is None:
            assert found.interval is None
            continue
        if found.interval is None:
            # Where one patient alone was given an answer, there is no interval of how often it is right.
            assert name in {"ppv", "npv"}
            answers = decide(proba, positive)
            called = [answers == one for one in (range(classes) if positive is None else [positive])]
            assert 1 in {len(np.unique(groups[one if name == "ppv" else ~one])) for one in called}
            continue
        low, high = found.interval
        assert low <= found.value <= high, name
        assert low >= 0, name
        assert high <= 1 or name not in BOUNDED
        # At one no interval reaches above, at zero none below; elsewhere an end is never the value itself.
        assert high - low > 0.005, name
        assert low < found.value or found.value == 0, name
        assert high > found.value or found.value == 1, name


@pytest.mark.parametrize("signal", [1.0, 40.0])
def test_intervals_shrink_with_the_number_of_patients(signal):
    widths = []
    for patients in (6, 24, 96, 384):
        y, proba, groups = random_scores(5, patients, 1, signal=signal)
        found = scored(y, proba, groups)
        widths.append({n: s.interval[1] - s.interval[0] for n, s in found.items() if s.value is not None})
    for few, many in itertools.pairwise(widths):
        assert {name for name in few if few[name] <= many[name]} == set()


def test_where_there_are_many_patients_and_errors_the_bootstrap_stands_as_it_was():
    """Two roads to one interval: the score test adds little where nothing is at the edge."""
    y, proba, groups = random_scores(2, 400, 1)
    found = scored(y, proba, groups)
    resampled = score(y, proba, group_weights(groups.astype(str)), 1)
    for name in ("auc", "accuracy", "sensitivity", "brier", "f1", "average_precision"):
        low, high = np.percentile(resampled[name], [2.5, 97.5])
        assert found[name].interval == pytest.approx((low, high), abs=0.02), name


def test_a_difference_of_two_perfect_scores_is_known_as_far_as_their_patients_allow():
    y = np.array([0, 1] * 5)
    p = two(np.where(y == 1, 0.9, 0.1))
    basis = sample_sizes(y, p, decide(p), np.arange(10).astype(str), 1)["auc"]
    ones = np.ones(100)
    low, high = difference_interval((1.0, 1.0), (ones, ones), (basis, basis))
    assert (-0.5 < low < -0.2, high) == (True, -low)
    assert difference_interval((1.0, 1.0), (ones, ones), (None, None)) is None


def test_the_interval_of_a_difference_is_that_of_zou_and_donner():
    """Worked by hand: 0.8 (0.7 to 0.9) less 0.6 (0.4 to 0.7), uncorrelated and correlated by one half."""
    numbers = [np.array([value]) for value in (0.2, 0.1, 0.1, 0.2, 0.1)]
    low, high = paired(*numbers, np.array([0.0]))
    assert (low[0], high[0]) == pytest.approx((0.2 - np.sqrt(0.02), 0.2 + np.sqrt(0.05)))
    low, high = paired(*numbers, np.array([0.5]))
    assert (low[0], high[0]) == pytest.approx((0.2 - np.sqrt(0.01), 0.2 + np.sqrt(0.03)))


def test_few_patients_cannot_show_that_two_scores_move_as_one():
    rng = np.random.default_rng(0)
    a = rng.normal(size=1000)
    assert correlation(*(np.array([v]) for v in (a.var(), a.var(), 0.0)), 9.0)[0] == pytest.approx(0.8)
    assert correlation(np.zeros(1), np.ones(1), np.ones(1), 9.0)[0] == 0.0


def arena_of(y, groups, folds, proba):
    table = Table(y, groups)
    splits = group_folds(table, folds)
    design = EvaluationDesign(table.y, table.groups, splits, 1, 1)
    who = [Candidate("concat_logreg", ("A",), f"c{i}") for i in range(len(proba))]
    weights = group_weights(table.groups, seed=0)
    answers = [[p[test] for _, test in splits] for p in proba]
    return design, score_candidates(design, who, answers, weights), weights


@pytest.mark.parametrize("seed", range(2))
def test_differences_stay_within_minus_one_and_one_and_are_never_a_point(seed):
    """The row that was seen: AUC difference +0.000 [-1.501, +0.751]."""
    rng = np.random.default_rng(seed)
    y = np.array([0, 1] * 3)
    proba = [two(rng.random(6)) for _ in range(3)] + [two(np.where(y == 1, 0.9, 0.1))] * 2
    design, ranked, weights = arena_of(y, np.arange(6), 2, proba)
    for pair in pairwise_tests(design, ranked):
        low, high = pair.interval
        assert -1 <= low < pair.delta + 1e-12
        assert pair.delta - 1e-12 < high <= 1
        assert high - low > 0.1
        assert pair.verdict == "cannot_tell"
    assert max(one.variance_components.patients for one in ranked) <= 0.5
    winner = correct_selection_bias(design, ranked, weights)
    assert winner.interval[1] - winner.interval[0] > 0.2
    assert 0 <= winner.interval[0] <= winner.corrected <= winner.interval[1] <= 1
    assert winner.corrected <= winner.apparent


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([20, 60]), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_a_p_value_is_below_five_percent_only_where_the_interval_leaves_zero_out(seed, patients, signal):
    rng = np.random.default_rng(seed)
    y = np.arange(patients) % 2
    proba = [two(1 / (1 + np.exp(-(s * (y - 0.5) + rng.normal(size=patients))))) for s in (0.0, signal)]
    design, ranked, _ = arena_of(y, np.arange(patients), 4, proba)
    (pair,) = pairwise_tests(design, ranked)
    low, high = pair.interval
    # Resamples are counted, so at the very mark the two may part by a hair.
    if pair.p < 0.045:
        assert low > 0 or high < 0
    if pair.p > 0.055:
        assert low <= 0 <= high
    assert (pair.verdict != "cannot_tell") == (pair.p < 0.05)


def test_a_single_patient_of_a_class_makes_no_pair_and_no_winner_sure():
    y, groups = np.array([0] * 6 + [1] * 6), [f"w{i}" for i in range(6)] + ["ill"] * 6
    splits = [(np.arange(12), np.array([0, 1, 2, 6, 7, 8])), (np.arange(12), np.array([3, 4, 5, 9, 10, 11]))]
    design = EvaluationDesign(y, np.array(groups), splits, 1, 1)
    who = [Candidate("concat_logreg", ("A",), name) for name in "ab"]
    weights = group_weights(design.groups, 200)
    perfect = two(np.where(y == 1, 0.9, 0.1))
    answers = [[p[test] for _, test in splits] for p in (perfect, 1 - perfect)]
    ranked = score_candidates(design, who, answers, weights)
    assert ranked[0].estimates["auc"].interval is None
    assert ranked[0].variance_components.patients is None
    (pair,) = pairwise_tests(design, ranked)
    assert (pair.interval, pair.p, pair.verdict) == (None, 1.0, "cannot_tell")
    winner = correct_selection_bias(design, ranked, weights)
    assert winner is None or winner.interval is None


def test_the_spread_over_other_patients_is_never_nothing():
    """The row that was seen: "moves by about 0.000 with other patients"."""
    y = np.array([0, 1] * 10)
    _arena, (one, _), _ = arena_of(y, np.arange(20), 5, [two(np.where(y == 1, 0.9, 0.1))] * 2)
    assert one.primary == 1.0
    low, high = one.estimates["auc"].interval
    assert one.variance_components.patients == pytest.approx((high - low) / (2 * 1.96), abs=1e-4)
    assert one.variance_components.patients > 0.03


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_a_correction_for_luck_never_raises(seed):
    """The row that was seen: expect 0.859 of 0.857."""
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 2
    base = 1.5 * y + rng.normal(size=60)
    noise = rng.normal(size=(2, 60))
    proba = [two(1 / (1 + np.exp(0.75 - base - 0.1 * part))) for part in noise]
    design, ranked, weights = arena_of(y, np.arange(60), 5, proba)
    winner = correct_selection_bias(design, ranked, weights)
    assert winner.corrected <= winner.apparent
    assert winner.optimism >= 0
    assert winner.interval[0] < winner.corrected < winner.interval[1]


def test_what_fine_tuning_changed_is_never_known_to_the_last_digit():
    y = np.array([0, 1] * 4)
    p = two(np.where(y == 1, 0.9, 0.1))
    known = sample_sizes(y, p, decide(p), np.arange(8).astype(str), 1)
    ones = np.ones(101)
    for name in ("auc", "accuracy", "f1"):
        change = _metric_change(name, (ones, ones), (known[name], known[name]))
        assert change.difference == 0
        assert change.interval[0] < -0.05 < 0.05 < change.interval[1]


def test_the_calibration_error_of_a_comparison_is_that_of_all_images_together():
    rng = np.random.default_rng(0)
    matrix = make_matrix(patients=60, images=2)
    values = rng.random(120)
    splits = group_folds(matrix, 5)
    design = EvaluationDesign(matrix.y, matrix.groups, splits, 1, 1)
    answers = [[two(values)[test] for _, test in splits]]
    (one,) = score_candidates(
        design, [Candidate("x", ("A",), "x")], answers, group_weights(matrix.groups, 200)
    )
    rows = np.concatenate([test for _, test in splits])
    pooled = score(matrix.y[rows], two(values)[rows], np.ones((1, 120)), 1)["ece"][0]
    assert one.estimates["ece"].mean == pytest.approx(pooled)
    assert one.estimates["ece"].folds == (None,) * 5
    assert one.estimates["ece"].interval[0] < pooled < one.estimates["ece"].interval[1]


def test_a_single_split_has_no_deviation_and_the_interval_of_one_fixed_model():
    """The data set's own test images, scored once: what `fuse` says of them, no wider."""
    y, proba, groups = random_scores(4, 60, 2, signal=1.5)
    test = np.arange(40, 120)
    design = EvaluationDesign(y, groups.astype(str), [(np.arange(40), test)], 1, 1)
    who = [Candidate("concat_logreg", ("A",), name) for name in "ab"]
    weights = group_weights(design.groups)
    ranked = score_candidates(design, who, [[proba[test]], [proba[test]]], weights)
    held_out = scored(y[test], proba[test], groups[test])
    for name, estimate in ranked[0].estimates.items():
        assert estimate.deviation is None
        assert estimate.mean == (
            None if held_out[name].value is None else pytest.approx(held_out[name].value)
        )
        if estimate.mean is not None:
            assert estimate.interval == pytest.approx(held_out[name].interval, abs=0.06)
    (pair,) = pairwise_tests(design, ranked)
    assert pair.tests["corrected_t"].p is None


@pytest.mark.slow
@pytest.mark.parametrize("signal", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("patients", [8, 20, 60])
def test_intervals_of_few_patients_hold_the_truth(signal, patients):
    """Of 200 studies, 95 % and a margin of three standard errors; benchmarks/interval_coverage.py has more of it."""

    def study(rng, count):
        y = np.arange(count) % 2
        z = signal * (y - 0.5) + rng.normal(size=count)
        return y, two(1 / (1 + np.exp(-signal * z)))

    names = ("auc", "average_precision", "sensitivity", "balanced_accuracy", "f1", "brier", "log_loss")
    y, proba = study(np.random.default_rng(99), 40_000)
    truth = score(y, proba, np.ones((1, len(y))), 1)
    held = dict.fromkeys(names, 0)
    for seed in range(200):
        y, proba = study(np.random.default_rng(seed), patients)
        found = scored(y, proba)
        for name in names:
            low, high = found[name].interval
            held[name] += low <= truth[name][0] <= high
    assert {name: count for name, count in held.items() if count < 180} == {}
