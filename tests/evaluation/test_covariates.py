"""Covariates: columns of a table beside the networks, in compare and fuse, with nothing of them in the cache."""

import csv
from importlib.metadata import version

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images

import featstore
from featstore.covariates import CovariateEncoding, read_number
from featstore.errors import ManifestError, UsageError
from featstore.extraction import pipeline
from featstore.extraction.plan import image_blocks, plan
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import COVARIATES, IDENTITY, Decoding, FeatureKey, make_blocks

SPECS = [spec(name, weights=f"random:0 keras {version('keras')}") for name in ("Alpha", "Beta")]
DECODING = Decoding(decoder_version())
NAMES = ["age", "sex"]


@pytest.fixture(autouse=True)
def _grids(monkeypatch):
    class Grids:
        def __init__(self, *_):
            pass

        def load(self, identity):
            return GridBackbone(identity)

    monkeypatch.setattr("featstore.extraction.pipeline.Networks", Grids)


def table(folder, missing=()):
    """40 images whose age tells the class and whose sex tells nothing."""
    rng = np.random.default_rng(0)
    root = write_images(folder / "data", 40).parent
    lines = []
    for number, record in enumerate(scan(root / "manifest.csv").records):
        age = "" if number in missing else f"{(70 if record.label == 'ill' else 40) + rng.normal(0, 4):.0f}"
        lines.append([record.path.relative_to(root), record.label, record.group, age, "fm"[number % 2]])
    file = root / "table.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["path", "label", "group", "age", "sex"], *lines])
    return file


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("covariates")
    file = table(folder, missing={3, 8})
    images = {record.id: record for record in scan(file).records}
    keys = [FeatureKey(one, IDENTITY, DECODING) for one in SPECS]
    pipeline.run_pass(
        image_blocks(plan(keys, list(images), {})), images, DECODING, {one: GridBackbone(one) for one in SPECS},
        Store(folder / "cache"), pipeline.NullProgress(),
    )  # fmt: skip
    return file, folder / "cache"


def test_columns_are_numbers_or_categories_by_their_cells_alone():
    rows = [("61", "f", "1,5"), ("", " M ", "2"), ("n/a", "?", "-0.5")]
    encoding = CovariateEncoding.of(["age", "sex", "crp"], rows)
    assert encoding.names == ("age", "sex=M", "sex=f", "crp")
    nan = np.nan
    np.testing.assert_array_equal(
        encoding.encode(rows), [[61, 0, 1, 1.5], [nan, 1, 0, 2], [nan, nan, nan, -0.5]]
    )
    assert CovariateEncoding.from_json(encoding.to_json()) == encoding
    assert read_number("1,234.5") is None
    assert read_number("inf") is None


def test_the_block_lies_beside_the_networks_and_nothing_of_it_in_the_cache(world):
    file, cache = world
    before = sorted(path for path in (cache / "features").rglob("*") if path.is_file())
    matrix = featstore.load_matrix(file, cache=cache, covariates=NAMES)
    assert (matrix.backbones, matrix.networks) == (("Alpha", "Beta", COVARIATES), ("Alpha", "Beta"))
    plain = featstore.load_matrix(file, cache=cache)
    block = matrix.blocks[-1]
    np.testing.assert_array_equal(matrix.X[:, : block.start], plain.X)
    assert matrix.X[:, block.start :].shape == (40, 3)
    assert (
        {f.code: f.count for f in matrix.findings}["FS115"]
        == int(np.isnan(matrix.X[:, block.start]).sum())
        == 2
    )
    assert sorted(path for path in (cache / "features").rglob("*") if path.is_file()) == before
    assert plain.covariates is None


