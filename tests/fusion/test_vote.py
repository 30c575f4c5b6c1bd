"""Votes counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategies.vote_backbones import VoteBackbones, majority
from featstore.types import make_blocks

BY_HAND = {
    "two against one: the third's 0.99 does not count": (
        [[0.6, 0.4], [0.7, 0.3], [0.01, 0.99]],
        [0.65, 0.35],
    ),
    "unanimous: plain mean": ([[0.6, 0.4], [0.8, 0.2]], [0.7, 0.3]),
    "one each: higher mean over all wins": ([[0.9, 0.1], [0.4, 0.6]], [0.9, 0.1]),
    "one each, other way": ([[0.6, 0.4], [0.1, 0.9]], [0.1, 0.9]),
    "dead level: first class": ([[0.7, 0.3], [0.3, 0.7]], [0.7, 0.3]),
    "all undecided: first class": ([[0.5, 0.5], [0.5, 0.5]], [0.5, 0.5]),
    "three classes, plurality": (
        [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]],
        [0.45, 0.3, 0.25],
    ),
    "level votes; the class with the highest mean has fewer": (
        [[0.50, 0.49, 0.01], [0.50, 0.49, 0.01], [0.01, 0.49, 0.50], [0.01, 0.48, 0.51], [0.0, 1.0, 0.0]],
        [0.01, 0.485, 0.505],
    ),
}


@pytest.mark.parametrize(("ballots", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_election_by_hand(ballots, expected):
    np.testing.assert_allclose(majority(np.array([ballots]))[0], expected, atol=1e-12)


@st.composite
def ballots(draw):
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(2, 4)))
    # Few distinct values, so that ties are common.
    raw = draw(arrays(np.float64, shape, elements=st.sampled_from([0.1, 0.2, 0.3, 0.7])))
    return raw / raw.sum(axis=2, keepdims=True)


@given(ballots())
def test_peak_of_the_probability_is_a_class_with_most_votes(block_proba):
    proba = majority(block_proba)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    for row, voters in zip(proba, block_proba, strict=True):
        counts = np.bincount(voters.argmax(axis=1), minlength=len(row))
        peaks = np.flatnonzero(row >= row.max() - 1e-12)
        assert counts[peaks].max() == counts.max()
        leaders = np.flatnonzero(counts == counts.max())
        means = voters.mean(axis=0)
        assert means[peaks].max() >= means[leaders].max() - 1e-12


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 4))
def test_order_of_voters_does_not_matter(seed, n_voters, n_classes):
    rng = np.random.default_rng(seed)
    block_proba = rng.dirichlet(np.ones(n_classes), size=(5, n_voters))
    shuffled = block_proba[:, rng.permutation(n_voters)]
    np.testing.assert_allclose(majority(shuffled), majority(block_proba), atol=1e-12)


def data(n=60):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    parts = [
        np.eye(3, width)[y] * gain + rng.normal(size=(n, width)) for width, gain in ((8, 3), (5, 2), (4, 0.1))
    ]
    return np.concatenate(parts, axis=1), np.array(["a", "b", "c"])[y]


def test_each_backbone_is_a_logistic_regression_on_its_own_columns():
    X, y = data()
    widths = {"good": 8, "fair": 5, "poor": 4}
    vote = VoteBackbones(make_blocks(widths), C=2.0).fit(X, y)
    proba = vote.block_proba(X)
    assert proba.shape == (60, 3, 3)
    for i, block in enumerate(make_blocks(widths)):
        alone = ConcatLogreg(C=2.0).fit(X[:, block.start : block.stop], y)
        assert proba[:, i].tobytes() == alone.predict_proba(X[:, block.start : block.stop]).tobytes()


def test_votes_are_class_numbers_and_elect_the_prediction():
    X, y = data()
    vote = VoteBackbones(make_blocks({"good": 8, "fair": 5, "poor": 4})).fit(X, y)
    votes = vote.votes(X)
    assert votes.shape == (60, 3)
    counts = np.apply_along_axis(np.bincount, 1, votes, minlength=3)
    clear = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert 0 < clear.sum() < len(clear)
    np.testing.assert_array_equal(vote.predict(X)[clear], vote.classes_[counts.argmax(axis=1)][clear])


def test_a_vote_of_one_is_that_backbone():
    X, y = data()
    assert VoteBackbones.min_blocks == 2
    vote, alone = VoteBackbones().fit(X, y), ConcatLogreg().fit(X, y)
    np.testing.assert_allclose(vote.predict_proba(X), alone.predict_proba(X), atol=1e-15)
