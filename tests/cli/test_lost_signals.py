"""A signal that a library has lost, or made an error of its own of, ends a command all the same."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from fakes import DECODING, GridBackbone, key, records
from featstore_cli import main

from featstore import processes as interruption
from featstore.errors import BackboneError
from featstore.extraction import pipeline as engine
from featstore.extraction.finetune_loop import TrainingBatches
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.processes import PhaseProgress
from featstore.store.store import Store
from featstore.types import IDENTITY


@pytest.fixture
def asked(monkeypatch):
    """A signal has come, and its exception was dropped on the way."""
    monkeypatch.setattr(interruption, "_requested", False)
    with pytest.raises(KeyboardInterrupt):
        interruption.interrupt(signal.SIGINT, None)


@pytest.mark.parametrize(
    "error", [SystemError("bad argument to internal function"), BackboneError("A.", "B.")]
)
def test_whatever_ends_a_command_after_a_signal_is_the_interruption(asked, error, monkeypatch, capsys):
    def app(*_, **__):
        raise error

    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(main.processes, "install_handlers", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("featstore: Interrupted.\n")


def test_without_a_signal_a_defect_stays_one(monkeypatch, capsys):
    def app(*_, **__):
        raise SystemError("bad argument to internal function")

    monkeypatch.setattr(interruption, "_requested", False)
    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(main.processes, "install_handlers", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert "defect of featstore" in capsys.readouterr().err


def test_a_lost_signal_ends_an_extraction_before_the_next_batch(asked, tmp_path):
    images = records(tmp_path / "data", 3)
    wanted = replace(key(), decoding=replace(DECODING, decoder=decoder_version()))
    grids = {wanted.backbone: GridBackbone(wanted.backbone)}
    todo = image_blocks(plan([wanted], list(images), {}))
    with pytest.raises(KeyboardInterrupt):
        engine.run_pass(
            todo, images, wanted.decoding, grids, Store(tmp_path / "cache"), engine.NullProgress()
        )
    assert not list((tmp_path / "cache").rglob("*.h5"))


def test_a_lost_signal_ends_a_fine_tuning_before_the_next_batch(asked, tmp_path):
    import numpy as np

    images = tuple(records(tmp_path / "data", 3).values())
    decoding = replace(DECODING, decoder=decoder_version())
    batches = TrainingBatches(images, np.zeros(3, np.int32), np.ones(3, np.float32), decoding, 16, 2)
    with pytest.raises(KeyboardInterrupt):
        list(batches.stream(IDENTITY))


def test_a_lost_signal_ends_a_comparison_before_the_next_fit(asked):
    with pytest.raises(KeyboardInterrupt), PhaseProgress().counter("fit", "fit", 1) as step:
        step()


def test_a_job_that_the_shell_has_made_deaf_to_ctrl_c_stays_so():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interruption.install_handlers()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is interruption.interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interruption.install_handlers()
        assert signal.getsignal(signal.SIGINT) is interruption.interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


LATE = """
import atexit, os, signal, sys
from contextlib import contextmanager
import typer
from featstore_cli import main

def ask(*_):
    os.kill(os.getpid(), signal.SIGTERM)

@contextmanager
def bars(**_):
    try:
        yield
    finally:
        ask()

match sys.argv.pop():
    case "while the interpreter ends":
        atexit.register(ask)
    case "behind the command":
        main.progress_bars = bars
    case "while typer ends":
        main.Commands.get_params = lambda *_: ask()
sys.argv = ["featstore", "recipes"]
main.main()
"""


@pytest.mark.parametrize(
    ("when", "code"),
    [("while the interpreter ends", 0), ("behind the command", 130), ("while typer ends", 130)],
)
def test_a_signal_before_and_behind_the_command_is_no_traceback(when, code):
    done = subprocess.run([sys.executable, "-c", LATE, when], capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    assert done.stderr == (
        "featstore: Interrupted.\n           What was finished is kept; the same command goes on from there.\n"
        if code
        else ""
    )
