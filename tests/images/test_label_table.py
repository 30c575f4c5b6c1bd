"""Labels from a table of patients, studies, series or files beside a tree of images."""

import json

import numpy as np
import pytest
from commandline import featstore
from dicoms import dicom, slice_values
from PIL import Image

from featstore import read_config
from featstore.api.predict import find_images
from featstore.errors import ManifestError, UsageError
from featstore.images.formats.container import origin_key
from featstore.images.formats.dicom import pseudonym
from featstore.images.scan import scan

MARK = "MUSTERMANN"


@pytest.fixture
def tree(tmp_path):
    """Six patients of two studies, each of two slices in a series of their own; names say nothing."""
    for number in range(24):
        path = tmp_path / "export" / f"{number // 5:02d}" / f"IM{number:04d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            dicom(
                slice_values(number, (16, 16)),
                PatientID=f"{MARK}{number // 4}",
                StudyInstanceUID=f"1.2.{number // 2}",
                SeriesInstanceUID=f"1.2.3.{number}",
                SOPInstanceUID=f"1.2.3.4.{number}",
                Manufacturer=f"M{number % 2}",
            )
        )
    return tmp_path / "export"


def write(tree, text, name="labels.csv"):
    path = tree.parent / name
    path.write_text(text)
    return path


def labels_of(manifest):
    return {record.path.name: record.label for record in manifest.records}


def rows(count, key):
    return "".join(f"{key(n)},{'ab'[n % 2]}\n" for n in range(count))


