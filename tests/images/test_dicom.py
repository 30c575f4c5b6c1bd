"""DICOM: every file that pydicom packages, values against pydicom and plain arithmetic, windows, patients, costs."""

import io
import json
import subprocess
import sys
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicoms import dicom, item, slice_values
from fakes import GridBackbone, key, spec
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from featstore.api.check import check
from featstore.api.predict import find_images
from featstore.errors import BadImageError, ManifestError, UsageError
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.images.formats import dicom_pixels
from featstore.images.formats.container import identify_format
from featstore.images.formats.dicom import SITE_TAGS, Dicom, pseudonym
from featstore.images.formats.pillow import window
from featstore.images.reading import REASONS, decode, probe
from featstore.images.recipe import FILE_WINDOW, WINDOWS, parse_window, range_option, window_range
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.testing import check_format
from featstore.types import Decoding, FeatureKey

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path for path in PACKAGED.rglob("*") if path.is_file())
LUNG = parse_window("lung")


def packaged(name):
    return Path(get_testdata_file(name)).read_bytes()


def refusal(data, frame=0, value_range=LUNG):
    with pytest.raises(BadImageError) as caught:
        decode(data, frame, value_range)
    assert caught.value.reason in REASONS
    return caught.value


def by_hand(values, low, high):
    """8 bits of a window, written out."""
    return np.round((np.clip(values.astype(float), low, high) - low) * 255 / (high - low)).astype(np.uint8)


# Every file that pydicom packages

REFUSED = {
    "DICOMDIR": "no_picture", "rtdose": "no_picture", "liver": "no_picture", "reportsi": "no_picture",
    "test-SR": "no_picture", "waveform": "no_picture", "rtplan.dcm": "no_picture", "priv_SQ": "no_picture",
    "nested_priv_SQ": "no_picture", "no_meta_group_length": "no_picture", "meta_missing": "no_picture",
    "UN_sequence": "no_picture", "empty_charset": "no_picture", "badVR": "no_picture", "IM0000": "no_picture",
    "rtplan_truncated": "truncated", "MR_truncated": "truncated",
    "JPEG-lossy": "needs_package", "JPGExtended": "needs_package", "JPEGLS": "needs_package",
    "jpeg_ls": "needs_package", "jls": "needs_package", "jpeg_gdcm": "needs_package",
    "embedded": "corrupt", "16bit": "unsupported", "32bit": "unsupported", "small_odd": "too_small",
    "LitEndNoMeta": "unsupported", "rtstruct.dcm": "unsupported", "BigEndNoMeta": "not_image",
    "no_meta.dcm": "not_image", "zipMR": "unsupported", "README": "not_image", ".json": "not_image",
    ".dump": "not_image", ".icc": "not_image",
}  # fmt: skip
"""Part of a file's name to the reason why it is no image."""


def expected(path):
    return next((reason for part, reason in REFUSED.items() if part in path.name), None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGED)))
def test_every_packaged_file_is_decoded_or_refused_for_the_right_reason(path):
    data, why = path.read_bytes(), expected(path)
    if why is None:
        pixels, _ = decode(data, 0, (-1000.0, 1000.0))
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
    else:
        assert refusal(data).reason == why


def test_all_packaged_files_run_through_check_and_extract(tmp_path):
    """In two classes: no crash, no hang, and each file gives its images, or is in quarantine for the right reason."""
    listed = {}
    for number, path in enumerate(path for path in FILES if path.suffix not in {".txt", ".json"}):
        copy = tmp_path / "data" / ("ill", "well")[number % 2] / f"{number:03d}{path.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        listed[copy] = path
    wanted = {path.read_bytes(): why for path in listed.values() if (why := expected(path))}
    value_range = (-1000.0, 1000.0)
    found = check(tmp_path / "data", value_range=value_range)
    assert {Path(path).read_bytes(): reason for path, reason, _ in found.bad} == wanted
    manifest = scan(tmp_path / "data")
    images = {record.id: record for record in manifest.records}
    done = pipeline.run_pass(
        image_blocks(plan([key()], list(images), {})), images, Decoding("x", value_range=value_range),
        {spec(): GridBackbone(spec())}, Store(tmp_path / "cache"), pipeline.NullProgress(),
    )  # fmt: skip
    refused = {images[bad.id].path.read_bytes(): bad.reason for bad in done.bad}
    refused |= {bad.path.read_bytes(): bad.reason for bad in manifest.unreadable}
    assert refused == wanted
    assert done.rows + len(done.bad) == len(images)
    assert done.rows > len(set(map(Path.read_bytes, listed.values()))) - len(wanted), (
        "frames of a film are images"
    )


