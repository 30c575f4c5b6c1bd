"""Good files of every kind become the pixels that an independent reading gives."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featstore.errors import UsageError
from featstore.image_facts import NOTES
from featstore.images.augment import resize
from featstore.images.formats.png import without_bulk
from featstore.images.reading import WARNINGS, decode, decoder_version, probe
from featstore.images.scan import scan


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_colour_comes_back_as_it_was(picture, encode):
    image = picture()
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        pixels, notes = decode(encode(image, kind))
        np.testing.assert_array_equal(pixels, np.asarray(image))
        assert notes == ()


def test_grey_has_one_channel_in_every_format(picture, encode):
    image = picture(mode="L")
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(decode(encode(image, kind))[0][..., 0], np.asarray(image))
    assert decode(encode(image, "JPEG"))[0].shape == (24, 31, 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_colour_that_is_grey_everywhere_has_one_channel_and_the_same_numbers(picture, encode, kind):
    grey = picture(mode="L")
    pixels, _ = decode(encode(grey.convert("RGB"), kind))
    np.testing.assert_array_equal(pixels, np.asarray(grey)[..., None])
    one_off = np.array(grey.convert("RGB"))
    one_off[5, 6, 2] ^= 1
    assert decode(encode(Image.fromarray(one_off), kind))[0].shape[2] == 3


def test_grey_resized_once_equals_grey_resized_as_three_channels(picture):
    grey = np.asarray(picture(size=(301, 200), mode="L"))[..., None]
    as_colour = resize(np.repeat(grey, 3, axis=2), 96)
    np.testing.assert_array_equal(np.repeat(resize(grey, 96), 3, axis=2), as_colour)


def test_a_progressive_jpeg_equals_the_sequential_one(picture, encode):
    sequential, progressive = (encode(picture(), "JPEG", progressive=flag) for flag in (False, True))
    np.testing.assert_array_equal(decode(sequential)[0], decode(progressive)[0])


def test_one_bit_becomes_black_and_white(picture, encode):
    image = picture(mode="1")
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(decode(encode(image, kind))[0][..., 0], np.asarray(image) * 255)


def test_a_palette_becomes_its_colours(picture, encode):
    image = picture().quantize(16)
    colours = np.array(image.getpalette()).reshape(-1, 3)
    pixels, notes = decode(encode(image))
    np.testing.assert_array_equal(pixels, colours[np.asarray(image)])
    assert notes == ()


def test_a_transparent_palette_entry_becomes_black(picture, encode):
    image = picture().quantize(16)
    colours = np.array(image.getpalette()).reshape(-1, 3)
    colours[5] = 0
    pixels, notes = decode(encode(image, transparency=5))
    np.testing.assert_array_equal(pixels, colours[np.asarray(image)])
    assert notes == ("alpha",)


def test_a_transparent_grey_value_becomes_black(picture, encode):
    image = picture(mode="L")
    value = int(np.asarray(image)[3, 3])
    pixels, notes = decode(encode(image, transparency=value))
    expected = np.where(np.asarray(image) == value, 0, np.asarray(image))
    np.testing.assert_array_equal(pixels[..., 0], expected)
    assert notes == ("alpha",)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_composited_on_black(picture, encode, mode, kind):
    colour, alpha = picture(mode=mode), picture(seed=1, mode="L")
    image = colour.copy()
    image.putalpha(alpha)
    pixels, notes = decode(encode(image, kind))
    weight = np.asarray(alpha) / 255
    exact = np.asarray(colour) * (weight[..., None] if mode == "RGB" else weight)
    assert np.abs(pixels - exact.reshape(pixels.shape)).max() <= 0.5
    assert notes == ("alpha",)


def test_an_opaque_alpha_channel_changes_nothing_and_is_not_worth_a_warning(picture, encode):
    image = picture()
    pixels, notes = decode(encode(image.convert("RGBA")))
    np.testing.assert_array_equal(pixels, np.asarray(image))
    assert notes == ()


def test_cmyk_is_converted_with_a_warning(picture, encode):
    image = picture().convert("CMYK")
    pixels, notes = decode(encode(image, "TIFF"))
    ink = np.asarray(image).astype(float)
    expected = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    assert np.abs(pixels - expected).max() <= 1
    assert notes == ("cmyk",)
    assert decode(encode(image, "JPEG"))[1] == ("cmyk",)


def test_cmyk_in_a_jpeg_keeps_its_colours_and_is_no_negative(picture, encode):
    """Photoshop stores ink upside down, and says so with a marker of Adobe's."""
    smooth = picture(size=(8, 8)).resize((64, 64), Image.Resampling.BICUBIC)
    data = encode(smooth.convert("CMYK"), "JPEG", quality=98)
    assert b"Adobe" in data
    assert np.abs(decode(data)[0] - np.asarray(smooth).astype(float)).mean() < 3


