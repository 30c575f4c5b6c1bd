"""DICOM series: the order of space, slices twice or missing, localizers, and tables in place of windows."""

import io

import numpy as np
import pydicom
import pytest
from dicoms import dicom, item, slice_values
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from featstore.errors import BadImageError
from featstore.images.formats.dicom import Dicom, find_place, in_space, spacing_faults
from featstore.images.reading import decode
from featstore.images.recipe import FILE_WINDOW
from featstore.images.scan import scan

AXIAL, CORONAL, TILTED = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (1, 0, 0, 0, 0.8, -0.6)
UID = "1.2.826.0.1.3680043.8.498."


def place(at, plane=AXIAL):
    """Position `at` mm along the normal, and somewhere across it."""
    normal = np.cross(plane[:3], plane[3:])
    across = np.multiply(plane[:3], 7 * at) - np.multiply(plane[3:], 11)
    return [f"{x:.4f}" for x in at * normal + across]


def series(folder, positions, *, plane=AXIAL, uid="1", label="ill", **header):
    """One file a slice; names and InstanceNumber say the contrary of space."""
    path = folder / label / f"s{uid}"
    path.mkdir(parents=True, exist_ok=True)
    for number, at in enumerate(positions):
        given = {
            "SeriesInstanceUID": UID + uid,
            "ImagePositionPatient": place(at, plane),
            "ImageOrientationPatient": list(plane),
            "InstanceNumber": len(positions) - number,
            "PatientID": f"P{uid}",
        }
        (path / f"{number:03d}").write_bytes(dicom(slice_values(hash((uid, number)) % 999), **given | header))
    return folder


def names(manifest):
    return [record.path.name for record in manifest.records]


def found(manifest):
    return {f.code: (f.count, f.message) for f in manifest.findings if f.code in {"FS318", "FS319", "FS320"}}


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, TILTED])
def test_a_series_is_in_the_order_of_space_whatever_names_and_numbers_say(tmp_path, plane):
    positions = [30, -10, 20, 0, 10]
    manifest = scan(series(tmp_path, positions, plane=plane))
    assert names(manifest) == [f"{n:03d}" for n in np.argsort(positions)]
    assert found(manifest) == {}


def test_each_series_keeps_its_own_seats_and_files_without_a_place_stay(tmp_path):
    for uid in ("1", "2"):
        series(tmp_path, [2, 1, 0], uid=uid)
    (tmp_path / "ill" / "s1" / "001x").write_bytes(dicom(slice_values(77)))
    manifest = scan(tmp_path)
    assert [f"{r.path.parent.name}/{r.path.name}" for r in manifest.records] == [
        "s1/002", "s1/001", "s1/001x", "s1/000", "s2/002", "s2/001", "s2/000",
    ]  # fmt: skip


def test_frames_of_an_enhanced_file_are_in_the_order_of_space(tmp_path):
    stored = np.stack([slice_values(seed) for seed in range(3)])
    groups = [item(PlanePositionSequence=[item(ImagePositionPatient=place(at))]) for at in (5, 0, 2.5)]
    shared = [item(PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))])]
    data = dicom(
        stored, frames=3, SeriesInstanceUID=UID + "7", PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=shared,
    )  # fmt: skip
    pages = Dicom().list_pages(io.BytesIO(data))
    assert pages.frames == (1, 2, 0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(data)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "y").write_bytes(dicom(slice_values(9)))
    assert [record.frame for record in scan(tmp_path).records] == [1, 2, 0, 0]


