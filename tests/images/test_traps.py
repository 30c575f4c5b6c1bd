"""Files laid out to stall, flood or mislead whoever reads them: refused at once, and with a reason."""

import csv
import io
import os
import struct
from pathlib import Path

import pytest
from fakes import DECODING

from featstore.errors import BadImageError, ManifestError, RecipeError
from featstore.images.formats import container as structure
from featstore.images.manifest import read_contents
from featstore.images.reading import read_pixels
from featstore.images.recipe import parse_recipe
from featstore.images.scan import scan
from featstore.serialization import UnfitFileError, open_regular, read_regular, write_private
from featstore.types import ImageRecord

pytestmark = pytest.mark.hostile


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


TRAPS = {pipe: "not_file", device: "not_file", folder: "not_file", sparse: "too_large"}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_trap_that_takes_the_place_of_a_listed_file_is_neither_waited_for_nor_read(trap, tmp_path, tried):
    """Between listing and reading, whoever may write the folder can exchange files; the look is at the open one."""
    path = tmp_path / "x.png"
    trap(path)
    assert read_contents(path).reason == TRAPS[trap]
    with pytest.raises(BadImageError) as caught:
        read_pixels(ImageRecord("0" * 64, path, "a", "g"), DECODING)
    assert caught.value.reason == "missing"
    with pytest.raises(UnfitFileError):
        read_regular(path, 1 << 20)
    tried("files exchanged for a trap")


def test_a_file_is_opened_through_a_link_and_read_to_its_limit(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"12345"
    assert read_regular(tmp_path / "x", 5) == b"12345"
    with pytest.raises(UnfitFileError, match="5 bytes, more than 4"):
        read_regular(tmp_path / "x", 4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 4)


def test_a_private_file_is_private_from_its_first_byte_and_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "map.csv"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)

    def full(_descriptor):
        assert all(draft.stat().st_mode & 0o077 == 0 for draft in tmp_path.glob(".tmp-*"))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"newer")
    assert [p.name for p in tmp_path.iterdir()] == ["map.csv"]
    assert path.read_bytes() == b"new"


def tiff_of_pages(count) -> bytes:
    """Pages of six bytes: no entry, and where the next one is."""
    pages = b"".join(struct.pack("<HI", 0, 8 + 6 * (page + 1)) for page in range(count - 1))
    return b"II*\0\x08\0\0\0" + pages + struct.pack("<HI", 0, 0)


def test_a_page_bomb_is_too_large(tmp_path, tried):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff_of_pages(structure.MAX_PAGES))
    assert read_contents(path).pages == structure.MAX_PAGES
    path.write_bytes(tiff_of_pages(1_000_000))
    assert read_contents(path).reason == "too_large"
    tried("page bombs")


def test_folders_too_deep_to_walk_are_refused(write, tried):
    root = write({"a/1.png": 1, "b/2.png": 2, f"b/{'d/' * 90}3.png": 3})
    assert len(scan(root).records) == 3
    (root / "a" / Path(*"d" * 130)).mkdir(parents=True)
    with pytest.raises(ManifestError, match="nested deeper than 100"):
        scan(root)
    tried("nested folders")


def test_a_manifest_that_is_a_pipe_or_endless_is_refused(tmp_path):
    pipe(tmp_path / "a.csv")
    with pytest.raises(ManifestError):
        scan(tmp_path / "a.csv")
    sparse(tmp_path / "b.csv")
    with pytest.raises(ManifestError, match="more than"):
        scan(tmp_path / "b.csv")


def table(rows) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *rows])
    return text.getvalue()


REFUSED = {
    "absolute path": "/etc/passwd",
    "path above": "../../etc/passwd",
    "path above in disguise": "ct/./.././../etc/passwd",
    "URL": "https://example.org/x.png",
    "file URL": "file:///etc/passwd",
    "home on a share": "\\\\host\\share\\x.png",
    "drive": "C:\\x.png",
}


@pytest.mark.parametrize("path", REFUSED.values(), ids=REFUSED)
def test_a_manifest_that_reaches_out_is_refused_with_its_line(path, write, tried):
    root = write({"ct/0.png": 0, "m.csv": table([("ct/0.png", "ill"), (path, "well")]).encode()})
    with pytest.raises(ManifestError, match="line 3") as caught:
        scan(root / "m.csv")
    assert "\n" not in caught.value.cause
    tried("hostile manifests")


@pytest.mark.parametrize(
    "cell", ["=cmd|' /C calc'!A0", "+1", "@SUM(A1)", "<script>alert(1)</script>", "\x1b]0;x\x07", "a\u202eb"]
)
def test_formulas_markup_and_control_characters_are_labels_like_any_other(cell, write, tried):
    """What they could do they would do in a spreadsheet, a page or a terminal, and there they are spelt out."""
    root = write({"ct/0.png": 0, "ct/1.png": 1})
    (root / "m.csv").write_text(
        table([("ct/0.png", cell), ("ct/1.png", "well")]), encoding="utf-8", newline=""
    )
    assert cell.strip() in scan(root / "m.csv").classes
    tried("hostile manifests")


@pytest.mark.parametrize("text", ["-" * 10**6 + "1", "(" * 10**6, "9" * 10**6, "|".join(["flip(h)"] * 10**5)])
def test_a_recipe_of_any_length_is_refused_before_python_parses_it(text, tried):
    with pytest.raises(RecipeError, match="characters"):
        parse_recipe(f"rotate({text})")
    tried("hostile recipes")


def test_links_out_of_the_folder_stay_refused_also_when_they_lead_to_a_trap(write):
    root = write({"a/1.png": 1})
    Path(root / "a/zero.png").symlink_to("/dev/zero")
    manifest = scan(root, follow_links=True)
    assert [record.path.name for record in manifest.records] == ["1.png"]
