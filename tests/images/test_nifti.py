"""NIfTI: all volumes that nibabel packages, one volume stored in every way, slices, windows, damage, costs."""

import gzip
import io
import itertools
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicoms import dicom
from fakes import GridBackbone, key, spec

from featstore.api.check import check
from featstore.api.predict import find_images
from featstore.errors import BadImageError, ManifestError
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.images import reading
from featstore.images.formats import nifti
from featstore.images.formats.container import identify_format
from featstore.images.formats.nifti import Nifti, SliceChoice, parse_slices, read_header, read_volume
from featstore.images.reading import REASONS, decode, probe
from featstore.images.recipe import FILE_WINDOW, parse_window
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.testing import check_format
from featstore.types import Decoding

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"
FILES = sorted(
    path
    for path in PACKAGED.rglob("*")
    if path.suffix in {".nii", ".hdr", ".mnc", ".mgz", ".gz", ".dcm", ".HEAD"} and path.is_file()
)
LUNG = parse_window("lung")
RAS, LPS = np.diag([2.0, 3.0, 4.0, 1]), np.diag([-2.0, -3.0, 4.0, 1])


def values(shape=(12, 15, 10), seed=0, low=-1200, high=1600):
    """A volume in Hounsfield units, int16; axes right, front, head."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.int16)


def stored(array, affine=RAS, *, kind=nibabel.Nifti1Image, packed=False, **header):
    """Bytes of a file."""
    order = ">" if array.dtype.byteorder == ">" else "<"
    image = kind(array, affine, kind.header_class(endianness=order), dtype=array.dtype)
    for name, value in header.items():
        image.header[name] = value
    file = io.BytesIO()
    image.to_stream(file)
    return gzip.compress(file.getvalue(), mtime=0) if packed else file.getvalue()


def refusal(data, frame=0, value_range=LUNG):
    with pytest.raises(BadImageError) as caught:
        decode(data, frame, value_range)
    assert caught.value.reason in REASONS
    return caught.value


def by_hand(array, low, high):
    """8 bits of a window, written out."""
    return np.round((np.clip(array.astype(float), low, high) - low) * 255 / (high - low)).astype(np.uint8)


def features(folder, cache, value_range=LUNG, **how):
    """Vectors of a data set in the order of its records."""
    manifest = scan(folder, **how)
    ids = [record.id for record in manifest.records]
    store = Store(cache)
    decoding = Decoding("x", value_range=value_range)
    done = pipeline.run_pass(
        image_blocks(plan([key()], ids, {})), {r.id: r for r in manifest.records}, decoding,
        {spec(): GridBackbone(spec())}, store, pipeline.NullProgress(),
    )  # fmt: skip
    assert not done.bad
    return store.read(key(), ids)


def in_classes(folder, **files):
    """A data set of one file per class."""
    for label, data in files.items():
        (folder / label).mkdir(parents=True)
        (folder / label / "volume").write_bytes(data)
    return folder


# Every volume that nibabel packages

REFUSED = {
    "example4d.nii.gz": "unsupported", "example_nifti2.nii.gz": "unsupported", "functional.nii": "unsupported",
    "row_major.dconn.nii": "unsupported", "nifti1.hdr": "unsupported", "nifti2.hdr": "unsupported",
    "standard.nii.gz": "too_small", "resampled_anat_moved.nii": "nonfinite", "minc2": "unsupported",
    "small.mnc": "unsupported",
    ".gz": "unsupported", ".mgz": "unsupported", "minc1": "not_image", "tiny.mnc": "not_image",
    "analyze": "unsupported",
    ".HEAD": "not_image", ".dcm": None,
}  # fmt: skip
"""Part of a file's name to the reason why it is no image; the first that fits counts, None for an image."""


def expected(path):
    return next((why for part, why in REFUSED.items() if part in path.name), None)


def test_all_packaged_volumes_run_through_check_and_extract(tmp_path):
    """In two classes: no crash, no hang, and each file gives its slices, or is in quarantine for the right reason."""
    listed = {}
    for number, path in enumerate(FILES):
        copy = tmp_path / "data" / ("ill", "well")[number % 2] / f"{number:03d}-{path.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        listed[copy] = path
    value_range = (0.0, 20000.0)
    found = check(tmp_path / "data", value_range=value_range)
    bad = {listed[Path(path)].name: reason for path, reason, _ in found.bad}
    assert bad == {path.name: why for path in FILES if (why := expected(path))}
    manifest = scan(tmp_path / "data")
    images = {record.id: record for record in manifest.records}
    done = pipeline.run_pass(
        image_blocks(plan([key()], list(images), {})), images, Decoding("x", value_range=value_range),
        {spec(): GridBackbone(spec())}, Store(tmp_path / "cache"), pipeline.NullProgress(),
    )  # fmt: skip
    assert {listed[images[row.id].path].name: row.reason for row in done.bad} == {
        "standard.nii.gz": "too_small", "resampled_anat_moved.nii": "nonfinite",
    }  # fmt: skip
    slices = {listed[record.path].name for record in manifest.records}
    assert slices >= {"anatomical.nii", "reoriented_anat_moved.nii", "resampled_anat_moved.nii"}


