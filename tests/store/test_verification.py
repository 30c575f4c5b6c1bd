"""Verify looks at everything and changes nothing; repair loses nothing, and says what is to be computed again."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from fakes import DECODING, key, spec

from featstore.api.cache import verify
from featstore.errors import MissingFeaturesError, ShardCorruptError
from featstore.isolated_reading import LostError
from featstore.serialization import canonical_json, digest, digest_bytes
from featstore.store import paths as layout
from featstore.store import shard
from featstore.store import verify as verification
from featstore.store.notes import BadImage
from featstore.store.store import Store
from featstore.store.verify import LostRows
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
    assert found.repair.lost == (LostRows("Alpha", "fliph", 2, 1, 6), LostRows("Alpha", "identity", 0, 2, 8))
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
    assert verify(store.root, repair=True).repair.lost == (LostRows("Alpha", "identity", 0, 1, 0),)


def test_without_an_index_the_number_is_not_guessed(store):
    shutil.rmtree(store.root / "index")
    flip(shards(store, key())[0])
    assert verify(store.root, repair=True).repair.lost == (LostRows("Alpha", "identity", 0, 1, None),)


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


def forged(address, ids, features, *, chunk=None):
    """A shard as nobody but a forger writes it: any key, any values, any bytes for the chunk of features."""
    with h5py.File.in_memory() as file:
        file["ids"] = shard.pack_ids(ids)
        if chunk is None:
            file["features"] = np.asarray(features, np.float32)
        else:
            found = file.create_dataset(
                "features", features.shape, "f4", chunks=features.shape, fletcher32=True
            )
            found.id.write_direct_chunk((0, 0), chunk)
            file.create_group("padding").attrs["x"] = np.zeros(4000)
            del file["padding"]
        file.attrs["format"], file.attrs["rows"] = shard.FORMAT, len(ids)
        file.attrs["key"] = canonical_json(address if isinstance(address, dict) else address.to_json())
        file.flush()
        return bytes(file.id.get_file_image())


SHORT = {
    "two bytes": b"ab",
    "a checksum alone": bytes(4),
    "half of it": bytes(100),
    "all but the checksum": bytes(192),
}


@pytest.mark.hostile
@pytest.mark.parametrize("chunk", SHORT.values(), ids=SHORT)
def test_a_shard_whose_chunk_is_shorter_than_it_announces_costs_that_shard_alone(store, chunk):
    """HDF5 itself dies of it, or returns what lies behind in memory."""
    path = write_as_shard(
        layout.shard_folder(store.root, key()), forged(key(), IDS[:4], rows(IDS[:4]), chunk=chunk)
    )
    found = verify(store.root, repair=True)
    ((bad, why),) = found.bad
    assert (bad, found.shards) == (str(path), 4)
    assert "bytes, and must have 196" in why
    assert len(found.repair.set_aside) == 1


@pytest.mark.hostile
def test_a_shard_of_which_the_library_dies_costs_that_shard_alone(store, monkeypatch):
    path = shards(store, key())[0]

    def call(work, where, *arguments):
        if where == path:
            raise LostError("the library that reads it dies of it (SIGSEGV)")
        return verification_call(work, where, *arguments)

    verification_call = verification.call_isolated
    monkeypatch.setattr(verification, "call_isolated", call)
    found = verify(store.root)
    assert (found.bad, found.shards) == (((str(path), "the library that reads it dies of it (SIGSEGV)"),), 3)


BROKEN = {
    "not a number": np.nan,
    "infinite": np.inf,
    "infinite both ways": [np.inf, -np.inf, *[0] * 10],
}


@pytest.mark.hostile
@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_a_shard_of_right_name_that_is_not_finite_is_set_aside_and_its_rows_are_missing_again(store, value):
    features = rows(IDS[:4])
    features[2] = value
    good = layout.shard_folder(store.root, key())
    shutil.rmtree(good)
    good.mkdir()
    path = write_as_shard(good, forged(key(), IDS[:4], features))
    with pytest.raises(ShardCorruptError, match="not finite"):
        shard.read(path)
    with pytest.raises(MissingFeaturesError):
        store.read(key(), IDS[:4])
    assert not path.exists()
    again = Store(store.root)
    assert len(again.stored_ids(key())) == 0
    again.write(key(), IDS[:4], rows(IDS[:4]))
    np.testing.assert_array_equal(again.read(key(), IDS[:4]), rows(IDS[:4]))


def test_large_values_whose_sum_is_not_finite_are_good():
    features = np.full((4, 12), 3e38, "f4")
    np.testing.assert_array_equal(shard.decode(shard.encode(key(), IDS[:4], features)).features, features)


@pytest.mark.hostile
def test_an_id_that_stands_twice_is_found():
    with pytest.raises(ShardCorruptError, match="stands twice"):
        shard.decode(forged(key(), [IDS[0], IDS[0]], rows(IDS[:2])))


def unplaceable():
    """Keys whose folder no disk can have, or that name none."""
    good = key().to_json()
    view, backbone = good["view"], good["backbone"]
    yield "4,000 digits", good | {"view": view | {"seed": int("1" * 4000)}}
    yield "260 digits", good | {"view": view | {"seed": int("1" * 260)}}
    yield "negative", good | {"view": view | {"seed": -3}}
    yield "long name", good | {"backbone": backbone | {"name": "A" * 300}}
    yield "long name in few letters", good | {"backbone": backbone | {"name": "\u00e4" * 120}}
    yield "a name that climbs", good | {"backbone": backbone | {"name": "../../x"}}
    yield "no name", good | {"backbone": backbone | {"name": "."}}


@pytest.mark.hostile
def test_shards_that_fit_nowhere_are_set_aside_and_repair_goes_on(store):
    folder = layout.shard_folder(store.root, key())
    hostile = {
        write_as_shard(folder, forged(address, IDS[:4], rows(IDS[:4]))) for _, address in unplaceable()
    }
    odd = folder.with_name("seed-0099")
    odd.mkdir()
    for name in ("A" * 252, "a.b", "\udcff", "x"):
        (odd / f"{name}.h5").write_bytes(b"no shard")
        hostile.add(odd / f"{name}.h5")
    misplaced = shards(store, key(view=VIEW))[0]
    moved = folder / misplaced.name
    misplaced.rename(moved)
    found = verify(store.root, repair=True)
    assert {path for path, _ in found.bad} == {str(path) for path in (*hostile, moved)}
    assert len(found.repair.set_aside) == len(hostile)
    assert found.repair.put_back == (str(moved),)
    assert misplaced.exists()
    assert verify(store.root).bad == ()


@pytest.mark.hostile
def test_a_good_shard_whose_folder_cannot_be_made_is_set_aside(store):
    """Something else stands where its folder should be."""
    misplaced = shards(store, key(view=VIEW))[0]
    misplaced.rename(layout.shard_folder(store.root, key()) / misplaced.name)
    misplaced.parent.rmdir()
    misplaced.parent.write_bytes(b"in the way")
    found = verify(store.root, repair=True)
    assert (len(found.repair.set_aside), found.repair.put_back) == (1, ())


def test_seeds_that_name_a_folder_are_taken():
    for seed in (0, 2**64, 10**199):
        address = replace(key(), view=replace(VIEW, seed=seed))
        assert shard.decode(shard.encode(address, IDS[:4], rows(IDS[:4]))).key == address
