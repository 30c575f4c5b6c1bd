"""Networks of Keras up to a layer: which layer a name means, and that its vector is the mean over that map."""

import numpy as np
import pytest

from featstore.backbones import catalog, keras_backbone
from featstore.backbones.loading import load_backbone
from featstore.backbones.trainable import require_trainable
from featstore.backbones.weights import choice_for, resolve_weights
from featstore.errors import UnknownNameError, UsageError
from featstore.testing import check_backbone


@pytest.fixture(autouse=True)
def _known_once(monkeypatch, tmp_path_factory):
    """The process that tells the layers of MobileNet is asked for real, but not by every test."""
    monkeypatch.setenv(catalog.LAYERS, _layers(tmp_path_factory))


def _layers(factory, known={}):  # noqa: B006 - kept on purpose
    import json

    if not known:
        known["MobileNet025"] = catalog._asked_channels("MobileNet025")
        known["ResNet50"] = {
            "conv1_relu": 64,
            "conv4_block1_out": 1024,
            "conv4_block6_out": 1024,
            "conv5_block1_out": 2048,
        }
    return json.dumps(known)


def test_a_colon_names_a_layer_and_a_stage_means_its_last_layer():
    assert catalog.named(["ResNet50:conv4"]) == ["ResNet50.conv4"]
    row = catalog.row("ResNet50.conv4")
    assert (row.name, row.layer, row.dimension) == ("ResNet50.conv4", "conv4_block6_out", 1024)
    assert catalog.row("ResNet50.conv4_block1_out").layer == "conv4_block1_out"
    assert row.weights_file == catalog.row("ResNet50").weights_file


def test_a_slip_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError) as error:
        catalog.row("ResNet50.conv4_block6_uot")
    assert "conv4_block6_out" in error.value.remedy
    with pytest.raises(UnknownNameError) as error:
        catalog.row("ResNet50.conv6")
    assert "conv4" in error.value.remedy or "conv5" in error.value.remedy


@pytest.mark.slow
def test_a_vector_is_the_mean_over_the_map_of_the_layer():
    import keras

    name = "MobileNet025.conv_pw_5_relu"
    check_backbone(name, "random:1")
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    row = catalog.row("MobileNet025")
    whole = keras_backbone.build(row, resolve_weights(row, "random:1"), "official")
    inside = keras.Model(whole.input, whole.get_layer("conv_pw_5_relu").output)
    wanted = inside.predict(images / 127.5 - 1, verbose=0).mean(axis=(1, 2))
    got = load_backbone(name, "random:1", batch_size=2).embed(images)
    assert got.shape == wanted.shape == (2, 64)
    assert got == pytest.approx(wanted, rel=1e-4, abs=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.slow
def test_its_name_is_in_the_key_and_its_weights_are_those_of_the_whole():
    specs = [load_backbone(f"MobileNet025{end}", "random:1").spec for end in ("", ".conv_pw_5_relu")]
    assert specs[0].weights == specs[1].weights
    assert specs[0].name != specs[1].name
    assert choice_for("ResNet50.conv4", {"ResNet50": "random:3"}) == "random:3"
    assert choice_for("ResNet50.conv4", {"ResNet50": "random:3", "ResNet50.conv4": "random:4"}) == "random:4"


def test_a_part_cannot_be_tuned():
    with pytest.raises(UsageError, match="part of a network"):
        require_trainable("ResNet50.conv4")
