"""Sites and patients left out: who is never on both sides, scores by independent references, what is refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore as command
from fakes_matrix import make_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runs import extract_with_fakes
from sklearn.metrics import roc_auc_score

import featstore
from featstore.errors import AuditError, FeatstoreError, UsageError
from featstore.evaluation.candidates import build, by_site, fit_candidate, predict_proba
from featstore.evaluation.crossval import draw_folds
from featstore.matrix import load_matrix
from featstore.reporting.run_record import read_record
from featstore.reporting.terminal.comparison import comparison_text
from featstore.results.comparison import Candidate
from featstore.splits import patient_folds, site_folds

QUICK = {"strategies": ["concat_logreg"], "seeds": (), "positive": "ill"}


class Table:
    """A table of labelled images without features."""

    def __init__(self, rows):
        self.records = [type("Record", (), {"site": site})() for _, _, site in rows]
        self.classes, self.y = np.unique([label for label, _, _ in rows], return_inverse=True)
        self.classes = self.classes.tolist()
        self.groups = np.array([group for _, group, _ in rows])


def draw(folder, patients, seed=0):
    """Two pictures of each patient (site, label); sites differ in brightness, as scanners do."""
    rng = np.random.default_rng(seed)
    lines = ["path,label,patient,hospital"]
    levels = {site: 30 * at for at, site in enumerate(sorted({site for site, _ in patients}))}
    for number, (site, label) in enumerate(patients):
        for k in range(2):
            path = folder / label / f"{number:03d}-{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            level = levels[site] + 12 * (label == "ill") * rng.random() + rng.normal(0, 4)
            pixels = np.clip(rng.integers(0, 80, (24, 20, 3)) + level + 20, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            lines.append(f"{label}/{path.name},{label},p{number:03d},{site}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return folder / "data.csv"


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Three hospitals, of which one, west, has the ill alone."""
    folder = tmp_path_factory.mktemp("hospitals")
    patients = [("north", "ill"), ("north", "well"), ("south", "ill"), ("south", "well")] * 8 + [
        ("west", "ill")
    ] * 3
    table = draw(folder / "data", patients)
    extract_with_fakes(table, folder / "cache")
    return table, folder / "cache"


READ = {"columns": {"group": "patient", "site": "hospital"}}


def compare(hospitals, **changed):
    table, cache = hospitals
    return featstore.compare(table, cache=cache, **{**QUICK, **READ, **changed})


@pytest.fixture(scope="module")
def left_out(hospitals, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "site"
    return compare(hospitals, folds="site", out=out), out


@pytest.fixture(scope="module")
def one_by_one(hospitals, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "group"
    return compare(hospitals, folds="group", out=out), out


# Who is on which side

ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("pqrstuvw"), st.sampled_from("XYZ")), min_size=2
)


@given(ROWS)
@settings(max_examples=60)
def test_no_patient_and_no_image_of_the_site_is_on_both_sides_and_every_image_of_a_site_is_tested(rows):
    table = Table(rows)
    try:
        found = site_folds(table)
    except AuditError:
        return
    sites = np.array([site for _, _, site in rows])
    assert set(found.names) | set(found.never) == set(sites)
    for name, (train, test) in zip(found.names, found.splits, strict=True):
        assert np.array_equal(np.flatnonzero(sites == name), test)
        assert not set(table.groups[train]) & set(table.groups[test])
        assert not (sites[train] == name).any()
        assert len(np.unique(table.y[train])) == len(table.classes)
    several = [g for g in set(table.groups) if len(set(sites[table.groups == g])) > 1]
    assert found.shared == len(several)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=3, max_size=20), st.integers(0, 3)
)
@settings(max_examples=60)
def test_every_patient_is_left_out_once_and_all_models_know_the_classes_in_one_proportion(patients, seed):
    rows = [(label, f"p{n:02d}", "") for n, (label, images) in enumerate(patients) for _ in range(images)]
    table = Table(rows)
    try:
        splits = patient_folds(table, seed)
    except AuditError:
        return
    assert np.array_equal(np.sort(np.concatenate([test for _, test in splits])), np.arange(len(rows)))
    seen = set()
    for train, test in splits:
        assert len(set(table.groups[test])) == 1
        assert not set(table.groups[train]) & set(table.groups[test])
        seen.add(tuple(len(set(table.groups[train][table.y[train] == c])) for c in range(len(table.classes))))
    assert len(seen) == 1


