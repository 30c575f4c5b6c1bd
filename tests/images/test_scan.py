"""A folder becomes a manifest: nothing is lost silently, nothing is counted twice, nothing hangs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featstore import processes as bars
from featstore.errors import ManifestError
from featstore.images.manifest import read_contents
from featstore.images.reading import REASONS, decode
from featstore.images.scan import scan
from featstore.reporting.terminal.results import findings_text
from featstore.serialization import canonical_json


def names(manifest) -> list[str]:
    return [record.path.relative_to(manifest.root).as_posix() for record in manifest.records]


def reasons(manifest) -> dict[str, str]:
    return {row.path.name: row.reason for row in manifest.unreadable}


def test_class_folders_become_labels_and_nested_files_count_for_their_class(write):
    root = write({"b/2.png": 2, "a/1.png": 1, "a/patient 7/deep/3.png": 3})
    manifest = scan(root)
    assert names(manifest) == ["a/1.png", "a/patient 7/deep/3.png", "b/2.png"]
    assert manifest.classes == ("a", "b")
    assert manifest.count_by_class() == {"a": 2, "b": 1}
    assert manifest.count_by_split() == {None: 3}
    assert (manifest.unreadable, manifest.skipped, manifest.findings, manifest.has_groups) == (
        (),
        0,
        (),
        False,
    )


def test_the_image_id_is_the_sha256_of_the_bytes_and_the_group_of_a_lonely_image(write):
    for record in scan(write({"a/1.png": 1, "b/2.png": 2})).records:
        assert record.id == hashlib.sha256(record.path.read_bytes()).hexdigest() == record.group


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALID", "testing"),
        ("TRAIN", "validation", "Test"),
        ("train", "dev", "test"),
    ],
)
def test_top_folders_named_like_splits_are_splits(write, train, val, test):
    manifest = scan(write({f"{train}/a/1.png": 1, f"{val}/a/2.png": 2, f"{test}/b/deep/3.png": 3}))
    assert {(record.split, record.label) for record in manifest.records} == {
        ("train", "a"),
        ("val", "a"),
        ("test", "b"),
    }
    assert manifest.count_by_split() == {"test": 1, "train": 1, "val": 1}


def test_a_class_beside_split_names_makes_all_of_them_classes_and_is_worth_a_warning(write):
    manifest = scan(write({"train/1.png": 1, "test/2.png": 2, "extra/3.png": 3}))
    assert manifest.classes == ("extra", "test", "train")
    assert manifest.splits == ()
    assert "'extra'" in manifest.findings[0].examples[0]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "no class folders"),
        ({"readme.txt": b"hello"}, "no class folders"),
        ({"1.png": 1, "a/2.png": 2}, "outside any class: '1.png'"),
        ({"scan0001": 1, "a/2.png": 2}, "outside any class: 'scan0001'"),
        ({"train/1.png": 1, "test/a/2.png": 2}, "outside any class"),
        ({"a/1.png": 1, "b/notes.txt": b"none"}, "/b' holds no images"),
        ({"train/a/1.png": 1, "test/a/.keep": b""}, "test/a' holds no images"),
        ({"train/a/1.png": 1, "test/.keep": b""}, "/test' holds no images"),
        ({"a/1.jpg": b"<html>", "b/2.jpg": b""}, "None of the 2 files"),
    ],
)
def test_a_layout_that_cannot_be_meant_is_refused(write, files, complaint):
    with pytest.raises(ManifestError) as caught:
        scan(write(files))
    assert complaint in caught.value.cause
    assert caught.value.remedy


def test_a_data_set_that_is_not_there_is_refused(tmp_path, write):
    with pytest.raises(ManifestError, match="does not exist"):
        scan(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match="is one image \\(PNG\\)"):
        scan(write({"a/1.png": 1}) / "a/1.png")


def test_clutter_is_skipped_and_counted(write):
    clutter = [
        "._1.png",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "DICOMDIR",
        "labels.csv",
        "meta.JSON",
        "notes.md",
        "x.xml",
        "y.yaml",
    ]
    root = write(
        {"a/1.png": 1, "README.txt": b"", "LICENSE": b"MIT", ".git/config": b"", "__MACOSX/a/._1.png": b"x"}
    )
    write({f"a/{name}": b"\0\5\x16\7" for name in clutter})
    manifest = scan(root)
    assert names(manifest) == ["a/1.png"]
    assert manifest.skipped == len(clutter) + 4
    assert manifest.unreadable == ()


def test_a_folder_named_like_an_image_is_a_folder(write):
    assert names(scan(write({"a.png/x.png/1.png": 1}))) == ["a.png/x.png/1.png"]


def test_what_the_first_bytes_condemn_is_quarantined_with_its_id(write):
    junk = {
        "a/empty.png": b"", "a/page.jpg": b"<html></html>", "a/scan.dcm": b"\0" * 128 + b"DICM",
        "a/brain.nii.gz": b"\x1f\x8b\x08", "a/lfs.png": b"version https://git-lfs.github.com/spec/v1\n",
    }  # fmt: skip
    manifest = scan(write({"a/1.png": 1, "b/2.png": 2, **junk}))
    assert reasons(manifest) == {
        "empty.png": "empty", "page.jpg": "not_image", "scan.dcm": "truncated", "brain.nii.gz": "unsupported",
        "lfs.png": "lfs_pointer",
    }  # fmt: skip
    for row in manifest.unreadable:
        assert row.id == hashlib.sha256(row.path.read_bytes()).hexdigest()
        assert row.reason in REASONS
    assert len(manifest.records) == 2


def test_damage_further_in_is_left_for_the_decoder(write, png):
    manifest = scan(write({"a/1.png": 1, "a/cut.png": png(2)[:100]}))
    assert names(manifest) == ["a/1.png", "a/cut.png"]


def test_same_bytes_in_one_class_are_kept_once_with_a_count(write):
    manifest = scan(write({"a/1.png": 1, "a/2.png": 1, "a/deep/3.png": 1, "b/4.png": 4}))
    assert names(manifest) == ["a/1.png", "b/4.png"]
    assert [copy.path.name for copy in manifest.copies] == ["2.png", "3.png"]
    assert manifest.findings[0].message.startswith("2 files repeat")


def test_a_suffix_that_lies_is_worth_a_warning(write, picture, encode):
    manifest = scan(
        write({"a/1.png": encode(picture(), "JPEG"), "a/2.JPG": encode(picture(1), "JPEG"), "a/3": 3})
    )
    assert len(manifest.records) == 3
    assert manifest.findings[0].message.startswith("1 file is of another format than the suffix says")
    assert manifest.findings[0].examples[0] == "a/1.png"


ODD = [
    "line\nbreak.png",
    "comma,quote\"'.png",
    "-rf.png",
    "100%20.PNG",
    "=cmd().png",
    " space .png",
    "ünï.png",
    "a;b|c.png",
]


def test_odd_names_are_just_names(write):
    manifest = scan(write({f"a/{name}": seed for seed, name in enumerate(ODD)}))
    assert sorted(record.path.name for record in manifest.records) == sorted(ODD)
    assert all(record.path.read_bytes() for record in manifest.records)


def test_names_with_line_breaks_stay_on_one_line_of_a_warning(write):
    manifest = scan(write({"a/x\ny.png": 1, "a/z\ny.png": 1}))
    assert len(manifest.findings) == 1
    assert len(findings_text(manifest.findings).splitlines()) == 3


def test_a_name_that_is_not_utf8_is_scanned_and_fits_into_json(write):
    root = write({"a/1.png": 1})
    raw = os.fsencode(root) + b"/a/caf\xe9.png"
    try:
        Path(os.fsdecode(raw)).write_bytes((root / "a/1.png").read_bytes() + b"\0")
    except OSError:
        pytest.skip("this file system insists on UTF-8")
    manifest = scan(root)
    path = manifest.records[1].path
    assert os.fsencode(path) == raw
    assert json.loads(canonical_json(str(path))) == str(path)


def test_names_that_differ_only_in_accents_are_worth_a_warning(write):
    same_twice = {unicodedata.normalize(form, "a/é.png"): seed for seed, form in enumerate(["NFC", "NFD"])}
    root = write(same_twice)
    if len(list((root / "a").iterdir())) < 2:
        pytest.skip("this file system normalises names")
    manifest = scan(root)
    assert len(manifest.records) == 2
    assert "NFC" in manifest.findings[0].message


def test_class_folders_that_differ_only_in_accents_are_worth_a_warning(write):
    root = write(
        {unicodedata.normalize(form, f"é/{form}.png"): seed for seed, form in enumerate(["NFC", "NFD"])}
    )
    if len(list(root.iterdir())) < 2:
        pytest.skip("this file system normalises names")
    assert "NFC" in scan(root).findings[0].message


def test_a_link_counts_once_by_the_file_behind_it(write):
    root = write({"a/z.png": 1})
    (root / "a/again.png").symlink_to("z.png")
    (root / "a/folder").symlink_to(root / "a/deep")
    write({"a/deep/2.png": 2})
    manifest = scan(root)
    assert names(manifest) == ["a/deep/2.png", "a/z.png"]
    assert (manifest.copies, manifest.findings) == ((), ())


def test_a_link_into_another_class_is_kept_for_the_audit(write):
    root = write({"a/1.png": 1, "b/2.png": 2})
    (root / "b/1.png").symlink_to(root / "a/1.png")
    manifest = scan(root)
    assert [(copy.label, copy.path.name) for copy in manifest.copies] == [("b", "1.png")]


def test_dangling_links_and_loops_are_quarantined_without_hanging(write):
    root = write({"a/1.png": 1})
    (root / "a/dangling.png").symlink_to("nowhere.png")
    (root / "a/one.png").symlink_to("two.png")
    (root / "a/two.png").symlink_to("one.png")
    (root / "a/self").symlink_to(".")
    (root / "a/up").symlink_to("../a")
    manifest = scan(root)
    assert names(manifest) == ["a/1.png"]
    assert reasons(manifest) == {
        "dangling.png": "missing", "one.png": "loop", "two.png": "loop", "self": "loop", "up": "loop",
    }  # fmt: skip
    assert all(row.id is None for row in manifest.unreadable)


@pytest.mark.parametrize("target", ["elsewhere/x.png", "elsewhere"])
def test_a_link_out_of_the_data_set_is_refused_unless_wanted(write, tmp_path, target):
    write({"elsewhere/x.png": 5}, tmp_path)
    root = write({"a/1.png": 1})
    (root / "a/link").symlink_to(tmp_path / target)
    with pytest.raises(ManifestError) as caught:
        scan(root)
    assert "link out of the data set" in caught.value.cause
    assert "--follow-links" in caught.value.remedy
    assert len(scan(root, follow_links=True).records) == 2


def test_the_data_set_itself_may_be_a_link(write, tmp_path):
    (tmp_path / "link").symlink_to(write({"a/1.png": 1}))
    assert names(scan(tmp_path / "link")) == ["a/1.png"]


def test_pipes_and_sockets_are_skipped_and_never_opened(write, monkeypatch):
    root = write({"a/1.png": 1})
    os.mkfifo(root / "a/pipe.png")  # opening it would wait for a writer that never comes
    monkeypatch.chdir(root / "a")  # socket names are limited to about a hundred bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        manifest = scan(root)
    assert names(manifest) == ["a/1.png"]
    assert manifest.skipped == 2


@pytest.fixture
def as_nobody():
    """A public folder, and the rights of nobody: root may read everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder, (lambda: os.seteuid(65534)) if os.geteuid() == 0 else lambda: None
    if os.getuid() == 0:
        os.seteuid(0)
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_files_and_folders_without_permission_are_quarantined(write, as_nobody):
    root, drop_rights = as_nobody
    write({"a/1.png": 1, "a/secret.png": 2, "a/vault/3.png": 3}, root)
    (root / "a/secret.png").chmod(0)
    (root / "a/vault").chmod(0)
    drop_rights()
    manifest = scan(root)
    assert names(manifest) == ["a/1.png"]
    assert reasons(manifest) == {"secret.png": "permission", "vault": "permission"}


