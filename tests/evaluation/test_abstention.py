"""Prediction sets keep their level on new patients; images unlike any in training are told; old models lack both."""

import csv
import json
import math
import shutil
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from runs import forge
from sklearn.covariance import LedoitWolf

import featstore
from featstore import runs as run
from featstore import serialization
from featstore.api.predict import read_model, refuse_unwritable, write_table
from featstore.errors import AuditError, RunError, UsageError
from featstore.evaluation.abstention import (
    TrainingDistance,
    calibrate_sets,
    coverage,
    fit_unlike,
    ledoit_wolf,
    patient_quantile,
    patients_needed,
    prediction_sets,
    read_unlike,
)
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.reporting.page.model_card import model_card
from featstore.reporting.page.tables import command, shown_tables
from featstore.reporting.run_record import read_records
from featstore.reporting.terminal.comparison import fusion_text
from featstore.reporting.terminal.results import predictions_text
from featstore.results.fusion import set_text
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

# Prediction sets


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    st.sampled_from([Fraction(1, 20), Fraction(1, 10), Fraction(1, 5), Fraction(1, 2)]),
)
def test_the_quantile_is_the_one_of_the_definition(patients, alpha):
    """Lee, Barber & Willett 2023: each of K patients weighs 1 / (K + 1), and so does infinity; in fractions."""
    scores = np.array([score for images in patients for score in images], float)
    whose = np.repeat(np.arange(len(patients)), [len(images) for images in patients])
    reached = [
        value
        for value in sorted({int(score) for score in scores})
        if sum(Fraction(sum(s <= value for s in images), len(images)) for images in patients)
        >= (1 - alpha) * (len(patients) + 1)
    ]
    assert patient_quantile(scores, whose, float(alpha)) == (reached[0] if reached else None)
    assert bool(reached) == (len(patients) >= patients_needed(float(alpha)))


def test_so_many_patients_are_needed_as_the_books_say():
    assert [patients_needed(alpha) for alpha in (0.5, 0.2, 0.1, 0.05, 0.01)] == [1, 4, 9, 19, 99]
    assert patients_needed(0.15) == math.ceil(1 / 0.15) - 1


def study(rng, patients, bias=0.0):
    """Images of patients of two classes, one to four of each, alike within a patient: y, whose, probabilities."""
    y, number = np.repeat([0, 1], patients), rng.integers(1, 5, 2 * patients)
    whose = np.repeat(np.arange(2 * patients), number)
    logit = (2 * y - 1 + 1.5 * rng.normal(size=len(y)))[whose] + 0.7 * rng.normal(size=len(whose)) + bias
    p = 1 / (1 + np.exp(-logit))
    return y[whose], whose, np.stack([1 - p, p], axis=1)


def rule_of(y, whose, proba, alpha):
    matrix = SimpleNamespace(y=y, groups=whose, classes=("well", "ill"), has_groups=True)
    first = np.unique(whose, return_index=True)[1]
    rows = np.arange(len(y))
    return calibrate_sets(matrix, rows, proba, alpha, "calibration", "mean-logit", (y[first], proba[first]))


@pytest.mark.parametrize("alpha", [0.1, pytest.param(0.2, marks=pytest.mark.slow)])
def test_over_200_studies_sets_keep_their_level_for_each_class(alpha):
    """Though the model is wrong by a bias; for an image of a new patient and, from one score, for the patient."""
    rng = np.random.default_rng(16)
    images, whole = [], []
    for _ in range(200):
        rule = rule_of(*study(rng, 49, bias=0.8), alpha)
        y, whose, proba = study(rng, 20, bias=0.8)
        first = np.unique(whose, return_index=True)[1]
        found = coverage(prediction_sets(proba, rule.by_image), y, whose, ("well", "ill"))
        images.append([found[name].covered for name in ("well", "ill")])
        found = coverage(
            prediction_sets(proba[first], rule.by_patient), y[first], whose[first], ("well", "ill")
        )
        whole.append([found[name].covered for name in ("well", "ill")])
    assert np.mean(images, axis=0) == pytest.approx([1 - alpha] * 2, abs=0.02)
    assert np.mean(whole, axis=0) == pytest.approx([1 - alpha] * 2, abs=0.02)


