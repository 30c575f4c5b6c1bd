"""A verdict only where the data carry one; every pair is asked."""

from types import SimpleNamespace

import numpy as np
import pytest
from fakes_matrix import make_matrix

from featstore.evaluation.candidates import Candidate, make_candidates
from featstore.evaluation.crossval import cross_validate
from featstore.evaluation.estimates import (
    EvaluationDesign,
    correct_selection_bias,
    score_candidates,
    select_in_inner_folds,
    with_inner_folds,
)
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.metrics import METRICS
from featstore.evaluation.pairwise_tests import pairwise_tests
from featstore.splits import group_folds


def compete(matrix, all_candidates, seed=0, folds=4, repeats=1, positive=1):
    splits = group_folds(matrix, folds, repeats, seed)
    proba = [[] for _ in all_candidates]
    for c, _, values in cross_validate(matrix, all_candidates, splits):
        proba[c].append(values)
    design = EvaluationDesign(matrix.y, matrix.groups, splits, repeats, positive)
    return design, score_candidates(design, all_candidates, proba, group_weights(matrix.groups, seed=seed))


def singles_and_fusion(matrix):
    return make_candidates(["concat_logreg"], "singles", matrix.backbones)


def told(matrix, *arguments, **options):
    return {(d.a, d.b): d for d in pairwise_tests(*compete(matrix, *arguments, **options))}


def test_fusing_two_halves_of_the_truth_beats_either_half():
    matrix = make_matrix(signal=(3.0, 3.0), patients=200)
    found = told(matrix, singles_and_fusion(matrix))
    assert set(found) == {("NetB", "NetA"), ("concat_logreg", "NetA"), ("concat_logreg", "NetB")}
    for half in ("NetA", "NetB"):
        pair = found["concat_logreg", half]
        assert pair.verdict == "a_better"
        assert 0 < pair.interval[0] < pair.delta < pair.interval[1]
        assert pair.p < 0.05
    assert found["NetB", "NetA"].verdict == "cannot_tell"


def test_the_four_tests_agree_on_a_large_difference():
    matrix = make_matrix(signal=(4.0, 0.0), patients=100)
    (pair,) = told(matrix, singles_and_fusion(matrix)[:2], folds=5).values()
    assert set(pair.tests) == {"clustered", "bootstrap", "delong", "mcnemar", "corrected_t"}
    assert all(test.p < 0.05 for test in pair.tests.values())
    assert pair.p == pytest.approx(pair.tests["clustered"].p, abs=0.001)


def test_delong_and_the_bootstrap_see_the_same_error():
    """Two roads to one number: closed form and 2000 resamples of the patients."""
    matrix = make_matrix(signal=(1.5, 1.2), patients=200)
    (pair,) = told(matrix, singles_and_fusion(matrix)[:2]).values()
    assert pair.tests["delong"].p == pytest.approx(pair.tests["bootstrap"].p, abs=0.05)


def test_a_second_backbone_of_pure_noise_is_no_reason_to_claim_a_gain():
    matrix = make_matrix(signal=(2.0, 0.0), patients=60)
    assert told(matrix, singles_and_fusion(matrix))["concat_logreg", "NetA"].verdict != "a_better"


def test_a_bad_contestant_is_said_to_be_worse():
    matrix = make_matrix(signal=(4.0, 0.0), patients=100)
    (pair,) = told(matrix, singles_and_fusion(matrix)[:2]).values()
    assert (pair.a, pair.b, pair.verdict) == ("NetB", "NetA", "b_better")


@pytest.mark.slow
def test_on_random_labels_no_pair_is_told_and_intervals_cover_chance():
    """95 % intervals may miss now and then: of 20 data sets and 3 contestants, 3 misses of 60 are expected."""
    chance = dict.fromkeys(("auc", "accuracy", "balanced_accuracy", "average_precision", "f1"), 0.5)
    covered, verdicts = {name: [] for name in chance}, []
    for seed in range(20):
        matrix = make_matrix(signal=(0.0, 0.0), patients=40, images=2, seed=seed, views=1)
        design, ranked = compete(matrix, singles_and_fusion(matrix), seed)
        for s in ranked:
            assert set(s.estimates) == set(METRICS)
            for name, value in chance.items():
                low, high = s.estimates[name].interval
                covered[name].append(low < value < high)
        verdicts += [pair.verdict for pair in pairwise_tests(design, ranked)]
    assert {name for name, hits in covered.items() if sum(hits) < 54} == set()
    assert verdicts.count("cannot_tell") >= 58


