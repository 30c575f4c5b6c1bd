"""Import takes features, and says so: no row number, no label, no text, whatever the kind of file."""

import csv
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from commandline import featstore
from fakes import write_images
from hypothesis import given
from hypothesis import strategies as st

from featstore.api.exchange import import_features
from featstore.errors import FeatstoreError, UsageError
from featstore.exchange.reading import counts_rows, doubtful_reason, select_features, tells_class
from featstore.images.scan import scan
from featstore.matrix import load_matrix
from featstore.reporting.terminal.results import import_text

N = 16
FEATURES = [f"f{k}" for k in range(5)]


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", N, classes=("cat", "dog"))


@pytest.fixture
def names(data):
    return sorted(r.path.relative_to(data.parent).as_posix() for r in scan(data).records)


@pytest.fixture
def values():
    return np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)


def as_csv(path, columns):
    path = path.with_suffix(".csv")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def as_parquet(path, columns):
    path = path.with_suffix(".parquet")
    pyarrow.parquet.write_table(pa.table({k: list(v) for k, v in columns.items()}), path)
    return path


def _block(columns):
    block = np.column_stack(
        [np.asarray(v, np.float64) for v in columns.values() if not isinstance(v[0], str)]
    )
    texts = {k or "text": np.array(v) for k, v in columns.items() if isinstance(v[0], str)}
    return block, texts


def as_npz(path, columns):
    block, texts = _block(columns)
    np.savez(path.with_suffix(".npz"), features=block, **texts)
    return path.with_suffix(".npz")


def as_hdf5(path, columns):
    block, texts = _block(columns)
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["features"] = block
        for name, text in texts.items():
            file[name] = np.char.encode(text)
    return path.with_suffix(".h5")


