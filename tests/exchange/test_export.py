"""Export: what other people's tools read is what load_matrix gives, aligned, named and whole."""

import json
import os
import stat
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
from fakes import spec, write_images

from featstore.api.exchange import export_features
from featstore.errors import MissingFeaturesError, StoreError, UsageError
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey, View

VIEW = View("flip(h)", 3)
SPECS = [spec("Alpha"), spec("Beta", dimension=5)]


def vector(image, identity, view):
    """A vector that is known from its image, backbone and view."""
    return [int(image[:5], 16) + 1000 * view.seed + len(identity.name) + d for d in range(identity.dimension)]


@pytest.fixture
def data(tmp_path):
    """Eight images, stored in reverse order; the last two are for testing."""
    data = write_images(tmp_path / "data", 8)
    head, *lines = data.read_text().splitlines()
    splits = ["train"] * 6 + ["test"] * 2
    data.write_text("\n".join([f"{head},split", *(f"{a},{b}" for a, b in zip(lines, splits, strict=True))]))
    ids = [record.id for record in scan(data).records][::-1]
    for view in (IDENTITY, VIEW):
        for identity in SPECS:
            rows = np.array([vector(i, identity, view) for i in ids], np.float32)
            Store(tmp_path / "cache").write(
                FeatureKey(identity, view, Decoding(decoder_version())), ids, rows
            )
    return data


def expected(data, identity, view=IDENTITY):
    return np.array([vector(r.id, identity, view) for r in scan(data).records], np.float32)


def test_npz_is_loadable_without_pickle_and_names_every_row_and_block(data, tmp_path):
    found = export_features(data, "out.npz", cache=tmp_path / "cache")
    assert (found.images, found.backbones, found.format) == (8, {"Alpha": 12, "Beta": 5}, "npz")
    records = scan(data).records
    with np.load("out.npz", allow_pickle=False) as arrays:
        for identity in SPECS:
            np.testing.assert_array_equal(arrays[f"features/{identity.name}"], expected(data, identity))
        assert arrays["id"].tolist() == [r.id for r in records]
        assert arrays["path"].tolist() == [r.path.relative_to(data.parent).as_posix() for r in records]
        assert (
            arrays["classes"][arrays["y"]].tolist() == arrays["label"].tolist() == [r.label for r in records]
        )
        assert arrays["group"].tolist() == [r.group for r in records]
        assert arrays["split"].tolist() == [r.split for r in records]
        told = json.loads(str(arrays["provenance"]))
    assert [b["weights"] for b in told["backbones"]] == ["random:0", "random:0"]


def test_parquet_has_a_list_column_per_backbone(data, tmp_path):
    export_features(data, "out.parquet", cache=tmp_path / "cache", seed=3)
    table = pyarrow.parquet.read_table("out.parquet")
    assert table.column_names == ["id", "path", "label", "group", "split", "y", "Alpha", "Beta"]
    for identity in SPECS:
        found = np.array(table[identity.name].to_pylist(), np.float32)
        np.testing.assert_array_equal(found, expected(data, identity, VIEW))
    assert json.loads(table.schema.metadata[b"featstore"])["view"] == {"recipe": "flip(h)", "seed": 3}


def test_the_scripts_of_this_field_can_read_a_gap_file(data, tmp_path):
    """Word for word what those scripts do: concatenate train and test, and take the label of the last file."""
    export_features(data, "features", cache=tmp_path / "cache")
    X_train, X_test = [], []
    for filename in ["features/gap_Alpha.h5", "features/gap_Beta.h5"]:
        with h5py.File(filename, "r") as h:
            X_train.append(np.array(h["train"]))
            X_test.append(np.array(h["test"]))
            y_train = np.array(h["label"])
    X_train, X_test = np.concatenate(X_train, axis=1), np.concatenate(X_test, axis=1)
    whole = np.hstack([expected(data, identity) for identity in SPECS])
    np.testing.assert_array_equal(X_train, whole[:6])
    np.testing.assert_array_equal(X_test, whole[6:])
    records = scan(data).records
    assert y_train.tolist() == [["ill", "well"].index(r.label) for r in records[:6]]
    with h5py.File("features/gap_Alpha.h5", "r") as h:
        assert [i.decode() for i in h["test_id"]] == [r.id for r in records[6:]]
        assert [g.decode() for g in h["train_group"]] == [r.group for r in records[:6]]


def test_one_backbone_may_be_one_file(data, tmp_path):
    found = export_features(data, "mine.h5", cache=tmp_path / "cache", backbones=["Beta"])
    assert found.files == ("mine.h5",)
    with pytest.raises(UsageError, match="2 backbones"):
        export_features(data, "other.h5", cache=tmp_path / "cache")


def test_equal_features_give_equal_hdf5(data, tmp_path):
    for name in ("one", "two"):
        export_features(data, name, cache=tmp_path / "cache")
    assert (tmp_path / "one/gap_Beta.h5").read_bytes() == (tmp_path / "two/gap_Beta.h5").read_bytes()


def test_what_is_there_is_only_replaced_when_told(data, tmp_path):
    (tmp_path / "out.npz").write_text("precious")
    with pytest.raises(UsageError, match="there already"):
        export_features(data, "out.npz", cache=tmp_path / "cache")
    assert (tmp_path / "out.npz").read_text() == "precious"
    export_features(data, "out.npz", cache=tmp_path / "cache", overwrite=True)
    assert np.load("out.npz")["y"].shape == (8,)


def test_a_file_is_there_whole_or_not_at_all(data, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        export_features(data, "out.npz", cache=tmp_path / "cache")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "data"]


@pytest.mark.parametrize("out", ["out.npz", "out.parquet", "gap"])
def test_an_export_is_for_its_owner_alone_even_if_it_replaces_a_public_file(data, tmp_path, out):
    def permissions():
        return {stat.S_IMODE(Path(name).stat().st_mode) for name in found.files}

    before = os.umask(0)  # nothing but the export itself keeps others out
    try:
        found = export_features(data, out, cache=tmp_path / "cache")
        assert permissions() == {0o600}
        for name in found.files:
            Path(name).chmod(0o644)
        export_features(data, out, cache=tmp_path / "cache", overwrite=True)
    finally:
        os.umask(before)
    assert permissions() == {0o600}
    if out == "gap":
        assert stat.S_IMODE(Path(out).stat().st_mode) == 0o700


def test_a_file_that_cannot_be_replaced_stays_as_it_was(data, tmp_path, monkeypatch):
    export_features(data, "out.npz", cache=tmp_path / "cache")
    before = Path("out.npz").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"Cannot write [\d,]+ bytes to out.npz: No space left"):
        export_features(data, "out.npz", cache=tmp_path / "cache", overwrite=True)
    assert Path("out.npz").read_bytes() == before


def test_an_image_without_a_vector_stops_the_export(data, tmp_path):
    more = write_images(tmp_path / "data", 10, seed=0)
    with pytest.raises(MissingFeaturesError):
        export_features(more, "out.npz", cache=tmp_path / "cache")
    assert not (tmp_path / "out.npz").exists()


def test_an_unknown_format_names_the_known_ones(data, tmp_path):
    with pytest.raises(UsageError) as caught:
        export_features(data, "out.pkl", cache=tmp_path / "cache")
    assert "npz, parquet, gap" in caught.value.remedy


def test_without_pyarrow_the_remedy_names_the_extra(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as caught:
        export_features(data, "out.parquet", cache=tmp_path / "cache")
    assert "featstore[parquet]" in caught.value.remedy
