"""Ridge regression that leaves out every patient in closed form, against fitting again without each."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import roc_auc_score

from featstore.errors import UsageError
from featstore.fusion.linear import scaled_block, standardise
from featstore.fusion.strategies.ridge_loo import PENALTIES, RidgeLoo, Spectrum, centred_gram, left_out
from featstore.fusion.strategy import SubsetStrategy
from featstore.types import make_blocks

SAME = 1e-10
WIDTHS = {"a": 30, "b": 8, "noise": 60}
BLOCKS = make_blocks(WIDTHS)


def refitted(Z, targets, groups, penalty, solver="svd"):
    """Every group left out by fitting to the others."""
    predicted = np.empty_like(targets)
    for group in np.unique(groups):
        out = groups == group
        model = Ridge(penalty, solver=solver).fit(Z[~out], targets[~out])
        predicted[out] = model.predict(Z[out]).reshape(out.sum(), -1)
    return predicted


def both(Z):
    """The same regression in n dimensions and, where that is fewer, in d."""
    return Spectrum.of_gram(centred_gram(Z)), Spectrum.of_columns(Z)


def cohort(n=90, n_classes=2, seed=0, widths=WIDTHS):
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 3
    y = groups % n_classes
    X = rng.normal(size=(n, sum(widths.values()))) + rng.normal(size=(n // 3, 1))[groups]
    start = 0
    for name, width in widths.items():
        if name != "noise":
            X[:, start : start + width] += 0.5 * rng.normal(size=(n_classes, width))[y]
        start += width
    return X.astype(np.float32), y, groups


def weighed(X, blocks):
    moments = standardise(X, blocks)
    return np.concatenate([scaled_block(X, block, *moments) for block in blocks], axis=1)


@given(
    sizes=st.lists(st.integers(1, 25), min_size=2, max_size=8),
    width=st.integers(1, 60),
    copies=st.integers(0, 5),
    n_targets=st.integers(1, 3),
    penalty=st.sampled_from([PENALTIES[-1], 1.0, PENALTIES[0]]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_leaving_a_group_out_in_closed_form_is_fitting_again(sizes, width, copies, n_targets, penalty, seed):
    """Fewer rows than columns and more, groups of any sizes in any order, rows that are there twice."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    Z = rng.normal(size=(len(groups), width)) + rng.normal(size=width)
    Z[:copies] = Z[-1]
    targets = rng.normal(size=(len(groups), n_targets))
    expected = refitted(Z, targets, groups, penalty)
    for spectrum in both(Z):
        np.testing.assert_allclose(
            left_out(spectrum, targets, groups, (7.0, penalty))[1], expected, rtol=0, atol=SAME
        )


@pytest.mark.parametrize("largest", [5, 16, 17, 80, 99])
def test_a_patient_who_is_nearly_all_of_the_cohort_can_be_left_out(largest):
    rng = np.random.default_rng(0)
    groups = np.maximum(np.arange(100) - largest + 1, 0)
    Z, targets = rng.normal(size=(100, 40)), rng.normal(size=(100, 1))
    for spectrum in both(Z):
        np.testing.assert_allclose(
            left_out(spectrum, targets, groups, [0.5])[0], refitted(Z, targets, groups, 0.5), atol=SAME
        )


def test_where_every_row_is_a_group_it_is_what_ridge_cv_finds():
    X, y, _ = cohort()
    Z = weighed(X, BLOCKS)
    targets = np.where(y == 1, 1.0, -1.0)
    theirs = RidgeCV(PENALTIES, store_cv_results=True).fit(Z, targets)
    ours = left_out(Spectrum.of_gram(centred_gram(Z)), targets[:, None], np.arange(len(y)), PENALTIES)
    np.testing.assert_allclose((ours[:, :, 0] - targets).T ** 2, theirs.cv_results_, atol=1e-9)
    assert RidgeLoo(BLOCKS).fit(X, y).penalty_ == theirs.alpha_


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("widths", [WIDTHS, {"a": 10, "b": 4}], ids=["more columns", "more rows"])
def test_the_penalty_is_the_best_for_patients_left_out_by_fitting_again(n_classes, widths):
    X, y, groups = cohort(45, n_classes, widths=widths)
    blocks = make_blocks(widths)
    Z = weighed(X, blocks)
    targets = np.eye(n_classes)[y]
    targets = 2 * targets[:, 1:] - 1 if n_classes == 2 else targets

    def error(penalty):
        return ((refitted(Z, targets, groups, penalty, "cholesky") - targets) ** 2).sum()

    fitted = RidgeLoo(blocks).fit(X, y, groups=groups)
    assert fitted.penalty_ == min(PENALTIES, key=error)
    direction = np.atleast_2d(Ridge(fitted.penalty_).fit(Z, targets).coef_)
    if n_classes == 2:
        assert np.corrcoef(direction, fitted.model_.coef)[0, 1] > 1 - 1e-12


