"""Two engines, one contract: the networks of TensorFlow come out of JAX, within 1e-5 of the largest feature."""

import importlib.util

import jaxprocess
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.api.extract import extract
from featstore.backbones import catalog, engines
from featstore.backbones.engines import choose_engine
from featstore.backbones.jax_backbone import with_largest_batch
from featstore.backbones.loading import load_backbone
from featstore.backbones.precision import FORCE
from featstore.backbones.weights import IMAGENET, packaged
from featstore.errors import BackboneError, OutOfMemoryError, UnknownNameError, UsageError
from featstore.extraction.networks import BackoffBackbone
from featstore.extraction.plan import LARGE_BLOCK_ROWS, LEAST_USE, largest_batch
from featstore.types import Computation

FAST = ["MobileNet025"]
PAPER = [name for name in catalog.names() if catalog.row(name).in_paper]
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in [*PAPER, "EfficientNetLite0"])]
CONTRACT = 1e-5
"""Of the largest feature, in float32, between engines: law 2."""


def weights_of(name):
    return IMAGENET if packaged(catalog.row(name)) else "random:1"


@pytest.fixture(scope="module")
def jax():
    with jaxprocess.start() as process:
        yield lambda function, *arguments, **named: process.submit(function, *arguments, **named).result()


def noise(name, count=2):
    side = catalog.row(name).input_size
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_network_holds_the_contract_on_jax_and_gives_the_vectors_of_tensorflow(jax, name):
    images = noise(name)
    network = load_backbone(name, weights_of(name), batch_size=len(images))
    expected = network.embed(images)
    found, computation, spec = jax(jaxprocess.check_and_embed, name, weights_of(name), images)
    assert spec == network.spec, "a key means the same network on both"
    assert np.abs(found - expected).max() <= CONTRACT * np.abs(expected).max()
    assert (computation.engine, network.computation.engine) == ("jax", "tensorflow")
    assert computation.device == network.computation.device, "both compute on this processor"
    assert computation.libraries.startswith("jax ")
    assert computation.batch_size == len(images)


@pytest.mark.slow
def test_the_engine_jax_imports_no_tensorflow(jax):
    jax(jaxprocess.embed, "MobileNet025", "random:1", noise("MobileNet025"))
    loaded = jax(jaxprocess.loaded_modules)
    assert {"jax", "keras"} <= loaded
    assert "tensorflow" not in loaded


@pytest.mark.slow
def test_a_smaller_batch_stays_within_the_contract(jax):
    images = noise("MobileNet025")
    whole, _, _ = jax(jaxprocess.embed, "MobileNet025", "random:1", images)
    parts = jax(jaxprocess.in_smaller_batches, "MobileNet025", "random:1", images, 1)
    assert np.abs(whole - parts).max() <= CONTRACT * np.abs(whole).max()


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_pixels_are_refused_on_jax_too(jax, value):
    images = noise("MobileNet025")
    images[1, 3, 3, 0] = value
    kind, cause, _ = jax(jaxprocess.failure, "MobileNet025", "random:1", images, batch_size=2)
    assert (kind, cause) == ("NonFiniteFeaturesError", "MobileNet025 gave NaN or infinity for 1 of 2 images.")


@pytest.mark.slow
def test_pixels_of_another_shape_are_refused(jax):
    kind, cause, _ = jax(
        jaxprocess.failure, "MobileNet025", "random:1", noise("MobileNet025", 3), batch_size=4
    )
    assert (kind, cause) == ("UsageError", "MobileNet025 got float32 images of shape (3, 224, 224, 3).")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "cause"),
    [
        ("float16", "The engine jax does not compute in float16."),
        ("tf32", "tf32 is for GPUs of NVIDIA's Ampere or later (8.0), and jax sees none."),
    ],
)
def test_a_precision_that_jax_has_not_got_here_is_refused(jax, precision, cause):
    found = jax(jaxprocess.failure, "MobileNet025", "random:1", precision=precision)
    assert found[:2] == ("UsageError", cause)


def test_tensorflow_computes_no_tf32(monkeypatch):
    monkeypatch.setenv(FORCE, "1")
    with pytest.raises(UsageError, match="tensorflow does not compute in tf32"):
        load_backbone("MobileNet025", "random:1", precision="tf32")


def test_keras_that_runs_on_tensorflow_is_not_taken_for_jax(monkeypatch):
    import keras  # noqa: F401

    with pytest.raises(BackboneError, match="Keras runs on tensorflow in this process"):
        load_backbone("MobileNet025", "random:1", engine="jax")


# Which engine


@pytest.fixture
def installed(monkeypatch):
    """Say which engines are installed, and whether JAX finds a GPU."""

    monkeypatch.setattr(engines, "running_here", lambda: None)

    def say(*names, gpu=False):
        monkeypatch.setattr(engines, "_installed", lambda engine: engine in names)
        monkeypatch.setattr(engines, "jax_sees_gpu", lambda: gpu)

    return say


