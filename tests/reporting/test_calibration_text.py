"""Calibration, intervals and the positive class in words; an older run says no number twice."""

import copy

import numpy as np
import pytest
from fakes_comparison import bias, result, scored

from featstore import runs as run
from featstore import serialization as document
from featstore.evaluation.calibration import curves
from featstore.reporting import figures
from featstore.reporting.run_record import read_comparison, read_fusion
from featstore.reporting.terminal.comparison import (
    comparison_text,
    data_text,
    positive_text,
)
from featstore.reporting.verdict import calibration_error, calibration_text, chance_text, selection_bias_text
from featstore.results.document import ShapeError


def metrics_of(folder):
    return document.parse_json((folder / run.METRICS).read_bytes())


def drawn(n, seed=0, sure=1.0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int)
    p = 1 / (1 + np.exp(-sure * odds))
    proba = np.column_stack([1 - p, p])
    return curves(y, proba, proba.argmax(axis=1), 1)


def test_an_error_never_stands_without_what_chance_would_make():
    part = drawn(300)
    text = calibration_text(part)
    error, slope = part["calibration_error"], part["recalibration"]["slope"]
    assert f"ECE {error['ece']:.3f}; a perfectly calibrated model would show {error['expected']:.3f}" in text
    low, high = slope["interval"]
    assert f"slope {slope['value']:.2f} [{low:.2f} to {high:.2f}]" in text
    assert chance_text(part) == f"{error['expected']:.3f} by chance"


def test_what_does_not_exist_is_said_and_why():
    y = np.arange(60) % 2
    p = np.where(y == 1, 0.9, 0.2) + np.linspace(0, 0.05, 60)
    proba = np.column_stack([1 - p, p])
    text = calibration_text(curves(y, proba, y, 1))
    assert "ECE not computed: fewer than 100 images (60)." in text
    assert "slope and intercept are undefined: the probabilities part the classes without an error" in text
    assert calibration_text({}) == ""


def several(classes, n=600):
    rng = np.random.default_rng(3)
    proba = rng.dirichlet(np.full(classes, 0.5), n)
    y = (rng.random((n, 1)) > proba.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return curves(y, proba, proba.argmax(axis=1), None)


def test_three_classes_have_a_slope_and_an_intercept_each():
    part = several(3)
    text = calibration_text(part, ["covid", "flu", "well"])
    for name, found in zip(("covid", "flu", "well"), part["recalibration_by_class"], strict=True):
        (low, high), value = found["slope"]["interval"], found["slope"]["value"]
        assert low < 1 < high
        assert f"{name} {value:.2f} [{low:.2f} to {high:.2f}] and {found['intercept']['value']:.2f}" in text


def test_of_many_classes_those_farthest_from_one_are_told_and_undefined_ones_named():
    part = several(8)
    names = [f"class{c}" for c in range(8)]
    part["recalibration_by_class"][2] |= {"why": "all images are of one class"}
    part["recalibration_by_class"][3]["slope"]["value"] = 9.0
    text = calibration_text(part, names)
    assert "others (of 8, the 5 farthest from 1): " in text
    assert "class3 9.00" in text
    assert text.endswith("undefined: class2.")
    assert calibration_text(part) == calibration_text({"calibration_error": part["calibration_error"]})


@pytest.mark.parametrize(
    "forged",
    [
        {"threshold": 0.5, "sensitivity": 0.9, "positive": 9},
        {"calibration": {"method": "vector", "slopes": [1.0], "offsets": [0.0]}},
        {"calibration": {"method": "magic"}},
        {"threshold": 0.5, "sensitivity": 0.9, "positive": 1, "tolerance": {"confidence": "<b>"}},
        {"threshold": 0.5, "sensitivity": 0.9, "positive": 1, "confidence": 0.95},
    ],
)
def test_a_forged_operating_point_reaches_no_report(world, forged):
    page = metrics_of(world.fuse)
    page["operating"] |= forged
    with pytest.raises(ShapeError):
        read_fusion(page)


def test_the_reliability_figure_says_what_the_text_says():
    part = drawn(300)
    error = part["calibration_error"]
    picture = figures.reliability({"a": part})
    assert f"a ECE {error['ece']:.3f} (by chance {error['expected']:.3f})" in picture.alt
    assert calibration_error(part["calibration"]) == pytest.approx(error["ece"])


def test_few_images_have_a_picture_and_no_error():
    """The row that was seen: "31 images in 1 bins of 31 to 31"."""
    picture = figures.reliability({"a": drawn(31)})
    text = " ".join(t.get_text() for t in picture.figure.findobj() if hasattr(t, "get_text"))
    assert "no ECE: fewer than 100 images" in picture.alt
    assert "bins of" not in text
    assert "31 images, too few for more than one point." in text.replace("\n", " ")


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("asked", "Positive class: 'ill'."),
        (
            "names",
            "(FS406 positive_guessed: since 'well' names its absence; if it is the other one, add --positive",
        ),
        (
            "order",
            "(FS406 positive_guessed: A MERE GUESS, the last in sorted order; if it is the other one, add",
        ),
    ],
)
def test_it_says_which_class_is_positive_and_who_chose_it(origin, words):
    whole = result([scored("a", 0.8, (0.7, 0.9)), scored("b", 0.7, (0.6, 0.8))])
    whole.matrix["positive_origin"] = origin
    text = comparison_text(whole)
    assert "\nPositive class: 'ill'" in text
    assert words in " ".join(text.split())


