"""A kept model finds the very weights that it was fitted with, and downloads no others."""

import pytest

from featstore.backbones import catalog
from featstore.backbones.weights import find_weights
from featstore.errors import WeightsError
from featstore.serialization import digest_bytes
from featstore.types import BackboneSpec

NAME = "MobileNetV2"
MAGIC = b"\x89HDF\r\n\x1a\n"
OWN, OTHER = MAGIC + b"own", MAGIC + b"other"


def sha(content):
    return f"sha256:{digest_bytes(content)}"


def spec(weights, name=NAME):
    return BackboneSpec(name, weights, 224, "official", 1280)


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_official_weights_that_are_here_are_taken_by_name(models):
    (models / catalog.row(NAME).weights_file).write_bytes(OWN)
    assert find_weights(spec(sha(OWN)), {}) == "imagenet"


def test_a_file_that_bears_the_name_is_found_by_its_digest(models, tmp_path):
    (models / catalog.row(NAME).weights_file).write_bytes(OTHER)
    (models / "mobilenet_v2_of_mine.h5").write_bytes(OWN)
    assert find_weights(spec(sha(OWN)), {}) == str(models / "mobilenet_v2_of_mine.h5")
    beside = tmp_path / "finetune"
    beside.mkdir()
    (beside / f"{NAME}.weights.h5").write_bytes(MAGIC + b"tuned")
    assert find_weights(spec(sha(MAGIC + b"tuned")), {}, [beside]) == str(beside / f"{NAME}.weights.h5")


def test_a_file_that_is_named_must_have_the_digest(models, tmp_path):
    (tmp_path / "own.h5").write_bytes(OWN)
    (tmp_path / "other.h5").write_bytes(OTHER)
    assert find_weights(spec(sha(OWN)), {NAME: f"{tmp_path}/own.h5"}) == f"{tmp_path}/own.h5"
    with pytest.raises(WeightsError, match=sha(OTHER)) as caught:
        find_weights(spec(sha(OWN)), {NAME: f"{tmp_path}/other.h5"})
    assert sha(OWN) in caught.value.cause
    assert f"--weights {NAME}=" in caught.value.remedy


def test_without_them_the_digest_is_asked_for_and_a_download_needs_a_word(models):
    with pytest.raises(WeightsError, match=sha(OWN)) as caught:
        find_weights(spec(sha(OWN)), {})
    assert f"--weights {NAME}=PATH" in caught.value.remedy
    assert f"--weights {NAME}=imagenet" in caught.value.remedy
    assert find_weights(spec(sha(OWN)), {NAME: "imagenet"}) == "imagenet", "the remedy, followed literally"


def test_where_the_official_ones_are_others_nobody_is_sent_for_them(models):
    (models / catalog.row(NAME).weights_file).write_bytes(OTHER)
    with pytest.raises(WeightsError, match=sha(OTHER)) as caught:
        find_weights(spec(sha(OWN)), {})
    assert "imagenet" not in caught.value.remedy
    with pytest.raises(WeightsError, match="are others"):
        find_weights(spec(sha(OWN)), {NAME: "imagenet"})


def test_random_weights_are_drawn_again_by_the_same_keras_alone(models):
    from importlib.metadata import version

    here = f"random:7 keras {version('keras')}"
    assert find_weights(spec(here), {}) == "random:7"
    assert find_weights(spec(here), {"*": "random:7"}) == "random:7"
    with pytest.raises(WeightsError, match="random:8 are others"):
        find_weights(spec(here), {NAME: "random:8"})
    with pytest.raises(WeightsError, match="draws other ones") as caught:
        find_weights(spec("random:7 keras 3.0.0"), {})
    assert "keras==3.0.0" in caught.value.remedy