def test_a_class_of_too_few_patients_refuses_the_level_and_says_which_one_works():
    rng = np.random.default_rng(1)
    y, whose, proba = study(rng, 8)
    with pytest.raises(AuditError) as caught:
        rule_of(y, whose, proba, 0.1)
    assert "8 patients of the class 'well'" in caught.value.cause
    assert "takes 9" in caught.value.cause
    assert "--abstain 0.12" in caught.value.remedy
    assert rule_of(y, whose, proba, 0.12).patients == (8, 8)


@pytest.mark.parametrize(
    ("held", "classes", "text"),
    [
        ((), ("a", "b"), "neither: unlike both"),
        (("b",), ("a", "b"), "b"),
        (("a", "b"), ("a", "b"), "either: not sure"),
        ((), ("a", "b", "c"), "none: unlike all"),
        (("a", "c"), ("a", "b", "c"), "a or c: not sure"),
        (("a", "b", "c"), ("a", "b", "c"), "any: not sure"),
    ],
)
def test_sets_in_words(held, classes, text):
    assert set_text(held, classes) == text


# Distance from training


@pytest.mark.parametrize("shape", [(12, 40), (60, 7), (20, 20)])
def test_the_distance_is_that_of_ledoit_and_wolf(shape):
    """With all directions kept it is the Mahalanobis distance by scikit-learn, whether n < d or not."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1]))
    new = rng.normal(size=(5, shape[1]))
    widths = (shape[1] - 3, 3)
    scale = np.repeat([np.sqrt(X[:, :-3].var(axis=0).mean()), np.sqrt(X[:, -3:].var(axis=0).mean())], widths)
    Z = (X - X.mean(axis=0)) / scale
    reference = LedoitWolf(assume_centered=True).fit(Z)
    shrinkage, _ = ledoit_wolf(Z @ Z.T, (Z * Z).sum(axis=1), shape[1])
    assert shrinkage == pytest.approx(reference.shrinkage_)
    expected = reference.mahalanobis((new - X.mean(axis=0)) / scale) / shape[1]
    assert TrainingDistance.fit(X, 100, widths).distances(new) == pytest.approx(expected, rel=1e-3)


def test_new_patients_are_called_unlike_at_the_stated_rate_and_another_kind_always():
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(6, 200))

    def images(patients, shift=0.0):
        centres = np.repeat(rng.normal(size=(patients, 6)), 3, axis=0) + 0.3 * rng.normal(
            size=(3 * patients, 6)
        )
        return (centres @ mixing + rng.normal(size=(3 * patients, 200)) + shift), np.repeat(
            np.arange(patients), 3
        )

    rates = []
    for _ in range(8):
        rule = fit_unlike(*images(60), has_patients=True)
        rates.append(np.mean(rule.ratios(images(60)[0]) > 1))
        assert (rule.ratios(images(5, shift=9.0)[0]) > 1).all()
    assert np.mean(rates) == pytest.approx(0.05, abs=0.03)
    again = read_unlike(json.loads(json.dumps(rule.to_json())), 200)
    X = images(4)[0]
    assert again.ratios(X) == pytest.approx(rule.ratios(X), rel=1e-6)


def test_fewer_than_19_patients_certify_no_distance():
    X = np.random.default_rng(5).normal(size=(40, 9))
    assert fit_unlike(X[:36], np.arange(36) // 2, has_patients=True) is None
    assert fit_unlike(X[:38], np.arange(38) // 2, has_patients=True).about.patients == 19


def test_a_model_holds_no_vector_of_a_patient():
    X = np.random.default_rng(6).normal(size=(38, 50))
    rule = fit_unlike(X, np.arange(38) // 2, has_patients=True)
    assert rule.distance.directions.shape == (19 // 8, 50)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept["distance"].update(rest=-1.0),
        lambda kept: kept["distance"].update(mean="not base 64"),
        lambda kept: kept["distance"].update(variances=[0.0, 1.0]),
        lambda kept: kept["distance"].pop("scale"),
        lambda kept: kept.update(threshold="far"),
        lambda kept: kept.update(distance=3),
    ],
)
def test_a_damaged_distance_is_refused(change):
    X = np.random.default_rng(7).normal(size=(38, 50))
    kept = json.loads(json.dumps(fit_unlike(X, np.arange(38) // 2, has_patients=True).to_json()))
    change(kept)
    with pytest.raises(RunError):
        read_unlike(kept, 50)


# A run that abstains

ALPHA = spec(weights="random:0")
KEY = FeatureKey(ALPHA, IDENTITY, Decoding(decoder_version()))


@pytest.fixture(autouse=True)
def _grids(monkeypatch):
    networks = SimpleNamespace(load=GridBackbone)
    monkeypatch.setattr("featstore.extraction.pipeline.Networks", lambda *_: networks)
    monkeypatch.setattr("featstore.api.predict.find_all_weights", lambda *_: {})


def extract(manifest, cache):
    images = {record.id: record for record in manifest.records}
    todo = plan([KEY], list(images), {})
    backbones = {ALPHA: GridBackbone(ALPHA)}
    engine.run_pass(image_blocks(todo), images, KEY.decoding, backbones, Store(cache), engine.NullProgress())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """80 patients of two images; a run for patients that abstains, and one for images that does not."""
    folder = tmp_path_factory.mktemp("abstention")
    data = write_images(folder / "data", 160)
    manifest = scan(data)
    extract(manifest, folder / "cache")
    options = {"cache": folder / "cache", "positive": "ill"}
    both = {"unit": "group", "pool": "mean", "calibrate": "platt", "sensitivity": 0.7}
    fusion = featstore.fuse(data, out=folder / "patients", abstain=0.2, **both, **options)
    featstore.fuse(data, out=folder / "images", **options)
    return SimpleNamespace(folder=folder, data=data, fusion=fusion)


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_gives_the_numbers_of_fuse_by_image_and_by_patient(world):
    answers = featstore.predict(world.folder / "patients", world.data)
    found = {p.path.rpartition("/")[2]: p for p in answers.predictions}
    images = lines_of(world.folder / "patients" / run.PREDICTIONS)
    assert len(images) == 40
    for row in images:
        p = found[row["path"].rpartition("/")[2]]
        assert (p.label, p.patient) == (row["predicted"], row["group"])
        assert p.probability["ill"] == pytest.approx(float(row["p(ill)"]), abs=1e-9)
    people = {p.patient: p for p in answers.patients}
    rows = lines_of(world.folder / "patients" / "patients.csv")
    assert (len(rows), len(people)) == (20, 80)
    for row in rows:
        p = people[row["group"]]
        assert (p.label, p.images, p.given, p.is_new) == (row["predicted"], 2, row["label"], True)
        assert p.probability["ill"] == pytest.approx(float(row["p(ill)"]), abs=1e-9)
    assert answers.chosen_for_patients
    assert answers.patient_operating["threshold"] == world.fusion.operating["threshold"]
    assert answers.patient_counts.labelled == 20
    assert answers.patient_counts.seen == 60


def test_sets_that_predict_gives_have_the_coverage_that_fuse_said(world):
    """Counted anew from the answers for the test patients."""
    answers = featstore.predict(world.folder / "patients", world.data)
    sets = world.fusion.abstention
    assert world.fusion.sizes == {"train": 90, "calibration": 30, "test": 40}
    assert sets.rule.patients == (7, 8)
    new = [p for p in answers.patients if p.is_new]
    for name in ("ill", "well"):
        mine = [p for p in new if p.given == name]
        said = sets.by_patient["test"][name]
        assert said.patients == len(mine)
        assert said.covered == pytest.approx(np.mean([name in p.prediction_set for p in mine]))
        assert said.unsure == pytest.approx(np.mean([len(p.prediction_set) > 1 for p in mine]))
        images = [p for p in answers.predictions if p.is_new and p.given == name]
        assert sets.by_image["test"][name].covered == pytest.approx(
            np.mean([name in p.prediction_set for p in images])
        )
    for p in answers.predictions:
        expected = [
            c for c, t in zip(answers.classes, sets.rule.by_image, strict=True) if p.probability[c] >= t
        ]
        assert list(p.prediction_set) == expected


def test_a_run_for_images_answers_patients_as_a_convenience_and_tells_what_it_lacks(world):
    answers = featstore.predict(world.folder / "images", world.data)
    assert not answers.chosen_for_patients
    p = answers.patients[0]
    mine = [one.probability["ill"] for one in answers.predictions if one.patient == p.patient]
    logit = np.mean(np.log(mine) - np.log1p(-np.array(mine)))
    assert p.probability["ill"] == pytest.approx(1 / (1 + np.exp(-logit)))
    text = " ".join(predictions_text(answers).split())
    assert "this is a convenience" in text
    assert "The run tells no prediction sets (featstore fuse --abstain 0.1)." in text
    assert (answers.alpha, p.prediction_set) == (None, None)


def test_another_kind_of_picture_is_told_and_held_out_ones_mostly_not(world, tmp_path):
    for name, grey in {"black": 0, "white": 255}.items():
        Image.fromarray(np.full((24, 20, 3), grey, np.uint8)).save(tmp_path / f"{name}.png")
    answers = featstore.predict(world.folder / "patients", tmp_path)
    assert [p.is_unlike for p in answers.predictions] == [True, True]
    assert "2 unlike any in training" in predictions_text(answers)
    assert "No patients are known" in predictions_text(answers)
    assert world.fusion.unlike.held_out["test"] < 0.2
    known = featstore.predict(world.folder / "patients", world.data)
    new = [p.is_unlike for p in known.predictions if p.is_new]
    assert np.mean(new) == pytest.approx(world.fusion.unlike.held_out["test"])


def test_a_single_image_is_a_patient_of_its_own(world, tmp_path):
    Image.fromarray(np.full((24, 20, 3), 99, np.uint8)).save(tmp_path / "one.png")
    (p,) = featstore.predict(world.folder / "patients", tmp_path / "one.png").patients
    assert (p.patient, p.images) == (str(tmp_path / "one.png"), 1)


def test_a_model_of_before_predicts_and_says_what_it_lacks(world, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(world.folder / "images", old)

    def as_before(page):
        state = serialization.unseal({**page})
        state["extra"] = {name: state["extra"][name] for name in ("classes", "operating")}
        page |= serialization.seal(state)

    forge(old, run.MODEL_STATE, as_before)
    answers = featstore.predict(old, world.data)
    assert all(p.distance is None and p.prediction_set is None for p in answers.predictions)
    assert "not which images are unlike any in training" in predictions_text(answers)


def test_vectors_are_taken_from_the_cache_and_left_there(world, tmp_path, monkeypatch):
    first = featstore.predict(world.folder / "images", world.data, cache=tmp_path / "cache")

    def never(_):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("featstore.extraction.pipeline.Networks", lambda *_: SimpleNamespace(load=never))
    again = featstore.predict(world.folder / "images", world.data, cache=tmp_path / "cache")
    stored = featstore.predict(world.folder / "images", world.data, cache=world.folder / "cache")
    assert first.to_json() == again.to_json() == stored.to_json()


@pytest.mark.parametrize("rate", [0.0, 0.7, -1.0])
def test_an_error_rate_that_is_none_is_refused(world, rate):
    with pytest.raises(UsageError) as caught:
        featstore.fuse(world.data, cache=world.folder / "cache", out=world.folder / "no", abstain=rate)
    assert "--abstain 0.1" in caught.value.remedy


def test_without_patients_nothing_is_guaranteed(world, tmp_path):
    table = world.data.parent / "no_groups.csv"
    table.write_text("\n".join(line.rpartition(",")[0] for line in world.data.read_text().splitlines()))
    with pytest.raises(AuditError, match="No patients"):
        featstore.fuse(table, cache=world.folder / "cache", out=tmp_path / "no", abstain=0.2)


def test_the_level_that_the_remedy_names_works(world, tmp_path):
    with pytest.raises(AuditError) as caught:
        featstore.fuse(world.data, cache=world.folder / "cache", out=tmp_path / "no", abstain=0.01)
    level = float(caught.value.remedy.split()[2])
    featstore.fuse(world.data, cache=world.folder / "cache", out=tmp_path / "yes", abstain=level)
    assert read_model(tmp_path / "yes").sets.alpha == level


def test_report_card_and_screen_say_level_numbers_and_coverage(world):
    said = world.fusion.abstention.by_patient["test"]["ill"]
    phrase = f"ill {said.covered:.3f} [{said.interval[0]:.3f} to {said.interval[1]:.3f}]"
    record, without = read_records([world.folder / "patients", world.folder / "images"])
    (shown,) = [one for one in shown_tables(record) if one.title.startswith("When not to answer")]
    assert shown.title == "When not to answer: prediction sets at 80 %, test"
    assert [row[0].text for row in shown.rows] == [
        "ill, patients",
        "well, patients",
        "ill, images of patients",
        "well, images of patients",
    ]
    card = " ".join(text for section in model_card(record) for text in section.known)
    for text in (shown.note, card, " ".join(fusion_text(world.fusion).split())):
        assert (
            "sets at 80 %, calibrated on patients that the model was not fitted on (7 ill and 8 well)."
            in text
        )
        assert phrase in text
        assert "farther from them than 95 % of those of 45 patients left out" in text
    other = " ".join(text for section in model_card(without) for text in section.known)
    assert "keeps no prediction sets, so that featstore predict always answers one class" in other
    assert "--abstain 0.2" in command(record)


def test_a_csv_file_for_patients_lies_beside_that_for_images(world, tmp_path):
    answers = featstore.predict(world.folder / "patients", world.data)
    out = tmp_path / "answers.csv"
    assert write_table(out, answers) == (out, tmp_path / "answers-patients.csv")
    rows = lines_of(tmp_path / "answers-patients.csv")
    assert [row["patient"] for row in rows] == [p.patient for p in answers.patients]
    assert {row["prediction_set"] for row in rows} == {answers.set_text(p) for p in answers.patients}
    assert (tmp_path / "answers-patients.csv").stat().st_mode & 0o077 == 0
    assert {row["unlike_training"] for row in lines_of(out)} <= {"", "yes"}
    out.unlink()
    with pytest.raises(UsageError, match=r"answers-patients\.csv is there already"):
        refuse_unwritable(out, overwrite=False)


@pytest.mark.slow
def test_of_phantoms_noise_black_and_inverted_ones_are_told_and_held_out_ones_at_the_rate(
    tmp_path, monkeypatch
):
    monkeypatch.undo()  # a real network
    data = featstore.make_phantoms(tmp_path / "data", patients=120, slices=2, size=64)
    featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity", cache=tmp_path / "cache")
    fusion = featstore.fuse(data, positive="covid", cache=tmp_path / "cache", out=tmp_path / "run")
    assert fusion.unlike.held_out["test"] == pytest.approx(0.05, abs=0.06)
    odd, rng = tmp_path / "odd", np.random.default_rng(0)
    odd.mkdir()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(odd / "black.png")
    for at, record in enumerate(scan(data).records[::40]):
        pixels = np.asarray(Image.open(record.path).convert("L"))
        Image.fromarray(255 - pixels).save(odd / f"inverted{at}.png")
        Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(odd / f"noise{at}.png")
    answers = featstore.predict(tmp_path / "run", odd)
    assert {p.path.rpartition("/")[2]: p.is_unlike for p in answers.predictions} == {
        path.name: True for path in odd.iterdir()
    }