def test_a_run_of_before_and_more_than_two_classes_are_not_called_a_guess():
    matrix = result([scored("a", 0.8, None), scored("b", 0.7, None)]).matrix
    assert positive_text(matrix) == "Positive class: 'ill'."
    assert data_text({**matrix, "positive": None}).startswith("No positive class: scores are averaged")


def test_a_winner_and_a_table_without_an_interval_say_so():
    whole = result([scored("a", 1.0, None), scored("b", 0.7, (0.6, 0.8))])
    whole.selection_bias = bias("a", apparent=1.0, corrected=1.0, interval=None, optimism=0.0)
    whole.candidates[0].variance_components.patients = None
    text = " ".join(comparison_text(whole).split())
    assert "1.000 [no interval]" in text
    assert "expect 1.000 [no interval] on others" in text
    assert "cannot be said: a class has a single patient" in selection_bias_text(whole)


def older(page, read):
    """What a run of before the calibration error was pooled looks like."""
    page = copy.deepcopy(page)
    holders = page["contestants"] if read is read_comparison else [None]
    for holder in holders:
        parts = [holder["curves"]] if holder else page["curves"].values()
        for part in parts:
            del part["calibration_error"], part["recalibration"]
        if holder:
            holder["metrics"]["ece"] = {
                "mean": 0.044,
                "deviation": 0.01,
                "interval": [0.02, 0.07],
                "folds": [0.04, 0.044, 0.05],
            }
    del page["matrix"]["positive_origin"]
    return page


def test_a_run_of_before_is_read_and_its_table_has_the_error_of_its_figure(world):
    page = older(metrics_of(world.compare), read_comparison)
    for one_candidate, standing_ in zip(page["contestants"], read_comparison(page).candidates, strict=True):
        bins = one_candidate["curves"]["calibration"]
        assert sum(bins["images"]) == 96
        assert standing_.estimates["ece"].mean is None
        bins["images"] = [2 * count for count in bins["images"]]
        again = next(
            s for s in read_comparison(page).candidates if s.candidate.label == one_candidate["name"]
        )
        assert again.estimates["ece"].mean == pytest.approx(calibration_error(bins))
    fused = read_fusion(older(metrics_of(world.fuse), read_fusion))
    assert fused.scores["test"]["ece"].value is None
    assert fused.scores["test"]["auc"].interval is not None


def test_a_run_of_now_is_read_as_it_was_written(world):
    page = metrics_of(world.compare)
    for one_candidate, one in zip(page["contestants"], read_comparison(page).candidates, strict=True):
        assert one.estimates["ece"].mean == one_candidate["metrics"]["ece"]["mean"]
    assert page["matrix"]["positive_origin"] == "names"
    assert page["matrix"]["positive"] == "ill"


def test_a_run_of_before_that_expected_more_than_was_seen_is_told_without_it(world):
    page = metrics_of(world.compare)
    page["winner"] |= {"naive": 0.857, "guarded": 0.859, "optimism": -0.002}
    winner = read_comparison(page).selection_bias
    assert (winner.corrected, winner.optimism) == (0.857, 0.0)