def test_a_file_that_vanishes_before_it_is_read_is_missing(tmp_path):
    gone = read_contents(tmp_path / "gone.png")
    assert (gone.reason, gone.id) == ("missing", None)


def test_a_disk_that_fails_is_unreadable(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", fail)
    assert read_contents(tmp_path / "x.png").reason == "unreadable"


def test_a_group_pattern_names_the_patient(write):
    manifest = scan(write({"a/p1_1.png": 1, "a/p1_2.png": 2, "b/p2_1.png": 3}), group_pattern=r"(p\d+)_")
    assert manifest.has_groups
    assert manifest.count_by_group() == {"p1": 2, "p2": 1}
    assert manifest.groups_by_class() == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        (r"(q\d+)_", "'a/p1_1.png'"),
        (r"(x*)", "'a/p1_1.png'"),
        (r"p\d+", "captures nothing"),
        (r"(p\d", "regular expression"),
    ],
)
def test_a_group_pattern_that_misses_is_refused(write, pattern, complaint):
    with pytest.raises(ManifestError) as caught:
        scan(write({"a/p1_1.png": 1, "b/p2_1.png": 3}), group_pattern=pattern)
    assert complaint in caught.value.cause


def pages(encode, count: int, **options) -> bytes:
    images = [Image.fromarray(np.full((20, 20), 10 * page, np.uint8)) for page in range(count)]
    return encode(images[0], "TIFF", save_all=True, append_images=images[1:], **options)


