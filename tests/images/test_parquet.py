"""Parquet as a table of images: the same as the CSV file with the same cells, and no pyarrow in this process."""

import datetime as dt
import subprocess
import sys

import pyarrow as pa
import pytest
from commandline import featstore
from pyarrow import parquet

from featstore.errors import ManifestError, UsageError
from featstore.images import parquet as reading
from featstore.images.scan import scan


@pytest.fixture
def folder(write):
    return write({"img/a.png": 1, "img/b.png": 2, "img/c.png": 3, "img/d.png": 4})


PATHS = [f"img/{name}.png" for name in "abcd"]


def table(folder, name="t.parquet", **columns):
    path = folder / name
    parquet.write_table(pa.table(columns), path)
    return path


def test_a_parquet_file_is_the_csv_file_with_the_same_cells(folder):
    columns = {
        "path": PATHS,
        "label": pa.array(["ill", "well", "ill", "well"]).dictionary_encode(),
        "group": [7, 8, 9, 10],
        "split": ["train", "train", "test", "test"],
        "site": ["Bonn", None, "Köln", "Bonn"],
    }
    (folder / "t.csv").write_text(
        "path,label,group,split,site\nimg/a.png,ill,7,train,Bonn\nimg/b.png,well,8,train,\n"
        "img/c.png,ill,9,test,Köln\nimg/d.png,well,10,test,Bonn\n"
    )
    assert scan(table(folder, **columns)) == scan(folder / "t.csv")


def test_the_command_line_reads_it_with_other_names_of_columns_a_root_and_a_suffix(folder, tmp_path):
    (tmp_path / "tables").mkdir()
    path = table(
        tmp_path / "tables",
        image_id=list("abcd"),
        diagnosis=["ill", "well", "ill", "well"],
        patient_id=[1.0, 2.0, 3.0, None],
        hospital=["x", "x", "y", "y"],
        embedding=[[1.0], [2.0], [3.0], [4.0]],
    )
    names = "path=image_id,label=diagnosis,group=patient_id,site=hospital"
    options = ["--columns", names, "--suffix", ".png", "--root", folder / "img"]
    refused = featstore("check", path, *options)
    assert refused.code == 2
    assert "row 4: the group is empty" in refused.err
    path = table(
        tmp_path / "tables", **{**parquet.read_table(path).to_pydict(), "patient_id": [1.0, 2, 3, 4]}
    )
    done = featstore("split", path, *options, "--ratios", "50/50", "--out", folder / "img/s.csv")
    assert done.code == 0, done.err
    assert scan(folder / "img/s.csv").count_by_group() == {"1": 1, "2": 1, "3": 1, "4": 1}


def test_flags_are_a_label(folder):
    flags = {"path": PATHS, "ill": [True, False, True, False], "well": [0.0, 1.0, 0.0, 1.0]}
    assert [record.label for record in scan(table(folder, **flags)).records] == ["ill", "well"] * 2
    day = pa.array([dt.date(2026, 1, 1)] * 4)
    both = table(folder, seen=day, other=[1, 1, 1, 1], **flags)
    assert scan(both, columns={"label": "ill,well"}).classes == ("ill", "well")


def test_errors_name_columns_and_rows(folder):
    path = table(folder, path=PATHS, diagnosis=["ill"] * 4)
    with pytest.raises(ManifestError, match=r"columns: there is no column 'label'") as caught:
        scan(path)
    assert caught.value.remedy.endswith("--columns label=diagnosis")
    with pytest.raises(ManifestError, match="columns: there is no column 'diagnoses'") as caught:
        scan(path, columns={"label": "diagnoses"})
    assert "label=diagnosis" in caught.value.remedy
    with pytest.raises(ManifestError, match="row 2: the label is empty"):
        scan(table(folder, path=PATHS, label=["ill", None, "ill", "well"]))


@pytest.mark.hostile
@pytest.mark.parametrize("cut", [0, 4, 100, -1, -40])
def test_a_damaged_file_is_refused(folder, cut):
    path = table(folder, path=PATHS, label=["ill"] * 4)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        scan(path)


@pytest.mark.slow
@pytest.mark.hostile
def test_flipped_bytes_give_a_manifest_or_an_error_of_ours(folder):
    path = table(folder, path=PATHS, label=["ill", "well"] * 2)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 12)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            scan(path)
        except (ManifestError, UsageError):
            continue


@pytest.mark.hostile
def test_a_file_that_unpacks_to_more_than_it_may_is_refused(folder, monkeypatch):
    path = table(folder, path=["x" * 1000] * 50_000, label=["ill"] * 50_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(ManifestError, match="more text than can be read"):
        reading.read_cells(path, 1 << 25, 1 << 20)
    with pytest.raises(ManifestError, match="more rows and columns"):
        reading.read_cells(path, 1 << 10, 1 << 30)


def test_pyarrow_stays_out_of_this_process(folder):
    path = table(folder, path=PATHS, label=["ill", "well"] * 2)
    script = f"import sys, featstore; featstore.scan({str(path)!r}); print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_pyarrow_the_remedy_is_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = folder / "t.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"featstore\[parquet\]"):
        reading.read(path, 1, 1)
