"""`featstore compare` where a person looks on: colours on a terminal, the same text everywhere else."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import termios

import pytest
from commandline import FEATSTORE
from fakes_comparison import result, scored
from featstore_cli.printing import print_comparison

WIDTH = 80
SEEN = result([scored("fused\x1b[31m", 0.9, (0.8, 0.95)), scored("A", 0.8, (0.7, 0.9), ("A",))])


class Stream(io.TextIOWrapper):
    """A stdout that says of itself whether a person looks on."""

    def __init__(self, encoding, looked_at):
        super().__init__(io.BytesIO(), encoding=encoding)
        self.looked_at = looked_at

    def isatty(self):
        return self.looked_at


@pytest.fixture
def printed(monkeypatch):
    """What `print_comparison` writes to such a stdout."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def show(encoding="utf-8", *, looked_at=True):
        stream = Stream(encoding, looked_at)
        monkeypatch.setattr("sys.stdout", stream)
        print_comparison(SEEN)
        stream.flush()
        return stream.buffer.getvalue().decode(encoding)

    return show


def test_a_terminal_is_shown_the_answer_in_colour_and_the_primary_fusion_in_bold(printed):
    shown = printed()
    assert shown.startswith("\x1b[33m\x1b[1mCannot tell yet")
    assert "\x1b[1m* fused\\x1b[31m" in shown


@pytest.mark.parametrize("setting", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_whoever_wants_no_colour_gets_no_escapes(printed, monkeypatch, setting):
    monkeypatch.setenv(*setting)
    shown = printed()
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= WIDTH


def test_an_empty_no_color_is_no_wish(printed, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[1m" in printed()


def test_a_pipe_gets_the_same_text_without_colours(printed, monkeypatch):
    piped = printed(looked_at=False)
    assert "\x1b" not in piped
    monkeypatch.setenv("NO_COLOR", "1")
    assert piped == printed()


def test_a_pipe_in_ascii_gets_it_too(printed):
    assert printed("ascii", looked_at=False) == printed(looked_at=False)


@pytest.mark.slow
def test_the_command_knows_a_terminal_when_it_has_one(world):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    command = [FEATSTORE, "compare", world.data, "--strategies", "concat_logreg", "--folds", "2"]
    settings = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS"}}
    child = subprocess.Popen(
        [*map(str, command), "--cache", str(world.cache)],
        stdout=theirs,
        stderr=theirs,
        env={**settings, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(ours)
    assert child.wait() == 0
    text = shown.decode().replace("\r\n", "\n")
    assert "\x1b[1m" in text
    assert "better than both single networks" in " ".join(text.split())
    assert [phase for phase in ("choose", "fit", "score") if f"{phase}: 100%" in text] == ["fit", "score"]
