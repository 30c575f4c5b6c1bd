"""Numbers of every width, sign, order and arrangement in a TIFF become the grey levels that arithmetic gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiffs import page, tiff

from featstore.api.check import check as audit
from featstore.errors import BadImageError
from featstore.images.reading import decode, probe

NUMBERS = ("i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")


def values(dtype: str, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (24, 31) if channels == 1 else (24, 31, channels)
    scale = {"i1": 30, "f2": 30, "f4": 0.2, "f8": 0.2, "u4": 1e9}.get(dtype, 5000)
    drawn = np.random.default_rng(seed).normal(size=shape) * scale
    drawn = abs(drawn) if dtype[0] == "u" else drawn
    return np.clip(drawn, -127, 127).astype(dtype) if dtype == "i1" else drawn.astype(dtype)


def shown(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    grey = np.rint((np.clip(samples.astype(np.float64), low, high) - low) / (high - low) * 255).astype(
        np.uint8
    )
    return grey if grey.ndim == 3 else grey[..., None]


def check(data: bytes, expected: np.ndarray, notes: tuple[str, ...] = ()) -> None:
    """Refused without a range, and with one the right grey levels: in tails, in the middle, and clipped."""
    assert probe(data)
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert caught.value.reason == "needs_range"
    low, high = np.quantile(expected.astype(np.float64), [0.1, 0.9]).tolist()
    pixels, said = decode(data, value_range=(low, high))
    np.testing.assert_array_equal(pixels, shown(expected, low, high))
    assert said == notes


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", NUMBERS)
def test_grey_of_any_number_type(dtype, order):
    samples = values(dtype)
    check(tiff(page(samples), order=order), samples)
    inverted, _ = decode(tiff(page(samples, {262: 0}), order=order, big=True), value_range=(-9, 99))
    np.testing.assert_array_equal(inverted, 255 - shown(samples, -9, 99))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", NUMBERS)
def test_colour_of_any_number_type(dtype, order):
    samples = values(dtype, 3)
    check(tiff(page(samples), order=order), samples)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("dtype", "predictor"), [("i2", None), ("u2", 2), ("i4", 2), ("f4", None), ("f8", None)]
)
@pytest.mark.parametrize("order", "<>")
def test_deflated_as_an_independent_writer_does(dtype, predictor, tile, planar, order):
    """Among them big-endian numbers, of which Pillow swaps the bytes once too often."""
    for channels in (1, 3):
        samples, file = values(dtype, channels), io.BytesIO()
        written = np.moveaxis(samples, -1, 0) if channels == 3 and planar == "separate" else samples
        colour = {"photometric": "rgb", "planarconfig": planar} if channels == 3 else {}
        layout = {"tile": tile} if tile else {"rowsperstrip": 7}
        tifffile.imwrite(
            file, written, byteorder=order, compression="zlib", predictor=predictor, **layout, **colour
        )
        check(file.getvalue(), samples)


def strip_of(rows: np.ndarray, compression: str) -> bytes:
    """Bytes as Pillow packs them, one strip for all."""
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "TIFF", compression=compression, tiffinfo={278: len(rows)})
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as written:
        (start,), (length,) = written.pages[0].dataoffsets, written.pages[0].databytecounts
    return file.getvalue()[start : start + length]


@pytest.mark.parametrize(
    ("compression", "code"), [("tiff_lzw", 5), ("packbits", 32773), ("tiff_adobe_deflate", 8)]
)
@pytest.mark.parametrize("dtype", ["u2", "f2", "f8"])
def test_packed_in_any_usual_way(dtype, compression, code):
    samples = values(dtype, 3)
    stored = strip_of(np.frombuffer(samples.tobytes(), np.uint8).reshape(24, -1), compression)
    check(tiff(page(samples, {259: code}, stored)), samples)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("dtype", "channels"), [("f2", 1), ("f4", 3), ("f8", 1)])
def test_the_predictor_of_floats(dtype, channels, order):
    """Bytes of a row sorted by weight, then differences: section 2 of Adobe's technical note 3."""
    samples = values(dtype, channels)
    size = samples.dtype.itemsize
    weights = samples.astype(f">{dtype}").reshape(24, -1, 1).view(np.uint8)  # row, sample, byte
    row = weights.swapaxes(1, 2).reshape(24, -1, channels)
    row[:, 1:] = np.diff(row, axis=1)
    stored = strip_of(row.reshape(24, -1), "tiff_lzw")
    assert size * 31 * channels == row.reshape(24, -1).shape[1]
    check(tiff(page(samples, {259: 5, 317: 3}, stored), order=order), samples)


