"""A folded network computes what its Keras network computes, and what cannot be folded is left alone."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from featstore.backbones import catalog
from featstore.backbones.folding import fold
from featstore.backbones.frozen_layers import Convolution, Rectifier
from featstore.backbones.network import build
from featstore.backbones.weights import resolve_weights

layers = keras.layers
# One for each thing that there is to fold; the slow tests run all rows.
FAMILIES = {"DenseNet121", "ResNet50V2", "Xception", "MobileNetV3Small", "EfficientNetLite0", "MobileNet025"}


def randomise(network, seed=3, spread=1.0):
    """Give every batch norm statistics away from the identity: fresh ones would hide a wrong fold.

    A hundred layers of gains drawn from a wide range multiply rounding errors to the size of the features (in
    EfficientNetV2S float32 and float64 of the unfolded network differ by 76 %): deep networks need less spread.
    """
    rng = np.random.default_rng(seed)
    for layer in network._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                positive = variable.name in {"gamma", "moving_variance"}
                low, high = 1 - 0.5 * spread, 1 + 0.5 * spread
                shape = variable.shape
                drawn = rng.uniform(low, high, shape) if positive else rng.normal(0, 0.3 * spread, shape)
                variable.assign(drawn)
    return network


def difference(a, b):
    a, b = a.numpy(), b.numpy()
    return np.abs(a - b).max() / np.abs(b).max()


def in_float64(network):
    """The unfolded network with the same weights, computed in double precision."""

    def widen(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    twin = keras.models.clone_model(network, clone_function=widen)
    twin.set_weights(network.get_weights())
    assert {v.dtype for v in twin.variables} <= {"float64", "int64", "uint32"}
    return twin


def as_deep_as_float32_goes(network, images):
    """The network, cut where rounding has not yet outgrown the features; its output, and the exact one."""
    while True:
        # As a graph: called eagerly, Keras keeps the activations of all layers, 4 GB of them in EfficientNetV2L.
        expected, exact = (tf.function(n, autograph=False)(images) for n in (network, in_float64(network)))
        if difference(expected, exact) < 1e-3:
            return network, expected, exact
        middle = network.layers[len(network.layers) // 2]
        assert len(network.layers) > 40, "nothing is left to compare"
        network = keras.Model(network.input, middle.output)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


def cost(name):
    return () if name in FAMILIES else pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(n, marks=cost(n)) for n in catalog.names()])
def test_a_folded_row_of_the_catalogue_equals_its_keras_network(name):
    """Random statistics amplify rounding in the deepest networks, folded or not: there float64 is the judge."""
    row = catalog.row(name)
    spread = 1.0 if name in FAMILIES else 0.2
    network = randomise(build(row, resolve_weights(row, "random:1"), "official"), spread=spread)
    images = noise(1, row.input_size, row.input_size, 3)
    expected = tf.function(network, autograph=False)(images)

    folded = fold(network)

    if difference(tf.function(folded, autograph=False)(images), expected) >= 1e-5:
        network, expected, exact = as_deep_as_float32_goes(network, images)
        found = tf.function(fold(network), autograph=False)(images)
        assert difference(found, exact) < 3 * max(difference(expected, exact), 1e-6)
    assert "BatchNormalization" not in kinds(folded)
    assert folded.trainable_variables == []


def stack(*parts, shape=(9, 9, 6)):
    x = inputs = keras.Input(shape)
    for part in parts:
        x = part(x)
    random.seed(1)
    return randomise(keras.Model(inputs, x))


@pytest.mark.parametrize(
    "convolution",
    [
        layers.Conv2D(8, 3),
        layers.Conv2D(8, (1, 3), strides=(2, 1), padding="same", use_bias=False),
        layers.Conv2D(8, 3, dilation_rate=2),
        layers.DepthwiseConv2D(3, strides=2, padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False),
        layers.SeparableConv2D(8, 3, depth_multiplier=2, padding="same"),
        layers.SeparableConv2D(8, 3, strides=2, use_bias=False),
    ],
    ids=["bias", "uneven", "dilated", "depthwise", "multiplier", "separable", "strided separable"],
)
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}], ids=str)
def test_every_kind_of_convolution_takes_its_batch_norm_in(convolution, norm):
    convolution = type(convolution).from_config(convolution.get_config())
    if convolution.use_bias:
        convolution.bias_initializer = keras.initializers.RandomNormal(seed=1)
    network = stack(convolution, layers.BatchNormalization(**norm), layers.ReLU())
    x = noise(2, 9, 9, 6)
    expected = network(x)

    folded = fold(network)

    assert difference(folded(x), expected) < 2e-6
    assert kinds(folded) == ["InputLayer", "Convolution", "Identity", "ReLU"]


def test_a_batch_norm_behind_an_activation_is_not_pulled_through_it():
    network = stack(layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization())
    x = noise(2, 9, 9, 6)
    expected = network(x)

    folded = fold(network)

    assert difference(folded(x), expected) < 2e-6
    assert kinds(folded) == ["InputLayer", "Convolution", "Convolution"]


def test_a_convolution_that_someone_else_reads_keeps_its_output():
    inputs = keras.Input((9, 9, 6))
    convolved = layers.Conv2D(6, 3, padding="same")(inputs)
    normed = layers.BatchNormalization()(convolved)
    network = randomise(keras.Model(inputs, layers.Concatenate()([convolved, normed])))
    x = noise(2, 9, 9, 6)

    assert difference(fold(network)(x), network(x)) < 2e-6


def test_a_shared_convolution_is_not_folded_into_either_use():
    inputs = keras.Input((9, 9, 6))
    shared = layers.Conv2D(6, 3, padding="same")
    once = layers.BatchNormalization()(shared(inputs))
    network = randomise(keras.Model(inputs, layers.Add()([once, shared(layers.ReLU()(once))])))
    x = noise(2, 9, 9, 6)

    assert difference(fold(network)(x), network(x)) < 2e-6


def test_what_is_not_understood_is_left_as_it_is():
    odd = [layers.Conv2D(6, 3, groups=2), layers.BatchNormalization(axis=1), layers.UnitNormalization()]
    network = stack(*odd)
    x = noise(2, 9, 9, 6)
    expected = network(x)

    folded = fold(network)

    assert kinds(folded) == ["InputLayer", "Conv2D", "BatchNormalization", "UnitNormalization"]
    assert np.array_equal(folded(x), expected)


def test_weights_are_variables_so_that_no_graph_carries_a_copy_of_them():
    network = stack(layers.Conv2D(64, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D())

    graph = (
        tf.function(fold(network), autograph=False).get_concrete_function(tf.TensorSpec((2, 9, 9, 6))).graph
    )

    constants = [op.outputs[0].shape.num_elements() for op in graph.get_operations() if op.type == "Const"]
    assert max(constants) < 64


def test_in_bfloat16_weights_and_activations_are_small_and_pooling_is_not():
    network = stack(layers.Conv2D(8, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D())

    folded = fold(network, "bfloat16")

    convolution = next(layer for layer in folded.layers if isinstance(layer, Convolution))
    assert convolution.kernel.dtype == convolution.output.dtype == "bfloat16"
    assert folded.output.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_rectifier_is_a_relu_to_the_bit(dtype):
    x = tf.cast(
        np.concatenate([noise(10_000), [0, -0.0, np.inf, -np.inf, 1e-40, -1e-40, 3e38, -3e38]]), dtype
    )

    assert np.array_equal(Rectifier(dtype=dtype)(x), tf.nn.relu(x))


def test_a_sum_that_is_read_raw_and_rectified_gets_a_rectifier():
    inputs = keras.Input((9, 9, 6))
    first = layers.Add()([inputs, layers.Conv2D(6, 3, padding="same")(inputs)])
    second = layers.Conv2D(6, 3, padding="same")(layers.Activation("relu")(first))
    network = keras.Model(inputs, layers.Activation("relu")(layers.Add()([first, second])))

    assert kinds(fold(network)).count("Rectifier") == 1
