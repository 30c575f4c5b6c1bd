"""All processes of a comparison hold one matrix, and whoever of them is killed leaves nothing of it."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pickles
import pytest
from fakes import spec, write_images
from fakes_matrix import make_matrix
from pickles import is_running

import featstore
from featstore import processes
from featstore.errors import StoreError, UsageError, WorkerLostError
from featstore.evaluation import candidates
from featstore.evaluation.crossval import cross_validate, for_processes, parallel_starmap
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.results.comparison import Candidate
from featstore.splits import group_folds
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey, View

PATIENCE = 60
"""Seconds for processes to start and to end on a busy machine."""
MANY = {"patients": 400, "width": 200}
"""A matrix of 3.8 MB: small arrays are sent along, and this one would not be, either way."""

# The places where it can lie: each takes away what the one before rests on

MEMORY = ""
OLD_PYTHON = "del os.memfd_create"
UNLINKED = "processes._memfd_create = refused"
NAMED = "processes._open_to_others = lambda: None"
BEGIN = """
import os, sys, pickles
from fakes_matrix import make_matrix
from featstore import processes
from featstore.evaluation.crossval import for_processes, parallel_starmap
def refused():
    raise OSError
"""
HOLD = f"""
matrix = for_processes(make_matrix(**{MANY}), 2)
list(parallel_starmap(pickles.sleep_with, [(sys.argv[1], matrix)] * 4, 2))
"""
places = pytest.mark.parametrize(
    ("place", "named"),
    [
        pytest.param(MEMORY, 0, id="memory"),
        pytest.param(OLD_PYTHON, 0, id="memory-of-an-old-python", marks=pytest.mark.slow),
        pytest.param(UNLINKED, 0, id="unlinked-file", marks=pytest.mark.slow),
        pytest.param(NAMED, 1, id="named-file"),
    ],
)


@pytest.fixture
def python(tmp_path):
    """Start an interpreter with a script and a folder; its temporary files go to one that is given back beside."""
    started, told, temporary = [], tmp_path / "told", tmp_path / "temporary"
    told.mkdir()
    temporary.mkdir()
    support = Path(pickles.__file__).parent

    def start(script):
        env = {**os.environ, "PYTHONPATH": f"{support}:{support.parent}", "TMPDIR": str(temporary)}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", BEGIN + script, str(told)],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    start.told, start.temporary = told, temporary
    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def workers(python, count=2):
    """Process ids of the workers, once all of them have looked at the matrix."""
    wait_until(lambda: len(list(python.told.iterdir())) == count)
    return [int(path.name) for path in python.told.iterdir()]


def files_of(process):
    """What lies under a name in shared memory, but the semaphores of a few bytes, which joblib's tracker removes."""
    return [p for p in Path("/dev/shm").glob(f"*{process.pid}*") if not p.name.startswith("sem.")]  # noqa: S108


@places
def test_a_parent_that_is_killed_leaves_nothing_or_what_the_next_one_removes(place, named, python):
    parent = python(place + HOLD)
    pids = workers(python)
    assert len(list(python.temporary.iterdir())) == named
    assert not files_of(parent)
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_running, pids)))
    wait_until(lambda: not list(Path("/dev/shm").glob(f"*{parent.pid}*")))  # noqa: S108
    assert len(list(python.temporary.iterdir())) == named
    following = python(place + "\nfor_processes(make_matrix(), 2)")
    assert following.wait(PATIENCE) == 0
    assert not list(python.temporary.iterdir())


def test_a_file_that_a_living_process_holds_is_not_taken_for_left(python):
    python(NAMED + HOLD)
    workers(python)
    (file,) = python.temporary.iterdir()
    assert python(NAMED + "\nfor_processes(make_matrix(), 2)").wait(PATIENCE) == 0
    assert list(python.temporary.iterdir()) == [file]


@places
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="terminate", marks=pytest.mark.slow),
    ],
)
def test_who_is_interrupted_leaves_nothing(place, named, number, python):
    parent = python("from featstore.processes import install_handlers; install_handlers()\n" + place + HOLD)
    pids = workers(python)
    parent.send_signal(number)
    assert "KeyboardInterrupt" in parent.communicate(timeout=PATIENCE)[1]
    wait_until(lambda: not any(map(is_running, pids)))
    assert not list(python.temporary.iterdir())
    wait_until(lambda: not files_of(parent))


