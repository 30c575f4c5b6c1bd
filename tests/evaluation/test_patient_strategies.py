"""Strategies that pool a patient's images before they answer: fits, comparisons, predictions, and what is refused."""

from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images
from fakes_matrix import make_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import featstore
from featstore.errors import UsageError
from featstore.evaluation.candidates import STRATEGIES, answers_for_patients, predict_proba
from featstore.evaluation.crossval import PredictionCache, cross_validate
from featstore.evaluation.patients import patients_of, pool_images
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.fusion.strategies.attention_pooling import AttentionPooling
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategies.mean_vector import MeanVector
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.registry import names
from featstore.reporting.terminal.results import predictions_text
from featstore.results.comparison import Candidate
from featstore.splits import group_folds
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey, make_blocks

KINDS = {"attention_pooling": AttentionPooling, "mean_vector": MeanVector}
BOTH = tuple(KINDS)
PLAIN = {
    "attention_pooling": {
        "batch_size": None,
        "epochs": 1,
        "dropout": 0.0,
        "optimizer": "sgd",
        "validation_fraction": 0.0,
        "standardize": False,
    },
    "mean_vector": {},
}
"""Settings under which a fit is a function of its patients alone, without chance."""
KEYS = [
    FeatureKey(
        spec(name, weights=f"random:0 keras {version('keras')}"), IDENTITY, Decoding(decoder_version())
    )
    for name in ("Alpha", "Beta")
]


def one_of_ten(patients=300, columns=60, seed=0):
    """Patients of ten images of noise; of an ill one, a single image shows it."""
    rng = np.random.default_rng(seed)
    y, X = np.arange(patients) % 2, rng.normal(size=(patients, 10, columns))
    shows = rng.integers(10, size=patients)
    for patient in np.flatnonzero(y):
        X[patient, shows[patient], :5] += 4.0
    groups = np.repeat([f"p{at:03d}" for at in range(patients)], 10)
    return X.reshape(-1, columns).astype(np.float32), np.repeat(y, 10), groups, shows


def test_all_that_answer_for_patients_are_known():
    assert tuple(sorted(filter(answers_for_patients, names(STRATEGIES)))) == BOTH
    assert {s.name for s in featstore.strategies() if s.unit == "group"} == set(BOTH)


def test_attention_finds_the_image_that_shows_it_where_pooled_answers_do_not():
    X, y, groups, shows = one_of_ten()
    train, test = np.arange(len(X)) < 1500, np.arange(len(X)) >= 1500
    truth = y[test][::10]
    attention = AttentionPooling().fit(X[train], y[train], groups=groups[train])
    found = attention.predict_patients(X[test], groups[test])[::10, 1]
    by_image = ConcatLogreg().fit(X[train], y[train], groups=groups[train]).predict_proba(X[test])
    pooled = pool_images(by_image, np.repeat(np.arange(150), 10), "mean-logit", 1)[:, 1]
    assert roc_auc_score(truth, found) > 0.99
    assert roc_auc_score(truth, pooled) < 0.9
    weights = attention.image_weights(X[test], groups[test]).reshape(150, 10)
    ill = truth == 1
    assert (weights[ill].argmax(axis=1) == shows[150:][ill]).mean() > 0.95


def test_attention_is_what_the_paper_says():
    """Equation 9 of Ilse 2018, patient by patient in plain loops, from the weights that were learned."""
    X, y, groups, _ = one_of_ten(40, columns=13)
    model = AttentionPooling(make_blocks({"a": 9, "b": 4}), units=6).fit(X, y, groups=groups)
    network = model._restored()
    scaled = (X - model.mean_) * model.scale_
    for patient in np.unique(groups)[:5]:
        units = [network.projection.weights @ x + network.projection.bias for x in scaled[groups == patient]]
        scores = [
            network.gate.score.weights[0]
            @ (
                np.tanh(network.gate.content.weights @ h + network.gate.content.bias)
                / (1 + np.exp(-(network.gate.gate.weights @ h + network.gate.gate.bias)))
            )
            for h in units
        ]
        shares = np.exp(scores) / np.exp(scores).sum()
        logit = network.output.weights[0] @ np.dot(shares, units) + network.output.bias[0]
        mine = groups == patient
        assert model.image_weights(X, groups)[mine] == pytest.approx(shares)
        assert model.predict_patients(X, groups)[mine, 1] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_a_mean_vector_is_scikit_learns_regression_on_the_means():
    matrix = make_matrix(patients=40, images=3)
    X = matrix.features[0].astype(np.float64)
    means = X.reshape(40, 3, -1).mean(axis=1)
    scaled = (means - means.mean(axis=0)) / means.std(axis=0) / np.sqrt(6)
    reference = LogisticRegression(C=5.0, tol=1e-10, max_iter=5000).fit(scaled, matrix.y[::3])
    model = MeanVector(blocks=matrix.blocks).fit(X, matrix.y, groups=matrix.groups)
    found = model.predict_patients(X, matrix.groups)[::3]
    assert found == pytest.approx(reference.predict_proba(scaled), abs=1e-6)
    people = patients_of(matrix, "mean-logit", 1)
    assert people.pooled(model.predict_proba(X), np.arange(len(X))) == pytest.approx(found, abs=1e-6)
    assert model.image_weights(X, matrix.groups) == pytest.approx(np.full(len(X), 1 / 3))


