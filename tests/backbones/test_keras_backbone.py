"""Keras backbones: the same numbers as Keras, the same bytes however asked, and clear words when it cannot be."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import urllib.error
import warnings
from functools import cache

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lazily import Library

from featstore.backbones import catalog
from featstore.backbones import keras_backbone as networks
from featstore.backbones import weights as presence
from featstore.backbones.keras_backbone import load_backbone, spec
from featstore.backbones.weights import Weights, resolve_weights
from featstore.errors import BackboneError, NonFiniteFeaturesError, UsageError, WeightsError

keras = Library("keras")

# Keras' own way of saving weights, which the references use, trips over NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BATCH = 4
SMALL = ["MobileNet025", "EfficientNetLite0"]
SAMPLES = [*SMALL, pytest.param("ResNet50", marks=pytest.mark.slow)]


@cache
def noise(side):
    return np.random.default_rng(5).uniform(0, 255, (BATCH, side, side, 3)).astype(np.float32)


@cache
def features_of_noise(name):
    return loaded(name).embed(noise(catalog.row(name).input_size))


@cache
def loaded(name, weights="random:1", preprocess="official"):
    return load_backbone(name, weights, preprocess, BATCH)


def largest_difference(features, reference):
    """Relative to the largest feature, since a ReLU leaves many at zero."""
    return np.abs(features - reference).max() / np.abs(reference).max()


def keras_network(name, weights=None, **options):
    row = catalog.row(name)
    side = row.input_size
    build = getattr(keras.applications, name.removesuffix("025"))
    if name == "MobileNet025":
        options["alpha"] = 0.25
    random.seed(11)
    return build(weights=weights, include_top=False, pooling="avg", input_shape=(side, side, 3), **options)


# --- the same numbers as Keras ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "module"),
    [
        pytest.param(
            "MobileNet025", "mobilenet_0.25_224_imagenet_notop.h5", "mobilenet", marks=pytest.mark.slow
        ),
        pytest.param(
            "MobileNetV2", "mobilenetv2_imagenet_notop.weights.h5", "mobilenet_v2", marks=pytest.mark.slow
        ),
        pytest.param("Xception", "xception_imagenet_notop.weights.h5", "xception", marks=pytest.mark.slow),
    ],
)
def test_features_of_real_weights_are_those_of_keras(name, file, module, shared_weights, pixels):
    path = shared_weights(file)
    images = pixels(BATCH, catalog.row(name).input_size)
    preprocess_input = getattr(keras.applications, module).preprocess_input
    reference = keras_network(name, str(path)).predict(preprocess_input(images.copy()), verbose=0)

    backbone = loaded(name, str(path))

    assert largest_difference(backbone.embed(images), reference) < 1e-5
    assert backbone.spec.weights == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


SWITCHED = [
    pytest.param("MobileNetV3Small", marks=pytest.mark.slow),
    pytest.param("EfficientNetV2B0", marks=pytest.mark.slow),
    pytest.param("EfficientNetV2S", marks=pytest.mark.slow),
    pytest.param("ConvNeXtTiny", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", SWITCHED)
def test_networks_that_preprocess_inside_do_so_once_when_official_and_never_when_rescaled(
    name, pixels, tmp_path
):
    images = pixels(BATCH, catalog.row(name).input_size)
    inside, bare = keras_network(name), keras_network(name, include_preprocessing=False)
    # Halved kernels keep a hundred random layers from multiplying rounding to the size of the features.
    inside.set_weights([0.5 * w if w.ndim == 4 else w for w in inside.get_weights()])
    bare.set_weights(inside.get_weights())
    path = tmp_path / "mine.weights.h5"
    inside.save_weights(path)

    official, rescale = (load_backbone(name, str(path), how, BATCH) for how in ("official", "rescale"))

    assert largest_difference(official.embed(images), inside(images).numpy()) < 1e-5
    assert largest_difference(rescale.embed(images), bare(images / 255).numpy()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("preprocess", ["official", pytest.param("rescale", marks=pytest.mark.slow)])
def test_efficientnet_gives_the_features_of_imagenet_weights_from_their_file_by_path(
    preprocess, pixels, tmp_path
):
    """Keras adds the division by sqrt(std) for weights="imagenet" only; the file keeps std as its variance."""
    images = pixels(BATCH, 224)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network = keras_network("EfficientNetB0")
    (normalisation,) = (layer for layer in network.layers if isinstance(layer, keras.layers.Normalization))
    normalisation.set_weights([mean, std, np.array(0)])
    path = tmp_path / "efficientnetb0_notop.weights.h5"
    network.save_weights(path)
    network.load_weights(path)  # the layer takes its statistics over when it is loaded, not when they are set
    wanted = (images / 255 - mean) / std if preprocess == "official" else images / 255
    # Turned round, so that a network that computes (x / 255 - mean) / sqrt(std) has it before its first convolution.
    fed = 255 * (wanted * np.sqrt(std) + mean)
    reference = network(fed.astype(np.float32)).numpy()

    backbone = load_backbone("EfficientNetB0", str(path), preprocess, BATCH)

    assert largest_difference(backbone.embed(images), reference) < 1e-5


@pytest.mark.slow
def test_official_and_rescaled_pixels_give_other_features_and_other_identities(pixels):
    official, rescale = loaded("MobileNet025"), loaded("MobileNet025", preprocess="rescale")
    images = pixels(BATCH, 224)

    assert official.spec != rescale.spec
    assert largest_difference(official.embed(images), rescale.embed(images)) > 0.1


# --- law 2: the same vector, however computed ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [SMALL[0], *(pytest.param(name, marks=pytest.mark.slow) for name in (SMALL[1], "ResNet50"))]
)
@settings(max_examples=8, deadline=None)
@given(
    order=st.permutations(range(BATCH)),
    companions=st.integers(1, 2**31),
    kept=st.sets(st.integers(0, BATCH - 1)),
)
def test_a_row_is_the_same_bytes_wherever_it_stands_and_whoever_stands_beside_it(
    name, order, companions, kept
):
    images, expected = noise(catalog.row(name).input_size), features_of_noise(name)
    mixed = np.random.default_rng(companions).uniform(0, 255, images.shape).astype(np.float32)
    places = [place for place in range(BATCH) if order[place] in kept]
    mixed[places] = images[[order[place] for place in places]]

    features = loaded(name).embed(mixed)

    assert features.dtype == np.float32
    assert features[places].tobytes() == expected[[order[place] for place in places]].tobytes()


SCRIPT = """
import hashlib, sys
import numpy as np
import tensorflow as tf
threads, batch, seed, *names = sys.argv[1:]
if int(threads):
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    tf.config.threading.set_inter_op_parallelism_threads(int(threads))
from featstore.backbones.keras_backbone import load_backbone
for name in names:
    backbone = load_backbone(name, "random:" + seed, batch_size=int(batch))
    side = backbone.spec.input_size
    images = np.random.default_rng(5).uniform(0, 255, (int(batch), side, side, 3)).astype(np.float32)
    print(name, hashlib.sha256(backbone.embed(images).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_one_thread_and_two_give_the_same_bytes(run_python):
    names = [
        *SMALL,
        "ResNet50",
        "MobileNetV2",
        "MobileNetV3Small",
        "EfficientNetB0",
        "DenseNet121",
        "InceptionV3",
        "Xception",
    ]

    one = run_python(SCRIPT, 1, BATCH, 1, *names)
    two = run_python(SCRIPT, 2, BATCH, 1, *names)

    assert one == two
    assert len(one.splitlines()) == len(names)


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes_in_another_process_and_another_seed_gives_others(run_python):
    here = noise(224)
    features = load_backbone("MobileNet025", "random:7", batch_size=BATCH).embed(here)
    digest = hashlib.sha256(features.tobytes()).hexdigest()

    assert run_python(SCRIPT, 0, BATCH, 7, "MobileNet025") == f"MobileNet025 {digest}\n"
    assert (
        largest_difference(load_backbone("MobileNet025", "random:8", batch_size=BATCH).embed(here), features)
        > 0.01
    )


@pytest.mark.slow
def test_random_weights_do_not_depend_on_other_threads_that_draw_numbers():
    """A dask worker's event loop draws from Python's generator while the network is built."""
    over = threading.Event()
    drawer = threading.Thread(target=lambda: [random.random() for _ in iter(lambda: over.wait(1e-4), True)])
    drawer.start()
    try:
        disturbed = load_backbone("MobileNet025", "random:7", batch_size=1)
    finally:
        over.set()
        drawer.join()
    here = noise(224)[:1]
    quiet = load_backbone("MobileNet025", "random:7", batch_size=1)
    np.testing.assert_array_equal(disturbed.embed(here), quiet.embed(here))


def test_loading_leaves_the_callers_random_numbers_alone():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the state that others may rely on
    python, numpy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002

    load_backbone("MobileNet025", "random:7", batch_size=1)

    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002


def test_the_forward_pass_is_traced_once(pixels):
    backbone = loaded("MobileNet025")
    for seed in range(3):
        backbone.embed(pixels(BATCH, 224, seed))

    assert backbone._forward.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_the_network_is_frozen_and_carries_no_optimizer(name):
    row = catalog.row(name)
    network = networks.build(row, resolve_weights(row, "random:1"), "official")

    assert network.trainable_variables == []
    assert getattr(network, "optimizer", None) is None


# --- identity ---------------------------------------------------------------------------------------------------


def test_the_identity_known_before_loading_is_that_of_the_loaded_backbone():
    row = catalog.row("MobileNet025")

    identity = spec(row, resolve_weights(row, "random:1"), "official")

    assert identity == loaded("MobileNet025").spec
    assert identity.weights == f"random:1 keras {keras.__version__}"
    assert (identity.input_size, identity.dimension, identity.precision) == (224, 256, "float32")


def test_there_is_no_identity_before_the_weights_are_here():
    with pytest.raises(WeightsError, match="not on this machine yet") as error:
        spec(catalog.row("Xception"), Weights("imagenet", None, None, None))

    assert "--weights Xception=PATH/xception_weights" in error.value.remedy


@pytest.mark.parametrize("options", [{"preprocess": "caffe"}, {"batch_size": 0}])
def test_arguments_that_cannot_be_meant_are_refused(options):
    with pytest.raises(UsageError):
        load_backbone("MobileNet025", "random:1", **options)


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((BATCH - 1, 224, 224, 3), "float32"), ((BATCH, 224, 224), "float32"), ((BATCH, 224, 224, 3), "uint8")],
)
def test_images_of_another_shape_or_type_are_refused(shape, dtype):
    with pytest.raises(UsageError, match="MobileNet025 got") as error:
        loaded("MobileNet025").embed(np.zeros(shape, dtype))

    assert "(4, 224, 224, 3)" in error.value.remedy


