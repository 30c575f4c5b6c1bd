"""Whoever is killed takes with it what it has started, whatever that is busy with, and what they shared in memory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pickles
import pytest
from pickles import is_running

from featstore.api import bench

PATIENCE = 60
"""Seconds for processes to start and to end on a busy machine; they sleep longer than that, if nobody ends them."""
EXECUTOR = """
import sys, pickles
from featstore.executors.processes import Processes
list(Processes(workers=2).run(pickles.hold_the_interpreter, [sys.argv[1]] * 2))
"""
COMPARISON = """
import sys, numpy, pickles
from featstore.evaluation.crossval import parallel_starmap
shared = numpy.zeros(1_000_000)
list(parallel_starmap(pickles.hold_the_interpreter, [(sys.argv[1], shared)] * 4, 2))
"""
READING = """
import sys, pickles
from pathlib import Path
from featstore.isolated_reading import call_isolated as call
call("pickles:hold_the_interpreter", Path(sys.argv[1]))
"""
IN_A_THREAD = """
import sys, threading, numpy, pickles
from featstore.evaluation.crossval import parallel_starmap
def run():
    list(parallel_starmap(pickles.sleep_and_tell, [(sys.argv[1],)] * 4, 2))
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
LATER = """
import sys, threading, pickles
from featstore.evaluation.crossval import parallel_starmap
def run():
    print(list(parallel_starmap(pickles.double, [(1,), (2,)], 2)), flush=True)
for _ in range(2):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
run()
"""
ORDER = {"name": "Xception", "precision": "float32", "batch_size": 1}
BENCH = f"""
import json, sys, time
from pathlib import Path
from featstore.processes import parent_info
from featstore.api import bench
order = json.dumps({ORDER} | {{"parentage": parent_info()}})
worker = bench._start([sys.executable, "-m", bench.WORKER, order, "600"], 1)
(Path(sys.argv[1]) / str(worker.pid)).touch()
time.sleep(600)
"""


@pytest.fixture
def python(tmp_path):
    """Start an interpreter with a script and this folder; it is gone when the test is."""
    started = []

    def start(script, **streams):
        env = {**os.environ, "PYTHONPATH": str(Path(pickles.__file__).parent)}
        started.append(subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=env, **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def shared_memory(pid):
    return [path.name for path in Path("/dev/shm").glob(f"*{pid}*")]  # noqa: S108


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.parametrize(
    ("script", "children"),
    [
        pytest.param(EXECUTOR, 2, id="executor"),
        pytest.param(COMPARISON, 2, id="comparison"),
        pytest.param(READING, 1, id="reading"),
        pytest.param(IN_A_THREAD, 2, id="in-a-thread", marks=pytest.mark.slow),
        pytest.param(BENCH, 1, id="bench", marks=pytest.mark.slow),
    ],
)
def test_a_parent_that_is_killed_leaves_no_process_and_no_shared_memory(script, children, python, tmp_path):
    parent = python(script)
    wait_until(lambda: len(list(tmp_path.iterdir())) == children)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert all(map(is_running, pids))
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_running, pids)))
    wait_until(lambda: not shared_memory(parent.pid))


def test_a_worker_whose_parent_is_gone_before_it_begins_ends_at_once():
    order = json.dumps({**ORDER, "parentage": [1 << 22, True]})
    done = subprocess.run([sys.executable, "-m", bench.WORKER, order, "600"], check=False, timeout=PATIENCE)
    assert done.returncode == 1


@pytest.mark.slow
def test_workers_outlive_a_thread_that_has_started_them_and_ended(python):
    parent = python(LATER, stdout=subprocess.PIPE, text=True)
    assert parent.communicate(timeout=PATIENCE)[0].splitlines() == ["[2, 4]"] * 3