@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_subset_together_is_the_one_fitted_alone(n_classes):
    X, y, groups = cohort(n_classes=n_classes)
    strategy = RidgeLoo(BLOCKS)
    assert isinstance(strategy, SubsetStrategy)
    subsets = [s for size in (1, 2, 3) for s in itertools.combinations(WIDTHS, size)]
    together = strategy.fit_subsets(X, y, subsets, groups).predict_proba(X)
    for subset, proba in zip(subsets, together, strict=True):
        columns = np.concatenate([np.arange(b.start, b.stop) for b in BLOCKS if b.name in subset])
        alone = RidgeLoo(make_blocks({name: WIDTHS[name] for name in subset}))
        alone.fit(X[:, columns], y, groups=groups)
        np.testing.assert_allclose(proba, alone.predict_proba(X[:, columns]), atol=1e-8)


def test_backbones_are_chosen_by_the_same_predictions():
    X, y, groups = cohort(n=150)
    X[:, BLOCKS[2].start :] = np.random.default_rng(1).normal(size=(150, WIDTHS["noise"]))
    chosen = RidgeLoo(BLOCKS, choose_blocks=True).fit(X, y, groups=groups)
    targets = np.where(y == 1, 1.0, -1.0)[:, None]

    def error(subset):
        parts = [b for b in BLOCKS if b.name in subset]
        moments = standardise(X, BLOCKS)
        Z = np.concatenate([scaled_block(X, block, *moments) for block in parts], axis=1)
        predicted = left_out(Spectrum.of_columns(Z), targets, groups, PENALTIES)
        return ((predicted - targets) ** 2).mean(axis=(1, 2)).min()

    subsets = [s for size in (1, 2, 3) for s in itertools.combinations(WIDTHS, size)]
    assert chosen.chosen_ == min(subsets, key=error)
    assert "noise" not in chosen.chosen_
    assert not chosen.model_.coef[:, BLOCKS[2].start :].any()


def test_patients_left_out_do_not_turn_the_answer_round_where_features_say_little():
    """Left out of a balanced cohort, a patient pulls the mean of the others the other way (Airola et al. 2011)."""
    turned = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = np.arange(40) % 2
        X = rng.normal(size=(40, 10)) + 0.35 * y[:, None]
        turned += roc_auc_score(y, RidgeLoo(penalty=1000.0).fit(X, y).predict_proba(X)[:, 1]) < 0.5
    assert turned == 0


def test_a_single_patient_cannot_be_left_out_and_a_default_stands():
    X, y, _ = cohort()
    y = np.arange(len(y)) % 2
    assert RidgeLoo(BLOCKS).fit(X, y, groups=np.zeros(len(y), int)).penalty_ == 1.0


@pytest.mark.parametrize("penalty", ["best", 0, -1.0, np.inf, np.nan])
def test_a_penalty_that_cannot_be_meant_is_refused(penalty):
    X, y, groups = cohort()
    with pytest.raises(UsageError, match="out of range"):
        RidgeLoo(BLOCKS, penalty=penalty).fit(X, y, groups=groups)


def test_too_many_backbones_to_choose_from_are_refused():
    X, y, groups = cohort(widths=dict.fromkeys("abcdefghi", 2))
    with pytest.raises(UsageError, match="9 backbones have too many subsets"):
        RidgeLoo(make_blocks(dict.fromkeys("abcdefghi", 2)), choose_blocks=True).fit(X, y, groups=groups)