# Values and orientation, against nibabel and against arithmetic


@pytest.mark.parametrize("name", ["anatomical.nii", "reoriented_anat_moved.nii", "resampled_anat_moved.nii"])
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_values_are_those_of_nibabel_in_the_closest_canonical_orientation(name, axis):
    data = (PACKAGED / name).read_bytes()
    whole = nibabel.as_closest_canonical(nibabel.load(PACKAGED / name)).get_fdata()
    volume = read_volume(data)
    start = volume.header.start(axis)
    for number in range(volume.header.count(axis)):
        along = whole.take(number, axis={"axial": 2, "coronal": 1, "sagittal": 0}[axis])
        np.testing.assert_array_equal(volume.slice_values(start + number), np.flip(along).T)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">i4", "<i8", "<f4", ">f8"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_scaling_is_as_nibabel_gives_it(dtype, kind):
    array = np.random.default_rng(0).integers(0, 120, (9, 10, 11)).astype(dtype)
    plain = stored(array, kind=kind)
    scaled = bytearray(plain)
    at, form = (112, "ff") if kind is nibabel.Nifti1Image else (176, "dd")
    struct.pack_into((">" if np.dtype(dtype).byteorder == ">" else "<") + form, scaled, at, 2.5, -1024.0)
    image = kind.from_bytes(bytes(scaled))
    assert (image.dataobj.slope, image.dataobj.inter) == (2.5, -1024.0)
    volume = read_volume(bytes(scaled))
    for number in (0, 7):
        found = volume.slice_values(number)
        np.testing.assert_array_equal(found, np.flip(image.get_fdata()[:, :, number]).T)
        np.testing.assert_array_equal(found, np.flip(array[:, :, number]).T.astype(float) * 2.5 - 1024)
        np.testing.assert_array_equal(read_volume(plain).slice_values(number), np.flip(array[:, :, number]).T)


def rotated(affine, degrees):
    """The affine after turns about two axes."""
    a, b = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turned = np.eye(4)
    turned[:3, :3] = about_x @ about_z
    return turned @ affine


def test_one_volume_has_one_set_of_vectors_in_whatever_way_it_is_stored(tmp_path):
    """All 48 orders and directions of the axes, upright and oblique, plain and packed: RAS, LPS and the others."""
    array = values()
    slices = {}
    for number, (order, signs) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    ):
        to = np.array([order, signs]).T.astype(float)
        moved = nibabel.apply_orientation(array, to)
        affine = RAS @ nibabel.orientations.inv_ornt_aff(to, array.shape)
        for degrees in ((0, 0), (25, -30)):
            data = stored(moved, rotated(affine, degrees), packed=number % 7 == 0)
            assert read_header(io.BytesIO(data)).canonical == (12, 15, 10)
            slices[number, degrees] = [decode(data, frame, LUNG)[0].tobytes() for frame in (0, 9, 12, 36)]
    assert len({tuple(found) for found in slices.values()}) == 1
    sets = [
        features(in_classes(tmp_path / name, ill=data, well=stored(values(seed=1))), tmp_path / f"{name}.cache")
        for name, data in {
            "ras": stored(array, RAS),
            "lps": stored(array[::-1, ::-1], LPS),
            "oblique": stored(
                array.transpose(2, 0, 1)[:, ::-1],
                rotated(RAS @ nibabel.orientations.inv_ornt_aff(
                    np.array([[1, -1], [2, 1], [0, 1]]), array.shape), (20, 35)), packed=True,
            ),
        }.items()
    ]  # fmt: skip
    np.testing.assert_array_equal(sets[0], sets[1])
    np.testing.assert_array_equal(sets[0], sets[2])
    assert np.ptp(sets[0]) > 0


