"""`featstore convert`: the pixels of extraction as PNG, and a manifest that gives the same vectors."""

import csv
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest
from commandline import featstore
from dicoms import dicom, slice_values
from fakes import GridBackbone, key, spec
from PIL import Image

import featstore as package
from featstore.api.convert import SOURCE
from featstore.errors import AuditError, ManifestError, StoreError, UsageError
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import read_pixels
from featstore.images.recipe import parse_window
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import Decoding

WINDOWS = {"lung": parse_window("lung"), "three": parse_window("lung,mediastinal,bone")}


@pytest.fixture
def hospital(tmp_path):
    """DICOM, NIfTI, a multi-page TIFF, PNG and damage in two classes; volumes have black slices alike."""
    folder = tmp_path / "hospital"
    for number, label in enumerate(("ill", "wéll done")):
        place = folder / label
        place.mkdir(parents=True)
        for patient in range(2):
            stored = slice_values(10 * number + patient)
            (place / f"scan{patient}").write_bytes(
                dicom(stored, RescaleSlope=1, RescaleIntercept=0, PatientID=f"MUSTER{number}{patient}")
            )
        volume = np.random.default_rng(number).integers(-1200, 1600, (16, 17, 9)).astype(np.int16)
        volume[:, :, 0] = -2000
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), place / "volume.nii.gz")
        rng = np.random.default_rng(number + 5)
        pages = [Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]
        pages[0].save(place / "pages.tif", save_all=True, append_images=pages[1:])
        pages[1].convert("L").save(place / "grey.png")
        (place / "cut.png").write_bytes((place / "grey.png").read_bytes()[:60])
    return folder


def rows_of(manifest):
    with Path(manifest).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def vectors(manifest, decoding, cache):
    """Vector by id."""
    images = {record.id: record for record in manifest.records}
    store = Store(cache)
    done = pipeline.run_pass(
        image_blocks(plan([key()], list(images), {})), images, decoding, {spec(): GridBackbone(spec())}, store,
        pipeline.NullProgress(),
    )  # fmt: skip
    bad = {row.id for row in done.bad}
    good = [image for image in images if image not in bad]
    return dict(zip(good, store.read(key(), good), strict=True))


@pytest.mark.parametrize("name", WINDOWS)
def test_what_was_written_gives_the_same_pixels_and_the_same_vectors(hospital, tmp_path, name):
    value_range = WINDOWS[name]
    done = package.convert(hospital, tmp_path / "out", value_range=value_range)
    before, after = scan(hospital), scan(done.manifest)
    assert done.images == len(after.records) == 2 * (2 + 9 + 3 + 1)
    assert {Path(path).name: reason for path, reason, _ in done.bad} == {"cut.png": "truncated"}
    assert [reason for _, reason, _ in done.bad] == ["truncated"] * 2
    rows = {row["path"]: row for row in rows_of(done.manifest)}
    sources = {
        (str(record.path.relative_to(hospital)), record.frame + 1): record for record in before.records
    }
    one = vectors(before, Decoding("x", value_range=value_range), tmp_path / "a")
    other = vectors(after, Decoding("x"), tmp_path / "b")
    assert len(other) == len(one) == done.images
    for record in after.records:
        row = rows[str(record.path.relative_to(tmp_path / "out"))]
        source = sources[row["source"], int(row["page"])]
        assert (record.label, source.label) == (row["label"],) * 2
        np.testing.assert_array_equal(
            read_pixels(record, Decoding("x")), read_pixels(source, Decoding("x", value_range=value_range))
        )
        np.testing.assert_array_equal(other[record.id], one[source.id])


def test_groups_stay_whole_splits_and_sites_stay_and_no_path_names_a_patient(hospital, tmp_path):
    names = sorted(path.relative_to(hospital).as_posix() for path in hospital.rglob("*") if path.is_file())
    lines = [
        f"{name},{name.split('/')[0]},p{at // 2},{'train' if at < 7 else 'test'},Bonn"
        for at, name in enumerate(names)
    ]
    (hospital / "t.csv").write_text("\n".join(["path,label,group,split,site", *lines]))
    done = package.convert(hospital / "t.csv", tmp_path / "out", value_range=WINDOWS["lung"])
    before, after = scan(hospital / "t.csv"), scan(done.manifest)
    bad = {path for path, _, _ in done.bad}
    assert sorted((r.label, r.group, r.split, r.site) for r in after.records) == sorted(
        (r.label, r.group, r.split, r.site) for r in before.records if str(r.path) not in bad
    )
    plain = package.convert(hospital, tmp_path / "plain", value_range=WINDOWS["lung"])
    groups = {}
    for row in rows_of(plain.manifest):
        groups.setdefault(row["source"], set()).add(row["group"])
        assert row["path"].split("/")[0] in {"ill", "wéll-done"}
    assert all(len(found) == 1 for found in groups.values())
    assert len(set.union(*groups.values())) == len(groups) == 10
    assert "MUSTER" not in (tmp_path / "plain" / "manifest.csv").read_text()