# Sites


def test_scores_by_site_are_those_of_a_model_fitted_to_the_others(hospitals, left_out):
    result, _ = left_out
    matrix = load_matrix(hospitals[0], cache=hospitals[1], seeds=(), **READ)
    sites = np.array([record.site for record in matrix.records])
    fusion = Candidate("concat_logreg", matrix.backbones, "concat_logreg")
    ill = matrix.classes.index("ill")
    by_site = {one.site: one for one in result.sites.sites}
    aucs = []
    for name in ("north", "south"):
        train, test = np.flatnonzero(sites != name), np.flatnonzero(sites == name)
        model = fit_candidate(build(fusion, matrix), matrix, train, fusion)
        proba = predict_proba(model, matrix, test, fusion)[:, ill]
        aucs.append(roc_auc_score(matrix.y[test] == ill, proba))
        assert by_site[name].scores["auc"].value == pytest.approx(aucs[-1])
        assert by_site[name].scores["auc"].interval is not None
        assert (by_site[name].patients, by_site[name].images) == (16, 32)
        assert by_site[name].classes == {"ill": 8, "well": 8}
    everyone = next(s for s in result.candidates if s.label == "concat_logreg")
    assert everyone.estimates["auc"].mean == pytest.approx(np.mean(aucs))


def test_a_site_without_both_classes_is_scored_where_that_is_defined_and_said(left_out):
    result, _ = left_out
    west = next(one for one in result.sites.sites if one.site == "west")
    assert west.scores["auc"].value is None
    assert west.inside is None
    assert west.scores["specificity"].value is None
    assert west.scores["sensitivity"].value is not None
    estimates = next(s for s in result.candidates if s.label == "concat_logreg").estimates
    assert None in estimates["auc"].folds
    assert estimates["auc"].interval is not None
    found = [one.scores["sensitivity"].value for one in result.sites.sites]
    assert estimates["sensitivity"].mean == pytest.approx(np.mean(found))
    assert result.primary_question.decisive.interval is not None
    said = " ".join(comparison_text(result).split())
    assert "mean of 2 of 3 sites left out" in said
    assert "Without an AUC, since a class is missing there: 1." in said
    assert "they speak of these 3 sites, not of the next one" in said


def test_nothing_is_concluded_where_a_site_has_a_single_patient_of_a_class(hospitals):
    """It weighs as much as any other site, and no resample tells how its score moves: a loss was told."""
    table, cache = hospitals
    few = table.with_name("few.csv")
    text = table.read_text()
    for patient in ("p000", "p001"):  # one of each class
        text = text.replace(f",{patient},north", f",{patient},tiny")
    few.write_text(text)
    result = compare((few, cache), folds="site")
    assert result.sites.shown.drop is not None
    assert result.sites.shown.interval is None
    said = " ".join(comparison_text(result).split())
    assert "[no interval], too few patients to tell." in said
    assert "With a single patient of a class, and of the same weight in the mean: 1." in said


def test_the_drop_is_what_five_folds_print_less_what_sites_left_out_have(hospitals, left_out):
    result, out = left_out
    inside = compare(hospitals, folds=5, repeats=1)
    for s, drop in zip(inside.candidates, result.sites.drops, strict=True):
        assert drop.candidate == s.label
        assert drop.inside == pytest.approx(s.primary)
        assert drop.drop == pytest.approx(drop.inside - drop.outside)
        assert drop.interval[0] < drop.drop < drop.interval[1]
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    mine = [row for row in rows if row["contestant"] == "concat_logreg"]
    pooled = roc_auc_score([r["label"] == "ill" for r in mine], [float(r["p(ill)"]) for r in mine])
    assert result.sites.shown.outside_pooled == pytest.approx(pooled)


@pytest.mark.slow
def test_calibration_thresholds_and_the_nested_winner_work_by_site_for_patients_too(hospitals):
    result = compare(hospitals, folds="site", unit="group", calibrate="platt", sensitivity=0.9, nested=True)
    assert result.selection_bias.nested is not None
    assert len(result.selection_bias.nested.selected) == 3
    assert result.by_image is not None
    assert result.sites.shown.drop is not None


