"""A file that ends the process which reads it costs that file and one line; the next is read as if nothing were."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featstore import isolated_reading as caller
from featstore import isolated_reading as frames
from featstore import isolated_reading as server
from featstore.errors import RefusedFileError, UsageError
from featstore.isolated_reading import LostError, call_isolated

pytestmark = pytest.mark.hostile
WORKS = "isolated_works:"


@pytest.fixture(autouse=True, scope="module")
def fresh():
    """No process of another module answers in this one, nor the other way round."""
    caller._end_all()
    yield
    caller._end_all()


def alive(path="x"):
    return call_isolated(f"{WORKS}told", Path(path))[0]


def test_values_and_arrays_come_back_and_noise_does_not(tmp_path, capfd):
    value, arrays = call_isolated(f"{WORKS}twice", tmp_path, ["a", "\udce9"])
    assert value == [["a", "\udce9"], "\udcff"]
    np.testing.assert_array_equal(arrays[0], np.arange(6.0).reshape(2, 3).T)
    np.testing.assert_array_equal(arrays[1], [b"ab", b"c"])
    assert (arrays[2].shape, bool(arrays[2]), arrays[3].shape) == ((), True, (0, 4))
    assert capfd.readouterr() == ("", "")


def test_one_process_reads_one_file_after_the_other_where_the_caller_is(tmp_path, monkeypatch):
    first = alive()
    monkeypatch.chdir(tmp_path)
    second = alive("here.h5")
    assert first["pid"] == second["pid"] != os.getpid()
    assert (second["folder"], second["name"]) == (str(tmp_path), "here.h5")


def test_a_working_folder_that_is_gone_is_no_hindrance(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert alive(tmp_path / "x.h5")["name"] == str(tmp_path / "x.h5")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_dies_of_a_file_is_told_in_one_line_and_replaced(number, tmp_path, capfd):
    with pytest.raises(LostError) as caught:
        call_isolated(f"{WORKS}die", tmp_path, number)
    assert str(caught.value) == f"the library that reads it dies of it ({number.name})"
    assert alive()
    assert capfd.readouterr() == ("", "")


def test_a_process_that_takes_too_long_is_told_so(tmp_path):
    with pytest.raises(LostError, match="reading it takes longer than a file of its size may"):
        call_isolated(f"{WORKS}die", tmp_path, signal.SIGXCPU)
    assert alive()


def test_a_death_that_may_be_the_fault_of_the_file_before_is_tried_again_by_a_new_process(tmp_path):
    first, _ = call_isolated(f"{WORKS}die_after_another", tmp_path)
    second, _ = call_isolated(f"{WORKS}die_after_another", tmp_path)
    assert first != second


def test_memory_beyond_the_limit_is_refused_and_the_process_goes_on(tmp_path):
    before = alive()["pid"]
    with pytest.raises(LostError, match="more memory than a file of its size may"):
        call_isolated(f"{WORKS}swallow", tmp_path)
    assert alive()["pid"] == before


def test_limits_grow_with_the_file_and_no_core_is_written(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"")
    with large.open("wb") as file:
        file.truncate(64 << 20)
    (data, time, core), (more_data, more_time, _) = (alive(path)["limits"] for path in (small, large))
    assert server.MEMORY < data < server.MEMORY + (1 << 30)
    assert more_data - data >= server.MEMORY_PER_BYTE * (64 << 20) - (256 << 20)
    assert time <= server.SECONDS + 5
    assert more_time - time >= (64 << 20) // server.BYTES_PER_COMPUTED_SECOND
    assert core == 0


def test_errors_come_back_as_what_they_are(tmp_path):
    with pytest.raises(UsageError) as caught:
        call_isolated(f"{WORKS}refuse", tmp_path, "usage")
    assert (caught.value.cause, caught.value.remedy) == ("cause", "remedy")
    with pytest.raises(FileNotFoundError, match="No such file"):
        call_isolated(f"{WORKS}refuse", tmp_path, "absent")


def test_after_a_file_at_which_a_library_stumbled_a_new_process_reads(tmp_path):
    """The memory of the old one may be anything."""
    before = alive()["pid"]
    for kind in ("usage", "refuse"):
        with pytest.raises((UsageError, RefusedFileError)):
            call_isolated(f"{WORKS}refuse", tmp_path, kind)
    assert alive()["pid"] == before
    with pytest.raises(RefusedFileError):
        call_isolated(f"{WORKS}refuse", tmp_path, "stumble")
    assert alive()["pid"] != before


def test_a_process_that_had_nothing_to_do_for_long_is_replaced_without_a_word(monkeypatch):
    before = alive()["pid"]
    os.kill(before, signal.SIGKILL)
    assert alive()["pid"] != before


def test_threads_have_a_process_each(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        answers = [*pool.map(lambda _: alive()["pid"], range(6))]
    assert 1 <= len({*answers}) <= 2


def test_a_fork_asks_processes_of_its_own():
    before = alive()["pid"]
    child = os.fork()
    if not child:
        os._exit(0 if alive()["pid"] != before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert alive()["pid"] == before


def test_modules_of_the_working_folder_are_not_taken_for_those_of_python(tmp_path, monkeypatch):
    """Who reads a stranger's file stands in the stranger's folder."""
    for name in ("numpy", "json", "socket", "featstore", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("import os; os.mkdir('taken')\n")
    monkeypatch.chdir(tmp_path)
    assert alive()
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff" * 8,
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"junk",
        (48).to_bytes(8, "little") + b'[0, [{"dtype": "|O", "shape": [3]}]]'.ljust(48),
        (48).to_bytes(8, "little") + b'[0, [{"dtype": "<f8", "shape": [1000]}]]'.ljust(48),
        (48).to_bytes(8, "little") + b'[0, [{"dtype": "<f8", "shape": [-1]}]]'.ljust(48),
        b"\1\0",
    ],
    ids=["long", "empty", "no JSON", "objects", "large", "negative", "cut"],
)
def test_an_answer_that_is_none_is_refused(message):
    """The process that read a strange file may be the stranger's by now."""
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(message)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(frames.FrameError):
            frames.receive(ours, 1000)