def test_features_that_are_not_finite_are_refused_with_the_name_and_the_count(pixels):
    images = pixels(BATCH, 224)
    images[[1, 3]] = np.inf

    with pytest.raises(NonFiniteFeaturesError, match=r"MobileNet025 gave NaN or infinity for 2 of 4 images"):
        loaded("MobileNet025").embed(images)


@pytest.fixture
def mobilenet_file(tmp_path):
    path = tmp_path / "mine.weights.h5"
    keras_network("MobileNet025").save_weights(path)
    return path


@pytest.mark.slow
def test_what_a_file_has_is_not_drawn_before(mobilenet_file, monkeypatch):
    from keras.src.backend.tensorflow import random

    drawn = []
    for name in ("normal", "truncated_normal", "uniform"):
        monkeypatch.setattr(random, name, lambda *_, **__: drawn.append(1))
    loaded("MobileNet025", str(mobilenet_file))
    assert drawn == []


@pytest.mark.slow
def test_weights_of_another_network_are_refused_in_one_line(mobilenet_file):
    with pytest.raises(WeightsError, match="does not fit the network") as error:
        load_backbone("MobileNetV3Small", str(mobilenet_file))

    assert "\n" not in error.value.cause
    assert str(mobilenet_file) in error.value.cause


def test_a_file_that_lacks_one_layer_is_refused(mobilenet_file):
    with h5py.File(mobilenet_file, "a") as file:
        del file["layers/conv2d/vars/0"]

    with pytest.raises(WeightsError, match="does not fit the network"):
        load_backbone("MobileNet025", str(mobilenet_file))


