"""A folded network computes what its Keras network computes, and what cannot be folded is left alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from lazily import Library

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import build
from featstore.backbones.weights import resolve_weights

keras, tf, layers = Library("keras"), Library("tensorflow"), Library("keras.layers")
folding = Library("featstore.backbones.folding")
# What there is to fold is folded layer by layer below; the slow tests run all rows.
QUICK = {"MobileNet025"}
SIDE = 96


def randomise(network, seed=3):
    """Give batch norms statistics away from the identity, and biases values: fresh ones would hide a wrong fold.

    Gains below 1: with larger ones a hundred layers amplify rounding to the size of the features (EfficientNetV2S).
    """
    rng = np.random.default_rng(seed)
    for layer in network._flatten_layers():
        for variable in layer.weights:
            if variable.name == "bias" or isinstance(layer, layers.BatchNormalization):
                low, high = {"gamma": (0.4, 0.8), "moving_variance": (0.8, 1.6)}.get(
                    variable.name, (-0.4, 0.4)
                )
                variable.assign(rng.uniform(low, high, variable.shape))
    return network


def small(name):
    """A row of the catalogue with seeded weights and random statistics, for images of 96 pixels: quicker, as deep.

    In double precision, where a hundred random layers cannot amplify rounding to the size of a wrong fold.
    """
    row = replace(catalog.row(name), input_size=SIDE)
    keras.config.set_dtype_policy("float64")
    try:
        network = build(row, resolve_weights(row, "random:1"), "official")
    finally:
        keras.config.set_dtype_policy("float32")
    assert {v.dtype for v in network.variables} <= {"float64", "int64", "uint32"}
    return randomise(network)


def convolve(inputs, kernel, *, layer):
    """What a convolution in groups of one channel computes, which Keras compiles anew at every call."""
    strides = [1, *layer.strides, 1]
    return tf.nn.depthwise_conv2d(inputs, tf.transpose(kernel, (0, 1, 3, 2)), strides, layer.padding.upper())


def keras_features(network, images):
    """What Keras computes."""
    for layer in network._flatten_layers():
        if type(layer) is layers.Conv2D and layer.groups == layer.filters > 1:
            layer.convolution_op = partial(convolve, layer=layer)
    return network(images)


def difference(a, b):
    a, b = a.numpy(), b.numpy()
    return np.abs(a - b).max() / np.abs(b).max()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def kinds(network):
    return [type(layer).__name__ for layer in network.layers]


def cost(name):
    return () if name in QUICK else pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(n, marks=cost(n)) for n in catalog.names()])
def test_a_folded_row_of_the_catalogue_equals_its_keras_network(name):
    network = small(name)
    images = tf.cast(noise(1, SIDE, SIDE, 3), tf.float64)

    folded = folding.fold(network, "float64")

    assert difference(folded(images), keras_features(network, images)) < 1e-12
    assert "BatchNormalization" not in kinds(folded)
    assert folded.trainable_variables == []
    keras.backend.clear_session()


def stack(*parts, shape=(9, 9, 6)):
    x = inputs = keras.Input(shape)
    for part in parts:
        x = part(x)
    return randomise(keras.Model(inputs, x))


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: layers.Conv2D(8, 3),
        lambda: layers.Conv2D(8, (1, 3), strides=(2, 1), padding="same", use_bias=False),
        lambda: layers.Conv2D(8, 3, dilation_rate=2),
        lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False),
        lambda: layers.Conv2D(12, 3, groups=6, strides=2, padding="same"),
        lambda: layers.SeparableConv2D(8, 3, depth_multiplier=2, padding="same"),
        lambda: layers.SeparableConv2D(8, 3, strides=2, use_bias=False),
    ],
    ids=[
        "bias",
        "uneven",
        "dilated",
        "depthwise",
        "multiplier",
        "groups of one",
        "separable",
        "strided separable",
    ],
)
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}], ids=str)
def test_every_kind_of_convolution_takes_its_batch_norm_in(convolution, norm):
    convolution = convolution()
    if convolution.use_bias:
        convolution.bias_initializer = keras.initializers.RandomNormal(seed=1)
    network = stack(convolution, layers.BatchNormalization(**norm), layers.ReLU())
    x = noise(2, 9, 9, 6)
    expected = network(x)

    folded = folding.fold(network)

    assert difference(folded(x), expected) < 2e-6
    assert kinds(folded) == ["InputLayer", "Convolution", "Identity", "ReLU"]


def test_a_batch_norm_behind_an_activation_is_not_pulled_through_it():
    network = stack(layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization())
    x = noise(2, 9, 9, 6)
    expected = network(x)

    folded = folding.fold(network)

    assert difference(folded(x), expected) < 2e-6
    assert kinds(folded) == ["InputLayer", "Convolution", "Convolution"]


def test_a_convolution_that_someone_else_reads_keeps_its_output():
    inputs = keras.Input((9, 9, 6))
    convolved = layers.Conv2D(6, 3, padding="same")(inputs)
    normed = layers.BatchNormalization()(convolved)
    network = randomise(keras.Model(inputs, layers.Concatenate()([convolved, normed])))
    x = noise(2, 9, 9, 6)

    assert difference(folding.fold(network)(x), network(x)) < 2e-6


def test_a_shared_convolution_is_not_folded_into_either_use():
    inputs = keras.Input((9, 9, 6))
    shared = layers.Conv2D(6, 3, padding="same")
    once = layers.BatchNormalization()(shared(inputs))
    network = randomise(keras.Model(inputs, layers.Add()([once, shared(layers.ReLU()(once))])))
    x = noise(2, 9, 9, 6)

    assert difference(folding.fold(network)(x), network(x)) < 2e-6


def test_the_factor_of_a_residual_branch_goes_into_its_convolution():
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    inputs = keras.Input((9, 9, 6))
    branch = layers.Conv2D(6, 3, padding="same")(inputs)
    network = randomise(keras.Model(inputs, CustomScaleLayer(0.2)([inputs, branch])))
    x = noise(2, 9, 9, 6)

    folded = folding.fold(network)

    assert difference(folded(x), network(x)) < 2e-6
    assert kinds(folded) == ["InputLayer", "Convolution", "Add"]


def test_what_is_not_understood_is_left_as_it_is():
    odd = [layers.Conv2D(6, 3, groups=2), layers.BatchNormalization(axis=1), layers.UnitNormalization()]
    network = stack(*odd)
    x = noise(2, 9, 9, 6)
    expected = network(x)

    folded = folding.fold(network)

    assert kinds(folded) == ["InputLayer", "Conv2D", "BatchNormalization", "UnitNormalization"]
    assert np.array_equal(folded(x), expected)


def test_weights_are_variables_so_that_no_graph_carries_a_copy_of_them():
    network = stack(layers.Conv2D(64, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D())

    graph = (
        tf.function(folding.fold(network), autograph=False)
        .get_concrete_function(tf.TensorSpec((2, 9, 9, 6)))
        .graph
    )

    constants = [op.outputs[0].shape.num_elements() for op in graph.get_operations() if op.type == "Const"]
    assert max(constants) < 64


def test_in_bfloat16_weights_and_activations_are_small_and_pooling_is_not():
    network = stack(layers.Conv2D(8, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D())

    folded = folding.fold(network, "bfloat16")

    convolution = next(layer for layer in folded.layers if isinstance(layer, folding.Convolution))
    assert convolution.kernel.dtype == convolution.output.dtype == "bfloat16"
    assert folded.output.dtype == "float32"


def thin_network(width):
    """Conv, depthwise of 8 channels, conv, depthwise of `width` channels, conv."""
    parts = [layers.Conv2D(8, 3, name="stem"), layers.DepthwiseConv2D(3, name="thin")]
    parts += [layers.Conv2D(width, 1, name="expand"), layers.ReLU(6.0, name="relu")]
    parts += [layers.DepthwiseConv2D(3, name="wide"), layers.Conv2D(8, 1, name="project")]
    return stack(*parts, layers.GlobalAveragePooling2D())


def test_all_up_to_the_last_narrow_depthwise_convolution_stays_float32_in_bfloat16():
    types = {layer.name: layer.compute_dtype for layer in folding.fold(thin_network(256), "bfloat16").layers}
    spared = folding.fold(thin_network(255), "bfloat16")

    assert [types[n] for n in ("stem", "thin")] == ["float32"] * 2
    assert [types[n] for n in ("expand", "relu", "wide", "project")] == ["bfloat16"] * 4
    assert [spared.get_layer(n).compute_dtype for n in ("wide", "project")] == ["float32", "bfloat16"]


def rounded(value):
    return tf.cast(tf.cast(value, "bfloat16"), tf.float64).numpy()


def test_the_remainder_takes_back_what_rounding_the_weights_shifts():
    """Rounding of outputs averages out over 2,000 pixels, and rounding of weights does not.

    True where the sum is fused (oneDNN on a CPU with bfloat16): one rounding, at the end. Where bfloat16 is emulated,
    each of convolution, bias and sum rounds, and the second rounding of a sum falls on the grid of the first, so that
    it loses the same part of the bias at every pixel. That is no error of the remainder; what holds there is that
    each step rounds once and none is left out. A layer without remainder tells which of the two this machine does.
    """
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (2, 32, 32, 64)).astype(np.float32)
    kernel, bias = rng.normal(0, 1, (1, 1, 64, 32)), rng.normal(0, 8, 32)
    exact = x @ kernel[0, 0] + bias

    def compiled(splits):
        weights = {"depthwise": None, "kernel": kernel, "bias": bias}
        layer = folding.Convolution("c", "bfloat16", **weights, shape=exact.shape, splits=splits)
        return tf.cast(tf.function(layer, autograph=False)(x), tf.float64).numpy()

    def convolved(weight):
        return x @ rounded(weight)[0, 0]

    def shift(found):
        return np.abs((found - exact).mean((0, 1, 2))).mean()

    rests = kernel - rounded(kernel), bias - rounded(bias)
    fused = rounded(convolved(kernel) + rounded(bias))
    stepwise = rounded(rounded(convolved(kernel)) + rounded(bias))
    plain, split = compiled(splits=False), compiled(splits=True)

    if np.mean(plain == stepwise) > np.mean(plain == fused):
        added = rounded(rounded(convolved(rests[0])) + rounded(rests[1]))
        # All but the few sums that float32 puts on the other side of a tie.
        assert np.mean(plain == stepwise) > 0.999
        assert np.mean(split == rounded(stepwise + added)) > 0.999
        assert shift(split) < shift(plain)
    else:
        assert shift(split) < shift(plain) / 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_rectifier_is_a_relu_to_the_bit(dtype):
    x = tf.cast(
        np.concatenate([noise(10_000), [0, -0.0, np.inf, -np.inf, 1e-40, -1e-40, 3e38, -3e38]]), dtype
    )

    assert np.array_equal(folding.Rectifier(dtype=dtype)(x), tf.nn.relu(x))


def test_a_sum_that_is_read_raw_and_rectified_gets_a_rectifier():
    inputs = keras.Input((9, 9, 6))
    first = layers.Add()([inputs, layers.Conv2D(6, 3, padding="same")(inputs)])
    second = layers.Conv2D(6, 3, padding="same")(layers.Activation("relu")(first))
    network = keras.Model(inputs, layers.Activation("relu")(layers.Add()([first, second])))

    assert kinds(folding.fold(network)).count("Rectifier") == 1


@pytest.mark.parametrize("batch", [3, 4, 12])
@pytest.mark.parametrize(
    "part",
    [lambda: layers.LayerNormalization(axis=-1), lambda: layers.Activation("sigmoid")],
    ids=["norm", "sigmoid"],
)
def test_a_pixel_at_the_end_of_a_batch_is_computed_like_any_other(part, batch):
    """ConvNeXt at batch 4: AVX2 takes eight reciprocal roots at a time, and the last four by another formula."""
    folded = tf.function(folding.fold(stack(part(), shape=(7, 7, 9))))
    copies = np.repeat(noise(1, 7, 7, 9), batch, axis=0)

    rows = folded(copies).numpy()

    assert (rows == rows[0]).all()


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_a_dense_layer_over_a_map_is_computed_image_by_image(batch):
    """ConvNeXt: one product of matrices over all pixels sums the last rows of a tile in another order."""
    network = stack(layers.Dense(192, activation="gelu"), layers.Dense(48), shape=(14, 14, 48))
    images = noise(1, 14, 14, 48)
    folded = folding.fold(network)
    rows = tf.function(folded)(np.repeat(images, batch, axis=0)).numpy()
    assert (rows == rows[0]).all()
    np.testing.assert_allclose(folded(images), network(images), rtol=1e-5, atol=1e-6)
    assert kinds(folded).count("Convolution") == 2