def test_pictures_that_look_alike_stay_two_and_each_tells_its_source(hospital, tmp_path):
    done = package.convert(hospital, tmp_path / "out", value_range=WINDOWS["lung"])
    black = [row for row in rows_of(done.manifest) if row["source"].endswith("nii.gz") and row["page"] == "1"]
    files = [tmp_path / "out" / row["path"] for row in black]
    assert len(files) == 2
    ids = {record.id for record in scan(hospital).records}
    for path in files:
        with Image.open(path) as image:
            assert image.text[SOURCE] in ids
            assert not np.asarray(image).any()
    assert {record.label for record in scan(done.manifest).records if record.path in files} == {
        "ill",
        "wéll done",
    }


def test_files_are_their_owners_alone_and_nothing_is_ever_replaced(hospital, tmp_path):
    done = package.convert(hospital, tmp_path / "out", value_range=WINDOWS["lung"])
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    with pytest.raises(UsageError, match="holds files already"):
        package.convert(hospital, tmp_path / "out", value_range=WINDOWS["lung"])
    with pytest.raises(UsageError, match="no folder"):
        package.convert(hospital, done.manifest, value_range=WINDOWS["lung"])
    with pytest.raises(UsageError, match="--range"):
        package.convert(hospital, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_full_disk_is_told_and_leaves_no_manifest(hospital, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featstore.api.convert.write_private", full)
    with pytest.raises(StoreError, match="No space left"):
        package.convert(hospital, tmp_path / "out", value_range=WINDOWS["lung"])
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_classes_that_a_file_system_takes_for_one_have_folders_of_their_own(tmp_path):
    lines = ["path,label"]
    for number, label in enumerate(("a/b", "a?b", "A/B", "..", "a/b")):
        Image.fromarray(np.full((9, 9), number * 9 + 1, np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{label}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    done = package.convert(tmp_path / "t.csv", tmp_path / "out")
    rows = rows_of(done.manifest)
    folders = {(row["label"], row["path"].split("/")[0]) for row in rows}
    assert len(folders) == len({folder.casefold() for _, folder in folders}) == 4
    assert "group" not in rows[0], "each file is its own patient, as before"
    assert scan(done.manifest).count_by_class() == scan(tmp_path / "t.csv").count_by_class()


def test_the_command_says_what_it_wrote_and_what_it_left_out(hospital, tmp_path):
    done = featstore("convert", hospital, "--windows", "lung,mediastinal,bone", "--slices", "axial:every=4",
                     "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 3
    told = " ".join(done.out.split())  # wherever a line ends
    assert told.startswith(f"Written: {tmp_path}/out/manifest.csv and 18 images of 10 files as PNG (")
    assert f"featstore extract {tmp_path}/out/manifest.csv" in done.out
    assert "cut.png: truncated" in done.out
    again = featstore("check", tmp_path / "out" / "manifest.csv")
    assert again.code == 0, again.out


@pytest.mark.parametrize(("sides", "title"), [(("a", "b"), "FS106"), (("train/a", "test/a"), "FS107")])
def test_copies_in_two_classes_or_splits_are_refused_and_not_made_one(tmp_path, sides, title):
    rng = np.random.default_rng(0)
    for folder in {"train/b", "test/b", *sides} if "/" in sides[0] else sides:
        (tmp_path / "d" / folder).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(
            tmp_path / "d" / folder / "own.png"
        )
    for folder in sides:
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(
            tmp_path / "d" / folder / "twice.png"
        )
    with pytest.raises(AuditError, match=title):
        package.convert(tmp_path / "d", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_decoded_nothing_is_written_and_the_reason_is_said(tmp_path):
    (tmp_path / "d" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((20, 300), np.uint8) + 7).save(tmp_path / "d" / "a" / "x.png")
    broken = (tmp_path / "d" / "a" / "x.png").read_bytes()[:-12]
    (tmp_path / "d" / "a" / "x.png").write_bytes(broken)
    with pytest.raises(ManifestError, match="truncated") as caught:
        package.convert(tmp_path / "d", tmp_path / "out")
    assert "fetch it again" in caught.value.remedy
    assert not [*(tmp_path / "out").rglob("*")]


def test_pictures_of_one_file_that_fail_alike_are_counted_on_one_line(tmp_path):
    values = np.random.default_rng(0).normal(size=(9, 16, 16)).astype(np.float32)
    values[2:, 0, 0] = np.nan
    np.savez(tmp_path / "m.npz", images=values, labels=np.arange(9) % 2)
    done = featstore("convert", tmp_path / "m.npz", "--range=-3,3", "--out", tmp_path / "out")
    assert done.code == 3
    assert "(1 of 256 pixels are NaN or infinite.), 7 pictures" in done.out


def test_what_decoding_notes_is_said(tmp_path):
    (tmp_path / "d" / "a").mkdir(parents=True)
    Image.new("RGBA", (20, 20), (9, 9, 9, 100)).save(tmp_path / "d" / "a" / "x.png")
    found = {
        finding.code: finding.count for finding in package.convert(tmp_path / "d", tmp_path / "out").findings
    }
    assert found["FS305"] == found["FS307"] == 1