WRITERS = {"csv": as_csv, "parquet": as_parquet, "npz": as_npz, "hdf5": as_hdf5}
CLASS = [0] * 8 + [1] * 8
SHUFFLED = [5, 3, 0, 9, 12, 1, 2, 15, 4, 6, 8, 7, 10, 11, 14, 13]
BAD = {
    "row numbers": range(N),
    "from one": range(1, N + 1),
    "backwards": range(N, 0, -1),
    "in steps": range(100, 100 + 7 * N, 7),
    "shuffled": SHUFFLED,
    "rising": [0.1 * k * k for k in range(N)],
    "class index": CLASS,
    "class index from one": [c + 1 for c in CLASS],
    "one class hot": [float(not c) for c in CLASS],
    "grade": [c * 2 + k % 2 for k, c in enumerate(CLASS)],
    "with gaps, shuffled": [5, 3, 0, 9, 12, 1, 2, 19, 4, 6, 8, 7, 17, 11, 14, 13],
    "patient": [100 * c + k // 2 * 37 % 11 for k, c in enumerate(CLASS)],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_columns_that_count_or_tell_the_class_are_left_out_and_named(
    data, names, values, tmp_path, write, bad
):
    columns = {"filename": names, "extra": list(bad), **dict(zip(FEATURES, values.T.tolist(), strict=True))}
    path = write(tmp_path / "f", columns)
    result = import_features(data, path, "Theirs", cache="cache")
    assert result.dimension == 5
    (name,) = result.unused
    assert name in {"extra", "features.0"}
    vectors = {record.path.name: row for record, row in _rows(data)}
    for file, row in zip(names, values, strict=True):
        np.testing.assert_array_equal(vectors[Path(file).name], row)


def _rows(data):
    matrix = load_matrix(data, cache="cache")
    return zip(matrix.records, matrix.features[0], strict=True)


@pytest.mark.parametrize(
    "header",
    [
        "", "Unnamed: 0", "label", "Class", "TARGET", "y", "split", "fold", "Patient ID", "label_enc", "true_label",
        "y_prob", "isDog", "p_cat", "cat_prob", "probability", "subj", "slice_no", "mtime", "acq_date", "noisy_label",
    ],
)  # fmt: skip
def test_a_column_without_a_name_or_called_like_a_label_is_no_feature(data, names, values, tmp_path, header):
    noise = np.random.default_rng(9).normal(size=N).tolist()
    columns = {header: noise, "filename": names, **dict(zip(FEATURES, values.T.tolist(), strict=True))}
    result = import_features(data, as_csv(tmp_path / "f", columns), "Theirs", cache="cache")
    assert (result.dimension, result.columns) == (5, "5 columns: f0 … f4")
    assert list(result.unused) == [header or "(column 1)"]


@pytest.mark.parametrize(
    "header", ["dog_17", "glcm_Id", "class_token_3", "wavelet-LLH_glszm_LabelMean", "x", "7"]
)
def test_a_column_that_only_sounds_a_little_like_one_is_a_feature(data, names, values, tmp_path, header):
    noise = np.random.default_rng(9).normal(size=N).tolist()
    columns = {header: noise, "filename": names, **dict(zip(FEATURES, values.T.tolist(), strict=True))}
    result = import_features(data, as_csv(tmp_path / "f", columns), "Theirs", cache="cache")
    assert (result.dimension, result.unused, result.telling) == (6, {}, ())


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_column_that_tells_every_image_s_class_is_named(tmp_path, write):
    data = write_images(tmp_path / "data", 40, classes=("cat", "dog"))
    names = sorted(r.path.relative_to(data.parent).as_posix() for r in scan(data).records)
    label = {r.path.relative_to(data.parent).as_posix(): r.label for r in scan(data).records}
    noise = np.random.default_rng(3).normal(size=(5, 40)).astype(np.float32)
    leak = [
        float(label[name] == "dog") + 0.01 * at for name, at in zip(names, noise[0].tolist(), strict=True)
    ]
    columns = {"filename": names, "v": leak, **dict(zip(FEATURES, noise.tolist(), strict=True))}
    path = write(tmp_path / "f", columns)
    result = import_features(data, path, "Theirs", cache="cache")
    (name,) = result.telling
    assert f"--ignore {name} and another --name." in " ".join(import_text(result).split())
    again = import_features(data, path, "Two", cache="cache", ignore=[name])
    assert (again.dimension, again.telling) == (5, ())


def test_the_text_names_what_was_taken_and_what_was_not(data, names, values, tmp_path):
    columns = {
        "": range(N),
        "filename": names,
        "class": [n.split("/")[0] for n in names],
        "scanner": ["GE"] * N,
    }
    columns |= dict(zip(FEATURES, values.T.tolist(), strict=True))
    path = as_csv(tmp_path / "f", columns)
    done = featstore("cache", "import", data, path, "--name", "Theirs", "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    told = " ".join(done.out.split())  # wherever a line ends
    assert "16 vectors of 5 numbers are stored as Theirs." in told
    assert "Taken: 5 columns: f0 … f4." in told
    assert "(column 1) (it has no name, as row numbers have)" in told
    assert "class (no numbers: 'cat')" in told
    assert "scanner (no numbers: 'GE')" in told
    again = featstore(
        "cache", "import", data, path, "--name", "Two", "--cache", tmp_path / "cache", "--json",
        "--features", "f*", "--ignore", "f1,f4",
    )  # fmt: skip
    assert again.json["dimension"] == 3
    assert again.json["unused"]["f1"] == "--ignore"


def test_columns_that_are_named_are_taken_with_a_warning(data, names, values, tmp_path):
    columns = {"filename": names, "age": CLASS, **dict(zip(FEATURES, values.T.tolist(), strict=True))}
    path = as_csv(tmp_path / "f", columns)
    result = import_features(data, path, "Theirs", features="age,f2", cache="cache")
    assert (result.dimension, result.columns) == (2, "2 columns: age … f2")
    assert result.doubtful == {"age": "its values tell the class"}
    assert "warning: taken because they were named: age (its values tell the class)." in import_text(result)
    assert set(result.unused) == {"f0", "f1", "f3", "f4"}


@pytest.mark.parametrize("write", [as_npz, as_hdf5])
def test_columns_of_a_block_have_names_too(data, names, values, tmp_path, write):
    path = write(
        tmp_path / "f",
        {"filename": names, "bad": CLASS, **dict(zip(FEATURES, values.T.tolist(), strict=True))},
    )
    assert import_features(data, path, "A", cache="cache", features="features").columns == (
        "5 columns: features.1 … features.5"
    )
    assert import_features(data, path, "B", cache="cache", features="features.*").dimension == 6
    assert import_features(data, path, "C", cache="cache", features="features.0,features.2").dimension == 2
    assert import_features(data, path, "D", cache="cache", ignore=["features.5"]).dimension == 4
    assert import_features(data, path, "F", cache="cache", ignore="features.5,features.4").dimension == 3
    with pytest.raises(UsageError, match=r"--ignore names 'nothing'"):
        import_features(data, path, "E", cache="cache", ignore=["nothing"])


def test_other_arrays_of_an_archive_are_named_as_not_used(data, names, values, tmp_path):
    np.savez(
        tmp_path / "f.npz", features=values, filenames=np.array(names), labels=np.array(CLASS), other=values
    )
    result = import_features(data, tmp_path / "f.npz", "Theirs", features="features", cache="cache")
    assert set(result.unused) == {"labels", "other"}
    assert result.dimension == 5


def test_a_file_of_labels_alone_is_refused_with_their_names(data, names, tmp_path):
    path = as_csv(tmp_path / "f", {"filename": names, "": range(N), "label": CLASS})
    with pytest.raises(UsageError, match=r"No column of features is left: .*label") as caught:
        import_features(data, path, "Theirs", cache="cache")
    assert "--features" in caught.value.remedy
    assert not Path("cache").exists()


def test_a_cell_that_is_no_number_is_named_by_line_and_column(data, names, values, tmp_path):
    columns = {"filename": names, **{k: list(v) for k, v in zip(FEATURES, values.T.tolist(), strict=True)}}
    columns["f3"][6] = "n/a"
    with pytest.raises(FeatstoreError, match="line 8, column 'f3' holds 'n/a'"):
        import_features(data, as_csv(tmp_path / "f", columns), "Theirs", cache="cache")


def test_names_in_a_column_without_a_name_and_semicolons(data, names, values, tmp_path):
    """As pandas writes an index of file names, and Excel in half of Europe."""
    columns = {"": names, **dict(zip(FEATURES, values.T.tolist(), strict=True))}
    path = as_csv(tmp_path / "f", columns)
    path.write_text(path.read_text().replace(",", ";"))
    assert import_features(data, path, "Theirs", cache="cache").dimension == 5


SPELLINGS = {
    "no suffix": (lambda n, _: n.removesuffix(".png"), "path without suffix"),
    "another suffix": (lambda n, _: n.replace(".png", ".npy"), "path without suffix"),
    "file name": (lambda n, _: n.split("/")[1], "file name alone"),
    "stem": (lambda n, _: n.split("/")[1].removesuffix(".png"), "file name without suffix"),
    "absolute": (lambda n, root: str(root / n), "absolute path"),
    "elsewhere": (lambda n, _: f"/mnt/old/{n}", "end of the path"),
    "windows": (lambda n, _: "D:\\data\\" + n.replace("/", "\\"), "end of the path"),
    "one folder up": (lambda n, _: f"data/{n}", "end of the path"),
    "dot": (lambda n, _: f"./{n}", "path relative to the data set"),
}


@pytest.mark.parametrize(("spell", "way"), SPELLINGS.values(), ids=SPELLINGS)
def test_names_that_fit_one_image_alone_are_understood(data, names, values, tmp_path, spell, way):
    columns = {"filename": [spell(n, data.parent) for n in names]}
    columns |= dict(zip(FEATURES, values.T.tolist(), strict=True))
    result = import_features(data, as_csv(tmp_path / "f", columns), "Theirs", cache="cache")
    assert result.matched == way
    assert bool(result.example) == (spell(names[0], data.parent) != f"./{names[0]}")
    vectors = {record.path.name: row for record, row in _rows(data)}
    for file, row in zip(names, values, strict=True):
        np.testing.assert_array_equal(vectors[Path(file).name], row)


def test_a_file_name_that_two_classes_share_is_refused_with_both(data, names, values, tmp_path):
    victim = data.parent / "dog" / "000.png"
    shutil.copy(data.parent / names[-1], victim)
    victim.write_bytes(victim.read_bytes() + b"\0")
    folder = tmp_path / "data"
    columns = {
        "filename": [n.split("/")[1] for n in names],
        **dict(zip(FEATURES, values.T.tolist(), strict=True)),
    }
    data.unlink()
    with pytest.raises(
        UsageError, match=r"1 of 16 rows belong to no single image .*'cat/000.png' or 'dog/000.png'"
    ):
        import_features(folder, as_csv(tmp_path / "f", columns), "Theirs", cache="cache")


def test_a_name_in_another_folder_is_another_image_and_the_nearest_is_shown(data, names, values, tmp_path):
    wrong = [n if at else n.replace("cat/", "cats/") for at, n in enumerate(names)]
    columns = {"filename": wrong, **dict(zip(FEATURES, values.T.tolist(), strict=True))}
    with pytest.raises(UsageError, match=re.escape("'cats/000.png'; nearest to the first is 'cat/000.png'")):
        import_features(data, as_csv(tmp_path / "f", columns), "Theirs", cache="cache")


@given(st.integers(20, 60), st.integers(0, 2**31))
def test_features_are_never_taken_for_labels_or_counters(rows, seed):
    """Normal, sparse and rounded features; also such as part two classes perfectly."""
    rng = np.random.default_rng(seed)
    classes = np.sort(rng.permutation(np.arange(rows) % 2))
    values = rng.normal(size=(rows, 40)) + classes[:, np.newaxis] * rng.choice([0, 9], 40)
    values[:, :10] = np.maximum(values[:, :10], 0)
    values[:, 10:20] = np.round(values[:, 10:20] * 50)
    names = [f"f{k}" for k in range(40)]
    found = select_features(values, names, classes.astype(str).tolist(), named=False)
    assert found.unused == {}
    assert found.values is values


@given(st.integers(6, 40), st.integers(2, 4), st.integers(0, 2**31))
def test_any_renaming_of_the_classes_is_a_label(rows, count, seed):
    rng = np.random.default_rng(seed)
    classes = np.sort(np.arange(rows) % count)
    codes = rng.choice(1000, count, replace=False)
    assert tells_class(codes[classes], classes)
    assert doubtful_reason("x", codes[classes].astype(float), classes, np.arange(rows)) != ""


@given(st.integers(6, 40), st.integers(-5, 5), st.integers(0, 2**31))
def test_any_order_of_row_numbers_counts(rows, start, seed):
    assert counts_rows(np.random.default_rng(seed).permutation(rows) + start)