def test_an_axial_slice_is_the_slice_of_the_dicom_file():
    """In DICOM rows run to the patient's left and columns to the back: LPS. So does dcm2niix store them, turned."""
    array = values()
    data = stored(array[::-1, ::-1], LPS)
    slice_of_dicom = array[::-1, ::-1, 4].T
    one = decode(dicom(np.ascontiguousarray(slice_of_dicom), RescaleSlope=1, RescaleIntercept=0), 0, LUNG)[0]
    np.testing.assert_array_equal(one, decode(data, 4, LUNG)[0])
    np.testing.assert_array_equal(one[..., 0], by_hand(slice_of_dicom, *LUNG))


def test_slices_are_as_one_looks_at_them():
    array = np.zeros((20, 21, 22), np.uint8)
    array[15:, 15:, 15:] = 255  # right, front, head
    volume = stored(array)
    axial, coronal, sagittal = (decode(volume, frame)[0][..., 0] for frame in (18, 22 + 18, 22 + 21 + 18))
    for shown in (axial, coronal, sagittal):
        assert shown[0, 0] == 255
        assert shown[0, -1] == shown[-1, 0] == shown[-1, -1] == 0
    assert (axial.shape, coronal.shape, sagittal.shape) == ((21, 20), (22, 20), (22, 21))


# Windows


def test_windows_are_those_of_dicom_and_three_of_them_are_three_channels():
    array = values()
    data = stored(array)
    shown = decode(data, 3, parse_window("lung,mediastinal,bone"))[0]
    for channel, name in enumerate(("lung", "mediastinal", "bone")):
        expected_plane = by_hand(np.flip(array[:, :, 3]).T, *parse_window(name))
        np.testing.assert_array_equal(shown[..., channel], expected_plane)
    assert refusal(data, 0, None).reason == "needs_range"
    assert probe(data)


def test_the_window_of_the_file_is_cal_min_and_cal_max_when_it_is_asked_for():
    array = values()
    found = decode(stored(array, cal_min=-500, cal_max=700), 2, FILE_WINDOW)[0][..., 0]
    np.testing.assert_array_equal(found, by_hand(np.flip(array[:, :, 2]).T, -500, 700))
    assert refusal(stored(array), 0, FILE_WINDOW).reason == "needs_range"
    as_bytes = array.clip(0, 255).astype(np.uint8)
    for value_range in (None, LUNG, FILE_WINDOW):
        np.testing.assert_array_equal(
            decode(stored(as_bytes), 2, value_range)[0][..., 0], np.flip(as_bytes[:, :, 2]).T
        )


def test_colours_stay_colours():
    rgb = np.zeros((9, 10, 11), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for band, name in enumerate("RGB"):
        rgb[name] = np.random.default_rng(band).integers(0, 256, rgb.shape)
    shown = decode(stored(rgb), 5, LUNG)[0]
    for band, name in enumerate("RGB"):
        np.testing.assert_array_equal(shown[..., band], np.flip(rgb[name][:, :, 5]).T)


# Slices


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("axial", range(10)),
        ("coronal", range(10, 25)),
        ("sagittal", range(25, 37)),
        ("axial:every=4", [0, 4, 8]),
        ("axial:range=2-5", [1, 2, 3, 4]),
        ("axial:range=7-99", [6, 7, 8, 9]),
        ("axial:range=20%-50%", [2, 3, 4]),
        ("coronal:range=2-8,every=3", [11, 14, 17]),
    ],
)
def test_slices_are_chosen_along_an_axis(tmp_path, text, numbers):
    folder = in_classes(tmp_path / "d", a=stored(values()), b=stored(values(seed=1), packed=True))
    records = scan(folder, slices=text).records
    assert [record.frame for record in records if record.label == "a"] == list(numbers)
    assert [record.frame for record in records if record.label == "b"] == list(numbers)
    assert len({record.group for record in records}) == 2, "a volume is a group"
    assert [record.id for record in find_images(folder, slices=text).records] == [r.id for r in records]


def test_a_slice_has_the_same_id_whatever_else_was_asked_for(tmp_path):
    folder = in_classes(tmp_path / "d", a=stored(values()), b=stored(values(seed=1)))
    every = {record.id: record.frame for record in scan(folder).records}
    some = {record.id: record.frame for record in scan(folder, slices="axial:every=3").records}
    assert some.items() <= every.items()
    assert len(some) == 8
    assert not every.keys() & {record.id for record in scan(folder, slices="coronal").records}


@pytest.mark.parametrize(
    "text",
    ["", "axail", "axial:every=0", "axial:range=5-2", "axial:range=0-9",
     "axial:range=0%-120%", "axial:range=5%-9", "axial:half",
     "coronal:largest-lung", "axial:largest-lung,every=2"],
)  # fmt: skip
def test_what_is_no_choice_of_slices_is_refused(text):
    with pytest.raises(ManifestError):
        parse_slices(text)


