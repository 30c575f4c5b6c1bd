"""Import: a foreign file becomes a backbone of its own, row by row where it belongs, or is refused whole."""

import csv
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from fakes import spec, write_images

from featstore.api.exchange import export_features, import_features
from featstore.errors import FeatstoreError, NonFiniteFeaturesError, RefusedFileError, UsageError
from featstore.extraction.networks import Networks
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.matrix import load_matrix
from featstore.serialization import digest_file
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

WIDTH = 7


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", 8)


@pytest.fixture
def rows(data):
    """Relative path, image id and a vector of each image, in an order of their own."""
    rng = np.random.default_rng(5)
    records = [scan(data).records[n] for n in rng.permutation(8)]
    values = rng.normal(size=(8, WIDTH)).astype(np.float32)
    return [
        (r.path.relative_to(data.parent).as_posix(), r.id, v) for r, v in zip(records, values, strict=True)
    ]


def write_npz(path, names, values):
    np.savez(path, path=np.array(names), features=values)


def write_compressed(path, names, values):
    np.savez_compressed(path, filenames=np.array(names), embedding=values.astype(np.float64))


def write_hdf5(path, names, values):
    with h5py.File(path, "w") as file:
        file["path"] = np.array([name.encode() for name in names])
        file.create_dataset("deep/features", data=values, compression="gzip")


def write_lists(path, names, values):
    pyarrow.parquet.write_table(pa.table({"path": names, "vector": values.tolist()}), path)


def write_columns(path, names, values):
    columns = {f"f{n}": column for n, column in enumerate(values.T)}
    pyarrow.parquet.write_table(pa.table({"path": names, **columns}), path)


def write_csv(path, names, values):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "path", *range(values.shape[1])])
        writer.writerows(
            ["ill", name, *map(repr, row.tolist())] for name, row in zip(names, values, strict=True)
        )


WRITERS = {
    "npz": ("f.npz", write_npz),
    "compressed npz": ("f.npz", write_compressed),
    "hdf5": ("f.h5", write_hdf5),
    "parquet lists": ("f.parquet", write_lists),
    "parquet columns": ("f.parquet", write_columns),
    "csv": ("f.csv", write_csv),
}


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("by", ["path", "id"])
def test_every_kind_of_file_lands_where_its_rows_belong(data, rows, tmp_path, name, write, by):
    path = tmp_path / name
    write(path, [row[by == "id"] for row in rows], np.array([row[2] for row in rows]))
    found = import_features(data, path, "Theirs", cache="cache")
    assert (found.images, found.dimension, found.without) == (8, WIDTH, 0)
    assert found.weights == f"foreign:{digest_file(path)}"
    matrix = load_matrix(data, cache="cache", backbones=["Theirs"])
    vectors = {image: vector for _, image, vector in rows}
    for record, vector in zip(matrix.records, matrix.features[0], strict=True):
        np.testing.assert_array_equal(vector, vectors[record.id])


def test_imported_vectors_stand_beside_extracted_ones_in_one_matrix(data, rows, tmp_path):
    ids = [record.id for record in scan(data).records]
    own = FeatureKey(spec(), IDENTITY, Decoding(decoder_version()))
    Store(tmp_path / "cache").write(own, ids, np.zeros((8, 12), np.float32))
    write_npz(tmp_path / "f.npz", [row[0] for row in rows], np.array([row[2] for row in rows]))
    import_features(data, "f.npz", "Theirs", cache="cache")
    assert load_matrix(data, cache="cache").backbones == ("Alpha", "Theirs")


@pytest.mark.parametrize("name", ["out.npz", "out.parquet", "out.h5"])
def test_an_export_comes_back_as_the_same_numbers(data, rows, tmp_path, name):
    """The gap file has its rows in two parts, of which one is asked for: there is no test split here."""
    write_npz(tmp_path / "f.npz", [row[0] for row in rows], np.array([row[2] for row in rows]))
    import_features(data, "f.npz", "Theirs", cache="cache")
    export_features(data, name, cache="cache", backbones=["Theirs"])
    named = {"features": "train", "rows": "train_id"} if name.endswith("h5") else {"rows": "id"}
    import_features(data, name, "Again", cache="cache", **named)
    matrix = load_matrix(data, cache="cache", backbones=["Theirs", "Again"])
    np.testing.assert_array_equal(matrix.features[..., :WIDTH], matrix.features[..., WIDTH:])


def test_importing_twice_changes_nothing_and_another_file_needs_another_name(data, rows, tmp_path):
    values = np.array([row[2] for row in rows])
    write_npz(tmp_path / "f.npz", [row[0] for row in rows], values)
    write_npz(tmp_path / "g.npz", [row[0] for row in rows], values + 1)
    import_features(data, "f.npz", "Theirs", cache="cache")
    before = sorted(Path("cache").rglob("*.h5"))
    import_features(data, "f.npz", "Theirs", cache="cache")
    assert sorted(Path("cache").rglob("*.h5")) == before
    with pytest.raises(UsageError, match="with other vectors already"):
        import_features(data, "g.npz", "Theirs", cache="cache")


def test_images_that_the_file_leaves_out_are_counted(data, rows, tmp_path):
    write_npz(tmp_path / "f.npz", [row[0] for row in rows[:5]], np.array([row[2] for row in rows[:5]]))
    assert import_features(data, "f.npz", "Theirs", cache="cache").without == 3
    with pytest.raises(FeatstoreError) as caught:
        load_matrix(data, cache="cache")
    assert "featstore cache import" in caught.value.remedy


