"""Compaction: the same rows in fewer files, at every moment readable, the same bytes whatever came before."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import key, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from featstore.api.cache import compact, verify
from featstore.errors import StoreError, UsageError
from featstore.serialization import digest
from featstore.store import cleanup as compaction
from featstore.store import paths as layout
from featstore.store import store as store_module
from featstore.store.leases import Leases
from featstore.store.shard import IdSet
from featstore.store.store import Store
from featstore.types import Computation, View

IDS = sorted(digest(number) for number in range(40))
ROW = 12 * 4


def rows(ids, offset=0.0):
    return np.array([[int(i[:4], 16) + d + offset for d in range(12)] for i in ids], np.float32)


def fill(root, *parts, wanted=None):
    store = Store(root)
    for part in parts:
        store.write(wanted or key(), part, rows(part))
    store.flush()
    return store


def shards(root, wanted=None):
    return sorted(layout.shard_folder(root, wanted or key()).glob("*.h5"))


def contents(root):
    return {path.name: path.read_bytes() for path in shards(root)}


def test_many_small_shards_become_one_with_the_same_rows(tmp_path):
    fill(tmp_path, *(IDS[at : at + 4] for at in range(0, 40, 4)))
    fill(tmp_path, IDS[:3], IDS[3:5], wanted=key(view=View("flip(h)", 1)))
    (one, two) = sorted(compact(tmp_path).keys, key=lambda k: k.seed)
    assert (one.before, one.after, one.rows, one.duplicates) == (10, 1, 40, 0)
    assert (two.before, two.after, two.rows) == (2, 1, 5)
    assert len(shards(tmp_path)) == 1
    asked = IDS[::-1]
    np.testing.assert_array_equal(Store(tmp_path).read(key(), asked), rows(asked))
    assert verify(tmp_path).bad == ()


@settings(max_examples=8)
@given(st.permutations(range(12)), st.integers(1, 4))
def test_equal_rows_give_equal_bytes_whatever_their_order_and_their_cut(tmp_path_factory, order, size):
    """Nine rows a shard, so at most four are few: twelve rows become two shards of six, in order of id."""
    root, reference = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("reference")
    ids = [IDS[n] for n in order]
    fill(root, *(ids[at : at + size] for at in range(0, 12, size)))
    compact(root, target=9 * ROW)
    fill(reference, IDS[:6], IDS[6:12])
    assert contents(root) == contents(reference)
    assert compact(root, target=9 * ROW).keys == (), "a second time there is nothing to do"


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((16, 16), 16), ((16, 8), None), ((16, None), None), ((None, None), None)],
    ids=str,
)
def test_the_batch_size_of_merged_shards_is_theirs_if_they_agree(tmp_path, sizes, expected):
    store = Store(tmp_path)
    for at, size in enumerate(sizes):
        ids = IDS[5 * at : 5 * at + 5]
        store.write(key(), ids, rows(ids), Computation(size))
    store.flush()
    compact(tmp_path)
    (merged,) = shards(tmp_path)
    assert store.load(merged).computation.batch_size == expected


def test_large_shards_stay_as_they_are(tmp_path):
    fill(tmp_path, IDS[:10], IDS[10:12], IDS[12:14])
    held = Store(tmp_path).ids_by_shard(key())
    (large,) = (path for path, ids in held.items() if len(ids) == 10)
    before = large.stat().st_mtime_ns
    compact(tmp_path, target=16 * ROW)
    assert large.stat().st_mtime_ns == before
    assert len(shards(tmp_path)) == 2


def test_a_row_in_two_shards_stands_in_one_afterwards(tmp_path):
    fill(tmp_path, IDS[:20], IDS[10:30])
    (found,) = compact(tmp_path, target=10 * ROW).keys
    assert (found.rows, found.duplicates, found.unequal) == (30, 10, 0)
    held = Store(tmp_path).ids_by_shard(key())
    assert sum(map(len, held.values())) == 30
    np.testing.assert_array_equal(Store(tmp_path).read(key(), IDS[:30]), rows(IDS[:30]))


def test_where_duplicates_differ_the_reader_sees_after_what_it_saw_before(tmp_path):
    store = fill(tmp_path, IDS[:20])
    store.write(key(), IDS[10:30], rows(IDS[10:30], offset=0.5))
    before = store.read(key(), IDS[:30])
    (found,) = compact(tmp_path).keys
    assert found.unequal == 10
    np.testing.assert_array_equal(Store(tmp_path).read(key(), IDS[:30]), before)


def test_more_rows_than_fit_into_memory_are_taken_in_several_rounds(tmp_path, monkeypatch):
    fill(tmp_path / "a", *(IDS[at : at + 2] for at in range(0, 16, 2)))
    fill(tmp_path / "b", *(IDS[at : at + 2] for at in range(0, 16, 2)))
    compact(tmp_path / "a", target=5 * ROW)
    monkeypatch.setattr(compaction, "BYTES_AT_ONCE", 10 * ROW)
    compact(tmp_path / "b", target=5 * ROW)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path):
    fill(tmp_path, *(IDS[at : at + 4] for at in range(0, 40, 4)))
    before = contents(tmp_path)
    promised = compact(tmp_path, dry_run=True)
    assert contents(tmp_path) == before
    assert promised.keys == compact(tmp_path).keys


def test_the_index_follows_and_the_plan_opens_no_shard(tmp_path, monkeypatch):
    fill(tmp_path, *(IDS[at : at + 4] for at in range(0, 40, 4)))
    compact(tmp_path)
    for path in shards(tmp_path):
        os.utime(path, ns=(10**18, 10**18))
    Store(tmp_path).stored_ids(key())
    monkeypatch.setattr(store_module.shard, "read", None)
    assert Store(tmp_path).stored_ids(key()) == IdSet.of(IDS)


def test_compaction_refuses_while_somebody_else_writes_and_says_who(tmp_path):
    fill(tmp_path, IDS[:2], IDS[2:4])
    before = contents(tmp_path)
    with Leases(tmp_path) as theirs, theirs.acquire({key(spec("Beta")): IdSet.of(IDS[:1])}):
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            compact(tmp_path)
        assert compact(tmp_path, dry_run=True).keys, "a look is allowed"
    assert contents(tmp_path) == before
    assert compact(tmp_path).keys


def test_a_target_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--target"):
        compact(tmp_path, target=0)


def test_a_shard_that_goes_bad_meanwhile_stops_compaction_before_anything_is_deleted(tmp_path, monkeypatch):
    fill(tmp_path, IDS[:4], IDS[4:8])
    held = Store.ids_by_shard

    def then_damage(self, wanted):
        found = held(self, wanted)
        path = shards(tmp_path)[0]
        path.write_bytes(path.read_bytes()[:-1])
        return found

    monkeypatch.setattr(Store, "ids_by_shard", then_damage)
    with pytest.raises(StoreError, match="all rows are where they were"):
        compact(tmp_path)
    assert len(shards(tmp_path)) == 1
    assert len(list(tmp_path.glob("quarantine/shards/*.h5"))) == 1


def test_what_does_not_come_back_as_written_costs_no_old_shard(tmp_path, monkeypatch):
    fill(tmp_path, IDS[:4], IDS[4:8])
    before = contents(tmp_path)
    write = Store.write

    def and_rot(self, *arguments):
        path = write(self, *arguments)
        path.write_bytes(path.read_bytes()[:-1])
        return path

    monkeypatch.setattr(Store, "write", and_rot)
    with pytest.raises(StoreError, match="did not come back"):
        compact(tmp_path)
    assert contents(tmp_path).items() >= before.items()


@pytest.mark.parametrize("moment", range(6))
def test_a_reader_finds_every_row_whenever_compaction_comes_between(tmp_path, monkeypatch, moment):
    """The moment is the number of shards that the reader has opened when the others are compacted under it."""
    fill(tmp_path, *(IDS[at : at + 10] for at in range(0, 40, 10)))
    reader, load, opened = Store(tmp_path), Store.load, []

    def load_and_be_disturbed(self, path):
        if self is reader:
            if len(opened) == moment:
                compact(tmp_path)
            opened.append(path)
        return load(self, path)

    monkeypatch.setattr(Store, "load", load_and_be_disturbed)
    np.testing.assert_array_equal(reader.read(key(), IDS), rows(IDS))
    assert len(shards(tmp_path)) == (1 if moment < len(opened) else 4)


@pytest.mark.parametrize("ask", [lambda s: s.stored_ids(key()), lambda s: s.feature_keys()])
def test_a_plan_finds_every_row_when_compaction_falls_into_its_listing(tmp_path, monkeypatch, ask):
    """A listing that began before the new shard came, and went on after the old ones had gone, shows neither."""
    fill(tmp_path, IDS[:20], IDS[20:])
    expected = ask(Store(tmp_path))
    listed, looks = store_module.paths.shards, []

    def torn(folder):
        looks.append(folder)
        if len(looks) == 1:
            compact(tmp_path)
            looks.append(folder)
            return []
        return listed(folder)

    (tmp_path / "index").rename(tmp_path / "gone")
    monkeypatch.setattr(store_module.paths, "shards", torn)
    assert ask(Store(tmp_path)) == expected


CRASH = """
import itertools, os, shutil, signal, sys, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
import numpy as np
from fakes import key
from featstore.serialization import digest
from featstore.api.cache import compact
from featstore.store.store import Store
from featstore.api.cache import verify