def test_slices_are_for_volumes_and_a_volume_without_the_slice_is_set_aside(tmp_path):
    folder = in_classes(tmp_path / "d", a=stored(values()), b=stored(values((12, 15, 40))))
    manifest = scan(folder, slices="axial:range=20-30")
    assert [row.reason for row in manifest.unreadable] == ["no_slice"]
    assert {record.label for record in manifest.records} == {"b"}
    (tmp_path / "p").mkdir()
    pictures = in_classes(tmp_path / "p" / "d", a=dicom(np.ones((9, 9), np.uint8)))
    with pytest.raises(ManifestError, match="for volumes"):
        scan(pictures, slices="axial")


def chest(widest):
    """Air around a body with two lungs, that are widest in one slice."""
    rows, columns = np.mgrid[:40, :48]
    slices = []
    for number in range(9):
        plane = np.full((40, 48), -1000, np.int16)
        plane[(rows - 20) ** 2 / 18**2 + (columns - 24) ** 2 / 22**2 < 1] = 40
        radius = 7 - abs(number - widest)
        for centre in (15, 33):
            plane[(rows - 20) ** 2 + (columns - centre) ** 2 < max(radius, 0) ** 2] = -800
        slices.append(plane)
    return np.stack(slices, axis=2)


def test_the_largest_lung_is_the_slice_with_most_air_inside_of_the_body(tmp_path):
    folder = in_classes(
        tmp_path / "d",
        a=stored(chest(6)),
        b=stored(chest(2)[:, :, ::-1], np.diag([1.0, 1, -1, 1]), packed=True),
    )
    assert {record.label: record.frame for record in scan(folder, slices="axial:largest-lung").records} == {
        "a": 6, "b": 2,
    }  # fmt: skip
    heads = in_classes(tmp_path / "h", a=stored(chest(6)), b=stored(values(low=0)))
    assert [row.reason for row in scan(heads, slices="axial:largest-lung").unreadable] == ["no_slice"]


def test_a_table_says_more_of_groups_than_the_files(tmp_path):
    folder = in_classes(tmp_path / "d", a=stored(values()), b=stored(values(seed=1)))
    (folder / "t.csv").write_text("path,label,group\na/volume,ill,p1\nb/volume,well,p2\n")
    assert {record.group for record in scan(folder / "t.csv", slices="axial:every=5").records} == {"p1", "p2"}
    findings = {finding.code for finding in scan(folder).findings}
    assert findings == {"FS316"}


def test_a_volume_that_does_not_say_how_it_lies_is_told_of(tmp_path):
    lost = altered(252, "hh", (0, 0))
    manifest = scan(in_classes(tmp_path / "d", a=stored(values()), b=lost))
    assert {finding.code: finding.count for finding in manifest.findings} == {"FS316": 2, "FS317": 1}


# Damage and hostility


