"""HDF5 from a stranger is read only if it refers to nothing but itself and holds what it announces."""

import io
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featstore.errors import RefusedFileError
from featstore.store.hdf5_guard import FOREIGN, Limits, check_weights, read_datasets, read_plain

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


def checked(data: bytes) -> bytes:
    """Data with its Fletcher-32 checksum, as HDF5 adds it."""
    low = high = 0
    for at in range(0, len(data), 2):
        low = (low + int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")) % 65535
        high = (high + low) % 65535
    return data + ((high << 16) | low).to_bytes(4, "little")


def stored(chunk: bytes, mask: int = 0, shape=(8, 8), chunks=(8, 8), dtype="f4", **filters):
    """A data set whose first chunk is these very bytes."""

    def fill(file):
        x = file.create_dataset("x", shape, dtype, chunks=chunks, **filters)
        x.id.write_direct_chunk((0,) * len(shape), chunk, filter_mask=mask)
        file.create_dataset("rest", data=np.zeros(5000, "u1"))  # that the file is as long as it announces

    return fill


def filtered(*filters, chunk=b"abc", shape=(8, 8)):
    """A data set with filters in any order, as only the low-level interface allows them."""

    def fill(file):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk(shape)
        for name, *options in filters:
            getattr(plan, f"set_{name}")(*options)
        space = h5py.h5s.create_simple(shape)
        x = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plan)
        if isinstance(chunk, bytes):
            x.write_direct_chunk((0,) * len(shape), chunk)
        else:
            x.write(h5py.h5s.ALL, h5py.h5s.ALL, chunk)
        file.create_dataset("rest", data=np.zeros(5000, "u1"))

    return fill


def slashed(file):
    """A name with a slash, which HDF5 follows as a path, through whatever link stands there."""
    file["a_b"] = VALUES


def zeros(file):
    x = file.create_dataset("x", (80 << 20,), "u1", chunks=(8 << 20,), compression=9)
    packed = zlib.compress(bytes(8 << 20))
    for start in range(0, 80 << 20, 8 << 20):
        x.id.write_direct_chunk((start,), packed)


def roomy(file):
    x = file.create_dataset("x", (5, 1), "f4", chunks=(1, 1 << 22), maxshape=(5, None), compression=9)
    packed = zlib.compress(bytes(16 << 20))
    for row in range(5):
        x.id.write_direct_chunk((row, 0), packed)


def odd_integer(file):
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(20)
    x = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((3,)))
    x.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3, dtype="i4"))


FULL = bytes(256)
LYING = {
    "no filter, short": (stored(FULL[:-1]), "255 bytes, and must have 256"),
    "no filter, one byte": (stored(b"a"), "1 bytes, and must have 256"),
    "no filter, long": (stored(FULL + b"a"), "257 bytes, and must have 256"),
    "shuffle, short": (stored(FULL[:64], shuffle=True), "64 bytes, and must have 256"),
    "checksum alone": (stored(checked(b""), fletcher32=True), "4 bytes, and must have 260"),
    "half a checksum": (stored(b"ab", fletcher32=True), "2 bytes, and must have 260"),
    "checksum, short": (stored(checked(FULL[:100]), fletcher32=True), "104 bytes, and must have 260"),
    "checksum and shuffle": (stored(checked(FULL[:100]), fletcher32=True, shuffle=True), "104 bytes, and"),
    "checksum skipped, short": (stored(FULL[:100], mask=1, fletcher32=True), "skipped a filter"),
    "checksum skipped": (stored(FULL, mask=1, fletcher32=True), "skipped a filter"),
    "shuffle skipped": (stored(FULL, mask=1, shuffle=True), "skipped a filter"),
    "a mask without filters": (stored(FULL, mask=1 << 31), "skipped a filter"),
    "packed, short": (stored(zlib.compress(FULL[:100]), compression="gzip"), "does not inflate to"),
    "packed, cut": (stored(zlib.compress(FULL)[:-5], compression="gzip"), "does not inflate"),
    "packed, long": (stored(zlib.compress(FULL + b"a"), compression="gzip"), "does not inflate to"),
    "packed with something behind": (stored(zlib.compress(FULL) + b"abc", compression="gzip"), "does not inflate to"),
    "packed, no room for the checksum": (stored(b"ab", compression="gzip", fletcher32=True), "does not inflate"),
    "packed, nothing": (stored(b"a", compression="gzip"), "does not inflate"),
    "gzip twice": (filtered(("deflate", 9), ("deflate", 9)), "an order that no program writes (gzip, gzip)"),
    "shuffle twice": (filtered(("shuffle",), ("shuffle",), chunk=FULL), "an order that no program writes"),
    "checksum twice": (
        filtered(("fletcher32",), ("fletcher32",), chunk=checked(checked(FULL))), "an order that no program writes"
    ),
    "packed before it was shuffled": (filtered(("deflate", 9), ("shuffle",)), "an order that no program writes"),
    "checksum in between": (filtered(("shuffle",), ("fletcher32",), ("deflate", 9)), "an order that no program"),
    "chunks far larger than what is in them": (roomy, "more than it may hold"),
    "zeros packed to nothing": (zeros, "more than it may hold"),
    "numbers of 20 bits": (odd_integer, "neither numbers nor text"),
    "a link behind a name": (slashed, "cannot be the name of a member"),
    "an attribute that refers": (
        lambda f: f.attrs.create("a", f.create_group("g").ref, dtype=h5py.ref_dtype), "neither a number nor text"
    ),
    "an attribute that is a record": (lambda f: f.attrs.create("a", np.zeros((), "f4,i4")), "neither a number nor"),
}  # fmt: skip


