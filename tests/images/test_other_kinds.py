"""What is given as a data set or a table and is neither is called by its name, with what makes a data set of it."""

import io
import pathlib
import pickle
import struct
import tarfile
import zipfile

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import scipy.io
from commandline import featstore

from featstore.errors import ManifestError
from featstore.images.scan import scan

ROWS = pa.table({"path": ["a.png"], "label": ["a"]})


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


def written(write, *arguments, **more):
    file = io.BytesIO()
    write(*arguments, file, **more) if arguments else write(file, **more)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a/1.png"), io.BytesIO())
    return file.getvalue()


def matlab(kind):
    file = io.BytesIO()
    scipy.io.savemat(file, {"images": np.ones((9, 9), np.uint8)}, format=kind)
    return file.getvalue()


FILES = {
    "data.zip": (zipped("a/1.png"), "ZIP archive", "unzip"),
    "data.tar": (tarred(), "TAR archive", "tar -xf"),
    "data.tar.gz": (b"\x1f\x8b\x08\0" + bytes(40), "gzip", "gunzip"),
    "table.csv.gz": (b"\x1f\x8b\x08\0" + bytes(40), "gzip", "gunzip"),
    "table.xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "workbook of Excel", "CSV"),
    "table.csv": (zipped("[Content_Types].xml", "xl/workbook.xml"), "workbook of Excel", "CSV"),
    "table.txt": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "workbook of Excel", "CSV"),
    "other.csv": (written(pyarrow.parquet.write_table, ROWS), "Parquet", ".parquet"),
    "other.tsv": (written(pyarrow.feather.write_feather, ROWS), "Arrow", "CSV"),
    "table.json": (b'[{"path": "a.png"}]', "JSON", "CSV"),
    "model.pt": (zipped("model/data.pkl", "model/data/0"), "Python objects", "numpy.savez"),
    "data.pkl": (pickle.dumps({"images": [1]}), "Python objects", "numpy.savez"),
    "data.p": (pickle.dumps([1, 2], protocol=4), "Python objects", "numpy.savez"),
    "old.mat": (matlab("5"), "MATLAB", "scipy.io.loadmat"),
    "older.mat": (matlab("4"), "MATLAB", "scipy.io.loadmat"),
    "t10k-images-idx3-ubyte": (struct.pack(">IIII", 2051, 1, 2, 2) + bytes(4), "IDX", "numpy.savez"),
    "train.tfrecord": (b"\x05\x01" * 99, "records", "files"),
    "volume.nii.gz": (
        nibabel.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)).to_bytes(), "one image (NIFTI)", "folder",
    ),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "one file of HEIC", "folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, name):
    data, what, remedy = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        scan(tmp_path / name)
    assert what in caught.value.cause
    assert remedy in caught.value.remedy


FOLDERS = {
    "zarr": ((".zgroup", "images/.zarray", "images/0.0.0"), "Zarr", "zarr.open"),
    "zarr3": (("zarr.json", "images/zarr.json", "images/c/0/0"), "Zarr", "zarr.open"),
    "lmdb": (("data.mdb", "lock.mdb"), "LMDB", "files"),
    "mnist": (("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"), "IDX", "numpy.savez"),
    "cifar": (("data_batch_1", "batches.meta"), "Python objects", "numpy.savez"),
    "hub": (("dataset_info.json", "data-00000-of-00001.arrow"), "records", "files"),
    "parts": (("part-0.parquet", "part-1.parquet"), "several files", "pyarrow.parquet.read_table"),
    "archives": (("train.zip", "test.zip", "readme.txt"), "archives", "Unpack"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_kind_is_named_with_what_to_do(tmp_path, name):
    names, what, remedy = FOLDERS[name]
    for one in names:
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).write_bytes(b"\x93\x01" * 50)
    with pytest.raises(ManifestError) as caught:
        scan(tmp_path)
    assert what in caught.value.cause
    assert remedy in caught.value.remedy


def test_such_a_file_beside_class_folders_is_no_hindrance(write):
    folder = write(
        {"a/1.png": 1, "b/2.png": 2, "all.zip": zipped("a/1.png"), "DICOMDIR": bytes(128) + b"DICM"}
    )
    assert scan(folder).count_by_class() == {"a": 1, "b": 1}


def test_a_table_that_holds_the_pictures_says_how_to_write_them(tmp_path, png):
    cells = [{"bytes": png(seed), "path": f"{seed}.png"} for seed in range(4)]
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pa.table({"image": cells, "label": [0, 1, 0, 1]}), path)
    with pytest.raises(ManifestError, match="'image' holds the pictures themselves") as caught:
        scan(path)
    line = caught.value.remedy.partition("'path': ")[2]
    line = line.replace("'train.parquet'", repr(str(path))).replace("Path(f'", f"Path(f'{tmp_path}/")
    exec(line, {"pyarrow": pa, "pathlib": pathlib})  # noqa: S102 - the remedy as it is printed
    table = pa.table({"path": [f"{n}.png" for n in range(4)], "label": [0, 1, 0, 1]})
    pyarrow.parquet.write_table(table, path)
    assert scan(path).count_by_class() == {"0": 2, "1": 2}


def test_labels_of_another_kind_are_named(write, tmp_path):
    folder = write({"x/1.png": 1})
    (tmp_path / "labels.xlsx").write_bytes(FILES["table.xlsx"][0])
    done = featstore("check", folder, "--labels", tmp_path / "labels.xlsx")
    assert done.code == 2
    assert "workbook of Excel" in done.err


@pytest.mark.parametrize(
    ("name", "data", "cause", "remedy"),
    [
        ("a.npz", b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer", "git lfs pull"),
        ("a.h5", b"<!doctype html><html>", "HTML page", "fetch it again"),
        ("a.h5", b"hello, world", "no known image format", "fetch it again"),
        ("a.npy", b"", "0 bytes", "fetch it again"),
        ("a.npz", zipped("sub/x.npz"), "ZIP archive", "unzip"),
        ("a.h5", zipped("images.npy"), "NPZ under another name", "FILE.npz"),
        ("a.hdf", b"\x89HDF\r\n\x1a\n", "HDF5 under another name", "FILE.h5"),
        ("a.npz", zipped("images.npy")[:40], "damaged", "fetch the file again"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_file_of_arrays_that_is_none_is_answered_by_what_it_is(tmp_path, name, data, cause, remedy):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        scan(tmp_path / name)
    assert cause in caught.value.cause
    assert remedy in caught.value.remedy