def altered(at, form, value, data=None):
    data = bytearray(stored(values()) if data is None else data)
    struct.pack_into("<" + form, data, at, *value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (altered(40, "4h", (3, -5, 15, 10)), "corrupt"),
        (altered(40, "4h", (3, 0, 15, 10)), "corrupt"),
        (altered(40, "h", (9,)), "unsupported"),
        (altered(40, "4h", (3, 32000, 32000, 3)), "too_large"),
        (altered(40, "4h", (3, 8, 8, 30000)), "too_large"),
        (altered(40, "5h", (4, 12, 15, 5, 2)), "unsupported"),
        (altered(70, "h", (32,)), "unsupported"),
        (altered(70, "h", (2304,)), "unsupported"),
        (altered(70, "h", (1536,)), "unsupported"),
        (altered(70, "h", (999,)), "corrupt"),
        (altered(108, "f", (3e9,)), "corrupt"),
        (altered(108, "f", (float("nan"),)), "corrupt"),
        (altered(108, "f", (-8,)), "corrupt"),
        (altered(112, "ff", (2.0, float("inf"))), "corrupt"),
        (altered(280, "12f", (0.0,) * 12), "corrupt"),
        (altered(280, "f", (float("nan"),)), "corrupt"),
        (altered(280, "12f", (1e38,) * 12), "corrupt"),
        (stored(values())[:-1], "truncated"),
        (stored(values())[:350], "truncated"),
        (stored(values(), packed=True)[:-500], "truncated"),
        (stored(values((4, 15, 10))), "too_small"),
        (stored(np.full((9, 9, 9), np.nan, np.float32)), "nonfinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_no_scanner_writes_is_refused(data, reason):
    assert refusal(data).reason == reason


def test_what_is_refused_is_refused_with_the_way_out(tmp_path, monkeypatch):
    assert "nibabel.four_to_three" in refusal(stored(np.zeros((9, 9, 9, 2), np.int16))).detail
    assert callable(nibabel.four_to_three)
    one = decode(stored(values()[..., None]), 3, LUNG)[0]
    np.testing.assert_array_equal(one, decode(stored(values()), 3, LUNG)[0])
    pair = (PACKAGED / "nifti1.hdr").read_bytes()
    call = refusal(pair).detail.partition("Join both: ")[2]
    array = values()
    nibabel.Nifti1Pair(array, RAS).to_filename(tmp_path / "v.hdr")
    monkeypatch.chdir(tmp_path)
    exec(call, {"nibabel": nibabel})  # noqa: S102 - what the message says is what is tried
    np.testing.assert_array_equal(read_volume(Path("v.nii.gz").read_bytes()).stored, array)


def test_a_bomb_is_unpacked_as_far_as_its_header_says_and_no_further(monkeypatch):
    import tracemalloc

    bomb = gzip.compress(stored(values()) + bytes(300 << 20), 1)
    tracemalloc.start()
    decode(bomb, 3, LUNG)
    read_header(io.BytesIO(bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20
    huge = gzip.compress(altered(40, "4h", (3, 1000, 1000, 1000)), 1)
    assert refusal(huge).reason == "too_large", "and 2 GB are refused by the header alone"
    monkeypatch.setattr(nifti, "MAX_BYTES", 3000)
    assert refusal(stored(values(), packed=True)).reason == "too_large"


def test_a_packed_file_is_compared_with_its_checksum():
    data = bytearray(stored(values(), packed=True))
    data[-6] ^= 1
    assert refusal(bytes(data)).reason == "corrupt"
    nothing = gzip.compress(b"no volume at all" * 99)
    assert "Unpack it" in refusal(nothing).detail
    raw = zlib.compressobj(wbits=-15)
    assert refusal(b"\x1f\x8b\x08" + raw.compress(b"x") + raw.flush() + bytes(30)).reason == "unsupported"


def test_damage_anywhere_gives_pixels_or_a_reason():
    small = values((9, 10, 11))
    check_format(
        Nifti(), [stored(small), stored(small, packed=True), stored(small, kind=nibabel.Nifti2Image)]
    )
    assert identify_format(stored(small, packed=True)[:1024]).name == "NIFTI"


def test_no_message_quotes_a_header():
    data = altered(148, "80s", (b"MUSTER^ERIKA",))
    for cut in (349, 360, len(data) - 3):
        assert "MUSTER" not in str(refusal(data[:cut]))
    assert "MUSTER" not in str(refusal(altered(70, "h", (999,), data)))


# Costs


def test_slices_share_one_unpacking(monkeypatch, tmp_path):
    counted = []
    unpacked = nifti._unpacked
    monkeypatch.setattr(nifti, "_unpacked", lambda *a: counted.append(1) or unpacked(*a))
    folder = in_classes(
        tmp_path / "d", a=stored(values(), packed=True), b=stored(values(seed=1), packed=True)
    )
    manifest = scan(folder)
    assert not counted, "the scan reads headers"
    for record in manifest.records:
        reading.read_pixels(record, replace(Decoding("x"), value_range=LUNG))
    assert len(counted) == 2


def test_memory_is_announced_with_the_volume(tmp_path):
    path = tmp_path / "v.nii.gz"
    path.write_bytes(stored(values((64, 64, 200)), packed=True))
    assert reading.decoding_bytes(path) > 64 * 64 * 200 * 2 + path.stat().st_size


def test_nibabel_is_imported_when_a_nifti_file_is_met_and_not_before(tmp_path):
    (tmp_path / "v.nii").write_bytes(stored(values()))
    (tmp_path / "p.dcm").write_bytes(dicom(np.ones((9, 9), np.uint8)))
    code = """
import sys
from pathlib import Path
from featstore.images.manifest import read_contents
assert read_contents(Path("p.dcm")).kind == "DICOM"
assert "nibabel" not in sys.modules
assert read_contents(Path("v.nii")).kind == "NIFTI"
assert "nibabel" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_without_nibabel_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    found = refusal(stored(values()))
    assert (found.reason, "pip install 'featstore[nifti]'" in found.detail) == ("needs_package", True)


def test_the_default_is_every_axial_slice():
    assert parse_slices("axial") == SliceChoice()
    assert list(SliceChoice().numbers(3)) == [0, 1, 2]