def test_slices_twice_missing_and_localizers_are_findings(tmp_path):
    series(tmp_path, [0, 5, 10, 10, 25, 30], uid="1")
    series(tmp_path, [0, 5, 10, 15, 20], uid="2", label="well")
    series(tmp_path, [3], uid="3", label="well", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    told = found(scan(tmp_path))
    assert told["FS318"][0] == told["FS319"][0] == told["FS320"][0] == 1
    assert "1 in all" in told["FS319"][1]
    assert "2 missing" in told["FS320"][1]


def test_phases_at_one_place_and_every_third_slice_are_no_fault(tmp_path):
    for phase in (1, 2):
        series(tmp_path, [0, 3, 6, 9], uid="1", label=f"c{phase}", TemporalPositionIdentifier=phase)
    assert found(scan(tmp_path)) == {}


def test_spacing_is_looked_at_from_four_slices_on():
    assert spacing_faults([0, 1, 9]) == (0, 0)
    assert spacing_faults([0, 1, 2, 9]) == (0, 6)
    assert spacing_faults([]) == spacing_faults([4]) == (0, 0)
    assert spacing_faults([0, 1, 2.2, 3, 4.4]) == (0, 0), "within rounding of scanners"


@pytest.mark.parametrize(
    "header",
    [
        {"ImagePositionPatient": [1, 2, 3]},
        {"ImageOrientationPatient": AXIAL},
        {"ImagePositionPatient": [1, 2], "ImageOrientationPatient": AXIAL},
        {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": (0, 0, 0, 0, 0, 0)},
        {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": (1, 0, 0, 1, 0, 0)},
    ],
)
def test_what_does_not_say_where_it_lies_has_no_place(header):
    assert find_place("1.2", header) is None


def test_a_header_that_does_not_read_costs_the_place_and_not_the_image(tmp_path):
    data = dicom(slice_values(), SeriesInstanceUID=UID + "1", ImageOrientationPatient=list(AXIAL))
    at = data.index(b"\x20\0\x37\0DS") + 8
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(data[:at] + b"?" + data[at + 1 :])
    assert len(scan(tmp_path).records) == 1


def test_the_order_is_of_pages_with_a_place_only():
    places = {page: find_place("1", {"ImagePositionPatient": [0, 0, at], "ImageOrientationPatient": AXIAL})
              for page, at in ((0, 9.0), (2, 1.0))}  # fmt: skip
    assert in_space(range(3), places) == (2, 1, 0)


# Tables in place of windows


def table(first=-500, count=1000, bits=12, **more):
    entries = (np.sqrt(np.linspace(0, 1, count)) * ((1 << bits) - 1)).astype(int)
    found = item(LUTDescriptor=[count, first % 65536, bits], LUTData=entries.tolist(), **more)
    found["LUTDescriptor"].VR, found["LUTData"].VR = "US", "US"
    return found


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_table_of_a_file_is_taken_as_pydicom_applies_it(kind, bits):
    """Tables of 8 bits are left to the test below: pydicom 3 looks up with as many bits as an entry has."""
    stored = slice_values()
    header = {"RescaleSlope": 1, "RescaleIntercept": -24, "WindowCenter": 40, "WindowWidth": 400}
    data = dicom(stored, photometric=kind, VOILUTSequence=[table(100, 900, bits)], **header)
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(stored, dataset).astype(np.int64)
    wanted = apply_voi_lut(values, dataset) * (255 / ((1 << bits) - 1))
    shown = decode(data, 0, FILE_WINDOW)[0][..., 0]
    shown = 255 - shown if kind == "MONOCHROME1" else shown
    assert np.abs(shown - wanted).max() <= 0.5 + 1e-6
    assert len(np.unique(shown)) > 60


def test_a_frame_may_have_a_table_of_its_own_and_padding_stays_black():
    stored = np.stack([slice_values(seed, low=0) for seed in range(2)])
    stored[:, :3] = -2000
    groups = [item(FrameVOILUTSequence=[item(VOILUTSequence=[table(0, count, 8)])]) for count in (400, 1600)]
    data = dicom(stored, frames=2, PerFrameFunctionalGroupsSequence=groups, PixelPaddingValue=-2000)
    for frame, count in enumerate((400, 1600)):
        shown = decode(data, frame, FILE_WINDOW)[0][..., 0]
        entries = np.array(table(0, count, 8).LUTData)
        wanted = entries[np.clip(stored[frame], 0, count - 1)]
        np.testing.assert_array_equal(shown[3:], wanted[3:])
        assert not shown[:3].any()


@pytest.mark.parametrize("change", [{"LUTDescriptor": [2000, 0, 12]}, {"LUTDescriptor": [1000, 0, 3]}])
def test_a_damaged_table_is_refused(change):
    found = table(0)
    for keyword, value in change.items():
        setattr(found, keyword, value)
    with pytest.raises(BadImageError) as caught:
        decode(dicom(slice_values(), VOILUTSequence=[found]), 0, FILE_WINDOW)
    assert caught.value.reason == "corrupt"
