"""Signals, full and read-only disks, folders that vanish, clocks: an exit code, two lines, and nothing broken."""

import os
import random
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from signal import SIGINT, SIGTERM

import pytest
from commandchild import Command, Limits
from fakes import write_images

from featstore.api.cache import verify
from featstore.errors import StoreError
from featstore.store.leases import Leases
from featstore.store.store import Store

pytestmark = pytest.mark.crash

IMAGES, ROWS = 26, 26 * 4
SLOW = Limits(delay=0.01)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images", IMAGES)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert Command(data, folder / "cache", folder).end() == (0, "")
    return vectors(folder / "cache")


def vectors(cache):
    store = Store(cache)
    return {
        (k, i): row.tobytes()
        for k in store.feature_keys()
        for ids in [list(store.stored_ids(k))]
        for i, row in zip(ids, store.read(k, ids), strict=True)
    }


def require_whole(cache, undisturbed, tried):
    state = verify(cache)
    assert state.bad == ()
    assert vectors(cache).items() <= undisturbed.items()
    assert list(cache.rglob(".tmp-*")) == list(cache.glob("leases/*.json")) == []
    tried("shards verified", state.shards)
    tried("shards bad", 0)


def require_the_rest_to_be_computed(data, cache, undisturbed, folder):
    assert Command(data, cache, folder).end() == (0, "")
    assert vectors(cache) == undisturbed


def wait_until_it_computes(command, cache):
    while command.process.is_alive():
        if any(claim.owner.pid == command.process.pid for claim in Leases(cache).live()):
            return
        time.sleep(0.005)


@pytest.mark.parametrize("number", [SIGINT, SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("times", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_a_signal_ends_the_run_with_130_and_keeps_what_was_finished(
    data, undisturbed, tmp_path, tried, number, times
):
    rng, cache = random.Random(times), tmp_path / "cache"
    for _ in range(times):
        command = Command(data, cache, tmp_path, SLOW)
        wait_until_it_computes(command, cache)
        time.sleep(rng.random() * 0.4)
        command.send(number)
        code, said = command.end()
        assert code in {0, 130}
        if code == 130:
            tried("Ctrl-C" if number == SIGINT else "SIGTERM")
            assert said == (
                "featstore: Interrupted.\n"
                "           What was finished is kept; the same command goes on from there.\n"
            )
        require_whole(cache, undisturbed, tried)
        if len(vectors(cache)) == ROWS:
            shutil.rmtree(cache)
    require_the_rest_to_be_computed(data, cache, undisturbed, tmp_path)


def bytes_needed(said):
    wanted = re.search(r"Cannot write ([\d,]+) bytes to .*\n +Free at least ([\d,]+) bytes", said)
    assert wanted, said
    assert wanted[1] == wanted[2]
    return int(wanted[1].replace(",", ""))


@pytest.mark.parametrize("limit", [800, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_file_that_may_not_grow_is_a_full_disk(data, undisturbed, tmp_path, tried, limit):
    cache = tmp_path / "cache"
    code, said = Command(data, cache, tmp_path, Limits(file_bytes=limit)).end()
    assert code == 4
    assert bytes_needed(said) > limit
    tried("full disks")
    require_whole(cache, undisturbed, tried)
    require_the_rest_to_be_computed(data, cache, undisturbed, tmp_path)


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes, where this process may mount one."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "featstore-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def remount(folder, how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True, capture_output=True)


@pytest.mark.parametrize(
    "kilobytes", [40, *(pytest.param(size, marks=pytest.mark.slow) for size in (4, 64, 96))]
)
def test_a_full_disk_says_how_much_it_lacks_and_goes_on_when_it_is_there(
    data, undisturbed, tmp_path, tried, kilobytes
):
    cache = tmp_path / "cache"
    with small_disk(cache, kilobytes * 1024):
        code, said = Command(data, cache, tmp_path / "talk").end()
        assert code == 4
        bytes_needed(said)
        tried("full disks")
        require_whole(cache, undisturbed, tried)
        remount(cache, "size=8m")
        require_the_rest_to_be_computed(data, cache, undisturbed, tmp_path / "talk")


def test_a_read_only_cache_serves_what_it_holds_and_refuses_the_rest(data, undisturbed, tmp_path, tried):
    cache, few = tmp_path / "cache", write_images(tmp_path / "few", 3)
    with small_disk(cache, 8 << 20):
        assert Command(few, cache, tmp_path / "talk").end() == (0, "")
        remount(cache, "ro")
        assert Command(few, cache, tmp_path / "talk").end() == (0, "")
        before = vectors(cache)
        code, said = Command(data, cache, tmp_path / "talk").end()
        tried("read-only caches")
        assert code == 4
        assert "Read-only file system" in said
        assert "--cache" in said
        assert vectors(cache) == before


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_cache_that_is_deleted_during_the_run_is_noticed_or_was_not_needed(
    data, undisturbed, tmp_path, tried, times
):
    """Never exit 0 with some of the rows: either all are there, or they were deleted after the last."""
    rng = random.Random(times)
    for number in range(times):
        cache = tmp_path / str(number)
        command = Command(data, cache, tmp_path / "talk", SLOW)
        wait_until_it_computes(command, cache)
        time.sleep(rng.random() * 0.3)
        shutil.rmtree(cache, ignore_errors=True)
        deleted_in_time = command.process.is_alive()
        code, said = command.end()
        tried("caches deleted", deleted_in_time)
        assert code in {0, 4}, said
        if code == 4:
            assert said.count("\n") == 2, said
        else:
            assert len(vectors(cache)) in {0, ROWS}
        try:
            assert verify(cache).bad == ()
        except StoreError:  # it is gone as a whole
            assert list(cache.rglob("*.h5")) == []
        require_the_rest_to_be_computed(data, cache, undisturbed, tmp_path / "talk")


@pytest.mark.parametrize(
    "seconds",
    [
        -(40 * 365 * 86400),
        3600,
        *(pytest.param(s, marks=pytest.mark.slow) for s in (-3600, 40 * 365 * 86400)),
    ],
)
def test_a_clock_that_was_set_moves_no_row(data, undisturbed, tmp_path, tried, seconds):
    """All files of the cache bear the time of a clock that was wrong by hours or decades."""
    cache = tmp_path / "cache"
    assert Command(data, cache, tmp_path).end() == (0, "")
    now = time.time() + seconds
    for path in cache.rglob("*"):
        os.utime(path, (now, now))
    assert vectors(cache) == undisturbed
    command = Command(data, cache, tmp_path)
    assert command.end() == (0, "")
    assert '"computed": 0' in command.output.read_text()
    tried("clocks set")
