"""HDF5 from a stranger is read only if it refers to nothing but itself and holds what it announces."""

import io
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featstore.errors import RefusedFileError
from featstore.store.guard import FOREIGN, Limits, read_plain

pytestmark = pytest.mark.hostile

VALUES = np.arange(600, dtype="f4").reshape(50, 12)
BOMB = 64 << 20


def written(fill) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def usual(file):
    """As scripts of this field write them."""
    file.attrs["model"] = "Xception"
    file.create_dataset(
        "train", data=VALUES, compression="gzip", shuffle=True, fletcher32=True, chunks=(7, 5)
    )
    file.create_dataset("test/features", data=VALUES[:3])
    file.create_dataset("label", data=np.arange(50) % 2)
    file.create_dataset("names", data=np.array([b"a.png", b"b.png"]))
    file.create_dataset("empty", data=np.empty((0, 12), "f4"))


def test_a_usual_file_is_read_whole():
    plain = read_plain(written(usual))
    assert plain.attributes == {"model": "Xception"}
    assert sorted(plain.arrays) == ["empty", "label", "names", "test/features", "train"]
    np.testing.assert_array_equal(plain.arrays["train"], VALUES)
    np.testing.assert_array_equal(plain.arrays["test/features"], VALUES[:3])
    np.testing.assert_array_equal(plain.arrays["names"], [b"a.png", b"b.png"])
    assert plain.arrays["empty"].shape == (0, 12)


def test_a_path_is_read_as_its_bytes_are(tmp_path):
    (tmp_path / "x.h5").write_bytes(written(usual))
    np.testing.assert_array_equal(read_plain(tmp_path / "x.h5").arrays["train"], VALUES)


@given(
    arrays.arrays(
        st.sampled_from(["u1", "<i8", ">f4", "<f8", "?", "S3", "<f2"]),
        arrays.array_shapes(min_dims=0, max_dims=4, max_side=5),
        elements={"allow_nan": False},
    )
)
def test_plain_arrays_of_any_kind_come_back(values):
    found = read_plain(written(lambda file: file.create_dataset("x", data=values))).arrays["x"]
    np.testing.assert_array_equal(found, values)


def external(file):
    file.create_dataset("x", shape=(100,), dtype="u1", external=[("/etc/passwd", 0, 100)])


def virtual(file):
    layout = h5py.VirtualLayout((3, 12), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(3, 12))
    file.create_virtual_dataset("x", layout)


def circle(file):
    group = file.create_group("a")
    group["back"] = group


def to_the_root(file):
    file.create_group("a")["root"] = file["/"]


def nested(file, depth=400):
    for _ in range(depth):
        file = file.create_group("g")


def filter_bomb(file):
    """A chunk of 4 kB whose packed bytes go on inflating for 64 MB; HDF5 would follow."""
    x = file.create_dataset("x", shape=(1024,), dtype="f4", chunks=(1024,), compression="gzip")
    x.id.write_direct_chunk((0,), zlib.compress(bytes(BOMB)))


def not_deflated(file):
    x = file.create_dataset("x", shape=(1024,), dtype="f4", chunks=(1024,), compression="gzip")
    x.id.write_direct_chunk((0,), b"no zlib at all")


def skipped_filter(file):
    x = file.create_dataset("x", shape=(1024,), dtype="f4", chunks=(1024,), compression="gzip")
    x.id.write_direct_chunk((0,), bytes(4096), filter_mask=1)


