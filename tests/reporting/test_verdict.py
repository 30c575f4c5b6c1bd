"""Sentences that claim no more than was seen."""

from types import SimpleNamespace

import pytest
from fakes_comparison import bias

from featstore.evaluation.pairwise_tests import PairwiseDifference
from featstore.reporting.terminal.comparison import operating_text
from featstore.reporting.verdict import SHOWN, selection_bias_text, summary, verdict


def standing(label, auc, backbones=("A", "B"), **spread):
    parts = {"patients": 0.031, "folds": None, "training": None, **spread}
    candidate = SimpleNamespace(label=label, backbones=backbones)
    return SimpleNamespace(candidate=candidate, primary=auc, variance_components=SimpleNamespace(**parts))


def duel(a, b, verdict, needed=873, p=0.5, delta=0.02):
    return PairwiseDifference(
        a=a,
        b=b,
        metric="auc",
        delta=delta,
        interval=(delta - 0.1, delta + 0.1),
        p=p,
        verdict=verdict,
        needed=needed,
        tests={},
    )


def result(pairs, scored=None, selection_bias=None):
    ranked = scored or [standing("NetA", 0.8, ("A",)), standing("fused", 0.9), standing("voted", 0.7)]
    matrix = {"groups": 48, "has_groups": True}
    return SimpleNamespace(matrix=matrix, pairs=pairs, candidates=ranked, selection_bias=selection_bias)


def test_the_three_verdicts_in_words():
    text = verdict(
        result(
            [
                duel("fused", "NetA", "a_better", p=0.00004),
                duel("voted", "NetA", "b_better", p=0.012, delta=-0.12),
                duel("voted", "fused", "cannot_tell"),
            ]
        )
    )
    assert "fused beats NetA: AUC difference +0.020 [-0.080, +0.120], p < 0.001." in text
    assert "NetA beats voted: AUC difference -0.120 [-0.220, -0.020], p = 0.012." in text
    assert "cannot tell voted from fused with 48 patients (groups); about 880 would be needed" in text
    assert "p adjusted for 3 pairs by Holm" in text


@pytest.mark.parametrize(
    ("needed", "words"),
    [(None, "more than 100 times as many"), (49, "about 49"), (101, "about 110"), (4321, "about 4400")],
)
def test_numbers_needed_have_two_digits_and_an_end(needed, words):
    assert f"{words} would be needed" in verdict(result([duel("fused", "NetA", "cannot_tell", needed)]))


def test_thousands_of_pairs_are_counted_and_a_dozen_shown_the_important_first():
    many = [duel(f"c{i}", "voted", "cannot_tell") for i in range(8000)] + [duel("fused", "NetA", "a_better")]
    lines = verdict(result(many)).splitlines()
    assert len(lines) == 1 + SHOWN + 1
    assert lines[1].startswith("  fused beats NetA")
    assert "Of all 8001 pairs, 1 are told apart" in lines[-1]


def test_fusion_pays_only_where_it_is_told_from_the_best_single_network():
    assert "fusion pays: fused beat" in summary(result([duel("fused", "NetA", "a_better")]))
    assert "no fusion is told apart" in summary(result([duel("fused", "NetA", "cannot_tell")]))


def test_the_best_of_many_is_quoted_without_its_luck():
    winner = bias("fused", of=127)
    text = selection_bias_text(result([], selection_bias=winner))
    assert "Best of 127: fused, AUC 0.900." in text
    assert "expect 0.860 [0.800, 0.910] on others" in text


def test_the_kinds_of_luck_are_named_where_they_were_looked_at():
    few = selection_bias_text(result([], [standing("one", 0.9)]))
    assert few == "The AUC of one moves by about 0.031 with other patients (one standard deviation)."
    every = selection_bias_text(result([], [standing("one", 0.9, folds=0.006, training=0.004)]))
    assert "0.006 with other folds of the same patients, 0.004 with another training seed" in every


def test_an_operating_point_is_explained_and_its_absence_is_not():
    neutral = {"calibration": None, "threshold": None, "sensitivity": None, "positive": 1}
    assert operating_text(neutral, ["covid", "normal"]) == ""
    point = {"calibration": {"method": "platt"}, "threshold": 0.3124, "sensitivity": 0.95, "positive": 0}
    text = operating_text(point, ["covid", "normal"])
    assert "calibrated (platt)" in text
    assert "called 'covid' from a probability of 0.312 on: this found 95 % of them" in text