@pytest.mark.parametrize("big", [False, True], ids=["tiff", "bigtiff"])
def test_each_page_of_a_tiff_is_an_image_and_the_file_is_their_group(write, encode, big):
    data = pages(encode, 3, big_tiff=big)
    manifest = scan(write({"a/stack.tif": data, "b/2.png": 2}))
    file = hashlib.sha256(data).hexdigest()
    stack = [record for record in manifest.records if record.path.name == "stack.tif"]
    assert [record.frame for record in stack] == [0, 1, 2]
    assert [record.id for record in stack] == [
        hashlib.sha256(f"{file}#{page}".encode()).hexdigest() for page in range(3)
    ]
    assert {record.group for record in stack} == {file}
    for record in stack:
        assert (decode(data, record.frame)[0] == 10 * record.frame).all()


def test_a_tiff_of_one_page_is_an_ordinary_file(write, encode):
    (record,) = scan(write({"a/1.tif": pages(encode, 1)})).records
    assert record.id == hashlib.sha256(record.path.read_bytes()).hexdigest()


def test_pages_follow_a_group_that_is_given(write, encode):
    manifest = scan(write({"a/p1_stack.tif": pages(encode, 2)}), group_pattern="(p1)")
    assert [record.group for record in manifest.records] == ["p1", "p1"]


