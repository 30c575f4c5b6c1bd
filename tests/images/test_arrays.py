"""Arrays as data sets: MedMNIST's archives with their splits, others' names, no pickle, shapes, bombs, damage."""

import io
import pickle
import re
import struct
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from fakes import GridBackbone, key, spec
from PIL import Image

from featstore.api.check import check
from featstore.api.predict import find_images
from featstore.api.split import split
from featstore.errors import BadImageError, ManifestError, UsageError
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.images.formats import container, npy, npz
from featstore.images.formats.npz import role_of
from featstore.images.manifest import audit
from featstore.images.reading import FILE_CACHE, decode, decoder_version, read_pixels
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import Decoding


def pictures(count, seed=0, shape=(28, 28)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def medmnist(path, shape=(28, 28), **others):
    """A file as MedMNIST's are: three sides, labels as a column of bytes."""
    arrays = {}
    for seed, (side, count) in enumerate({"train": 12, "val": 4, "test": 6}.items()):
        arrays[f"{side}_images"] = pictures(count, seed, shape)
        arrays[f"{side}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    np.savez_compressed(path, **(arrays | others))
    return path, arrays


def refusal(data, frame=0, value_range=None):
    with pytest.raises(BadImageError) as caught:
        decode(data, frame, value_range)
    return caught.value


def saved(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def one(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# Volumes, as those of MedMNIST3D


@pytest.mark.parametrize("save", ["npz", "h5"])
@pytest.mark.parametrize(
    ("slices", "axis", "numbers"),
    [
        (None, 0, range(9)),
        ("axial:every=4", 0, (0, 4, 8)),
        ("coronal:range=2-3", 1, (1, 2)),
        ("sagittal:range=90%-100%", 2, (10,)),
    ],
)
def test_slices_of_volumes_are_images_and_a_volume_is_a_group(tmp_path, save, slices, axis, numbers):
    volumes = np.random.default_rng(0).integers(0, 256, (5, 9, 10, 11), dtype=np.uint8)
    arrays = {
        "train_images": volumes[:3], "train_labels": np.array([[0], [1], [0]]),
        "test_images": volumes[3:, None], "test_labels": np.array([1, 0]),
    }  # fmt: skip
    path = tmp_path / f"organ.{save}"
    if save == "npz":
        np.savez_compressed(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    manifest = scan(path, slices=slices)
    assert len(manifest.records) == 5 * len(numbers)
    assert sorted(manifest.count_by_group().values()) == [len(numbers)] * 5
    assert not manifest.has_groups
    assert {finding.code for finding in manifest.findings} == {"FS316"}
    for record, (volume, number) in zip(
        manifest.records, [(v, n) for v in range(5) for n in numbers], strict=True
    ):
        found = read_pixels(record, Decoding("x"))
        np.testing.assert_array_equal(found[..., 0], volumes[volume].take(number, axis))
        assert (record.label, record.split) == ("01010"[volume], "train" if volume < 3 else "test")
    found = find_images(path, slices=slices).records
    assert [(r.id, r.label, r.group) for r in found] == [(r.id, r.label, r.group) for r in manifest.records]
    again = {record.id for record in scan(path, slices="axial").records}
    assert len(again & {record.id for record in manifest.records}) == 5 * len(numbers) * (axis == 0)


@pytest.mark.parametrize("slices", ["axial:largest-lung", "axial:range=40-50"])
def test_slices_that_no_volume_has_are_refused(tmp_path, slices):
    np.savez(tmp_path / "a.npz", images=np.ones((4, 9, 9, 9), np.uint8), labels=np.arange(4))
    with pytest.raises(ManifestError, match="no_slice"):
        scan(tmp_path / "a.npz", slices=slices)


def test_slices_of_pictures_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="for volumes"):
        scan(medmnist(tmp_path / "m.npz")[0], slices="axial")


# Data sets


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_a_file_of_medmnist_is_a_data_set_with_its_official_split(tmp_path, shape):
    path, arrays = medmnist(tmp_path / "pneumoniamnist.npz", shape)
    manifest = scan(path)
    assert manifest.count_by_split() == {"test": 6, "train": 12, "val": 4}
    assert manifest.count_by_class() == {"0": 11, "1": 11}
    assert not manifest.has_groups
    assert len({record.group for record in manifest.records}) == 22, "each picture may be a patient"
    whole = np.concatenate([arrays[f"{side}_images"] for side in ("train", "val", "test")])
    for record in manifest.records:
        found = read_pixels(record, Decoding("x"))
        np.testing.assert_array_equal(found, whole[record.frame].reshape(28, 28, -1))
    labels = np.concatenate([arrays[f"{side}_labels"][:, 0] for side in ("train", "val", "test")])
    assert [record.label for record in manifest.records] == [str(labels[r.frame]) for r in manifest.records]
    assert [r.id for r in find_images(path).records] == [r.id for r in manifest.records]
    assert not check(path).bad


def test_pictures_of_an_array_have_the_vectors_of_the_same_pictures_as_png(tmp_path):
    path, arrays = medmnist(tmp_path / "m.npz", (28, 28, 3))
    shown = [
        (side, label[0], picture)
        for side in ("train", "val", "test")
        for label, picture in zip(arrays[f"{side}_labels"], arrays[f"{side}_images"], strict=True)
    ]
    for side, label, picture in shown:
        target = tmp_path / "png" / side / str(label) / f"{zlib.crc32(picture.tobytes())}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
    sets = []
    for data in (path, tmp_path / "png"):
        records = {record.id: record for record in scan(data).records}
        store = Store(tmp_path / "cache")
        pipeline.run_pass(
            image_blocks(plan([key()], list(records), {})), records, Decoding("x"), {spec(): GridBackbone(spec())},
            store, pipeline.NullProgress(),
        )  # fmt: skip
        vectors = store.read(key(), list(records))
        sets.append({(r.split, r.label, v.tobytes()) for r, v in zip(records.values(), vectors, strict=True)})
    assert sets[0] == sets[1]
    assert len(sets[0]) == 22


def test_groups_labels_by_name_and_one_hot_are_read(tmp_path):
    shown = pictures(6)
    np.savez(
        tmp_path / "a.npz", images=shown, labels=np.array(["ill", "well"] * 3), patient_ids=[7, 7, 8, 8, 9, 9]
    )
    manifest = scan(tmp_path / "a.npz")
    assert manifest.has_groups
    assert [(r.label, r.group, r.split) for r in manifest.records[:3]] == [
        ("ill", "7", None), ("well", "7", None), ("ill", "8", None),
    ]  # fmt: skip
    np.savez(tmp_path / "b.npz", x_train=shown, y_train=np.eye(3)[[0, 1, 2, 0, 1, 2]])
    assert scan(tmp_path / "b.npz").count_by_class() == {"0": 2, "1": 2, "2": 2}
    assert scan(tmp_path / "b.npz").count_by_split() == {"train": 6}


def test_arrays_without_patients_are_told_what_works(tmp_path):
    """They have no paths that a pattern could be for; the names of the remedy are those that are read."""
    path, _ = medmnist(tmp_path / "m.npz")
    (found,) = (one for one in audit(scan(path)) if one.code == "FS104")
    assert "--group-pattern" not in found.remedy
    named = re.findall(r"\w+_groups", found.remedy)
    assert named == ["train_groups", "val_groups", "test_groups"]
    given = {name: np.arange(count) // 2 for name, count in zip(named, (12, 4, 6), strict=True)}
    assert scan(medmnist(tmp_path / "p.npz", **given)[0]).has_groups


def test_an_array_of_pictures_has_its_labels_beside_it(tmp_path):
    for images, labels in (
        ("images", "labels"),
        ("X_train", "y_train"),
        ("ct", "ct_labels"),
        ("my_image", "my_label"),
    ):
        np.save(tmp_path / f"{images}.npy", pictures(4))
        np.save(tmp_path / f"{labels}.npy", np.array([1.0, 0, 1, 0]))
        assert scan(tmp_path / f"{images}.npy").count_by_class() == {"0": 2, "1": 2}
    np.save(tmp_path / "lonely.npy", pictures(4))
    with pytest.raises(ManifestError, match=r"lonely_labels\.npy"):
        scan(tmp_path / "lonely.npy")


def test_arrays_in_class_folders_are_images_and_stacks_and_beside_them_are_none(tmp_path):
    for label in ("ill", "well"):
        (tmp_path / "d" / label).mkdir(parents=True)
        np.save(tmp_path / "d" / label / "slice.npy", pictures(1, len(label))[0])
        np.save(tmp_path / "d" / label / "stack.npy", pictures(3, len(label) + 9))
    np.savez(tmp_path / "d" / "features.npz", a=np.ones((4, 4)))
    manifest = scan(tmp_path / "d")
    assert manifest.count_by_class() == {"ill": 4, "well": 4}
    assert sorted(manifest.count_by_group().values()) == [1, 1, 3, 3]
    assert manifest.skipped == 1


@pytest.mark.parametrize(
    ("arrays", "cause"),
    [
        ({"train_images": pictures(4)}, "train_labels"),
        ({"train_images": pictures(4), "train_labels": np.zeros(3)}, "for 4 pictures"),
        ({"train_images": pictures(4), "train_labels": np.ones((4, 14))}, "several classes"),
        ({"one": pictures(4), "two": pictures(4)}, "called as pictures"),
        ({"images": pictures(4), "x": pictures(4), "labels": np.ones(4)}, "called as pictures"),
        (
            {"images": pictures(4).reshape(4, -1), "labels": np.ones(4)},
            r"images.reshape\(-1, HEIGHT, WIDTH\)",
        ),
        (
            {"images": np.array([1, None]), "labels": np.ones(2)},
            "'images' cannot be .* never unpickled",
        ),
        (
            {"images": pictures(4), "labels": np.array(["a"] * 4, object)},
            r"'labels' cannot .*\.astype\(str\)",
        ),
        ({"volumes": pictures(4).astype(complex), "labels": np.ones(4)}, "called as pictures"),
        ({"images": np.ones((4, 28, 28, 5)), "labels": np.ones(4)}, r"4 x 28 x 28 x 5: .*count x depth"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path, arrays, cause):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ManifestError, match=cause):
        scan(tmp_path / "a.npz")


def test_numbers_of_classes_are_named_alike_whatever_stands_beside_them(tmp_path):
    np.savez(tmp_path / "a.npz", images=pictures(4), labels=np.array([0.0, 1.0, np.nan, 0.5]))
    assert scan(tmp_path / "a.npz").classes == ("0", "0.5", "1", "nan")


def test_a_pattern_of_paths_says_nothing_of_pictures_in_one_file(tmp_path):
    path, _ = medmnist(tmp_path / "m.npz")
    with pytest.raises(ManifestError, match="file of arrays"):
        scan(path, group_pattern=r"(m)")
    with pytest.raises(UsageError, match="one line for each file"):
        split(path, tmp_path / "split.csv", by="image")
    assert "FS309" not in {finding.code for finding in scan(path).findings}


def test_names_of_arrays():
    assert role_of("train_images") == ("images", "train")
    assert role_of("X_val") == ("images", "val")
    assert role_of("labels_test") == ("labels", "test")
    assert role_of("Y") == ("labels", None)
    assert role_of("train_patient_ids") == ("groups", "train")
    assert role_of("weights") is role_of("train_weights") is None


# Values


@pytest.mark.parametrize(
    ("shape", "count"),
    [((30, 20), 1), ((30, 20, 3), 1), ((30, 20, 1), 1), ((5, 30, 20), 5), ((5, 30, 20, 3), 5), ((5, 3, 30, 20), 5),
     ((3, 30, 20), 3)],
)  # fmt: skip
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_say_what_is_a_picture(shape, count, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), order=order)
    data = one(array)
    assert len(npy.Npy().list_pages(io.BytesIO(data)).frames) == count
    shown = decode(data, count - 1)[0]
    picture = array if count == 1 else array[-1]
    picture = np.moveaxis(picture, 0, -1) if picture.shape[0] == 3 else picture
    np.testing.assert_array_equal(shown, picture.reshape(30, 20, -1))
    assert refusal(data, count).reason == "corrupt"


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">u2", "i8", "f2", "<f4", ">f8"])
def test_other_numbers_than_bytes_need_a_range(dtype):
    array = np.random.default_rng(0).integers(0, 100, (2, 9, 10)).astype(dtype)
    assert refusal(one(array)).reason == "needs_range"
    shown = decode(one(array), 1, (10, 60))[0][..., 0]
    expected = np.round((np.clip(array[1].astype(float), 10, 60) - 10) * 255 / 50)
    np.testing.assert_array_equal(shown, expected)
    truth = np.eye(9, dtype=bool)
    np.testing.assert_array_equal(decode(one(truth))[0][..., 0], truth * 255)


# No pickle, no bombs


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_nothing_is_ever_unpickled(tmp_path):
    trap = np.empty(4, object)
    trap[:] = [Trap()] * 4
    assert refusal(one(trap)).reason == "unsupported"
    (tmp_path / "a.npz").write_bytes(saved(images=pictures(4), labels=trap))
    with pytest.raises(ManifestError, match="never unpickled"):
        scan(tmp_path / "a.npz")
    assert refusal(saved(images=trap)).reason == "unsupported"
    assert refusal(pickle.dumps(Trap())).reason == "not_image"


def header(shape, dtype="|u1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (header("(4, 28, 28)") + bytes(100), "truncated"),
        (header("(99999, 9999, 9999)"), "too_large"),
        (header("(0, 28, 28)"), "corrupt"),
        (header("(-4, 28, 28)"), "corrupt"),
        (header("(4, 28"), "corrupt"),
        (header("(4, 4)") + bytes(16), "too_small"),
        (header("(9, 400)") + bytes(3600), "aspect"),
        (header("(28, 28)", "<c8") + bytes(8000), "unsupported"),
        (header("(28, 28)", "<U4") + bytes(16000), "unsupported"),
        (b"\x93NUMPY\1\0\xff\xff{", "corrupt"),
    ],
)
def test_headers_that_no_array_of_pictures_has_are_refused(data, reason):
    assert refusal(data).reason == reason


def test_an_archive_is_unpacked_as_far_as_its_arrays_announce(monkeypatch):
    import tracemalloc

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", one(pictures(4)) + bytes(200 << 20))
    tracemalloc.start()
    decode(file.getvalue(), 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    monkeypatch.setattr(npy, "most_bytes", lambda: 5000)
    several = saved(train_images=pictures(4), test_images=pictures(4))
    assert refusal(several).reason == "too_large", "together they are more than is read"


@pytest.mark.slow
@pytest.mark.skipif(
    npy.most_bytes() < 1200 << 20, reason="an eighth of this machine's memory is less than the file"
)
def test_a_file_of_more_than_a_gibibyte_is_read(tmp_path):
    """As MedMNIST's pictures of 224 x 224 are."""
    images = np.zeros((23_000, 224, 224), np.uint8)
    images[-1] = np.arange(224, dtype=np.uint8)
    assert images.nbytes > 1 << 30
    np.savez_compressed(tmp_path / "x.npz", images=images, labels=np.arange(23_000) % 2)
    manifest = scan(tmp_path / "x.npz")
    assert len(manifest.records) == 23_000
    last = read_pixels(manifest.records[-1], Decoding(decoder_version()))
    np.testing.assert_array_equal(last[..., 0], images[-1])


def test_many_archives_are_no_data_sets_and_say_so(tmp_path):
    data = bytearray(saved(images=pictures(4)))
    data[200] ^= 1
    assert refusal(bytes(data)).reason == "corrupt", "a checksum is wrong"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no array")
    assert "Unpack it" in refusal(file.getvalue()).detail
    (tmp_path / "bad.npz").write_bytes(bytes(data)[:150])
    with pytest.raises(ManifestError, match="damaged"):
        scan(tmp_path / "bad.npz")


def test_a_file_of_arrays_is_read_once_for_all_of_its_pictures(tmp_path, monkeypatch):
    path, _ = medmnist(tmp_path / "m.npz")
    counted = []
    unpack = npz.unpack
    monkeypatch.setattr(npz, "unpack", lambda *a: counted.append(1) or unpack(*a))
    FILE_CACHE.__init__()
    manifest = scan(path)
    counted.clear()
    for record in manifest.records:
        read_pixels(record, Decoding("x"))
    assert len(counted) == 3
    assert container.find_format(path.read_bytes()[:1024]).name == "NPZ"
