"""The index only saves time: delete it, spoil it, or change a shard behind its back, and nothing else changes."""

import os
import random
from dataclasses import replace

import numpy as np
import pytest
from fakes import key
from hypothesis import given
from hypothesis import strategies as st

from featstore.errors import MissingFeaturesError
from featstore.serialization import digest
from featstore.store import paths as layout
from featstore.store import shard
from featstore.store import store as index
from featstore.store.store import Index, IndexEntry, Store
from featstore.store.store import decode_entries as decode
from featstore.store.store import encode_entries as encode
from featstore.types import View

KEYS = [key(view=View("flip(h)", seed)) for seed in range(1, 5)]
IDS = [digest(number) for number in range(12)]

hashes = st.binary(min_size=32, max_size=32)
id_lists = st.lists(hashes, max_size=4).map(b"".join)
entries = st.builds(IndexEntry, hashes, hashes, st.integers(0, 2**62), st.integers(-(2**62), 2**62), id_lists)


def rows(ids):
    return np.array([[int(i[:4], 16)] * 12 for i in ids], np.float32)


@pytest.fixture
def opened(monkeypatch):
    """Names of the shards that are opened."""
    seen = []
    read = shard.read
    monkeypatch.setattr(shard, "read", lambda path, memory=None: seen.append(path.name) or read(path, memory))
    return seen


@pytest.fixture
def root(tmp_path):
    """A store of four keys with three shards each, written long ago, and its index."""
    store = Store(tmp_path / "cache")
    for number, wanted in enumerate(KEYS):
        for start in range(0, 12 - number, 4):
            ids = IDS[start : min(start + 4, 12 - number)]
            store.write(wanted, ids, rows(ids))
    for path in store.root.glob("features/**/*.h5"):
        os.utime(path, ns=(10**18, 10**18))
    Store(store.root).stored(KEYS)
    for path in segments(store.root)[1:]:
        path.unlink()
    return store.root


EXPECTED = {wanted: set(IDS[: 12 - number]) for number, wanted in enumerate(KEYS)}


def segments(root):
    return sorted((root / "index").glob("*.ids"), key=lambda path: path.stat().st_mtime_ns)


def shards(root):
    return sorted(root.glob("features/**/*.h5"))


def require_truth(root):
    assert Store(root).stored(KEYS) == EXPECTED


@given(st.lists(entries, max_size=6))
def test_a_segment_gives_back_what_was_written(given_entries):
    assert decode(encode(given_entries)) == given_entries


@given(st.binary(max_size=300))
def test_no_bytes_are_believed_that_are_no_segment(data):
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        decode(data)


def test_a_plan_from_the_index_opens_no_shard(root, opened):
    Store(root).stored(KEYS)
    opened.clear()
    require_truth(root)
    assert opened == []


def test_what_was_written_is_in_the_index_without_being_read_back(tmp_path, opened):
    store = Store(tmp_path / "cache")
    store.write(KEYS[0], IDS, rows(IDS))
    (shard,) = shards(store.root)
    os.utime(shard, ns=(10**18, 10**18))  # not as young as its segment
    store = Store(tmp_path / "cache")
    store.write(KEYS[0], IDS, rows(IDS))
    store.flush()
    assert Store(store.root).stored_ids(KEYS[0]) == set(IDS)
    assert opened == []


def test_a_shard_no_older_than_its_segment_is_opened_again(tmp_path, opened):
    store = Store(tmp_path / "cache")
    path = store.write(KEYS[0], IDS, rows(IDS))
    store.flush()
    (segment,) = segments(store.root)
    os.utime(segment, ns=(path.stat().st_mtime_ns,) * 2)
    assert Store(store.root).stored_ids(KEYS[0]) == set(IDS)
    assert opened == [path.name]


def _delete(paths):
    for path in paths:
        path.unlink()


def _truncate(paths):
    for path in paths:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(paths):
    for path in paths:
        path.write_bytes(random.Random(0).randbytes(5000))


def _flip(paths):
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def _swap_entries(paths):
    """Two entries with different lists of ids trade them, under the old name."""
    for path in paths:
        entries = decode(path.read_bytes())
        at = next(n for n, entry in enumerate(entries) if entry.ids != entries[0].ids)
        ids = entries[0].ids, entries[at].ids
        entries[at], entries[0] = replace(entries[at], ids=ids[0]), replace(entries[0], ids=ids[1])
        path.write_bytes(encode(entries))


def _foreign(paths):
    for path in paths:
        path.with_name(f"{'0' * 64}.ids").write_bytes(b'{"format":"someone else"}\n')
        path.unlink()


def _of_another_format(paths):
    for path in paths:
        data = path.read_bytes().replace(b"featstore index 1", b"featstore index 9")
        path.unlink()
        index.commit_named_by_hash(path.parents[1], path.parent, data, ".ids")


