"""Decision level: by hand, by brute force, against the published formulas, and with a backbone that knows nothing."""

from itertools import chain, combinations
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import gmean
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from featstore import registry
from featstore.errors import UsageError
from featstore.fusion.decision import DecisionStrategy, scale_decisions
from featstore.fusion.strategies.ensemble_selection import EnsembleSelection, select_ensemble
from featstore.fusion.strategies.gompertz_rank import GompertzRank, fuzzy_score
from featstore.fusion.strategies.mean_logit import MeanLogit
from featstore.fusion.strategies.soft_vote import SoftVote
from featstore.fusion.strategies.stacking import Stacking
from featstore.fusion.strategies.sugeno_integral import SugenoIntegral, integrate, solve_lambda
from featstore.fusion.strategies.weighted_vote import WeightedVote, log_odds_weights
from featstore.types import make_blocks

FOLDER = "featstore.fusion.strategies"
WIDTHS = {"good": 8, "fair": 6, "noise": 10}
DECISION = [
    kind
    for kind in (registry.load(FOLDER, name) for name in registry.names(FOLDER))
    if issubclass(kind, DecisionStrategy)
]


def data(n=240, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    gains = {"good": 1.6, "fair": 0.9, "noise": 0.0}
    parts = [np.eye(n_classes, w)[y] * gains[k] + rng.normal(size=(n, w)) for k, w in WIDTHS.items()]
    return np.concatenate(parts, axis=1), y, np.arange(n) // 2


def reference_block(C=5.0):
    """What a backbone's own model is: scikit-learn on standardised columns of total variance one."""
    return make_pipeline(
        StandardScaler(),
        FunctionTransformer(lambda Z: Z / np.sqrt(Z.shape[1])),
        LogisticRegression(C=C, tol=1e-10, max_iter=9999),
    )


def parts_of(X):
    return np.split(X, np.cumsum(list(WIDTHS.values()))[:-1], axis=1)


@pytest.mark.parametrize("kind", DECISION)
def test_votes_and_probabilities_of_each_backbone_can_be_asked_for(kind):
    X, y, groups = data(n_classes=3)
    strategy = kind(make_blocks(WIDTHS)).fit(X, y, groups=groups)
    proba = strategy.block_proba(X)
    expected = np.stack([reference_block().fit(part, y).predict_proba(part) for part in parts_of(X)], axis=1)
    np.testing.assert_allclose(proba, expected, atol=1e-6)
    np.testing.assert_array_equal(strategy.votes(X), expected.argmax(axis=2))
    assert kind.level == "decision"


@pytest.mark.parametrize("n_classes", [2, 3])
def test_soft_vote_is_the_arithmetic_and_mean_logit_the_geometric_mean(n_classes):
    X, y, _ = data(n_classes=n_classes)
    soft, geometric = (kind(make_blocks(WIDTHS)).fit(X, y) for kind in (SoftVote, MeanLogit))
    np.testing.assert_allclose(soft.predict_proba(X), soft.block_proba(X).mean(axis=1), atol=1e-12)
    pooled = gmean(geometric.block_proba(X), axis=1)
    np.testing.assert_allclose(
        geometric.predict_proba(X), pooled / pooled.sum(axis=1, keepdims=True), atol=1e-12
    )


def test_stacking_is_what_scikit_learn_makes_of_cross_validated_logits():
    X, y, groups = data()
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    logits = np.stack(
        [
            cross_val_predict(reference_block(), part, y, groups=groups, cv=folds, method="decision_function")
            for part in parts_of(X)
        ],
        axis=1,
    )
    second = reference_block().fit(logits, y)
    whole = [reference_block().fit(part, y).decision_function(part) for part in parts_of(X)]
    ours = Stacking(make_blocks(WIDTHS)).fit(X, y, groups=groups).predict_proba(X)
    np.testing.assert_allclose(ours, second.predict_proba(np.stack(whole, axis=1)), atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_noise_weighs_less_and_is_left_out_by_ensemble_selection(n_classes):
    X, y, groups = data(n_classes=n_classes)
    vote = WeightedVote(make_blocks(WIDTHS)).fit(X, y, groups=groups)
    assert vote.weights_[0] > vote.weights_[1] > 3 * vote.weights_[2]
    picked = EnsembleSelection(make_blocks(WIDTHS)).fit(X, y, groups=groups)
    assert picked.weights_[2] < 0.05 < picked.weights_[1] < picked.weights_[0]
    for strategy in (vote, picked):
        expected = np.average(strategy.block_proba(X), axis=1, weights=strategy.weights_)
        np.testing.assert_allclose(strategy.predict_proba(X), expected, atol=1e-12)


def test_log_odds_weights_by_hand():
    weights = log_odds_weights(np.array([0.9, 0.75, 0.5, 0.2]), 2, 1000)
    np.testing.assert_allclose(weights, np.array([np.log(9), np.log(3), 0, 0]) / np.log(27))
    assert log_odds_weights(np.array([0.3, 0.2]), 3, 10).tolist() == [0.5, 0.5]
    assert np.isfinite(log_odds_weights(np.array([1.0, 0.6]), 2, 10)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 8))
def test_each_member_is_the_one_that_lowers_the_loss_most(seed, n_blocks, rounds):
    rng = np.random.default_rng(seed)
    y = np.concatenate([[0, 1], rng.integers(0, 2, 18)])
    proba = rng.dirichlet([1, 1], size=(20, n_blocks))
    of_truth = proba[np.arange(20), :, y]
    team, losses = [], []
    for _ in range(rounds):
        trials = [-np.log(of_truth[:, [*team, block]].mean(axis=1)).mean() for block in range(n_blocks)]
        team.append(int(np.argmin(trials)))
        losses.append(min(trials))
    best = next(size for size, loss in enumerate(losses, 1) if loss <= min(losses) + 1e-12)
    assert select_ensemble(of_truth, rounds) == team[:best]


def gompertz_as_published(confidence, top):
    """Equations 2 to 5 of Kundu et al. 2021, one number at a time: the class of the smallest final score."""
    n_blocks, n_classes = confidence.shape
    ranks, factors = [0.0] * n_classes, [0.0] * n_classes
    for block in confidence:
        best = sorted(range(n_classes), key=lambda c: -block[c])[:top]
        for c in range(n_classes):
            ranks[c] += 1 - exp(-exp(-2.0 * block[c])) if c in best else 1 - exp(-1)
            factors[c] += block[c] if c in best else 0.0
    return [rank * (1 - factor / n_blocks) for rank, factor in zip(ranks, factors, strict=True)]


@pytest.mark.parametrize("top", [1, 2, 3])
def test_gompertz_scores_are_the_published_ones_and_the_lowest_wins(top):
    proba = np.random.default_rng(0).dirichlet(np.ones(3), size=(40, 4))
    scores = fuzzy_score(proba, top)
    np.testing.assert_allclose(scores, [gompertz_as_published(row, top) for row in proba], atol=1e-12)
    X, y, _ = data(n_classes=3)
    fusion = GompertzRank(make_blocks(WIDTHS), top=top).fit(X, y)
    winners = fuzzy_score(fusion.block_proba(X), top).argmin(axis=1)
    np.testing.assert_array_equal(fusion.predict_proba(X).argmax(axis=1), winners)


def test_penalty_of_the_paper_is_the_rank_of_no_confidence():
    assert fuzzy_score(np.zeros((1, 1, 2)), 1)[0, 0] == pytest.approx(0.632, abs=2e-4)


def test_sugeno_measure_of_a_published_example():
    """Densities 0.3, 0.4 and 0.1 have lambda 1 and coalitions 0.82, 0.43 and 0.54 (Tizhoosh's tutorial, rounded)."""
    trusts = np.array([0.3, 0.4, 0.1])
    interaction = solve_lambda(trusts)
    assert interaction == pytest.approx(1.0, abs=0.02)
    pairs = [a + b + interaction * a * b for a, b in combinations(trusts, 2)]
    np.testing.assert_allclose(pairs, [0.82, 0.43, 0.54], atol=0.005)


@given(st.lists(st.floats(0.01, 0.95), min_size=2, max_size=6))
def test_sugeno_measure_of_everyone_is_one(densities):
    trusts = np.array(densities)
    interaction = solve_lambda(trusts)
    assert interaction > -1 - 1e-12
    reached = 0.0
    for trust in trusts:
        reached += trust + interaction * reached * trust
    assert reached == pytest.approx(1, abs=1e-6)


@given(st.integers(0, 10_000), st.floats(0.3, 3.0))
def test_sugeno_integral_is_the_best_coalition_of_all(seed, total):
    rng = np.random.default_rng(seed)
    trusts = np.minimum(total * rng.dirichlet(np.ones(4)), 0.95)
    interaction = solve_lambda(trusts)
    proba = rng.dirichlet(np.ones(3), size=(2, 4))

    def measure(coalition):
        reached = 0.0
        for block in coalition:
            reached += trusts[block] + interaction * reached * trusts[block]
        return reached

    coalitions = list(chain.from_iterable(combinations(range(4), size) for size in range(1, 5)))
    expected = [
        [max(min(row[list(team), c].min(), measure(team)) for team in coalitions) for c in range(3)]
        for row in proba
    ]
    np.testing.assert_allclose(integrate(proba, trusts, interaction), expected, atol=1e-9)


def test_sugeno_trusts_follow_the_inner_accuracies():
    X, y, groups = data()
    fusion = SugenoIntegral(make_blocks(WIDTHS)).fit(X, y, groups=groups)
    assert fusion.trusts_.sum() == pytest.approx(1)
    assert fusion.interaction_ == 0
    assert fusion.trusts_[0] > fusion.trusts_[1] > fusion.trusts_[2]
    assert SugenoIntegral(make_blocks(WIDTHS), total=2.0).fit(X, y).interaction_ < 0


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (WeightedVote, {"inner_folds": 1}),
        (GompertzRank, {"top": 0}),
        (SugenoIntegral, {"total": 0.0}),
        (EnsembleSelection, {"rounds": 0}),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(kind, wrong):
    X, y, _ = data(n=30)
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}="):
        kind(make_blocks(WIDTHS), **wrong).fit(X, y)


@given(st.integers(0, 50), st.integers(2, 40), st.integers(2, 40))
@settings(max_examples=40)
def test_decisions_that_are_the_reverse_of_the_truth_say_nothing(seed, ill, well):
    """Of two classes the slope of Platt scaling is never negative; then the targets' mean share is all there is."""
    y = np.repeat([0, 1], [well, ill])
    decisions = np.random.default_rng(seed).normal(size=(len(y), 1)) - 3.0 * y[:, None]
    slope, offset = scale_decisions(decisions, y)
    if slope[0, 0] == 0:
        targets = np.where(y == 1, (ill + 1) / (ill + 2), 1 / (well + 2))
        assert expit(offset[0]) == pytest.approx(targets.mean())
    turned, _ = scale_decisions(-decisions, y)
    assert slope[0, 0] >= 0
    assert max(slope[0, 0], turned[0, 0]) > 0