@pytest.mark.parametrize(
    ("names", "gpu", "chosen"),
    [
        (("tensorflow", "jax"), False, "tensorflow"), (("tensorflow", "jax"), True, "jax"),
        (("tensorflow",), False, "tensorflow"), (("jax",), False, "jax"),
    ],
)  # fmt: skip
def test_auto_is_jax_where_it_sees_a_gpu(installed, names, gpu, chosen):
    installed(*names, gpu=gpu)
    assert choose_engine("auto") == chosen


@pytest.mark.parametrize("running", ["tensorflow", "jax"])
def test_auto_is_what_keras_runs_on_here_already(installed, monkeypatch, running):
    installed("tensorflow", "jax", gpu=running == "tensorflow")
    monkeypatch.setattr(engines, "running_here", lambda: running)
    assert choose_engine("auto") == running


def test_an_extraction_in_a_process_of_the_other_engine_is_refused_before_anything_is_read(tmp_path):
    import keras  # noqa: F401

    with pytest.raises(BackboneError, match="Keras runs on tensorflow in this process"):
        extract(tmp_path / "no such folder", engine="jax")


def test_an_engine_that_is_not_installed_names_its_extra(installed):
    installed("tensorflow")
    with pytest.raises(BackboneError) as error:
        choose_engine("jax")
    assert "featstore[gpu]" in error.value.remedy


def test_a_misspelt_engine_names_the_nearest():
    with pytest.raises(UnknownNameError) as error:
        choose_engine("tensorflo")
    assert "tensorflow" in error.value.remedy


def test_without_a_device_file_jax_is_not_even_asked(monkeypatch):
    monkeypatch.setattr(engines, "visible_devices", lambda _environment: ())
    monkeypatch.setattr(engines, "_jax_finds_gpu", lambda: pytest.fail("started a process"))
    assert not engines.jax_sees_gpu()
    monkeypatch.setattr(engines, "visible_devices", lambda _environment: ("0",))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not engines.jax_sees_gpu()


@pytest.mark.slow
def test_jax_is_asked_in_another_process_and_finds_no_gpu_here():
    assert importlib.util.find_spec("jax")
    assert engines._jax_finds_gpu() is False


# The batch


@given(st.integers(1, 30_000))
def test_a_batch_is_the_largest_that_is_hardly_padded(images):
    def computed(size):
        full, rest = divmod(images, LARGE_BLOCK_ROWS)
        return full * LARGE_BLOCK_ROWS + -(-rest // size) * size

    size = largest_batch(images)
    assert size & (size - 1) == 0
    assert 1 <= size <= LARGE_BLOCK_ROWS
    assert size == 1 or images >= LEAST_USE * computed(size)
    assert size == LARGE_BLOCK_ROWS or images < LEAST_USE * computed(2 * size)


class Planned:
    """A network whose batch takes 100 bytes, and 10 more for each image."""

    def __init__(self, batch_size=16, asked=None):
        self.batch_size = batch_size
        self.asked = [] if asked is None else asked

    def with_batch_size(self, batch_size):
        return Planned(batch_size, self.asked)

    def memory(self):
        self.asked.append(self.batch_size)
        return 100 + 10 * self.batch_size


@given(largest=st.integers(1, 5000), room=st.integers(0, 20_000))
def test_the_largest_batch_with_room_is_found_in_few_plans(largest, room):
    found = with_largest_batch(Planned(), largest, room)
    sizes = [1 << bit for bit in range(11) if 1 << bit <= largest and 1.1 * (100 + 10 * (1 << bit)) <= room]
    assert found.batch_size == (max(sizes) if sizes else 1)
    assert len(found.asked) <= 6


class Card:
    """A network on a card that has room for two images; it counts."""

    spec, batch_size, on_device, asked = None, 8, True, ()

    def with_batch_size(self, batch_size):
        smaller = Card()
        smaller.batch_size, smaller.asked = batch_size, [*self.asked, batch_size]
        return smaller

    @property
    def computation(self):
        return Computation(self.batch_size, "jax")

    def start(self, images):
        return [images[at : at + self.batch_size] for at in range(0, len(images), self.batch_size)]

    def fetch(self, parts):
        if len(parts[0]) > 2:
            raise OutOfMemoryError("no room", "buy another")
        return np.concatenate(parts)


def test_a_card_without_room_goes_on_with_half_the_batch(monkeypatch):
    monkeypatch.setattr(Card, "spec", type("Spec", (), {"name": "Any"}))
    network = BackoffBackbone(Card())
    images = np.arange(8.0).reshape(8, 1)
    begun = [network.start(images), network.start(images + 8)]
    assert [network.fetch(one).ravel().tolist() for one in begun] == [
        list(range(8)),
        list(range(8, 16)),
    ]
    assert (network.batch_size, network.effective_batch_size) == (8, 2)
    assert network.computation == Computation(2, "jax")
