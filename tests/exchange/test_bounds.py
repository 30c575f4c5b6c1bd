"""What a foreign table may cost: a small one never unpacks to a large one, and nothing is read that is not needed."""

import tracemalloc
import zipfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import compute
from pyarrow.parquet import ParquetFile, write_table

from featstore.errors import RefusedFileError
from featstore.exchange import reading
from featstore.exchange import reading as sheets
from featstore.exchange import reading as table

LONG = "class0/" + "a" * 400_000
ROWS = 300
SMALL = 64 << 20
"""Bytes that a refusal may take."""


def read_table(path, features, names):
    """In this process, so that what it takes is seen; `reading.read_table` lets another one read."""
    page, (values,) = reading.read(path, features, names)
    return SimpleNamespace(names=tuple(page["names"]), features=values)


def repeated(text, rows=ROWS):
    """One text that stands there once and is meant in every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "i4")), pa.array([text]))


def vectors(rows=ROWS, width=4):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * width, "f4")), width)


def by_dictionary(path):
    write_table(
        pa.table({"path": repeated(LONG), "x": vectors()}), path, compression="zstd", store_schema=False
    )


def by_a_dictionary_type(path):
    write_table(pa.table({"path": repeated(LONG), "x": vectors()}), path, compression="zstd")


def by_common_beginnings(path):
    names = pa.array([LONG] * ROWS)
    write_table(
        pa.table({"path": names, "x": vectors()}),
        path,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"path": "DELTA_BYTE_ARRAY", "x.list.element": "PLAIN"},
    )


def by_many_rows(path):
    """Each name is short enough, all together are not."""
    table = pa.table({"path": repeated("a" * 4000, 100_000), "x": vectors(100_000, 1)})
    write_table(table, path, compression="zstd", store_schema=False)


def by_numbers(path):
    zeros = pa.array(np.zeros(10_000_000, "f4"))
    write_table(pa.table({"path": repeated("a", len(zeros)), "x": zeros}), path, compression="zstd")


POOLS = []
"""What was allocated from them must not outlive them."""
PARQUETS = [by_dictionary, by_a_dictionary_type, by_common_beginnings, by_many_rows]


@pytest.mark.slow
@pytest.mark.parametrize("write", [*PARQUETS, by_numbers])
def test_a_small_parquet_that_unpacks_to_a_large_table_is_refused(tmp_path, write):
    path = tmp_path / "bomb.parquet"
    write(path)
    usual = pa.default_memory_pool()
    POOLS.append(pool := pa.proxy_memory_pool(usual))
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        with pytest.raises(RefusedFileError) as caught:
            read_table(path, None, None)
        assert tracemalloc.get_traced_memory()[1] < SMALL
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 2 * SMALL
    assert "\n" not in caught.value.cause


def test_other_texts_of_a_parquet_are_not_read_at_all(tmp_path, monkeypatch):
    asked = []
    read, batches = ParquetFile.read, ParquetFile.iter_batches
    monkeypatch.setattr(
        sheets.require_pyarrow().parquet.ParquetFile,
        "read",
        lambda self, **o: asked.append(o) or read(self, **o),
    )
    monkeypatch.setattr(
        sheets.require_pyarrow().parquet.ParquetFile,
        "iter_batches",
        lambda self, size, **o: asked.append(o) or batches(self, size, **o),
    )
    names = [f"{n}.png" for n in range(5)]
    table = pa.table({"path": names, "report": repeated(LONG, 5), "x": vectors(5)})
    write_table(table, tmp_path / "t.parquet", store_schema=False)
    found = read_table(tmp_path / "t.parquet", None, None)
    assert found.names == tuple(names)
    assert asked == [{"columns": ["path"]}, {"columns": ["x"]}], "the names first"


@pytest.mark.parametrize(
    "encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None, "categories"]
)
def test_names_come_whole_however_a_parquet_stores_them(tmp_path, encoding):
    names = [f"class/ü{n % 7}.png" for n in range(20_000)]
    column = pa.array(names).dictionary_encode() if encoding == "categories" else pa.array(names)
    options = (
        {}
        if encoding in {None, "categories"}
        else {"use_dictionary": False, "column_encoding": {"path": encoding}}
    )
    write_table(
        pa.table({"path": column, "f": np.arange(20_000.0)}),
        tmp_path / "t.parquet",
        row_group_size=7000,
        **options,
    )
    assert read_table(tmp_path / "t.parquet", None, None).names == tuple(names)


def npz_of(path, kind, arrays):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        (zipfile.ZIP_DEFLATED, {"path": np.full(100, "a", "U100000"), "x": np.zeros((100, 4))}),
        (zipfile.ZIP_DEFLATED, {"path": np.full(100, b"a", "S5000"), "x": np.zeros((100, 4))}),
        (zipfile.ZIP_DEFLATED, {"path": np.full(1000, b"a", "S4000"), "x": np.zeros((1000, 4))}),
        (zipfile.ZIP_LZMA, {"path": np.full(4, "a"), "x": np.zeros((4, 4))}),
        (zipfile.ZIP_BZIP2, {"path": np.full(4, "a"), "x": np.zeros((4, 4))}),
    ],
)
def test_a_small_archive_that_unpacks_to_long_names_is_refused(tmp_path, monkeypatch, kind, arrays):
    read = []
    monkeypatch.setattr(table, "MAX_NAMES", 1 << 20)
    monkeypatch.setattr(reading, "_npz_array", lambda _, member: read.append(member))
    npz_of(tmp_path / "bomb.npz", kind, arrays)
    with pytest.raises(RefusedFileError):
        read_table(tmp_path / "bomb.npz", None, None)
    assert read == []


def test_arrays_of_an_archive_that_nobody_asked_for_are_not_read(tmp_path, monkeypatch):
    read, array = [], reading._npz_array
    monkeypatch.setattr(reading, "_npz_array", lambda a, m: read.append(m.info.filename) or array(a, m))
    np.savez(
        tmp_path / "t.npz", x=np.ones((3, 2)), notes=np.full(3, "a" * 99_999), path=np.array(["a", "b", "c"])
    )
    assert read_table(tmp_path / "t.npz", "x", "path").names == ("a", "b", "c")
    assert read == ["path.npy", "x.npy"]


def test_a_csv_takes_a_few_bytes_for_each_of_its_own(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "path,"
        + ",".join(f"f{n}" for n in range(200))
        + "\n"
        + "".join(f"{n}.png{',1' * 200}\n" for n in range(300))
    )
    tracemalloc.start()
    try:
        read_table(path, None, None)
        assert tracemalloc.get_traced_memory()[1] < 16 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_pyarrow_sees_the_lengths_of_texts_without_their_bytes():
    """What the bound on names rests on."""
    assert compute.binary_length(repeated(LONG).dictionary).to_pylist() == [len(LONG)]