GREY_FILES = (
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_padded.dcm", "examples_overlay.dcm", "dicomdirtests/77654033/CR1/6154",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GREY_FILES)
def test_values_are_those_of_pydicom(name):
    path = PACKAGED / name
    dataset = pydicom.dcmread(path)
    wanted = apply_modality_lut(dataset.pixel_array, dataset)
    found = dicom_pixels.read_image(path.read_bytes()).values(0)
    np.testing.assert_array_equal(found, wanted)
    pixels, _ = decode(path.read_bytes(), 0, (0.0, 1000.0))
    shown = by_hand(wanted, 0, 1000)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    if "PixelPaddingValue" in dataset:
        shown[dataset.pixel_array == np.array(dataset.PixelPaddingValue).astype(np.int16)] = 0
    np.testing.assert_array_equal(pixels[..., 0], shown)


COLOUR_FILES = [
    path.name
    for path in FILES
    if expected(path) is None
    and path.name.startswith(("SC_", "ExplVR_BigEnd.", "examples_rgb", "examples_y"))
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COLOUR_FILES)
def test_colours_are_those_of_pydicom(name):
    """Within rounding: a library of this machine that featstore does not choose may decode JPEG otherwise."""
    path = Path(get_testdata_file(name))
    wanted = pydicom.pixels.pixel_array(pydicom.dcmread(path), index=0).astype(int)
    found, _ = decode(path.read_bytes())
    assert np.abs(found - wanted).max() <= 2


def test_a_palette_becomes_colour():
    dataset = pydicom.dcmread(get_testdata_file("examples_palette.dcm"))
    entries = [
        np.frombuffer(dataset[f"{colour}PaletteColorLookupTableData"].value, "<u2")
        for colour in ("Red", "Green", "Blue")
    ]
    first = dataset.RedPaletteColorLookupTableDescriptor[1]
    wanted = np.stack([part[dataset.pixel_array.astype(int) - first] >> 8 for part in entries], axis=-1)
    np.testing.assert_array_equal(decode(packaged("examples_palette.dcm"))[0], wanted)


# Windows


def test_named_windows_are_level_and_width():
    assert LUNG == (-1350, 150)
    assert parse_window("mediastinal") == (-160, 240)
    assert parse_window("40,80") == parse_window("brain") == (0, 80)
    assert set(WINDOWS) == {"lung", "mediastinal", "bone", "brain"}


@pytest.mark.parametrize("text", ["longue", "40", "1,2,3", "a,b", "40,0", "40,-1", "nan,5", "1,inf", ""])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(UsageError):
        parse_window(text)


def test_a_window_is_linear_exact_as_pydicom_computes_it():
    stored = slice_values()
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored, RescaleSlope=1, RescaleIntercept=0)))
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = -600, 1500, "LINEAR_EXACT"
    exact = apply_voi_lut(stored, dataset)
    dataset.VOILUTFunction = "LINEAR"
    linear = apply_voi_lut(stored, dataset)
    span = np.iinfo(np.int16)
    shown = by_hand(stored, *window_range(-600, 1500)).astype(float)
    to_bytes = 255 / (span.max - span.min)
    assert np.abs(shown - (exact - span.min) * to_bytes).max() <= 0.5 + 1e-6
    assert np.abs(shown - (linear - span.min) * to_bytes).max() > 0.5, "and LINEAR is another one"


