"""Negative controls see no lung: a planted marker is told by them, an honest data set is not accused."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commandline import Outcome
from commandline import featstore as command
from PIL import Image
from sklearn.linear_model import LogisticRegression

import featstore
from featstore.evaluation.negative_controls import BACKGROUND, BORDER, fit_by_newton
from featstore.image_facts import background, background_columns, border_columns
from featstore.images.near_copies import SIDE
from featstore.results.comparison import ControlDifference, NegativeControl, NegativeControls

PATIENTS = 48
LUNG = slice(24, 40)


def body(rng):
    """A slice of a chest: bright wall around dark lungs on a dark background; no disease."""
    picture = rng.normal(30, 4, (SIDE, SIDE))
    picture[10:54, 8:56] = rng.normal(170, 4, (44, 48))
    picture[16:48, 14:50] = rng.normal(40, 4, (32, 36))
    return picture


def written(root, *, marker, at_site=0.5, noise=9):
    """Patients of two sites, ill ones with a brighter lung; at the second site a marker in a corner, if any.

    `at_site` is the share of the ill at the second site; of the well the rest is there. Vectors see the lung, with
    `noise`, and the corner.
    """
    rng = np.random.default_rng(0)
    lines, vectors = [], []
    for n in range(PATIENTS):
        ill, site = n % 2, int((n // 2 % 24 < 24 * at_site) == bool(n % 2))
        picture = body(rng)
        picture[LUNG, LUNG] += 25 * ill
        if marker and site:
            picture[1:5, 1:9] = 250
        path = root / f"p{n:02d}.png"
        root.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(path)
        lines.append([path.name, ("well", "ill")[ill], f"p{n:02d}", ("north", "south")[site]])
        seen = np.array(
            [picture[LUNG, LUNG].mean() - 40 + rng.normal(0, noise), picture[1:5, 1:9].mean() / 6]
        )
        vectors.append(np.concatenate([seen, rng.normal(0, 4, 6)]))
    with (root / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "group", "site"], *lines])
    np.savez(
        root.parent / "vectors.npz",
        features=np.array(vectors, np.float32),
        filenames=np.array([line[0] for line in lines]),
    )
    featstore.import_features(
        root / "data.csv", root.parent / "vectors.npz", name="Noise", cache=root.parent / "cache"
    )
    return root


def compared(folder):
    arguments = ["compare", folder / "data.csv", "--cache", folder.parent / "cache", "--positive", "ill"]
    arguments += ["--strategies", "concat_logreg"]
    return command(*arguments, "--folds", "4", "--repeats", "1", "--out", folder.parent / "run")


def page_of(folder):
    target = folder.parent / "report.html"
    done = command("report", folder.parent / "run", "--out", target)
    assert done.code == 0, done.err
    text = (
        target.read_text("utf-8")
        .split("Could it be something else than the disease?")[1]
        .split("</section>")[0]
    )
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


@dataclass(frozen=True)
class Compared:
    folder: Path
    outcome: Outcome

    @property
    def controls(self):
        return json.loads((self.folder.parent / "run" / "metrics.json").read_bytes())["negative_controls"]


def compared_set(folder, **options):
    return Compared(written(folder / "data", **options), compared(folder / "data"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Nine of ten of the ill are of the site whose pictures bear a marker; the vectors hardly see the lung."""
    return compared_set(tmp_path_factory.mktemp("planted"), marker=True, at_site=0.9, noise=60)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return compared_set(tmp_path_factory.mktemp("honest"), marker=False)


def test_a_planted_marker_is_told_on_the_terminal_and_on_the_page(planted):
    assert planted.outcome.code == 0, planted.outcome.err
    assert "FS414 not_above_negative_control" in planted.outcome.out
    assert "without seeing a lung" in planted.outcome.out
    page = page_of(planted.folder)
    assert page.startswith("It could. The b")
    assert "Noise it could" in page
    assert "Disease and site lie in related directions" in page


@pytest.mark.slow
def test_an_honest_data_set_is_not_accused(honest):
    assert honest.outcome.code == 0, honest.outcome.err
    assert "negative_control" not in honest.outcome.out
    page = page_of(honest.folder)
    assert page.startswith("Not by what was tried.")
    assert "Noise above all" in page
    assert "The direction of the disease is not shown to be that of a site" in page


