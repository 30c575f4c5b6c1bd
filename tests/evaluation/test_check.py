"""The audit finds what would make a score a lie."""

import shutil

import numpy as np
import pytest
from PIL import Image

from featstore.api.check import check
from featstore.errors import ManifestError
from featstore.findings import counted
from featstore.phantom import make_phantoms
from featstore.reporting.terminal.results import LOOKED_FOR, check_text


@pytest.fixture
def phantoms(tmp_path):
    return make_phantoms(tmp_path / "phantoms", patients=20, slices=2, size=64)


def codes(result):
    return {finding.name for finding in result.findings}


def test_a_data_set_without_errors_says_so(phantoms):
    result = check(phantoms)
    assert result.no_error_found
    assert (result.images, result.groups, dict(result.classes)) == (40, 20, {"covid": 20, "normal": 20})


@pytest.mark.slow
def test_a_resaved_copy_in_another_split_is_a_near_leak_and_other_chests_are_not(phantoms, tmp_path):
    root = tmp_path / "split"
    for i, path in enumerate(sorted(phantoms.parent.glob("*/*.png"))):
        target = root / ("train" if i % 2 else "test") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert "copies_across_groups" not in codes(check(root, group_pattern=r"([^/]+)\.png$"))
    original = next((root / "train" / "covid").iterdir())
    with Image.open(original) as image:
        image.resize((90, 90)).save(root / "test" / "covid" / "again.jpg", quality=80)
    (leak,) = [
        f for f in check(root, group_pattern=r"([^/]+)\.\w+$").findings if f.name == "copies_across_groups"
    ]
    assert (leak.severity, leak.message.split()[0]) == ("warning", "1")
    assert "again.jpg" in leak.examples[0]
    assert original.name in leak.examples[0]


def test_a_label_that_the_file_size_gives_away_is_told(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        label, size = ("ill", 48) if i % 2 else ("well", 32)
        path = tmp_path / "data" / label / f"p{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8)).save(path)
    file_alone, histogram = check(tmp_path / "data").shortcuts.values()
    assert file_alone.value > 0.99
    assert histogram.interval[0] < 0.6


def test_a_bad_image_is_listed_and_the_rest_is_audited(phantoms):
    victim = next((phantoms.parent / "normal").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-9])
    result = check(phantoms)
    assert [(path, reason) for path, reason, _ in result.bad] == [(str(victim), "truncated")]
    assert result.shortcuts


def test_a_class_of_which_no_file_is_an_image_is_named_with_its_count(tmp_path):
    root = make_phantoms(tmp_path / "phantoms", patients=8, slices=1, size=48).parent
    for path in (root / "covid").glob("*.png"):
        path.write_bytes(b"no image at all")
    result = check(root, group_pattern=r"([^/]+)\.png$")
    found = {finding.name: finding for finding in result.findings}
    lost = len(result.bad)
    assert found["quarantined"].message.endswith(f"in quarantine: covid {lost} of {lost}.")
    assert not result.no_error_found


def test_what_is_printed_says_each_thing_once_and_what_to_do_about_deep_images(tmp_path):
    for label in ("ill", "well"):
        for i in range(3):
            path = tmp_path / "data" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32), 900 + i + 10 * len(label), np.uint16)).save(path)
    result = check(tmp_path / "data")
    text = check_text(result)
    assert text.startswith("Errors found")
    assert text.count("0.png: needs_range") == 2
    assert "for example" not in text, "the files are listed below"
    assert {f.remedy for f in result.findings if f.name in {"one_class", "quarantined"}} == {
        "16-bit, signed and float images need the range of their values: --range LOW,HIGH"
    }
    assert check(tmp_path / "data", value_range=(0, 1000)).bad == ()


def test_lines_that_are_always_printed_fit_a_terminal():
    assert max(map(len, LOOKED_FOR.splitlines())) <= 80


def test_a_folder_of_one_kind_beside_a_table_points_to_the_table(tmp_path):
    make_phantoms(tmp_path / "all", patients=4, slices=1, size=48)
    shutil.move(tmp_path / "all" / "covid", tmp_path / "data" / "covid")
    assert "folders_as_classes" not in codes(check(tmp_path / "data"))
    (tmp_path / "data" / "labels.csv").write_text("path,label\n")
    (found,) = [f for f in check(tmp_path / "data").findings if f.name == "folders_as_classes"]
    assert found.examples == ("labels.csv",)
    assert "give it in place of the folder" in found.remedy


def test_a_folder_of_another_format_is_refused_with_the_cure_of_that_format(tmp_path):
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "volume.nrrd").write_bytes(b"NRRD0004\n" + b"\0" * 340)
    with pytest.raises(ManifestError, match="The file is NRRD") as caught:
        check(tmp_path)
    assert "downloaded completely" not in caught.value.remedy


@pytest.mark.parametrize(("count", "said"), [(1, "1 file is"), (2, "2 files are"), (0, "0 files are")])
def test_counts_agree_with_their_verbs(count, said):
    assert counted(count, "file is", "files are") == said


def split_folders(root, names=("0", "1")):
    """Four images a class, three of them for training."""
    for at, label in enumerate(names):
        for i in range(4):
            path = root / ("train" if i else "test") / label / f"{label}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32), 40 * i + at, np.uint8)).save(path)
    return root


def test_it_tells_the_splits_and_a_count_apart_from_a_class_that_is_a_number(tmp_path, phantoms):
    told = check_text(check(split_folders(tmp_path / "data"))).splitlines()
    assert told[1:3] == ["8 images, no patients given, classes: 0: 4, 1: 4.", "Splits: train 6, test 2."]
    assert "classes: covid 20, normal 20." in check_text(check(phantoms))


def test_it_speaks_of_patients_where_they_are_given_and_of_no_split_where_there_is_none(phantoms):
    text = check_text(check(phantoms))
    assert "\n40 images of 20 patients (groups), classes: covid 20, normal 20.\n" in text
    assert "Splits:" not in text


def test_no_name_that_only_a_library_knows_is_told_of_a_deep_image(tmp_path):
    for label in ("ill", "well"):
        path = tmp_path / "data" / label / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((32, 32), 900, np.uint16)).save(path)
    text = check_text(check(tmp_path / "data"))
    assert "needs_range (16-bit values of grey, with no declared range.)" in text
    assert "I;16" not in text