def test_a_network_that_keras_fills_only_in_part_is_refused_although_keras_just_warns(
    mobilenet_file, monkeypatch
):
    def load_some(*_, **__):
        warnings.warn("Affected layers will retain their freshly-initialized weights.", stacklevel=2)

    monkeypatch.setattr(keras.Model, "load_weights", load_some)

    with pytest.raises(WeightsError, match="freshly-initialized"):
        load_backbone("MobileNet025", str(mobilenet_file))


def test_a_truncated_file_is_refused(mobilenet_file):
    os.truncate(mobilenet_file, mobilenet_file.stat().st_size // 2)

    with pytest.raises(WeightsError, match="does not fit the network"):
        load_backbone("MobileNet025", str(mobilenet_file))


def test_a_torch_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"not torch")

    with pytest.raises(WeightsError, match=r"mine\.pth"):
        load_backbone("EfficientNetLite0", str(path))


def test_a_file_that_points_into_other_files_is_refused(mobilenet_file, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(3 * 3 * 3 * 8 * 4))
    with h5py.File(mobilenet_file, "a") as file:
        group = file["layers/conv2d/vars"]
        shape = group["0"].shape
        del group["0"]
        group.create_dataset(
            "0", shape, "float32", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        )

    with pytest.raises(WeightsError, match="external"):
        load_backbone("MobileNet025", str(mobilenet_file))


