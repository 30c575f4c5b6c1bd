"""Whatever is on the disk: a reason, never a crash, a warning, a hang, or a gigabyte."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiffs import page, stack, tiff

from featstore.errors import BadImageError
from featstore.images.formats.container import MAX_PIXELS, check_structure
from featstore.images.reading import REASONS, decode, probe

GREY = np.add.outer(np.arange(24) * 5, np.arange(31) * 4).astype(np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY[::-1]], axis=-1)


def saved(pixels, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


PNG = saved(COLOUR, "PNG")
JPEG = saved(COLOUR, "JPEG")
PROGRESSIVE = saved(COLOUR, "JPEG", progressive=True)
GIF = saved(COLOUR, "GIF")
BMP = saved(COLOUR, "BMP")
TIFF = saved(COLOUR, "TIFF")
WEBP = saved(COLOUR, "WEBP")
DEEP = np.arange(24 * 31, dtype=np.uint16).reshape(24, 31) * 5
NAN = np.where(np.isin(GREY, GREY[3, 4]), np.float32(np.nan), GREY.astype(np.float32))
INF = np.where(np.isin(GREY, GREY[3, 4]), np.float32(-np.inf), GREY.astype(np.float32))
TAGS = ((256, 31), (257, 24), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1), (278, 24), (279, 1488))
BIG_ENDIAN_TIFF = (
    b"MM\0*" + struct.pack(">IH", 8, len(TAGS))
    + b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in TAGS)
    + struct.pack(">I", 0) + DEEP.astype(">u2").tobytes()
)  # fmt: skip
GIF_BOMB = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"!\xf9\x04\x08\0\0\0\0,"
GIF_BOMB += struct.pack("<4HB", 0, 0, 13_000, 13_000, 0) + b"\x02\x02\x44\x01\0;"
WEBP_BOMB = b"WEBPVP8X" + struct.pack("<II", 10, 0x10) + (16_382).to_bytes(3, "little") * 2
WEBP_BOMB = b"RIFF" + struct.pack("<I", len(WEBP_BOMB)) + WEBP_BOMB
BMP_BOMB = BMP[:18] + struct.pack("<ii", 30_000, 30_000) + BMP[26:]
TIFF_BOMB = BIG_ENDIAN_TIFF.replace(
    struct.pack(">HHIH", 256, 3, 1, 31), struct.pack(">HHIH", 256, 3, 1, 60_000)
)
TIFF_BOMB = TIFF_BOMB.replace(struct.pack(">HHIH", 257, 3, 1, 24), struct.pack(">HHIH", 257, 3, 1, 60_000))
BOMBS = {
    "png-100k-header": raw_png(100_000, 100_000),
    "png-just-too-large": raw_png(8000, 8001),
    "gif-frame-beyond-its-screen": GIF_BOMB,
    "webp-canvas": WEBP_BOMB,
    "bmp": BMP_BOMB,
    "tiff": TIFF_BOMB,
    "ppm": b"P6\n50000 50000\n255\n",
}

# A 16 x 16 slope by other encoders, since Pillow writes none of these: imagecodecs and libjpeg's cjpeg -arithmetic.
TWELVE_BIT_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQ"
    "ERMUFRUVDA8XGBYUGBIUFRT/wQALDAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAADAv/xAAcEAAABgMAAAAAAAAAAAAA"
    "AAAACgsnNkVTYXH/2gAIAQEAAD8AG1ElEt+BNHgr+aCAAkolvwJo8FfzQoAElEt+BNHgr+aCAAkolvwJo8FfzQ//2Q=="
)
LOSSLESS_JPEG = base64.b64decode(
    "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAADBAj/wwALCAAQABABABEA/9oACAEAAAYAAM/szMzMzMzMzUqqqqqqqqqq0qqqqqqq"
    "qqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqq"
    "qqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqq0qqqqqqqqqqj/2Q=="
)
JPEG_LS = base64.b64decode(
    "/9j/6AAgU1BJRkYAAgAAAQAAABAAAAAQCggGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsIABAAEAEBEQD/2gAIAQEAAAAAjnOk"
    "6f2//1oYRSOxNttpBA0qqqqlEVf/Id//eZ//cV//UR//d3//Xf9/Z/99n/92f/9Z/35X/3lf/2D/2Q=="
)
ARITHMETIC_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQ"
    "ERMUFRUVDA8XGBYUGBIUFRT/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wDn4Y2+hcqUcVjxxtpUpEn5QLMiqbhM"
    "zPj90kOA/9k="
)
SIZED = b"\xff\xc0\0\x11\x08\0\x18\0\x1f"  # the frame of JPEG, up to its number of channels


def bmp(bits: int, compression: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header + bytes(16 * 16 * 4)


def tagged(channels: int, dtype: str = "u1", **tags: int) -> bytes:
    shape = (24, 31) if channels == 1 else (24, 31, channels)
    return tiff(
        page(
            np.arange(24 * 31 * channels).reshape(shape).astype(dtype),
            {int(tag[1:]): v for tag, v in tags.items()},
        )
    )


def scanned(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose scans are a few bytes each, and yet each goes over every block."""
    whole = saved(np.zeros((side, side), np.uint8), "JPEG", progressive=True)
    first = whole.index(b"\xff\xda")
    ends = (whole.find(marker, first + 2) for marker in (b"\xff\xc4", b"\xff\xda"))
    table = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1] + [0] * 15) + b"\xe0"
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 63, 0) + bytes(2)
    return whole[: min(end for end in ends if end > 0)] + table + scan * (scans - 1) + b"\xff\xd9"