def test_a_contestant_against_its_twin_is_a_draw_in_every_test():
    matrix = make_matrix(patients=20)
    same_twice = [Candidate("concat_logreg", ("NetA",), name) for name in ("one", "other")]
    (pair,) = told(matrix, same_twice).values()
    assert (pair.delta, pair.p, pair.verdict) == (0.0, 1.0, "cannot_tell")
    assert [test.p for test in pair.tests.values()] == [1.0] * 5


def test_three_classes_have_no_delong_test_and_everything_else():
    matrix = make_matrix(signal=(1.0, 1.0), patients=45, classes=("a", "b", "c"))
    (pair,) = told(matrix, singles_and_fusion(matrix)[:2], positive=None).values()
    assert pair.tests["delong"].p is None
    assert 0 < pair.tests["mcnemar"].p <= 1
    assert 0 < pair.tests["corrected_t"].p <= 1


def test_mcnemar_counts_patients_not_images():
    """Ten images of one patient are one win: a verdict needs patients."""
    groups = np.repeat([f"p{i}" for i in range(20)], 10)
    y = np.repeat(np.arange(20) % 2, 10)
    splits = [
        (np.flatnonzero(np.arange(200) // 100 != half), np.arange(200) // 100 == half) for half in (0, 1)
    ]
    splits = [(train, np.flatnonzero(test)) for train, test in splits]
    good = np.where(y == 1, 0.9, 0.1) + 0.01 * np.random.default_rng(0).random(200)
    bad = good.copy()
    bad[:30] = 1 - good[:30]
    proba = [[np.column_stack([1 - p, p])[test] for _, test in splits] for p in (bad, good)]
    design = EvaluationDesign(y, groups, splits, 1, 1)
    who = [Candidate("concat_logreg", ("A",), name) for name in ("bad", "good")]
    (pair,) = pairwise_tests(design, score_candidates(design, who, proba, group_weights(groups, 200)))
    assert pair.tests["mcnemar"].p == pytest.approx(2 / 2**3)


def test_repeats_bring_out_the_luck_of_the_folds_and_do_not_add_patients():
    matrix = make_matrix(signal=(1.0, 1.0), patients=40)
    _, (once, *_) = compete(matrix, singles_and_fusion(matrix))
    _, (often, *_) = compete(matrix, singles_and_fusion(matrix), repeats=4)
    assert once.variance_components.folds is None
    assert 0 < often.variance_components.folds < often.variance_components.patients
    assert often.variance_components.patients / once.variance_components.patients == pytest.approx(
        1, abs=0.25
    )
    means = np.reshape(often.estimates["auc"].folds, (4, 4)).mean(axis=1)
    assert often.variance_components.folds == pytest.approx(means.std(ddof=1))


def test_training_seeds_are_told_apart_from_folds_and_patients():
    matrix = make_matrix(patients=24)
    splits = group_folds(matrix, 3)
    (candidate,) = singles_and_fusion(matrix)[-1:]
    rng = np.random.default_rng(0)

    def answers(noise):
        values = [rng.normal(size=len(test)) * noise + matrix.y[test] for _, test in splits]
        return [np.column_stack([-v, v]) for v in values]

    design, weights = (
        EvaluationDesign(matrix.y, matrix.groups, splits, 1, 1),
        group_weights(matrix.groups, 100),
    )
    first = answers(1.0)
    same = score_candidates(design, [candidate], [first], weights, None, {candidate: [first, first]})
    other = score_candidates(
        design, [candidate], [first], weights, None, {candidate: [answers(1.0), answers(1.0)]}
    )
    assert same[0].variance_components.training == 0.0
    assert other[0].variance_components.training > 0.001
    assert score_candidates(design, [candidate], [first], weights)[0].variance_components.training is None


def test_two_runs_give_the_same_numbers():
    matrix = make_matrix()
    one, two = (compete(matrix, singles_and_fusion(matrix)) for _ in range(2))
    assert [s.estimates for s in one[1]] == [s.estimates for s in two[1]]
    assert pairwise_tests(*one) == pairwise_tests(*two)


def noise_arena(seed, all_candidates=30, patients=60):
    """Candidates that guess, so no fitting is needed."""
    rng = np.random.default_rng(seed)
    matrix = make_matrix(signal=(0.0,), patients=patients, images=1, seed=seed, views=1)
    splits = group_folds(matrix, 5, seed=seed)
    design = EvaluationDesign(matrix.y, matrix.groups, splits, 1, 1)
    proba = [
        [np.column_stack([1 - p, p]) for p in (rng.random(len(test)) for _, test in splits)]
        for _ in range(all_candidates)
    ]
    who = [Candidate("concat_logreg", ("A", "B"), f"c{i}") for i in range(all_candidates)]
    weights = group_weights(matrix.groups, 500)
    ranked = score_candidates(design, who, proba, weights)
    return design, ranked, weights


@pytest.mark.slow
def test_the_best_of_thirty_guessers_is_seen_through():
    naive, guarded, covered = [], [], []
    for seed in range(5):
        winner = correct_selection_bias(*noise_arena(seed))
        naive.append(winner.apparent)
        guarded.append(winner.corrected)
        covered.append(winner.interval[0] < 0.5 < winner.interval[1])
        assert winner.optimism == pytest.approx(winner.apparent - winner.corrected)
    assert min(naive) > 0.58
    assert np.mean(guarded) == pytest.approx(0.5, abs=0.05)
    assert sum(covered) >= 4


@pytest.mark.slow
def test_picked_anew_inside_each_fold_the_best_of_thirty_guessers_is_worth_nothing():
    naive, honest = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        design, ranked, weights = noise_arena(seed)
        matrix = SimpleNamespace(y=design.y, groups=design.groups, classes=("a", "b"))
        rounds = with_inner_folds(matrix, design.splits, seed)
        inner = [[rng.dirichlet((1, 1), len(test)) for _, test in rounds[5:]] for _ in ranked]
        answers = [[*s.proba, *guesses] for s, guesses in zip(ranked, inner, strict=True)]
        winner = correct_selection_bias(
            design, ranked, weights, select_in_inner_folds(design, rounds, answers)
        )
        naive.append(winner.apparent)
        honest.append(winner.nested.mean)
        assert len(winner.nested.selected) == 5
        assert winner.nested.interval[0] < winner.nested.mean < winner.nested.interval[1]
    assert min(naive) > 0.58
    assert np.mean(honest) == pytest.approx(0.5, abs=0.04)


@pytest.mark.slow
def test_among_thirty_guessers_no_pair_is_told():
    for seed in range(2):
        design, ranked, _ = noise_arena(seed)
        assert {pair.verdict for pair in pairwise_tests(design, ranked)} == {"cannot_tell"}


def test_a_winner_that_is_truly_better_loses_little_to_the_guard():
    matrix = make_matrix(signal=(5.0, 0.0), patients=80)
    design, ranked = compete(matrix, singles_and_fusion(matrix)[:2])
    winner = correct_selection_bias(design, ranked, group_weights(matrix.groups, seed=0))
    assert (winner.name, winner.of, winner.selection_frequency) == ("NetA", 2, 1.0)
    assert abs(winner.optimism) < 0.02


def test_there_is_no_winner_of_one():
    matrix = make_matrix(patients=20)
    design, ranked = compete(matrix, singles_and_fusion(matrix)[:1])
    assert correct_selection_bias(design, ranked, group_weights(matrix.groups, 50)) is None
    assert pairwise_tests(design, ranked) == []