@pytest.mark.parametrize("strategy", BOTH)
def test_a_patient_of_many_images_counts_once_in_the_fit(strategy):
    matrix = make_matrix(patients=20, images=2)
    X, y, groups = matrix.features[0], matrix.y, matrix.groups
    again = np.concatenate(
        [np.arange(40), np.tile([0, 1], 50)]
    )  # the first patient is imaged fifty times more
    once = KINDS[strategy](blocks=matrix.blocks, **PLAIN[strategy]).fit(X, y, groups=groups)
    often = KINDS[strategy](blocks=matrix.blocks, **PLAIN[strategy]).fit(
        X[again], y[again], groups=groups[again]
    )
    assert often.predict_proba(X) == pytest.approx(once.predict_proba(X), abs=1e-5)


@pytest.mark.parametrize("strategy", BOTH)
def test_rows_of_a_group_that_have_two_classes_are_not_averaged(strategy):
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.normal(size=(80, 4)) + 3 * y[:, None]
    assert KINDS[strategy]().fit(X, y, groups=np.arange(80) // 4).score(X, y) > 0.9


@pytest.mark.parametrize("strategy", BOTH)
def test_views_of_an_image_are_drawn_or_pooled_and_the_answer_is_the_patients(strategy):
    matrix = make_matrix(signal=(2.0, 2.0), patients=30, images=2, views=3)
    splits = group_folds(matrix, 3, 1)
    for views in ("identity", "expand", "average", "sample"):
        for test_views in ("identity", "average"):
            one = Candidate(strategy, matrix.backbones, strategy, views=views, test_views=test_views)
            scores = []
            for _, fold, proba in cross_validate(matrix, [one], splits):
                test = splits[fold][1]
                for patient in np.unique(matrix.groups[test]):
                    mine = proba[matrix.groups[test] == patient]
                    assert (mine == mine[0]).all()
                scores.append(roc_auc_score(matrix.y[test], proba[:, 1]))
            assert np.mean(scores) > 0.75


@pytest.mark.parametrize("strategy", BOTH)
def test_kept_answers_are_those_of_the_same_patients(strategy, tmp_path):
    """Who is whose patient among the test images is part of what was asked."""
    matrix = make_matrix(patients=12, images=4)
    split = group_folds(matrix, 3, 1)[0]
    one = Candidate(strategy, matrix.backbones, strategy)
    regrouped = matrix.groups.astype("<U20")
    regrouped[split[1][::2]] = [f"{name}-other" for name in regrouped[split[1][::2]]]
    answers = []
    for groups in (matrix.groups, regrouped):
        table = replace(matrix, groups=groups)
        kept = PredictionCache.for_matrix(table, tmp_path)
        ((_, _, proba),) = cross_validate(table, [one], [split], prediction_cache=kept)
        ((_, _, again),) = cross_validate(table, [one], [split], prediction_cache=kept)
        assert (again == proba).all()
        assert kept.usage.hits == 1
        answers.append(proba)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


# From the command


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two networks over 48 images of 24 patients, extracted."""
    folder = tmp_path_factory.mktemp("patients")
    data = write_images(folder / "data", 48)
    manifest = scan(data)
    images = {record.id: record for record in manifest.records}
    networks = {key.backbone: GridBackbone(key.backbone) for key in KEYS}
    todo = image_blocks(plan(KEYS, list(images), {}))
    pipeline.run_pass(
        todo, images, KEYS[0].decoding, networks, Store(folder / "cache"), pipeline.NullProgress()
    )
    return data, folder / "cache"


class Grids:
    """Stands for `Networks`: loads without TensorFlow."""

    def __init__(self, *_):
        pass

    def load(self, identity):
        return GridBackbone(identity)


@pytest.fixture(autouse=True)
def _grids(monkeypatch):
    monkeypatch.setattr("featstore.extraction.pipeline.Networks", Grids)


def test_where_patients_are_scored_they_are_compared_and_else_left_out(world):
    data, cache = world
    result = featstore.compare(
        data, cache=cache, folds=3, repeats=1, unit="group", strategies=["concat_logreg", *BOTH]
    )
    assert {one.label for one in result.candidates} >= set(BOTH)
    assert result.by_image.estimates["mean_vector"]["auc"].mean is not None
    for unit in ({}, {"unit": "group", "pool": "noisy-or"}):
        with pytest.raises(UsageError, match="mean_vector pools the images of a patient itself") as error:
            featstore.compare(data, cache=cache, folds=3, strategies=["mean_vector"], **unit)
        told = "--unit group" if not unit else "Leave out --pool"
        assert told in error.value.remedy
        with pytest.raises(UsageError, match="attention_pooling pools"):
            featstore.compare(data, cache=cache, folds=3, primary="attention_pooling", **unit)
        with pytest.raises(UsageError, match="attention_pooling pools"):
            featstore.plan(data, cache.parent / "plan.json", cache=cache, primary="attention_pooling", **unit)
        with pytest.raises(UsageError, match="mean_vector pools"):
            featstore.fuse(data, cache=cache, strategy="mean_vector", out=cache.parent / "no", **unit)
    sealed = featstore.plan(
        data, cache.parent / "plan.json", cache=cache, primary="mean_vector", unit="group"
    )
    assert sealed.primary == "mean_vector"


@pytest.mark.parametrize("strategy", BOTH)
def test_predict_gives_a_patient_the_answer_of_the_fit_and_every_image_its_weight(strategy, world, tmp_path):
    data, cache = world
    out = tmp_path / "run"
    fitted = featstore.fuse(
        data,
        cache=cache,
        backbones=["Alpha"],
        strategy=strategy,
        unit="group",
        positive="ill",
        abstain=0.3,
        calibrate="platt",
        out=out,
    )
    result = featstore.predict(out, data)
    for told, expected in (
        (result.scores["patient"], fitted.scores["test"]),
        (result.scores["image"], fitted.by_image["test"]),
    ):
        assert set(told) == set(expected)
        for name, score in expected.items():
            assert told[name].value == pytest.approx(score.value)
            assert told[name].interval == pytest.approx(score.interval)
    for patient in result.patients:
        mine = [p for p in result.predictions if p.patient == patient.patient]
        assert sum(p.weight for p in mine) == pytest.approx(1)
        assert len({tuple(p.probability.values()) for p in mine}) == 1
    text = predictions_text(result, width=1000)
    assert "The model pools a patient's images before it answers; weight is the share of an image." in text
    header = next(result.rows())
    assert header[header.index("P(well)") + 1] == "weight"
    first = result.predictions[0]
    alone = featstore.predict(out, first.path)
    assert alone.predictions[0].weight == 1


def test_a_picture_in_two_files_of_a_patient_is_weighed_once(world, tmp_path):
    data, cache = world
    options = {"strategy": "mean_vector", "unit": "group", "positive": "ill", "out": tmp_path / "run"}
    featstore.fuse(data, cache=cache, backbones=["Alpha"], **options)
    lines = data.read_text().splitlines()
    head = lines[0].split(",")
    rows = [dict(zip(head, line.split(","), strict=True)) for line in lines[1:]]
    mine = [row for row in rows if row["group"] == rows[0]["group"]]
    assert len(mine) == 2
    for row in mine:
        (tmp_path / row["path"]).parent.mkdir(exist_ok=True)
        (tmp_path / row["path"]).write_bytes((data.parent / row["path"]).read_bytes())
    (tmp_path / "copy.png").write_bytes((tmp_path / mine[0]["path"]).read_bytes())
    tables = []
    for name, extra in (("plain", []), ("twice", [{**mine[0], "path": "copy.png"}])):
        table = tmp_path / f"{name}.csv"
        table.write_text("\n".join([",".join(head), *(",".join(row.values()) for row in [*mine, *extra])]))
        tables.append(featstore.predict(tmp_path / "run", table))
    plain, twice = tables
    assert plain.patients[0].probability == twice.patients[0].probability
    assert [p.weight for p in twice.predictions] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("strategy", BOTH)
def test_an_exported_model_takes_one_image_and_is_refused(strategy, world, tmp_path):
    data, cache = world
    options = {"strategy": strategy, "unit": "group", "positive": "ill", "out": tmp_path / "run"}
    featstore.fuse(data, cache=cache, backbones=["Alpha"], **options)
    with pytest.raises(UsageError, match=f"{strategy} answers from all images of a patient") as error:
        featstore.export(tmp_path / "run", tmp_path / "model.keras")
    assert "--strategy concat_logreg" in error.value.remedy


@pytest.mark.parametrize("strategy", BOTH)
def test_what_is_said_of_rows_is_said_of_the_patients_among_them(strategy):
    matrix = make_matrix(patients=12, images=3)
    one = Candidate(strategy, matrix.backbones, strategy)
    model = KINDS[strategy](blocks=matrix.blocks).fit(matrix.features[0], matrix.y, groups=matrix.groups)
    rows = np.arange(len(matrix.y))
    assert (
        predict_proba(model, matrix, rows, one) == model.predict_patients(matrix.features[0], matrix.groups)
    ).all()