def test_a_tiff_whose_pages_run_in_a_circle_ends(write):
    directory = b"\1\0" + b"\0" * 12
    data = b"II*\0\x08\0\0\0" + directory + (26).to_bytes(4, "little") + directory + (8).to_bytes(4, "little")
    assert len(scan(write({"a/circle.tif": data})).records) == 2


@given(st.binary(max_size=200))
def test_a_tiff_of_garbage_has_at_least_one_page_and_ends(tail):
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(b"MM\0*" + tail)
        assert read_contents(Path(file.name)).pages >= 1


def test_scanning_loads_no_heavy_library(write, encode, tmp_path):
    root = write({"a/1.png": 1, "a/stack.tif": pages(encode, 3)})
    program = (
        "import sys; from pathlib import Path; from featstore.images.scan import scan;"
        "from featstore.images.manifest import audit;"
        "print(len(scan(Path(sys.argv[1])).records)); audit(scan(Path(sys.argv[1])));"
        "print(sorted({'numpy', 'PIL', 'scipy', 'sklearn', 'tensorflow', 'keras', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, root], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["4", "[]"]


def test_the_shared_ct_images_scan_as_counted(covid_ct):
    manifest = scan(covid_ct)
    assert manifest.count_by_class() == {"CT_COVID": 349, "CT_NonCOVID": 397}
    assert manifest.unreadable == ()
    by_csv = scan(covid_ct / "manifest.csv")
    assert by_csv.count_by_split() == {"test": 150, "train": 447, "val": 149}
    assert by_csv.has_groups
    assert {record.id for record in by_csv.records} == {record.id for record in manifest.records}


def test_a_bar_is_shown_while_many_files_are_listed_and_hashed(tmp_path, monkeypatch, capsys):
    """From the start on: not only once the last file is hashed; and only where bars are wanted."""
    monkeypatch.setattr(bars, "BAR_DELAY", 0)
    for number in range(bars.FEWEST_FOR_A_BAR):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), number).save(path)
    monkeypatch.setattr(bars, "FEWEST_FOR_A_BAR", 8)
    table = tmp_path / "all.csv"
    lines = [f"data/{'ab'[n % 2]}/{n}.png,{'ab'[n % 2]}" for n in range(32)]
    table.write_text("\n".join(["path,label", *lines]))
    scan(tmp_path / "data")
    assert capsys.readouterr() == ("", "")
    for data in (tmp_path / "data", table):
        with bars.progress_bars(wanted=True):
            scan(data)
        out, err = capsys.readouterr()
        assert out == ""
        assert {"list", "hash"} <= {text.split(":")[0].strip() for text in err.split("\r")}
        assert "hash:   0%" in err, "it is there before the first file is read"


