"""What is read is what was hashed: views of one piece of bytes, placed by id, several shards at a time."""

import io

import h5py
import numpy as np
import pytest
from fakes import key
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.errors import MissingFeaturesError, ShardCorruptError
from featstore.serialization import digest, digest_bytes
from featstore.store import hdf5_guard, shard
from featstore.store.hdf5_guard import read_plain, view_plain
from featstore.store.store import Store

IDS = [digest(number) for number in range(40)]
WIDTH = key().backbone.dimension


def rows(ids):
    return np.array([[IDS.index(i) + d / 100 for d in range(WIDTH)] for i in ids], np.float32)


@pytest.fixture(autouse=True)
def no_frames(monkeypatch):
    monkeypatch.setattr(hdf5_guard, "_frames", {})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Shards that overlap, in another order than anybody asks for."""
    store = Store(tmp_path_factory.mktemp("cache"))
    shuffled = np.random.default_rng(0).permutation(40)
    for chosen in (range(10), shuffled[:13], shuffled[13:20], range(30, 9, -1), shuffled[20:]):
        ids = [IDS[at] for at in chosen]
        store.write(key(), ids, rows(ids))
    return store


@settings(max_examples=25)
@given(st.lists(st.sampled_from(IDS), max_size=60))
def test_rows_come_in_the_order_asked_for_however_often(store, ids):
    np.testing.assert_array_equal(store.read(key(), ids), rows(ids).reshape(-1, WIDTH))


def test_rows_fill_a_part_of_a_wider_matrix(store):
    out = np.full((40, WIDTH + 2), -1, np.float32)
    store.read_into(key(), IDS, out[:, 1:-1])
    np.testing.assert_array_equal(out[:, 1:-1], rows(IDS))
    assert (out[:, [0, -1]] == -1).all()


def test_one_image_that_is_not_there_is_counted(store):
    with pytest.raises(MissingFeaturesError, match="2 of 42 images have no"):
        store.read(key(), [*IDS, digest("absent"), digest("absent")])


def test_no_byte_of_the_values_is_read_by_hdf5_nor_copied():
    data = shard.encode(key(), IDS, rows(IDS))
    found = view_plain(data, shard.LIMITS).arrays
    for values in found.values():
        assert np.shares_memory(values, np.frombuffer(data, np.uint8))
        assert not values.flags.writeable
    assert len(hdf5_guard._frames) == 1


def test_a_file_of_known_layout_is_read_as_hdf5_reads_it():
    first, second = (shard.encode(key(), ids, rows(ids)) for ids in (IDS[:20], IDS[20:]))
    view_plain(first, shard.LIMITS)
    seen, told = view_plain(second, shard.LIMITS), read_plain(second, shard.LIMITS)
    assert len(hdf5_guard._frames) == 1
    assert seen.attributes == told.attributes
    for name, values in told.arrays.items():
        np.testing.assert_array_equal(seen.arrays[name], values)


@settings(max_examples=30)
@given(st.data())
def test_a_changed_byte_around_the_values_is_looked_at_anew(data):
    good = shard.encode(key(), IDS[:4], rows(IDS[:4]))
    view_plain(good, shard.LIMITS)
    at = data.draw(st.integers(0, good.index(bytes.fromhex(IDS[0])) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))

    def outcome(read):
        try:
            found = read(bytes(bad), shard.LIMITS)
        except Exception as error:  # noqa: BLE001  # which one is what is compared
            return type(error), str(error).split("in memory")[0]
        return found.attributes, {name: values.tobytes() for name, values in found.arrays.items()}

    assert outcome(view_plain) == outcome(read_plain)


def test_values_that_hdf5_looks_at_make_no_known_layout():
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["ids"] = np.zeros((256, 32), np.uint8)
        file.create_dataset("features", data=np.zeros((256, 32), np.float32))
        file.attrs["key"] = "k" * 500  # the values lie right behind their header, and HDF5 reads beyond that
    view_plain(data.getvalue(), shard.LIMITS)
    assert not hdf5_guard._frames


def test_chunks_of_older_shards_are_read_by_hdf5():
    data = shard.encode(key(), IDS, rows(IDS))
    with h5py.File.in_memory(data) as file:
        del file["features"]
        file.create_dataset("features", data=rows(IDS), chunks=(7, WIDTH), fletcher32=True)
        file.flush()
        older = bytes(file.id.get_file_image())
    np.testing.assert_array_equal(shard.decode(older).features, rows(IDS))
    flipped = bytearray(older)
    flipped[older.index(rows(IDS)[:7].tobytes())] ^= 1
    with pytest.raises(ShardCorruptError):
        shard.decode(bytes(flipped))


def test_equal_content_has_equal_bytes_and_a_file_ends_with_its_values():
    data = shard.encode(key(), IDS, rows(IDS))
    assert digest_bytes(data) == digest_bytes(shard.encode(key(), list(IDS), rows(IDS).copy()))
    assert data.endswith(rows(IDS).tobytes())
