"""JPEG 2000: the same pixels as PNG, stored values of 16 bits, and what is refused."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from featstore.errors import BadImageError
from featstore.images.reading import decode

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def saved(pixels, bare=False, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=bare, **options)
    return file.getvalue()


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("pixels", [PICTURE, PICTURE[..., 0]], ids=["colour", "grey"])
def test_lossless_pixels_are_those_that_were_stored(pixels, bare):
    found, notes = decode(saved(pixels, bare))
    np.testing.assert_array_equal(found, pixels.reshape(40, 30, -1))
    assert notes == ()


def test_sixteen_bits_are_windowed_in_stored_values():
    values = np.random.default_rng(1).integers(0, 4096, (40, 30)).astype(np.uint16)
    with pytest.raises(BadImageError, match="no declared range") as caught:
        decode(saved(values))
    assert caught.value.reason == "needs_range"
    found, _ = decode(saved(values), 0, (0.0, 4095.0))
    np.testing.assert_allclose(found[..., 0], values / 4095 * 255, atol=0.5001)


def with_size(data, **values):
    """The same file that announces another size or depth."""
    at = data.index(b"\xff\x4f\xff\x51")
    data = bytearray(data)
    for offset, kind, value in values.values():
        struct.pack_into(kind, data, at + offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved(PICTURE)[:-200], "truncated"),
        (saved(PICTURE)[:60], "truncated"),
        (saved(PICTURE)[:12], "truncated"),
        (saved(PICTURE, bare=True)[:-2], "truncated"),
        (with_size(saved(PICTURE), width=(8, ">I", 1 << 31)), "too_large"),
        (with_size(saved(PICTURE), width=(8, ">I", 0)), "corrupt"),
        (with_size(saved(PICTURE), depth=(42, ">B", 11)), "unsupported"),
        (with_size(saved(PICTURE[..., 0]), depth=(42, ">B", 0x87)), "unsupported"),
        (with_size(saved(PICTURE), parts=(40, ">H", 40)), "unsupported"),
        (saved(PICTURE).replace(b"jp2c", b"free"), "truncated"),
    ],
)
def test_what_is_damaged_or_of_another_depth_is_refused(data, reason):
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert caught.value.reason == reason
