"""The networks with hidden layers: gradients by hand against differences, answers against Keras, and their gates."""

import importlib
import os

import numpy as np
import pytest

from featstore.errors import UsageError
from featstore.fusion.strategies.attention_pooling import AttentionOverImages, AttentionPooling
from featstore.fusion.strategies.bilinear_head import BilinearHead, LowRankBilinear
from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.strategies.concat_mlp import ConcatMlp, Perceptron
from featstore.fusion.strategies.gated_head import GatedAttention, GatedHead
from featstore.fusion.training import (
    DenseHead,
    TrainingConfig,
    TrainingRows,
    activate,
    as_targets,
    cross_entropy,
    train,
)
from featstore.types import make_blocks

BLOCKS = make_blocks({"a": 7, "b": 4, "c": 2})
WIDTH = 13


def networks(n_logits, dtype=np.float64):
    return [
        DenseHead(WIDTH, n_logits, dtype),
        Perceptron((WIDTH, 5, n_logits), len(BLOCKS), dtype),
        GatedAttention(BLOCKS, 5, n_logits, dtype),
        LowRankBilinear(BLOCKS, 5, n_logits, dtype),
        AttentionOverImages(WIDTH, len(BLOCKS), 5, n_logits, dtype),
    ]


IDS = ["head", "mlp", "gated", "bilinear", "attention"]


def problem(n_logits, n=9):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, WIDTH))
    return X, as_targets(np.arange(n) % max(n_logits, 2), max(n_logits, 2))


@pytest.mark.parametrize("n_logits", [1, 3])
@pytest.mark.parametrize("which", range(5), ids=IDS)
def test_gradient_is_the_slope_of_the_loss(which, n_logits):
    """Central differences in float64, every parameter, with the gain of dropout."""
    network = networks(n_logits)[which]
    network.initialise(np.random.default_rng(0))
    X, targets = problem(n_logits)
    logits = network.forward(X, 1.7)
    network.backward((activate(logits) - targets) / len(X))
    for i in range(len(network.parameters)):
        losses = []
        for step in (1e-6, -2e-6):
            network.parameters[i] += step
            losses.append(cross_entropy(network.forward(X, 1.7), targets).mean())
        network.parameters[i] += 1e-6
        assert network.gradient[i] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-8, rel=1e-5)


@pytest.mark.parametrize("n_logits", [1, 3])
def test_gradient_over_bags_is_the_slope_of_the_loss(n_logits):
    """Three patients of four, one and four images; every parameter, the attention's among them."""
    network = networks(n_logits)[IDS.index("attention")]
    network.parameters[:] = np.random.default_rng(0).normal(size=len(network.parameters))
    X, heads = problem(n_logits)[0], np.array([0, 4, 5])
    targets = problem(n_logits, 3)[1]
    logits = network.forward_bags(X, heads, 1.7)
    network.backward((activate(logits) - targets) / 3)
    for i in range(len(network.parameters)):
        losses = []
        for step in (1e-6, -2e-6):
            network.parameters[i] += step
            losses.append(cross_entropy(network.forward_bags(X, heads, 1.7), targets).mean())
        network.parameters[i] += 1e-6
        assert network.gradient[i] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-8, rel=1e-5)


@pytest.mark.parametrize("which", range(5), ids=IDS)
def test_frozen_columns_stay_and_all_others_move(which):
    network = networks(1, np.float32)[which]
    network.initialise(np.random.default_rng(0))
    before = network.parameters.copy()
    X, targets = problem(1)
    rngs = [np.random.default_rng(seed) for seed in (0, 1)]
    bags = np.arange(len(X)) // 3 if IDS[which] == "attention" else None
    data = TrainingRows(X.astype(np.float32), targets, bags=bags)
    train(
        network,
        TrainingConfig(1e-2, 3, 5),
        data,
        TrainingRows(data.X[:0], targets[:0]),
        *rngs,
        [slice(7, 11)],
    )
    network.gradient[:] = 0
    network.input_weight_gradient(slice(7, 11))[:] = 1
    stayed = network.gradient == 1
    assert stayed.any()
    np.testing.assert_array_equal(network.parameters[stayed], before[stayed])
    assert (network.parameters[~stayed] != before[~stayed]).mean() > 0.8