@pytest.mark.slow
def test_backbones_that_are_chosen_in_each_fold_are_chosen_inside_and_outside(hospitals):
    result = compare(hospitals, folds="site", subsets="greedy", view_curve="concat_logreg")
    greedy = next(s for s in result.candidates if s.selected_backbones)
    assert len(greedy.selected_backbones) == 3
    assert next(one for one in result.sites.drops if one.candidate == greedy.label).drop is not None
    assert result.view_curve[0].mean is not None


@pytest.mark.slow
def test_of_three_classes_sites_with_all_of_them_have_an_auc(tmp_path):
    everyone = [(site, label) for site in "ab" for label in ("ill", "odd", "well")] * 5
    table = draw(tmp_path / "data", everyone + [("c", "odd"), ("c", "well")] * 4)
    extract_with_fakes(table, tmp_path / "cache")
    result = compare((table, tmp_path / "cache"), folds="site", positive=None)
    defined = {one.site: one.scores["auc"].value is not None for one in result.sites.sites}
    assert defined == {"a": True, "b": True, "c": False}
    estimate = result.candidates[-1].estimates["auc"]
    assert estimate.interval is not None
    assert estimate.mean == pytest.approx(np.mean([value for value in estimate.folds if value is not None]))
    assert all(np.isfinite(pair.delta) for pair in result.pairs)
    assert "ill/odd/well" in comparison_text(result)


@pytest.mark.slow
def test_a_shortcut_of_the_sites_is_lost_where_a_site_is_left_out(tmp_path):
    """The ill are brighter for their scanner alone: folds see nothing of it, sites left out do."""
    patients = [("a", "well")] * 12 + [("a", "ill")] * 3 + [("b", "ill")] * 12 + [("b", "well")] * 3
    table = draw(tmp_path / "data", patients, seed=4)
    for path in (tmp_path / "data").rglob("*.png"):  # nothing but the scanner
        level = 40 if int(path.name[:3]) < 15 else 90
        noise = np.random.default_rng(int(path.name[:3])).integers(0, 80, (24, 20, 3))
        Image.fromarray((noise + level).astype(np.uint8)).save(path)
    extract_with_fakes(table, tmp_path / "cache")
    result = compare((table, tmp_path / "cache"), folds="site", accept=["FS102"])
    drop = result.sites.shown
    assert drop.inside > 0.65
    assert drop.inside_by_site < 0.6
    assert drop.outside < 0.6


# Patients one by one


def test_all_patients_left_out_are_ranked_together(one_by_one):
    result, out = one_by_one
    assert (result.folds, result.repeats, result.protocol.left_out) == (35, 1, "group")
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    for s in result.candidates:
        mine = [row for row in rows if row["contestant"] == s.label]
        assert len({row["image_id"] for row in mine}) == len(mine) == 70
        auc = roc_auc_score([r["label"] == "ill" for r in mine], [float(r["p(ill)"]) for r in mine])
        assert s.primary == pytest.approx(auc)
        assert s.estimates["auc"].interval is not None
    guess = next(s for s in result.shortcuts if s.label == "most frequent class")
    assert guess.primary == 0.5
    assert "35 patients left out one by one, all together" in " ".join(comparison_text(result).split())


@pytest.mark.slow
def test_on_noise_patients_left_out_are_ranked_as_by_chance():
    """Without one of every other class set aside the mean is below 0.4 here, and far below for strong penalties."""
    from featstore.evaluation.crossval import cross_validate

    scores = []
    for seed in range(12):
        matrix = make_matrix(signal=(0.0,), patients=20, images=1, seed=seed, views=1, width=30)
        splits = draw_folds(matrix, "group", 1, seed).splits
        ridge = Candidate("ridge_loo", matrix.backbones, "ridge_loo")
        proba = {fold: p[0, 1] for _, fold, p in cross_validate(matrix, [ridge], splits)}
        truth = [matrix.y[test[0]] for _, test in splits]
        scores.append(roc_auc_score(truth, [proba[fold] for fold in range(20)]))
    assert 0.42 < np.mean(scores) < 0.58


def test_intervals_of_patients_left_out_are_widened_although_they_are_one_test_set():
    design = draw_folds(make_matrix(patients=40), "group", 1, 0).design(make_matrix(patients=40), 1)
    assert design.overlap_factor == 1.5
    assert len(design.splits) == 1


