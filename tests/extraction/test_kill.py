"""kill -9 at every step of every commit and at any moment: nothing visible is broken, nothing promised is lost."""

import json
import os
import random
import time
from itertools import count
from pathlib import Path
from signal import SIGKILL

import pytest
from kill import BLOCK, KEYS, KINDS, NOW, POINTS, Child, Death, extract, pictures

from featstore.api.cache import verify
from featstore.extraction import scheduler as parts
from featstore.store.leases import Leases
from featstore.store.store import Store

pytestmark = pytest.mark.crash

DELAY = 0.004
"""Seconds per batch, so that a random moment falls into every part of a run."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    cache = tmp_path_factory.mktemp("undisturbed")
    assert Child(images, cache).rows() == 10 * len(KEYS)
    return snapshot(cache)


def snapshot(cache):
    """Every vector by key and image, and the table of bad images."""
    store = Store(cache)
    rows = {
        (k, i): row.tobytes()
        for k, ids in store.stored(KEYS).items()
        for i, row in zip(ids, store.read(k, list(ids)), strict=True)
    }
    return rows, dict(store.bad_images(NOW))


def require_nothing_broken_or_lost(cache, promised, undisturbed, tried):
    """What is visible is whole and true, and at least what was promised is there."""
    if not any(cache.glob("*")) and not promised:  # killed before there was a cache
        return 0
    state = verify(cache)
    assert state.bad == ()
    for page in cache.glob("features/*/backbone.json"):
        assert json.loads(page.read_text())["name"] == page.parent.name.partition("@")[0]
    rows, bad = snapshot(cache)
    assert rows.items() <= undisturbed[0].items()
    assert bad.items() <= undisturbed[1].items()
    assert len(rows) >= promised
    tried("shards verified", state.shards)
    tried("shards bad", 0)
    tried("rows lost", 0)
    return len(rows)


def require_the_rest_to_be_computed(images, cache, there, undisturbed):
    assert Child(images, cache).rows() == len(undisturbed[0]) - there
    assert snapshot(cache) == undisturbed
    assert Leases(cache).live() == []
    assert list(cache.glob("leases/*.json")) == []


def is_fast(kind, point):
    """A diagonal: every kind and every point once."""
    return KINDS.index(kind) == POINTS.index(point)


@pytest.mark.parametrize(
    ("kind", "point"),
    [pytest.param(k, p, marks=() if is_fast(k, p) else pytest.mark.slow) for k in KINDS for p in POINTS],
)
def test_a_kill_within_a_commit_breaks_and_loses_nothing(images, undisturbed, tmp_path, tried, kind, point):
    cache = tmp_path / "cache"
    doomed = Child(images, cache, death=Death(kind, point))
    assert doomed.end() == -SIGKILL, "the failure point was never reached"
    tried("kills at failure points")
    there = require_nothing_broken_or_lost(cache, doomed.acknowledged, undisturbed, tried)
    require_the_rest_to_be_computed(images, cache, there, undisturbed)


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_at_random_moments_break_and_lose_nothing(images, undisturbed, tmp_path, tried, kills):
    rng, caches, killed = random.Random(kills), (tmp_path / str(n) for n in count()), 0
    began = time.monotonic()
    Child(images, tmp_path / "measured", delay=DELAY).rows()
    usual = time.monotonic() - began
    cache, there, everything = next(caches), 0, len(undisturbed[0])
    while killed < kills:
        doomed = Child(images, cache, delay=DELAY)
        doomed.wait_for_start()
        time.sleep(rng.random() * usual * (1 - there / everything))
        doomed.send(SIGKILL)
        hit = doomed.end() == -SIGKILL
        killed += hit
        tried("kills at random moments", hit)
        there = require_nothing_broken_or_lost(cache, there + doomed.acknowledged, undisturbed, tried)
        if there == everything or killed == kills:
            require_the_rest_to_be_computed(images, cache, there, undisturbed)
            cache, there = next(caches), 0


@pytest.mark.parametrize("nth", [2, 3, 4])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.slow
def test_a_kill_at_a_later_shard_keeps_the_earlier_ones(images, undisturbed, tmp_path, tried, point, nth):
    cache = tmp_path / "cache"
    doomed = Child(images, cache, death=Death("shard", point, nth))
    assert doomed.end() == -SIGKILL
    tried("kills at failure points")
    assert doomed.acknowledged >= nth - 1
    there = require_nothing_broken_or_lost(cache, doomed.acknowledged, undisturbed, tried)
    require_the_rest_to_be_computed(images, cache, there, undisturbed)


def test_the_failure_points_are_real(images, tmp_path):
    """A shard lies there half-written under its temporary name, and so does the lease of a dead process."""
    cache = tmp_path / "cache"
    assert Child(images, cache, death=Death("shard", "half")).end() == -SIGKILL
    (orphan,) = cache.glob("features/**/.tmp-*")
    assert orphan.stat().st_size > 0
    assert list(cache.glob("features/**/*.h5")) == []
    assert len(list(cache.glob("leases/*.json"))) >= 1


def test_every_commit_syncs_the_bytes_before_the_name_and_the_name_before_the_promise(tmp_path, monkeypatch):
    """What a power cut leaves is up to the order of these calls."""
    images, calls, cache = pictures(tmp_path / "data"), [], tmp_path / "cache"
    monkeypatch.setattr(parts.image_blocks, "__defaults__", (BLOCK,))
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor):
        calls.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def noted_rename(source, target):
        calls.append(("rename", str(source), str(target)))
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    extract(images, cache)
    renames = [at for at, call in enumerate(calls) if call[0] == "rename"]
    assert len(renames) > 15
    for at in renames:
        _, source, target = calls[at]
        assert ("sync", source) in calls[:at]
        assert ("sync", str(Path(target).parent)) in calls[at + 1 :]
