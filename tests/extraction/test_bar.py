"""What an extraction says of itself while it works."""

import re
from dataclasses import replace

import pytest
from fakes import key, spec

from featstore.extraction import plan as module
from featstore.extraction.plan import Plan, ProgressBar, plan, roughly
from featstore.time_estimates import CATALOGUE, TimeEstimate

SPECS = [spec("Alpha"), spec("Beta")]
IDS = [f"{number:064x}" for number in range(50)]
PER_VECTOR = {SPECS[0]: 0.1, SPECS[1]: 0.3}
COST = TimeEstimate(20.0, PER_VECTOR, CATALOGUE)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return now


def todo() -> Plan:
    return plan([key(s) for s in SPECS], IDS, {}, {})


def extraction(clock, slower, batches=6, *, shown=True):
    """Batches of five that take `slower` times the expected time; the first of a network a minute more."""
    with ProgressBar(shown=shown) as bar:
        bar.say("reading the data set")
        bar.expect(todo(), COST)
        for number in range(batches):
            for one in SPECS:
                clock[0] += 5 * PER_VECTOR[one] * slower + 60 * (number == 0)
                bar.update(5, one)


def test_phases_come_first_then_the_bar(clock, capsys):
    extraction(clock, 1.0)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0] == "extract: reading the data set"
    assert lines[1] == f"extract: 50 images, 100 vectors to compute, about 20 s ({CATALOGUE})"
    assert "60/100" in said.err
    assert said.out == ""


@pytest.mark.parametrize("slower", [0.25, 8.0, 40.0])
def test_the_first_batches_put_the_estimate_right(clock, capsys, slower):
    """They are the three after the first of each network, whose minute of loading does not count."""
    extraction(clock, slower)
    told = re.findall(r"about (.*) left by the first batches; the estimate was (.*)", capsys.readouterr().err)
    left = (50 - 3 * 5) * PER_VECTOR[SPECS[0]] + (50 - 2 * 5) * PER_VECTOR[SPECS[1]]
    assert told == [(roughly(left * slower), roughly(left))]


@pytest.mark.parametrize("slower", [0.8, 1.0, 1.3])
def test_an_estimate_that_holds_is_left_alone(clock, capsys, slower):
    extraction(clock, slower)
    assert "the estimate was" not in capsys.readouterr().err


def test_nobody_is_told_anything_who_did_not_ask(clock, capsys):
    extraction(clock, 8.0, shown=False)
    assert capsys.readouterr() == ("", "")


def test_without_a_rate_there_is_no_correction(clock, capsys):
    with ProgressBar(shown=True) as bar:
        bar.expect(todo(), replace(COST, seconds=7.0))
        for _ in range(6):
            clock[0] += 99
            bar.update(5)
    assert "left by" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (263, "4 min"), (5400, "1.5 h")]
)
def test_times_are_round(seconds, text):
    assert roughly(seconds) == text
