"""Weights: what a choice means, what is refused, and how the command line spells it."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.backbones import catalog, weights
from featstore.backbones.weights import (
    EVERY_BACKBONE,
    Weights,
    choice_for,
    keras_models_folder,
    parse_weights_options,
    resolve_weights,
)
from featstore.errors import UnknownNameError, UsageError, WeightsError

XCEPTION = catalog.row("Xception")
HDF5 = b"\x89HDF\r\n\x1a\n"


def test_random_weights_are_named_by_seed_and_keras_version():
    version = importlib.metadata.version("keras")

    assert resolve_weights(XCEPTION, "random:12") == Weights("random", None, 12, f"random:12 keras {version}")


@pytest.mark.parametrize("choice", ["random:", "random:x", "random:-1", "random:1.5", "random:1234567890"])
def test_random_weights_need_a_seed(choice):
    with pytest.raises(UsageError, match="has no seed"):
        resolve_weights(XCEPTION, choice)


@settings(deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".h5", ".weights.h5"]))
def test_a_local_file_is_named_by_the_sha256_of_its_bytes(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("weights") / f"mine{suffix}"
    path.write_bytes(HDF5 + content)

    found = resolve_weights(XCEPTION, str(path))

    assert found == Weights("file", path, None, f"sha256:{hashlib.sha256(HDF5 + content).hexdigest()}")


def test_imagenet_weights_still_to_be_downloaded_have_no_digest(keras_home):
    assert resolve_weights(XCEPTION, "imagenet") == Weights("imagenet", None, None, None)


def test_imagenet_weights_in_keras_cache_are_found_without_keras(keras_home, monkeypatch):
    """Whether they are those that were published is another test's."""
    monkeypatch.setattr(weights, "require_published", lambda *_: None)
    cached = keras_home / "models" / XCEPTION.weights_file
    cached.write_bytes(HDF5 + b"kernels")

    found = resolve_weights(XCEPTION)

    assert found.path == cached
    assert found.digest == f"sha256:{hashlib.sha256(HDF5 + b'kernels').hexdigest()}"


def test_the_cache_folder_is_the_one_that_keras_itself_uses():
    from keras.src.backend import config

    assert keras_models_folder() == Path(config.keras_home()).expanduser() / "models"


@pytest.mark.slow
def test_the_cache_folder_follows_the_environment_as_that_of_keras_does(run_python, tmp_path):
    script = """
from featstore.backbones.weights import keras_models_folder
found = keras_models_folder()
from keras.src.backend import config
print(found == __import__("pathlib").Path(config.keras_home()).expanduser() / "models")
"""
    assert run_python(script, KERAS_HOME=str(tmp_path)) == "True\n"


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_lite_weights_come_with_their_package_and_carry_their_own_checksum(variant):
    row = catalog.row(f"EfficientNetLite{variant}")

    found = resolve_weights(row)

    # torch.hub ends a file's name with the first eight digits of its SHA-256: a reference of the file's author.
    assert found.path.stem.endswith(f"-{found.digest.removeprefix('sha256:')[:8]}")
    assert found.path.name == row.weights_file


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model.keras", "whole model"),
        ("model.pkl", "pickle"),
        ("model.PICKLE", "pickle"),
        ("model.joblib", "pickle"),
        ("model.pt", "pickle"),
        ("model.pth", "pickle"),
        ("model.ckpt", "not a kind of weights file"),
        ("model", "not a kind of weights file"),
    ],
)
def test_files_that_could_run_code_or_cannot_be_read_are_refused_with_the_reason(tmp_path, name, why):
    path = tmp_path / name
    path.write_bytes(HDF5)

    with pytest.raises(WeightsError, match=why) as error:
        resolve_weights(XCEPTION, str(path))

    assert "model.save_weights" in error.value.remedy


def test_only_lite_reads_torch_weights(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"torch")

    assert resolve_weights(catalog.row("EfficientNetLite1"), str(path)).path == path


@pytest.mark.parametrize("folder", [False, True], ids=["absent", "folder"])
def test_a_path_without_a_file_is_refused(tmp_path, folder):
    path = tmp_path / "mine.h5"
    if folder:
        path.mkdir()

    with pytest.raises(WeightsError, match="there is no weights file"):
        resolve_weights(XCEPTION, str(path))


def test_a_git_lfs_pointer_is_not_taken_for_weights(tmp_path):
    path = tmp_path / "mine.h5"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 83683744\n")

    with pytest.raises(WeightsError, match="not an HDF5 file") as error:
        resolve_weights(XCEPTION, str(path))

    assert "Git-LFS" in error.value.remedy


def test_a_row_without_published_weights_asks_for_a_file():
    row = catalog.Row("AcmeNet", "acme:build", "acme:preprocess", 96, 12, 0.5)

    with pytest.raises(WeightsError) as error:
        resolve_weights(row)

    assert "--weights AcmeNet=PATH.h5" in error.value.remedy


NAMES = catalog.names()
CHOICES = st.one_of(
    st.just("imagenet"),
    st.integers(0, 999_999_999).map("random:{}".format),
    st.sampled_from(["a.h5", "~/b.weights.h5", "c=d.h5", "/e/f=g/h.h5", "./i", "C:\\j.h5"]),
)


@settings(deadline=None)
@given(choices=st.dictionaries(st.sampled_from(NAMES), CHOICES), bare=st.none() | CHOICES)
def test_weights_options_give_every_backbone_its_own_choice_or_the_common_one(choices, bare):
    if bare is not None and "=" in bare.split("/")[0]:
        bare = f"./{bare}"  # a bare c=d.h5 speaks of a backbone c
    options = [f"{name}={choice}" for name, choice in choices.items()] + ([bare] if bare else [])

    parsed = parse_weights_options(options)

    assert parsed == choices | ({EVERY_BACKBONE: bare} if bare else {})
    for name in NAMES:
        assert choice_for(name, parsed) == choices.get(name, bare or "imagenet")


@pytest.mark.parametrize(
    "option",
    ["", "Xception", "Xception=", "=a.h5", "random", "random:", "random:-1", "random:x", "Xception=noise"],
)
def test_an_option_of_neither_shape_is_refused(option):
    with pytest.raises(UsageError, match="neither NAME=CHOICE nor CHOICE") as error:
        parse_weights_options([option])

    assert "--weights Xception=weights.h5" in error.value.remedy


def test_a_misspelt_backbone_does_not_silently_fall_back_to_imagenet():
    with pytest.raises(UnknownNameError, match="'xception'"):
        parse_weights_options(["xception=a.h5"])


@pytest.mark.parametrize("twice", [["Xception=a.h5", "Xception=b.h5"], ["random:1", "imagenet"]])
def test_two_choices_for_the_same_backbone_are_refused(twice):
    with pytest.raises(UsageError, match="given twice"):
        parse_weights_options(twice)
