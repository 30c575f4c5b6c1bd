"""Every network of the catalogue holds the contract of `featstore.testing`, and what breaks it is named."""

import subprocess
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from featstore import registry
from featstore.backbones import catalog
from featstore.backbones.catalog import Row
from featstore.backbones.loading import load_backbone
from featstore.backbones.weights import IMAGENET, packaged, resolve_weights
from featstore.errors import BackboneError, NonFiniteFeaturesError, OutOfMemoryError, UsageError, WeightsError
from featstore.testing import check_backbone
from featstore.types import BackboneSpec

FAST = {"MobileNet025"}


NAMES = [name for name in catalog.names() if name in FAST or catalog.row(name).in_paper]
"""The others are built, called and compared by `test_catalog.py`: one loader, Keras', serves them all."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES]
)
def test_each_network_holds_the_contract(name):
    check_backbone(name, IMAGENET if packaged(catalog.row(name)) else "random:1")


@dataclass
class Rows:
    """Means of the rows of an image: a network of NumPy."""

    spec: BackboneSpec
    batch_size: int

    @property
    def effective_batch_size(self):
        return self.batch_size

    def embed(self, images):
        return images.mean(axis=(2, 3)).astype(np.float32)


def load(spec, weights, batch_size):
    return Rows(spec, batch_size)


ROW = Row("Rows", loader="mine:load", version="3", input_size=32, dimension=32)


@pytest.fixture
def network(monkeypatch):
    """Make a network of this class, or what this loader returns, one of the catalogue."""

    def put(kind=Rows, call=None, **columns):
        call = call or (lambda spec, _weights, batch_size: kind(spec, batch_size))
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(load=call))
        row = replace(ROW, **columns)
        monkeypatch.setattr(registry, "plugins", lambda kind: [row] if kind == "backbones" else [])
        return row

    return put


def test_a_network_of_numpy_holds_the_contract(network):
    network()
    check_backbone("Rows")
    check_backbone(load_backbone("Rows", batch_size=1))


def test_its_key_has_its_version_and_the_digest_of_its_weights(network, tmp_path):
    assert resolve_weights(network()).digest == "version:3"
    path = tmp_path / "weights.npy"
    path.write_bytes(b"1")
    first = resolve_weights(network(weights_file=str(path)))
    assert (first.digest[:17], len(first.digest), first.path) == ("version:3 sha256:", 17 + 64, path)
    path.write_bytes(b"2")
    assert resolve_weights(network(weights_file=str(path))).digest != first.digest
    assert (
        resolve_weights(network(), str(path)).digest
        == resolve_weights(network(weights_file=str(path))).digest
    )
    spec = load_backbone("Rows").spec
    assert (spec.input_size, spec.dimension, spec.preprocess) == (32, 32, "official")


class Sum(Rows):
    def embed(self, images):
        return super().embed(images) + images.mean().astype(np.float32)


class Place(Rows):
    def embed(self, images):
        return super().embed(images) + np.arange(len(images), dtype=np.float32)[:, None]


class Chance(Rows):
    def embed(self, images):
        return np.random.default_rng().random((len(images), 32)).astype(np.float32)


class Deaf(Rows):
    def embed(self, images):
        return np.ones((len(images), 32), np.float32)


class Doubles(Rows):
    def embed(self, images):
        return super().embed(images).astype(np.float64)


class Narrow(Rows):
    def embed(self, images):
        return super().embed(images)[:, :7]


class Holes(Rows):
    def embed(self, images):
        return super().embed(images) * np.float32("nan")


class Overwrites(Rows):
    def embed(self, images):
        images += 1
        return super().embed(images)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (Sum, "depends on the other images"), (Place, "depend on their place"), (Chance, "other vectors for"),
        (Deaf, "the same vectors for all"), (Doubles, "gives float64"), (Narrow, r"shape \(4, 7\)"), (Holes, "NaN"),
        (Overwrites, "changes the images"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_named(network, kind, complaint):
    network(kind)
    with pytest.raises(AssertionError, match=complaint):
        check_backbone("Rows")


def fails(*_arguments):
    raise KeyError("layer 3")


@pytest.mark.parametrize(
    ("loader", "complaint"),
    [
        (fails, "fails: KeyError: 'layer 3'"),
        (lambda *_: None, "whose spec is not"),
        (lambda spec, _weights, batch_size: Rows(spec, batch_size + 1), "whose batch_size is not"),
        (
            lambda spec, _weights, batch_size: Rows(replace(spec, dimension=9), batch_size),
            "whose spec is not",
        ),
    ],
)
def test_a_loader_that_fails_or_returns_something_else_is_named(network, loader, complaint):
    network(call=loader)
    with pytest.raises(BackboneError, match=complaint) as caught:
        load_backbone("Rows")
    assert "check_backbone" in caught.value.remedy


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("odd"), BackboneError), (MemoryError(), OutOfMemoryError)]
)
def test_what_its_network_raises_is_told_as_its_own(network, error, kind):
    class Failing(Rows):
        def embed(self, *_):
            raise error

    network(Failing)
    with pytest.raises(kind, match="Rows"):
        load_backbone("Rows", batch_size=2).embed(np.zeros((2, 32, 32, 3), np.float32))


def test_a_vector_that_is_not_finite_never_reaches_a_cache(network):
    network(Holes)
    with pytest.raises(NonFiniteFeaturesError):
        load_backbone("Rows", batch_size=2).embed(np.zeros((2, 32, 32, 3), np.float32))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"precision": "bfloat16"}, "Rows does not compute in bfloat16"),
        ({"preprocess": "rescale"}, "Rows prepares its pixels itself"),
        ({"precision": "float31"}, "There is no precision"),
    ],
)
def test_options_for_keras_networks_are_refused_in_one_line(network, options, complaint):
    network()
    with pytest.raises(UsageError, match=complaint):
        load_backbone("Rows", **options)


@pytest.mark.parametrize("choice", ["random:1", "nowhere.npy"])
def test_weights_that_it_cannot_have_are_refused(network, choice):
    network()
    with pytest.raises(WeightsError, match="Rows"):
        load_backbone("Rows", choice)


@pytest.mark.parametrize(
    "columns",
    [
        {"version": ""},
        {"version": "a b"},
        {"name": "../up"},
        {"dimension": -1},
        {"input_size": 0},
        {"loader": ""},
    ],
)
def test_a_row_that_cannot_be_in_a_key_is_refused(network, columns):
    row = network(**columns)
    with pytest.raises(BackboneError, match="row of the network"):
        catalog.row(row.name)


def test_a_plugin_cannot_take_the_name_of_a_network_of_featstore(network):
    network(name="Xception")
    with pytest.raises(BackboneError, match="name of another"):
        catalog.names()
    assert catalog.row("Xception").loader == ""


@pytest.mark.slow
def test_maps_of_several_networks_one_after_another_warn_of_nothing():
    """A notebook that explains six images, one call each, had TensorFlow's warnings of retracing."""
    program = (
        "import numpy as np\n"
        "from featstore.backbones.loading import load_backbone\n"
        "for _ in range(6):\n"
        "    network = load_backbone('MobileNet025', 'random:1', 'official', 1).with_maps(np.ones((256, 1)))\n"
        "    network.embed(np.zeros((1, 224, 224, 3), np.float32))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "retracing" not in told.stderr