def _of_another_cache(paths):
    """Sizes and times of files that are not these."""
    for path in paths:
        moved = [
            IndexEntry(e.key, e.shard, e.size + 1, e.mtime_ns - 5, b"") for e in decode(path.read_bytes())
        ]
        path.unlink()
        index.commit_named_by_hash(path.parents[1], path.parent, encode(moved), ".ids")


@pytest.mark.parametrize(
    "spoil",
    [_delete, _truncate, _garbage, _flip, _swap_entries, _foreign, _of_another_format, _of_another_cache],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_a_spoilt_index_is_rebuilt_in_silence(root, opened, spoil, caplog):
    Store(root).stored(KEYS)
    opened.clear()
    spoil(segments(root))
    require_truth(root)
    assert sorted(opened) == sorted(path.name for path in shards(root))
    assert caplog.messages == []
    opened.clear()
    require_truth(root)
    assert opened == [], "it is rebuilt"


def test_a_shard_that_changes_behind_the_index_is_opened_and_set_aside(root, opened):
    victim = shards(root)[0]
    victim.write_bytes(victim.read_bytes()[::-1])
    found = Store(root).stored(KEYS)
    assert opened == [victim.name]
    assert sum(map(len, found.values())) == sum(map(len, EXPECTED.values())) - 4
    assert not victim.exists()


def test_a_shard_that_vanishes_or_arrives_behind_the_index_is_noticed(root, opened):
    Store(root).stored(KEYS)
    victim = shards(root)[0]
    aside = victim.rename(root / "aside")
    short = Store(root).stored(KEYS)
    assert sum(map(len, short.values())) == sum(map(len, EXPECTED.values())) - 4
    aside.rename(victim)
    opened.clear()
    require_truth(root)


def test_another_shard_under_the_same_name_is_not_believed(root):
    """A good shard copied over another: same folder, size and all, but not its time."""
    one, other = shards(root)[:2]
    other.write_bytes(one.read_bytes())
    assert sum(map(len, Store(root).stored(KEYS).values())) == sum(map(len, EXPECTED.values())) - 4


def test_reading_never_trusts_the_index(root):
    victim = shards(root)[0]
    stat = victim.stat()
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    require_truth(root)  # the index cannot see such damage; reading does
    damaged = next(k for k in KEYS if layout.shard_folder(root, k) == victim.parent)
    with pytest.raises(MissingFeaturesError):
        Store(root).read(damaged, sorted(EXPECTED[damaged]))
    assert sum(map(len, Store(root).stored(KEYS).values())) == sum(map(len, EXPECTED.values())) - 4


def test_an_index_that_promised_what_is_not_there_is_forgotten(root):
    (segment,) = segments(root)
    lies = [
        IndexEntry(e.key, e.shard, e.size, e.mtime_ns, bytes.fromhex(digest(99))) if e.ids else e
        for e in decode(segment.read_bytes())
    ]
    segment.unlink()
    index.commit_named_by_hash(root, root / "index", encode(lies), ".ids")
    assert Store(root).stored_ids(KEYS[0]) == {digest(99)}
    with pytest.raises(MissingFeaturesError):
        Store(root).read(KEYS[0], [digest(99)])
    require_truth(root)


def test_many_segments_are_merged_into_one_and_nothing_is_lost(root, opened, monkeypatch):
    monkeypatch.setattr(index, "SEGMENTS", 3)
    (whole,) = segments(root)
    found = decode(whole.read_bytes())
    whole.unlink()
    for entry in found:
        index.commit_named_by_hash(root, root / "index", encode([entry]), ".ids")
    assert len(segments(root)) == len(found) > 3
    require_truth(root)
    require_truth(root)
    assert len(segments(root)) == 1
    assert opened.count(shards(root)[0].name) <= 2


def test_a_folder_that_cannot_be_written_costs_only_time(root, monkeypatch):
    def refuse(*_):
        raise index.StoreError("Cannot write.", "Check the disk.")

    _delete(segments(root))
    monkeypatch.setattr(index, "commit_named_by_hash", refuse)
    require_truth(root)
    assert segments(root) == []


def test_shards_of_the_same_images_share_one_list_of_ids():
    ids = b"".join(bytes.fromhex(i) for i in IDS)
    one = [IndexEntry(bytes(32), bytes([n]) * 32, 1, 1, ids) for n in range(70)]
    assert len(encode(one)) < 70 * 90 + len(ids) + 100


def test_a_store_without_shards_writes_no_index(tmp_path):
    Store(tmp_path / "cache").stored(KEYS)
    assert not (tmp_path / "cache").exists()


def test_entries_wait_in_memory_until_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "PENDING", 3)
    new = Index(tmp_path / "index")
    for number in range(7):
        new.add(IndexEntry(bytes(32), bytes([number]) * 32, 1, 1, b""))
    assert len(segments(tmp_path)) == 2
    new.flush()
    assert len(Index(tmp_path / "index").entries(bytes(32))) == 7