@pytest.mark.filterwarnings("default")
def test_perceptron_trains_as_in_keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = importlib.import_module("keras")
    network = Perceptron((WIDTH, 5, 1), len(BLOCKS), np.float32)
    network.initialise(np.random.default_rng(0))
    layers = [keras.layers.Dense(5, activation="relu"), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    for layer, dense in zip(layers, (network.hidden, network.output), strict=True):
        layer.set_weights([dense.weights.T, dense.bias])
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    X, targets = problem(1, n=40)
    X = X.astype(np.float32)
    order = np.random.default_rng(3).permutation(40)
    data, none = TrainingRows(X, targets), TrainingRows(X[:0], targets[:0])
    train(network, TrainingConfig(1e-3, 8, 1), data, none, np.random.default_rng(3), np.random.default_rng(0))
    model.fit(X[order], targets[order], batch_size=8, shuffle=False, verbose=0)
    for layer, dense in zip(layers, (network.hidden, network.output), strict=True):
        np.testing.assert_allclose(dense.weights.T, layer.get_weights()[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dense.bias, layer.get_weights()[1], rtol=1e-5, atol=1e-6)


def test_the_gate_follows_the_backbone_that_knows():
    """Each row carries its class in one of two blocks, and that block is the louder one."""
    rng = np.random.default_rng(0)
    y, owner = np.arange(600) % 2, rng.integers(0, 2, 600)
    X = rng.normal(size=(600, 2, 8)) * 0.1
    X[np.arange(600), owner, 0] = 3
    X[np.arange(600), owner, 1] += 2 * y - 1
    X[np.arange(600), 1 - owner, 1] += 2 * rng.integers(0, 2, 600) - 1
    head = GatedHead(make_blocks({"a": 8, "b": 8}), dropout=0.0, epochs=60).fit(
        X[:400].reshape(400, 16), y[:400]
    )
    gates = head.attention(X[400:].reshape(200, 16))
    np.testing.assert_allclose(gates.sum(axis=1), 1, atol=1e-12)
    assert (gates.argmax(axis=1) == owner[400:]).mean() > 0.9
    assert head.score(X[400:].reshape(200, 16), y[400:]) > 0.9


def test_bilinear_learns_what_two_backbones_know_only_together():
    rng = np.random.default_rng(0)
    X = rng.choice([-1.0, 1.0], size=(600, 2)) + rng.normal(size=(600, 2)) * 0.1
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    head = BilinearHead(make_blocks({"a": 1, "b": 1}), dropout=0.0, epochs=60).fit(X[:400], y[:400])
    assert head.score(X[400:], y[400:]) > 0.95


def shifted(n=300, seed=0):
    """Rows whose first block carries the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, WIDTH))
    X[:, 0] += 2 * y
    return X, y


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ConcatHead, ConcatMlp, GatedHead, BilinearHead, AttentionPooling])
def test_fine_tuning_goes_on_where_the_earlier_fit_stopped(kind):
    X, y = shifted()
    earlier = kind(BLOCKS).fit(X, y)
    hardly = kind(BLOCKS, learning_rate=1e-9, epochs=1).fine_tune(earlier, X + 5, y)
    np.testing.assert_allclose(hardly.predict_proba(X), earlier.predict_proba(X), atol=1e-5)
    turned = kind(BLOCKS, epochs=200, learning_rate=0.05).fine_tune(earlier, X, 1 - y)
    assert turned.score(X, 1 - y) > 0.75


@pytest.mark.parametrize("kind", [ConcatHead, ConcatMlp, GatedHead, BilinearHead, AttentionPooling])
def test_fine_tuning_takes_a_tenth_of_the_earlier_rate_and_keeps_frozen_blocks(kind):
    """Plain gradient descent for one full-batch step moves ten times less than it would at the earlier rate."""
    X, y = shifted()
    earlier = kind(BLOCKS, learning_rate=0.1, epochs=2).fit(X, y)
    options = {"optimizer": "sgd", "batch_size": None, "epochs": 1, "dropout": 0.0}
    moves = {}
    for rate in (None, 0.1):
        later = kind(BLOCKS, learning_rate=rate, **options).fine_tune(earlier, X, y, freeze=["b"])
        moves[rate] = later.parameters_ - earlier.parameters_
    moved = np.abs(moves[0.1]) > 1e-5
    assert moved.any()
    np.testing.assert_allclose(moves[None][moved], moves[0.1][moved] / 10, rtol=0.1)
    if kind is ConcatHead:
        assert not moves[0.1][7:11].any()


def test_earlier_weights_of_another_meaning_are_refused():
    X, y = shifted(60)
    earlier = ConcatHead(BLOCKS, epochs=1).fit(X, y)
    with pytest.raises(UsageError, match="earlier model is ConcatHead, this one ConcatMlp"):
        ConcatMlp(BLOCKS).fine_tune(earlier, X, y)
    with pytest.raises(UsageError, match=r"reads the blocks a\(7\)\+b\(4\)\+c\(2\), this one b\(7\)"):
        ConcatHead(make_blocks({"b": 7, "a": 4, "c": 2})).fine_tune(earlier, X, y)
    with pytest.raises(UsageError, match=r"classes \[0, 1\], these rows \[1, 2\]"):
        ConcatHead(BLOCKS).fine_tune(earlier, X, y + 1)
    with pytest.raises(UsageError, match="no block z to freeze"):
        ConcatHead(BLOCKS).fine_tune(earlier, X, y, freeze=["z"])
    with pytest.raises(UsageError, match="another number of units"):
        ConcatMlp(BLOCKS, units=3).fine_tune(ConcatMlp(BLOCKS, epochs=1).fit(X, y), X, y)


@pytest.mark.parametrize("kind", [ConcatMlp, GatedHead, BilinearHead, AttentionPooling])
def test_units_out_of_range_are_refused(kind):
    with pytest.raises(UsageError, match="units=0 is out of range"):
        kind(units=0).fit(np.eye(4), [0, 1, 0, 1])
