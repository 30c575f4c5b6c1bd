"""A learned image is recognised whatever format it was saved in anew, and a patient whatever was saved of him."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featstore.image_facts import (
    FACT,
    FACTS_REVISION,
    compute_facts,
    known_images,
    pixel_digests,
    recognise,
    seen_finding,
)
from featstore.images.reading import pixel_digest_of
from featstore.serialization import digest_file
from featstore.store.notes import record_facts
from featstore.store.training_record import KnownImages, salted
from featstore.types import Decoding, ImageRecord

DECODING = Decoding("pillow")
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def saved(path, pixels, group="p1", **options):
    Image.fromarray(pixels).save(path, **options)
    return ImageRecord(digest_file(path), path, "ill", group)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


SUFFIXES = {"bmp": {}, "tif": {"compression": "tiff_lzw"}, "webp": {"lossless": True}, "ppm": {}}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(20, 24, 3), (20, 24)])
def test_a_picture_saved_anew_without_loss_has_the_same_digest(tmp_path, suffix, shape):
    pixels = noise(0, *shape)
    first = saved(tmp_path / "a.png", pixels)
    again = saved(tmp_path / f"b.{suffix}", pixels, **SUFFIXES[suffix])
    assert again.id != first.id
    assert pixel_digest_of(again, DECODING) == pixel_digest_of(first, DECODING)
    other = pixels.copy()
    other.flat[7] ^= 1
    assert pixel_digest_of(saved(tmp_path / "c.png", other), DECODING) != pixel_digest_of(first, DECODING)


def test_a_jpeg_saved_anew_as_png_is_recognised_and_so_is_one_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    first = saved(tmp_path / "a.jpg", noise(1, 24, 16, 3), exif=exif)
    known = known_images([first], DECODING, has_groups=False)
    Image.open(first.path).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "b.png")
    again = ImageRecord(digest_file(tmp_path / "b.png"), tmp_path / "b.png", "", "")
    assert recognise([again], {"net": known}, DECODING) == {"net": {again.id: "pixels"}}


def test_the_shape_counts_as_well_as_the_values(tmp_path):
    flat = noise(2, 96)
    tall, wide = (saved(tmp_path / f"{side}.png", flat.reshape(side, -1)) for side in (12, 8))
    assert pixel_digest_of(tall, DECODING) != pixel_digest_of(wide, DECODING)


def test_digests_that_the_cache_keeps_are_those_of_the_files_and_spare_reading_them(tmp_path):
    records = [saved(tmp_path / f"{n}.png", noise(n, 9, 9)) for n in range(9)]
    expected = pixel_digests(records, DECODING)
    record_facts(
        tmp_path,
        DECODING,
        FACTS_REVISION,
        np.array([compute_facts(r, DECODING)[0] for r in records[:8]], FACT),
    )
    for record in records[:8]:
        record.path.unlink()
    assert pixel_digests(records, DECODING, tmp_path) == expected
    assert len(expected) == 9


def test_the_surest_sign_is_told_and_strangers_are_let_be(tmp_path):
    learned = [saved(tmp_path / f"{n}.png", noise(n, 9, 9), group=f"p{n}") for n in range(3)]
    known = known_images(learned, DECODING, has_groups=True)
    copy = saved(tmp_path / "copy.bmp", noise(1, 9, 9), group="somebody")
    same = saved(tmp_path / "later.png", noise(7, 9, 9), group=" P2 ")
    new = saved(tmp_path / "new.png", noise(8, 9, 9), group="p3")
    found = recognise([learned[0], copy, same, new], {"net": known}, DECODING)["net"]
    assert found == {learned[0].id: "file", copy.id: "pixels", same.id: "group"}
    finding = seen_finding("net", [learned[0], copy, same, new], found)
    assert (finding.code, finding.count) == ("FS407", 3)
    assert str(tmp_path) not in finding.message
    unnamed = recognise([same], {"net": known}, DECODING, has_groups=False)["net"]
    assert unnamed == {}, "a made-up group is nobody's name"


def test_without_digests_of_pixels_no_file_is_opened(tmp_path):
    gone = ImageRecord("0" * 64, tmp_path / "gone.png", "", "p1")
    old = KnownImages(frozenset(["0" * 64]))
    assert recognise([gone], {"net": old}, DECODING) == {"net": {gone.id: "file"}}


@given(NAMES, NAMES, st.text(max_size=5))
def test_a_name_is_known_again_and_not_kept(name, other, salt):
    digest = salted(salt, name)
    assert digest == salted(salt, f" {name} ")
    assert name not in digest or len(name) < 3
    assert digest != salted(salt + "x", name)
    if other.casefold().split() != name.casefold().split() and other.isascii() and name.isascii():
        assert digest != salted(salt, other)


def test_accents_and_capitals_do_not_hide_a_patient():
    assert salted("s", "M\u00fcller") == salted("s", "mu\u0308ller") == salted("s", "M\u00dcLLER")


def test_what_is_kept_names_nobody(tmp_path):
    record = replace(saved(tmp_path / "Mustermann.png", noise(1, 9, 9)), group="Mustermann")
    known = known_images([record], DECODING, has_groups=True)
    assert "Mustermann" not in repr(known)
    assert known.has_group("mustermann")
    assert known_images([record], DECODING, has_groups=False).groups == frozenset()
    assert known_images([replace(record, path=Path("gone"))], DECODING, has_groups=True).pixels == frozenset()
