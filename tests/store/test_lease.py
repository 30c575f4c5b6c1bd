"""A lease is kept while its owner lives, taken over when it is dead, and never a condition for anything."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier

import pytest
from fakes import key, spec
from hypothesis import given
from hypothesis import strategies as st

from featstore.serialization import digest
from featstore.store import leases as module
from featstore.store.leases import (
    LeaseRecord,
    Leases,
    Owner,
    _start,
    is_gone,
    overlapping,
    this_process,
    without,
)
from featstore.store.leases import decode_claim as decode
from featstore.store.leases import encode_claim as encode
from featstore.store.shard import IdSet
from featstore.types import View

IDS = [digest(n) for n in range(12)]
KEYS = [key(), key(spec("Beta")), key(view=View("flip(h)", 1))]
ELSEWHERE = Owner("another machine", 4711, 12345)


def rows(start, stop, keys=KEYS):
    return {k: IdSet.of(IDS[start:stop]) for k in keys}


def granted(lease, keys=KEYS):
    return [len(lease.granted(k)) for k in keys]


def files(root):
    return sorted((root / "leases").glob("*"))


def leave_a_claim(root, owner, ids=IDS[:4]):
    """Write the lease of somebody else."""
    told = {digest(KEYS[0].to_json()): IdSet.of(ids)}
    claim = LeaseRecord("ab" * 16, "their run", owner, "2026-01-01T00:00:00+00:00", told)
    path = root / "leases" / f"{claim.token}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(claim))
    return path


def dead_process():
    script = "from featstore.store.leases import this_process as me; print(me().pid, me().start)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    pid, start = map(int, done.stdout.split())
    return replace(this_process(), pid=pid, start=start)


def test_looking_at_a_store_without_leases_creates_nothing(tmp_path):
    assert Leases(tmp_path / "cache").live() == []
    assert not (tmp_path / "cache").exists()


def test_what_one_holds_another_does_not_get_until_it_is_released(tmp_path):
    one, two = Leases(tmp_path), Leases(tmp_path)
    with one.acquire(rows(0, 8)) as first:
        assert granted(first) == [8, 8, 8]
        assert granted(two.acquire(rows(4, 12))) == [4, 4, 4]
        assert granted(two.acquire(rows(0, 2))) == [0, 0, 0]
    assert granted(Leases(tmp_path).acquire(rows(0, 12))) == [8, 8, 8]


def test_other_keys_of_the_same_images_are_free(tmp_path):
    with Leases(tmp_path).acquire(rows(0, 8, KEYS[:1])):
        assert granted(Leases(tmp_path).acquire(rows(0, 8))) == [0, 8, 8]


def test_the_workers_of_one_run_do_not_exclude_each_other(tmp_path):
    with Leases(tmp_path, run="run 1").acquire(rows(0, 8)):
        assert granted(Leases(tmp_path, run="run 1").acquire(rows(0, 8))) == [8, 8, 8]


def test_a_claim_tells_who_and_what(tmp_path):
    leases = Leases(tmp_path, run="run 1")
    with leases.acquire(rows(0, 8)):
        (claim,) = leases.live()
    assert (claim.owner.pid, claim.run) == (os.getpid(), "run 1")
    assert claim.rows == {digest(k.to_json()): set(IDS[:8]) for k in KEYS}


def test_no_file_is_left_behind(tmp_path):
    with Leases(tmp_path) as leases:
        leases.acquire(rows(0, 8))
        assert len(files(tmp_path)) == 1
    assert files(tmp_path) == []


def test_nothing_granted_leaves_no_file(tmp_path):
    with Leases(tmp_path).acquire(rows(0, 8)):
        Leases(tmp_path).acquire(rows(2, 5))
        assert len(files(tmp_path)) == 1


def test_the_lease_of_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path):
    path = leave_a_claim(tmp_path, dead_process())
    assert granted(Leases(tmp_path).acquire(rows(0, 8))) == [8, 8, 8]
    assert not path.exists()


def test_a_process_number_that_was_given_again_is_another_process(tmp_path):
    path = leave_a_claim(tmp_path, replace(this_process(), start=this_process().start - 1))
    assert Leases(tmp_path).live() == []
    assert not path.exists()


def test_a_killed_process_that_nobody_has_waited_for_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = replace(this_process(), pid=child.pid, start=_start(child.pid))
    assert is_gone(owner) is False
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(owner) is True
    child.wait()
    assert is_gone(owner) is True


def test_a_living_process_keeps_its_lease_however_old_and_silent_it_is(tmp_path):
    path = leave_a_claim(tmp_path, this_process())
    os.utime(path, (0, 0))
    leases = Leases(tmp_path, expiry=0.0)
    for _ in range(3):
        assert granted(leases.acquire(rows(0, 4, KEYS[:1])), KEYS[:1]) == [0]
    assert path.exists()


class Clock:
    """The observer's monotonic clock."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_an_owner_elsewhere_lives_while_its_heart_beats(tmp_path, monkeypatch):
    clock, path = Clock(monkeypatch), leave_a_claim(tmp_path, ELSEWHERE)
    leases = Leases(tmp_path, expiry=100)
    for beat in range(50):
        clock.now += 90
        os.utime(path, (beat, beat))
        assert len(leases.live()) == 1


