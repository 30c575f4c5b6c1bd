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


def lzf(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=PICTURES, compression="lzf")


def minc(path):
    write(
        path, **{"minc-2.0__image__0__image": PICTURES[..., 0], "minc-2.0__image__0__image-max": np.ones(12)}
    )


def across(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (200_000, 300, 300), "u1", chunks=(200_000, 3, 3))


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
        (hollow, "too_large", "more than 1,000,000"),
        (lzf, "unsupported", "packed by LZF"),
        (minc, "unsupported", "MINC volume"),
        (across, "too_large", "h5repack -l images:CHUNK=1x"),
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


FILTERS = [
    {},
    {"compression": "gzip"},
    {"shuffle": True},
    {"fletcher32": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">f4", "?", "<i8"])
@pytest.mark.parametrize("chunks", [(1, 16, 20), (5, 7, 9), (11, 16, 3)])
def test_values_are_those_that_hdf5_reads(tmp_path, chunks, dtype, filters):
    stored = RNG.integers(0, 200, (11, 16, 20)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=stored, chunks=chunks, **filters)
    data = (tmp_path / "a.h5").read_bytes()
    index = formats()["HDF5"].index(data)
    for number in RNG.permutation(11)[:6]:
        found = index.arrays[0].picture(int(number))[..., 0]
        assert found.dtype == stored.dtype
        np.testing.assert_array_equal(found, stored[number])