def unknown_filter(file):
    """Number 32015 is Zstandard, which HDF5 would look for in its folder of plug-ins and load."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((10,))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((10,)), plan)


def many_names(file):
    """One array under a thousand names would be read a thousand times."""
    file["x"] = VALUES
    for number in range(3):
        file[f"y{number}"] = file["x"]


def references(file):
    file["y"] = VALUES
    file.create_dataset("x", data=np.array([file["y"].ref], dtype=h5py.ref_dtype))


HOSTILE = {
    "external storage": (external, "outside the file"),
    "virtual data": (virtual, "outside the file"),
    "external link": (lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/other.h5", "x")), "somewhere else"),
    "soft link": (lambda f: f.__setitem__("x", h5py.SoftLink("/y")), "somewhere else"),
    "soft link in a group": (lambda f: f.create_group("g").__setitem__("x", h5py.SoftLink("/g")), "somewhere else"),
    "a circle of groups": (circle, "another name"),
    "a way back to the root": (to_the_root, "another name"),
    "one array under many names": (many_names, "another name"),
    "groups 400 deep": (nested, "nested deeper"),
    "a thousand groups": (lambda f: [f.create_group(str(n)) for n in range(1001)], "more than 1000 members"),
    "a named type": (lambda f: f.__setitem__("x", np.dtype("f4")), "neither a group nor"),
    "shape bomb, chunked": (lambda f: f.create_dataset("x", (2**40, 4), "f4", chunks=(1024, 4)), "more than"),
    "shape bomb, contiguous": (lambda f: f.create_dataset("x", (2**40, 4), "f4"), "more than"),
    "shape bomb of small ones": (
        lambda f: [f.create_dataset(str(n), (2**30,), "u1", chunks=(2**20,)) for n in range(20)], "not all of that"
    ),
    "type bomb": (lambda f: f.create_dataset("x", (1,), h5py.string_dtype(length=2**30)), "not all of that"),
    "chunks that nobody wrote": (lambda f: f.create_dataset("x", (100,), "f4", chunks=(10,)), "not all of that"),
    "values that nobody wrote": (lambda f: f.create_dataset("x", (100,), "f4"), "not all of that"),
    "filter bomb": (filter_bomb, "does not inflate to"),
    "a chunk that is not packed": (not_deflated, "does not inflate"),
    "a chunk that skipped its filter": (skipped_filter, "does not inflate"),
    "lzf": (lambda f: f.create_dataset("x", data=VALUES, compression="lzf"), "filter 32000"),
    "scale and offset": (lambda f: f.create_dataset("x", data=VALUES, scaleoffset=2), "filter 6"),
    "unknown filter": (unknown_filter, "filter 32015"),
    "text of any length": (lambda f: f.create_dataset("x", data=["a", "b"]), "neither numbers nor text"),
    "references": (references, "neither numbers nor text"),
    "compound type": (lambda f: f.create_dataset("x", data=np.zeros(3, "f4,i4")), "neither numbers nor text"),
    "array type": (lambda f: f.create_dataset("x", (3,), np.dtype(("f4", (2,)))), "neither numbers nor text"),
    "complex": (lambda f: f.create_dataset("x", data=np.zeros(3, "c8")), "neither numbers nor text"),
    "opaque": (lambda f: f.create_dataset("x", data=np.zeros(3, "V5")), "neither numbers nor text"),
    "null space": (lambda f: f.create_dataset("x", data=h5py.Empty("f4")), "more than the file"),
    "an attribute of many values": (lambda f: f.attrs.__setitem__("a", np.arange(9)), "no single value"),
    "a hundred attributes": (lambda f: [f.attrs.__setitem__(str(n), n) for n in range(100)], "attributes"),
}  # fmt: skip


@pytest.mark.parametrize(("fill", "why"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(fill, why, tried):
    with pytest.raises(RefusedFileError) as caught:
        read_plain(written(fill))
    assert why in caught.value.cause
    assert "\n" not in caught.value.cause + caught.value.remedy
    tried("hostile HDF5 files")


def test_what_the_library_itself_would_have_done_is_what_the_guard_is_for(tmp_path):
    """Else the refusals above would prove nothing."""
    (tmp_path / "secret").write_bytes(b"secret")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(6,), dtype="u1", external=[(str(tmp_path / "secret"), 0, 6)])
    with h5py.File(path) as file:
        assert file["x"][:].tobytes() == b"secret"
    with pytest.raises(RefusedFileError, match="outside the file"):
        read_plain(path)


@pytest.mark.parametrize("limits", [Limits(values=100), Limits(members=2), Limits(depth=1)])
def test_limits_are_limits(limits):
    assert read_plain(written(usual), FOREIGN)
    with pytest.raises(RefusedFileError):
        read_plain(written(usual), limits)


@pytest.mark.parametrize(
    "data", [b"", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(4000)], ids=repr
)
def test_bytes_that_are_no_hdf5_are_refused(data):
    with pytest.raises(RefusedFileError):
        read_plain(data)


def test_an_absent_file_is_refused_as_well(tmp_path):
    with pytest.raises(RefusedFileError):
        read_plain(tmp_path / "absent.h5")