IDS = sorted(digest(number) for number in range(16))
origin, work = Path("origin"), Path("work")
store = Store(origin)
values = np.arange(192, dtype=np.float32).reshape(16, 12)
for at in range(0, 16, 4):
    store.write(key(), IDS[at : at + 4], values[at : at + 4])
store.flush()
MOMENTS = {"os.fsync", "os.rename", "os.remove"}  # audited or patched: durable bytes, names, deletions

def run(fatal):
    count = itertools.count()
    def step(event, _arguments=None):
        if event in MOMENTS and next(count) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    fsync = os.fsync
    os.fsync = lambda descriptor: (step("os.fsync"), fsync(descriptor))
    sys.addaudithook(step)
    compact(work, target=10 * 48)

def names(root):
    return sorted(p.name for p in root.rglob("*.h5"))

shutil.copytree(origin, work)
compact(work, target=10 * 48)
expected = names(work)
for fatal in itertools.count():
    shutil.rmtree(work)
    shutil.copytree(origin, work)
    child = os.fork()
    if not child:
        run(fatal)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    state = verify(work)
    assert state.bad == (), state.bad
    assert np.array_equal(Store(work).read(key(), IDS), values), f"rows lost at step {fatal}"
    compact(work, target=10 * 48)
    assert names(work) == expected, f"another end after a kill at step {fatal}"
    if not killed:
        break
print("kills", fatal)
"""


@pytest.mark.slow
@pytest.mark.crash
def test_a_kill_at_any_step_leaves_every_row_and_a_second_run_ends_the_same(tmp_path):
    tests = Path(__file__).resolve().parents[1] / "support"
    command = [sys.executable, "-c", CRASH, str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 15