# What is written, and read again


@pytest.mark.parametrize("run", ["left_out", "one_by_one"])
def test_the_run_says_so_and_is_read_again(run, request):
    result, out = request.getfixturevalue(run)
    left = "site" if run == "left_out" else "group"
    assert json.loads((out / "run.json").read_text())["protocol"]["left_out"] == left
    assert read_record(out).outcome.sites == result.sites


@pytest.mark.slow
@pytest.mark.parametrize("run", ["left_out", "one_by_one"])
def test_the_report_says_so_in_its_methods_and_its_command(run, request, tmp_path):
    _, out = request.getfixturevalue(run)
    text = featstore.write_report([out], tmp_path / "report.html").read_text()
    assert {"left_out": "Each site left out in turn", "one_by_one": "Each patient left out in turn"}[
        run
    ] in text
    assert {"left_out": "--folds site", "one_by_one": "--folds group"}[run] in text
    assert ("From inside to outside" in text) == (run == "left_out")


def test_a_plan_settles_that_sites_are_left_out(hospitals, tmp_path):
    table, cache = hospitals
    sealed = featstore.plan(
        table, tmp_path / "plan.json", folds="site", cache=cache, seeds=(), positive="ill", **READ
    )
    assert (sealed.folds, sealed.repeats) == ("site", 1)
    result = featstore.compare(
        table, plan=tmp_path / "plan.json", cache=cache, seeds=(), strategies=["concat_logreg"], **READ
    )
    assert result.protocol.left_out == "site"
    assert result.planning.plan is not None
    with pytest.raises(UsageError, match="settled --folds"):
        featstore.compare(table, plan=tmp_path / "plan.json", folds="group", cache=cache, seeds=(), **READ)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["left_out", "one_by_one"])
def test_a_pack_is_replayed_and_names_no_site(run, hospitals, request, tmp_path):
    _, out = request.getfixturevalue(run)
    featstore.pack(out, hospitals[0], tmp_path / "pack.zip", cache=hospitals[1], **READ)
    assert b"north" not in (tmp_path / "pack.zip").read_bytes()
    replayed = featstore.replay(tmp_path / "pack.zip")
    assert replayed.same, replayed.differences


# Refusals


