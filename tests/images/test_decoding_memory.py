"""What decoding takes is told from headers, and kept within a bound."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featstore.images.formats import pillow as pixels
from featstore.images.formats.avif import BYTES_PER_PIXEL
from featstore.images.formats.container import ALPHA, COLOUR, GREY, PROGRESSIVE, TURNED, WEBP
from featstore.images.reading import (
    MemoryBudget,
    decode,
    decoding_bytes,
    largest_decoding_bytes,
    memory_budget,
    pixel_count,
    reserve_for_decoding,
)

SIZE = 52, 37


def picture(mode):
    values = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 4), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


FILES = {
    "grey.png": ("L", {}, GREY),
    "colour.png": ("RGB", {}, COLOUR),
    "alpha.png": ("RGBA", {}, ALPHA),
    "plain.jpg": ("RGB", {"comment": b"\xff\xc0" * 300}, COLOUR),
    "progressive.jpg": ("RGB", {"progressive": True}, PROGRESSIVE),
    "turned.jpg": ("RGB", {"exif": turned()}, TURNED),
    "cmyk.jpg": ("CMYK", {}, COLOUR),
    "a.gif": ("P", {}, COLOUR),
    "a.bmp": ("RGB", {}, COLOUR),
    "a.webp": ("RGB", {}, WEBP),
    "a.avif": ("RGB", {"speed": 10}, BYTES_PER_PIXEL),
    "a.tif": ("RGB", {"compression": "tiff_lzw"}, COLOUR),
    "a.pgm": ("L", {}, GREY),
}


@pytest.mark.parametrize("name", FILES)
def test_the_header_tells_pixels_and_what_they_cost(name, tmp_path):
    mode, options, each = FILES[name]
    path = tmp_path / name
    picture(mode).save(path, **options)
    assert pixel_count(path) == SIZE[0] * SIZE[1]
    assert decoding_bytes(path) == round(SIZE[0] * SIZE[1] * each) + path.stat().st_size


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"text", b"P5 9"])
def test_what_has_no_header_costs_nothing(content, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert pixel_count(path) == decoding_bytes(path) == 0
    assert largest_decoding_bytes([path, tmp_path / "gone"], 2) == (0, 0)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


@settings(max_examples=40)
@given(
    st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"GIF89a", b"RIFF", b"MM\0*", b"P6\n", b""])
)
def test_no_header_is_too_odd(odd, content, start):
    path = odd / "x"
    path.write_bytes(start + content)
    assert 0 <= pixel_count(path) <= 64_000_000
    assert decoding_bytes(path) >= 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_a_picture_in_strips_is_the_picture(mode, tmp_path, monkeypatch):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    picture(mode).save(path)
    whole = decode(path.read_bytes())
    monkeypatch.setattr(pixels, "_AT_ONCE", 5 * SIZE[0])
    strips = decode(path.read_bytes())
    np.testing.assert_array_equal(strips[0], whole[0])
    assert strips[1] == whole[1]


def test_pictures_share_the_room_and_a_larger_one_has_it_alone():
    room, inside, seen, lock = MemoryBudget(10), [], [], threading.Lock()

    def decode_one(cost):
        with room.reserved(cost):
            with lock:
                inside.append(cost)
                seen.append(sum(inside))
            with lock:
                inside.remove(cost)

    costs = [4, 3, 25, 7, 1, 10, 6, 4] * 25
    threads = [threading.Thread(target=decode_one, args=(cost,)) for cost in costs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(costs)
    assert all(total <= 10 or total == 25 for total in seen)


def test_a_bound_ends_with_its_block_and_after_an_error(tmp_path):
    path = tmp_path / "x.png"
    picture("L").save(path)
    with memory_budget(1):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), reserve_for_decoding(path):
                raise ZeroDivisionError
    with reserve_for_decoding(path), reserve_for_decoding(path):  # would wait for itself for ever
        pass
