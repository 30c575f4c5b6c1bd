"""What strangers name their files and classes must not steer the terminal of whoever looks at them."""

import logging
import re

import numpy as np
import pytest
from commandline import featstore
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featstore.tables import printable, printable_lines, table

pytestmark = pytest.mark.hostile

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r\b\u202egnp.exe\x9b1A\x00"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@given(st.text() | st.text(st.characters(codec=None, categories=["Cc", "Cf", "Cs", "Zl"])))
def test_no_control_character_gets_through(text):
    assert printable(text).isprintable()
    assert not CONTROL.search(printable_lines(text))
    assert printable_lines(text).count("\n") == text.count("\n")
    assert all(line.isprintable() for line in table([text], [[text], [1]]).split("\n"))
    printable(text).encode()


def test_plain_text_stays_as_it_is():
    assert printable("Müller 大 é ½") == "Müller 大 é ½"


@pytest.fixture
def hostile(tmp_path):
    """A data set whose folders and files are named to be obeyed."""
    name = ESCAPES.replace("\x00", "")
    for label in (f"ill{name}", "well"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(3):
            pixels = (
                np.random.default_rng([number, len(label)]).integers(0, 255, (20, 20, 3)).astype(np.uint8)
            )
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{name}{number}.png")
        (tmp_path / "data" / label / f"{name}.gif").write_bytes(
            (tmp_path / "data" / label / f"{name}1.png").read_bytes()
        )
        (tmp_path / "data" / label / f"bad{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n\x1b[2J")
        (tmp_path / "data" / label / f"text{name}.jpg").write_bytes(b"\x1b[2J")
    return tmp_path / "data"


def require_harmless(done):
    assert not CONTROL.search(done.out), ascii(done.out)
    assert not CONTROL.search(done.err.replace("\r", "")), ascii(done.err)
    assert "Traceback" not in done.err


def test_every_command_spells_control_characters_out(hostile, tried):
    checked = featstore("check", hostile)
    require_harmless(checked)
    assert "\\x1b" in checked.out
    planned = featstore("extract", hostile, "--backbones", "EfficientNetLite0", "--dry-run")
    require_harmless(planned)
    assert "\\x1b" in planned.out
    tried("commands shown names that steer a terminal", 2)


def test_so_do_errors_and_tracebacks(hostile, tried):
    lost = featstore("extract", hostile / f"gone\n{ESCAPES[:-1]}", "--debug")
    assert lost.code == 2
    assert "Traceback" in lost.err
    assert not CONTROL.search(lost.err), ascii(lost.err)
    (hostile / f"stray{ESCAPES[:-1]}\n.png").write_bytes(b"")
    stray = featstore("check", hostile)
    assert stray.code == 2
    assert stray.err.splitlines()[:-2] == ["check: reading the data set"]
    require_harmless(stray)
    tried("commands shown names that steer a terminal", 2)


def test_so_does_the_log():
    from featstore_cli.main import Printable

    record = logging.LogRecord("x", logging.WARNING, "", 0, "bad shard %s", (f"a{ESCAPES}",), None)
    assert not CONTROL.search(Printable("featstore: %(message)s").format(record))
