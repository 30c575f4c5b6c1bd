"""kill -9 during `featstore extract`, run again: byte-equal to an undisturbed run."""

import random
import signal
import subprocess
import time

import pytest
from commandline import FEATSTORE, NETS

from featstore.api.cache import verify
from featstore.store.store import Store

pytestmark = pytest.mark.slow


def rows(cache):
    store = Store(cache)
    keys = sorted(store.feature_keys(), key=str)
    ids = sorted(store.stored_ids(keys[0]))
    return [(k, store.read(k, ids).tobytes()) for k in keys]


def test_killed_three_times_and_finished_it_is_byte_equal(world, tmp_path):
    command = [
        str(FEATSTORE),
        "extract",
        str(world.data),
        *NETS,
        "--recipe",
        "mild",
        "--seeds",
        "1-4",
        "--cache",
    ]
    subprocess.run([*command, str(tmp_path / "undisturbed")], check=True, capture_output=True)
    rng, cache, seen = random.Random(5), tmp_path / "cache", 0
    for _ in range(3):
        child = subprocess.Popen([*command, str(cache)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(cache.rglob("*.h5"))) <= seen and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        child.send_signal(signal.SIGKILL)
        child.wait()
        state = verify(cache)
        assert state.bad == ()
        assert state.shards > seen
        seen = state.shards
    done = subprocess.run([*command, str(cache)], check=True, capture_output=True, text=True)
    assert "Computed" in done.stdout
    assert rows(cache) == rows(tmp_path / "undisturbed")
