"""Whatever paths, names and tags the images bear stays out of the cache, the talk and run.json."""

import csv
import io
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore
from dicoms import dicom
from fakes import DECODING, GridBackbone, key, spec
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from featstore import runs as run
from featstore.api.cache import verify
from featstore.api.check import check
from featstore.api.fuse import fuse
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.scan import scan
from featstore.matrix import FeatureMatrix
from featstore.store.store import Store
from featstore.types import IDENTITY

pytestmark = pytest.mark.hostile

MARK = "Mustermann"
"""Stands in folder and file names, in the CSV, in every tag that a format has, and in files that do not decode."""
MARKS = [MARK.encode(coding) for coding in ("utf-8", "utf-16-le", "utf-16-be")]


def pictures():
    """Name to bytes; the second half does not decode, each for another reason."""
    rng = np.random.default_rng(0)
    tags = PngImagePlugin.PngInfo()
    tags.add_text("PatientName", MARK)
    tags.add_itxt("PatientID", MARK, zip=False)
    exif = Image.Exif()
    exif[0x010E] = MARK  # ImageDescription
    options = [
        ("PNG", {"pnginfo": tags}),
        ("JPEG", {"comment": MARK.encode(), "exif": exif}),
        ("TIFF", {"description": MARK}),
        ("GIF", {"comment": MARK.encode()}),
        ("WEBP", {"exif": exif, "lossless": True}),
    ]
    for number in range(16):
        kind, given = options[number % len(options)]
        buffer = io.BytesIO()
        noise = rng.integers(0, 200, (24, 20, 3)) + 40 * (number // 2 % 2)
        Image.fromarray(noise.astype(np.uint8)).save(buffer, kind, **given)
        yield f"{MARK}_{number}.{kind.lower()}", buffer.getvalue()
        if number < len(options):
            yield f"{MARK}_cut_{number}.{kind.lower()}", buffer.getvalue()[:-40]
    yield f"{MARK}_token.ppm", b"P6\n24 " + MARK.encode() + b"\n255\n"
    yield f"{MARK}_header.ppm", b"P6\n" + MARK.encode() * 4 + b" 20\n255\n"
    yield f"{MARK}_text.png", MARK.encode() + b" is not an image"
    yield f"{MARK}_ct.dcm", bytes(128) + b"DICM\x10\0\x10\0PN\x0a\0" + MARK.encode()
    yield f"{MARK}_lines.tif", b"II*\0\x08\0\0\0" + b"\xff" * 9 + MARK.encode()


@pytest.fixture
def data(tmp_path):
    """A CSV manifest in a folder whose name is a patient's."""
    folder = tmp_path / f"study of {MARK}"
    lines = ["path,label,group"]
    for number, (name, content) in enumerate(pictures()):
        (folder / MARK).mkdir(parents=True, exist_ok=True)
        (folder / MARK / name).write_bytes(content)
        patient = name.partition(".")[0]
        lines.append(f"{MARK}/{name},{'ill' if number // 2 % 2 else 'well'},{patient}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def leaks(folder):
    """Files that hold the mark, or have it in their name."""
    found = [path for path in folder.rglob("*") if MARK in path.name]
    return found + [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(mark in path.read_bytes() for mark in MARKS)
    ]


def extracted(data, cache):
    manifest = scan(data)
    store = Store(cache)
    todo = plan([key()], [record.id for record in manifest.records], {})
    images = {record.id: record for record in manifest.records}
    stats = engine.run_pass(
        image_blocks(todo), images, DECODING, {spec(): GridBackbone(spec())}, store, engine.NullProgress()
    )
    store.stored([key()])
    return manifest, stats


def test_the_mark_would_be_found(tmp_path):
    """Else the tests below would prove nothing."""
    (tmp_path / "x").write_bytes(b"a" + MARK.encode("utf-16-le"))
    assert leaks(tmp_path)


def test_no_path_name_or_tag_is_in_the_cache(data, tmp_path, tried):
    cache = tmp_path / "cache"
    _, stats = extracted(data, cache)
    assert stats.rows == 16
    assert len(stats.bad) >= 5, "some of the damage is seen only by the decoder"
    victim, *_ = cache.glob("features/**/*.h5")
    victim.write_bytes(victim.read_bytes()[:-1])
    Store(cache).stored([key()])
    assert verify(cache).bad == (), "it is in quarantine"
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".json", ".h5"}
    assert leaks(cache) == []
    tried("files of a cache searched for a patient's name", len(files))


def test_a_note_about_a_bad_shard_does_not_say_where_the_cache_lies(data, tmp_path):
    cache = tmp_path / f"home of {MARK}" / "cache"
    extracted(data, cache)
    victim, *_ = cache.glob("features/**/*.h5")
    victim.write_bytes(b"")
    Store(cache).stored([key()])
    assert list(cache.glob("quarantine/shards/*.json"))
    assert leaks(cache) == []


def test_a_run_names_patients_in_its_predictions_alone_and_nobody_else_may_read_them(
    data, tmp_path, monkeypatch
):
    manifest, _ = extracted(data, tmp_path / "cache")
    store = Store(tmp_path / "cache")
    stored = store.stored_ids(key())
    records = tuple(record for record in manifest.records if record.id in stored)
    X = store.read(key(), [record.id for record in records])
    matrix = FeatureMatrix(
        records=records,
        classes=("ill", "well"),
        y=np.array([int(record.label == "well") for record in records]),
        groups=np.array([record.group for record in records]),
        views=(IDENTITY,),
        specs=(spec(),),
        decoding=DECODING,
        features=X[None],
        has_groups=True,
        excluded=0,
    )
    monkeypatch.setattr("featstore.evaluation.leakage.read_matrix", lambda *_, **__: matrix)
    out = tmp_path / "run"
    fuse(data, out=out)
    assert {path.name for path in leaks(out)} == {run.PREDICTIONS}
    assert out.stat().st_mode & 0o777 == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 6


def test_no_tag_of_a_dicom_file_is_in_the_cache_the_report_or_the_log(tmp_path, caplog, capfd, recwarn):
    """Sound files and damaged ones; whose they are is told by a pseudonym alone."""
    tags = dict.fromkeys(
        ("PatientName", "PatientID", "OtherPatientIDs", "ReferringPhysicianName", "StudyID"), MARK
    )
    stored = np.random.default_rng(0).integers(0, 4000, (12, 24, 20)).astype(np.uint16)
    folder = tmp_path / "d"
    for number, values in enumerate(stored):
        path = folder / ("ill", "well")[number % 2] / f"{number:03d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = dicom(values, **tags)
        at = whole.index(MARK.encode())
        path.write_bytes(
            (whole, whole, whole[:-50], whole[: at + 4], whole.replace(b"UI", b"DS"))[number % 5]
        )
    manifest = scan(folder, site_tag="Manufacturer")
    store, decoding = Store(tmp_path / "cache"), replace(DECODING, value_range=(0.0, 4000.0))
    images = {record.id: record for record in manifest.records}
    todo = image_blocks(plan([key()], list(images), {}))
    done = engine.run_pass(
        todo, images, decoding, {spec(): GridBackbone(spec())}, store, engine.NullProgress()
    )
    assert done.rows >= 6
    assert len(done.bad) + len(manifest.unreadable) >= 4
    found = check(folder, value_range=(0.0, 4000.0), cache=tmp_path / "cache")
    assert leaks(tmp_path / "cache") == []
    assert MARK not in repr((manifest, done, found)) + caplog.text + "".join(capfd.readouterr())
    assert not recwarn.list


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_formula_in_a_name_is_text_in_the_predictions(cell, tried):
    text = run.csv_text([["path"], [cell], ["plain=1"]])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["path"], [f"'{cell}"], ["plain=1"]]
    tried("formulas in names")


