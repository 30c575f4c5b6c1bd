"""One question, settled before any score and tested at full strength; everything else is exploration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from featstore.errors import UsageError
from featstore.evaluation.candidates import Candidate, make_candidates, with_views
from featstore.evaluation.estimates import EvaluationDesign, score_candidates
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.pairwise_tests import (
    Differences,
    auc_covariance,
    differences,
    max_t,
    pairwise_tests,
    patient_contributions,
)
from featstore.evaluation.primary_question import Question, answer, settle, with_policy

NETWORKS = ("A", "B", "C")
SINGLES = tuple(Candidate("concat_logreg", (name,), name) for name in NETWORKS)
FUSED = Candidate("concat_logreg", NETWORKS, "concat_logreg")


def study(patients, noise, seed=0, images=2, weights_seed=0, shared=1.0, signal=2.0):
    """Answers about one truth: what all share, and noise of each one's own."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{i:05d}" for i in range(patients)], images)
    y = np.repeat(np.arange(patients) % 2, images)
    fold = np.repeat(np.arange(patients) // 2 % 5, images)
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    common = signal * y + shared * np.repeat(rng.normal(size=patients), images)
    proba = []
    for size in noise:
        p = stats.norm.cdf(common - signal / 2 + size * rng.normal(size=len(y)))
        proba.append([np.column_stack([1 - p, p])[test] for _, test in splits])
    design = EvaluationDesign(y, groups, splits, 1, 1)
    weights = group_weights(groups, 200, seed=weights_seed)
    who = [*SINGLES, FUSED, Candidate("shortcut", (), "guess")][: len(noise)]
    return design, score_candidates(design, who, proba, weights)


def ask(patients, noise, margin=0.01, **options):
    design, scored = study(patients, noise, **options)
    return answer(design, Question(FUSED, SINGLES, margin), scored)


@pytest.mark.parametrize(
    ("noise", "margin", "verdict"),
    [
        ((2.0, 2.5, 3.0, 0.3), 0.01, "better"),
        ((0.3, 2.5, 3.0, 2.0), 0.01, "worse"),
        ((0.30, 2.5, 3.0, 0.30), 0.03, "equivalent"),
        ((1.0, 2.5, 3.0, 1.0), 0.001, "cannot_tell"),
    ],
)
def test_the_four_verdicts(noise, margin, verdict):
    found = ask(600, noise, margin)
    assert found.verdict == verdict
    assert found.against == "A"
    low, high = found.decisive.interval
    assert low < found.decisive.delta < high
    assert {"better": low > 0, "worse": high < 0, "equivalent": -margin < low, "cannot_tell": low < 0 < high}[
        verdict
    ]


def test_better_must_hold_against_every_single_network():
    """One network as good as the fusion is enough to say nothing, however bad the others are."""
    assert ask(600, (2.0, 2.5, 3.0, 0.3)).verdict == "better"
    assert ask(600, (0.3, 2.5, 3.0, 0.3)).verdict != "better"


def test_the_question_is_not_adjusted_for_those_that_were_not_asked_about():
    design, scored = study(300, (1.3, 1.5, 1.6, 0.9))
    found = answer(design, Question(FUSED, SINGLES, 0.01), scored)
    pairs = {(pair.a, pair.b): pair for pair in pairwise_tests(design, scored)}
    for one in found.singles:
        pair = pairs["concat_logreg", one.name]
        assert (one.delta, one.interval, one.p) == (pair.delta, pair.interval, pair.tests["clustered"].p)
        assert pair.p >= one.p
        assert pair.simultaneous[0] <= pair.interval[0] < pair.interval[1] <= pair.simultaneous[1]


@pytest.mark.parametrize(
    ("patients", "noise", "seeds"),
    [
        (200, (1.3, 1.5, 1.6, 0.9), 10),
        (40, (1.3, 1.5, 1.6, 0.9), 3),  # so few that score tests widen the intervals
        (60, (0.05, 0.3, 0.4, 0.01), 3),  # near an AUC of one
        (60, (60.0, 60.0, 60.0, 60.0), 3),  # guessing
    ],
)
def test_the_verdict_does_not_hang_on_the_seed_of_the_bootstrap(patients, noise, seeds):
    """Ten seeds: the answer is the same to the last bit, and so is every pair, but for the p of the bootstrap."""
    asked, pairs, intervals = [], [], set()
    for seed in range(seeds):
        design, scored = study(patients, noise, weights_seed=seed)
        asked.append(answer(design, Question(FUSED, SINGLES, 0.01), scored))
        found = pairwise_tests(design, scored)
        pairs.append([(one.delta, one.interval, one.simultaneous, one.p, one.verdict) for one in found])
        intervals.add(scored[-1].estimates["auc"].interval)
    assert all(one == asked[0] for one in asked)
    assert all(one == pairs[0] for one in pairs)
    assert len(intervals) > 1, "the intervals of scores do rest on resamples"


def test_the_verdict_on_pairs_does_not_hang_on_the_seed_of_max_t():
    design, scored = study(200, (1.3, 1.5, 1.6, 0.9))
    found = differences(design, scored, *np.tril_indices(4, -1))
    adjusted = np.array([max_t(found, seed)[0] for seed in range(10)])
    assert np.ptp(adjusted, axis=0).max() < 0.02
    assert len({tuple(p < 0.05) for p in adjusted}) == 1


def test_twice_the_precision_takes_four_times_the_patients_and_the_interval_holds_that():
    few, many = (ask(n, (1.2, 1.6, 1.6, 1.15), margin=0.02, seed=3) for n in (150, 2400))
    assert few.verdict == many.verdict == "cannot_tell"
    assert few.detectable / many.detectable == pytest.approx(4, rel=0.25)
    assert few.needed == pytest.approx(150 * (few.detectable / 0.02) ** 2, abs=1)
    assert few.needed_interval[0] < few.needed < few.needed_interval[1]
    assert few.needed_interval[0] < many.needed < few.needed_interval[1]


@pytest.mark.slow
def test_a_difference_of_the_detectable_size_is_told_in_80_of_100_studies():
    """The detectable difference is 2.8 standard deviations over studies, widened for the overlap of training sets."""
    seen = [ask(120, (1.2, 1.6, 1.6, 1.15), seed=seed) for seed in range(60)]
    spread = np.std([one.singles[[s.name for s in one.singles].index("A")].delta for one in seen], ddof=1)
    widened = np.sqrt(1 + 1.25)
    assert np.median([one.detectable for one in seen]) == pytest.approx(2.85 * widened * spread, rel=0.25)


def test_a_number_of_patients_takes_scores_above_guessing_beyond_doubt():
    """At 95 % one in forty studies of nothing but luck would be promised one: random labels of CT slices were."""
    met = set()
    for signal in (0.0, 0.3, 0.4, 0.5, 0.9):
        design, scored = study(200, (1.3, 1.5, 1.6, 1.2), signal=signal)
        found = answer(design, Question(FUSED, SINGLES, 0.01), scored)
        assert found.verdict == "cannot_tell"
        both = [s for s in scored if s.candidate.label in {found.primary, found.against}]
        errors = design.overlap_factor * np.sqrt((patient_contributions(design, both) ** 2).sum(axis=1))
        z = min((s.primary - 0.5) / error for s, error in zip(both, errors, strict=True))
        p = stats.t.sf(z, 100 - 5)
        assert (found.no_number == "guessing") == (p >= 0.001)
        met.add("doubt" if 0.001 < p < 0.025 else "luck" if p >= 0.001 else "none")
    assert met == {"luck", "doubt", "none"}


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_better_and_no_number_of_patients_is_promised(seed):
    found = ask(200, (1.0, 1.0, 1.0, 1.0), seed=seed, signal=0.0)
    assert found.verdict != "better"
    assert (found.needed, found.needed_interval) == (None, None)


def test_a_class_of_one_patient_answers_nothing():
    y, groups = np.array([0] * 6 + [1] * 6), np.array([f"w{i}" for i in range(6)] + ["ill"] * 6)
    splits = [(np.arange(12), np.array([0, 1, 2, 6, 7, 8])), (np.arange(12), np.array([3, 4, 5, 9, 10, 11]))]
    design = EvaluationDesign(y, groups, splits, 1, 1)
    p = np.where(y == 1, 0.9, 0.1)
    answers = [[np.column_stack([1 - p, p])[test] for _, test in splits]] * 4
    scored = score_candidates(design, [*SINGLES, FUSED], answers, group_weights(groups, 50))
    found = answer(design, Question(FUSED, SINGLES, 0.01), scored)
    assert (found.verdict, found.decisive.interval, found.detectable) == ("cannot_tell", None, None)
    assert found.no_number == "no_interval"


def test_the_fusion_is_then_tested_against_guesses_without_a_network():
    design, scored = study(600, (2.0, 2.5, 3.0, 0.3, 0.3))
    *networks, guess = scored
    question = Question(FUSED, SINGLES, 0.01)
    above = answer(design, question, networks, [networks[0]])
    level = answer(design, question, networks, [networks[0], guess])
    assert (above.above_shortcuts, level.above_shortcuts) == (True, False)
    assert answer(design, question, networks).above_shortcuts is None


# What it rests on


@pytest.mark.parametrize("images", [1, 3])
def test_contributions_give_the_covariance_of_delong_and_obuchowski(images):
    rng = np.random.default_rng(0)
    groups, y = np.repeat([f"p{i}" for i in range(40)], images), np.repeat(np.arange(40) % 2, images)
    p = stats.norm.cdf(y + rng.normal(size=(4, len(y))))
    design = EvaluationDesign(y, groups, [(np.arange(len(y)), np.arange(len(y)))], 1, 1)
    scored = score_candidates(
        design,
        [*SINGLES, FUSED],
        [[np.column_stack([1 - each, each])] for each in p],
        group_weights(groups, 50),
    )
    mine = patient_contributions(design, scored)
    np.testing.assert_allclose(mine @ mine.T, auc_covariance(y == 1, p, groups)[1], rtol=1e-9)


def family(contributions, p):
    first = np.arange(len(p))
    nothing = np.zeros(len(p))
    table = np.vstack([contributions, np.zeros_like(contributions[:1])])
    return Differences(first, np.full(len(p), len(p)), nothing, nothing, nothing, np.array(p), table, 10_000)


def test_independent_pairs_are_adjusted_for_their_number_and_copies_for_nothing():
    alone = [0.01, 0.2, 0.5, 0.03]
    independent, quantile = max_t(family(np.eye(4), alone))
    assert independent[0] == pytest.approx(1 - 0.99**4, abs=0.004)
    assert quantile == pytest.approx(stats.norm.isf((1 - 0.95**0.25) / 2), abs=0.04)
    copies, quantile = max_t(family(np.tile(np.arange(1.0, 5.0), (4, 1)), alone))
    assert copies[0] == pytest.approx(0.01, abs=0.003)
    assert quantile == pytest.approx(stats.norm.isf(0.025), abs=0.04)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=6), st.integers(0, 100))