def test_an_owner_elsewhere_that_is_silent_is_taken_over_after_the_expiry(tmp_path, monkeypatch):
    clock, path = Clock(monkeypatch), leave_a_claim(tmp_path, ELSEWHERE)
    leases = Leases(tmp_path, expiry=100)
    assert len(leases.live()) == 1
    clock.now += 99
    assert len(leases.live()) == 1
    clock.now += 2
    assert granted(leases.acquire(rows(0, 4, KEYS[:1])), KEYS[:1]) == [4]
    assert not path.exists()


@pytest.mark.parametrize("years", [-30, -1, 1, 30])
def test_clocks_of_other_machines_and_clocks_set_back_mean_nothing(tmp_path, monkeypatch, years):
    clock, path = Clock(monkeypatch), leave_a_claim(tmp_path, ELSEWHERE)
    leases = Leases(tmp_path, expiry=100)
    leases.live()
    now = time.time() + years * 365 * 86400
    monkeypatch.setattr(module.time, "time", lambda: now)
    os.utime(path, (now, now))
    clock.now += 99
    assert len(leases.live()) == 1, "the heart has beaten, whatever time it says"
    clock.now += 99
    assert len(leases.live()) == 1
    clock.now += 2
    assert leases.live() == []


def test_the_heart_beats_while_a_lease_is_held_and_not_after(tmp_path):
    leases = Leases(tmp_path, expiry=0.08)
    with leases, leases.acquire(rows(0, 8)):
        (path,) = files(tmp_path)
        os.utime(path, (0, 0))
        while path.stat().st_mtime_ns == 0:
            time.sleep(0.005)
    leases._heart.join(5)
    assert not leases._heart.is_alive()


class Blind(Leases):
    """Sees nobody until it has written its own claim and everyone has met: the worst moment for a race."""

    def __init__(self, root, meet):
        super().__init__(root)
        self.meet, self.looks = meet, 0

    def others(self):
        self.looks += 1
        if self.looks == 1:
            return []
        if self.looks == 2:
            self.meet()
        return super().others()


def test_of_claims_made_at_once_exactly_one_keeps_each_row(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 20.0)
    for attempt in range(5):
        met = Barrier(3)
        rivals = [Blind(tmp_path / str(attempt), partial(met.wait, 10)) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            leases = list(pool.map(lambda rival: rival.acquire(rows(0, 8)), rivals))
        smallest = min(leases, key=lambda lease: lease.token)
        assert [granted(lease) for lease in leases] == [[8 * (lease is smallest)] * 3 for lease in leases]


def test_who_has_looked_already_keeps_the_rows_whatever_the_token(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    for attempt in range(8):
        root = tmp_path / str(attempt)
        early = Leases(root)
        late = Blind(root, meet=lambda: None)
        with early.acquire(rows(0, 8)) as first:
            assert granted(late.acquire(rows(4, 12))) == [4, 4, 4]
            assert granted(first) == [8, 8, 8]


@given(st.sets(st.integers(0, 11)), st.lists(st.sets(st.integers(0, 11), min_size=1), max_size=3))
def test_rows_without_claims_are_a_difference_of_sets(mine, theirs):
    name = digest("key")
    claims = [
        LeaseRecord("t", "r", ELSEWHERE, "", {name: IdSet.of([IDS[n] for n in part])}) for part in theirs
    ]
    left = without({name: IdSet.of([IDS[n] for n in mine])}, claims)
    expected = {IDS[n] for n in mine.difference(*theirs)}
    assert left == ({name: expected} if expected else {})
    assert overlapping(left, claims) == []


@given(st.dictionaries(st.integers(0, 5), st.sets(st.integers(0, 11), min_size=1), max_size=5))
def test_a_claim_comes_back_as_it_was_written(content):
    told = {digest(k): IdSet.of([IDS[n] for n in ids]) for k, ids in content.items()}
    claim = LeaseRecord("ab", "run", ELSEWHERE, "2026-01-01T00:00:00+00:00", told)
    assert decode("ab", encode(claim)) == claim


def page(pid=1, ids="", host="h"):
    owner = {"host": host, "pid": pid, "start": 0}
    return json.dumps(
        {"owner": owner, "run": "", "since": "", "rows": [{"ids": ids, "keys": ["k"]}]}
    ).encode()


GARBAGE = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "no owner": b'{"rows":[]}',
    "no process": page(pid=-1),
    "a huge number": page(pid=10**400),
    "a terminal's escape": page(host="\x1b[2J"),
    "odd ids": page(ids="zz"),
    "half an id": page(ids="ab"),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_a_file_that_is_no_claim_is_nobodys(tmp_path, data):
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "x.json").write_bytes(data)
    assert granted(Leases(tmp_path).acquire(rows(0, 8))) == [8, 8, 8]


def test_where_leases_cannot_be_written_everything_is_granted(tmp_path):
    (tmp_path / "leases").write_text("in the way")
    assert granted(Leases(tmp_path).acquire(rows(0, 8))) == [8, 8, 8]