CELLS = st.lists(st.text("a;\t\r\n\"' ,=+-@\uff1d1", max_size=12), min_size=1, max_size=3)


@given(CELLS)
def test_no_cell_begins_with_a_formula_wherever_a_spreadsheet_splits_the_line(cells):
    """Programs that know quotes, with a comma, a semicolon or a tab; and those that split at every mark."""
    text = run.csv_text([cells])
    found = [text.replace("\n", mark).replace("\r", mark).split(mark) for mark in ";\t"]
    for mark in ",;\t":
        found += csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    assert not [cell for line in found for cell in line if cell.startswith(tuple("=+-@\uff1d"))]


@pytest.mark.parametrize("cell", ["a;=3+3", "a\t+1", "a\n-1", "a\r@b", 'a; "=1"', "\n=1"])
def test_a_formula_behind_what_splits_cells_is_quoted(cell):
    at = next(at for at, mark in enumerate(cell) if mark in ";\t\r\n") + 1
    text = run.csv_text([[cell]])
    (line,) = csv.reader(io.StringIO(text, newline=""))
    assert line[0].lstrip("'") == f"{cell[:at]}'{cell[at:]}".lstrip("'")


@pytest.mark.slow
def test_the_talk_of_a_whole_extraction_holds_no_name(data, tmp_path):
    """Through the command line, with a real network: stderr at the default level, and the cache."""
    cache = Path("cache")
    done = featstore("extract", data, "--backbones", "EfficientNetLite0", "--cache", cache, "--json")
    assert done.code == 3, done.err
    assert MARK not in done.err
    assert MARK in done.out, "stdout tells the user which files are bad"
    again = featstore("extract", data, "--backbones", "EfficientNetLite0", "--cache", cache)
    assert MARK not in again.err
    fused = featstore("fuse", data, "--cache", cache, "--out", "run")
    assert fused.code == 0, fused.err
    assert MARK not in fused.err
    assert leaks(cache) == []
    assert {path.name for path in leaks(Path("run"))} == {run.PREDICTIONS}