def test_an_adjusted_p_is_never_below_its_own_and_keeps_the_order(alone, seed):
    contributions = np.random.default_rng(seed).normal(size=(len(alone), 9))
    adjusted, _ = max_t(family(contributions, alone))
    assert (adjusted >= alone).all()
    assert (np.diff(adjusted[np.argsort(alone, kind="stable")]) >= 0).all()


@pytest.mark.slow
def test_of_three_classes_without_a_positive_one_the_contributions_are_averaged():
    """Their spread is that of the macro AUC over studies."""
    values, errors = [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        y, groups = np.arange(150) % 3, np.array([f"p{i}" for i in range(150)])
        p = rng.dirichlet((1, 1, 1), 150) + 0.4 * np.eye(3)[y]
        design = EvaluationDesign(y, groups, [(np.arange(150), np.arange(150))], 1, None)
        scored = score_candidates(
            design, [FUSED], [[p / p.sum(axis=1, keepdims=True)]], group_weights(groups, 20)
        )
        values.append(scored[0].primary)
        errors.append(np.sqrt((patient_contributions(design, scored) ** 2).sum()))
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.2)


# Settled before any score


def test_who_is_asked_about_is_compared_whether_or_not_it_was_named():
    everyone, question = settle(None, 0.01, make_candidates(["knn"], "A+B", NETWORKS), NETWORKS)
    assert [one.label for one in everyone] == ["A", "B", "C", "knn:A+B", "concat_logreg"]
    assert (question.primary, question.singles) == (FUSED, SINGLES)
    named, question = settle("knn:B+A", 0.02, make_candidates(["knn"], "A+B", NETWORKS), NETWORKS)
    assert [one.label for one in named] == ["A", "B", "C", "knn:A+B"]
    assert (question.primary.label, question.margin) == ("knn:A+B", 0.02)