@settings(max_examples=25, deadline=None)
@given(bits=st.sampled_from([9, 10, 12, 14, 17, 31]), width=st.integers(8, 40), seed=st.integers(0, 99))
def test_numbers_that_share_bytes(bits, width, seed):
    samples = np.random.default_rng(seed).integers(0, 1 << bits, (10, width)).astype(np.uint32)
    lines = ["".join(f"{number:0{bits}b}" for number in row) for row in samples.tolist()]
    row = -(-width * bits // 8)
    stored = b"".join(int(line.ljust(row * 8, "0"), 2).to_bytes(row) for line in lines)
    check(tiff(page(samples, {258: bits}, stored), order=">"), samples)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colour_is_turned_upright_as_shallow_colour_is(orientation):
    shallow = np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8)
    deep = shallow.astype(np.uint16) * 257
    tags = {274: orientation}
    expected = decode(tiff(page(shallow, tags)))[0]
    np.testing.assert_array_equal(decode(tiff(page(deep, tags)), value_range=(0, 65535))[0], expected)


@pytest.mark.parametrize(("dtype", "full"), [("u2", 65535), ("f4", 1)])
def test_deep_transparency_is_put_on_black(dtype, full):
    shallow = np.random.default_rng(0).integers(0, 256, (24, 31, 4)).astype(np.uint8)
    deep = (shallow * (full / 255)).astype(dtype)
    expected = decode(tiff(page(shallow, {338: 2})))
    found = decode(tiff(page(deep, {338: 2})), value_range=(0, full))
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1] == ("alpha",)
    ready = decode(tiff(page(deep, {338: 1})), value_range=(0, full))
    np.testing.assert_array_equal(ready[0], shallow[..., :3])  # multiplied already
    opaque = deep.copy()
    opaque[..., 3] = full
    assert decode(tiff(page(opaque, {338: 2})), value_range=(0, full))[1] == ()
    grey = np.ascontiguousarray(deep[..., [0, 3]])
    np.testing.assert_array_equal(
        decode(tiff(page(grey, {338: 2})), value_range=(0, full))[0],
        decode(tiff(page(np.ascontiguousarray(shallow[..., [0, 3]]), {338: 2})))[0],
    )


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("channels", [4, 5, 6, 9])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_channels_beyond_rgb_are_left_out_with_a_warning(dtype, channels, planar):
    samples = np.random.default_rng(0).integers(0, 250, (24, 31, channels)).astype(dtype)
    size = samples[..., 0].nbytes
    tags = {338: (0,) * (channels - 3)}
    if planar == 2:
        places = tuple(8 + size * channel for channel in range(channels))
        tags |= {284: 2, 273: places, 279: (size,) * channels}
    stored = np.moveaxis(samples, -1, 0).tobytes() if planar == 2 else None
    data = tiff(page(samples, tags, stored))
    pixels, notes = decode(data, value_range=(0, 255))
    np.testing.assert_array_equal(pixels, samples[..., :3].astype(np.uint8))
    assert notes == ("extra_channels", *(["range_unused"] if dtype == "u1" else []))


@pytest.mark.parametrize("tags", [{}, {278: 7}], ids=["one strip", "strips"])
def test_planes_apart_are_colour(tags):
    samples = np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype("u1")
    step = tags.get(278, 24)
    places, lengths = [], []
    for plane in range(3):
        for top in range(0, 24, step):
            places.append(8 + 31 * (24 * plane + top))
            lengths.append(31 * min(step, 24 - top))
    tags = tags | {284: 2, 273: tuple(places), 279: tuple(lengths)}
    data = tiff(page(samples, tags, np.moveaxis(samples, -1, 0).tobytes()))
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), np.moveaxis(samples, -1, 0))
    np.testing.assert_array_equal(decode(data)[0], samples)


def test_the_audit_reads_a_folder_of_doubles_with_their_range(write):
    files = {
        f"{name}/{k}.tif": tiff(page(values("f8", seed=k + 9 * ill)))
        for ill, name in enumerate("ab")
        for k in range(3)
    }
    root = write(files)
    assert {reason for _, reason, _ in audit(root).bad} == {"needs_range"}
    assert audit(root, value_range=(-1, 1)).bad == ()


