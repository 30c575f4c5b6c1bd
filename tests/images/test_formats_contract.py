"""Every image format that there is holds the contract of `featstore.testing`, and what breaks it is named."""

import io
import re
import struct

import h5py
import nibabel
import numpy as np
import pytest
from dicoms import dicom
from fakes import DECODING
from PIL import Image

from featstore import registry
from featstore.errors import BadImageError, UsageError
from featstore.images.formats import container
from featstore.images.formats.container import Format, Pages
from featstore.images.manifest import Quarantined, read_contents
from featstore.images.reading import decode, probe, read_pixels
from featstore.testing import check_format
from featstore.types import ImageRecord

OWN = {
    name: known
    for name, known in container.formats().items()
    if type(known).__module__.startswith(f"{container.FOLDER}.")
}
DEEP = {"DICOM", "HDF5", "JPEG2000", "NIFTI", "NPY", "NPZ", "PNG", "PPM", "TIFF"}
"""Formats of which some files need a range."""


def saved(name, image, **options):
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def array_file(name, array):
    file = io.BytesIO()
    if name == "HDF5":
        with h5py.File(file, "w") as written:
            written["images"] = array
    else:
        np.save(file, array) if name == "NPY" else np.savez_compressed(file, images=array)
    return file.getvalue()


def samples(name):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 33, 3), dtype=np.uint8)
    if name == "DICOM":
        return [
            dicom(pixels, photometric="RGB"),
            dicom(pixels[..., 0]),
            dicom(pixels[..., 0].astype(np.uint16) * 3),
        ]
    if name == "NIFTI":
        volume = pixels.transpose(1, 0, 2).repeat(3, axis=2)
        return [
            nibabel.Nifti1Image(array, np.eye(4)).to_bytes()
            for array in (volume, volume.astype(np.int16) * 3)
        ]
    if name in {"NPY", "NPZ", "HDF5"}:
        stacks = [pixels, pixels[..., 0], np.stack([pixels] * 3), pixels[None, ..., 0] * np.uint16(3)]
        return [array_file(name, stack) for stack in stacks]
    found = [saved(name, Image.fromarray(pixels)), saved(name, Image.fromarray(pixels[..., 0]))]
    if name == "TIFF":
        pages = [Image.fromarray(pixels + np.uint8(n)) for n in range(3)]
        found += [saved(name, pages[0], save_all=True, append_images=pages[1:], compression="tiff_lzw")]
    if name in DEEP:
        found += [saved(name, Image.fromarray(pixels[..., 0].astype(np.uint16) * 3))]
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "HDF5" else []) for name in OWN]
)
def test_each_format_holds_the_contract(name):
    check_format(OWN[name], samples(name))


def test_the_formats_are_found_by_file_name_and_have_numbers_of_their_own():
    assert registry.names(container.FOLDER) == [
        "avif",
        "bmp",
        "dicom",
        "gif",
        "hdf5",
        "jpeg",
        "jpeg2000",
        "nifti",
        "npy",
        "npz",
        "png",
        "pnm",
        "tiff",
        "webp",
    ]
    assert {known.code: name for name, known in OWN.items()} == {
        1: "BMP", 2: "GIF", 3: "JPEG", 4: "PNG", 5: "PPM", 6: "TIFF", 7: "WEBP", 8: "DICOM",
        9: "NIFTI", 10: "NPY", 12: "HDF5", 13: "JPEG2000", 14: "AVIF",
        11: "NPZ",
    }  # fmt: skip


class Cards(Format):
    """Grey pictures of one size behind a header: a format of several pages that Pillow does not know."""

    name = "CARDS"
    suffixes = (".cards",)
    magic = re.compile(rb"CARDS")
    version = "1"

    def list_pages(self, file):
        file.seek(5)
        count = file.read(1)[0]
        return Pages(tuple(range(count)), count)

    def decode(self, data, frame, *_):
        width, height = struct.unpack_from(">HH", data, 6)
        return np.frombuffer(data, np.uint8, width * height, 10 + frame * width * height).reshape(
            height, width
        ), ()


def cards(*pictures):
    height, width = pictures[0].shape
    head = b"CARDS" + struct.pack(">BHH", len(pictures), width, height)
    return head + b"".join(picture.tobytes() for picture in pictures)


def pictures(count):
    return [np.random.default_rng(n).integers(0, 256, (20, 30), dtype=np.uint8) for n in range(count)]


