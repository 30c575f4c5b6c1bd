"""The installed command over processes and over dask: the bytes of one process, even if a worker is killed."""

import os
import signal
import subprocess
import time
import warnings

import pytest
from commandline import FEATSTORE, NETS, featstore

from featstore.api.cache import verify
from featstore.store.store import Store

OPTIONS = [*NETS, "--recipe", "mild", "--seeds", "1-4"]
KEYS = 2 * 5


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    cache = tmp_path_factory.mktemp("alone") / "cache"
    done = featstore("extract", world.data, *OPTIONS, "--cache", cache)
    assert done.code == 0, done.err
    return cache


def files(cache):
    return {p.relative_to(cache): p.read_bytes() for p in cache.glob("features/**/*") if p.is_file()}


def vectors(cache):
    store = Store(cache)
    keys = sorted(store.feature_keys(), key=str)
    return [
        (k, sorted(store.stored_ids(k)), store.read(k, sorted(store.stored_ids(k))).tobytes()) for k in keys
    ]


def require_every_row_once(cache, like):
    state = verify(cache)
    assert state.bad == ()
    assert state.rows == verify(like).rows
    assert vectors(cache) == vectors(like)


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(world, alone, tmp_path):
    cache = tmp_path / "cache"
    done = featstore(
        "extract", world.data, *OPTIONS, "--cache", cache, "--executor", "processes", "--workers", "2"
    )
    assert done.code == 0, done.err
    assert files(cache) == files(alone)
    again = featstore("extract", world.data, *OPTIONS, "--cache", cache, "--executor", "processes", "--json")
    assert again.json["missing"] == 0


@pytest.mark.slow
def test_the_jobs_of_an_array_together_are_one_run(world, alone, tmp_path):
    cache = tmp_path / "cache"
    for index in (1, 0, 1):
        done = featstore(
            "extract", world.data, *OPTIONS, "--cache", cache, "--num-workers", "2", "--worker-index", index
        )
        assert done.code == 0, done.err
    require_every_row_once(cache, alone)


@pytest.mark.slow
def test_ctrl_c_ends_parent_and_children(world, tmp_path):
    command = [str(FEATSTORE), "extract", str(world.data), *OPTIONS, "--cache", str(tmp_path / "cache")]
    command += ["--executor", "processes", "--workers", "2"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(list(tmp_path.rglob("*.h5"))) > 0, child)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "goes on from there" in said
    assert "Traceback" not in said
    deadline = time.monotonic() + 20
    while members(child.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(child.pid) == []


@pytest.mark.slow
def test_a_dask_worker_killed_in_mid_job_costs_no_row(world, alone, tmp_path):
    from distributed import Client, LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distributed has warnings of its own
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            for cache in (tmp_path / name for name in ("first", "second", "third")):
                before = client.run(os.getpid)
                command = [str(FEATSTORE), "extract", str(world.data), *OPTIONS, "--cache", str(cache)]
                command += ["--executor", "dask", "--workers", "2", "--scheduler", cluster.scheduler_address]
                child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                wait_for(lambda cache=cache: len(list(cache.rglob("*.h5"))) > 0, child)
                os.kill(next(iter(before.values())), signal.SIGKILL)
                in_mid_job = len(list(cache.rglob("*.h5"))) < KEYS
                said = child.communicate(timeout=240)
                assert child.returncode == 0, said
                assert set(client.run(os.getpid).values()) != set(before.values())
                require_every_row_once(cache, alone)
                if in_mid_job:
                    return
    pytest.fail("the job was over before the worker died, three times")


def wait_for(condition, child, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    assert condition()


def members(group):
    """Processes of a process group that still run."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return [pid for pid, pgid, stat in rows if int(pgid) == group and not stat.startswith("Z")]
