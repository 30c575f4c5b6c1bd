"""Files of several pictures: every slice is an image, no thumbnail is, and whatever is done is said."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from fakes import DECODING
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin
from tiffs import page, stack, tiff

from featstore.errors import BadImageError, UsageError
from featstore.extraction.pipeline import refuse_undeclared_range
from featstore.findings import CATALOGUE
from featstore.images import reading as file_cache
from featstore.images.formats import tiff as pages_module
from featstore.images.formats import tiff_directory as tiff_module
from featstore.images.formats.container import MAX_PAGES
from featstore.images.formats.tiff import PAGE_NOTES
from featstore.images.manifest import DECODING as OF_DECODING
from featstore.images.manifest import PAGES, Contents, findings_of_notes, findings_of_pages, read_contents
from featstore.images.reading import WARNINGS, decode, read_pixels
from featstore.images.scan import scan
from featstore.types import ImageRecord

if TYPE_CHECKING:
    from pathlib import Path

IMAGEJ = "ImageJ=1.53t\nimages={0}\nslices={0}\nloop=false\n"
OME = '<?xml version="1.0"?><OME><Image><Pixels Type="uint8" SizeC="{}" SizeZ="{}"/></Image></OME>'
RANGE = (0, 40_000)


def slices(count: int, dtype: str = "u1", shape: tuple[int, ...] = (20, 24)) -> np.ndarray:
    top = 250 if np.dtype(dtype).itemsize == 1 else 40_000
    return np.random.default_rng(count).integers(0, top, (count, *shape)).astype(dtype)


def shown(samples: np.ndarray) -> np.ndarray:
    """Eight-bit pixels that `decode` should give, with `RANGE` where they are deep."""
    if samples.dtype == np.uint8:
        return samples
    return np.rint(samples.astype(np.float64) / RANGE[1] * 255).astype(np.uint8)


def found(data: bytes, folder: Path) -> Contents:
    path = folder / "x.tif"
    path.write_bytes(data)
    contents = read_contents(path)
    assert isinstance(contents, Contents), contents
    return contents


def page_ids(data: bytes, frames) -> list[str]:
    file = hashlib.sha256(data).hexdigest()
    return [hashlib.sha256(f"{file}#{frame}".encode()).hexdigest() for frame in frames]


def codes(manifest) -> dict[str, int]:
    return {finding.code: finding.count for finding in manifest.findings}


@pytest.mark.parametrize("big", [False, True], ids=["tiff", "bigtiff"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_every_slice_of_an_imagej_stack_is_an_image_of_one_group(write, dtype, order, big):
    volume = slices(6, dtype)
    data = stack(volume, IMAGEJ.format(6), order=order, big=big)
    np.testing.assert_array_equal(
        tifffile.imread(io.BytesIO(data)), volume
    )  # as an independent reader sees it
    manifest = scan(write({"a/stack.tif": data, "b/2.png": 2}))
    records = [record for record in manifest.records if record.label == "a"]
    assert [record.id for record in records] == page_ids(data, range(6))
    assert [record.frame for record in records] == list(range(6))
    assert len({record.group for record in records}) == 1
    decoding = replace(DECODING, value_range=RANGE)
    for record, expected in zip(records, volume, strict=True):
        np.testing.assert_array_equal(read_pixels(record, decoding)[..., 0], shown(expected))
    assert codes(manifest) == {"FS309": 1}


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 4, 2, 20, 24), "TZCYX"), ((5, 20, 24), "ZYX"), ((2, 20, 24, 3), "ZYXS")]
)
def test_a_hyperstack_that_tifffile_writes_gives_all_its_planes(tmp_path, shape, axes):
    volume = np.random.default_rng(0).integers(0, 250, shape).astype(np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, volume, imagej=True, metadata={"axes": axes})
    planes = volume.reshape(-1, 20, 24, *shape[4 if "C" in axes else 3 :][: "S" in axes])
    planes = planes.reshape(-1, 20, 24, 3 if "S" in axes else 1)
    contents = found(file.getvalue(), tmp_path)
    assert contents.frames == tuple(range(len(planes)))
    assert ("channels" in contents.notes) == ("C" in axes)
    for frame, expected in zip(contents.frames, planes, strict=True):
        np.testing.assert_array_equal(decode(file.getvalue(), frame)[0], expected)


def test_a_volume_of_which_tifffile_described_one_page_gives_all_its_slices(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, slices(4), metadata={"axes": "CYX", "truncated": True}, photometric="minisblack")
    plain = found(file.getvalue(), tmp_path)
    assert (plain.pages, plain.notes) == (4, ("channels", "pages"))
    text = json.dumps({"shape": [4, 20, 24], "truncated": True})
    contents = found(stack(slices(4), text), tmp_path)
    assert (contents.pages, contents.notes) == (4, ("pages",))


def test_a_metamorph_stack_gives_all_its_planes(tmp_path):
    """The tag UIC2 has one rational pair per plane, so its count is theirs."""
    volume = slices(3, "u2")
    data = bytearray(stack(volume, "metamorph", {33629: (0, 0, 0)}))
    contents = found(bytes(data), tmp_path)
    assert contents.pages == 3
    for frame, expected in enumerate(volume):
        np.testing.assert_array_equal(decode(bytes(data), frame, RANGE)[0][..., 0], shown(expected))


def test_the_slices_of_a_stack_in_colour_or_palette_look_like_the_first(tmp_path):
    colour = slices(3, shape=(20, 24, 3))
    planar = np.moveaxis(colour, -1, 1)
    for volume, tags in ((colour, {}), (colour, {262: 2})):
        data = stack(volume, IMAGEJ.format(3), tags)
        np.testing.assert_array_equal(decode(data, 2)[0], colour[2])
    strips = {284: 2, 262: 2, 277: 3, 258: (8, 8, 8), 339: (1, 1, 1), 279: (480, 480, 480)}
    head = len(tiff(page(colour[0], {270: IMAGEJ.format(3), 273: (0, 0, 0)} | strips, b"")))
    data = tiff(page(colour[0], {270: IMAGEJ.format(3), 273: (head, head + 480, head + 960)} | strips, b""))
    data += planar.tobytes()
    assert found(data, tmp_path).pages == 3
    np.testing.assert_array_equal(decode(data, 1)[0], colour[1])
    table = np.random.default_rng(1).integers(0, 256, (3, 256)) * 257
    painted = stack(slices(3), IMAGEJ.format(3), {262: 3, 320: tuple(table.ravel().tolist())})
    np.testing.assert_array_equal(decode(painted, 1)[0], (table // 257).T[slices(3)[1]])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(announced=st.integers(0, 10**12), held=st.integers(1, 9), rest=st.integers(0, 479))
def test_a_stack_has_the_slices_that_it_announces_and_holds_and_none_that_it_does_not(
    tmp_path, announced, held, rest
):
    data = stack(slices(held), IMAGEJ.format(announced)) + bytes(rest)
    contents = found(data, tmp_path)
    assert contents.pages == max(1, min(announced, held))
    assert ("cut_short" in contents.notes) == (announced > held)
    np.testing.assert_array_equal(
        decode(data, contents.pages - 1)[0][..., 0], slices(held)[contents.pages - 1]
    )
    with pytest.raises(BadImageError):
        decode(data, contents.pages)


def test_slices_that_are_announced_and_absent_are_said_and_one_slice_is_an_ordinary_file(write):
    """As saved again by a program that keeps the description and the first slice."""
    one, packed = io.BytesIO(), io.BytesIO()
    Image.fromarray(slices(1)[0]).save(one, "TIFF", tiffinfo={270: IMAGEJ.format(6)})
    Image.fromarray(slices(2)[0]).save(
        packed, "TIFF", tiffinfo={270: IMAGEJ.format(6)}, compression="tiff_lzw"
    )
    before_its_directory = tiff(page(slices(3)[0], {270: IMAGEJ.format(6)})) + bytes(5000)
    files = {
        "a/1.tif": one.getvalue(),
        "a/2.tif": packed.getvalue(),
        "b/3.tif": before_its_directory,
        "b/4.png": 1,
    }
    manifest = scan(write(files))
    assert [record.id for record in manifest.records if record.path.suffix == ".tif"] == [
        hashlib.sha256(data).hexdigest() for name, data in files.items() if name.endswith("tif")
    ]
    assert codes(manifest) == {"FS312": 3}
    short = scan(write({"c/5.tif": stack(slices(3), IMAGEJ.format(6))}))
    assert codes(short)["FS312"] == 4
    assert codes(short)["FS309"] == 1


def test_a_stack_of_more_slices_than_a_file_may_have_is_too_large(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(stack(np.zeros((MAX_PAGES + 1, 8, 8), np.uint8), IMAGEJ.format(MAX_PAGES + 1)))
    assert read_contents(path).reason == "too_large"
    with pytest.raises(BadImageError, match="slices"):
        decode(path.read_bytes())


def pyramid(**options) -> bytes:
    whole = slices(1, shape=(64, 64, 3))[0]
    levels = [page(whole[::step, ::step], {254: int(step > 1)}) for step in (1, 2, 4)]
    return tiff(*levels, **options)


@pytest.mark.parametrize("order", "<>")
def test_smaller_copies_are_no_images_and_the_page_keeps_its_id(write, order):
    data = pyramid(order=order)
    manifest = scan(write({"a/slide.tif": data, "b/2.png": 2}))
    (record,) = [record for record in manifest.records if record.label == "a"]
    assert [record.id] == page_ids(data, [0])
    assert read_pixels(record, DECODING).shape == (64, 64, 3)
    assert codes(manifest) == {"FS310": 1}


def test_thumbnails_and_masks_are_skipped_wherever_they_stand(tmp_path):
    whole = slices(3)
    for kind in ({254: 1}, {254: 4}, {254: 5}, {255: 2}):
        data = tiff(page(whole[0, ::2, ::2], kind), page(whole[1]), page(whole[2], {254: 2, 297: (1, 2)}))
        contents = found(data, tmp_path)
        assert contents.frames == (1, 2)
        assert contents.ids == page_ids(data, (1, 2))
        assert contents.notes == ("pages", "reduced")
        np.testing.assert_array_equal(decode(data, 1)[0][..., 0], whole[1])
    marked = found(tiff(page(whole[0], {254: 1})), tmp_path)
    assert (marked.frames, marked.notes) == ((0,), ())


def test_pictures_below_a_page_are_thumbnails_of_it_or_the_page_is_a_preview(tmp_path):
    whole = slices(1)[0]
    small = page(whole[::2, ::2], {254: 1})
    contents = found(tiff(page(whole), below=(small,)), tmp_path)
    assert (contents.pages, contents.notes) == (1, ("reduced",))
    path = tmp_path / "raw.tif"
    path.write_bytes(tiff(small, below=(page(whole, {254: 0}),)))
    assert read_contents(path).reason == "unsupported"
    assert "preview" in read_contents(path).detail


def test_channels_are_told_from_slices_and_from_colour(tmp_path):
    def notes(description, *pages):
        first, *others = pages
        return found(tiff(first._replace(tags={270: description}), *others), tmp_path).notes

    grey = [page(plane) for plane in slices(3)]
    colour = page(slices(1, shape=(20, 24, 3))[0])
    assert notes(OME.format(3, 1), *grey) == ("channels", "pages")
    assert notes(OME.format(1, 3), *grey) == ("pages",)
    assert notes(OME.format(3, 1), colour) == ()
    assert notes(OME.format(3, 2), colour, colour) == ("pages",)
    assert notes("ImageJ=1.53t\nimages=3\nchannels=3\nmode=composite\n", *grey) == ("channels", "pages")
    composite = stack(slices(3), "ImageJ=1.53t\nimages=3\nchannels=3\nmode=composite\n")
    assert found(composite, tmp_path).notes == ("channels", "pages")
    assert notes("ImageJ=1.53t\nchannels=1\n", *grey) == ("pages",)
    assert notes("SizeC is a word", *grey) == ("pages",)


def test_channels_reach_the_manifest_as_a_warning(write):
    pages = [page(plane) for plane in slices(3)]
    data = tiff(pages[0]._replace(tags={270: OME.format(3, 1)}), *pages[1:])
    manifest = scan(write({"a/cell.ome.tif": data, "b/2.png": 2}))
    (warning,) = [finding for finding in manifest.findings if finding.code == "FS311"]
    assert (warning.severity, warning.count, warning.examples) == ("warning", 1, ("a/cell.ome.tif",))
    assert "a/cell" not in warning.message


def test_pages_of_other_sizes_are_said(tmp_path):
    whole = slices(1)[0]
    assert found(tiff(page(whole), page(whole[::2, ::2])), tmp_path).notes == ("pages", "sizes")
    assert found(tiff(page(whole), page(whole[::2, ::2], {254: 1})), tmp_path).notes == ("reduced",)


def test_pages_of_other_depth_are_read_each_in_its_own(tmp_path):
    deep, shallow = slices(1, "u2")[0], slices(1)[0]
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(page(shallow), page(deep)))
    contents = read_contents(path)
    records = [
        ImageRecord(i, path, "a", "g", frame=f) for i, f in zip(contents.ids, contents.frames, strict=True)
    ]
    refuse_undeclared_range(records[:1], DECODING)
    with pytest.raises(UsageError, match="1 images hold 16-bit"):
        refuse_undeclared_range(records, DECODING)
    np.testing.assert_array_equal(decode(path.read_bytes(), 0, RANGE)[0][..., 0], shallow)
    np.testing.assert_array_equal(decode(path.read_bytes(), 1, RANGE)[0][..., 0], shown(deep))


def test_every_page_of_a_fax_is_an_image(tmp_path, picture, encode):
    pages = [picture(seed, mode="1") for seed in range(3)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="group4")
    contents = found(data, tmp_path)
    assert (contents.pages, contents.notes) == (3, ("pages",))
    for frame, expected in enumerate(pages):
        np.testing.assert_array_equal(decode(data, frame)[0][..., 0], np.asarray(expected) * 255)


def test_a_file_repeated_with_all_its_pages_counts_once(write):
    data = stack(slices(5), IMAGEJ.format(5))
    manifest = scan(write({"a/1.tif": data, "a/2.tif": data, "b/3.png": 3}))
    assert codes(manifest)["FS302"] == 1
    assert len(manifest.records) == 6


HOSTILE = [
    "ImageJ=" + "images=9\n" * 10**5,
    '{"shape"' * 10**4,
    '{"shape": [' + "9" * 5000 + "]}",
    '{"shape": [[' * 5000,
    '{"shape": [1e999]}',
    "<Pixels " * 10**5,
    OME.format("9" * 400, 1),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_description_that_is_made_to_stall_or_to_crash_is_read_past(tmp_path, text):
    contents = found(tiff(page(slices(1)[0], {270: text})), tmp_path)
    assert contents.pages == 1


def test_every_note_has_a_finding_and_every_finding_a_remedy():
    assert OF_DECODING.keys() == WARNINGS.keys()
    assert PAGES.keys() == PAGE_NOTES.keys()
    for code, _ in (*OF_DECODING.values(), *PAGES.values()):
        assert CATALOGUE[code].remedy


def test_notes_of_decoding_become_counted_findings_with_examples():
    notes = [(f"p{number}.png", ("constant", "alpha")) for number in range(20)]
    notes += [("clean.png", ()), ("film.gif", ("frames",)), ("film.gif", ("frames", "unheard of"))]
    frames, alpha, constant = findings_of_notes(notes)
    assert (frames.code, frames.count, frames.examples) == ("FS304", 2, ("film.gif",))
    assert (alpha.code, alpha.severity, alpha.count) == ("FS305", "note", 20)
    assert (constant.code, constant.severity, constant.count) == ("FS307", "warning", 20)
    assert constant.examples == tuple(f"p{number}.png" for number in range(5))
    assert not any("p1" in finding.message for finding in (frames, alpha, constant))
    assert findings_of_notes([]) == ()
    assert findings_of_pages([]) == ()


def test_the_pages_of_a_file_are_read_hashed_and_followed_once(tmp_path, monkeypatch):
    """Whatever is done for all pages of a file grows with the pages, not with their square."""
    counts = []
    for count in (20, 60):
        done = Counter()
        for owner, name in (
            (file_cache, "read_bounded"), (file_cache, "digest_bytes"), (pages_module, "_announced"),
            (tiff_module, "_unpack"), (TiffImagePlugin.ImageFileDirectory_v2, "load"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, counting(getattr(owner, name), done, name))
        rng = np.random.default_rng(0)
        shown = rng.integers(0, 255, (count, 16, 16), dtype=np.uint8)
        first, *others = map(Image.fromarray, shown)
        path = tmp_path / f"{count}.tif"
        first.save(path, save_all=True, append_images=others, compression="tiff_lzw")
        contents = read_contents(path)
        records = [
            ImageRecord(image, path, "a", contents.digest, None, None, frame)
            for image, frame in zip(contents.ids, contents.frames, strict=True)
        ]
        done.clear()
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda record: read_pixels(record, DECODING), records))
        np.testing.assert_array_equal(np.array(read)[..., 0], shown)
        assert done["read_bounded"] == done["digest_bytes"] == 1
        counts.append(done)
        monkeypatch.undo()
    for name in ("_announced", "_unpack", "load"):
        assert counts[1][name] <= 3 * counts[0][name], name
    assert file_cache.FILE_CACHE._file is None, "a file is let go with its last page"


def counting(function, done, name):
    def counted(*arguments, **options):
        done[name] += 1
        return function(*arguments, **options)

    return counted


def test_a_file_that_changes_while_its_pages_are_read_is_noticed(tmp_path):
    path = tmp_path / "stack.tif"
    greys = [Image.new("L", (16, 16), grey) for grey in range(4)]
    greys[0].save(path, save_all=True, append_images=greys[1:])
    contents = read_contents(path)
    records = [ImageRecord(i, path, "a", "g", None, None, f) for f, i in enumerate(contents.ids)]
    read_pixels(records[0], DECODING)
    greys[3].save(path, save_all=True, append_images=greys[:3])
    with pytest.raises(BadImageError) as caught:
        read_pixels(records[1], DECODING)
    assert caught.value.reason == "changed"
    path.unlink()
    with pytest.raises(BadImageError) as caught:
        read_pixels(records[2], DECODING)
    assert caught.value.reason == "missing"


@pytest.mark.parametrize(("where", "value"), [("offset", 0), ("count", 0)])
def test_parts_that_are_not_stored_are_refused_and_not_read_from_elsewhere(tmp_path, where, value):
    samples = slices(1, shape=(64, 64))[0]
    tifffile.imwrite(tmp_path / "x.tif", samples, tile=(32, 32))
    data = bytearray((tmp_path / "x.tif").read_bytes())
    np.testing.assert_array_equal(decode(bytes(data))[0][..., 0], samples)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        tag = file.pages[0].tags["TileOffsets" if where == "offset" else "TileByteCounts"]
    size = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
    data[tag.valueoffset : tag.valueoffset + size] = value.to_bytes(size, "little")
    with pytest.raises(BadImageError, match="1 of 4 parts are not stored") as caught:
        decode(bytes(data))
    assert caught.value.reason == "unsupported"
