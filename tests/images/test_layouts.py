"""Folders as people lay them out: what can be meant in one way only is read so, what is in doubt is said."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import ManifestError
from featstore.images.names import split_name, split_names
from featstore.images.scan import scan


def stats(manifest):
    return dict(Counter((record.split, record.label) for record in manifest.records))


def found(manifest):
    return {finding.name: finding for finding in manifest.findings}


def both(train, test, classes=("cat", "dog")):
    """Three training images and two test images of each class below these folders."""
    return {
        f"{folder}/{label}/{seed + 10 * at}.png": seed + 10 * at + 50 * (folder == test)
        for folder, count in ((train, 3), (test, 2))
        for at, label in enumerate(classes)
        for seed in range(count)
    }


WHOLE = {("train", "cat"): 3, ("train", "dog"): 3, ("test", "cat"): 2, ("test", "dog"): 2}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train_data", "Test_data"),
        ("train-images", "testing images"),
        ("TrainingSet", "TestSet"),
        ("trainset", "testset"),
        ("train_split", "test_split"),
        ("covid_train", "covid_test"),
        ("train_224", "test_224"),
        ("train", "test1"),
        ("01_train", "02_test"),
        ("train/images", "test/images"),
        ("train", "held_out_test_final"),
    ],
)
def test_folders_whose_words_mean_a_split_are_splits(write, train, test):
    assert stats(scan(write(both(train, test)))) == WHOLE


@pytest.mark.parametrize("name", ["validation", "val_split", "valid-images", "Dev Set", "VALIDATION_DATA"])
def test_a_validation_folder_by_any_name_is_one(write, name):
    manifest = scan(write({**both("train", "test"), f"{name}/cat/v.png": 900, f"{name}/dog/w.png": 901}))
    assert stats(manifest) == {**WHOLE, ("val", "cat"): 1, ("val", "dog"): 1}


def test_words_decide_and_two_splits_in_one_name_do_not():
    assert [split_name(n) for n in ("train_val", "trainval", "my_test", "latest", "training", "strain")] == [
        None, None, None, None, "train", None,
    ]  # fmt: skip
    assert split_names(["pre_test", "post_test"]) == [None, None]
    assert split_names(["test1", "test2"]) == [None, None]
    assert split_names(["ct_train", "ct_test", "x"]) == ["train", "test", None]


@pytest.mark.parametrize("above", ["chest_xray", "archive/chest_xray", "data/data"])
@pytest.mark.parametrize("beside", [{}, {"docs/readme.txt": b"x"}, {"__MACOSX/._a.png": b"x"}])
def test_one_folder_too_high_is_found_and_noted(write, above, beside):
    root = write({**{f"{above}/{name}": seed for name, seed in both("train", "test").items()}, **beside})
    manifest = scan(root)
    assert stats(manifest) == WHOLE
    assert found(manifest)["layout_found"].examples == (above,)
    assert manifest.root == root, "patterns and exports see the paths below the folder that was given"


@pytest.mark.parametrize("beside", [{}, {"docs/readme.txt": b"x"}, {"LICENSE": b"x"}])
def test_class_folders_one_folder_too_high_are_found_too(write, beside):
    manifest = scan(write({"images/ill/1.png": 1, "images/well/2.png": 2, **beside}))
    assert stats(manifest) == {(None, "ill"): 1, (None, "well"): 1}
    assert found(manifest)["layout_found"].examples == ("images",)


def test_pictures_beside_a_data_set_with_splits_are_left_out_and_counted(write):
    files = {f"xray/{name}": seed for name, seed in both("train", "test").items()}
    manifest = scan(write({**files, "figures/1.png": 900}))
    assert stats(manifest) == WHOLE
    assert found(manifest)["split_folder_ignored"].count == 1


def test_patients_in_the_only_class_folder_do_not_become_classes(write):
    manifest = scan(write({"covid/patient1/1.png": 1, "covid/patient2/2.png": 2}))
    assert stats(manifest) == {(None, "covid"): 2}


def test_two_data_sets_side_by_side_are_named_and_the_remedy_works(write, tmp_path):
    files = {
        f"{top}/{name}": seed + shift
        for top, shift in (("fold1", 0), ("fold2", 200))
        for name, seed in both("train", "test").items()
    }
    with pytest.raises(ManifestError, match=r"2 data sets side by side.*'fold1', 'fold2'") as caught:
        scan(write(files))
    assert stats(scan(caught.value.remedy.split("'")[1])) == WHOLE


@pytest.mark.parametrize(
    ("extra", "count"),
    [
        ({"unlabelled/x.png": 900, "unlabelled/y.png": 901}, 2),
        ({"unlabelled/a/x.png": 900, "extra/b/y.png": 901, "extra/c/z.png": 902}, 3),
        ({"seg_pred/seg_pred/x.png": 900}, 1),
        ({"data/train/cat/0.png": 0, "data/test/cat/0.png": 50}, 2),
    ],
)
def test_a_third_folder_beside_train_and_test_is_left_out_and_counted(write, extra, count):
    manifest = scan(write({**both("train", "test"), **extra}))
    assert stats(manifest) == WHOLE
    assert found(manifest)["split_folder_ignored"].count == count
    assert found(manifest)["split_folder_ignored"].severity == "warning"


@pytest.mark.parametrize("place", ["test", "test/test", "test1", "test_set/unknown", "testing/images"])
def test_test_images_without_a_class_are_left_out_and_the_rest_has_no_split(write, place):
    train = {name: seed for name, seed in both("train", "test").items() if name.startswith("train")}
    manifest = scan(write({**train, f"{place}/1.png": 900, f"{place}/2.png": 901}))
    assert stats(manifest) == {(None, "cat"): 3, (None, "dog"): 3}
    assert found(manifest)["split_folder_ignored"].count == 2


def test_test_images_without_a_class_leave_train_and_val_alone(write):
    manifest = scan(write({**both("train", "val"), "test/1.png": 900}))
    assert manifest.count_by_split() == {"train": 6, "val": 4}


@pytest.mark.parametrize(
    "names",
    [
        ("train", "test", "extra"),
        ("train_cats", "test_dogs"),
        ("trainval", "test"),
        ("unlabelled", "cats"),
        ("data", "figures"),
        ("pre_test", "post_test"),
        ("test", "control"),
    ],
)
def test_folders_in_doubt_are_classes_and_said_to_be(write, names):
    manifest = scan(write({f"{name}/{at}.png": at for at, name in enumerate(names)}))
    assert manifest.classes == tuple(sorted(names))
    assert found(manifest)["folders_as_classes"].severity == "warning"


def test_ordinary_classes_are_not_doubted(write):
    for at, names in enumerate([("0", "1"), ("+", "-"), ("latest", "contest"), ("正常", "肺炎")]):
        root = write({f"{at}/{name}/{seed}.png": seed for seed, name in enumerate(names)}) / str(at)
        assert scan(root).findings == ()


def test_splits_inside_classes_are_read_where_they_hold_images_or_patients(write):
    files = {"ill/train/1.png": 1, "ill/test/p/2.png": 2, "well/train/3.png": 3, "well/test/4.png": 4}
    manifest = scan(write(files))
    assert stats(manifest) == {
        ("train", "ill"): 1, ("test", "ill"): 1, ("train", "well"): 1, ("test", "well"): 1,
    }  # fmt: skip
    assert "layout_found" in found(manifest)


def test_splits_inside_some_classes_only_are_worth_a_warning(write):
    manifest = scan(write({"ill/train/1.png": 1, "ill/test/2.png": 2, "well/3.png": 3}))
    assert manifest.splits == ()
    assert found(manifest)["folders_as_classes"].count == 2


@pytest.mark.parametrize("text", ["Training set", "TRAIN", "train_data"])
def test_a_split_column_takes_the_same_words(write, text):
    root = write({"0.png": 0, "1.png": 1})
    (root / "t.csv").write_text(f"path,label,split\n0.png,a,{text}\n1.png,b,{text}\n")
    assert scan(root / "t.csv").splits == ("train",)


def test_images_in_no_folder_are_refused_with_the_table_beside_them(write):
    root = write({"0.png": 0, "1.png": 1, "labels.csv": b"path,label\n0.png,a\n1.png,b\n"})
    with pytest.raises(ManifestError, match="outside any class") as caught:
        scan(root)
    assert scan(caught.value.remedy.split("'")[1]).classes == ("a", "b")


def test_folders_that_hold_themselves_end(write):
    root = write({"a/1.png": 1})
    (root / "a/a").symlink_to("..")
    assert len(scan(root).records) == 1
    lone = write({"x/train/cat/1.png": 1}, root.parent / "lone")
    (lone / "x/train/train").symlink_to(".")
    (lone / "x/y").symlink_to("..")
    with pytest.raises(ManifestError):
        scan(write({}, root.parent / "none"))
    scan(lone)


FOLDERS = st.sampled_from(
    ["train", "test_set", "val", "images", "data", "cat", "dog", "p1", "p2", "extra", "docs"]
)


@given(st.sets(st.lists(FOLDERS, min_size=1, max_size=4).map("/".join), min_size=1, max_size=9))
def test_no_image_of_any_tree_is_lost_in_silence(folders):
    """Each is a record, or counted as left out; or the whole is refused."""
    with tempfile.TemporaryDirectory() as top:
        for at, folder in enumerate(sorted(folders)):
            Path(top, folder).mkdir(parents=True, exist_ok=True)
            Path(top, folder, f"{at}.pgm").write_bytes(b"P5 9 9 255\n" + bytes([at] * 81))
        try:
            manifest = scan(top)
        except ManifestError:
            return
        left = found(manifest).get("split_folder_ignored")
        assert len(manifest.records) + (left.count if left else 0) == len(folders)
        for record in manifest.records:
            assert record.label in record.path.relative_to(top).parts
            parts = [split_name(part) for part in record.path.relative_to(top).parts]
            assert record.split is None or record.split in parts
