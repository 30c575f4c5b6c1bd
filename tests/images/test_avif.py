"""AVIF: the pixels that were stored, the right way up, and what is refused."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from featstore.errors import BadImageError
from featstore.images.formats.avif import boxes
from featstore.images.formats.container import formats
from featstore.images.reading import decode

ROWS, COLUMNS = np.mgrid[:40, :32]
PICTURE = (
    np.stack([ROWS * 6, COLUMNS * 7, 255 - ROWS * 3 - COLUMNS * 4], axis=-1).clip(0, 255).astype(np.uint8)
)
WRITTEN = {"quality": 100, "subsampling": "4:4:4", "speed": 10}


def saved(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", **WRITTEN, **options)
    return file.getvalue()


DATA = saved(PICTURE)


def patched(data, mark, at, value):
    """The same file with other bytes at a distance behind a mark."""
    start = data.index(mark) + at
    return data[:start] + value + data[start + len(value) :]


@pytest.mark.parametrize(
    ("pixels", "notes"),
    [
        (PICTURE, ()),
        (np.repeat(PICTURE[..., :1], 3, axis=2), ()),
        (np.dstack([PICTURE, np.full((40, 32), 128, np.uint8)]), ("alpha",)),
    ],
    ids=["colour", "grey", "transparent"],
)
def test_pixels_are_those_that_were_stored(pixels, notes):
    found, said = decode(saved(pixels))
    expected = pixels[..., :3] * (128 / 255 if notes else 1)
    np.testing.assert_allclose(found, np.broadcast_to(expected[..., : found.shape[2]], found.shape), atol=4)
    assert said == notes


def test_a_picture_stored_on_its_side_comes_upright():
    exif = Image.Exif()
    exif[274] = 6
    found, _ = decode(saved(PICTURE, exif=exif))
    np.testing.assert_allclose(found, np.rot90(PICTURE, -1), atol=4)


def test_of_a_sequence_the_first_picture_is_taken_and_that_is_said():
    others = [Image.fromarray(255 - PICTURE)]
    found, notes = decode(saved(PICTURE, save_all=True, append_images=others))
    np.testing.assert_allclose(found, PICTURE, atol=4)
    assert notes == ("frames",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (DATA[:-20], "truncated"),
        (DATA[:60], "truncated"),
        (DATA[: DATA.index(b"meta") - 4], "truncated"),
        (patched(DATA, b"ispe", 8, struct.pack(">II", 1 << 20, 1 << 20)), "too_large"),
        (patched(DATA, b"ispe", 8, bytes(4)), "corrupt"),
        (patched(DATA, b"av1C", 6, b"\x40"), "unsupported"),
        (patched(DATA, b"iprp", -4, struct.pack(">I", 3)), "corrupt"),
        (patched(DATA, b"mdat", 4, bytes(40)), "corrupt"),
    ],
)
def test_what_is_damaged_or_deeper_is_refused(data, reason):
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_without_libavif_the_package_is_named(monkeypatch):
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(BadImageError, match=r"pip install 'pillow>=11.3'") as caught:
        decode(DATA)
    assert caught.value.reason == "needs_package"


def test_other_brands_are_told_apart():
    known = formats()["AVIF"]
    assert known.sniff(DATA[:1024])
    assert known.sniff(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf")
    assert not known.sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic")
    assert [kind for kind, _ in boxes(DATA)] == [b"ftyp", b"meta", b"mdat"]