def test_a_slice_as_dicom_and_as_png_of_its_window_are_the_same_pixels_and_the_same_vector(tmp_path):
    stored = (slice_values() + 1024).clip(0).astype(np.uint16)
    data = dicom(stored, BitsStored=12, RescaleSlope="1", RescaleIntercept="-1024")
    units = stored.astype(float) - 1024
    buffer = io.BytesIO()
    Image.fromarray(by_hand(units, *LUNG)).save(buffer, "PNG")
    as_dicom, as_png = decode(data, 0, LUNG)[0], decode(buffer.getvalue())[0]
    np.testing.assert_array_equal(as_dicom, as_png)
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "b").mkdir()
    (tmp_path / "data" / "a" / "slice").write_bytes(data)
    (tmp_path / "data" / "b" / "slice.png").write_bytes(buffer.getvalue())
    manifest = scan(tmp_path / "data")
    ids = [record.id for record in manifest.records]
    store = Store(tmp_path / "cache")
    pipeline.run_pass(
        image_blocks(plan([key()], ids, {})), {r.id: r for r in manifest.records}, Decoding("x", value_range=LUNG),
        {spec(): GridBackbone(spec())}, store, pipeline.NullProgress(),
    )  # fmt: skip
    one, other = store.read(key(), ids)
    np.testing.assert_array_equal(one, other)
    assert np.ptp(one) > 0


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_the_window_of_a_file_is_taken_when_it_is_asked_for_as_pydicom_applies_it(function, kind):
    stored = slice_values()
    header = {
        "WindowCenter": [40, 400],
        "WindowWidth": [81, 1800],
        "RescaleSlope": 1,
        "RescaleIntercept": -24,
    }
    header |= {"VOILUTFunction": function} if function else {}
    data = dicom(stored, photometric=kind, **header)
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(stored, dataset)
    least, most = -(2**15) - 24, 2**15 - 1 - 24
    wanted = (apply_voi_lut(values, dataset) - least) / (most - least) * 255
    shown, _ = decode(data, 0, FILE_WINDOW)
    shown = 255 - shown if kind == "MONOCHROME1" else shown
    assert np.abs(shown[..., 0] - wanted).max() <= 0.51
    assert len(np.unique(shown)) > 20


def test_windows_that_files_say_differ_by_half_a_unit():
    stored = np.tile(np.arange(0, 100, dtype=np.int16), (20, 1))
    header = {"WindowCenter": 40, "WindowWidth": 80}
    linear, exact = (
        decode(dicom(stored, **header, VOILUTFunction=name), 0, FILE_WINDOW)[0][0, :, 0]
        for name in ("LINEAR", "LINEAR_EXACT")
    )
    x = np.arange(100)
    np.testing.assert_array_equal(exact, by_hand(x, 0, 80))
    np.testing.assert_array_equal(linear, by_hand(x, 0, 79))
    narrow = decode(dicom(stored, WindowCenter=40, WindowWidth=1), 0, FILE_WINDOW)[0][0, :, 0]
    np.testing.assert_array_equal(narrow, 255 * (x > 39.5))


def test_a_frame_may_have_a_window_of_its_own():
    stored = np.stack([slice_values(seed) for seed in range(2)])
    groups = [
        item(FrameVOILUTSequence=[item(WindowCenter=level, WindowWidth=401, VOILUTFunction="LINEAR_EXACT")])
        for level in (-600, 40)
    ]
    data = dicom(stored, frames=2, PerFrameFunctionalGroupsSequence=groups, WindowCenter=0, WindowWidth=1)
    for frame, level in enumerate((-600, 40)):
        shown = decode(data, frame, FILE_WINDOW)[0][..., 0]
        np.testing.assert_array_equal(shown, by_hand(stored[frame], *window_range(level, 401)))


def test_a_window_of_the_file_is_never_taken_unasked_and_never_invented():
    stored = slice_values()
    data = dicom(stored, WindowCenter=40, WindowWidth=400)
    assert probe(data)
    assert refusal(data, 0, None).reason == "needs_range"
    np.testing.assert_array_equal(decode(data, 0, LUNG)[0][..., 0], by_hand(stored, *LUNG))
    assert refusal(dicom(stored), 0, FILE_WINDOW).reason == "needs_range"
    buffer = io.BytesIO()
    Image.fromarray((stored + 2000).astype(np.uint16)).save(buffer, "PNG")
    assert refusal(buffer.getvalue(), 0, FILE_WINDOW).reason == "needs_range"
    for header in ({"WindowWidth": 0}, {"WindowWidth": -5}, {"WindowWidth": 5, "VOILUTFunction": "CUBIC"}):
        assert refusal(dicom(stored, WindowCenter=4, **header), 0, FILE_WINDOW).reason == "corrupt"


def test_bytes_have_the_window_of_the_file_only_if_it_says_one():
    stored = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    np.testing.assert_array_equal(decode(dicom(stored), 0, FILE_WINDOW)[0][..., 0], stored)
    data = dicom(stored, WindowCenter=100, WindowWidth=51)
    np.testing.assert_array_equal(decode(data, 0, FILE_WINDOW)[0][..., 0], by_hand(stored, 74.5, 124.5))