@pytest.mark.parametrize(
    "name", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "group3", "group4", "zstd", "lzma"]
)
def test_no_compression_of_tiff_changes_a_pixel(picture, encode, name):
    for mode in ("1",) if name.startswith("group") else ("1", "L", "RGB", "CMYK"):
        image = picture(mode=mode)
        packed, plain = encode(image, "TIFF", compression=name), encode(image, "TIFF")
        np.testing.assert_array_equal(decode(packed)[0], decode(plain)[0])


def test_gamma_and_profiles_of_usual_size_change_no_pixel(picture, encode):
    data = encode(picture())
    for beside in (
        chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"iCCP", b"scanner\0\0" + zlib.compress(bytes(3000))),
        chunk(b"sRGB", b"\0"),
    ):
        np.testing.assert_array_equal(decode(data[:33] + beside + data[33:])[0], np.asarray(picture()))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame_with_a_warning(picture, encode, kind):
    first, second = picture(mode="L"), picture(seed=1, mode="L")
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels, notes = decode(encode(first, kind, save_all=True, append_images=[second], **options))
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(first))
    assert notes == ("frames",)


def test_every_page_of_a_tiff_can_be_had(picture, encode):
    pages = [picture(seed) for seed in range(3)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    for frame, page in enumerate(pages):
        pixels, notes = decode(data, frame)
        np.testing.assert_array_equal(pixels, np.asarray(page))
        assert notes == ()


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_the_orientation_tag_is_applied_once(picture, encode, orientation, kind, options):
    exif = Image.Exif()
    exif[274] = orientation
    pixels, _ = decode(encode(picture(), kind, exif=exif, **options))
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](np.asarray(picture())))


def test_an_unreadable_orientation_does_not_cost_the_picture(picture, encode):
    data = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    pixels, notes = decode(data)
    np.testing.assert_array_equal(pixels, decode(encode(picture(), "JPEG"))[0])
    assert set(notes) <= {"orientation"}


MEBIBYTE = 1 << 20
BULK = {
    "profile": chunk(b"iCCP", b"scanner\0\0" + zlib.compress(bytes(2 * MEBIBYTE))),
    "text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2 * MEBIBYTE)),
    "international": chunk(b"iTXt", b"Comment\0\1\0en\0Bemerkung\0" + zlib.compress(b"x" * 2 * MEBIBYTE)),
    "metadata": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2 * MEBIBYTE)),
    "many": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (MEBIBYTE - 9))) * 70,
    "plain": chunk(b"tEXt", b"Comment\0" + b"x" * 65 * MEBIBYTE),
    "damaged": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * MEBIBYTE)[:200] + b"\xff" * 900) * 70,
}


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "L") for name in BULK), ("profile", "RGB"), ("text", "P"), ("text", "1")]
)
def test_a_png_with_much_beside_the_picture_is_decoded(picture, encode, mode, name):
    image = picture(mode=mode) if mode != "P" else picture().quantize(16)
    exif = Image.Exif()
    exif[274] = 3
    data = encode(image, exif=exif)
    bulky = data[:33] + BULK[name] + data[33:]
    with pytest.raises(ValueError, match="MAX_TEXT") if name != "damaged" else nullcontext():
        Image.open(io.BytesIO(bulky)).load()  # else this would show nothing
    pixels, notes = decode(bulky)
    np.testing.assert_array_equal(pixels, decode(data)[0])
    np.testing.assert_array_equal(pixels[::-1, ::-1], decode(encode(image))[0])
    assert notes == ()


