"""Sentences that claim no more than was seen."""

from types import SimpleNamespace

import pytest
from fakes_comparison import bias, difference, planned, question

from featstore.findings import Finding
from featstore.reporting.terminal.comparison import operating_text
from featstore.reporting.verdict import (
    SHOWN,
    consequences,
    fusion_shortcut_text,
    pairs_text,
    selection_bias_text,
    summary,
)


def scores(label, auc, backbones=("A", "B"), **spread):
    parts = {"patients": 0.031, "folds": None, "training": None, **spread}
    candidate = SimpleNamespace(label=label, backbones=backbones)
    return SimpleNamespace(candidate=candidate, primary=auc, variance_components=SimpleNamespace(**parts))


def result(pairs, scored=None, selection_bias=None):
    ranked = scored or [scores("NetA", 0.8, ("A",)), scores("fused", 0.9), scores("voted", 0.7)]
    matrix = {"groups": 48, "has_groups": True, "backbones": [{"name": "NetA"}, {"name": "NetB"}]}
    return SimpleNamespace(
        matrix=matrix,
        pairs=pairs,
        candidates=ranked,
        selection_bias=selection_bias,
        primary_question=None,
        planning=None,
        protocol=SimpleNamespace(adjustment="max-T"),
    )


def test_pairs_are_exploration_and_say_so():
    text = pairs_text(
        result(
            [
                difference("fused", "NetA", "a_better", p=0.00004),
                difference("voted", "NetA", "b_better", p=0.012, delta=-0.12),
                difference("voted", "fused", "cannot_tell"),
            ]
        )
    )
    assert "fused is better than NetA: AUC difference +0.020 [-0.080 to +0.120], p < 0.001." in text
    assert "NetA is better than voted: AUC difference -0.120 [-0.220 to -0.020], p = 0.012." in text
    assert "cannot tell voted from fused" in text
    assert "for exploration: simultaneous 95 % intervals and p by step-down max-T" in text


def test_pairs_of_an_older_run_are_called_what_they_are():
    old = result([difference("fused", "NetA", "a_better")])
    old.protocol.adjustment = "holm"
    assert "adjusted for all pairs (Holm)" in pairs_text(old)


def test_thousands_of_pairs_are_counted_and_a_dozen_shown_the_important_first():
    many = [difference(f"c{i}", "voted", "cannot_tell") for i in range(8000)]
    lines = pairs_text(result([*many, difference("fused", "NetA", "a_better")])).splitlines()
    assert len(lines) == 1 + SHOWN + 1
    assert lines[1].startswith("  fused is better than NetA")
    assert "Of all 8,001 pairs, 1 differ" in lines[-1]


def ask(verdict, **changed):
    found = result([])
    found.primary_question = question(verdict, against="NetA", **changed)
    return found


def test_a_number_of_patients_has_two_digits_and_an_interval():
    (said,) = consequences(ask("cannot_tell", needed=8321, needed_interval=(6400, 10950)))
    assert said == (
        "These 24 patients tell a true difference from about 0.051 on (80 % power); one of 0.01 would need about"
        " 8,400 (6,400 to 11,000)."
    )


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("guessing", "No number of patients is promised"),
        ("too_many", "more than 100 times as many patients."),
    ],
)
def test_where_noise_gives_no_number_none_is_promised(why, words):
    (said,) = consequences(ask("cannot_tell", no_number=why))
    assert words in said


def test_no_difference_of_two_aucs_is_promised_that_cannot_be():
    (said,) = consequences(ask("cannot_tell", detectable=1.611, no_number="guessing"))
    assert said.startswith(
        "These 24 patients are too few to tell any difference in AUC (80 % power). No number"
    )


@pytest.mark.parametrize("verdict", ["better", "equivalent", "worse"])
def test_an_answer_asks_for_no_more_patients(verdict):
    assert consequences(ask(verdict)) == []


def test_a_fusion_that_is_not_above_a_shortcut_is_told_in_the_answer():
    shortcuts = (planned("file alone", -0.02), planned("most frequent class", 0.3))
    (said,) = consequences(ask("better", shortcuts=shortcuts, above_shortcuts=False))
    assert said.startswith(
        "But it is not shown to be better than the best guess without a network, file alone"
    )
    (said,) = consequences(ask("better", shortcuts=shortcuts, above_shortcuts=True))
    assert said.startswith("It is better than the best guess without a network")


def fitted(value, guess, *findings):
    def score(number):
        return {"auc": SimpleNamespace(value=number)}

    guesses = {"file alone": score(guess), "most frequent class": score(0.5)}
    return SimpleNamespace(scores={"test": score(value)}, shortcuts={"test": guesses}, findings=findings)


def test_a_fit_that_is_not_above_a_shortcut_is_told_in_the_answer_of_its_own_split():
    of_val = Finding("FS401", "On val ...", value=-0.0009, interval=(-0.2, 0.25))
    of_test = Finding("FS401", "On test ...", value=0.0287, interval=(-0.18, 0.285))
    assert fusion_shortcut_text(fitted(0.9383, 0.9096, of_val), "test") == ""
    assert fusion_shortcut_text(fitted(0.9383, 0.9096), "test") == ""
    said = fusion_shortcut_text(fitted(0.9383, 0.9096, of_val, of_test), "test")
    assert said.startswith(
        "It is not shown to be better than the best guess without a network, file alone (difference +0.029 "
    )
    assert said.endswith("these images may be told apart without seeing the disease.")


def test_a_gain_smaller_than_the_margin_is_called_that():
    singles = (planned("NetA", 0.004, interval=(0.001, 0.007)),)
    assert summary(ask("better", singles=singles)).startswith(
        "Yes: fused is better than every single network, by less than the margin of 0.01. Hardest to surpass is NetA"
    )


def test_of_a_run_from_before_the_question_it_is_said_who_is_ahead():
    assert "fusion pays: fused beat" in summary(result([difference("fused", "NetA", "a_better")]))
    assert "no fusion is told apart" in summary(result([difference("fused", "NetA", "cannot_tell")]))


def test_the_best_of_many_is_quoted_without_its_luck():
    winner = bias("fused", of=127)
    text = selection_bias_text(result([], selection_bias=winner))
    assert "Best of 127: fused, AUC 0.900." in text
    assert "expect 0.860 [0.800 to 0.910] on others" in text


def test_the_kinds_of_luck_are_named_where_they_were_looked_at():
    assert selection_bias_text(result([], [scores("one", 0.9)])) == ""
    every = selection_bias_text(result([], [scores("one", 0.9, folds=0.006, training=0.004)]))
    assert "0.006 with other folds of the same patients, 0.004 with another training seed" in every


def test_an_operating_point_is_explained_and_its_absence_is_not():
    neutral = {"calibration": None, "threshold": None, "sensitivity": None, "positive": 1}
    assert operating_text(neutral, ["covid", "normal"]) == ""
    point = {"calibration": {"method": "platt"}, "threshold": 0.3124, "sensitivity": 0.95, "positive": 0}
    text = operating_text(point, ["covid", "normal"])
    assert "calibrated (platt)" in text
    assert "called 'covid' from a probability of 0.312 on: this found 95 % of them" in text