def test_with_several_view_policies_the_first_is_asked_about():
    everyone, question = settle(None, 0.01, make_candidates("concat_logreg", "singles", NETWORKS), NETWORKS)
    asked = with_policy(question, with_views(everyone, ["average", "expand"], "identity", 3))
    assert asked.primary.label == "concat_logreg@average"
    assert [one.label for one in asked.singles] == ["A@average", "B@average", "C@average"]


def test_a_single_network_leaves_no_question_and_a_fusion_of_one_is_refused():
    candidates = make_candidates("all", "singles", ("A",))
    assert settle(None, 0.01, candidates, ("A",)) == (candidates, None)
    with pytest.raises(UsageError, match="leaves no question to ask"):
        settle("soft_vote", 0.01, candidates, ("A",))
    with pytest.raises(UsageError, match="fuses nothing"):
        settle("soft_vote:B", 0.01, candidates, NETWORKS)
    with pytest.raises(UsageError, match="There is no"):
        settle("soft_vot", 0.01, candidates, NETWORKS)
    with pytest.raises(UsageError, match="names no loaded backbone: D"):
        settle("soft_vote:A+D", 0.01, candidates, NETWORKS)


@pytest.mark.parametrize("margin", [0.0, -0.01, 0.5, float("nan")])
def test_a_margin_is_a_small_positive_difference(margin):
    with pytest.raises(UsageError, match="is no small difference"):
        settle(None, margin, [], NETWORKS)