@pytest.mark.parametrize(
    ("sites", "match"),
    [
        ([None] * 8, "names no sites"),
        (["x"] * 7 + [None], "1 of 8 images name no site"),
        (["x"] * 8, "All 8 images are of one site"),
        (["x", "y"] * 4, "No site can be left out"),
        (["x", "x", "y", "x"] * 2, "at 'y' 'b' is missing"),
    ],
)
def test_sites_that_cannot_be_left_out_are_refused(sites, match):
    rows = [("ab"[n % 2], f"p{n}", site) for n, site in enumerate(sites)]
    with pytest.raises(AuditError, match=match):
        site_folds(Table(rows))


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"folds": "site", "repeats": 2}, "nothing to repeat"),
        ({"folds": "group", "repeats": 2}, "nothing to repeat"),
        ({"folds": "group", "nested": True}, "five further fits"),
        ({"folds": "group", "calibrate": "platt"}, "five further fits"),
        ({"folds": "group", "economics": True}, "--economics"),
        ({"folds": "group", "subsets": "greedy"}, "greedy"),
        ({"folds": "hospital"}, "no number of folds"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(hospitals, asked, match):
    with pytest.raises(UsageError, match=match):
        compare(hospitals, **asked)


def test_leaving_out_very_many_patients_is_refused_before_it_begins(hospitals, monkeypatch):
    monkeypatch.setattr("featstore.evaluation.crossval.MOST_SECONDS", 1.0)
    with pytest.raises(UsageError, match="each of 35 patients takes 105 fits") as refused:
        compare(hospitals, folds="group")
    assert "--folds 5" in refused.value.remedy


def test_the_command_line_knows_the_words(hospitals):
    table, cache = hospitals
    asked = ["compare", table, "--cache", cache, "--strategies", "concat_logreg", "--seeds", "none"]
    asked += ["--columns", "group=patient", "--columns", "site=hospital", "--positive", "ill"]
    done = command(*asked, "--folds", "site", "--json")
    assert done.code == 0, done.err
    assert [one["site"] for one in done.json["sites"]["sites"]] == ["north", "south", "west"]
    without = command(*asked[:8], "--columns", "group=patient", "--folds", "site")
    assert without.code in {5, 2}
    assert "names no sites" in without.err
    assert "--columns site=hospital" in without.err
    wrong = command(*asked, "--folds", "sites")
    assert wrong.code == 2
    assert "--folds site" in wrong.err
    assert Path(table).exists()


# Features that differ between sites


def test_each_site_is_standardised_by_its_own_training_images_and_one_left_out_by_its_own():
    matrix = make_matrix(patients=12, images=2, views=2)
    sites = np.array(list("xyz"))[np.arange(24) // 8]
    records = tuple(replace(record, site=site) for record, site in zip(matrix.records, sites, strict=True))
    matrix = replace(matrix, records=records)
    train, test = np.array([0, 1, 2, 3, 8, 9, 10, 11]), np.array([4, 5, 16, 17, 18])
    found = by_site(matrix, (train, test))
    for known, rows in (([0, 1, 2, 3], [0, 1, 2, 3, 4, 5]), ([8, 9, 10, 11],) * 2, ([16, 17, 18],) * 2):
        part = matrix.features[0, known].astype(float)
        expected = (matrix.features[:, rows] - part.mean(axis=0)) / part.std(axis=0)
        assert found.features[:, rows] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    untouched = [6, 7, 12, 13, 14, 15, 19, 20, 21, 22, 23]
    assert np.array_equal(found.features[:, untouched], matrix.features[:, untouched])


def test_labels_of_the_site_left_out_move_nothing_and_other_test_images_nothing_inside():
    """Law 6: of a site with training images, the statistics are theirs alone."""
    matrix = make_matrix(patients=12, images=2, views=1)
    records = tuple(replace(record, site="xy"[n // 12]) for n, record in enumerate(matrix.records))
    matrix = replace(matrix, records=records)
    train, test = np.arange(18), np.arange(18, 24)
    other = matrix.features.copy()
    other[:, 20] += 100
    found = by_site(replace(matrix, features=other, y=matrix.y[::-1]), (train, test)).features
    keep = np.delete(np.arange(24), 20)
    assert np.array_equal(found[:, keep], by_site(matrix, (train, test)).features[:, keep])


def test_a_site_of_a_few_images_is_named_where_each_has_its_own_mean_and_deviation(hospitals, left_out):
    """A single image less its own mean is a vector of zeros, and was answered without a word."""
    result = compare(hospitals, folds="site", harmonise="per-site")
    said = " ".join(comparison_text(result).split())
    assert "rest on fewer than 10 images at west: believe no answer there." in said
    assert "fewer than 10 images" not in " ".join(comparison_text(left_out[0]).split())


@pytest.mark.slow
def test_harmonised_sites_are_ranked_together_better_and_it_is_said_and_planned(
    hospitals, left_out, tmp_path
):
    table, cache = hospitals
    plain, _ = left_out
    featstore.plan(
        table, tmp_path / "plan.json", folds="site", harmonise="per-site", cache=cache, seeds=(), **READ
    )
    result = featstore.compare(
        table,
        plan=tmp_path / "plan.json",
        cache=cache,
        seeds=(),
        strategies=["concat_logreg"],
        out=tmp_path / "run",
        **READ,
    )
    assert result.protocol.harmonise == "per-site"
    assert result.fits_reused == 0, "answers about other features are not taken"
    assert result.sites.shown.outside_pooled > plain.sites.shown.outside_pooled
    said = " ".join(comparison_text(result).split())
    assert "without their labels" in said
    assert "can make things worse" in said
    page = featstore.write_report([tmp_path / "run"], tmp_path / "report.html")
    assert "--harmonise per-site" in page.read_text()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"harmonise": "per-site"}, "takes the images of the site that is left out"),
        ({"harmonise": "combat", "folds": "site"}, "no harmonisation 'combat'"),
        ({"harmonise": "per-site", "folds": "site", "subsets": "greedy"}, "not harmonised"),
    ],
)
def test_harmonising_is_for_sites_left_out_alone(hospitals, asked, match):
    with pytest.raises(FeatstoreError, match=match):
        compare(hospitals, **asked)
