"""Whatever way images are named to `predict`, the same ones are meant; what is none is refused with an example."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featstore.api.predict import find_images
from featstore.errors import ManifestError, UsageError
from featstore.images.scan import scan


def picture(path, seed=0, pages=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = [
        Image.fromarray(np.random.default_rng([seed, page]).integers(0, 255, (16, 16, 3), np.uint8))
        for page in range(pages)
    ]
    drawn[0].save(path, **({"save_all": True, "append_images": drawn[1:]} if pages > 1 else {}))
    return path


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "数据 é"
    for seed, name in enumerate(["a.png", "deep/er/b.JPG", "p7/c.tif"]):
        picture(folder / name, seed)
    (folder / "notes.txt").write_text("x\n1\n")
    (folder / "notes.md").write_text("x")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def names(found):
    return [record.path.name for record in found.records]


def test_a_folder_is_walked_at_any_depth_and_what_is_no_image_is_counted(scans):
    found = find_images(scans)
    assert names(found) == ["a.png", "b.JPG", "c.tif"]
    assert (found.skipped, found.bad) == (3, ())


def test_text_folder_list_and_pattern_mean_the_same(scans, monkeypatch):
    expected = find_images(scans).records
    assert find_images(str(scans)).records == expected
    assert find_images([scans / "a.png", str(scans / "deep"), scans / "p7"]).records == expected
    assert find_images([scans, scans / "a.png"]).records == expected, "once is enough"
    assert {r.id for r in find_images(f"{scans}/**/*.*").records} >= {r.id for r in expected}
    monkeypatch.chdir(scans)
    assert names(find_images("*.png")) == ["a.png"]
    assert names(find_images(["*/*.tif", "a.png"])) == ["c.tif", "a.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(scans):
    odd = picture(scans / "slice[1]?.png", 5)
    assert names(find_images(odd)) == [odd.name]


def test_a_table_needs_paths_alone_and_may_have_labels_and_groups(scans):
    table = scans / "list.csv"
    table.write_text("path\na.png\np7/c.tif\n")
    assert [(r.path.name, r.label, r.group) for r in find_images(table).records] == [
        ("a.png", "", ""),
        ("c.tif", "", ""),
    ]
    table.write_text("path,label,group\na.png,ill,p1\np7/c.tif,,p2\nnone.png,ill,p3\n")
    found = find_images(table)
    assert [(r.path.name, r.label, r.group) for r in found.records] == [
        ("a.png", "ill", "p1"),
        ("c.tif", "", "p2"),
    ]
    assert [(path.name, reason) for path, reason, _ in found.bad] == [("none.png", "missing")]


def test_every_page_is_an_image(scans):
    stack = picture(scans / "stack.tif", 3, pages=3)
    found = find_images([scans / "a.png", stack])
    assert [(r.path.name, r.frame) for r in found.records] == [
        ("a.png", 0),
        ("stack.tif", 0),
        ("stack.tif", 1),
        ("stack.tif", 2),
    ]
    assert found.several == {stack}
    assert len({r.id for r in found.records}) == 4


def test_a_pattern_on_the_path_names_the_patient(scans):
    groups = {r.path.name: r.group for r in find_images(scans, group_pattern=r"(p\d+)/").records}
    assert groups == {"a.png": "", "b.JPG": "", "c.tif": "p7"}
    with pytest.raises(ManifestError, match="captures nothing"):
        find_images(scans, group_pattern="p")


def test_one_of_several_that_is_nothing_is_told_and_the_rest_goes_on(scans):
    (scans / "empty").mkdir()
    found = find_images([scans / "a.png", scans / "empty", f"{scans}/*.pgn", scans / "gone.png"])
    assert names(found) == ["a.png"]
    assert {(Path(path).name, reason) for path, reason, _ in found.bad} == {
        ("gone.png", "missing"),
        ("empty", "missing"),
        ("*.pgn", "missing"),
    }


NOTHING = {
    "a pattern": (["{}/*.pgn"], r"no image in .*\*\.pgn'\. In .* for example 'a\.png'"),
    "a text": (["{}/notes.md"], r"This is no image: .*notes\.md': not_image"),
    "a table of something else": (["{}/notes.txt"], r"no column"),
    "a file that is not there": (["{}/gone.png"], r"gone\.png': missing"),
    "an empty folder": (["{}/empty"], r"no image in '.*empty'"),
    "a folder of DICOM": (["{}/dicom"], r"1\.dcm': no_picture \(The DICOM file holds"),
    "several": (
        ["{}/gone.png", "{}/notes.md"],
        r"None of the 2 files is an image, for example '.*gone\.png'",
    ),
    "nothing at all": ([], "No image was given"),
}


@pytest.mark.parametrize(("given", "complaint"), NOTHING.values(), ids=NOTHING)
def test_if_nothing_is_an_image_it_is_refused_with_an_example(scans, given, complaint):
    (scans / "empty").mkdir()
    (scans / "dicom").mkdir()
    (scans / "dicom/1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    with pytest.raises(UsageError, match=complaint) as caught:
        find_images([entry.format(scans) for entry in given])
    assert "\n" not in caught.value.cause + caught.value.remedy


def test_a_link_out_of_the_folder_needs_a_word_and_a_circle_ends(scans, tmp_path):
    (scans / "p7/circle").symlink_to(scans)
    assert len(find_images(scans).records) == 3
    outside = picture(tmp_path / "outside/x.png", 8)
    (scans / "elsewhere").symlink_to(outside.parent)
    with pytest.raises(ManifestError) as caught:
        find_images(scans)
    assert "--follow-links" in caught.value.remedy
    assert len(find_images(scans, follow_links=True).records) == 4


def test_folders_called_like_classes_of_the_model_are_labels_and_others_are_none(scans):
    for seed, name in enumerate(["test/ill/p1/x.png", "test/well/y.png", "ill/other/z.png"]):
        picture(scans / "more" / name, 10 + seed)
    found = find_images(scans, ("ill", "well"))
    assert {r.path.name: r.label for r in found.records} == {
        "a.png": "",
        "b.JPG": "",
        "c.tif": "",
        "x.png": "ill",
        "y.png": "well",
        "z.png": "ill",
    }
    assert {r.label for r in find_images(scans).records} == {""}


def test_arrays_of_pictures_say_class_and_patient_as_in_training(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (6, 16, 16), np.uint8)
    path = tmp_path / "study.npz"
    np.savez(
        path,
        train_images=pictures[:4],
        train_labels=np.array([0, 1, 0, 1]),
        train_groups=np.array(["a", "b", "a", "c"]),
        test_images=pictures[4:],
        test_labels=np.array([1, 1]),
        test_groups=np.array(["d", "d"]),
    )
    asked = {r.id: (r.label, r.group, r.frame) for r in find_images(path).records}
    assert asked == {r.id: (r.label, r.group, r.frame) for r in scan(path).records}


def test_patients_whose_names_differ_in_spelling_are_one_as_in_training(scans):
    table = scans / "list.csv"
    table.write_text("path,group\na.png,Mül 1\np7/c.tif,MÜL 1\ndeep/er/b.JPG,other\n")
    assert len({r.group for r in find_images(table).records}) == 2
