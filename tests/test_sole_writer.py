"""A run folder has one writer: who comes second is refused at once, and the folder is that of the first."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest
from fakes import GridBackbone, spec, write_images

import featstore
from featstore import runs as run
from featstore.errors import RunError, UsageError
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.runs import LOCK, sole_writer
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

NET = {"backbone": "MobileNet025", "weights": {"MobileNet025": "random:1"}}
FORK = multiprocessing.get_context("fork")


def stats(folder, start, results, times):
    """Write to the folder as often as it can be had, and tell of every other writer that was met there."""
    start.wait()
    for _ in range(times):
        try:
            with sole_writer(folder):
                mark = folder / "mark"
                met = mark.exists()
                mark.touch()
                (folder / "other").touch()
                mark.unlink()
                (folder / "other").unlink()
                results.put("met" if met else "alone")
        except UsageError:
            results.put("refused")
    results.put(None)


def test_of_many_writers_at_once_no_two_are_ever_inside(tmp_path):
    """The folder comes and goes with each of them, which is where such locks usually leak."""
    start, results, folder = FORK.Event(), FORK.SimpleQueue(), tmp_path / "runs" / "x"
    writers = [FORK.Process(target=stats, args=(folder, start, results, 300)) for _ in range(3)]
    for writer in writers:
        writer.start()
    start.set()
    said, ended = [], 0
    while ended < len(writers):
        answer = results.get()
        ended += answer is None
        said += [answer] if answer else []
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert set(said) <= {"alone", "refused"}
    assert said.count("alone") >= 3
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_the_second_is_told_who_writes_and_changes_nothing(tmp_path):
    with sole_writer(tmp_path), pytest.raises(UsageError) as caught:
        in_a_thread(lambda: enter(sole_writer(tmp_path)))
    assert caught.value.cause == (
        f"{tmp_path} is being written to by process {os.getpid()} on {socket.gethostname()}."
    )
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_step_of_the_same_call_goes_on(tmp_path):
    with sole_writer(tmp_path / "x"), sole_writer(tmp_path / "x"):
        (tmp_path / "x" / "file").touch()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_nobodys(tmp_path):
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom featstore.runs import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = tmp_path / "x"
    done = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in folder.iterdir()] == [LOCK]
    assert stat.S_IMODE((folder / LOCK).stat().st_mode) == 0o600
    with run.reserve_folder(folder, overwrite=False):
        pass
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("planted", ["link", "folder"])
def test_a_lock_that_a_stranger_laid_out_touches_nothing_else(tmp_path, planted):
    folder, target = tmp_path / "x", tmp_path / "target"
    folder.mkdir()
    target.write_text("mine")
    (folder / LOCK).symlink_to(target) if planted == "link" else (folder / LOCK).mkdir()
    with (
        pytest.raises(RunError, match="Cannot write the run to"),
        run.reserve_folder(folder, overwrite=False),
    ):
        pass
    assert target.read_text() == "mine"


def test_where_the_file_system_has_no_locks_the_work_goes_on(tmp_path, monkeypatch):
    def unable(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unable)
    with sole_writer(tmp_path / "x"):
        (tmp_path / "x" / "file").touch()
    assert (tmp_path / "x" / "file").exists()


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_a_place_that_is_no_folder_is_refused_in_a_line(tmp_path, place):
    (tmp_path / "file").touch()
    out = tmp_path / "file" if place == "file" else tmp_path / "file" / "x"
    with pytest.raises(RunError, match="Not a directory"), run.reserve_folder(out, overwrite=True):
        pass


WRITERS = {
    "fuse": lambda **where: featstore.fuse("nowhere", **where),
    "compare": lambda **where: featstore.compare("nowhere", **where),
    "extract": lambda **where: featstore.extract("nowhere", **where),
    "finetune": lambda **where: featstore.finetune("nowhere", **NET, **where),
    "paper": lambda **where: featstore.paper("nowhere", weights={"*": "random:1"}, **where),
    "demo": lambda **where: featstore.demo(where["out"]),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_every_command_that_writes_a_run_is_refused_before_any_work_while_another_does(
    name, overwrite, tmp_path
):
    """The data set does not exist, and nobody has looked."""
    out = tmp_path / "x"
    with sole_writer(out), pytest.raises(UsageError, match="is being written to by process"):
        in_a_thread(lambda: WRITERS[name](out=out, overwrite=overwrite))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"demo"}))
def test_a_call_that_fails_leaves_no_folder(name, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        WRITERS[name](out=tmp_path / "runs" / "x", overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set and its features."""
    folder = tmp_path_factory.mktemp("race")
    data = write_images(folder / "data", 32)
    images = {record.id: record for record in scan(data).records}
    key = FeatureKey(spec(), IDENTITY, Decoding(decoder_version()))
    todo = plan([key], list(images), {})
    grids = {key.backbone: GridBackbone(key.backbone)}
    engine.run_pass(
        image_blocks(todo), images, key.decoding, grids, Store(folder / "cache"), engine.NullProgress()
    )
    return data, folder / "cache"


def race(data, cache, out, start, strategy):
    start.wait()
    try:
        featstore.fuse(data, strategy=strategy, cache=cache, out=out)
    except UsageError as error:
        os._exit(error.exit_code)


def test_of_two_fits_with_one_folder_one_is_refused_and_the_run_is_that_of_the_other(world, tmp_path):
    data, cache = world
    featstore.fuse(data, strategy="knn", cache=cache, out=tmp_path / "warm")
    for number in range(3):
        out, start = tmp_path / str(number), FORK.Event()
        names = ["knn", "nearest_centroid"]
        fits = [FORK.Process(target=race, args=(data, cache, out, start, name)) for name in names]
        for fit in fits:
            fit.start()
        start.set()
        for fit in fits:
            fit.join()
        assert sorted(fit.exitcode for fit in fits) == [0, 2]
        (winner,) = [name for name, fit in zip(names, fits, strict=True) if not fit.exitcode]
        about = run.read_run(out)
        for name in about["files"]:
            run.require_verified(out, about, name)
        assert about["strategy"] == json.loads((out / run.METRICS).read_text())["strategy"] == winner
        assert not (out / LOCK).exists()


def test_a_report_waits_for_no_writer_and_does_not_write_beside_one(world, tmp_path):
    data, cache = world
    out = tmp_path / "x"
    featstore.fuse(data, strategy="knn", cache=cache, out=out)
    with sole_writer(out), pytest.raises(UsageError, match="is being written to by process"):
        in_a_thread(lambda: featstore.write_report(out))
    assert featstore.write_report(out).exists()


def enter(context):
    with context:
        pass


def in_a_thread(function):
    """Call a function in another thread, and raise here what it raises there."""
    raised = []

    def call():
        try:
            function()
        except Exception as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