def test_a_network_that_was_never_here_cannot_be_loaded(data, rows, tmp_path):
    write_npz(tmp_path / "f.npz", [row[0] for row in rows], np.array([row[2] for row in rows]))
    import_features(data, "f.npz", "Theirs", cache="cache")
    (key,) = Store(tmp_path / "cache").feature_keys()
    with pytest.raises(FeatstoreError, match="was imported"):
        Networks({}, "official").load(key.backbone)


def _spoil(values, at, number):
    values = values.copy()
    values[at, 3] = number
    return values


REFUSED = {
    "a row of no image": (lambda n, v: (["nowhere.png", *n[1:]], v), UsageError, "'nowhere.png'"),
    "two unequal rows of one image": (lambda n, v: ([n[1], *n[1:]], v), UsageError, "second, unequal vector"),
    "a missing row": (lambda n, v: (n, v[1:]), UsageError, "8 row names and features of shape"),
    "NaN": (lambda n, v: (n, _spoil(v, 2, np.nan)), NonFiniteFeaturesError, "1 rows hold NaN"),
    "infinity": (lambda n, v: (n, _spoil(v, 2, np.inf)), NonFiniteFeaturesError, "1 rows hold NaN"),
    "too large for float32": (
        lambda n, v: (n, _spoil(v.astype(np.float64), 0, 1e39)),
        NonFiniteFeaturesError,
        "more than float32 can",
    ),
    "no columns": (lambda n, v: (n, v[:, :0]), UsageError, "shape"),
    "one dimension": (lambda n, v: (n, v[:, 0]), UsageError, "no block of numbers"),
    "a climb out of the data": (lambda n, v: ([f"../data/{n[0]}", *n[1:]], v), UsageError, "no single image"),
}


@pytest.mark.parametrize(("change", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_whole_and_named(data, rows, tmp_path, change, error, words):
    names, values = change([row[0] for row in rows], np.array([row[2] for row in rows]))
    write_npz(tmp_path / "f.npz", names, values)
    with pytest.raises(error, match=words):
        import_features(data, "f.npz", "Theirs", cache="cache")
    assert Store(tmp_path / "cache").feature_keys() == []


@pytest.mark.parametrize("name", ["Xception", "../up", "a b", "", "7up", ".hidden"])
def test_a_name_that_is_taken_or_is_no_name_is_refused(data, tmp_path, name):
    write_npz(tmp_path / "f.npz", ["x"], np.ones((1, 2)))
    with pytest.raises(UsageError):
        import_features(data, "f.npz", name, cache="cache")


def _pickled(path):
    np.savez(
        path.with_suffix(".npz"), path=np.array(["x"]), features=np.array([[{}]], object), allow_pickle=True
    )
    return path.with_suffix(".npz")


def _announcing(path):
    """A header that promises 16 TiB above a few bytes."""
    path = path.with_suffix(".npz")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4398046511104, 1), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "features.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"1234"
        )
    return path


def _torn(path):
    path = path.with_suffix(".npz")
    np.savez(path, features=np.ones((4, 4)))
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _external(path):
    """Raw data that lies in another file."""
    path = path.with_suffix(".h5")
    path.with_name("secret").write_bytes(os.urandom(32))
    with h5py.File(path, "w") as file:
        file["path"] = np.array([b"x"])
        file.create_dataset("features", (1, 8), "<f4", external=[(str(path.with_name("secret")), 0, 32)])
    return path


def _linked(path):
    path = path.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink("/etc/passwd", "/")
    return path


def _ragged(path):
    path = path.with_suffix(".parquet")
    pyarrow.parquet.write_table(pa.table({"path": ["a", "b"], "v": [[1.0, 2.0], [3.0]]}), path)
    return path


def _words(path):
    path = path.with_suffix(".csv")
    path.write_text("path,f0\na.png,=cmd()\n")
    return path


def _short_line(path):
    path = path.with_suffix(".csv")
    path.write_text("path,f0,f1\na.png,1.0\n")
    return path


def _garbage(path):
    path = path.with_suffix(".parquet")
    path.write_bytes(b"PAR1" + bytes(100))
    return path


@pytest.mark.parametrize(
    "make", [_pickled, _announcing, _torn, _external, _linked, _ragged, _words, _short_line, _garbage]
)
def test_a_hostile_or_damaged_file_is_refused_in_one_line(data, tmp_path, make):
    path = make(tmp_path / "f")
    with pytest.raises((RefusedFileError, UsageError)) as caught:
        import_features(data, path, "Theirs", cache="cache")
    assert "\n" not in caught.value.cause
    assert not (tmp_path / "cache").exists()


def test_a_gap_file_of_another_script_has_no_names_and_is_refused_with_the_reason(data, tmp_path):
    with h5py.File(tmp_path / "gap_ResNet50.h5", "w") as file:
        file["train"], file["test"], file["label"] = (
            np.ones((8, 4), "f4"),
            np.ones((2, 4), "f4"),
            np.ones(8, "i4"),
        )
    with pytest.raises(UsageError, match="no column of image ids or paths"):
        import_features(data, "gap_ResNet50.h5", "Theirs", features="train", cache="cache")
    with pytest.raises(UsageError, match="the file has: test, train"):
        import_features(data, "gap_ResNet50.h5", "Theirs", cache="cache")