@places
def test_a_worker_that_is_killed_is_told_and_leaves_nothing(place, named, python):
    parent = python(
        f"{place}\nmatrix = for_processes(make_matrix(**{MANY}), 2)\n"
        "list(parallel_starmap(pickles.die_with, [(matrix,)] * 2, 2))"
    )
    assert "WorkerLostError: A process of --jobs was killed" in parent.communicate(timeout=PATIENCE)[1]
    assert not list(python.temporary.iterdir())
    wait_until(lambda: not files_of(parent))


@places
def test_workers_read_the_memory_of_the_first_process_and_cannot_write_there(place, named, python):
    parent = python(
        f"{place}\nmatrix = for_processes(make_matrix(**{MANY}), 2)\n"
        "print(*[pickles.memory_of(matrix), *parallel_starmap(pickles.memory_of, [(matrix,)] * 4, 2)], sep='\\n')"
    )
    told = [line.strip("()").split(", ") for line in parent.communicate(timeout=PATIENCE)[0].splitlines()]
    assert len(told) == 5
    assert len({pid for pid, *_ in told}) > 1
    assert len({tuple(where) for _, *where in told}) == 1
    assert told[0][-1] == "False"
    assert not list(python.temporary.iterdir())


def test_without_room_it_is_refused_in_two_lines_and_the_remedies_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    matrix = make_matrix()
    monkeypatch.setattr(processes, "_memfd_create", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with monkeypatch.context() as crowded:
        crowded.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreError) as caught:
            for_processes(matrix, 2)
        assert for_processes(matrix, 1) is matrix, "as the remedy says"
    assert caught.value.cause == (
        f"Features for several processes take 0.0 GB in {tmp_path}: No space left on device."
    )
    assert caught.value.remedy == (
        "Set TMPDIR to a folder with more room; or let one process work at a time: --jobs 1."
    )
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(StoreError, match="No such file or directory"):
        for_processes(matrix, 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert np.array_equal(for_processes(matrix, 2).features, matrix.features), "in a folder with room"


def test_where_a_file_system_gives_no_room_beforehand_it_is_written_full(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_open_to_others", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(processes, "ZEROS", 1000)
    matrix = make_matrix()
    shared = for_processes(matrix, 2)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == matrix.features.nbytes
    assert file.read_bytes() == matrix.features.tobytes()
    del shared
    assert not list(tmp_path.iterdir())


def test_what_lies_in_a_mapped_file_is_shared_as_it_is(tmp_path):
    from dataclasses import replace

    matrix = make_matrix()
    np.save(tmp_path / "features.npy", matrix.features)
    for mode, stays in (("r", True), ("r+", True), ("c", False)):
        mapped = replace(matrix, features=np.load(tmp_path / "features.npy", mmap_mode=mode))
        assert (for_processes(mapped, 2) is mapped) == stays
        part = replace(mapped, views=mapped.views[:1], features=mapped.features[:1])
        assert (for_processes(part, 2) is part) == stays
    copy = for_processes(matrix, 2)
    assert copy is not matrix
    assert for_processes(copy, 2) is copy
    kept = np.arange(0, len(matrix.records), 3)
    part = copy.only(kept)
    assert for_processes(part, 2) is part
    assert np.array_equal(part.features, matrix.features[:, kept])


def test_memory_is_that_of_one_matrix_and_of_each_fit(monkeypatch):
    matrix = make_matrix(**MANY)
    splits = group_folds(matrix, 3)
    asked = [Candidate("soft_vote", matrix.backbones, "x")]
    (need,) = candidates.memory_needs(matrix, asked, splits)

    def refuses(table, free, **more):
        monkeypatch.setattr(candidates, "memory_bytes", lambda: (free, free))
        try:
            candidates.require_memory(table, asked, splits, 2, **more)
        except UsageError as error:
            return error.remedy
        return ""

    shared, size = for_processes(matrix, 2), matrix.features.nbytes
    fits = 2 * need.bytes
    assert not refuses(shared, fits)
    assert "--jobs 1" in refuses(shared, fits - 1)
    assert not refuses(matrix, fits + size), "it has to be copied"
    assert "--jobs 1" in refuses(matrix, fits + size - 1)
    assert not refuses(shared, fits + 2 * size, harmonise="per-site"), "each fit has a table of its own"
    assert "--jobs 1" in refuses(shared, fits + 2 * size - 1, harmonise="per-site")
    assert "leave out --harmonise" in refuses(shared, 1, harmonise="per-site")


def test_a_worker_that_is_killed_is_one_line_with_what_to_do():
    with pytest.raises(WorkerLostError) as caught:
        list(parallel_starmap(pickles.die_of, [(0,), (0,)], 2))
    assert "fewer --jobs" in caught.value.remedy


def test_shared_and_own_matrices_give_the_same_bits():
    matrix = make_matrix(patients=20, views=3)
    everyone = [
        Candidate("concat_logreg", matrix.backbones, "a"),
        Candidate("ridge_loo", matrix.backbones, "b", views="average"),
    ]
    splits = group_folds(matrix, 3)
    one, two = (
        [(c, f, p.tobytes()) for c, f, p in cross_validate(matrix, everyone, splits, jobs=jobs)]
        for jobs in (1, 2)
    )
    assert one == two


# The whole command, and what the kernel says that its processes hold

IMAGES, WIDTH, VIEWS = 512, 4096, 16


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Data, and a cache with 134 MB of features of them."""
    folder = tmp_path_factory.mktemp("stored")
    data, rng = write_images(folder / "data", IMAGES), np.random.default_rng(0)
    ids, store = [record.id for record in scan(data).records], Store(folder / "cache")
    for view in (IDENTITY, *(View("flip(h)", seed) for seed in range(1, VIEWS))):
        for name in ("Alpha", "Beta"):
            key = FeatureKey(spec(name, dimension=WIDTH // 2), view, Decoding(decoder_version()))
            store.write(key, ids, rng.standard_normal((len(ids), WIDTH // 2), np.float32))
    store.flush()
    return data, folder / "cache"


def test_compare_loads_into_shared_memory_at_once(stored, monkeypatch):
    data, cache = stored
    copied = []
    monkeypatch.setattr(processes, "_copy", lambda *_: copied.append(1))
    chosen = {"strategies": ["concat_logreg"], "folds": 2, "repeats": 1, "positive": "ill", "cache": cache}
    results = [
        featstore.compare(data, **chosen, views=["identity"], seeds=(), jobs=jobs, resume=False)
        for jobs in (1, 2)
    ]
    assert not copied
    one, two = ([c.proba for c in result.candidates] for result in results)
    assert all(np.array_equal(a, b) for a, b in zip(sum(one, ()), sum(two, ()), strict=True))


@pytest.mark.slow
def test_two_processes_hold_one_matrix_by_what_the_kernel_counts(stored):
    """Peaks of the tree of processes with all views, less those with one: a copy would make it twice that."""
    data, cache = stored
    bytes_of_views = (VIEWS - 1) * IMAGES * WIDTH * 4
    beyond = [peak(data, cache, jobs) - peak(data, cache, jobs, "--seeds", "none") for jobs in (1, 2)]
    assert 0.6 * bytes_of_views < beyond[0] < 1.5 * bytes_of_views
    assert 0.6 * bytes_of_views < beyond[1] < 1.5 * bytes_of_views


def peak(data, cache, jobs, *more):
    command = [str(Path(sys.executable).parent / "featstore"), "compare", str(data), "--cache", str(cache)]
    command += ["--jobs", str(jobs), "--views", "identity", "--test-views", "average", "--no-resume"]
    command += ["--strategies", "concat_logreg", "--repeats", "1", "--positive", "ill", *more]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            most = max(most, sum(proportional_bytes(pid) for pid in family(process.pid)))
            time.sleep(0.02)
        assert process.returncode == 0, process.stderr.read()
    return most


def family(pid):
    children = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if parent_of(path) == pid]
    return [pid, *(each for child in children for each in family(child))]


def parent_of(stat):
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def proportional_bytes(pid):
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE)[1])