@pytest.mark.parametrize("shape", [(16, 20), (16, 20, 3), (4, 3, 16, 20), (2, 9, 12, 14)], ids=str)
def test_pictures_colours_and_volumes_in_one_piece_and_in_chunks_are_alike(tmp_path, shape):
    stored = RNG.integers(0, 256, shape, dtype=np.uint8)
    for name, options in {"a": {}, "b": {"chunks": tuple(max(1, side // 2) for side in shape)}}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("images", data=stored, **options)
    np.save(tmp_path / "c.npy", stored)
    found = [
        formats()[kind].index((tmp_path / name).read_bytes())
        for kind, name in {"HDF5": "a.h5", "NPY": "c.npy"}.items()
    ]
    found.append(formats()["HDF5"].index((tmp_path / "b.h5").read_bytes()))
    assert len({one.last for one in found}) == 1
    for number in {0, found[0].last // 2, found[0].last}:
        first, *others = (one.decode(number, None) for one in found)
        for other in others:
            np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("filters", FILTERS[1:], ids=str)
def test_a_chunk_that_was_changed_is_damage(tmp_path, filters):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kept = file.create_dataset("images", data=PICTURES, chunks=(1, 16, 20, 3), **filters)
        place = [kept.id.get_chunk_info(number) for number in range(12)]
    data = bytearray((tmp_path / "a.h5").read_bytes())
    for changed in (place[3].byte_offset + 40, place[5].byte_offset + place[5].size - 1):
        data[changed] ^= 0x10
    for number in (3, 5):
        if filters == {"shuffle": True}:  # nothing in the file could tell
            continue
        with pytest.raises(BadImageError) as caught:
            decode(bytes(data), number)
        assert caught.value.reason == "corrupt"
    np.testing.assert_array_equal(decode(bytes(data), 4)[0], PICTURES[4])


def test_pictures_beyond_what_may_be_unpacked_at_once_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    import tracemalloc

    stored = np.zeros((600, 64, 64), np.uint8)
    stored[:, 0, 0] = np.arange(600) % 251
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=stored, chunks=(4, 64, 64), compression="gzip")
    monkeypatch.setattr("featstore.images.formats.npy.most_bytes", lambda: 1 << 20)
    monkeypatch.setattr("featstore.images.formats.hdf5._HELD", 1 << 16)
    data = (tmp_path / "a.h5").read_bytes()
    assert len(data) < 1 << 20 < stored.nbytes
    index = formats()["HDF5"].index(data)
    tracemalloc.start()
    found = [index.decode(number, None)[0, 0, 0] for number in range(600)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == (np.arange(600) % 251).tolist()
    assert peak < 1 << 19


def test_many_threads_read_the_same_chunks(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    stored = RNG.integers(0, 256, (60, 24, 24), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=stored, chunks=(7, 10, 24), compression="gzip")
    index = formats()["HDF5"].index((tmp_path / "a.h5").read_bytes())
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda number: index.decode(number, None)[..., 0], range(60))]
    np.testing.assert_array_equal(found, stored)


# MATLAB 7.3: HDF5 behind a header, axes in the other order

HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."


def matlab(path, **arrays):
    """Arrays as MATLAB has them, rows before columns, written as MATLAB does."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            stored = np.atleast_2d(values).T
            is_logical = stored.dtype == bool
            kept = file.create_dataset(
                name.replace("__", "/"), data=stored.astype("u1") if is_logical else stored
            )
            kind = "logical" if is_logical else stored.dtype.name.replace("float64", "double")
            kept.attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as file:
        file.write(HEADER.ljust(116) + bytes(8) + b"\0\2IM")
    return path


@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize("colours", [1, 3])
def test_pictures_of_matlab_lie_along_the_last_axis(tmp_path, colours, column):
    pictures = PICTURES[..., :colours]
    stored = np.moveaxis(pictures, 0, -1)
    labels = LABELS.astype(float)
    path = matlab(
        tmp_path / "a.mat",
        images=stored[:, :, 0] if colours == 1 else stored,
        labels=labels[:, None] if column else labels[None],
    )
    manifest = scan(path)
    assert [record.label for record in manifest.records] == [str(label) for label in LABELS]
    for record in manifest.records[::5]:
        np.testing.assert_array_equal(read_pixels(record, Decoding("x")), pictures[record.frame])


def test_a_picture_of_matlab_in_a_class_folder_is_one_image(tmp_path):
    for number, label in enumerate(("a", "b")):
        (tmp_path / "d" / label).mkdir(parents=True)
        values = PICTURES[number].astype(np.int16) * 9
        matlab(
            tmp_path / "d" / label / "1.mat",
            cjdata__image=values[..., 0],
            cjdata__label=[1.0],
            cjdata__border=np.ones(9),
        )
        matlab(tmp_path / "d" / label / "2.mat", image=PICTURES[number + 4])
    manifest = scan(tmp_path / "d")
    assert len(manifest.records) == 4
    decoding = Decoding("x", value_range=(0.0, 255.0 * 9))
    found = {record.path.name + record.label: read_pixels(record, decoding) for record in manifest.records}
    np.testing.assert_array_equal(found["1.matb"][..., 0], PICTURES[1][..., 0])
    np.testing.assert_array_equal(found["2.mata"], PICTURES[4])


def test_true_and_false_of_matlab_are_white_and_black(tmp_path):
    stored = PICTURES[..., 0] > 120
    path = matlab(tmp_path / "a.mat", images=np.moveaxis(stored, 0, -1), labels=LABELS.astype(float))
    for record in scan(path).records[::5]:
        np.testing.assert_array_equal(read_pixels(record, Decoding("x"))[..., 0], stored[record.frame] * 255)


def test_labels_and_patients_stand_in_the_group_of_the_pictures(tmp_path):
    stored = np.moveaxis(PICTURES[..., 0], 0, -1)
    path = matlab(
        tmp_path / "a.mat", s__images=stored, s__labels=LABELS.astype(float), s__patient_id=LABELS / 1
    )
    manifest = scan(path)
    assert manifest.count_by_class() == manifest.count_by_group() == {"0": 4, "1": 4, "2": 4}
    assert scan(write(tmp_path / "a.h5", d__images=PICTURES, d__labels=LABELS, e__labels=LABELS[:3])).classes


def test_pictures_along_another_axis_are_refused_with_what_to_do(tmp_path):
    path = matlab(tmp_path / "a.mat", images=PICTURES[..., 0], labels=LABELS.astype(float))
    with pytest.raises(ManifestError, match=r"12 for 20 pictures.*permute\(images, \[2 3 1\]\)"):
        scan(path)


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
    assert formats()["HDF5"].suffixes == (".h5", ".hdf5", ".mat")