def test_without_a_network_the_message_names_the_cause_the_file_and_the_flag(keras_home, monkeypatch, capsys):
    from keras.src.utils import file_utils

    def offline(*_):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(presence, "can_fetch", lambda _row: True)
    monkeypatch.setattr(file_utils, "urlretrieve", offline)

    with pytest.raises(WeightsError) as error:
        load_backbone("Xception")

    assert "network" in error.value.cause
    assert "Name or service not known" in error.value.cause
    assert str(keras_home / "models") in error.value.cause
    file = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert error.value.remedy == f"Fetch {file} elsewhere and use --weights Xception=PATH/{file}."
    assert "\n" not in error.value.cause
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_after_a_download_the_digest_is_that_of_the_file_now_in_the_cache(
    keras_home, monkeypatch, capsys, pixels, tmp_path
):
    from keras.src.legacy.saving import legacy_h5_format
    from keras.src.utils import file_utils

    served = tmp_path / "served.h5"
    network = keras_network("MobileNet025")
    with h5py.File(served, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    monkeypatch.setattr(presence, "can_fetch", lambda _row: True)
    monkeypatch.setattr(file_utils, "urlretrieve", lambda _, target, *__: shutil.copy(served, target))

    backbone = load_backbone("MobileNet025", batch_size=BATCH)

    images = pixels(BATCH, 224)
    reference = network.predict(images / 127.5 - 1, verbose=0)
    assert backbone.spec.weights == f"sha256:{hashlib.sha256(served.read_bytes()).hexdigest()}"
    assert backbone.spec.weights == resolve_weights(catalog.row("MobileNet025")).digest
    assert largest_difference(backbone.embed(images), reference) < 1e-5
    assert capsys.readouterr().out == ""


def test_another_keras_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")

    with pytest.raises(BackboneError, match="backend is jax") as error:
        load_backbone("MobileNet025", "random:1")

    assert "KERAS_BACKEND" in error.value.remedy


def test_settings_of_keras_that_change_the_numbers_are_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(BackboneError, match="image_data_format is channels_first"):
            load_backbone("MobileNet025", "random:1")
    finally:
        keras.config.set_image_data_format("channels_last")

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(BackboneError, match="dtype policy is mixed_bfloat16"):
            load_backbone("MobileNet025", "random:1")
    finally:
        keras.config.set_dtype_policy("float32")
