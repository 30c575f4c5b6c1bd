"""gc and compaction run alone, and the lease of a machine that is no more keeps nobody waiting for ever."""

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
from fakes import key
from unprivileged import with_rights, without_rights

from featstore.api.cache import compact, gc, verify
from featstore.errors import StoreError
from featstore.serialization import digest
from featstore.store import leases as lease
from featstore.store import leases as solitude
from featstore.store.leases import EXPIRY, LeaseRecord, Owner, this_process
from featstore.store.leases import encode_claim as encode
from featstore.store.shard import IdSet
from featstore.store.store import Store

IDS = [digest(number) for number in range(4)]
NAME, BOOT, SPACE = this_process().host.split(" ")
OWNERS = {
    "of another host": Owner("elsewhere 00000000-dead-4000-8000-000000000000 pid:[1]", 4711, 99),
    "of before a reboot": Owner(f"{NAME} 00000000-dead-4000-8000-000000000000 {SPACE}", 4711, 99),
    "of an ended container": Owner(f"{NAME} {BOOT} pid:[1]", 4711, 99),
    "of a system without /proc": Owner("mac", 4711, -1),
}


class Clock:
    """Time passes where somebody sleeps, and something may happen in it."""

    def __init__(self, monkeypatch):
        self.now, self.happens = 1000.0, lambda: None
        monkeypatch.setattr(lease.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(solitude.time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += seconds
        self.happens()


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "cache")


def fill(root):
    store = Store(root)
    for number, image in enumerate(IDS):
        store.write(key(), [image], np.full((1, 12), number, np.float32))
    store.flush()
    return root


def leave_a_lease(root, owner, age=200 * 86_400):
    told = {digest(key().to_json()): IdSet.of(IDS)}
    path = root / "leases" / f"{'ab' * 16}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(LeaseRecord(path.stem, "theirs", owner, "2026-01-01T00:00:00+00:00", told)))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("age", [0, 200 * 86_400], ids=["young", "old"])
@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
def test_a_lease_whose_owner_cannot_be_asked_is_watched_and_then_left_behind(root, clock, caplog, owner, age):
    path = leave_a_lease(root, owner, age)
    begun = clock.now
    assert len(compact(root).keys) == 1
    assert EXPIRY <= clock.now - begun <= EXPIRY + 3
    assert not path.exists()
    (told,) = caplog.messages
    assert str(path) in told
    assert "process 4711" in told
    assert "120 s" in told
    gc(cache=root)
    assert clock.now - begun <= EXPIRY + 3, "watched once"


@pytest.mark.parametrize("run", [compact, lambda root: gc(cache=root)], ids=["compact", "gc"])
@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
def test_an_owner_whose_heart_beats_is_seen_at_once_and_his_file_is_named(root, clock, run, owner):
    path = leave_a_lease(root, owner)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    clock.happens = lambda: os.utime(path) if clock.now >= 1015 else None  # a heartbeat every 15 s
    with pytest.raises(StoreError, match="is being written to: process 4711") as caught:
        run(root)
    assert clock.now < 1020
    assert (caught.value.exit_code, str(path) in caught.value.remedy) == (4, True)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def test_as_the_remedy_says_a_deleted_lease_frees_the_cache(root, clock):
    path = leave_a_lease(root, this_process())
    with pytest.raises(StoreError, match="is being written to") as caught:
        compact(root)
    assert clock.now == 1000.0, "who is known to live is not watched"
    assert str(path) in caught.value.remedy
    path.unlink()
    assert len(compact(root).keys) == 1


def test_a_lease_of_this_host_whose_process_is_gone_is_not_watched(root, clock):
    leave_a_lease(root, replace(this_process(), start=this_process().start - 1))
    assert len(compact(root).keys) == 1
    assert clock.now == 1000.0


def test_a_lease_that_may_not_be_read_has_an_owner_all_the_same(open_folder, clock, caplog):
    root = fill(open_folder / "cache")
    path = leave_a_lease(root, OWNERS["of another host"])
    for one in (root, *root.rglob("*")):
        os.chmod(one, 0o777 if one.is_dir() else 0o644)  # noqa: PTH101
    path.chmod(0)

    def beat():
        with with_rights():
            os.utime(path)

    clock.happens = beat
    with without_rights(), pytest.raises(StoreError, match="an owner whose lease may not be read") as caught:
        compact(root)
    assert str(path) in caught.value.remedy
    clock.happens = lambda: None
    with without_rights():
        assert compact(root, dry_run=True).keys
        Store(root).stored([key()])


def test_a_room_of_leases_that_cannot_be_read_is_not_taken_for_an_empty_one(open_folder):
    root = fill(open_folder / "cache")
    path = leave_a_lease(root, this_process())
    for one in (root, *root.rglob("*")):
        one.chmod(0o777 if one.is_dir() else 0o644)
    path.parent.chmod(0)
    for run in (compact, lambda root: gc(cache=root)):
        with without_rights(), pytest.raises(StoreError, match="leases") as caught:
            run(root)
        assert caught.value.exit_code == 4
    path.parent.chmod(0o777)
    (root / "leases").rename(root / "away")
    (root / "leases").write_text("in the way")
    for run in (compact, lambda root: gc(cache=root)):
        with pytest.raises(StoreError, match="is no folder"):
            run(root)


def test_a_lease_without_sense_is_nobodys_and_goes(root, clock):
    path = leave_a_lease(root, OWNERS["of another host"])
    page = json.loads(path.read_text())
    page["owner"]["pid"] = 10**400
    path.write_text(json.dumps(page))
    assert verify(root).bad == ()
    assert len(compact(root).keys) == 1
    assert (clock.now, path.exists()) == (1000.0, False)
