"""A comparison on a terminal: small bars on a common scale, nothing wider than the screen, no escapes in the text."""

import re

import pytest
from fakes_comparison import result, standing
from hypothesis import given
from hypothesis import strategies as st

from featstore.reporting.terminal.comparison import ASCII, DRAWN, bar, comparison_screen

CELLS = 51
scores = st.floats(0, 1)


def plain(lines):
    return "\n".join(line.text for line in lines)


@given(st.tuples(scores, scores, scores).map(sorted), st.sampled_from([DRAWN, ASCII]))
def test_a_bar_has_its_ends_and_its_mean_where_the_scale_has_them(values, marks):
    low, mean, high = values
    drawn = bar(mean, (low, high), (0.0, 1.0), CELLS, marks).ljust(CELLS)
    assert len(drawn) == CELLS
    places = [round(value * (CELLS - 1)) for value in (low, mean, high)]
    assert drawn[places[1]] == marks[3]
    stroke = [at for at, mark in enumerate(drawn) if mark in marks[:4]]
    assert (stroke[0], stroke[-1], len(stroke)) == (places[0], places[2], places[2] - places[0] + 1)


def test_guessing_is_marked_where_the_scale_holds_it_and_nothing_stands_there():
    assert bar(0.9, (0.8, 1.0), (0.4, 1.0), 31, ASCII) == "     :              |----o----|"
    assert ":" not in bar(0.9, (0.8, 1.0), (0.6, 1.0), 31, ASCII)
    assert bar(0.7, None, (0.5, 0.9), 5, ASCII) == "  o"


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width):
    long = "concat_logreg:" + "+".join(f"EfficientNetLite{i}" for i in range(5))
    lines = comparison_screen(
        result([standing(long, 0.9, (0.7, 0.95)), standing("A", 0.8, (0.5, 1.0), ("A",))]), width
    )
    assert max(map(len, plain(lines).split("\n"))) <= width
    assert long in re.sub(r"\s", "", plain(lines))


def test_the_best_is_first_and_stressed_and_bars_share_a_scale():
    lines = comparison_screen(
        result([standing("worse", 0.7, (0.62, 0.78)), standing("better", 0.8, (0.71, 0.88))]), 80, ASCII
    )
    text = [line.text for line in lines]
    first = next(at for at, line in enumerate(text) if line.startswith("better"))
    assert text[first + 1].startswith("worse")
    assert (lines[first].stress, lines[first + 1].stress) == ("strong", "")
    assert re.search(r"0\.60 +0\.90$", text[first - 1])
    bars = [line[len("better  0.800  ") :] for line in text[first : first + 2]]
    assert bars[0].index("|") > bars[1].index("|")


@pytest.mark.parametrize(
    ("verdict", "stress", "words"),
    [("a_better", "told", "fusion pays"), ("cannot_tell", "untold", "no fusion is told apart")],
)
def test_it_ends_with_what_was_found(verdict, stress, words):
    lines = comparison_screen(
        result([standing("fused", 0.9, (0.8, 0.95)), standing("A", 0.8, (0.7, 0.9), ("A",))], verdict)
    )
    assert lines[-1].stress == stress
    assert words in " ".join(lines[-1].text.split())
    assert "\x1b" not in plain(lines)


def test_a_score_that_a_class_is_missing_for_has_no_bar():
    lines = comparison_screen(result([standing("one", 0.8, (0.7, 0.9)), standing("none", None, None)]), 80)
    assert "none      -" in [line.text for line in lines]
