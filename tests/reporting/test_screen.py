"""A comparison on the screen: the answer first, one table, nothing wider or longer than the screen."""

import re

import pytest
from fakes_comparison import difference, question, result, scored

from featstore.findings import CATALOGUE, Finding
from featstore.reporting.terminal.comparison import LINES, ROWS, comparison_screen, comparison_text

FUSED = scored("fused", 0.86, (0.8, 0.95))
SINGLE = scored("A", 0.8, (0.7, 0.9), ("A",))


def plain(lines):
    return "\n".join(line.text for line in lines)


def shown(*more, width=100, **changed):
    return plain(comparison_screen(result([FUSED, SINGLE, *more], **changed), width)).split("\n")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_a_long_name_keeps_both_ends(width):
    long = "concat_logreg:" + "+".join(f"EfficientNetLite{i}" for i in range(5))
    lines = shown(scored(long, 0.9, (0.7, 0.95)), width=width)
    assert max(map(len, lines)) <= width
    assert re.search(r"\n  con.*Lite4 ", "\n".join(lines))


@pytest.mark.parametrize("width", [80, 100])
def test_all_of_it_fits_forty_lines(width):
    many = [scored(f"strategy_{i}", 0.7 + i / 1000, (0.6, 0.8)) for i in range(30)]
    guesses = [scored(name, 0.5, (0.4, 0.6), ()) for name in ("file alone", "grey histogram alone")]
    found = [
        Finding(code, "A message of a hundred characters and more. " * 4, 3)
        for code, kind in CATALOGUE.items()
        if kind.severity == "warning"
    ][:8]
    for findings in ((), found):
        lines = shown(*many, width=width, findings=findings, shortcuts=guesses)
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= width
        rows = [line for line in lines if re.match(r"[* ] \w.*\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", line)]
        assert len(rows) <= ROWS
        for name in ("* fused ", "  A ", "  file alone ", "  grey histogram alone "):
            assert any(line.startswith(name) for line in rows), name


def test_the_table_is_sorted_by_score_with_differences_to_the_best_single_network():
    worse = scored("worse", 0.7, (0.62, 0.78))
    pairs = [difference("fused", "A", "cannot_tell"), difference("worse", "A", "b_better", delta=-0.1)]
    lines = shown(worse, pairs=pairs)
    at = next(at for at, line in enumerate(lines) if line.startswith("AUC, mean of 5 folds"))
    assert lines[at].endswith("difference to the best single network, A")
    assert lines[at + 1 : at + 4] == [
        "* fused  0.860 [0.800, 0.950]  +0.020 [-0.010, +0.050]",
        "  A      0.800 [0.700, 0.900]  (the best single)",
        "  worse  0.700 [0.620, 0.780]  -0.100 [-0.200, +0.000]",
    ]


@pytest.mark.parametrize(
    ("verdict", "stress", "words"),
    [
        ("better", "told", "Yes: fused is better than both single networks."),
        (
            "equivalent",
            "untold",
            "No gain: fused is as good as the best single network, within a margin of 0.01.",
        ),
        ("worse", "untold", "No: A alone is better than fused."),
        ("cannot_tell", "untold", "Cannot tell yet whether fused is better than both single networks."),
    ],
)
def test_the_first_line_is_the_answer(verdict, stress, words):
    lines = comparison_screen(result([FUSED, SINGLE], verdict), 100)
    assert (lines[0].text, lines[0].stress) == (words, stress)
    rest = "AUC 0.860 against 0.800, difference +0.020 [-0.010, +0.050], p = 0.018, 24 patients."
    assert rest in " ".join(lines[1].text.split())
    assert "\x1b" not in plain(lines)


def test_pairs_are_shown_when_asked_for():
    assert "cannot tell fused from A" not in "\n".join(shown())
    text = plain(comparison_screen(result([FUSED, SINGLE]), 100, pairs=True))
    assert "step-down max-T" in text
    assert "cannot tell fused from A: AUC difference +0.020 [-0.080, +0.120], p = 0.500." in text


def test_it_says_where_the_run_lies_and_what_to_do_next(tmp_path):
    assert "Next: --out runs/NAME keeps this run" in comparison_text(result([FUSED, SINGLE]))
    text = plain(comparison_screen(result([FUSED, SINGLE]), 100, out="runs/a b"))
    assert "Run: 'runs/a b'" in text
    assert "featstore report 'runs/a b'" in " ".join(text.split())


def test_a_score_that_a_class_is_missing_for_has_no_interval():
    assert "  none   -" in shown(scored("none", None, None))


def test_without_a_question_it_says_so():
    alone = result([SINGLE, SINGLE], primary_question=None)
    alone.matrix["backbones"] = [{"name": "A"}]
    assert comparison_text(alone).startswith("No question to ask: A is the only network")


def test_a_question_with_more_networks_speaks_of_every_one():
    singles = question("better").singles
    many = question("better", singles=(*singles, singles[1]))
    assert shown(primary_question=many)[0] == "Yes: fused is better than every single network."
