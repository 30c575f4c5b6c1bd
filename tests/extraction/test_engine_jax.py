"""`featstore extract --engine jax`: the vectors of TensorFlow within the contract, and the same bytes every time."""

import json
import os
import re
import subprocess
import time
import warnings
from pathlib import Path
from signal import SIGKILL

import numpy as np
import pytest
from commandline import FEATSTORE, featstore

from featstore.api.compare import compare
from featstore.phantom import make_phantoms
from featstore.store.store import Store

pytestmark = pytest.mark.slow  # each command starts an interpreter, JAX and a network

NET = ["--backbones", "MobileNet025", "--weights", "MobileNet025=random:1"]
VIEWS = ["--seeds", "1"]
CONTRACT = 1e-5
"""Of the largest feature, in float32, between engines: law 2."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_phantoms(tmp_path_factory.mktemp("data") / "images", patients=12, slices=2, size=48)


@pytest.fixture(autouse=True)
def a_process_of_its_own(monkeypatch):
    """Commands start an interpreter each: the server that forks them has Keras on TensorFlow."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "user-cache"))


def extract(data, cache, *options, engine="jax"):
    done = featstore("extract", data, *NET, *VIEWS, "--engine", engine, "--cache", cache, "--json", *options)
    assert done.code == 0, done.err
    return done.json


