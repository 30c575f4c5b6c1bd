"""The catalogue: what it lists, what it refuses, and that every row tells the truth about its network."""

from __future__ import annotations

import math
import pkgutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.backbones import catalog
from featstore.backbones import weights as presence
from featstore.backbones.weights import resolve_weights
from featstore.errors import BackboneError, UnknownNameError

SMALL = {"MobileNet025"}
EVERY_ROW = [
    pytest.param(name, marks=() if name in SMALL else pytest.mark.slow, id=name) for name in catalog.names()
]


def test_the_backbones_of_the_study_are_marked():
    marked = {name for name in catalog.names() if catalog.row(name).in_paper}

    assert marked == {
        "InceptionV3",
        "DenseNet121",
        "DenseNet169",
        "DenseNet201",
        "ResNet50",
        "Xception",
        "VGG19",
        "NASNetLarge",
        "InceptionResNetV2",
    }


def test_every_network_of_keras_applications_has_a_row():
    import keras

    offered = {name for name in dir(keras.applications) if name[0].isupper()}

    assert offered <= set(catalog.names())


def test_memory_and_speed_of_every_row_were_measured():
    for name in catalog.names():
        row = catalog.row(name)
        assert row.megabytes >= 90, name
        assert 10 < row.core_gflops < 200, name


def test_no_two_rows_share_a_name_or_a_weights_file():
    rows = [catalog.row(name) for name in catalog.names()]

    assert len({row.name for row in rows}) == len(rows)
    assert len({row.weights_file for row in rows}) == len(rows)


def test_listing_resolving_and_identifying_every_row_loads_no_heavy_library(run_python):
    script = """
import sys
from featstore.backbones import catalog
from featstore.backbones.keras_backbone import spec
from featstore.backbones.weights import parse_weights_options, resolve_weights

choices = parse_weights_options(["random:3", "Xception=random:4"])
for name in catalog.names():
    row = catalog.row(name)
    identity = spec(row, resolve_weights(row, "random:3"), "rescale")
    assert (identity.input_size, identity.dimension) == (row.input_size, row.dimension)
    resolve_weights(row, "imagenet")
print(sorted({"tensorflow", "keras", "sklearn", "scipy", "h5py"} & set(sys.modules)))
"""
    assert run_python(script) == "[]\n"


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(catalog.names()), data=st.data())
def test_a_name_in_the_wrong_case_is_refused_and_the_right_spelling_shown(name, data):
    upper = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    wrong = "".join(c.upper() if up else c.lower() for c, up in zip(name, upper, strict=True))
    if wrong == name:
        assert catalog.row(wrong).name == name
        return

    with pytest.raises(UnknownNameError) as error:
        catalog.row(wrong)

    assert wrong in error.value.cause
    assert f"Did you mean {name}" in error.value.remedy