def test_a_deep_png_with_a_large_profile_still_needs_a_range(encode):
    data = encode(Image.fromarray(DEEP))
    bulky = data[:33] + BULK["profile"] + data[33:]
    assert probe(bulky)
    np.testing.assert_array_equal(
        decode(bulky, value_range=(0, 4095))[0], decode(data, value_range=(0, 4095))[0]
    )


def test_text_of_usual_size_is_left_to_pillow(png):
    """It may hold the orientation."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1000))
    data = png()[:33] + text + png()[33:]
    assert without_bulk(data) is data
    assert without_bulk(data[:33] + BULK["text"] + data[33:]) == data


@pytest.mark.parametrize("lead", [b"\r\n", b"\n", b" \t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_blanks_before_a_picture_are_passed_over(write, picture, encode, kind, lead):
    data = encode(picture(), kind)
    np.testing.assert_array_equal(decode(lead + data)[0], decode(data)[0])
    manifest = scan(write({"a/1.png": lead + data, "a/2.png": data, "b/3.png": 3}))
    assert len({record.id for record in manifest.records}) == 3
    assert manifest.unreadable == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_stray_bytes_in_a_jpeg_change_nothing(picture, encode, mode):
    data = encode(picture(mode=mode), "JPEG")
    expected = decode(data)[0]
    for strayed in (
        data[:2] + b"\0" + data[2:],
        data[:2] + b"\xff" * 5 + data[2:],
        data[:-2] + bytes(214) + data[-2:],
        data + b"\r\n<!-- served -->" * 20,
        data + bytes(5000),
    ):
        np.testing.assert_array_equal(decode(strayed)[0], expected)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "MPO"])
def test_a_film_of_one_frame_is_a_picture_without_a_warning(picture, encode, kind):
    assert decode(encode(picture(), kind, save_all=True))[1] == ()


def test_a_picture_of_several_in_a_jpeg_is_the_first_and_upright(picture, encode):
    exif = Image.Exif()
    exif[274] = 6
    data = encode(picture(), "MPO", save_all=True, append_images=[picture(1, (20, 20))], exif=exif)
    pixels, notes = decode(data)
    np.testing.assert_array_equal(pixels, np.rot90(decode(encode(picture(), "JPEG"))[0], -1))
    assert notes == ("frames",)
    kind = data.index(struct.pack("<I", 0x030000)) + 16  # of the second entry of the index
    thumbnail = data[:kind] + struct.pack("<I", 0x010001) + data[kind + 4 :]
    assert decode(thumbnail)[1] == ()


def test_a_constant_image_is_decoded_with_a_warning(encode):
    pixels, notes = decode(encode(Image.new("L", (20, 20), 77)))
    assert (pixels == 77).all()
    assert notes == ("constant",)


def test_every_warning_is_explained(picture, encode):
    assert {
        "alpha",
        "cmyk",
        "constant",
        "extra_channels",
        "frames",
        "not_hounsfield",
        "orientation",
        "range_unused",
    } == set(WARNINGS)


def test_a_range_on_eight_bits_changes_nothing_and_says_so(encode):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    plain, _ = decode(encode(image))
    pixels, notes = decode(encode(image), value_range=(0.0, 10.0))
    np.testing.assert_array_equal(pixels, plain)
    assert notes == ("range_unused",)


def test_bits_of_notes_that_were_kept_before_mean_what_they_did():
    """A cache of before holds them as numbers: new ones go to the end."""
    assert NOTES[:6] == ("alpha", "cmyk", "constant", "extra_channels", "frames", "orientation")
    assert set(NOTES) == WARNINGS.keys()


DEEP = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 5


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})]
)
def test_12_bit_ct_in_16_bit_files_maps_its_declared_range_to_8_bits(encode, kind, options):
    pixels, _ = decode(encode(Image.fromarray(DEEP), kind, **options), value_range=(0, 4095))
    clipped = np.minimum(DEEP.astype(int), 4095)
    np.testing.assert_array_equal(pixels[..., 0], (clipped * 510 + 4095) // 8190)  # rounded in whole numbers


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_negative_hounsfield_units_survive(encode, dtype):
    hounsfield = (DEEP.astype(int) - 1350).astype(dtype)
    pixels, _ = decode(encode(Image.fromarray(hounsfield), "TIFF"), value_range=(-1350, 150))
    expected = np.round(np.clip((hounsfield + 1350.0) / 1500, 0, 1) * 255)
    np.testing.assert_array_equal(pixels[..., 0], expected)


def test_a_deep_tiff_whose_zero_is_white_is_inverted(encode):
    plain = decode(encode(Image.fromarray(DEEP), "TIFF"), value_range=(0, 4800))[0]
    inverted = decode(encode(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}), value_range=(0, 4800))[0]
    np.testing.assert_array_equal(inverted, 255 - plain)


def test_8_bit_images_ignore_the_range(picture, encode):
    data = encode(picture())
    np.testing.assert_array_equal(decode(data, value_range=(0, 4095))[0], decode(data)[0])


@pytest.mark.parametrize("value_range", [(1, 1), (5, 2), (0, float("inf")), (float("nan"), 1)])
def test_a_range_that_is_none_is_refused(png, value_range):
    with pytest.raises(UsageError):
        decode(png(), value_range=value_range)


@given(low=st.integers(-2000, 60000), span=st.integers(1, 65535))
def test_a_wider_range_never_changes_the_order_of_pixels(low, span):
    buffer = io.BytesIO()
    Image.fromarray(DEEP).save(buffer, "PNG")
    pixels, _ = decode(buffer.getvalue(), value_range=(low, low + span))
    flat = pixels.ravel().astype(int)
    assert (np.diff(flat) >= 0).all()
    assert (flat[DEEP.ravel() <= low] == 0).all()
    assert (flat[DEEP.ravel() >= low + span] == 255).all()


@pytest.fixture(scope="module")
def load_img():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TensorFlow says while it is imported is its own affair
        import keras
    return keras.utils.load_img


@pytest.mark.parametrize("side", [24, 64, 150])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_decoding_and_resizing_equal_keras(load_img, picture, encode, tmp_path, kind, mode, side):
    path = tmp_path / "image"
    path.write_bytes(encode(picture(size=(211, 97), mode=mode), kind))
    theirs = np.asarray(load_img(path, target_size=(side, side), interpolation="bilinear"))
    ours = resize(decode(path.read_bytes())[0], side)
    assert ours.dtype == np.uint8
    assert ours.shape == (side, side, 1 if mode == "L" else 3)
    np.testing.assert_array_equal(np.broadcast_to(ours, theirs.shape), theirs)


def test_an_image_of_the_right_size_is_left_alone(picture):
    pixels = np.asarray(picture(size=(50, 50)))
    np.testing.assert_array_equal(resize(pixels, 50), pixels)


def test_the_decoder_names_itself_without_loading_pillow():
    program = (
        "import sys; from featstore.images.reading import decoder_version; print(decoder_version());"
        "print(sorted({'PIL', 'numpy', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"pillow {PIL.__version__}", "[]"]
    assert decoder_version() == f"pillow {PIL.__version__}"


@pytest.mark.slow
def test_every_shared_ct_image_decodes_as_keras_reads_it(covid_ct, load_img):
    for record in scan(Path(covid_ct)).records:
        pixels, _ = decode(record.path.read_bytes())
        theirs = np.asarray(load_img(record.path, target_size=(150, 150), interpolation="bilinear"))
        np.testing.assert_array_equal(np.broadcast_to(resize(pixels, 150), theirs.shape), theirs)