def forged(fill) -> bytes:
    return written(fill).replace(b"a_b\0", b"a/b\0")  # a name that no interface would let anybody write


@pytest.mark.parametrize(("fill", "why"), LYING.values(), ids=LYING)
def test_what_is_stored_must_be_what_is_announced(fill, why, tmp_path, tried):
    path = tmp_path / "x.h5"
    path.write_bytes(forged(fill))
    for source in (path, path.read_bytes()):
        with pytest.raises(RefusedFileError) as caught:
            read_plain(source)
        assert why in caught.value.cause
    with pytest.raises(RefusedFileError) as caught:
        check_weights(path)
    assert why in caught.value.cause
    tried("HDF5 files that store something else than they announce")


@pytest.mark.parametrize("name", [name for name in LYING if "attribute" not in name and "link" not in name])
def test_a_data_set_that_is_asked_for_by_name_is_looked_at_alike(name, tmp_path):
    fill, why = LYING[name]
    (tmp_path / "x.h5").write_bytes(forged(fill))
    with pytest.raises(RefusedFileError) as caught:
        read_datasets(tmp_path / "x.h5", ["x"])
    assert why in caught.value.cause


@given(
    st.sampled_from(["f4", ">f8", "u1", "i2", "S3"]),
    arrays.array_shapes(min_dims=1, max_dims=3, max_side=9),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "earliest", "latest"]),
    st.booleans(),
)
@settings(max_examples=50)
def test_whatever_h5py_writes_is_read(dtype, shape, side, pack, shuffle, check, version, growing):
    """No filter, layout, chunk or index of chunks that honest programs use is refused."""
    values = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    options = {"compression": "gzip" if pack else None, "shuffle": shuffle, "fletcher32": check}
    options |= {"chunks": (side,) * len(shape), "maxshape": (None,) * len(shape) if growing else None}
    if not growing:
        options["chunks"] = tuple(min(side, s) for s in shape)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=version) as file:
        file.create_dataset("x", data=values, **options)
        file.attrs["who"] = "me"
    np.testing.assert_array_equal(read_plain(buffer.getvalue()).arrays["x"], values)


def test_the_order_of_pytables_is_read_as_well():
    values = np.arange(64, dtype="f4").reshape(8, 8)
    fill = filtered(("fletcher32",), ("shuffle",), ("deflate", 9), chunk=values)
    np.testing.assert_array_equal(read_plain(written(fill)).arrays["x"], values)


def test_bytes_that_are_the_values_of_two_places_are_refused(tmp_path):
    """A chunk index may point at one chunk again and again: a small file would be read as a large one."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", data=np.arange(2048, dtype="f8"), chunks=(1024,))
        first, second = (x.id.get_chunk_info(number).byte_offset for number in (0, 1))
    data = path.read_bytes()
    assert data.count(second.to_bytes(8, "little")) == 1
    with pytest.raises(RefusedFileError, match="values of several places"):
        read_plain(data.replace(second.to_bytes(8, "little"), first.to_bytes(8, "little")))


@pytest.mark.parametrize("layout", ["compact", "contiguous"])
def test_a_data_set_in_one_piece_is_as_long_as_it_announces(layout):
    """The size of the space is raised in the file itself: HDF5 is asked for more than is there."""

    def fill(file):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(getattr(h5py.h5d, layout.upper()))
        space = h5py.h5s.create_simple((41,))
        x = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plan)
        x.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(41, dtype="f4"))
        file.create_dataset("rest", data=np.zeros(5000, "u1"))

    data = written(fill)
    assert read_plain(data).arrays["x"].shape == (41,)
    longer = data.replace((41).to_bytes(8, "little"), (43).to_bytes(8, "little"))
    assert longer != data
    with pytest.raises(RefusedFileError):
        read_plain(longer)


def test_weights_as_keras_writes_them_pass(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"conv", b"dense"])
        file.attrs["keras_version"] = b"2.1.1"
        group = file.create_group("conv")
        group.attrs["weight_names"] = ["conv/kernel:0"]
        group.create_group("conv").create_dataset("kernel:0", data=VALUES)
        file.create_group("empty").attrs["weight_names"] = np.array([])
        halves = file.create_dataset("layers/dense/vars/0", data=np.zeros(3, "V2"))
        halves.attrs["dtype"] = "bfloat16"
    check_weights(path)


def test_weights_with_a_link_at_any_depth_are_refused(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("/".join("abcdefghij"))["x"] = h5py.SoftLink("/a")
    with pytest.raises(RefusedFileError, match="somewhere else"):
        check_weights(path)