@pytest.fixture
def installed(monkeypatch):
    """Make these classes the formats that the user named."""

    def put(*kinds):
        container._found.cache_clear()
        monkeypatch.setattr(registry, "plugins", lambda kind: list(kinds) if kind == "formats" else [])

    yield put
    monkeypatch.undo()
    container._found.cache_clear()


def test_a_format_of_somebody_else_holds_the_contract_too(installed):
    installed(Cards)
    check_format(Cards(), [cards(*pictures(1)), cards(*pictures(3))])


def test_its_pages_are_images_whose_ids_hold_its_version(installed, tmp_path):
    path, shown = tmp_path / "a.cards", pictures(3)
    path.write_bytes(cards(*shown))
    found = {}
    for version in ("1", "2"):
        installed(type("Cards", (Cards,), {"version": version}))
        contents = read_contents(path)
        assert (contents.kind, contents.frames, contents.total) == ("CARDS", (0, 1, 2), 3)
        found[version] = contents.ids
        for image, frame, picture in zip(contents.ids, contents.frames, shown, strict=True):
            record = ImageRecord(image, path, "a", "g", frame=frame)
            np.testing.assert_array_equal(read_pixels(record, DECODING)[..., 0], picture)
    assert len({*found["1"], *found["2"], contents.digest}) == 7
    with pytest.raises(BadImageError) as caught:
        read_pixels(ImageRecord(found["1"][0], path, "a", "g"), DECODING)
    assert caught.value.reason == "changed", "what another version decoded is another image"


def test_an_image_of_featstores_own_formats_keeps_its_id(installed, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(samples("PNG")[0])
    before = read_contents(path)
    installed(Cards)
    assert read_contents(path) == before
    assert before.ids == [before.digest]


def test_whatever_it_raises_costs_one_file(installed, tmp_path):
    def fails(*_arguments):
        raise KeyError("colour table")

    data = cards(*pictures(1))
    path = tmp_path / "a.cards"
    path.write_bytes(data)
    for method in ("strip", "check", "decode", "needs_range"):
        installed(type("Cards", (Cards,), {method: fails}))
        with pytest.raises(BadImageError) as caught:
            decode(data)
        assert caught.value.reason == "corrupt"
        assert "colour table" in caught.value.detail
        assert not probe(data)
    installed(type("Cards", (Cards,), {"list_pages": fails}))
    assert isinstance(found := read_contents(path), Quarantined)
    assert found.reason == "corrupt"


def gives(value):
    """Method that returns this, whatever it is asked."""
    return lambda *_: value


GREY = np.zeros((20, 30), np.uint8)
BROKEN = {
    "not capitals": {"name": "cards"},
    "not a dot and small letters": {"suffixes": ("CARDS",)},
    "no version": {"version": ""},
    "sniff .* takes": {"magic": re.compile(rb"")},
    "sniff .* does not know": {"magic": re.compile(rb"CARTES")},
    "names no pages": {"list_pages": gives(Pages((), 0))},
    "float64": {"decode": gives((GREY / 2, ()))},
    "shape": {"decode": gives((np.zeros((20, 30, 4), np.uint8), ()))},
    "notes": {"decode": gives((GREY, ("pretty",)))},
    "half is missing": {"decode": gives((GREY, ()))},
    "other pixels": {"decode": lambda *_: (np.random.default_rng().integers(0, 99, (20, 30), np.uint8), ())},
    "size of": {"size": gives((9, 9))},
    "bytes_per_pixel": {"bytes_per_pixel": gives(0)},
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_what_breaks_the_contract_is_named(complaint):
    kind = type("Cards", (Cards,), {"__doc__": "Cards.", **BROKEN[complaint]})
    with pytest.raises(AssertionError, match=complaint):
        check_format(kind(), [cards(*pictures(1))])


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"version": ""}, "has no version"),
        ({"name": "PNG"}, "calls itself PNG"),
        ({"suffixes": (".png",)}, "claims .png, which is of PNG"),
    ],
)
def test_a_plugin_that_would_hide_another_format_is_refused_in_one_line(installed, facts, complaint):
    installed(type("Cards", (Cards,), facts))
    with pytest.raises(UsageError, match=complaint):
        container.suffixes()


def test_a_deep_format_asks_for_a_range_before_it_is_decoded(installed):
    installed(type("Cards", (Cards,), {"needs_range": gives(True)}))
    data = cards(*pictures(1))
    assert probe(data)
    with pytest.raises(BadImageError) as caught:
        decode(data)
    assert caught.value.reason == "needs_range"
    assert decode(data, 0, (0.0, 255.0))[0].shape == (20, 30, 1)
