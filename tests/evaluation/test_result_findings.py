"""What a result can be used for: one answer for everyone, few patients, a guessed positive class."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from featstore import registry
from featstore.evaluation.findings import ScoredImages, comparison_findings, dearer_finding, fusion_findings
from featstore.evaluation.metrics import positive_class
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategies.ridge_loo import RidgeLoo

CLASSES = ("covid", "normal")
ASKED = positive_class(CLASSES, "covid")


def answered(y, answers, groups=None, name="test"):
    groups = np.arange(len(y)) if groups is None else groups
    return ScoredImages(name, np.array(y), np.array(answers), np.asarray(groups).astype(str))


def codes(found):
    return [finding.code for finding in found]


def test_a_model_that_calls_everyone_ill_is_found():
    y = [0] * 30 + [1] * 10
    (finding,) = fusion_findings(CLASSES, [answered(y, [0] * 40)], ASKED)
    assert finding.title == "FS402 one_answer"
    assert finding.count == 40
    assert finding.message == (
        "On the split 'test' the model answers 'covid' for 40 of 40 images: 0 of 10 images of 'normal' are found."
    )
    assert "--sensitivity" in finding.remedy


@pytest.mark.parametrize(
    ("right", "of", "found"), [(0, 40, True), (1, 40, True), (2, 40, True), (3, 40, False), (40, 40, False)]
)
def test_nearly_one_answer_is_one(right, of, found):
    y = [0] * 40 + [1] * of
    answers = [0] * 40 + [1] * right + [0] * (of - right)
    assert ("FS402" in codes(fusion_findings(CLASSES, [answered(y, answers)], ASKED))) == found


def test_a_third_class_that_is_never_answered_is_found():
    y = [0] * 20 + [1] * 20 + [2] * 20
    found = fusion_findings("abc", [answered(y, [0] * 20 + [1] * 40)], positive_class("abc"))
    assert codes(found) == ["FS402"]
    assert "0 of 20 images of 'c' are found" in found[0].message


def test_few_patients_are_counted_by_class_and_not_by_image():
    y = [0] * 60 + [1] * 60
    groups = ["p"] * 60 + [f"q{i}" for i in range(60)]
    (finding,) = fusion_findings(CLASSES, [answered(y, y, groups)], ASKED)
    assert (finding.code, finding.count) == ("FS403", 1)
    assert "1 patient of class 'covid' was scored: no interval: 1 patient of class 'covid'" in finding.message
    groups = [f"p{i % 4}" for i in range(60)] + groups[60:]
    (finding,) = fusion_findings(CLASSES, [answered(y, y, groups)], ASKED)
    assert finding.message.endswith("4 patients of class 'covid' were scored: intervals say next to nothing.")


def test_without_groups_images_are_counted_and_called_so():
    y = [0] * 3 + [1] * 30
    (finding,) = fusion_findings(CLASSES, [answered(y, y)], ASKED, has_groups=False)
    assert "3 images of class 'covid'" in finding.message


def test_enough_patients_and_a_named_class_are_no_finding():
    y = [0] * 30 + [1] * 30
    assert fusion_findings(CLASSES, [answered(y, y)], ASKED) == ()


def test_a_guessed_positive_class_is_said_with_the_line_to_type():
    y = [0] * 30 + [1] * 30
    (finding,) = fusion_findings(CLASSES, [answered(y, y)], positive_class(CLASSES))
    assert finding.title == "FS406 positive_guessed"
    assert "'covid'" in finding.message
    assert finding.remedy == "If that is wrong: --positive normal; if it is right: --positive covid"
    (finding,) = fusion_findings(("a b", "c"), [answered(y, y)], positive_class(("a b", "c")))
    assert "a mere guess" in finding.message
    assert "--positive 'a b'" in finding.remedy


def test_a_comparison_says_it_of_its_leader_and_counts_the_others():
    y = [0] * 30 + [1] * 30
    good, bad = answered(y, y, name="good"), answered(y, [0] * 60, name="bad")
    worse = answered(y, [1] * 60, name="worse")
    (finding,) = comparison_findings(CLASSES, [good, bad, worse], "bad", ASKED)
    assert finding.count == 2
    assert finding.message.startswith("bad, which has the highest AUC, answers 'covid' for 60 of 60 images")
    assert "So do 1 of the 2 others: 'worse'" in finding.message
    (finding,) = comparison_findings(CLASSES, [good, bad, worse], "good", ASKED)
    assert "2 of 3 candidates" in finding.message
    assert "the one with the highest AUC does not" in finding.message
    assert comparison_findings(CLASSES, [good], "good", ASKED) == ()


def test_messages_name_no_patient():
    y, groups = [0] * 3 + [1] * 3, [f"Meier-{i}" for i in range(6)]
    found = fusion_findings(CLASSES, [answered(y, [0] * 6, groups)], positive_class(CLASSES))
    assert codes(found) == ["FS402", "FS403", "FS406"]
    assert not any("Meier" in f"{finding.to_json()}" for finding in found)


def test_a_parameter_at_the_end_of_its_grid_is_told_with_the_next_one_beyond():
    y = np.arange(40) % 2
    (finding,) = fusion_findings(CLASSES, [answered(y, y)], ASKED, at_edge=("C", 50.0, 160.0))
    assert finding.title == "FS413 chosen_at_edge"
    assert "C=50" in finding.message
    assert finding.remedy.endswith("--set C=160")


@pytest.mark.parametrize("kind", [ConcatLogreg, RidgeLoo])
def test_noise_is_fitted_with_the_strongest_penalty_and_one_that_is_given_is_at_no_edge(kind):
    X, y = np.random.default_rng(3).normal(size=(60, 8)), np.arange(60) % 2
    name = "C" if kind is ConcatLogreg else "penalty"
    chosen = kind(**{name: "auto"}).fit(X, y).at_edge()
    assert chosen is not None
    assert chosen[0] == name
    assert chosen[2] < chosen[1] if name == "C" else chosen[2] > chosen[1]
    assert kind(**{name: chosen[1]}).fit(X, y).at_edge() is None


def compared(*named):
    """A comparison of (strategy, networks, verdict against the linear probe on these networks)."""
    candidates = [
        SimpleNamespace(
            strategy=name, backbones=networks, selected_backbones=None, views="expand", test_views="identity",
            label=f"{name}/{networks}",
        )
        for name, networks, _ in named
    ]  # fmt: skip
    pairs = [
        SimpleNamespace(a=f"{name}/{networks}", b=f"concat_logreg/{networks}", verdict=verdict)
        for name, networks, verdict in named
        if verdict
    ]
    return SimpleNamespace(candidates=candidates, pairs=pairs)


def test_strategies_that_cost_more_and_are_not_better_are_told_in_one_line():
    found = dearer_finding(
        compared(
            ("concat_logreg", "AB", ""),
            ("soft_vote", "AB", "cannot_tell"),
            ("concat_mlp", "AB", "cannot_tell"),
            ("stacking", "AB", "b_better"),
        )
    )
    assert found.title == "FS430 dearer_no_better"
    assert found.message.endswith(
        "cost more than twice its computing time: stacking (4.6 times), concat_mlp (3.3 times)."
    )
    assert found.count == 2
    assert found.remedy.endswith(": featstore compare DATA --strategies concat_logreg,soft_vote")


@pytest.mark.parametrize(
    "others",
    [
        [("stacking", "AB", "a_better")],
        [("stacking", "AB", "cannot_tell"), ("concat_logreg", "BC", ""), ("stacking", "BC", "a_better")],
        [("stacking", "BC", "cannot_tell")],
        [("stacking", "AB", "")],
        [("ridge_loo", "AB", "b_better")],
        [("of_somebody_else", "AB", "b_better")],
    ],
    ids=["better", "better on other networks", "other networks", "not tested", "cheap", "price unknown"],
)
def test_nothing_is_told_of_strategies_that_are_better_cheap_or_not_comparable(others):
    assert dearer_finding(compared(("concat_logreg", "AB", ""), *others)) is None


def test_a_pair_counts_from_either_side():
    result = compared(("concat_logreg", "AB", ""), ("stacking", "AB", "cannot_tell"))
    (pair,) = result.pairs
    for verdict, told in (("b_better", False), ("a_better", True)):
        result.pairs = [SimpleNamespace(a=pair.b, b=pair.a, verdict=verdict)]
        assert (dearer_finding(result) is not None) == told


def test_the_declared_prices_are_those_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text("utf-8")
    told = {
        name: float(price)
        for name, price in re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", page, re.MULTILINE)
    }
    folder = "featstore.fusion.strategies"
    assert told == {name: registry.constants(folder, name)["price"] for name in told}
    assert {*registry.names(folder)} >= {*told} >= {"concat_logreg", "stacking"}