def test_the_window_of_files_is_a_part_of_the_key_and_old_keys_stay_as_they_were():
    asked = replace(key(), decoding=Decoding("x", value_range=FILE_WINDOW))
    assert FeatureKey.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert set(asked.to_json()["decoding"]) == {"decoder", "interpolation", "value_range", "revision"}
    assert range_option(FILE_WINDOW) == "--window=file"
    assert range_option([-1350.0, 150.0]) == "--range=-1350,150"
    assert parse_window("file") == FILE_WINDOW


# Three windows, one for each channel

THREE = parse_window("lung,mediastinal,bone")


def test_three_windows_are_the_three_channels_of_a_slice():
    stored = slice_values()
    data = dicom(stored, RescaleSlope=1, RescaleIntercept=0)
    shown = decode(data, 0, THREE)[0]
    assert shown.shape == (*stored.shape, 3)
    for channel, name in enumerate(("lung", "mediastinal", "bone")):
        level, width = WINDOWS[name]
        expected = by_hand(stored, level - width / 2, level + width / 2)
        np.testing.assert_array_equal(shown[..., channel], expected)
        np.testing.assert_array_equal(shown[..., channel], decode(data, 0, parse_window(name))[0][..., 0])


def test_three_windows_turn_monochrome1_over_and_leave_padding_black():
    stored = slice_values().clip(-1000)
    stored[:5] = -2000
    header = {"RescaleSlope": 1, "RescaleIntercept": 0, "PixelPaddingValue": -2000}
    shown = decode(dicom(stored, photometric="MONOCHROME1", **header), 0, THREE)[0]
    assert not shown[:5].any()
    straight = decode(dicom(stored, **header), 0, THREE)[0]
    np.testing.assert_array_equal(shown[5:], 255 - straight[5:])


def test_three_windows_are_read_by_name_or_number_and_written_back():
    assert THREE == (-1350, 150, -160, 240, -500, 1300)
    assert parse_window("lung,40,400,bone") == parse_window("-600,1500,40,400,400,1800") == THREE
    assert range_option(THREE) == "--window=lung,mediastinal,bone"
    own = parse_window("lung,10,25,bone")
    assert parse_window(range_option(own).removeprefix("--window=")) == own


@pytest.mark.parametrize(
    "text", ["lung,bone", "lung,bone,brain,lung", "lung,file,bone", "lung,40,bone", "lung,"]
)
def test_two_windows_four_or_half_of_one_are_refused(text):
    with pytest.raises(UsageError):
        parse_window(text)


def test_three_windows_are_a_part_of_the_key_in_their_order():
    asked = replace(key(), decoding=Decoding("x", value_range=THREE))
    assert FeatureKey.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    other = replace(key(), decoding=Decoding("x", value_range=THREE[2:] + THREE[:2]))
    assert asked != other
    for wrong in (THREE[:4], (*THREE, 1.0, 2.0), ("a",) * 6):
        broken = json.loads(json.dumps(asked.to_json()))
        broken["decoding"]["value_range"] = list(wrong)
        with pytest.raises(ValueError, match="value range"):
            FeatureKey.from_json(broken)
    with pytest.raises(UsageError):
        decode(dicom(slice_values()), 0, THREE[:4])


def test_three_windows_of_a_16_bit_png_are_those_of_the_dicom_and_colour_of_16_bits_has_one(tmp_path):
    stored = (slice_values() + 1500).clip(0).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG")
    ranges = (0.0, 1000.0, 500.0, 2500.0, 100.0, 3000.0)
    np.testing.assert_array_equal(
        decode(buffer.getvalue(), 0, ranges)[0], decode(dicom(stored), 0, ranges)[0]
    )
    with pytest.raises(BadImageError, match="one window"):
        window(np.zeros((9, 9, 3), np.uint16), ranges)


# Kinds of pixels


