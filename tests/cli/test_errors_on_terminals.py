"""Errors where stderr is a terminal: wrapped at words, what is to be copied whole; in a pipe as they always were."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest
from commandline import FEATSTORE

from featstore.tables import wrapped_error

LEAD = "featstore: "


def said(columns, *arguments, cwd):
    """Lines that the installed command writes to a terminal of so many columns, which is its stderr alone."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    try:
        done = subprocess.run(
            [FEATSTORE, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            cwd=cwd,
            env=environment,
            timeout=120,
            check=False,
        )
        os.close(theirs)
        text = b""
        while part := _read(ours):
            text += part
    finally:
        os.close(ours)
    assert done.returncode in {1, 2}
    lines = text.decode().replace("\r\n", "\n").rstrip("\n").split("\n")
    return lines[next(at for at, line in enumerate(lines) if line.startswith(LEAD)) :]


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


def piped(*arguments, cwd):
    done = subprocess.run(
        [FEATSTORE, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )
    return done.stderr.rstrip("\n").split("\n")[-2:]


def test_an_error_is_wrapped_at_words_on_a_terminal_and_stays_two_lines_in_a_pipe(tmp_path):
    wrong = ["check", tmp_path, "--range", "a,b", "--window", "lung"]
    cause, remedy = piped(*wrong, cwd=tmp_path)
    assert cause.startswith(LEAD)
    assert remedy.startswith(" " * len(LEAD))
    for columns in (60, 80):
        lines = said(columns, *wrong, cwd=tmp_path)
        assert max(map(len, lines)) <= columns
        assert all(line.startswith((LEAD, " " * len(LEAD))) for line in lines)
        assert " ".join(" ".join(lines).split()) == " ".join(f"{cause} {remedy}".split())


def test_a_path_with_spaces_and_a_command_are_never_broken(tmp_path):
    place = tmp_path / "a folder with spaces" / "and one below that is not there" / "at all.csv"
    lines = said(50, "check", place, cwd=tmp_path)
    assert sum(str(place) in line for line in lines) == 1
    assert len(lines) > 2
    lines = said(50, "share", tmp_path / "none here", "--out", tmp_path / "is there.json", cwd=tmp_path)
    assert any("featstore fuse DATA --out RUN" in line for line in lines)


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
@pytest.mark.parametrize(
    "copied",
    [
        "`featstore extract DATA --backbones EfficientNetLite0,MobileNetV2 --window lung --seeds 1-4`",
        "'/data/my big folder of images/nowhere at all'",
        "/data/my big folder/of images/with a scan 17.png",
        "--range=-1350,150",
        "--folds site",
    ],
)
def test_what_is_to_be_copied_is_on_one_line(columns, copied):
    before = "The answer to this is not in what was given, so that it has to be given anew: "
    for text in (
        f"{before}{copied}, and then all is well with it again.",
        f"{copied} is not what it must be.",
    ):
        lines = wrapped_error(text, columns, LEAD).split("\n")
        assert sum(copied in line for line in lines) == 1
        assert re.sub(r"\s+", " ", " ".join(lines)).removeprefix(LEAD) == text
        assert all(len(line) <= max(columns, len(copied) + len(LEAD) + 1, 47) for line in lines)