@pytest.mark.slow
def test_the_site_is_predicted_where_the_vectors_tell_it_and_not_where_they_do_not(planted, honest):
    told, free = planted.controls["site"], honest.controls["site"]
    assert told["mean"] > 0.95
    assert told["p"] < 0.05
    assert abs(told["cosine"]) > told["chance"]
    low, high = free["interval"]
    assert low < 0.5 < high
    assert free["p"] > 0.05
    assert (free["sites"], free["images"]) == (2, PATIENTS)


@pytest.mark.slow
def test_controls_of_patients_left_out_and_of_patients_as_units_are_there(honest):
    for options in ({"folds": "group"}, {"folds": 4, "unit": "group"}, {"folds": "site"}):
        result = featstore.compare(
            honest.folder / "data.csv",
            cache=honest.folder.parent / "cache",
            positive="ill",
            repeats=1,
            **options,
        )
        names = [one.name for one in result.negative_controls.controls]
        assert names == ["file alone", "grey histogram alone", BORDER, BACKGROUND]
        assert all(one.interval is not None for one in result.negative_controls.controls)


# What they see


def test_the_border_does_not_see_the_centre_and_sees_a_marker():
    rng = np.random.default_rng(1)
    picture = body(rng).clip(0, 255).astype(np.uint8)
    other = picture.copy()
    other[4:-4, 4:-4] = rng.integers(0, 256, (56, 56))
    np.testing.assert_array_equal(border_columns(picture), border_columns(other))
    other = picture.copy()
    other[1:3, 1:9] = 250
    changed = np.flatnonzero(border_columns(picture) != border_columns(other))
    assert set(changed) >= {0, 16, 17}, "quarter of the upper side, mean and deviation"
    assert not set(changed) & {1, 2, 3, 4 + 3, 5, 6}, "the others but the left side's first"


def test_the_background_does_not_see_the_lungs_and_they_belong_to_the_body():
    rng = np.random.default_rng(2)
    picture = body(rng).clip(0, 255).astype(np.uint8)
    outside = background(picture)
    assert not outside[10:54, 8:56].any()
    assert outside[:10].all()
    other = picture.copy()
    other[16:48, 14:50] = rng.integers(0, 90, (32, 36))
    np.testing.assert_array_equal(background_columns(picture), background_columns(other))
    marked = picture.copy()
    marked[1:4, 1:9] = 250
    assert background(marked)[1:4, 1:9].all(), "a marker is no body"
    assert background_columns(marked)[0] > background_columns(picture)[0] + 0.05


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_picture_of_one_grey_has_columns_too(grey):
    flat = np.full((SIDE, SIDE), grey, np.uint8)
    assert np.isfinite(border_columns(flat)).all()
    assert np.isfinite(background_columns(flat)).all()


@pytest.mark.parametrize("shift", [0.0, 1.0, 9.0])
def test_the_regression_is_that_of_scikit_learn_also_where_classes_are_apart(shift):
    rng = np.random.default_rng(3)
    truth = np.arange(60) % 3 == 0
    x = rng.normal(size=(60, 5)) + shift * truth[:, None]
    found = fit_by_newton(np.column_stack([x, np.ones(60)]), truth, 20.0)
    expected = LogisticRegression(C=20.0, tol=1e-9, max_iter=5000).fit(x, truth)
    np.testing.assert_allclose(found[:-1], expected.coef_[0], atol=1e-3)
    assert found[-1] == pytest.approx(expected.intercept_[0], abs=1e-3)


# The verdict


def judged(delta, interval, control=(0.7, (0.6, 0.8)), *, sees_lung=False):
    found = NegativeControls(
        controls=(NegativeControl(name="border", mean=control[0], interval=control[1], sees_lung=sees_lung),),
        differences=(ControlDifference(model="A", control="border", delta=delta, interval=interval),),
    )
    return found.verdict("A")


def test_a_control_accuses_where_it_is_better_than_guessing_and_the_model_not_clearly_above_it():
    assert judged(0.01, (-0.05, 0.06)) == "explained"
    assert judged(0.01, None) == "explained"
    assert judged(0.2, (0.1, 0.3)) == "apart"
    assert judged(0.01, (-0.05, 0.06), (0.52, (0.4, 0.6))) == "cannot_tell"
    assert judged(0.01, (-0.05, 0.06), (0.52, None)) == "cannot_tell"


def test_a_control_that_sees_the_lungs_grey_accuses_nobody():
    assert judged(-0.1, (-0.2, -0.05), (0.9, (0.8, 0.95)), sees_lung=True) == "apart"