def test_monochrome1_is_turned_over():
    stored = slice_values()
    dark, light = (
        decode(dicom(stored, photometric=kind), 0, LUNG)[0] for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_array_equal(light, 255 - dark)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_plain_bytes_need_no_range_and_stay_as_they_are(kind):
    stored = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    data = dicom(stored, photometric=kind)
    assert not probe(data)
    for value_range in (None, LUNG):
        shown = decode(data, 0, value_range)[0][..., 0]
        np.testing.assert_array_equal(shown, 255 - stored if kind == "MONOCHROME1" else stored)


@pytest.mark.parametrize(
    "header",
    [
        {"RescaleSlope": 2, "RescaleIntercept": 0},
        {"RescaleSlope": 1, "RescaleIntercept": -1},
        {"PixelRepresentation": 1},
    ],
)
def test_bytes_in_a_unit_need_a_range(header):
    data = dicom(np.zeros((40, 48), np.uint8), **header)
    assert probe(data)
    assert refusal(data, 0, None).reason == "needs_range"


def test_twelve_bits_are_taken_from_sixteen_whatever_the_others_hold():
    stored = np.random.default_rng(0).integers(0, 1 << 12, (40, 48)).astype(np.uint16)
    noise = np.random.default_rng(1).integers(0, 16, (40, 48)).astype(np.uint16) << 12
    clean, dirty = (
        decode(dicom(values, BitsStored=12), 0, (0.0, 4095.0))[0] for values in (stored, stored | noise)
    )
    np.testing.assert_array_equal(clean, dirty)
    signed = dicom((stored | noise).view(np.int16), BitsStored=12)
    values = dicom_pixels.read_image(signed).values(0)
    np.testing.assert_array_equal(values, np.where(stored > 2047, stored.astype(int) - 4096, stored))


@pytest.mark.parametrize(("written", "dtype"), [(-2000, np.int16), (63536, np.uint16)])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_outside_the_field_of_view_is_black(written, dtype, kind):
    stored = slice_values().clip(0).astype(dtype)
    stored[:, :9] = np.array(written).astype(dtype)
    header = {"PixelPaddingValue": written, "RescaleSlope": 1, "RescaleIntercept": 5000}
    shown = decode(dicom(stored, photometric=kind, **header), 0, (2000.0, 4000.0))[0]
    assert (shown[:, :9] == 0).all()
    inner = by_hand(stored[:, 9:].astype(float) + 5000, 2000, 4000)
    np.testing.assert_array_equal(shown[:, 9:, 0], 255 - inner if kind == "MONOCHROME1" else inner)


def test_a_range_of_padding_values_is_black_too():
    stored = np.tile(np.arange(40, 88, dtype=np.uint16), (40, 1))
    shown = decode(dicom(stored, PixelPaddingValue=80, PixelPaddingRangeLimit=87), 0, (0.0, 100.0))[0]
    assert (shown[:, 40:] == 0).all()
    assert (shown[:, :40] > 0).all()


def test_a_table_of_the_modality_goes_before_the_window():
    stored = np.random.default_rng(0).integers(0, 16, (40, 48)).astype(np.uint16)
    table = (np.arange(16) ** 2).astype(np.uint16)
    sequence = [item(LUTDescriptor=[16, 0, 16], ModalityLUTType="US", LUTData=table.tobytes())]
    shown = decode(dicom(stored, BitsStored=12, ModalityLUTSequence=sequence), 0, (0.0, 225.0))[0]
    np.testing.assert_array_equal(shown[..., 0], by_hand(table[stored], 0, 225))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_lossless_compressions_give_the_stored_values(dtype):
    low, high = (0, 256) if dtype == np.uint8 else (0, 3000) if dtype == np.uint16 else (-1200, 1600)
    stored = np.random.default_rng(0).integers(low, high, (40, 48)).astype(dtype)
    plain = dicom_pixels.read_image(dicom(stored)).values(0)
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored)))
    for syntax in (RLELossless, JPEG2000Lossless):
        dataset = pydicom.dcmread(io.BytesIO(dicom(stored)))
        dataset.compress(syntax, generate_instance_uid=False)
        file = io.BytesIO()
        dataset.save_as(file)
        np.testing.assert_array_equal(dicom_pixels.read_image(file.getvalue()).values(0), plain)


# Frames


def frames_with_rescale():
    stored = np.stack([slice_values(seed) for seed in range(3)])
    groups = [
        item(
            PixelValueTransformationSequence=[
                item(RescaleSlope=n + 1, RescaleIntercept=-100 * n, RescaleType="HU")
            ]
        )
        for n in range(3)
    ]
    return stored, dicom(stored, frames=3, PerFrameFunctionalGroupsSequence=groups)