@pytest.mark.parametrize("dtype", ["u1", "u2", "f8"])
def test_one_plane_apart_from_no_other_is_grey(dtype):
    """Of the name of Pillow's mode only the first letter was left, so that white and black changed places."""
    samples = (
        values(dtype) if dtype != "u1" else np.random.default_rng(0).integers(0, 256, (24, 31)).astype("u1")
    )
    for white_is_zero in (0, 1):
        plain = decode(tiff(page(samples, {262: white_is_zero})), value_range=(0, 900))[0]
        apart = decode(tiff(page(samples, {262: white_is_zero, 284: 2})), value_range=(0, 900))[0]
        np.testing.assert_array_equal(apart, plain)
    bits = (np.arange(24 * 4, dtype=np.uint8) * 5).reshape(24, 4)
    black_and_white = {256: 32, 258: 1, 262: 0}
    expected = 255 * (1 - np.unpackbits(bits, axis=1))
    for tags in (black_and_white, black_and_white | {284: 2}):
        np.testing.assert_array_equal(decode(tiff(page(bits, tags)))[0][..., 0], expected)


@pytest.mark.parametrize("code", [1, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_big_endian_bigtiff_of_bytes(channels, code):
    samples = np.random.default_rng(0).integers(0, 256, (24, 31, channels)).astype("u1").squeeze()
    stored = strip_of(samples.reshape(24, -1), "tiff_lzw") if code == 5 else None
    data = tiff(page(samples, {259: code}, stored), order=">", big=True)
    assert not probe(data)
    np.testing.assert_array_equal(decode(data)[0].squeeze(), samples)


def test_equal_deep_channels_become_one():
    grey = values("u2")
    pixels, _ = decode(tiff(page(np.dstack([grey] * 3))), value_range=(0, 9000))
    np.testing.assert_array_equal(pixels, shown(grey, 0, 9000))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_holes_in_any_float_are_nonfinite(dtype, channels):
    for hole in (np.nan, np.inf):
        samples = values(dtype, channels)
        samples[3, 4] = hole
        with pytest.raises(BadImageError) as caught:
            decode(tiff(page(samples)), value_range=(0, 1))
        assert caught.value.reason == "nonfinite"


def test_large_unsigned_numbers_stay_positive():
    samples = np.linspace(0, 2**32 - 1, 24 * 31).reshape(24, 31).astype(np.uint32)
    check(tiff(page(samples)), samples)


LIES = {
    "strips-on-one-another": ({258: 64, 256: 7000, 257: 7000, 278: 1, 273: (8,) * 7000}, "truncated"),
    "cut-short": ({257: 600, 278: 600}, "truncated"),
    "cut-short-deflate": ({259: 8, 279: 1 << 31}, "corrupt"),
    "no-length": ({259: 8, 279: ()}, "corrupt"),
    "too-few-strips": ({278: 1}, "corrupt"),
    "rows-of-none": ({278: 0}, "corrupt"),
    "tiles-of-none": ({322: 0, 323: 16, 324: (8,), 325: (9,)}, "corrupt"),
    "endless-tiles": ({322: 2**31, 323: 2**31, 324: (8,), 325: (9,), 259: 8}, "too_large"),
    "a-bomb-of-samples": ({277: 4_000, 258: 64, 259: 8, 256: 7000, 257: 7000, 278: 7000}, "too_large"),
    "channels-without-end": ({277: (2**16 - 1,)}, "unsupported"),
    "megapixels": ({256: 60_000, 257: 60_000}, "too_large"),
    "no-side": ({256: 0}, "corrupt"),
    "noise": ({259: 5}, "corrupt"),
    "an-unknown-predictor": ({259: 5, 317: 7}, "unsupported"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_page_that_lies_about_its_samples_is_refused(name, capfd):
    tags, reason = LIES[name]
    stored = (
        strip_of(np.zeros((24, 31 * 12), np.uint8), "tiff_lzw") if name == "an-unknown-predictor" else None
    )
    with pytest.raises(BadImageError) as caught:
        decode(tiff(page(values("f4", 3), tags, stored)), value_range=(0, 1))
    assert caught.value.reason == reason
    assert capfd.readouterr() == ("", "")
