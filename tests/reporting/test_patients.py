"""Patients scored by `compare` and `fuse`: the numbers against an independent reading of the run's own images."""

import csv
from collections import defaultdict

import numpy as np
import pytest
from runs import forge
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from featstore.api.compare import compare, plan
from featstore.api.fuse import fuse
from featstore.api.predict import read_model
from featstore.errors import RunError, UsageError
from featstore.reporting.page.report import compose, render
from featstore.reporting.page.tables import controls_table
from featstore.reporting.run_record import read_records
from featstore.reporting.terminal.comparison import comparison_screen, fusion_text
from featstore.tables import interval_text


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patients")
    source = {"cache": world.cache, "seeds": [1], "unit": "group"}
    compared = compare(
        world.data, strategies=["concat_logreg"], folds=3, repeats=1, out=folder / "compared", **source
    )
    fitted = fuse(world.data, pool="max", sensitivity=0.8, out=folder / "fitted", **source)
    return folder, compared, fitted


def pooled(file, by, positive, pool):
    """By part and patient: label and pooled probability, from the lines about images."""
    images = defaultdict(list)
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            images[tuple(line[name] for name in by), line["group"], line["label"]].append(
                float(line[f"p({positive})"])
            )
    parts = defaultdict(list)
    for (part, _, label), p in images.items():
        parts[part].append((label == positive, pool(np.array(p))))
    return parts


def test_the_auc_is_that_of_patients_whose_images_were_pooled(runs):
    folder, compared, _ = runs
    parts = pooled(
        folder / "compared" / "predictions.csv",
        ("contestant", "fold"),
        "ill",
        lambda p: logit(np.clip(p, 1e-6, 1 - 1e-6)).mean(),
    )
    for scored in compared.candidates:
        mine = [
            roc_auc_score(*zip(*part, strict=True)) for (n, _), part in parts.items() if n == scored.label
        ]
        assert len(mine) == 3
        assert scored.estimates["auc"].mean == pytest.approx(np.mean(mine))
    assert compared.by_image.patients == {"ill": 23, "well": 25}
    assert compared.primary_question.patients == 48
    low, high = compared.candidates[0].estimates["auc"].interval
    assert low < compared.candidates[0].primary < high


def test_scores_by_image_beside_them_are_those_of_a_comparison_of_images(world, runs):
    _, compared, _ = runs
    images = compare(
        world.data, strategies=["concat_logreg"], folds=3, repeats=1, cache=world.cache, seeds=[1]
    )
    assert {s.label: s.estimates for s in images.candidates} == dict(compared.by_image.estimates)
    assert (images.by_image, images.protocol.unit, images.protocol.pool) == (None, "image", None)


def test_a_fit_is_scored_on_patients_at_a_threshold_for_patients(runs):
    folder, _, fitted = runs
    parts = pooled(folder / "fitted" / "predictions.csv", ("split",), "ill", np.max)
    y, p = map(np.array, zip(*parts["test",], strict=True))
    assert fitted.scores["test"]["auc"].value == pytest.approx(roc_auc_score(y, p))
    called = p >= fitted.operating["threshold"]
    assert fitted.scores["test"]["sensitivity"].value == pytest.approx(called[y].mean())
    assert fitted.patients == {"train": 36, "test": 12}
    with (folder / "fitted" / "patients.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["predicted"] == "ill" for row in rows] == [
        float(row["p(ill)"]) >= fitted.operating["threshold"] for row in rows
    ]
    assert {row["images"] for row in rows} == {"2"}


def test_new_images_are_answered_at_the_threshold_for_images(runs):
    """A patient called positive by the most suspicious image asks for another threshold than one image does."""
    folder, _, fitted = runs
    for_images = read_model(folder / "fitted").point.threshold
    assert for_images != pytest.approx(fitted.operating["threshold"])
    with (folder / "fitted" / "predictions.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["predicted"] == "ill" for row in rows] == [float(row["p(ill)"]) >= for_images for row in rows]


def test_both_units_stand_side_by_side_on_page_and_screen(runs):
    folder, compared, fitted = runs
    page = render(compose(read_records([folder / "compared", folder / "fitted"])))
    assert "Per patient and per image" in page
    assert "48 patients, 96 images" in page
    assert "the image that speaks most for it (max)" in page
    screen = "\n".join(line.text for line in comparison_screen(compared, details=True))
    assert "per patient (48)" in screen
    assert "per image (96)" in screen
    assert "12 patients that it had not seen" in fusion_text(fitted).replace("\n", " ")
    assert "A patient is called 'ill'" in fusion_text(fitted).replace("\n", " ")


def test_what_is_told_of_patients_is_not_told_of_images(runs):
    folder, _, _ = runs
    page = render(compose(read_records([folder / "compared"])))
    assert "ill is 48 % of these patients, which is how they were collected" in page
    assert "Net benefit per patient at a threshold" in page
    assert "per image at a threshold" not in page


def test_a_difference_has_one_interval_on_the_page(runs):
    """The primary fusion less the file: the answer tells it, and the table of negative controls has it again."""
    _, compared, _ = runs
    asked = compared.primary_question
    tested = {one.name: one.interval for one in asked.shortcuts}
    table = controls_table(compared)
    row = next(row for row in table.rows if row[0].text == asked.primary)
    seen = 0
    for head, cell in zip(table.columns, row, strict=True):
        if interval := tested.get(f"{head.lower()} alone"):
            assert cell.small == interval_text(interval, signed=True).replace("-", "\N{MINUS SIGN}")
            seen += 1
    assert seen == 2
    assert "the interval is that of the test" in table.note


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda text: text.replace("group,images", "group,number"), "patients.csv"),
        (lambda page: page["protocol"].update(pool=None), "metrics.json"),
        (lambda page: page["protocol"].update(pool="median"), "metrics.json"),
        (lambda page: page.update(by_image=None), "metrics.json"),
    ],
)
def test_a_run_of_patients_is_whole_or_refused(runs, tmp_path, change, name):
    import shutil

    folder, _, _ = runs
    copy = shutil.copytree(folder / "compared", tmp_path / "copy")
    if name == "patients.csv":
        (copy / name).write_text("contestant,fold\n")
    forge(copy, name, change if name != "patients.csv" else (lambda text: text))
    with pytest.raises(RunError):
        read_records([copy])


def test_a_plan_seals_what_is_scored_and_how_images_are_pooled(world, tmp_path):
    source = {"cache": world.cache, "seeds": [1]}
    sealed = plan(world.data, tmp_path / "plan.json", folds=3, repeats=1, unit="group", **source)
    assert (sealed.unit, sealed.pool) == ("group", "mean-logit")
    with pytest.raises(UsageError, match="settled --pool: it is mean-logit, and max was given"):
        compare(world.data, plan=tmp_path / "plan.json", unit="group", pool="max", **source)
