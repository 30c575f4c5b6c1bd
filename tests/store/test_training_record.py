"""What weights have learned from: inside their file, beside their vectors, and nothing else in its place."""

import json

import h5py
import numpy as np
import pytest
from fakes import spec
from hypothesis import given
from hypothesis import strategies as st

from featstore import serialization as document
from featstore.errors import RefusedFileError, StoreError
from featstore.store.training_record import (
    TrainingRecord,
    load_training_record,
    read_from_weights,
    save_training_record,
    write_to_weights,
)

WEIGHTS = f"sha256:{'ab' * 32}"
IDS = st.frozensets(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=20)
ONE, TWO = "00" * 32, "ff" * 31 + "00"


def weights_file(path):
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.eye(3)
    return path


@given(IDS, IDS)
def test_ids_come_back_from_the_weights_file_and_from_the_cache(tmp_path_factory, trained, validated):
    folder = tmp_path_factory.mktemp("learned")
    path = weights_file(folder / "x.weights.h5")
    learned = TrainingRecord(WEIGHTS, trained, validated, validated, trained, frozenset(), trained, ONE)
    write_to_weights(path, learned)
    assert read_from_weights(path, WEIGHTS) == learned
    backbone = spec(weights=WEIGHTS)
    save_training_record(folder, backbone, learned)
    assert load_training_record(folder, backbone) == learned


def test_equal_ids_are_equal_bytes_in_any_order(tmp_path):
    paths = [weights_file(tmp_path / f"{n}.weights.h5") for n in "ab"]
    for path, ids in zip(paths, ([ONE, TWO], [TWO, ONE]), strict=True):
        write_to_weights(path, TrainingRecord("", frozenset(ids), frozenset()))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_weights_that_were_not_tuned_have_no_record(tmp_path):
    assert read_from_weights(weights_file(tmp_path / "x.weights.h5"), WEIGHTS) is None
    (tmp_path / "cut.weights.h5").write_bytes((tmp_path / "x.weights.h5").read_bytes()[:100])
    assert read_from_weights(tmp_path / "cut.weights.h5", WEIGHTS) is None
    assert load_training_record(tmp_path, spec()) is None


def test_a_record_of_the_first_format_still_says_what_it_said(tmp_path):
    path, backbone = weights_file(tmp_path / "x.weights.h5"), spec(weights=WEIGHTS)
    with h5py.File(path, "r+") as file:
        for name, image in (("trained", ONE), ("validated", TWO)):
            file[f"featstore/{name}"] = np.frombuffer(bytes.fromhex(image), np.uint8)[None]
    old = read_from_weights(path, WEIGHTS)
    assert old == TrainingRecord(WEIGHTS, frozenset([ONE]), frozenset([TWO]))
    save_training_record(tmp_path, backbone, old)
    (page,) = tmp_path.glob("features/*/learned.json")
    content = {"weights": WEIGHTS, "trained": [ONE], "validated": [TWO]}
    page.write_text(json.dumps(document.seal(content)))
    assert load_training_record(tmp_path, backbone) == old
    assert (old.known.pixels, old.known.groups) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    "change", [{"salt": [ONE, TWO]}, {"trained_pixels": ["x"]}, {"format": 3, "more": []}]
)
def test_a_page_that_is_no_record_closes_the_door(tmp_path, change):
    backbone = spec(weights=WEIGHTS)
    save_training_record(tmp_path, backbone, TrainingRecord(WEIGHTS, frozenset([ONE]), frozenset()))
    (page,) = tmp_path.glob("features/*/learned.json")
    content = document.unseal(json.loads(page.read_text()))
    page.write_text(json.dumps(document.seal(content | change)))
    with pytest.raises(StoreError, match="learned from"):
        load_training_record(tmp_path, backbone)


def soft(file):
    file["featstore/trained"] = h5py.SoftLink("/layers/dense/vars/0")


def external(file):
    file["featstore/trained"] = h5py.ExternalLink("elsewhere.h5", "/x")


def floats(file):
    file["featstore/trained"] = file["featstore/validated"] = np.eye(32)


def endless(file):
    for name in ("trained", "validated"):
        file.create_dataset(f"featstore/{name}", (1 << 40, 32), np.uint8, chunks=(1024, 32))


def group(file):
    file.create_group("featstore/trained")


@pytest.mark.parametrize("forge", [soft, external, floats, endless, group])
def test_what_is_no_record_is_refused(tmp_path, forge):
    path = weights_file(tmp_path / "x.weights.h5")
    with h5py.File(path, "r+") as file:
        forge(file)
    with pytest.raises(RefusedFileError):
        read_from_weights(path, WEIGHTS)


def test_a_record_of_other_weights_is_no_record_of_these(tmp_path):
    backbone, other = spec(weights=WEIGHTS), f"sha256:{'cd' * 32}"
    save_training_record(tmp_path, backbone, TrainingRecord(other, frozenset([ONE]), frozenset()))
    with pytest.raises(StoreError, match="other weights"):
        load_training_record(tmp_path, backbone)
    right = TrainingRecord(WEIGHTS, frozenset([TWO]), frozenset())
    save_training_record(tmp_path, backbone, right)
    assert load_training_record(tmp_path, backbone) == right