def test_a_name_like_nothing_known_gets_no_suggestion():
    with pytest.raises(UnknownNameError) as error:
        catalog.row("zzz")

    assert error.value.remedy == "`featstore backbones` lists all."


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Install, as far as importlib.metadata can tell, a package with these entry points."""

    def install(**points):
        info = tmp_path / "acme_nets-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nets\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[featstore.backbones]", *lines]))
        (tmp_path / "acme_nets.py").write_text(
            "from featstore.backbones.catalog import Row\n"
            "ROW = Row('AcmeNet', 'acme_nets:build', 'acme_nets:preprocess', 96, 12, 0.5)\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "acme_nets", raising=False)

    return install


def test_a_row_of_another_package_is_imported_only_when_asked_for(other_package):
    other_package(AcmeNet="acme_nets:ROW")

    assert catalog.names()[-1] == "AcmeNet"
    catalog.row("Xception")
    assert "acme_nets" not in sys.modules

    assert catalog.row("AcmeNet").dimension == 12


def test_a_row_of_another_package_may_say_what_its_network_costs(other_package):
    other_package(AcmeNet="acme_nets:ROW")
    guessed = catalog.peak_megabytes("AcmeNet")
    sys.modules["acme_nets"].ROW = replace(
        sys.modules["acme_nets"].ROW, megabytes=3 * guessed, core_gflops=9.0
    )
    assert catalog.peak_megabytes("AcmeNet") == 3 * guessed
    assert catalog.row("AcmeNet").core_gflops == 9


def test_another_package_cannot_take_the_name_of_a_built_in_row(other_package):
    other_package(Xception="acme_nets:ROW")

    assert catalog.row("Xception").builder == "keras.applications:Xception"
    assert catalog.names().count("Xception") == 1


@pytest.mark.parametrize(
    "value", ["acme_nets:ABSENT", "no_such_module:ROW", "acme_nets:Row", "acme_nets:ROW"]
)
def test_an_entry_point_that_is_no_row_of_its_name_is_refused_and_named(other_package, value):
    other_package(OtherNet=value)

    with pytest.raises(BackboneError, match=f"'OtherNet' = '{value}'"):
        catalog.row("OtherNet")


@pytest.mark.parametrize("name", catalog.names())
def test_builder_and_preprocessing_of_a_row_exist(name):
    row = catalog.row(name)

    assert callable(pkgutil.resolve_name(row.builder))
    assert callable(pkgutil.resolve_name(row.preprocess))


@pytest.mark.parametrize("name", EVERY_ROW)
def test_a_network_has_the_weights_file_size_dimension_and_cost_of_its_row(name, pixels, asked):
    from featstore.backbones import keras_backbone
    from featstore.backbones import keras_backbone as networks

    row = catalog.row(name)
    weights = resolve_weights(row, "random:1")
    identity = keras_backbone.spec(row, weights)
    if row.weights_file.endswith(".pth"):
        assert resolve_weights(row).path.name == row.weights_file
        network = networks.build(row, weights, "official")
    else:
        published = networks.build_published(row)
        assert asked == [(row.weights_file, "models")]
        network = networks.strip_preprocessing(row, published)
    forward = keras_backbone._compile(row, network, identity, 1)

    features = forward(pixels(1, row.input_size)).numpy()

    assert features.shape == (1, row.dimension)
    assert np.isfinite(features).all()
    assert network.input_shape == (None, row.input_size, row.input_size, 3)
    assert row.gflops == pytest.approx(2 * multiply_adds(network) / 1e9, rel=1e-3)


@pytest.fixture
def asked(monkeypatch):
    """Files that Keras wants to download, with their folder; the networks keep the weights that they began with."""
    import keras
    from keras.src.utils import file_utils

    files = []
    monkeypatch.setattr(
        file_utils, "get_file", lambda name, _url, **options: files.append((name, options["cache_subdir"]))
    )
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_args, **_options: None)
    return files


def test_weights_that_cannot_be_fetched_are_an_error_with_the_cause(monkeypatch, keras_home):
    from keras.src.utils import file_utils

    from featstore.backbones.keras_backbone import load_backbone
    from featstore.errors import WeightsError

    def refuse(*_args, **_options):
        raise OSError("stop here")

    monkeypatch.setattr(presence, "can_fetch", lambda _row: True)
    monkeypatch.setattr(file_utils, "get_file", refuse)
    with pytest.raises(WeightsError, match="stop here"):
        load_backbone("MobileNet025")


def test_a_row_that_lies_about_its_dimension_is_caught(monkeypatch):
    from featstore.backbones.keras_backbone import load_backbone

    lie = replace(catalog.row("MobileNet025"), dimension=255)
    monkeypatch.setitem(catalog._TABLE, "MobileNet025", lie)

    with pytest.raises(BackboneError, match=r"ends in shape \(None, 256\), and its row says \(None, 255\)"):
        load_backbone("MobileNet025", "random:1")


def multiply_adds(network):
    """Count from the shapes of the kernels: every output pixel costs one kernel, less its output channels."""
    total = 0
    for layer in network.layers:
        if hasattr(layer, "layers"):
            total += multiply_adds(layer)
        elif type(layer).__name__ == "SeparableConv2D":
            depthwise, pointwise = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
            total += math.prod(layer.output.shape[1:3]) * (math.prod(depthwise) + math.prod(pointwise))
        elif type(layer).__name__ in {"Conv2D", "DepthwiseConv2D", "Dense"}:
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total
