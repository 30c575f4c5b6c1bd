"""Pictures in HDF5: data sets with labels and sides, values as in NumPy's files, and what is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from featstore.errors import BadImageError, ManifestError
from featstore.images.formats.container import formats
from featstore.images.reading import decode, read_pixels
from featstore.images.scan import scan
from featstore.types import Decoding

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (12, 16, 20, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name.replace("__", "/"), data=values)
    return path


def test_a_file_of_pictures_and_labels_is_a_data_set(tmp_path):
    path = write(tmp_path / "galaxy.h5", images=PICTURES, ans=LABELS, patient_ids=np.arange(12) // 2)
    manifest = scan(path)
    assert manifest.count_by_class() == {"0": 4, "1": 4, "2": 4}
    assert manifest.count_by_group() == {str(number): 2 for number in range(6)}
    assert manifest.has_groups
    for record in manifest.records:
        assert record.label == str(record.frame % 3)
        np.testing.assert_array_equal(read_pixels(record, Decoding("x")), PICTURES[record.frame])


@pytest.mark.parametrize("packed", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_sides_in_groups_and_packed_chunks_are_read(tmp_path, packed):
    path = tmp_path / "sides.hdf5"
    one_hot = np.eye(3, dtype=np.uint8)[LABELS]
    with h5py.File(path, "w") as file:
        for side, rows in {"test": slice(8, 12), "train": slice(0, 8)}.items():
            file.create_dataset(f"{side}/images", data=PICTURES[rows], **packed)
            file.create_dataset(f"{side}/labels", data=one_hot[rows])
    manifest = scan(path)
    assert manifest.count_by_split() == {"test": 4, "train": 8}
    assert [record.label for record in manifest.records] == [str(label) for label in LABELS]
    last = manifest.records[-1]
    np.testing.assert_array_equal(read_pixels(last, Decoding("x")), PICTURES[11])


def test_in_a_folder_a_file_is_a_stack_of_one_group_and_deep_values_need_a_range(tmp_path):
    values = RNG.normal(size=(3, 16, 20)).astype(np.float32)
    for label in ("a", "b"):
        (tmp_path / "d" / label).mkdir(parents=True)
        write(tmp_path / "d" / label / "stack", volume=values + (label == "b"))
    manifest = scan(tmp_path / "d")
    assert len(manifest.records) == 6
    assert len(manifest.count_by_group()) == 2
    record = next(record for record in manifest.records if record.label == "a" and record.frame == 1)
    with pytest.raises(BadImageError, match="no declared range"):
        read_pixels(record, Decoding("x"))
    found = read_pixels(record, Decoding("x", value_range=(-2.0, 2.0)))
    expected = np.clip((values[1].astype(float) + 2) / 4, 0, 1) * 255
    np.testing.assert_allclose(found[..., 0], expected, atol=0.5001)


def linked(path):
    write(path.with_name("other.h5"), images=PICTURES)
    with h5py.File(path, "w") as file:
        file["images"] = h5py.ExternalLink("other.h5", "/images")


def soft(path):
    with h5py.File(path, "w") as file:
        file["x"] = h5py.SoftLink("/images")
        file["images"] = PICTURES


def elsewhere(path):
    path.with_name("raw").write_bytes(PICTURES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "images", PICTURES.shape, "u1", external=[(str(path.with_name("raw")), 0, PICTURES.nbytes)]
        )


def virtual(path):
    write(path.with_name("other.h5"), images=PICTURES)
    layout = h5py.VirtualLayout(PICTURES.shape, "u1")
    layout[:] = h5py.VirtualSource(path.with_name("other.h5"), "images", PICTURES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout)


def hollow(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (1 << 20, 512, 512), "u1", chunks=(1, 64, 64))


def absent(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (50, 64, 64), "u1", chunks=(1, 64, 64))


def short(path):
    write(path, images=PICTURES)
    path.write_bytes(path.read_bytes()[:-500])


def objects(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=["a", "b"], dtype=h5py.string_dtype())


def own(path):
    write(path, ids=np.zeros((4, 32), np.uint8), features=np.zeros((4, 10), np.float32))


def weights(path):
    write(path, dense__kernel=np.zeros((30, 40)), dense__bias=np.zeros(40))


def empty(path):
    write(path, images=np.zeros((0, 16, 16), np.uint8))


@pytest.mark.parametrize(
    ("make", "reason", "detail"),
    [
        (linked, "unsupported", "a link to somewhere else"),
        (soft, "unsupported", "a link to somewhere else"),
        (elsewhere, "unsupported", "outside the file"),
        (virtual, "unsupported", "outside the file"),
        (hollow, "too_large", "more than 1,073,741,824"),
        (absent, "truncated", "not all of that is in the file"),
        (short, "truncated", "truncated"),
        (objects, "unsupported", "no numbers: images"),
        (own, "unsupported", "features, as featstore's cache does"),
        (weights, "unsupported", "has: dense/bias, dense/kernel"),
        (empty, "corrupt", "axis of no length"),
    ],
)
def test_what_is_no_file_of_pictures_is_refused_with_the_reason(tmp_path, make, reason, detail):
    make(tmp_path / "a.h5")
    with pytest.raises(BadImageError) as caught:
        decode((tmp_path / "a.h5").read_bytes())
    assert caught.value.reason == reason
    assert detail in caught.value.detail
    assert "/proc/" not in caught.value.detail
    (tmp_path / "d" / "a").mkdir(parents=True)
    (tmp_path / "a.h5").rename(tmp_path / "d" / "a" / "a.h5")
    with pytest.raises(ManifestError):
        scan(tmp_path / "d" / "a" / "a.h5")


@pytest.mark.parametrize(
    ("arrays", "detail"),
    [
        ({}, "holds no array 'labels'"),
        ({"labels": np.arange(5)}, "Labels or groups of 5 for 12 pictures"),
        ({"labels": np.array(["a"] * 12, dtype=object)}, r"labels.astype\('S'\)"),
        ({"labels": np.zeros((12, 2), int)}, "several classes an image"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, arrays, detail):
    with pytest.raises(ManifestError, match=detail):
        scan(write(tmp_path / "a.h5", images=PICTURES, **arrays))


def test_texts_of_one_length_are_labels(tmp_path):
    path = write(tmp_path / "a.h5", images=PICTURES, labels=np.array([b"ill", b"well"] * 6))
    assert scan(path).count_by_class() == {"ill": 6, "well": 6}


def test_damaged_bytes_are_refused_or_read_and_never_end_the_process(tmp_path):
    data = write(tmp_path / "a.h5", images=PICTURES[:2, :8, :8, 0]).read_bytes()
    reasons = set()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        bad = bytearray(data)
        for at in rng.integers(8, 1500, 6):
            bad[at] = rng.integers(256)
        try:
            decode(bytes(bad))
        except BadImageError as error:
            reasons.add(error.reason)
    assert reasons & {"unsupported", "corrupt", "truncated"}
    assert reasons <= {
        "unsupported",
        "corrupt",
        "truncated",
        "too_large",
        "too_small",
        "needs_range",
        "aspect",
    }


def test_no_copy_of_the_file_stays_open(tmp_path):
    data = write(tmp_path / "a.h5", images=PICTURES).read_bytes()
    decode(data)
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        decode(data)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before
    assert formats()["HDF5"].suffixes == (".h5", ".hdf5")
