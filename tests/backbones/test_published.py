"""What lies in Keras' folder is taken for ImageNet weights only if it is the file that was published."""

import hashlib

import pytest

from featstore.backbones import catalog
from featstore.backbones import weights as published
from featstore.backbones.weights import (
    IMAGENET,
    digests,
    keras_models_folder,
    packaged,
    require_published,
    resolve_weights,
)
from featstore.errors import WeightsError

UNPUBLISHED = {"ResNet50V2", "ResNet101V2", "ResNet152V2", "MobileNet", "MobileNetV2", "MobileNet025"}
"""Keras' source has no digest of them."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras_models_folder().mkdir(parents=True)

    def put(name, content=b"doctored"):
        path = keras_models_folder() / catalog.row(name).weights_file
        path.write_bytes(content)
        return path

    return put


@pytest.mark.parametrize("name", [n for n in catalog.names() if not packaged(catalog.row(n))])
def test_another_file_under_the_name_is_refused_or_said_for_every_network(name, place, caplog):
    published._log_unknown_digest.cache_clear()
    path = place(name)
    if name in UNPUBLISHED:
        assert resolve_weights(catalog.row(name)).path == path
        assert "no digest" in caplog.text
        assert hashlib.sha256(b"doctored").hexdigest() in caplog.text
        return
    with pytest.raises(WeightsError, match="is not the file that was published") as caught:
        resolve_weights(catalog.row(name))
    assert str(path) in caught.value.cause
    assert not caplog.text


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_published_file_is_taken_and_one_that_takes_its_place_is_not(kind, place, monkeypatch):
    good = frozenset({hashlib.new(kind, b"published").hexdigest()})
    monkeypatch.setattr(published, "digests", lambda _: good)
    path = place("Xception", b"published")
    assert resolve_weights(catalog.row("Xception")).path == path
    place("Xception", b"publishes")
    with pytest.raises(WeightsError, match="not the file"):
        resolve_weights(catalog.row("Xception"))


def test_the_file_is_taken_by_name_if_the_user_says_so(place):
    path = place("Xception", b"\x89HDF\r\n\x1a\n")
    assert resolve_weights(catalog.row("Xception"), str(path)).source != IMAGENET


def test_packaged_weights_bear_their_digest_in_their_name(tmp_path):
    row = catalog.row("EfficientNetLite0")
    assert resolve_weights(row).path.name == row.weights_file
    with pytest.raises(WeightsError, match="not the file"):
        require_published(row, tmp_path / row.weights_file, "0" * 64)


def test_digests_are_of_the_networks_own_module():
    assert digests("Xception").isdisjoint(digests("VGG19"))
    assert digests("no_such_network") == frozenset()