def test_each_frame_is_an_image_with_the_rescale_of_its_own(tmp_path):
    stored, data = frames_with_rescale()
    for frame in range(3):
        shown = decode(data, frame, LUNG)[0][..., 0]
        np.testing.assert_array_equal(shown, by_hand(stored[frame] * (frame + 1.0) - 100 * frame, *LUNG))
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "enhanced.dcm").write_bytes(data)
    manifest = scan(tmp_path / "d")
    assert [record.frame for record in manifest.records] == [0, 1, 2]
    assert len({record.id for record in manifest.records}) == 3
    assert len({record.group for record in manifest.records}) == 1
    assert refusal(data, 3).reason == "corrupt"


def test_a_rescale_of_all_frames_goes_before_that_of_the_file():
    stored = np.stack([slice_values(seed) for seed in range(2)])
    shared = [
        item(PixelValueTransformationSequence=[item(RescaleSlope=3, RescaleIntercept=7, RescaleType="US")])
    ]
    data = dicom(
        stored, frames=2, SharedFunctionalGroupsSequence=shared, RescaleSlope=1, RescaleIntercept=-1024
    )
    np.testing.assert_array_equal(dicom_pixels.read_image(data).values(1), stored[1] * 3.0 + 7)


def test_frames_of_a_film_are_those_of_pydicom():
    data = packaged("examples_ybr_color.dcm")
    image = Dicom().index(data)
    assert image.last == 29
    for frame in (0, 17, 29):
        wanted = pydicom.pixels.pixel_array(io.BytesIO(data), index=frame).astype(int)
        assert np.abs(decode(data, frame, None, image)[0] - wanted).max() <= 2


# What is no image, or damaged


def test_fewer_pixels_than_announced_are_truncated():
    data = dicom(slice_values())
    assert refusal(data[:-100]).reason == "truncated"
    assert refusal(data[:400]).reason in {"truncated", "no_picture"}
    assert refusal(dicom(slice_values(), NumberOfFrames=2)).reason == "truncated"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"Rows": 9000, "Columns": 9000}, "too_large"),
        ({"NumberOfFrames": 5000}, "too_large"),
        ({"Rows": 0}, "corrupt"),
        ({"SamplesPerPixel": 2}, "corrupt"),
        ({"photometric": "HSV"}, "unsupported"),
        ({"photometric": "RGB"}, "corrupt"),
        ({"BitsStored": 17}, "corrupt"),
        ({"RescaleSlope": "1", "RescaleIntercept": "1e999"}, "corrupt"),
        ({"syntax": "1.2.840.10008.1.2.4.102", "fragments": [b"video"]}, "unsupported"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*")
def test_a_header_that_no_picture_has_is_refused_before_anything_is_decoded(header, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dicom(slice_values(), **header)
    assert refusal(data).reason == reason


def test_a_compressed_picture_of_another_size_than_the_header_says_is_refused_before_it_is_decoded():
    buffer = io.BytesIO()
    Image.new("L", (3000, 2000)).save(buffer, "JPEG")
    header = {"syntax": JPEGBaseline8Bit, "fragments": [buffer.getvalue()]}
    assert refusal(dicom(np.zeros((40, 48), np.uint8), **header)).reason == "corrupt"


def test_a_deflated_file_that_unpacks_to_a_bomb_is_refused(monkeypatch):
    data = packaged("image_dfl.dcm")
    assert decode(data)[0].shape == (512, 512, 1)
    monkeypatch.setattr(dicom_pixels, "_MOST_INFLATED", 1000)
    assert refusal(data).reason == "too_large"


@pytest.mark.parametrize(
    "name", ["693_J2KI.dcm", "SC_rgb_rle.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
)
def test_damage_gives_pixels_or_a_reason(name):
    check_format(Dicom(), [packaged(name)])


def test_a_file_that_is_tiff_and_dicom_at_once_is_dicom():
    data = packaged("CT_small.dcm")
    assert data.startswith(b"II*\0")
    assert identify_format(data[:1024]).name == "DICOM"


def test_a_codec_that_is_not_here_is_named_with_its_package():
    found = refusal(packaged("SC_rgb_jpeg_gdcm.dcm"))
    assert (found.reason, "pip install pylibjpeg-libjpeg" in found.detail) == ("needs_package", True)


def test_a_picture_whose_codec_is_not_here_is_tried_again_once_it_is(tmp_path):
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "d" / "a" / "x").write_bytes(packaged("SC_rgb_jpeg_gdcm.dcm"))
    images = {record.id: record for record in scan(tmp_path / "d").records}
    store, decoding = Store(tmp_path / "cache"), Decoding("x")
    done = pipeline.run_pass(
        image_blocks(plan([key()], list(images), {})), images, decoding, {spec(): GridBackbone(spec())}, store,
        pipeline.NullProgress(),
    )  # fmt: skip
    assert [bad.reason for bad in done.bad] == ["needs_package"]
    assert store.bad_images(decoding) == {}, "what is noted there is not tried again"


def test_without_pydicom_the_extra_is_named(monkeypatch, tmp_path):
    dicom_pixels._pydicom.cache_clear()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    try:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "x.dcm").write_bytes(packaged("CT_small.dcm"))
        with pytest.raises(ManifestError, match=r"pip install 'featstore\[dicom\]'"):
            scan(tmp_path)
    finally:
        dicom_pixels._pydicom.cache_clear()


# Patients and sites

ERIKA = "MUSTERMANN^ERIKA"


def patients(folder, **header):
    for number in range(8):
        path = folder / ("ill", "well")[number % 2] / f"series{number // 4}" / f"{number:08d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {
            "PatientID": f"{ERIKA}{number // 2 % 3}",
            "PatientName": ERIKA,
            "Manufacturer": f"M{number % 2}",
        }
        path.write_bytes(dicom(slice_values(number), **given | header))
    return folder


