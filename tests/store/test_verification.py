"""Verify looks at everything and changes nothing; repair loses nothing, and says what is to be computed again."""

import json
import shutil

import numpy as np
import pytest
from fakes import DECODING, key, spec

from featstore.fingerprint import digest, digest_bytes
from featstore.store import layout, shard
from featstore.store.quarantine import BadImage
from featstore.store.repair import Lost
from featstore.store.store import Store
from featstore.store.verification import verify
from featstore.types import View

IDS = [digest(number) for number in range(12)]
VIEW = View("flip(h)", 2)


def rows(ids):
    return np.array([[int(i[:4], 16) + d for d in range(12)] for i in ids], np.float32)


@pytest.fixture
def store(tmp_path):
    """Three shards of the identity view, one of another, a bad image, an index."""
    store = Store(tmp_path / "cache")
    for start in (0, 4, 8):
        store.write(key(), IDS[start : start + 4], rows(IDS[start : start + 4]))
    store.write(key(view=VIEW), IDS[:6], rows(IDS[:6]))
    store.record_bad_image(DECODING, BadImage("ab" * 32, "truncated", "8 bytes are missing"))
    store.flush()
    return store


def shards(store, wanted):
    return sorted(layout.shard_folder(store.root, wanted).glob("*.h5"))


def everything(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def write_as_shard(folder, data):
    """A hostile file under the right name."""
    path = folder / f"{digest_bytes(data)}.h5"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("fast", [False, True])
def test_a_whole_store_is_whole(store, fast):
    before = everything(store.root)
    found = verify(store.root, fast=fast)
    assert (found.shards, found.rows) == (4, None if fast else 18)
    assert (found.bad, found.strangers, found.temporaries, found.repair) == ((), (), (), None)
    assert everything(store.root) == before


def test_a_flipped_bit_is_found_by_the_full_look_and_a_missing_end_by_the_fast_one(store):
    rotten, short, *_ = shards(store, key())
    flip(rotten, at=3000)
    short.write_bytes(short.read_bytes()[:-1])
    assert {path for path, _ in verify(store.root).bad} == {str(rotten), str(short)}
    ((path, cause),) = verify(store.root, fast=True).bad
    assert (path, "its header says" in cause) == (str(short), True)
    assert rotten.exists(), "verify changes nothing"


def test_a_shard_that_keeps_its_name_but_not_its_promises_is_found(store, monkeypatch):
    folder = layout.shard_folder(store.root, key())
    good = shards(store, key())[0].read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "isfinite", lambda values: np.ones_like(values, bool))
        nan = shard.encode(key(), IDS[:1], np.full((1, 12), np.nan, np.float32))
    bad = {
        write_as_shard(folder, b"not HDF5"): "The HDF5 file is refused",
        write_as_shard(folder, good[:-100]): "",
        write_as_shard(folder, nan): "not finite",
        write_as_shard(folder, shard.encode(key(view=VIEW), IDS[:1], rows(IDS[:1]))): "folder of another key",
        write_as_shard(
            folder, shard.encode(key(spec("Beta")), IDS[:1], rows(IDS[:1]))
        ): "folder of another key",
    }
    found = dict(verify(store.root, threads=2).bad)
    assert set(found) == {str(path) for path in bad}
    for path, words in bad.items():
        assert words in found[str(path)]


def test_what_lies_beside_the_shards_is_looked_at_too(store):
    (segment,) = store.root.glob("index/*.ids")
    (table,) = store.root.glob("quarantine/images/*/*.json")
    page = layout.backbone_folder(store.root, spec()) / "backbone.json"
    for path in (segment, table, page):
        path.write_bytes(path.read_bytes()[:-3])
    assert {path for path, _ in verify(store.root, fast=True).bad} == {str(segment), str(table), str(page)}


def test_files_that_featstore_did_not_put_there_are_named_and_are_no_damage(store, tmp_path):
    folder = layout.shard_folder(store.root, key())
    mine = [
        store.root / "notes.txt",
        folder / "results.csv",
        store.root / "index" / "old.ids",
        folder / "link",
    ]
    for path in mine[:3]:
        path.write_text("mine")
    mine[3].symlink_to(tmp_path)
    left = folder / ".tmp-0123456789abcdef"
    left.write_bytes(b"half")
    found = verify(store.root)
    assert found.bad == ()
    assert set(found.strangers) == set(map(str, mine))
    assert found.temporaries == (str(left),)


def test_repair_sets_bad_shards_aside_and_says_how_many_vectors_of_what_are_gone(store):
    first, second, _ = shards(store, key())
    (other,) = shards(store, key(view=VIEW))
    for path in (first, second, other):
        flip(path)
    damaged = {path.read_bytes() for path in (first, second, other)}
    found = verify(store.root, repair=True)
    assert len(found.bad) == 3
    assert found.repair.lost == (Lost("Alpha", "fliph", 2, 1, 6), Lost("Alpha", "identity", 0, 2, 8))
    assert {path.read_bytes() for path in store.root.glob("quarantine/shards/*.h5")} == damaged, (
        "nothing is lost"
    )
    after = verify(store.root)
    assert (after.bad, after.quarantined, after.rows) == ((), 3, 4)
    missing = set(IDS) - Store(store.root).stored_ids(key())
    assert len(missing) == 8, "the next extract computes these"


def test_vectors_that_another_shard_holds_too_are_not_counted_as_lost(store):
    path = store.write(key(), IDS[2:5], rows(IDS[2:5]))
    store.flush()
    flip(path)
    assert verify(store.root, repair=True).repair.lost == (Lost("Alpha", "identity", 0, 1, 0),)


def test_without_an_index_the_number_is_not_guessed(store):
    shutil.rmtree(store.root / "index")
    flip(shards(store, key())[0])
    assert verify(store.root, repair=True).repair.lost == (Lost("Alpha", "identity", 0, 1, None),)


def test_a_misplaced_shard_is_put_back(store):
    home = shards(store, key(view=VIEW))[0]
    stray = home.rename(layout.shard_folder(store.root, key()) / home.name)
    assert [path for path, _ in verify(store.root).bad] == [str(stray)]
    mended = verify(store.root, repair=True).repair
    assert (mended.put_back, mended.lost) == ((str(stray),), ())
    assert home.exists()
    assert verify(store.root).bad == ()


def test_a_renamed_backbone_folder_is_put_back_with_all_its_shards(store):
    home = layout.backbone_folder(store.root, spec())
    home.rename(home.with_name("Mine@00000000"))
    verify(store.root, repair=True)
    np.testing.assert_array_equal(Store(store.root).read(key(), IDS), rows(IDS))
    assert verify(store.root).rows == 18


def test_repair_drops_and_rebuilds_what_carries_nothing_of_its_own(store):
    (segment,) = store.root.glob("index/*.ids")
    page = layout.backbone_folder(store.root, spec()) / "backbone.json"
    described = page.read_bytes()
    for path in (segment, page):
        path.write_bytes(b"{}")
    assert set(verify(store.root, repair=True).repair.rebuilt) == {str(segment), str(page)}
    assert verify(store.root).bad == ()
    assert page.read_bytes() == described
    assert json.loads(described)["name"] == "Alpha"


def test_a_second_repair_has_nothing_to_do(store):
    flip(shards(store, key())[0])
    verify(store.root, repair=True)
    again = verify(store.root, repair=True)
    assert (again.bad, again.repair.set_aside, again.repair.lost) == ((), (), ())
