"""The store gives back exactly what was written, by image id, and never believes a damaged file."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from fakes import DECODING, key, spec
from hypothesis import given
from hypothesis import strategies as st

from featstore.api.cache import inventory, usage, verify
from featstore.errors import MissingFeaturesError, StoreError
from featstore.serialization import digest_file
from featstore.store.notes import BadImage
from featstore.store.store import Store, default_cache
from featstore.types import Decoding, View


def rows(ids, offset=0.0):
    """A vector that is known from its id, so that a shifted row shows."""
    return np.array([[int(i[:6], 16) + offset + d for d in range(12)] for i in ids], np.float32)


def identify(numbers):
    return [f"{n * 7919 % 2**24:06x}" + f"{n:058x}" for n in numbers]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def shard_files(store):
    return sorted(store.root.glob("features/**/*.h5"))


def test_a_store_that_does_not_exist_is_empty_and_stays_so(store):
    assert store.stored_ids(key()) == frozenset()
    assert store.feature_keys() == []
    assert not store.root.exists()


def test_rows_come_back_by_id_whatever_the_order_of_writing_and_asking(store):
    ids = identify(range(10))
    store.write(key(), ids[6:], rows(ids[6:]))
    store.write(key(), ids[:6], rows(ids[:6]))
    asked = [ids[i] for i in (9, 0, 5, 7)]
    np.testing.assert_array_equal(store.read(key(), asked), rows(asked))


@given(st.permutations(range(12)), st.integers(1, 12))
def test_rows_never_shift(tmp_path_factory, order, cut):
    store = Store(tmp_path_factory.mktemp("store"))
    ids = identify(order)
    for part in (ids[:cut], ids[cut:]):
        if part:
            store.write(key(), part, rows(part))
    assert store.stored_ids(key()) == set(ids)
    np.testing.assert_array_equal(store.read(key(), sorted(ids)), rows(sorted(ids)))


def test_an_id_asked_for_twice_is_given_twice(store):
    ids = identify([1, 2])
    store.write(key(), ids, rows(ids))
    asked = [ids[1], ids[0], ids[1]]
    np.testing.assert_array_equal(store.read(key(), asked), rows(asked))


def test_the_same_rows_written_twice_are_one_file(store):
    ids = identify(range(3))
    assert store.write(key(), ids, rows(ids)) == store.write(key(), ids, rows(ids))
    assert len(shard_files(store)) == 1


def test_a_shard_is_named_by_the_hash_of_its_bytes(store):
    ids = identify(range(3))
    path = store.write(key(), ids, rows(ids))
    assert digest_file(path) == path.stem


def test_no_temporary_is_left_behind(store):
    ids = identify(range(3))
    store.write(key(), ids, rows(ids))
    assert [p.name for p in store.root.rglob(".tmp*")] == []


OTHER_KEYS = {
    "weights": key(spec(weights="sha256:other")),
    "input size": key(spec(side=32)),
    "preprocessing": key(spec().__class__("Alpha", "random:0", 16, "rescale", 12)),
    "precision": key(spec().__class__("Alpha", "random:0", 16, "official", 12, precision="bfloat16")),
    "recipe": key(view=View("flip(h)", 1)),
    "seed": key(view=View("flip(h)", 2)),
    "decoder": key().__class__(spec(), View(), Decoding("pillow 0.0.1")),
    "value range": key().__class__(spec(), View(), Decoding("pillow 0.0.0", value_range=(0.0, 1.0))),
    "interpolation": key().__class__(spec(), View(), Decoding("pillow 0.0.0", interpolation="nearest")),
}


@pytest.mark.parametrize("other", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_whatever_changes_a_number_changes_the_address(store, other):
    ids = identify(range(3))
    store.write(key(), ids, rows(ids))
    assert store.stored_ids(other) == frozenset()
    store.write(other, ids, rows(ids, offset=0.5))
    np.testing.assert_array_equal(store.read(key(), ids), rows(ids))
    np.testing.assert_array_equal(store.read(other, ids), rows(ids, offset=0.5))
    assert set(store.feature_keys()) == {key(), other}


def test_features_that_are_not_there_are_named_with_a_remedy(store):
    ids = identify(range(3))
    store.write(key(), ids[:1], rows(ids[:1]))
    with pytest.raises(MissingFeaturesError, match=r"2 of 3 images have no Alpha features") as caught:
        store.read(key(), ids)
    assert "featstore extract" in caught.value.remedy


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
def test_one_flipped_bit_is_found_set_aside_and_counts_as_missing(store, where, caplog):
    ids = identify(range(40))
    path = store.write(key(), ids, rows(ids))
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert store.stored_ids(key()) == frozenset()
    assert "quarantine" in caplog.text
    assert not path.exists()
    (aside,) = store.root.glob("quarantine/shards/*.h5")
    assert aside.read_bytes() == data
    assert "not those of its name" in json.loads(aside.with_suffix(".json").read_text())["cause"]
    store.write(key(), ids, rows(ids))
    np.testing.assert_array_equal(store.read(key(), ids), rows(ids))


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_shard_counts_as_missing(store, cut):
    ids = identify(range(4))
    path = store.write(key(), ids, rows(ids))
    path.write_bytes(path.read_bytes()[:cut])
    assert store.stored_ids(key()) == frozenset()


def test_a_shard_moved_to_another_address_is_not_believed(store):
    ids = identify(range(4))
    elsewhere = key(view=View("flip(h)", 1))
    good = store.write(key(), ids, rows(ids))
    other = store.write(elsewhere, ids[:1], rows(ids[:1]))
    good.rename(other.parent / good.name)
    assert store.stored_ids(elsewhere) == {ids[0]}


def test_the_table_of_bad_images_is_kept_per_decoding(store):
    bad = BadImage("ab" * 32, "truncated", "8 bytes are missing")
    store.record_bad_image(DECODING, bad)
    store.record_bad_image(DECODING, bad)
    assert store.bad_images(DECODING) == {bad.id: bad}
    assert store.bad_images(Decoding("pillow 99")) == {}


def test_a_write_that_fails_says_where_how_much_and_what_to_do(store, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    ids = identify(range(4))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"Cannot write [\d,]+ bytes to .*No space left") as caught:
        store.write(key(), ids, rows(ids))
    assert caught.value.exit_code == 4
    assert "Free at least" in caught.value.remedy
    monkeypatch.undo()
    assert shard_files(store) == []
    assert list(store.root.rglob(".tmp*")) == []


def test_a_store_that_is_deleted_between_two_writes_does_not_go_on_as_if_nothing_had_been(store):
    ids = identify(range(4))
    store.write(key(), ids[:2], rows(ids[:2]))
    shutil.rmtree(store.root)
    with pytest.raises(StoreError, match="was deleted while features were written") as caught:
        store.write(key(), ids[2:], rows(ids[2:]))
    assert caught.value.exit_code == 4
    assert Store(store.root).write(key(), ids, rows(ids)).exists()


def test_the_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATSTORE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("FEATSTORE_CACHE")
    assert str(default_cache()) == "cache"


def test_inventory_usage_and_verify_tell_what_is_there(store):
    ids = identify(range(5))
    store.write(key(), ids[:3], rows(ids[:3]))
    store.write(key(), ids[3:], rows(ids[3:]))
    store.write(key(view=View("flip(h)", 2)), ids, rows(ids))
    entries = inventory(store.root)
    assert [(e.backbone, e.recipe, e.seed, e.images, e.shards) for e in entries] == [
        ("Alpha", "flip(h)", 2, 5, 1),
        ("Alpha", "identity", 0, 5, 2),
    ]
    assert sum(usage(store.root).values()) == sum(p.stat().st_size for p in shard_files(store))
    assert verify(store.root).rows == 10
    victim = shard_files(store)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    result = verify(store.root)
    assert [path for path, _ in result.bad] == [str(victim)]
    assert victim.exists(), "verify changes nothing"