def in_tiff(jpeg: bytes, side: int = 64) -> bytes:
    return tiff(page(np.zeros((side, side), np.uint8), {259: 7, 278: side, 279: len(jpeg)}, jpeg))


MGH = nibabel.MGHImage(np.zeros((20, 30, 9), np.int16), np.eye(4)).to_bytes()
TABLE = [
    ("jpeg-of-1100-exif-segments", JPEG[:2] + b"\xff\xe1\0\x0cExif\0\0abcd" * 1100 + JPEG[2:], "unsupported"),
    ("jpeg-of-101-scans", scanned(101), "unsupported"),
    ("jpeg-of-4000-scans-behind-stray-bytes", b"\n" + scanned(4000), "unsupported"),
    ("tiff-of-a-jpeg-of-101-scans", in_tiff(scanned(101)), "unsupported"),
    ("0-byte-file", b"", "empty"),
    ("html-error-page-saved-as-jpg", b"<!DOCTYPE html>\n<html><body>404 <svg></svg></body></html>", "not_image"),
    ("download-of-zeros", b"\0" * 5000, "not_image"),
    ("text-that-begins-like-a-bmp", b"BMW is a maker of cars. " * 10, "not_image"),
    ("git-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "lfs_pointer"),
    ("svg", b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "unsupported"),
    ("pdf", b"%PDF-1.7\n%\xe2\xe3", "unsupported"),
    ("zip", b"PK\x03\x04\x14\0\0\0", "unsupported"),
    ("dicom", b"\0" * 128 + b"DICM\x02\0\0\0UL", "truncated"),
    ("nifti-without-a-size", struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0", "corrupt"),
    ("metaimage", b"ObjectType = Image\nNDims = 3\n", "unsupported"),
    ("analyze", struct.pack("<i", 348) + bytes(344), "unsupported"),
    ("freesurfer", MGH, "unsupported"),
    ("freesurfer-gz", gzip.compress(MGH), "unsupported"),
    ("nifti-gz", b"\x1f\x8b\x08\0rest", "unsupported"),
    ("avif", b"\0\0\0\x20ftypavif\0\0\0\0", "truncated"),
    ("heic", b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported"),
    ("jpeg-2000-without-a-picture", b"\0\0\0\x0cjP  \r\n\x87\n", "truncated"),
    ("jpeg-2000-with-other-line-ends", b"\0\0\0\x0cjP  \r\n\x87\r\n"[:10] + b"\r\n", "unsupported"),
    ("truncated-jpeg", JPEG[: len(JPEG) // 2], "truncated"),
    ("truncated-progressive-jpeg", PROGRESSIVE[:-40], "truncated"),
    ("jpeg-without-end-marker", JPEG[:-2], "truncated"),
    ("jpeg-cut-in-its-header", JPEG[:30], "truncated"),
    ("truncated-png", PNG[: len(PNG) // 2], "truncated"),
    ("png-without-end-chunk", PNG[:-12], "truncated"),
    ("png-cut-after-the-magic", PNG[:8], "truncated"),
    ("truncated-gif", GIF[: len(GIF) // 2], "truncated"),
    ("truncated-bmp", BMP[: len(BMP) // 2], "truncated"),
    ("truncated-tiff", TIFF[:-200], "truncated"),
    ("truncated-webp", WEBP[:-20], "truncated"),
    ("png-bad-crc-in-pixels", flipped(PNG, PNG.index(b"IEND") - 6), "corrupt"),
    ("png-bad-crc-in-header", flipped(PNG, 29), "corrupt"),
    ("png-width-0", raw_png(0, 24), "corrupt"),
    ("jpeg-without-a-picture", b"\xff\xd8\xff\xfe\0\x02\xff\xd9", "corrupt"),
    ("tiff-with-absurd-header", TIFF[:4] + b"\xff\xff\xff\x7f" + TIFF[8:], "corrupt"),
    ("one-pixel", saved(COLOUR[:1, :1], "PNG"), "too_small"),
    ("7-pixels-high", saved(COLOUR[:7, :20], "PNG"), "too_small"),
    ("20000-by-1", saved(np.zeros((1, 20_000), np.uint8), "PNG"), "aspect"),
    ("12-bit-ct-in-16-bit-png", saved(DEEP, "PNG"), "needs_range"),
    ("16-bit-tiff", saved(DEEP, "TIFF"), "needs_range"),
    ("16-bit-big-endian-tiff", BIG_ENDIAN_TIFF, "needs_range"),
    ("16-bit-lzw-tiff", saved(DEEP, "TIFF", compression="tiff_lzw"), "needs_range"),
    ("16-bit-pgm", saved(DEEP, "PPM"), "needs_range"),
    ("32-bit-integer-tiff", saved(DEEP.astype(np.int32), "TIFF"), "needs_range"),
    ("float-tiff", saved(GREY.astype(np.float32), "TIFF"), "needs_range"),
    ("16-bit-colour-png-of-which-pillow-keeps-a-half", raw_png(9, 9, 16, 2, b"\0" * 9 * 55), "unsupported"),
    ("16-bit-grey-alpha-png", raw_png(9, 9, 16, 4, b"\0" * 9 * 37), "unsupported"),
    ("12-bit-pgm-which-pillow-stretches", b"P5\n9 9\n4095\n" + b"\1\2" * 81, "unsupported"),
    ("two-channel-tiff", tagged(2), "unsupported"),
    ("two-channel-16-bit-tiff", tagged(2, "u2"), "unsupported"),
    ("complex-tiff", tagged(1, "c8"), "unsupported"),
    ("16-bit-palette-tiff", tagged(1, "u2", t262=3), "unsupported"),
    ("16-bit-cmyk-tiff", tagged(4, "u2", t262=5), "unsupported"),
    ("tiff-with-jpeg-2000-inside", tagged(3, t259=33005), "unsupported"),
    ("tiff-with-a-compression-of-tomorrow", tagged(3, t259=60_000), "unsupported"),
    ("camera-raw", tagged(1, "u2", t262=32803), "unsupported"),
    ("float-tiff-that-says-jpeg", tagged(1, "f4", t259=7), "unsupported"),
    ("64-bit-float-tiff", tagged(1, "f8"), "needs_range"),
    ("16-bit-float-tiff", tagged(1, "f2"), "needs_range"),
    ("16-bit-colour-tiff", tagged(3, "u2"), "needs_range"),
    ("float-colour-tiff", tagged(3, "f4"), "needs_range"),
    ("signed-bytes-tiff", tagged(1, "i1"), "needs_range"),
    ("12-bit-jpeg", TWELVE_BIT_JPEG, "unsupported"),
    ("lossless-jpeg", LOSSLESS_JPEG, "unsupported"),
    ("jpeg-ls", JPEG_LS, "unsupported"),
    ("two-channel-jpeg", JPEG.replace(SIZED + b"\3", SIZED + b"\2"), "unsupported"),
    ("jpeg-in-bmp", bmp(0, 4), "unsupported"),
    ("64-bit-bmp", bmp(64, 0), "unsupported"),
    ("apple-png", PNG[:8] + chunk(b"CgBI", bytes(4)) + PNG[8:], "unsupported"),
    ("colour-pfm", b"PF\n9 9\n-1.0\n" + bytes(972), "unsupported"),
    ("pam", b"P7\nWIDTH 9\nHEIGHT 9\n", "unsupported"),
    ("openexr", b"\x76\x2f\x31\x01\2\0\0\0", "unsupported"),
    ("jpeg-xr", b"II\xbc\x01\x20\0\0\0", "unsupported"),
    ("fits", b"SIMPLE  =                    T", "unsupported"),
    ("lab-tiff", saved(Image.new("LAB", (20, 20), (9, 8, 7)), "TIFF"), "unsupported"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [pytest.param(d, r, id=story) for story, d, r in TABLE])
def test_a_bad_file_is_refused_with_the_reason_that_helps(data, reason):
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert "\n" not in caught.value.detail


def test_arithmetic_coding_changes_no_pixel_of_a_jpeg():
    slope = np.add.outer(np.arange(16) * 9, np.arange(16) * 6).astype(np.uint8)
    np.testing.assert_array_equal(decode(ARITHMETIC_JPEG)[0], decode(saved(slope, "JPEG", quality=90))[0])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("12-bit-jpeg", "16-bit PNG"),
        ("two-channel-tiff", "2 channels"),
        ("nifti-without-a-size", "fetch the file again"),
        ("metaimage", "v.nii.gz"),
        ("heic", "heif-dec"),
        ("analyze", "nibabel.load('v.hdr')"),
        ("freesurfer", "nibabel.load('v.mgz')"),
        ("freesurfer-gz", "nibabel.load('v.mgz')"),
        ("git-lfs-pointer", "git lfs pull"),
    ],
)
def test_a_refusal_says_what_to_do(name, hint):
    data = next(data for story, data, _ in TABLE if story == name)
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert hint in caught.value.detail + REASONS[caught.value.reason]


@pytest.mark.parametrize("pixels", [NAN, INF], ids=["nan", "inf"])
def test_a_float_image_with_holes_is_nonfinite(pixels):
    with pytest.raises(BadImageError) as caught:
        decode(saved(pixels, "TIFF"), value_range=(0, 255))
    assert caught.value.reason == "nonfinite"


def test_every_story_that_needs_a_range_is_seen_in_the_header_alone():
    for story, data, reason in TABLE:
        assert probe(data) == (reason == "needs_range"), story
    assert not any(map(probe, (PNG, JPEG, GIF, BMP, TIFF, WEBP)))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_too_large(name):
    with pytest.raises(BadImageError) as caught:
        decode(BOMBS[name])
    assert caught.value.reason == "too_large"
    assert "megapixels" in caught.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b"VP8X" + struct.pack("<II", 10, 0) + (9_999).to_bytes(3, "little") * 2,
        b"VP8L" + struct.pack("<IBI", 9, 0x2F, 9_999 | 9_999 << 14),
        b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 10_000, 10_000),
    ],
    ids=["extended", "lossless", "lossy"],
)
def test_a_webp_canvas_is_measured_before_pillow_sees_the_file(body):
    data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    with pytest.raises(BadImageError, match="10000 x 10000") as caught:
        check_structure("WEBP", data)
    assert caught.value.reason == "too_large"


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_a_bomb_is_refused_before_anything_is_allocated(tmp_path):
    """With 32 MiB of address space left, only a decoder that asks for the canvas can fail otherwise."""
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "whole").write_bytes(raw_png(20_000, 20_000, depth=1, rows=bytes(2501 * 20_000)))
    program = """
import resource, sys
from pathlib import Path
from featstore.errors import BadImageError
from featstore.images.reading import decode
decode(Path(sys.argv[2]).read_bytes())
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, used + 2**25))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode(path.read_bytes())
    except BadImageError as error:
        print(path.name, error.reason, "megapixels" in error.detail)
"""
    good = tmp_path.with_suffix(".png")
    good.write_bytes(PNG)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, good], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{name} too_large True" for name in sorted([*BOMBS, "whole"])]
    assert done.stderr == ""


def test_64_megapixels_are_still_decoded_and_not_one_more():
    assert MAX_PIXELS == 64_000_000
    data = raw_png(8000, 8000, depth=1, rows=bytes(1001 * 8000))
    assert decode(data)[0].shape == (8000, 8000, 1)


FORMATS = {
    "png": PNG,
    "png-palette": saved(Image.fromarray(COLOUR).quantize(9), "PNG", transparency=2),
    "apng": saved(COLOUR, "PNG", save_all=True, append_images=[Image.fromarray(COLOUR[::-1])]),
    "jpeg": JPEG,
    "jpeg-progressive": PROGRESSIVE,
    "jpeg-exif": saved(
        COLOUR, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "gif": GIF,
    "gif-animated": saved(
        GREY, "GIF", save_all=True, append_images=[Image.fromarray(GREY[::-1])], disposal=2
    ),
    "bmp": BMP,
    "tiff": TIFF,
    "tiff-lzw": saved(COLOUR, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": saved(GREY, "TIFF", compression="tiff_adobe_deflate"),
    "tiff-jpeg": saved(COLOUR, "TIFF", compression="jpeg"),
    "tiff-fax": saved(Image.fromarray(GREY).convert("1"), "TIFF", compression="group4"),
    "tiff-float": saved(GREY.astype(np.float32), "TIFF"),
    "tiff-16-bit": BIG_ENDIAN_TIFF,
    "webp": WEBP,
    "webp-lossless": saved(COLOUR, "WEBP", lossless=True),
    "ppm": saved(COLOUR, "PPM"),
    "jpeg-arithmetic": ARITHMETIC_JPEG,
    "png-bulky": PNG[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))) + PNG[33:],
    "tiff-half-float": tagged(3, "f2"),
    "tiff-stack": stack(np.stack([GREY, GREY[::-1]]), "ImageJ=1\nimages=2\n", order=">"),
    "tiff-tiles": tiff(
        page(
            GREY.astype("f8"),
            {259: 8, 317: 3, 322: 32, 323: 32, 324: (8,), 325: (99,)},
            zlib.compress(bytes(8192)),
        )
    ),
}
fuzzing = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def outcome(data: bytes):
    try:
        return decode(data, value_range=(0, 300))[0]
    except BadImageError as error:
        return error.reason


def survives(data: bytes) -> None:
    """Decode to the promised shape, or refuse with a known reason."""
    assert probe(data) in {True, False}
    found = outcome(data)
    if isinstance(found, str):
        assert found in REASONS
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 3
        assert found.shape[2] in {1, 3}


def with_checksums(data: bytes) -> bytes:
    """Repair the checksums of a damaged PNG, so that the damage gets past them."""
    repaired, position = bytearray(data), 8
    while position + 12 <= len(repaired):
        end = position + 12 + struct.unpack_from(">I", repaired, position)[0]
        if end > len(repaired):
            break
        struct.pack_into(">I", repaired, end - 4, zlib.crc32(repaired[position + 4 : end - 4]))
        position = end
    return bytes(repaired)


@given(st.binary(max_size=300))
def test_random_bytes_never_crash_the_decoder(data):
    survives(data)


@pytest.mark.parametrize("name", FORMATS)
@fuzzing
@given(start=st.data())
def test_random_bytes_after_a_true_beginning_never_crash_the_decoder(name, start):
    data = FORMATS[name]
    survives(data[: start.draw(st.integers(2, min(60, len(data))))] + start.draw(st.binary(max_size=200)))


@pytest.mark.parametrize("name", FORMATS)
@fuzzing
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_never_crashes_the_decoder(name, cut, capfd):
    data = FORMATS[name]
    survives(data[: int(cut * len(data))])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "tiff-tiles" else ()) for n in FORMATS]
)
@fuzzing
@given(
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_bytes_changed_anywhere_never_crash_the_decoder(name, damage, capfd):
    data = bytearray(FORMATS[name])
    for where, value in damage:
        data[int(where * len(data))] = value
    survives(bytes(data))
    survives(with_checksums(bytes(data)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["png", "jpeg", "jpeg-progressive", "webp", "gif", "bmp", "tiff-16-bit"])
def test_no_proper_beginning_of_a_file_passes_for_the_whole(name):
    data = FORMATS[name]
    padding = {"gif": 4, "webp": 1}.get(name, 1)  # the last bytes of a GIF carry no pixels
    for length in range(0, len(data) - padding + 1, 7):
        with pytest.raises(BadImageError):
            decode(data[:length], value_range=(0, 300))


def test_damage_that_libtiff_complains_about_leaves_stderr_alone_and_usable(capfd):
    data = flipped(FORMATS["tiff-lzw"], 40)
    with pytest.raises(BadImageError):
        decode(data)
    assert capfd.readouterr().err == ""
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_pillow_really_complains_there():
    """Else the test above would prove nothing."""
    program = (
        "import io, sys; from PIL import Image; data = sys.stdin.buffer.read()\n"
        "try: Image.open(io.BytesIO(data)).load()\nexcept OSError: pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=flipped(FORMATS["tiff-lzw"], 40),
        capture_output=True,
        check=True,
    )
    assert done.stderr


def test_threads_leave_warning_filters_and_pillow_as_they_were():
    warning_apng = PNG[:33] + chunk(b"acTL", struct.pack(">II", 0, 0)) + PNG[33:]
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(warning_apng))
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        shapes = list(pool.map(lambda _: decode(warning_apng)[0].shape, range(64)))
    assert set(shapes) == {COLOUR.shape}
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(warning_apng))


def test_a_page_that_is_not_there_is_refused():
    with pytest.raises(BadImageError):
        decode(TIFF, frame=3)


def test_reasons_are_codes_with_one_line_each():
    assert all(re.fullmatch("[a-z_]+", code) for code in REASONS)
    assert not any("\n" in hint for hint in REASONS.values())


def test_a_hundred_scans_are_decoded_and_those_of_previews_and_of_what_lies_behind_the_end_do_not_count():
    many = b"\xff\xda\0\x02" * 4000
    bulky = scanned(100).replace(
        b"\xff\xdb", b"\xff\xef" + struct.pack(">H", 2 + len(many)) + many + b"\xff\xdb", 1
    )
    for data in (scanned(100), bulky, scanned(100) + many):
        assert decode(data)[0].shape == (64, 64, 1)


def test_strips_of_jpeg_that_overlap_are_not_looked_at_again_and_again():
    jpeg = scanned(50)
    tags = {259: 7, 278: 8, 273: (8,) * 4000, 279: (len(jpeg),) * 4000}
    once = tiff(page(np.zeros((64, 64), np.uint8), tags, jpeg))
    crowd = tiff(page(np.zeros((64, 64), np.uint8), tags | {273: tuple(range(8, 4008))}, jpeg + bytes(4000)))
    with pytest.raises(BadImageError) as caught:
        decode(crowd)
    assert caught.value.reason == "truncated"
    with suppress(BadImageError):
        decode(once)
