"""The NumPy head against Keras itself, then what only the head promises."""

import importlib
import os

import numpy as np
import pytest

from featstore.errors import UsageError
from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.training import (
    RULES,
    SCHEDULES,
    DenseHead,
    Dropout,
    Optimiser,
    Trainer,
    TrainingConfig,
    TrainingRows,
    as_targets,
    plateau_factor,
    train,
)


def rows(n, d, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    X = np.abs(rng.normal(size=(n, d))).astype(np.float32)
    y = rng.permutation(np.arange(n) % n_classes)
    X[:, :n_classes] += 2 * np.eye(n_classes, dtype=np.float32)[y]
    return X, y


def generators(*seeds):
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def head_of(weights):
    head = DenseHead(weights.shape[1], weights.shape[0])
    head.dense.weights[:] = weights
    return head


def drawn(n_logits, width, seed=0):
    head = DenseHead(width, n_logits)
    head.initialise(np.random.default_rng(seed))
    return head


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return importlib.import_module("keras")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("n_classes", "gain"),
    [
        pytest.param(2, 1.0, id="sigmoid"),
        pytest.param(2, 60.0, id="sigmoid saturated at the start", marks=pytest.mark.slow),
        pytest.param(3, 1.0, id="softmax"),
        pytest.param(3, 60.0, id="softmax saturated at the start", marks=pytest.mark.slow),
    ],
)
def test_weights_and_curves_equal_those_of_keras(keras, n_classes, gain):
    """Same first weights, same batches (the last one short), four epochs; a saturated start tells logits from
    clipped probabilities, whose gradient is zero."""
    X, y = rows(45, 200, n_classes)
    X_new, y_new = rows(20, 200, n_classes, seed=1)
    targets, new_targets = as_targets(y, n_classes), as_targets(y_new, n_classes)
    head = drawn(targets.shape[1], X.shape[1])
    head.dense.weights *= gain
    first = head.dense.weights.copy()
    activation, loss = ("sigmoid", "binary") if n_classes == 2 else ("softmax", "categorical")
    layer = keras.layers.Dense(targets.shape[1], activation=activation)
    model = keras.Sequential([keras.Input((X.shape[1],)), layer])
    layer.set_weights([head.dense.weights.T, head.dense.bias])
    model.compile(keras.optimizers.Adam(1e-3), f"{loss}_crossentropy", metrics=["accuracy"])

    training_config = TrainingConfig(learning_rate=1e-3, batch_size=8, epochs=4)
    shuffle, again, masks = generators(5, 5, 6)
    ours = train(
        head, training_config, TrainingRows(X, targets), TrainingRows(X_new, new_targets), shuffle, masks
    )
    theirs = {key: [] for key in ours}
    for _ in range(training_config.epochs):
        order = again.permutation(len(X))
        epoch = model.fit(
            X[order],
            targets[order],
            batch_size=8,
            shuffle=False,
            verbose=0,
            validation_data=(X_new, new_targets),
        )
        for key in theirs:
            theirs[key] += epoch.history[key]

    weights, bias = layer.get_weights()
    assert np.abs(head.dense.weights - first).max() > 5e-3
    np.testing.assert_allclose(head.dense.weights, weights.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(head.dense.bias, bias, rtol=1e-6, atol=1e-6)
    for key, curve in ours.items():
        np.testing.assert_allclose(curve, theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_adam_follows_the_book():
    """Kingma & Ba 2015, section 2, in float64 and with the efficient form of the bias correction."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(50, 6)) * np.logspace(-4, 2, 6)
    expected, m, v = np.ones(6), np.zeros(6), np.zeros(6)
    parameters, adam = np.ones(6, np.float32), Optimiser("adam", 6)
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        adam.step(parameters, gradient.astype(np.float32), 0.01)
    np.testing.assert_allclose(parameters, expected, rtol=2e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate):
    X = np.ones((400, 501), np.float32)
    (rng,) = generators(0)
    head = head_of(np.full((1, 501), 1 / 501, np.float32))
    trainer = Trainer(head, TrainingConfig(learning_rate=1e-30, batch_size=7, epochs=1, dropout=rate), rng)
    logits = trainer.epoch(TrainingRows(X, np.zeros((400, 1), np.float32)), np.arange(400))[:, 0]
    kept = logits * (1 - rate) * 501
    np.testing.assert_allclose(kept, np.round(kept), atol=0.1)
    assert logits.mean() == pytest.approx(1, abs=4 * np.sqrt(rate / (1 - rate) / 501 / 400))
    assert logits.std() == pytest.approx(np.sqrt(rate / (1 - rate) / 501), rel=0.15)


def test_a_dropped_input_gets_no_gradient():
    (rng,) = generators(0)
    head = head_of(np.zeros((1, 1000), np.float32))
    training_config = TrainingConfig(learning_rate=1.0, batch_size=1, epochs=1, dropout=0.5)
    Trainer(head, training_config, rng).epoch(
        TrainingRows(np.ones((1, 1000), np.float32), np.ones((1, 1), np.float32)), np.arange(1)
    )
    moved = np.count_nonzero(head.dense.weights)
    assert 400 < moved < 600


def test_gradient_under_dropout_is_that_of_the_scaled_up_inputs(monkeypatch):
    """Looked at before Adam, which forgives a wrong scale."""
    X, y = rows(6, 300, 2)
    (rng,) = generators(0)
    head = drawn(1, 300)
    trainer = Trainer(head, TrainingConfig(learning_rate=1.0, batch_size=1, epochs=1, dropout=0.75), rng)
    seen = []
    monkeypatch.setattr(trainer.optimiser, "step", lambda _, gradient, __: seen.append(gradient.copy()))
    logits = trainer.epoch(TrainingRows(X, as_targets(y, 2)), np.arange(6))
    for x, label, logit, gradient in zip(X, y, logits[:, 0], seen, strict=True):
        inputs = np.where(gradient[:-1] != 0, 4 * x, 0)
        assert logit == pytest.approx(inputs @ head.dense.weights[0], abs=1e-4)
        slope = 1 / (1 + np.exp(-logit)) - label
        np.testing.assert_allclose(gradient, [*(slope * inputs), slope], rtol=1e-4)


def test_first_weights_are_glorot_uniform():
    head = drawn(3, 4000).dense
    limit = np.sqrt(6 / 4003)
    assert limit * 0.99 < np.abs(head.weights).max() <= limit
    assert head.weights.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert not head.bias.any()


def test_curves_have_one_number_per_epoch_and_the_loss_falls():
    X, y = rows(120, 30, 2)
    head = ConcatHead(epochs=12, validation_fraction=0.25).fit(X, y)
    assert {key: len(curve) for key, curve in head.history_.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy"), 12
    )
    assert head.history_["loss"][-1] < head.history_["loss"][0]
    assert head.history_["val_accuracy"][-1] > 0.8


def test_early_stopping_returns_to_the_best_epoch():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 400)), np.arange(60) % 2  # nothing to learn: validation soon gets worse
    head = ConcatHead(learning_rate=0.05, epochs=200, patience=4, validation_fraction=0.3).fit(X, y)
    curve = head.history_["val_loss"]
    best = int(np.argmin(curve))
    assert len(curve) == best + 1 + 4 < 200
    held = head.held_out_
    proba = head.predict_proba(X[held])[np.arange(held.sum()), y[held]]
    assert -np.log(proba).mean() == pytest.approx(curve[best], rel=1e-5)


def test_without_held_out_rows_the_validation_curves_are_empty():
    X, y = rows(30, 5, 2)
    head = ConcatHead(validation_fraction=0.0, epochs=3, patience=2).fit(X, y)
    assert len(head.history_["loss"]) == 3
    assert head.history_["val_loss"] == head.history_["val_accuracy"] == []
    assert not head.held_out_.any()


def test_all_views_of_a_patient_are_on_one_side():
    X, y = rows(200, 10, 2)
    patients = np.arange(200) // 8
    head = ConcatHead(epochs=1, validation_fraction=0.3).fit(X, y, groups=patients)
    sides = [set(head.held_out_[patients == patient]) for patient in range(25)]
    assert all(len(side) == 1 for side in sides)
    assert 0.2 < head.held_out_.mean() < 0.4


def test_scaling_is_learnt_from_training_rows_only():
    X, y = rows(80, 10, 2)
    held = ConcatHead(epochs=2).fit(X, y).held_out_
    spoilt = X.copy()
    spoilt[held] += 1000
    clean, other = ConcatHead(epochs=2).fit(X, y), ConcatHead(epochs=2).fit(spoilt, y)
    assert clean.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()


def test_seed_decides():
    X, y = rows(60, 10, 2)
    first, same, other = (ConcatHead(epochs=2, random_state=seed).fit(X, y) for seed in (1, 1, 2))
    assert first.history_ == same.history_
    assert first.history_ != other.history_


def test_the_papers_preset_is_the_papers():
    X, y = rows(40, 20, 2)
    assert ConcatHead.PRESETS["paper"] == {
        "dropout": 0.5,
        "learning_rate": 1e-5,
        "batch_size": 2,
        "epochs": 100,
        "validation_fraction": 0.4,
        "patience": None,
        "standardize": False,
    }
    head = ConcatHead(**ConcatHead.PRESETS["paper"]).fit(X, y)
    assert len(head.history_["val_loss"]) == 100
    assert head.held_out_.sum() == 16
    assert not head.mean_.any()
    assert (head.scale_ == 1).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"learning_rate": 0.0},
        {"batch_size": 0},
        {"epochs": 0},
        {"validation_fraction": 1.0},
        {"patience": 0},
        {"optimizer": "lion"},
        {"schedule": "linear"},
        {"class_weight": "fair"},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_by_name(wrong):
    X, y = rows(20, 5, 2)
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}=.* is out of range"):
        ConcatHead(**wrong).fit(X, y)


KERAS = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nag": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", RULES)
def test_every_optimiser_moves_as_its_namesake_in_keras(keras, name):
    """Forty steps on the same gradients, small and large."""
    rng = np.random.default_rng(0)
    gradients = (rng.normal(size=(40, 50)) * np.logspace(-3, 1, 50)).astype(np.float32)
    kind, options = KERAS[name]
    theirs = getattr(keras.optimizers, kind)(learning_rate=1e-3, **options)
    variable = keras.Variable(np.ones(50, np.float32))
    theirs.build([variable])
    parameters, ours = np.ones(50, np.float32), Optimiser(name, 50)
    for gradient in gradients:
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        ours.step(parameters, gradient, 1e-3)
    assert np.abs(parameters - 1).max() > 1e-5
    np.testing.assert_allclose(parameters, variable.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("default")
def test_schedules_are_those_of_keras(keras):
    from_keras = keras.optimizers.schedules
    theirs = {
        "cosine": from_keras.CosineDecay(1.0, 200),
        "exponential": from_keras.ExponentialDecay(1.0, 200, 0.01),
        "piecewise_constant": from_keras.PiecewiseConstantDecay([99, 149], [1.0, 0.1, 0.01]),
    }
    for name, schedule in theirs.items():
        for step in (0, 1, 50, 99, 100, 149, 150, 199):
            assert SCHEDULES[name](step / 200) == pytest.approx(float(schedule(step)), rel=1e-4, abs=1e-6), (
                name
            )


def test_a_plateau_lowers_the_rate_to_a_tenth_after_ten_epochs():
    falling = [1.0, 0.9, 0.8]
    assert plateau_factor([*falling, *[0.8] * 9]) == 1
    assert plateau_factor([*falling, *[0.8] * 10]) == pytest.approx(0.1)
    assert plateau_factor([*falling, *[0.8] * 20]) == pytest.approx(0.01)
    assert plateau_factor([*falling, *[0.8] * 9, 0.7, *[0.7] * 9]) == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_head_learns_by_every_schedule(schedule):
    X, y = rows(200, 30, 2)
    head = ConcatHead(schedule=schedule).fit(X, y)
    assert head.score(X, y) > 0.85


def test_balanced_class_weights_equal_rows_repeated():
    """Three rows of one class and one of the other, full batch: a weight is a repetition."""
    X, y = rows(12, 20, 2)
    X, y = X[np.argsort(y)][:8], np.array([0] * 6 + [1] * 2)
    repeated = np.r_[0:6, [6] * 3, [7] * 3]
    options = {
        "batch_size": None,
        "dropout": 0,
        "validation_fraction": 0,
        "standardize": False,
        "optimizer": "sgd",
    }
    weighted = ConcatHead(class_weight="balanced", **options).fit(X, y)
    by_dict = ConcatHead(class_weight={"0": 2 / 3, 1: 2.0}, **options).fit(X, y)
    plain = ConcatHead(**options).fit(X[repeated], y[repeated])
    np.testing.assert_allclose(weighted.parameters_, plain.parameters_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weighted.parameters_, by_dict.parameters_, rtol=1e-5)
    unweighted = ConcatHead(**options).fit(X, y)
    assert np.abs(unweighted.parameters_ - plain.parameters_).max() > 1e-3


def test_masks_of_neighbouring_columns_and_rows_know_nothing_of_each_other():
    (rng,) = generators(0)
    rate, shape = 0.3, (2000, 1501)
    mask = np.empty(shape, np.float32)
    dropout = Dropout(rate, shape[1], rng)
    rows_of_ones = np.zeros(shape[0], np.intp)
    dropout.pick(np.ones((1, shape[1]), np.float32), rows_of_ones, dropout.keys(shape[0]), mask)
    noise = (mask - (1 - rate)) / np.sqrt(rate * (1 - rate))
    for lag in (1, 2, 7, 64, 750, 751):
        assert abs((noise[:, lag:] * noise[:, :-lag]).mean()) < 4 / np.sqrt(mask.size)
        assert abs((noise[lag:] * noise[:-lag]).mean()) < 4 / np.sqrt(mask.size)
    for axis in (0, 1):
        assert noise.mean(axis).std() == pytest.approx(shape[axis] ** -0.5, rel=0.1)