@pytest.fixture(scope="module")
def stores(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    os.environ["XDG_CACHE_HOME"] = str(folder / "user-cache")
    try:
        results = {
            e: extract(data, folder / e, "--out", folder / f"run-{e}", engine=e)
            for e in ("tensorflow", "jax")
        }
    finally:
        del os.environ["XDG_CACHE_HOME"]
    return folder, results


def vectors(cache):
    store = Store(cache)
    ids = sorted(store.stored_ids(store.feature_keys()[0]))
    return {key: store.read(key, ids) for key in sorted(store.feature_keys(), key=lambda k: k.view)}


def shards(cache):
    return {path.relative_to(cache): path.read_bytes() for path in sorted(cache.rglob("*.h5"))}


def test_views_and_all_come_out_as_of_tensorflow(stores):
    folder, _ = stores
    expected, found = vectors(folder / "tensorflow"), vectors(folder / "jax")
    assert list(expected) == list(found), "the key does not tell the engine"
    assert len(expected) == 2
    for key, rows in expected.items():
        assert rows.shape == (24, 256)
        assert np.abs(found[key] - rows).max() <= CONTRACT * np.abs(rows).max()


def test_a_view_from_farther_away_than_the_device_can_tell_is_warped_by_the_host(data, tmp_path):
    """Fixed point ends at 2048 pixels; a shift by thirty widths of the picture goes beyond, and wraps around."""
    for engine in ("tensorflow", "jax"):
        extract(data, tmp_path / engine, "--recipe", "shift(30)|fill(wrap)", engine=engine)
    expected, found = vectors(tmp_path / "tensorflow"), vectors(tmp_path / "jax")
    assert list(expected) == list(found)
    for key, rows in expected.items():
        assert np.abs(found[key] - rows).max() <= CONTRACT * np.abs(rows).max()


def test_shards_and_run_say_what_computed(stores):
    folder, results = stores
    for engine in ("tensorflow", "jax"):
        store = Store(folder / engine)
        (key, *_) = store.feature_keys()
        store.read(key, list(store.stored_ids(key)))
        ((one,),) = [store.computations[key]]
        assert (one.engine, one.batch_size) == (engine, 16)
        assert one.device
        assert one.libraries.startswith(engine)
        run = json.loads((folder / f"run-{engine}" / "run.json").read_text())
        (done,) = run["paces"]
        recorded = {name: done[name] for name in ("engine", "device", "batch_size", "libraries")}
        assert recorded == {
            "engine": engine, "device": one.device, "batch_size": 16, "libraries": one.libraries,
        }  # fmt: skip
        assert run["engine"] == results[engine]["engine"] == engine
        assert done["start_seconds"] > 0


def test_what_another_engine_has_stored_is_not_missing(data, stores):
    folder, _ = stores
    assert extract(data, folder / "tensorflow", "--dry-run")["missing"] == 0


def test_the_summary_says_on_what_it_computed(data, tmp_path):
    done = featstore("extract", data, *NET, "--engine", "jax", "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    told = " ".join(done.out.split())  # wherever a line ends
    before = "Seconds before the first vector, and images at a time: MobileNet025"
    assert re.search(rf"By JAX on .+\. {before} [\d.]+ s, 16 images\.", told)
    assert "loading JAX and MobileNet025" in done.err
    assert "TensorFlow" not in done.err


def test_tensorflow_need_not_be_installed(data, stores, tmp_path, monkeypatch):
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "tensorflow.py").write_text("raise ImportError('there is no TensorFlow here')\n")
    monkeypatch.setenv("PYTHONPATH", str(absent))
    extract(data, tmp_path / "cache")
    assert shards(tmp_path / "cache") == shards(stores[0] / "jax")


def test_a_comparison_says_that_its_vectors_come_from_two_engines(data, stores, tmp_path):
    folder, _ = stores
    options = {
        "folds": 3,
        "backbones": ["MobileNet025"],
        "strategies": ["concat_logreg"],
        "cache": folder / "mixed",
    }
    other = ["--backbones", "MobileNet025", "--weights", "MobileNet025=random:1", "--cache", folder / "mixed"]
    listed = Path(data).read_text().splitlines()
    half = Path(data).with_name("half.csv")
    half.write_text("\n".join([listed[0], *listed[1::2]]) + "\n")
    for images, engine in ((half, "tensorflow"), (data, "jax")):
        assert featstore("extract", images, *other, "--engine", engine).code == 0
    codes = {finding.code: finding.message for finding in compare(data, **options).findings}
    assert "MobileNet025 by jax and tensorflow" in codes["FS412"]
    alike = compare(data, **{**options, "cache": folder / "jax"})
    assert "FS412" not in {finding.code for finding in alike.findings}


def test_drift_names_engine_and_device_where_vectors_are_others(data, stores):
    folder, _ = stores
    ask = [
        "cache",
        "drift",
        data,
        "--backbones",
        "MobileNet025",
        "--weights",
        "MobileNet025=random:1",
        "--rows",
        6,
    ]
    alike = featstore(*ask, "--engine", "jax", "--cache", folder / "tensorflow", "--json")
    assert alike.code == 0, alike.err
    (found,) = alike.json["backbones"]
    assert 0 < found["of_largest"] <= CONTRACT
    assert found["stored_by"][0].startswith("tensorflow on ")
    assert found["computed_by"].startswith("jax on ")
    strict = featstore(*ask, "--engine", "jax", "--cache", folder / "tensorflow", "--tolerance", "1e-9")
    assert strict.code == 1
    assert "stored by tensorflow on " in strict.out
    assert "computed now by jax on " in strict.out


def test_worker_processes_write_the_bytes_of_one_process(data, stores, tmp_path):
    extract(data, tmp_path / "cache", "--executor", "processes", "--workers", 2)
    assert shards(tmp_path / "cache") == shards(stores[0] / "jax")


def test_workers_of_dask_write_the_bytes_of_one_process(data, stores, tmp_path):
    from distributed import LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distributed has warnings of its own
        with LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster:
            address = ["--scheduler", cluster.scheduler_address]
            extract(data, tmp_path / "cache", "--executor", "dask", "--workers", 2, *address)
    assert shards(tmp_path / "cache") == shards(stores[0] / "jax")


@pytest.mark.crash
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(data, stores, tmp_path):
    cache = tmp_path / "cache"
    command = [FEATSTORE, "extract", data, *NET, *VIEWS, "--engine", "jax", "--cache", cache]
    run = subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not list(cache.rglob("*.h5")) and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(SIGKILL)
    run.wait()
    before = shards(cache)
    assert before
    extract(data, cache)
    assert before.items() <= shards(cache).items()
    assert shards(cache) == shards(stores[0] / "jax")


def test_compiled_networks_are_kept_for_the_next_run(data, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    first = extract(data, tmp_path / "first")
    kept = sorted(path.name for path in (tmp_path / "compiled").iterdir())
    assert any("forward" in name for name in kept)
    second = extract(data, tmp_path / "second")
    assert shards(tmp_path / "first") == shards(tmp_path / "second")
    assert first["computed"] == second["computed"] == 48