def test_means_and_scales_are_of_the_training_rows_alone():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 6))
    X[:, 4:] = rng.normal(50, 9, (60, 2))
    y = np.repeat([0, 1], 30)
    X[::7, 4] = np.nan
    blocks = make_blocks({"A": 4, COVARIATES: 2})
    fitted = ConcatLogreg(blocks=blocks).fit(X, y)
    mean, scale = fitted.covariates_
    np.testing.assert_allclose(mean, np.nanmean(X[:, 4:], axis=0))
    np.testing.assert_allclose(scale, np.nanstd(X[:, 4:], axis=0))
    filled = X.copy()
    filled[:, 4:] = np.where(np.isnan(X[:, 4:]), mean, X[:, 4:])
    by_hand = ConcatLogreg(blocks=blocks).fit((filled - [0, 0, 0, 0, *mean]) / [1, 1, 1, 1, *scale], y)
    np.testing.assert_allclose(
        fitted.predict_proba(X), by_hand.predict_proba((filled - [0, 0, 0, 0, *mean]) / [1, 1, 1, 1, *scale]),
        atol=1e-6,
    )  # fmt: skip
    other = X.copy()
    other[:, 4] = np.nan
    assert np.isfinite(fitted.predict_proba(other)).all()
    other[0, 0] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        fitted.predict_proba(other)


def test_a_comparison_has_everyone_with_and_without_them_and_the_same_question(world):
    file, cache = world
    asked = {"cache": cache, "folds": 4, "repeats": 1, "positive": "ill", "strategies": ["soft_vote"]}
    plain = featstore.compare(file, **asked)
    result = featstore.compare(file, covariates=NAMES, **asked)
    labels = {scored.candidate.label for scored in plain.candidates}
    assert {scored.candidate.label for scored in result.candidates} == {
        *labels, *(f"{label}+{COVARIATES}" for label in labels), COVARIATES,
    }  # fmt: skip
    asked, question = plain.primary_question, result.primary_question
    assert (question.primary, [s.name for s in question.singles]) == (
        asked.primary,
        [s.name for s in asked.singles],
    )
    assert [s.delta for s in question.singles] == pytest.approx([s.delta for s in asked.singles])
    auc = {scored.candidate.label: scored.estimates["auc"].mean for scored in result.candidates}
    assert auc[COVARIATES] > 0.95, "age alone tells the class here"
    assert auc["soft_vote"] == pytest.approx(
        next(s.estimates["auc"].mean for s in plain.candidates if s.candidate.label == "soft_vote")
    )
    with pytest.raises(UsageError, match="economics"):
        featstore.compare(file, covariates=NAMES, economics=True, cache=cache)


@pytest.mark.parametrize("strategy", ["concat_logreg", "vote_backbones"])
def test_predict_asks_for_them(world, tmp_path, strategy):
    file, cache = world
    run = tmp_path / "run"
    fusion = featstore.fuse(
        file, cache=cache, covariates=NAMES, strategy=strategy, positive="ill", out=run, backbones=["Alpha"]
    )
    assert fusion.matrix["backbones"][-1]["name"] == COVARIATES
    with (run / "predictions.csv").open(newline="") as lines:
        kept = {row["image_id"]: float(row["p(ill)"]) for row in csv.DictReader(lines)}
    ids = {str(record.path): record.id for record in scan(file).records}
    answers = featstore.predict(run, file)
    found = {ids[one.path]: one.probability["ill"] for one in answers.predictions}
    assert kept == pytest.approx({image: found[image] for image in kept})
    assert "FS115" in {finding.code for finding in answers.findings}
    with pytest.raises(ManifestError, match="The model asks for age, sex"):
        featstore.predict(run, file.parent / "ill")
    bare = file.parent / "bare.csv"
    bare.write_text("\n".join(",".join(line.split(",")[:4]) for line in file.read_text().splitlines()))
    with pytest.raises(ManifestError, match="'sex'"):
        featstore.predict(run, bare)
    with pytest.raises(UsageError, match="covariates"):
        featstore.explain(run, file)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["label"], "is the label"),
        (["group"], "is the group"),
        (["weight"], "no column 'weight'"),
        (["age", "Age"], "named twice"),
    ],
)
def test_what_cannot_be_a_covariate_is_refused(world, names, what):
    with pytest.raises(ManifestError, match=what):
        scan(world[0], covariates=names)


def test_free_text_and_empty_columns_are_refused():
    with pytest.raises(ManifestError, match="21 different values"):
        CovariateEncoding.of(["note"], [(f"text {n}",) for n in range(21)])
    with pytest.raises(ManifestError, match="empty"):
        CovariateEncoding.of(["note"], [("",), ("NA",)])


def test_a_folder_has_no_covariates(world):
    with pytest.raises(ManifestError, match="--covariates is for a CSV file"):
        scan(world[0].parent, covariates=["age"])
