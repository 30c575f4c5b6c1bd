"""Our arrays against scikit-learn's pipeline, which knows nothing of Gram matrices or chunks."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from featstore.fusion.linear import LinearModel, probabilities, rescale, standardise
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.types import make_blocks


def gap_like(n, widths, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    width = sum(widths.values())
    latent = rng.normal(size=(n, 12))
    latent[:, :n_classes] += np.eye(n_classes)[y]
    X = np.maximum(latent @ rng.normal(size=(12, width)) / 3 + rng.normal(size=(n, width)), 0)
    return (X * rng.lognormal(size=width)).astype(np.float32), y


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("n", "widths"),
    [(120, {"a": 20, "b": 5}), (60, {"a": 200, "b": 30}), (40, {"a": 39}), (40, {"a": 40}), (80, {"a": 900})],
    ids=["tall", "wide", "one short of square", "square", "very wide"],
)
def test_concat_logreg_equals_scikit_learn_on_weighted_standardised_columns(n, widths, n_classes):
    X, y = gap_like(n, widths, n_classes)
    new, _ = gap_like(50, widths, n_classes, seed=1)
    weights = np.concatenate([np.full(width, width**-0.5) for width in widths.values()])
    reference = make_pipeline(
        StandardScaler(),
        FunctionTransformer(lambda Z: Z * weights),
        LogisticRegression(C=5.0, tol=1e-10, max_iter=9999),
    ).fit(X.astype(np.float64), y)
    ours = ConcatLogreg(make_blocks(widths), C=5.0).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(new), reference.predict_proba(new), atol=1e-6)
    np.testing.assert_allclose(ours.model_.coef, reference[-1].coef_, atol=1e-5)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_wide_solution_is_a_stationary_point_of_the_penalised_likelihood(C):
    X, y = gap_like(50, {"a": 300, "b": 40})
    model = ConcatLogreg(make_blocks({"a": 300, "b": 40}), C=C).fit(X, y).model_
    Z = (X - model.mean) * model.scale
    slope = y - expit(Z @ model.coef[0] + model.intercept[0])
    np.testing.assert_allclose(C * slope @ Z, model.coef[0], atol=1e-6 * max(C, 1))
    assert abs(slope.sum()) < 1e-5


def test_every_block_has_the_same_total_variance_whatever_its_width():
    widths = {"NASNetLarge": 4032, "VGG19": 512, "narrow": 3}
    X, _ = gap_like(30, widths)
    mean, scale = standardise(X, make_blocks(widths))
    variances = ((X - mean) * scale).var(axis=0)
    edges = np.cumsum(list(widths.values()))[:-1]
    np.testing.assert_allclose([part.sum() for part in np.split(variances, edges)], 1.0, rtol=1e-6)


def test_a_duplicated_row_set_does_not_break_the_gram_matrix():
    X, y = gap_like(30, {"a": 500})
    twice = ConcatLogreg(C=1.0).fit(np.tile(X, (3, 1)), np.tile(y, 3)).predict_proba(X)
    thrice_the_weight = ConcatLogreg(C=3.0).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(twice, thrice_the_weight, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 1.0], ids=["constant", "rounding noise"])
def test_a_column_without_signal_is_silenced(noise):
    X = np.full((50, 2), 1000.0, np.float32)
    X[:, 0] = np.arange(50)
    X[::2, 1] += np.float32(noise * np.spacing(np.float32(1000)))
    assert standardise(X, make_blocks({"a": 2}))[1][1] == 0.0


def test_a_small_but_real_spread_is_kept():
    X = np.random.default_rng(0).normal(1.0, 1e-4, (50, 1)).astype(np.float32)
    assert standardise(X, make_blocks({"a": 1}))[1][0] == pytest.approx(1 / X.std(dtype=float))


def test_decision_does_not_depend_on_how_rows_are_chunked():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 9))
    model = LinearModel(rng.normal(size=(3, 9)), rng.normal(size=3), rng.normal(size=9), rng.random(9))
    expected = ((X - model.mean) * model.scale) @ model.coef.T + model.intercept
    np.testing.assert_allclose(model.decision(X), expected, atol=1e-12)
    np.testing.assert_allclose(model.proba(X), softmax(expected, axis=1), atol=1e-12)
    np.testing.assert_allclose(rescale(X, model.mean, model.scale), (X - model.mean) * model.scale, rtol=1e-6)


def test_two_class_probability_is_the_sigmoid_even_far_out():
    logits = np.array([[-800.0], [-40.0], [0.0], [3.0], [800.0]])
    np.testing.assert_allclose(probabilities(logits)[:, 1], expit(logits[:, 0]), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intercept": np.zeros(2)}, "intercept has shape"),
        ({"mean": np.zeros(4)}, "mean has shape"),
        ({"scale": np.zeros((1, 3))}, "scale has shape"),
        ({"coef": np.full((1, 3), np.inf)}, "finite float64"),
        ({"coef": np.zeros((1, 3), np.float32)}, "finite float64"),
    ],
)
def test_arrays_that_do_not_belong_together_make_no_model(change, message):
    parts = {"coef": np.zeros((1, 3)), "intercept": np.zeros(1), "mean": np.zeros(3), "scale": np.ones(3)}
    with pytest.raises(ValueError, match=message):
        LinearModel(**{**parts, **change})