@pytest.mark.parametrize(
    ("header", "count", "key", "per_row"),
    [
        ("PatientID", 6, lambda n: f"{MARK}{n}", 4),
        ("patient_id", 6, lambda n: f" {MARK.lower()}{n} ", 4),
        ("StudyInstanceUID", 12, lambda n: f"1.2.{n}", 2),
        ("SeriesInstanceUID", 24, lambda n: f"1.2.3.{n}", 1),
        ("SOPInstanceUID", 24, lambda n: f"1.2.3.4.{n}", 1),
        ("path", 24, lambda n: f"{n // 5:02d}/IM{n:04d}", 1),
        ("path", 24, lambda n: f"IM{n:04d}.dcm".removesuffix(".dcm"), 1),
    ],
)
def test_each_column_finds_the_images_that_its_ids_are_of(tree, header, count, key, per_row):
    manifest = scan(tree, labels=write(tree, f"{header},label\n{rows(count, key)}"))
    assert labels_of(manifest) == {f"IM{n:04d}": "ab"[n // per_row % 2] for n in range(24)}
    assert {record.group for record in manifest.records} == {pseudonym(f"{MARK}{n}") for n in range(6)}
    assert manifest.has_groups
    assert [finding.code for finding in manifest.findings] == []
    assert MARK not in repr(manifest)


def test_the_finest_column_is_the_key_unless_another_is_named(tree):
    text = "PatientID,StudyInstanceUID,label,age,hospital,split\n" + "".join(
        f"{MARK}{n // 2},1.2.{n},{'ab'[n % 2]},{40 + n},H{n % 3},{'train' if n < 8 else 'test'}\n"
        for n in range(12)
    )
    table = write(tree, text)
    manifest = scan(tree, labels=table, columns={"site": "hospital"}, covariates=["age"])
    found = {record.path.name: record for record in manifest.records}["IM0007"]
    assert (found.label, found.site, found.split, found.covariates) == ("b", "H0", "train", ("43",))
    assert found.group == pseudonym(f"{MARK}1")
    with pytest.raises(
        ManifestError, match=r"6 patients with several values of label.*lines 2 and 3"
    ) as info:
        scan(tree, labels=table, labels_by="patient")
    assert info.value.remedy.startswith("If a row is a study, say so: --labels-by study")
    assert MARK not in str(info.value)


def test_the_site_is_the_tag_where_the_table_names_none(tree):
    table = write(tree, f"PatientID,label\n{rows(6, lambda n: f'{MARK}{n}')}")
    assert {record.site for record in scan(tree, labels=table, site_tag="Manufacturer").records} == {
        "M0",
        "M1",
    }


def test_what_has_no_label_and_what_has_no_image_is_counted(tree):
    text = f"PatientID,label\n{MARK}0,a\n{MARK}1,b\n{MARK}2,\n{MARK}0,a\nnobody,a\n,b\n"
    manifest = scan(tree, labels=write(tree, text))
    told = {finding.code: finding for finding in manifest.findings}
    assert len(manifest.records) == 8
    assert told["FS212"].count == 16
    assert "(12), or no label in it (4)" in told["FS212"].message
    assert told["FS213"].count == 2
    assert told["FS213"].examples[:2] == ("line 6", "line 7")
    assert told["FS206"].count == 1
    assert MARK not in repr(told)


def test_zeros_in_front_that_a_spreadsheet_took_away_do_not_count():
    assert origin_key("patient", "000123") == origin_key("patient", " 123\0")
    assert origin_key("patient", "000") == origin_key("patient", "0")
    assert origin_key("patient", "A") != origin_key("patient", "B")
    assert origin_key("patient", "12") != origin_key("series", "12")
    assert origin_key("study", " ") == ""


def test_one_id_of_two_hospitals_is_refused(tree):
    for number, issuer in enumerate(("north", "south")):
        path = tree / issuer
        path.write_bytes(dicom(slice_values(number), PatientID="7", IssuerOfPatientID=issuer))
    with pytest.raises(ManifestError, match=r"1 PatientID .* several patients") as info:
        scan(tree, labels=write(tree, "PatientID,label\n7,a\n"))
    assert "--labels-by study" in info.value.remedy


def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "raw" / f"sub-{number // 2:02d}" / "anat" / f"scan{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(path)
    return tmp_path / "raw"


def test_other_files_are_found_by_their_name_or_by_a_folder_that_is_the_patient(tmp_path):
    raw = pictures(tmp_path)
    by_patient = write(raw, "participant_id,label\nsub-00,a\nsub-01,b\nsub-02,a\n")
    manifest = scan(raw, labels=by_patient)
    assert [record.label for record in manifest.records] == ["a", "a", "b", "b", "a", "a"]
    assert {r.group for r in manifest.records} == {pseudonym(f"sub-{n:02d}") for n in range(3)}
    by_file = write(raw, "filename,diagnosis\n" + "".join(f"scan{n}.png,{'ab'[n % 2]}\n" for n in range(6)))
    manifest = scan(raw, labels=by_file, columns={"label": "diagnosis"}, group_pattern=r"sub-(\d+)")
    assert [record.label for record in manifest.records] == list("ababab")
    assert {record.group for record in manifest.records} == {"00", "01", "02"}
    numbered = write(raw, "subject,label\n0,a\n1,b\n2,a\n")
    assert len(scan(raw, labels=numbered, group_pattern=r"sub-(\d+)").records) == 6


def test_a_path_that_names_two_patients_is_refused_with_the_pattern_to_give(tmp_path):
    raw = pictures(tmp_path)
    table = write(raw, "patient,label\nsub-00,a\nanat,b\n")
    with pytest.raises(ManifestError, match="names 2 patients") as info:
        scan(raw, labels=table)
    assert "--group-pattern" in info.value.remedy


@pytest.mark.parametrize(
    ("text", "options", "cause", "remedy"),
    [
        ("PatientID,diagnosis\n1,a\n", {}, "no column 'label'", "--columns label=diagnosis"),
        ("PatientID,x1\n1,a\n", {}, "no column 'label'", "--columns label=COLUMN"),
        ("weight,label\n1,a\n", {}, "which images are meant", "StudyInstanceUID"),
        ("PatientID,label\n1,a\n", {"labels_by": "series"}, "names a series", "--labels-by patient"),
        ("PatientID,label\n1,a\n", {}, "None of the 24 images is of a patient", "ids are often replaced"),
        ("SeriesInstanceUID,PatientID,label\n9,MUSTERMANN1,a\n", {}, "of a series", "--labels-by patient"),
        ("PatientID,label\n", {}, "nothing below", "at least one"),
        ("PatientID,label,split\n1,a,dev1\n", {}, "no split", "train, val or test"),
        ("PatientID,label\n1,a\n", {"root": "."}, "--root is for a table", "Leave out --root"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(tree, text, options, cause, remedy):
    with pytest.raises(ManifestError, match=cause) as info:
        scan(tree, labels=write(tree, text), **options)
    assert remedy in info.value.remedy
    assert MARK not in str(info.value)


def test_a_table_that_is_none_and_data_that_is_no_folder_are_refused(tree):
    table = write(tree, "PatientID,label\n1,a\n")
    with pytest.raises(ManifestError, match="does not exist"):
        scan(tree, labels=tree / "none.csv")
    with pytest.raises(ManifestError, match="is a folder"):
        scan(tree, labels=tree)
    with pytest.raises(ManifestError, match="no table of labels"):
        scan(tree, labels=next(tree.rglob("IM*")))
    with pytest.raises(ManifestError, match="for a folder of images"):
        scan(table, labels=table)
    with pytest.raises(ManifestError, match="none was given"):
        scan(tree, labels_by="patient")
    with pytest.raises(UsageError, match="nothing that a row can be"):
        scan(tree, labels=table, labels_by="patients")
    with pytest.raises(ManifestError, match="but 'PatientID'") as info:
        scan(table)
    assert f"--labels {table}" in info.value.remedy


@pytest.mark.slow
def test_a_table_of_patients_labels_a_folder_from_the_command_line(tree, tmp_path):
    table = write(tree, f"PatientID;diagnosis\n{rows(6, lambda n: f'{MARK}{n}').replace(',', ';')}")
    flags = ["--labels", str(table), "--columns", "label=diagnosis", "--window", "lung"]
    done = featstore("check", str(tree), *flags, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out)["classes"] == {"a": 12, "b": 12}
    assert MARK not in done.out + done.err
    (tree / "featstore.toml").write_text('labels = "../labels.csv"\ncolumns = { label = "diagnosis" }\n')
    with pytest.raises(UsageError, match="leads out of the folder"):
        read_config(tree)
    (tree / "labels.csv").write_bytes(table.read_bytes())
    (tree / "featstore.toml").write_text('labels = "labels.csv"\ncolumns = { label = "diagnosis" }\n')
    done = featstore("check", str(tree), "--window", "lung", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "classes: a 12, b 12" in done.out


def test_new_images_have_no_labels(tree):
    with pytest.raises(UsageError, match="learned from") as info:
        find_images(tree, labels=tree / "labels.csv")
    assert info.value.remedy.startswith("Leave out --labels")
