"""Several runs in one cache at once: nothing breaks, nothing is lost, and nothing is computed twice."""

import logging
import threading
import time
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from kill import BLOCK, KEYS, Child, extract, pictures, together

from featstore.api.cache import verify
from featstore.extraction import scheduler as claims
from featstore.extraction import scheduler as parts
from featstore.serialization import digest
from featstore.store.leases import Leases
from featstore.store.shard import IdSet
from featstore.store.store import Store

pytestmark = pytest.mark.concurrency

DELAY = 0.01
"""Seconds per batch, so that runs overlap in time."""
IMAGES, GOOD = 31, 30


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("data"), IMAGES)


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """What one process computes."""
    cache = tmp_path_factory.mktemp("alone")
    assert Child(images, cache).rows() == GOOD * len(KEYS)
    return vectors(cache)


def vectors(cache):
    store = Store(cache)
    return {
        (k, i): row.tobytes()
        for k, ids in store.stored(KEYS).items()
        for i, row in zip(ids, store.read(k, list(ids)), strict=True)
    }


def require(cache, expected, tried):
    state = verify(cache)
    assert state.bad == ()
    assert vectors(cache) == expected
    assert list(cache.rglob(".tmp-*")) == list(cache.glob("leases/*.json")) == []
    tried("shards verified", state.shards)
    tried("shards bad", 0)
    tried("rows lost", 0)


def some(images, start, stop):
    return dict(list(images.items())[start:stop])