def test_images_of_one_patient_are_one_group_which_does_not_name_him(tmp_path):
    manifest = scan(patients(tmp_path / "d"))
    assert manifest.has_groups
    assert Counter(record.group for record in manifest.records) == {
        pseudonym(f"{ERIKA}{number}"): count for number, count in ((0, 4), (1, 2), (2, 2))
    }
    assert "MUSTER" not in repr(manifest)
    assert {record.site for record in manifest.records} == {None}


def test_a_new_image_of_the_same_patient_is_recognised_by_the_pseudonym(tmp_path):
    folder = patients(tmp_path / "d")
    assert {record.group for record in find_images(folder).records} == {r.group for r in scan(folder).records}
    assert {record.group for record in find_images(folder, group_pattern=r"series(\d)").records} == {"0", "1"}


@pytest.mark.parametrize("nobody", ["", "  ", "ANONYMOUS", "0", "None"])
def test_who_has_no_id_is_nobodys_patient(tmp_path, nobody):
    manifest = scan(patients(tmp_path / "d", PatientID=nobody))
    assert not manifest.has_groups
    assert len({record.group for record in manifest.records}) == 8


def test_a_table_and_a_pattern_go_before_the_header(tmp_path):
    folder = patients(tmp_path / "d")
    assert {r.group for r in scan(folder, group_pattern=r"series(\d)").records} == {"0", "1"}
    lines = [
        f"{path.relative_to(folder)},x{n % 2},g{n % 3},S" for n, path in enumerate(sorted(folder.rglob("0*")))
    ]
    (folder / "t.csv").write_text("\n".join(["path,label,group,site", *lines]))
    manifest = scan(folder / "t.csv", site_tag="Manufacturer")
    assert {record.group for record in manifest.records} == {"g0", "g1", "g2"}
    assert {record.site for record in manifest.records} == {"S"}
    rows = [line.rpartition(",g")[0] for line in lines]
    (folder / "u.csv").write_text("\n".join(["path,label", *rows]))
    manifest = scan(folder / "u.csv")
    assert manifest.has_groups, "a table without groups leaves them to the header"
    assert all(record.group.startswith("patient-") for record in manifest.records)


def test_the_site_is_a_tag_of_a_device_and_never_of_a_person(tmp_path):
    folder = patients(tmp_path / "d")
    assert {record.site for record in scan(folder, site_tag="Manufacturer").records} == {"M0", "M1"}
    for tag in ("PatientName", "PatientID", "OperatorsName", "Manufakturer"):
        assert tag not in SITE_TAGS
        with pytest.raises(ManifestError, match="no tag that names a site"):
            scan(folder, site_tag=tag)


def reason_of(data):
    """What is said of a file that is refused."""
    with suppress(BadImageError):
        decode(data, 0, LUNG)
        return ""
    return str(refusal(data))