@pytest.mark.slow
def test_ten_thousand_files_take_four_times_as_many_steps_as_a_quarter_of_them(tmp_path):
    """Counted in calls and lines that are run, in every thread: look-ups that grow with the square take sixteen."""
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 64), dtype=np.uint8)
    spent = {}
    for count in (2_500, 10_000):
        for number in range(count):
            path = tmp_path / str(count) / "ab"[number % 2] / f"p{number // 4}-{number}.pgm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"P5 8 8 255\n" + pixels[number].tobytes())
        spent[count] = 0

        def step(_frame, _event, _value, count=count):
            spent[count] += 1
            return step

        threading.settrace(step)
        sys.settrace(step)
        try:
            found = scan(tmp_path / str(count), group_pattern=r"(p\d+)")
        finally:
            sys.settrace(None)
            threading.settrace(None)
        assert len(found.records) == count
    assert 2 * spent[2_500] < spent[10_000] < 5 * spent[2_500], spent


def test_the_bar_of_many_files_does_not_wait(monkeypatch, capsys):
    monkeypatch.setattr(bars, "BAR_DELAY", 1000)
    with bars.progress_bars(wanted=True):
        for total in (bars.MANY - 1, bars.MANY):
            next(iter(bars.track(range(total), "hash", "file", total)))
            shown = capsys.readouterr().err
            assert ("hash:" in shown) == (total == bars.MANY)


def test_a_few_files_need_no_bar(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    Image.new("L", (16, 16), 7).save(tmp_path / "a" / "x.png")
    with bars.progress_bars(wanted=True):
        scan(tmp_path)
    assert capsys.readouterr().err == ""