@pytest.mark.parametrize(
    "runs", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_the_same_plan_at_once_is_computed_once(images, alone, tmp_path, tried, runs):
    with together(tmp_path, *[{"images": images, "delay": DELAY}] * runs) as started:
        computed = [run.rows() for run in started]
    require(tmp_path, alone, tried)
    tried("runs at once", runs)
    tried("rows computed", sum(computed))
    tried("rows computed twice", sum(computed) - len(alone))
    assert sum(computed) == len(alone)


def test_overlapping_plans_at_once_are_computed_once(images, alone, tmp_path, tried):
    """Other images, other keys, and other orders: rows overlap, blocks do not coincide."""
    backwards = dict(reversed(images.items()))
    with together(
        tmp_path,
        {"images": some(images, 0, 20), "delay": DELAY},
        {"images": some(backwards, 0, 25), "delay": DELAY, "keys": KEYS[1:]},
        {"images": images, "delay": DELAY, "keys": KEYS[::-1][:3]},
    ) as started:
        computed = [run.rows() for run in started]
    union = {
        (k, i)
        for part, keys in (
            (some(images, 0, 20), KEYS),
            (some(backwards, 0, 25), KEYS[1:]),
            (images, KEYS[::-1][:3]),
        )
        for k in keys
        for i in part
    }
    expected = {at: row for at, row in alone.items() if at in union}
    require(tmp_path, expected, tried)
    tried("runs at once", 3)
    tried("rows computed", sum(computed))
    tried("rows computed twice", sum(computed) - len(expected))
    assert sum(computed) == len(expected)


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_what_a_dead_run_had_claimed_is_taken_over_at_once(images, alone, tmp_path, tried, rounds):
    for number in range(rounds):
        cache = tmp_path / str(number)
        with together(cache, *[{"images": images, "delay": DELAY}] * 3) as (victim, *others):
            victim.wait_for_start()
            time.sleep(0.03 * (number + 1))
            victim.send(SIGKILL)
            killed = victim.end() == -SIGKILL
            computed = [run.rows() for run in others]
        expected_twice = sum(computed) + victim.acknowledged - len(alone)
        for orphan in cache.rglob(".tmp-*"):
            orphan.unlink()
        require(cache, alone, tried)
        tried("owners killed", killed)
        tried("runs at once", 3)
        tried("rows computed", sum(computed) + victim.acknowledged)
        tried("rows computed twice", expected_twice)
        # Below zero: the victim died between the commit of rows and its word about them, which is no double work.
        assert expected_twice <= 0 or not killed


def is_stopped(pid):
    """Every thread: one that is in a system call stops when that is over."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread has just ended
        return False
    return {stat.rpartition(")")[2].split()[0] for stat in stats} <= {"T"}


def computes(run, cache, alone):
    """Whether the run alone claims good rows that are not stored yet; in a race, it may be about to yield."""
    names = {digest(k.to_json()): k for k in KEYS}
    mine, others = set(), set()
    for claim in Leases(cache).live():
        rows = {(names[n], i) for n, ids in claim.rows.items() for i in ids}
        (mine if claim.owner.pid == run.pid else others).update(rows)
    return bool(((mine - others) & alone.keys()) - vectors(cache).keys())


def stop_while_it_computes(run, cache, alone):
    """SIGSTOP, but not before it computes: who is stopped again and again while he starts never comes to work."""
    run.wait_for_start()
    while run.process.is_alive():
        if computes(run, cache, alone):
            run.send(SIGSTOP)
            while run.process.is_alive() and not is_stopped(run.pid):
                time.sleep(0.001)
            if computes(run, cache, alone):
                return
            run.send(SIGCONT)
        time.sleep(0.01)
    pytest.fail("it was over before it could be stopped")


@pytest.mark.slow
def test_a_run_that_is_stopped_but_lives_keeps_its_rows_and_the_other_waits_for_it(
    images, alone, tmp_path, tried
):
    slow, quick = {"images": images, "delay": 30 * DELAY}, {"images": images, "delay": 3 * DELAY}
    with together(tmp_path, slow, quick) as (
        sleeper,
        other,
    ):  # slow enough to be met at work on a busy machine
        stop_while_it_computes(sleeper, tmp_path, alone)
        while (
            any(claim.owner.pid == other.pid for claim in Leases(tmp_path).live()) or other.acknowledged == 0
        ):
            time.sleep(0.02)
        time.sleep(3 * claims.POLL)
        assert other.process.is_alive(), "it waits"
        assert len(vectors(tmp_path)) < len(alone)
        sleeper.send(SIGCONT)
        computed = [sleeper.rows(), other.rows()]
    require(tmp_path, alone, tried)
    tried("runs stopped and continued")
    tried("rows computed", sum(computed))
    tried("rows computed twice", sum(computed) - len(alone))
    assert sum(computed) == len(alone)


def test_while_it_waits_it_says_for_whom_once(images, alone, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(parts.image_blocks, "__defaults__", (BLOCK,))
    monkeypatch.setattr(claims, "POLL", 0.02)
    with Leases(tmp_path) as somebody, caplog.at_level(logging.WARNING):
        somebody.acquire({KEYS[1]: IdSet.of(list(images)[5:9])})
        waiting = threading.Thread(target=extract, args=(images, tmp_path))
        waiting.start()
        while not caplog.records:
            time.sleep(0.01)
        time.sleep(0.2)
        assert waiting.is_alive()
        assert len(vectors(tmp_path)) == len(alone) - 4
    waiting.join(30)
    assert vectors(tmp_path) == alone
    (record,) = caplog.records
    assert "waiting for process" in record.getMessage()
    assert "computes the last 4 vectors" in record.getMessage()


def test_readers_meet_only_whole_and_true_rows_while_others_write(images, alone, tmp_path, tried):
    store, looks = Store(tmp_path), 0
    with together(tmp_path, *[{"images": images, "delay": 3 * DELAY}] * 2) as started:
        while any(run.process.is_alive() for run in started):
            for reader in (store, Store(tmp_path)):
                for k, ids in reader.stored(KEYS).items():
                    for i, row in zip(ids, reader.read(k, list(ids)), strict=True):
                        assert row.tobytes() == alone[k, i]
                        looks += 1
        assert [run.end() for run in started] == [0, 0]
    require(tmp_path, alone, tried)
    tried("rows read during writes", looks)
    assert looks > 0


def test_where_leases_cannot_be_written_it_costs_only_double_work(images, alone, tmp_path, tried):
    (tmp_path / "leases").write_text("in the way")
    with together(tmp_path, *[{"images": images}] * 2) as started:
        computed = [run.rows() for run in started]
    require(tmp_path, alone, tried)
    tried("rows computed twice without leases", sum(computed) - len(alone))
