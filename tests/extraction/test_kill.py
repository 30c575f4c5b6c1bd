"""kill -9 at any moment: the store opens, every shard verifies, and a second run ends byte-equal."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import RECIPE, key, spec

from featstore.store.store import Store
from featstore.store.verification import verify
from featstore.types import IDENTITY, View

CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from fakes import DECODING, GridBackbone, records
from test_kill_plan import KEYS, SPECS
from featstore.extraction import engine, plan as planning
from featstore.store.store import Store

planning.BLOCK_ROWS = 4
engine.blocks = lambda todo: planning.blocks(todo, 4)
images = records(Path(sys.argv[2]), 24)
store = Store(Path(sys.argv[3]))
todo = planning.plan(KEYS, list(images), {k: store.stored_ids(k) for k in KEYS})
class Bar:
    def update(self, n=1): print(n, flush=True)
engine.run(todo, images, DECODING, {s: GridBackbone(s, 0.002) for s in SPECS}, store, Bar())
"""
SPECS = [spec("Alpha"), spec("Beta", side=24)]
KEYS = [key(s, v) for v in (IDENTITY, View(RECIPE, 1)) for s in SPECS]


def start(tmp_path, cache):
    plan_module = tmp_path / "test_kill_plan.py"
    plan_module.write_text(
        "from fakes import RECIPE, key, spec\nfrom featstore.types import IDENTITY, View\n"
        'SPECS = [spec("Alpha"), spec("Beta", side=24)]\n'
        "KEYS = [key(s, v) for v in (IDENTITY, View(RECIPE, 1)) for s in SPECS]\n"
    )
    tests = str(Path(__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, str(tmp_path)])}
    command = [sys.executable, "-c", CHILD, tests, str(tmp_path / "data"), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True)


def finish(tmp_path, cache):
    child = start(tmp_path, cache)
    child.communicate(timeout=60)
    assert child.returncode == 0


def snapshot(cache):
    store = Store(cache)
    ids = sorted(store.stored_ids(KEYS[0]))
    return ids, np.hstack([store.read(k, ids) for k in KEYS]).tobytes()


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_killed_extraction_goes_on_where_it_stopped_and_ends_byte_equal(tmp_path, kills):
    finish(tmp_path, tmp_path / "undisturbed")
    rng = random.Random(kills)
    cache, rows = tmp_path / "cache", [0]
    for _ in range(kills):
        child = start(tmp_path, cache)
        for _ in range(rng.randint(1, 6)):
            child.stdout.readline()
        time.sleep(rng.random() * 0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        state = verify(cache)
        assert state.bad == ()
        assert state.rows >= rows[-1], "an acknowledged row was lost"
        rows.append(state.rows)
    finish(tmp_path, cache)
    assert snapshot(cache) == snapshot(tmp_path / "undisturbed")
