"""What the tests of the commands stand on: a fork of a server does what a fresh interpreter does."""

import os
import signal

import pytest
from commandline import featstore, modules_loaded
from commandserver import Server, may_fork

from featstore.backbones.keras_backbone import prepare_keras

PROBE = """
import atexit, logging, os, sys
atexit.register(print, "last words")
print(__name__, *sys.argv[1:], os.getcwd(), os.environ.get("OF_THIS_TEST"), sys.stdout.isatty(), sys.stdin.read())
print("talk \\u4e2d", file=sys.stderr)
sys.modules.setdefault("left_behind", sys) is sys and print(len([n for n in sys.modules if n == "left_behind"]))
if "die" in sys.argv:
    os.kill(os.getpid(), 9)
if "wait" in sys.argv:
    import time
    time.sleep(60)
if "fail" in sys.argv:
    raise ValueError("as a traceback")
sys.exit(7)
"""


@pytest.fixture(scope="module")
def server():
    one = Server([])
    yield one
    one.close()


@pytest.fixture
def probe(tmp_path):
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    return script


@pytest.mark.parametrize(
    "command",
    [["--version"], ["nonsense"], ["strategies", "--json"], ["fuse", "nowhere", "--debug"]],
    ids=" ".join,
)
def test_a_fork_answers_as_a_fresh_interpreter_does(command):
    forked, fresh = (featstore(*command, fresh=choice) for choice in (False, True))
    assert forked.code == fresh.code
    assert forked.out == fresh.out
    assert (
        forked.err.splitlines()[-2:] == fresh.err.splitlines()[-2:]
    )  # a traceback names the interpreter's frames


@pytest.mark.parametrize("command", [["check", "--help"], ["backbones"]], ids=" ".join)
def test_a_fork_has_loaded_what_a_fresh_interpreter_has(command):
    assert modules_loaded(*command) == modules_loaded(*command, fresh=True) == (0, set())


def test_a_fork_has_arguments_folder_environment_and_streams_of_its_own(server, probe, tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THIS_TEST", "yes")
    code, out, err = server.run(probe, ["a", "b c"], tmp_path, 60)
    assert (code, err) == (7, "talk 中\n")
    assert out.splitlines() == [f"__main__ a b c {tmp_path} yes False ", "1", "last words"]
    assert os.environ["OF_THIS_TEST"] == "yes"


def test_who_changes_what_an_interpreter_reads_gets_one(monkeypatch):
    assert may_fork()
    monkeypatch.setenv("OF_THIS_TEST", "yes")
    assert may_fork()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert not may_fork()


@pytest.mark.parametrize(
    "import_keras",
    [pytest.param(True, id="sets variables", marks=pytest.mark.slow), pytest.param(False, id="finds them")],
)
def test_what_an_earlier_test_left_to_be_read_is_no_reason(import_keras):
    """featstore sets variables before it imports Keras; the processes of tests do, now or for an earlier test."""
    if import_keras:
        prepare_keras()
    else:
        assert may_fork()


def test_nothing_is_left_for_the_next(server, probe):
    assert len({server.run(probe, [], None, 60) for _ in range(2)}) == 1


def test_deaths_are_told_apart(server, probe):
    assert server.run(probe, ["die"], None, 60)[0] == -signal.SIGKILL
    assert server.run(probe, ["wait"], None, 0.3)[0] == -signal.SIGKILL
    code, _, err = server.run(probe, ["fail"], None, 60)
    assert (code, err.splitlines()[-1]) == (1, "ValueError: as a traceback")


def test_what_an_interpreter_reads_at_its_start_gets_a_fresh_one(monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    assert "import time: " in featstore("--version").err