@pytest.mark.parametrize("where", ["PatientID", "RescaleSlope", "NumberOfFrames", "BitsStored", "Rows"])
def test_no_message_quotes_a_header(where, caplog, recwarn, capfd):
    data = bytearray(
        dicom(slice_values(), PatientID=ERIKA, PatientName=ERIKA, RescaleSlope="1", RescaleIntercept="0")
    )
    tags = {"PatientID": b"\x10\0\x20\0", "RescaleSlope": b"\x28\0\x53\x10", "BitsStored": b"\x28\0\x01\x01",
            "Rows": b"\x28\0\x10\0", "NumberOfFrames": b"\x28\0\x02\0"}  # fmt: skip
    at = bytes(data).index(tags[where])
    data[at + 4 : at + 6] = b"DS"
    mark = bytes(data).index(ERIKA.encode())
    said = ""
    for cut in (len(data), mark + 5, at + 9):
        for change in (b"", ERIKA.encode()):
            damaged = bytes(data[: at + 8]) + change + bytes(data[at + 8 + len(change) : cut])
            said += reason_of(damaged)
    assert "MUSTER" not in said + caplog.text
    assert not recwarn.list
    assert "MUSTER" not in "".join(capfd.readouterr())


# Costs


def test_a_header_is_read_once_a_file_and_pixels_never_when_a_folder_is_scanned(tmp_path, monkeypatch):
    """So 10,000 files take ten times as long as 1,000: what is read grows with the files, and with nothing else."""
    read = []
    real = pydicom.dcmread
    monkeypatch.setattr(
        pydicom, "dcmread", lambda *a, **k: read.append(k.get("stop_before_pixels")) or real(*a, **k)
    )
    counts = {}
    data = dicom(slice_values(shape=(8, 8)))
    for count in (50, 200):
        folder = tmp_path / str(count)
        for number in range(count):
            path = folder / "ab"[number % 2] / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data + number.to_bytes(2, "little"))
        read.clear()
        assert len(scan(folder).records) == count
        assert all(read)
        counts[count] = len(read)
    assert counts == {50: 50, 200: 200}


def test_frames_share_one_reading_of_the_header(monkeypatch, tmp_path):
    _, data = frames_with_rescale()
    calls = []
    real = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *a, **k: calls.append(a) or real(*a, **k))
    image = Dicom().index(data)
    for frame in range(3):
        decode(data, frame, LUNG, image)
    assert len(calls) == 1


def test_pydicom_is_imported_when_a_dicom_file_is_met_and_not_before(tmp_path):
    for label in "ab":
        (tmp_path / "png" / label).mkdir(parents=True)
        Image.fromarray(slice_values(ord(label)).astype(np.uint8)).save(tmp_path / "png" / label / "x.png")
        (tmp_path / "dcm" / label).mkdir(parents=True)
        (tmp_path / "dcm" / label / "x").write_bytes(dicom(slice_values(ord(label))))
    program = (
        "import sys, featstore; featstore.check(sys.argv[1], value_range=(0, 1));"
        "print('pydicom' in sys.modules, 'tensorflow' in sys.modules)"
    )
    for kind, imported in (("png", "False False"), ("dcm", "True False")):
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / kind], capture_output=True, text=True, check=True
        )
        assert done.stdout.split("\n")[0] == imported


@pytest.mark.parametrize("text", [b"1,50", b"abcd", b"nan "])
def test_a_slope_that_is_no_number_is_named(text):
    data = dicom(slice_values(), RescaleSlope="1.25", RescaleIntercept=-1024)
    assert "no usable RescaleSlope" in reason_of(data.replace(b"1.25", text))


def test_a_slope_of_zero_would_make_all_pixels_alike_and_is_refused():
    assert "RescaleSlope of 0" in reason_of(dicom(slice_values(), RescaleSlope=0, RescaleIntercept=-1024))


@pytest.mark.parametrize(
    ("header", "window", "notes"),
    [
        ({"Modality": "MR"}, LUNG, ("not_hounsfield",)),
        ({"Modality": "PT", "RescaleSlope": 2, "RescaleIntercept": 0}, LUNG, ("not_hounsfield",)),
        ({"Modality": "OT", "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}, LUNG, ()),
        ({"Modality": "CT"}, LUNG, ()),
        ({}, LUNG, ()),
        ({"Modality": "MR"}, (0.0, 2000.0), ()),
        ({"Modality": "MR"}, (0.0, 2000.0, *LUNG, 0.0, 99.0), ("not_hounsfield",)),
        ({"Modality": "MR", "WindowCenter": 40, "WindowWidth": 400}, FILE_WINDOW, ()),
    ],
)
def test_a_window_of_ct_on_another_unit_is_noted(header, window, notes):
    assert decode(dicom(slice_values(), **header), 0, window)[1] == notes
