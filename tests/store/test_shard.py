"""A shard is whole, content-named bytes; anything else is refused."""

import io
import sys

import h5py
import numpy as np
import pytest
from fakes import key, spec
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import ShardCorruptError
from featstore.serialization import canonical_json
from featstore.store import shard
from featstore.types import BackboneSpec, Computation, Decoding, FeatureKey, View

IDS = [f"{i:064x}" for i in (1, 2**255, 2**256 - 256)]
ROWS = np.arange(36, dtype=np.float32).reshape(3, 12)
COMPUTATION = Computation(16, "jax", "H100", "jax 1.0, keras 3.0")


def test_rows_come_back_as_they_went_in():
    back = shard.decode(shard.encode(key(), IDS, ROWS))
    assert (back.key, list(back.ids)) == (key(), IDS)
    np.testing.assert_array_equal(back.features, ROWS)


def test_an_id_that_ends_in_zero_bytes_keeps_them():
    """HDF5 and numpy strings drop trailing zeros: 1 of 256 images would silently lose its row."""
    zero_tail = "ab" * 31 + "00"
    assert shard.decode(shard.encode(key(), [zero_tail], ROWS[:1])).ids == (zero_tail,)


def test_equal_content_gives_equal_bytes():
    assert shard.encode(key(), IDS, ROWS) == shard.encode(key(), list(IDS), ROWS.copy())


def plain_hdf5(of, ids, rows, how):
    """The file as h5py alone writes it."""
    file_bytes, packed = io.BytesIO(), np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, 32)
    with h5py.File(file_bytes, "w") as file:
        places = [
            file.create_dataset(name, values.shape, values.dtype, track_times=False)
            for name, values in (("ids", packed), ("features", rows))
        ]
        told = {"format": 1, "key": canonical_json(of.to_json()), "rows": len(ids), **how}
        for name, value in {**told, "h5py": h5py.__version__, "numpy": np.__version__}.items():
            file.attrs[name] = value
        for place, values in zip(places, (packed, rows), strict=True):
            place.id.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return file_bytes.getvalue()


@pytest.mark.parametrize("count", [0, 1, 3, 257])
@pytest.mark.parametrize("batch", [None, 1, np.int32(1), np.int64(1)])
def test_bytes_are_those_that_hdf5_writes_however_many_shards_came_before(count, batch):
    how = {} if batch is None else {"batch_size": batch, "libraries": "x" * 3000}
    for first in (0.0, 1.0):
        ids = [f"{i + int(first):064x}" for i in range(count)]
        rows = np.arange(12 * count, dtype=np.float32).reshape(count, 12) + np.float32(first)
        assert shard.encode(key(), ids, rows, Computation(**how)) == plain_hdf5(key(), ids, rows, how)


def test_other_content_gives_other_bytes():
    reference = shard.encode(key(), IDS, ROWS)
    assert shard.encode(key(view=View("flip(h)", 1)), IDS, ROWS) != reference
    assert shard.encode(key(), IDS[::-1], ROWS) != reference


def test_how_rows_were_computed_is_recorded_and_moves_neither_rows_nor_key():
    old, new = (shard.decode(shard.encode(key(), IDS, ROWS, how)) for how in (Computation(), COMPUTATION))
    assert (old.computation, new.computation) == (Computation(), COMPUTATION)
    assert (old.key, old.ids) == (new.key, new.ids)
    np.testing.assert_array_equal(old.features, new.features)
    assert shard.encode(key(), IDS, ROWS, COMPUTATION) == shard.encode(
        key(), list(IDS), ROWS.copy(), COMPUTATION
    )


names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
finite = st.floats(-1e6, 1e6, width=32)


@given(name=names, recipe=names, seed=st.integers(0, 10**6), low=finite)
def test_every_key_survives_the_trip(name, recipe, seed, low):
    decoding = Decoding("pillow 9", value_range=(low, low + 1.0))
    address = FeatureKey(BackboneSpec(name, "sha256:0", 8, "rescale", 12), View(recipe, seed), decoding)
    assert shard.decode(shard.encode(address, IDS, ROWS)).key == address


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (IDS[:2], ROWS),
        (IDS, ROWS[:, :11]),
        (IDS, ROWS.astype(np.float64)),
        ([IDS[0]] * 3, ROWS),
        (IDS, np.where(ROWS == 5, np.nan, ROWS)),
        (IDS, np.where(ROWS == 5, np.inf, ROWS)),
    ],
    ids=["too few ids", "other dimension", "float64", "an id twice", "NaN", "infinity"],
)
def test_rows_that_do_not_fit_are_refused(ids, rows):
    with pytest.raises(ValueError, match=r"rows are|twice|finite"):
        shard.encode(key(), ids, rows)


def tampered(change) -> bytes:
    buffer = io.BytesIO(shard.encode(key(), IDS, ROWS))
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def swap_features(file, **options):
    del file["features"]
    file.create_dataset("features", **options)


def external(file):
    swap_features(file, shape=(3, 12), dtype="f4", external=[("/etc/passwd", 0, 144)])


def external_link(file):
    del file["features"]
    file["features"] = h5py.ExternalLink("/etc/other.h5", "features")


def soft_link(file):
    file.move("features", "elsewhere")
    file["features"] = h5py.SoftLink("/elsewhere")


def virtual(file):
    del file["features"]
    layout = h5py.VirtualLayout((3, 12), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(3, 12))
    file.create_virtual_dataset("features", layout)


CHANGES = {
    "external storage": external,
    "external link": external_link,
    "soft link": soft_link,
    "virtual data": virtual,
    "a shape bomb": lambda f: swap_features(f, shape=(2**40, 4), dtype="f4", chunks=(1024, 4)),
    "a compressed data set": lambda f: swap_features(f, data=ROWS, compression="gzip"),
    "another type": lambda f: swap_features(f, data=ROWS.astype("f8")),
    "rows cut off": lambda f: swap_features(f, data=ROWS[:2]),
    "a group in place of data": lambda f: (f.pop("features"), f.create_group("features")),
    "one more member": lambda f: f.create_dataset("more", data=1),
    "another format": lambda f: f.attrs.update(format=99),
    "no key": lambda f: f.attrs.pop("key"),
    "a key that is no JSON": lambda f: f.attrs.update(key="{"),
    "a key with other fields": lambda f: f.attrs.update(key="{}"),
    "a key of another dimension": lambda f: f.attrs.update(
        key=canonical_json(key(spec(dimension=13)).to_json())
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_foreign_file_is_refused_in_one_line(change):
    with pytest.raises(ShardCorruptError) as caught:
        shard.decode(tampered(change))
    assert "\n" not in caught.value.cause
    assert "extract" in caught.value.remedy


@pytest.mark.parametrize("data", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_bytes_that_are_no_hdf5_are_refused(data):
    with pytest.raises(ShardCorruptError):
        shard.decode(data)


def test_bytes_do_not_depend_on_who_else_holds_the_objects_of_h5py():
    """A dask worker's profiler kept frames alive for a moment, and one shard in twenty had another name."""
    held: list[object] = []
    plain = shard.encode(key(), IDS, ROWS)
    shard._frame.cache_clear()  # or HDF5 would not write again
    sys.setprofile(lambda frame, _event, result: held.append((frame, result)))
    try:
        watched = shard.encode(key(), IDS, ROWS)
    finally:
        sys.setprofile(None)
    assert watched == plain
