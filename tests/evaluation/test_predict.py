"""What a kept model says about new images, with a network that needs no TensorFlow."""

import csv
import io
import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images
from PIL import Image

import featstore
from featstore import runs as run
from featstore import serialization as document
from featstore.api import predict as prediction_table
from featstore.api.predict import predict_prepared, prepare
from featstore.errors import RunError, UsageError, WeightsError
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.reporting.terminal.results import predictions_text
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

ALPHA = spec(weights=f"random:0 keras {version('keras')}")
KEY = FeatureKey(ALPHA, IDENTITY, Decoding(decoder_version()))


class Grids:
    """Stands for `Networks`: loads without TensorFlow, and says that it did."""

    loaded = 0

    def __init__(self, *_):
        pass

    def load(self, identity):
        Grids.loaded += 1
        return GridBackbone(identity)


@pytest.fixture(autouse=True)
def _grids(monkeypatch):
    monkeypatch.setattr("featstore.extraction.pipeline.Networks", Grids)
    Grids.loaded = 0


def extract(manifest, cache):
    images = {record.id: record for record in manifest.records}
    todo = plan([KEY], list(images), {})
    engine.run_pass(
        image_blocks(todo),
        images,
        KEY.decoding,
        {ALPHA: GridBackbone(ALPHA)},
        Store(cache),
        engine.NullProgress(),
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """32 images, two a patient, extracted and fused: (manifest, run folder, ids that were held out)."""
    folder = tmp_path_factory.mktemp("predict")
    data = write_images(folder / "data", 32)
    manifest = scan(data)
    extract(manifest, folder / "cache")
    fitted = featstore.fuse(data, cache=folder / "cache", out=folder / "run", positive="ill")
    (folder / "scores.json").write_text(json.dumps(fitted.to_json()["scores"]["test"]))
    with (folder / "run" / run.PREDICTIONS).open(newline="") as lines:
        held_out = {row["image_id"]: row for row in csv.DictReader(lines)}
    return data, folder / "run", held_out, {r.id: r for r in manifest.records}


def test_a_held_out_image_gets_the_answer_of_the_run_and_a_training_image_is_told_before(world):
    data, out, held_out, records = world
    prepared = prepare(out, data)
    assert Grids.loaded == 0
    (finding,) = prepared.findings
    assert (finding.code, finding.count) == ("FS407", 32 - len(held_out))
    result = predict_prepared(prepared)
    assert len(result.predictions) == 32
    ids = {record.path: image for image, record in records.items()}
    for p in result.predictions:
        row = held_out.get(ids[next(path for path in ids if str(path) == p.path)])
        assert p.is_new == (row is not None)
        if row is not None:
            assert p.probability["ill"] == pytest.approx(float(row["p(ill)"]), abs=1e-9)
            assert (p.label, p.given) == (row["predicted"], row["label"])
    right = sum(row["label"] == row["predicted"] for row in held_out.values())
    counts = result.counts
    assert (counts.labelled, counts.right, counts.seen) == (len(held_out), right, 32 - len(held_out))
    text = predictions_text(result, width=1000)
    assert f"Right: {right} of {len(held_out)} images with a label" in text
    assert text.startswith("32 images answered: ill "), "the answer comes first"
    assert ["image", "label", "predicted", "P(ill)", "P(well)", "in", "training"] in [
        line.split() for line in text.splitlines()
    ]


def test_what_the_answers_are_worth_is_what_the_fit_said_of_what_it_held_out(world):
    """The same numbers and intervals, for they are about the same images of the same patients."""
    data, out, _, _ = world
    result = featstore.predict(out, data)
    assert result.to_json()["scores"]["image"] == json.loads((out.parent / "scores.json").read_text())
    whole = result.scores["patient"]
    expected = [(p.given, p.probability["ill"]) for p in result.patients if p.is_new]
    ill, well = ([p for given, p in expected if (given == "ill") is wanted] for wanted in (True, False))
    pairs = [(a > b) + 0.5 * (a == b) for a in ill for b in well]
    assert whole["auc"].value == pytest.approx(np.mean(pairs))
    first, _, second = predictions_text(result, width=1000).split("\n")[:3]
    assert first.startswith("32 images answered")
    assert second == "On those with a label that were not in training [95 %]:"


def test_answers_without_labels_have_no_scores_and_of_one_class_no_auc(world):
    data, out, held_out, records = world
    paths = [record.path for image, record in records.items() if image in held_out]
    assert featstore.predict(out, paths).scores == {}
    lines = data.read_text().splitlines()
    table = data.parent / "one-class.csv"
    table.write_text("\n".join([lines[0], *(line for line in lines[1:] if ",ill," in line)]))
    result = featstore.predict(out, table)
    assert result.scores["image"]["auc"].value is None
    assert result.scores["image"]["sensitivity"].value is not None
    assert "; a class is missing." in predictions_text(result)


def test_a_training_image_saved_anew_is_recognised_and_a_held_out_one_is_not(world, tmp_path):
    _, out, held_out, records = world
    old = next(r for r in records.values() if r.id not in held_out)
    new = next(r for r in records.values() if r.id in held_out)
    for name, record in {"old.bmp": old, "new.bmp": new, "old.tif": old}.items():
        Image.open(record.path).save(tmp_path / name)
    result = featstore.predict(out, tmp_path)
    signs = {p.path.rpartition("/")[2]: p.in_training for p in result.predictions}
    assert signs == {"old.bmp": "the same pixels", "old.tif": "the same pixels", "new.bmp": None}


def test_a_new_image_of_a_patient_in_training_is_recognised_by_the_name(world, tmp_path):
    _, out, held_out, records = world
    name = next(r.group for r in records.values() if r.id not in held_out)
    other = next(r.group for r in records.values() if r.id in held_out)
    for seed, patient in enumerate((name.upper(), other)):
        path = tmp_path / patient / "scan.png"
        path.parent.mkdir()
        Image.fromarray(np.random.default_rng(seed).integers(0, 9, (20, 20), np.uint8)).save(path)
    found = featstore.predict(out, tmp_path, group_pattern=r"^(\w+)/").predictions
    assert {p.path.split("/")[-2]: p.in_training for p in found} == {
        name.upper(): "the same patient name",
        other: None,
    }
    assert all(p.is_new for p in featstore.predict(out, tmp_path).predictions)


def test_the_run_keeps_no_name_of_a_patient_and_no_path(world):
    _, out, _, records = world
    text = (out / run.TRAINING).read_text()
    assert len(json.loads(text)["groups"]) > 0
    for record in records.values():
        assert f'"{record.group}"' not in text
        assert record.path.name not in text
    assert (out / run.TRAINING).stat().st_mode & 0o077 == 0


def test_every_page_gets_an_answer_and_each_file_a_mean(world, tmp_path):
    _, out, _, records = world
    paths = [record.path for record in list(records.values())[:3]]
    single = {p.path: p.probability["ill"] for p in featstore.predict(out, paths).predictions}
    first, *rest = [Image.open(path) for path in paths]
    first.save(tmp_path / "stack.tif", save_all=True, append_images=rest)
    result = featstore.predict(out, str(tmp_path / "stack.tif"))
    assert [p.page for p in result.predictions] == [1, 2, 3]
    expected = [single[str(path)] for path in paths]
    assert [p.probability["ill"] for p in result.predictions] == pytest.approx(expected)
    (mean,) = result.files
    assert (mean.pages, mean.probability["ill"]) == (3, pytest.approx(np.mean(expected)))
    assert mean.label == ("ill" if np.mean(expected) >= 0.5 else "well")
    header, *lines = result.rows()
    assert header[:3] == ["path", "page", "predicted"]
    assert [line[1] for line in lines] == [1, 2, 3]
    assert "Mean probability over the pages" in predictions_text(result)


def test_the_table_names_each_class_and_is_for_its_owner(world, tmp_path):
    _, out, _, records = world
    path = tmp_path / "=1+1.png"
    shutil.copy(next(iter(records.values())).path, path)
    result = featstore.predict(out, [path.name])
    prediction_table.write_table(tmp_path / "t.csv", result)
    (row,) = csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text()))
    assert row["path"] == "'=1+1.png", "a formula is quoted"
    assert float(row["P(ill)"]) + float(row["P(well)"]) == pytest.approx(1)
    assert row["in_training"] == "the same file"
    prediction_table.write_table(tmp_path / "t.json", result)
    assert json.loads((tmp_path / "t.json").read_text()) == json.loads(json.dumps(result.to_json()))
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in ("t.csv", "t.json"))


def test_python_writes_the_tables_of_the_command_line(world, tmp_path):
    data, out, _, _ = world
    result = featstore.predict(out, data, out=tmp_path / "t.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [row["path"] for row in rows] == [p.path for p in result.predictions]
    assert (tmp_path / "t-patients.csv").exists() == bool(result.patients)
    with pytest.raises(UsageError, match="is there already"):
        featstore.predict(out, data, out=tmp_path / "t.csv")
    featstore.predict(out, data, out=tmp_path / "t.csv", overwrite=True)


@pytest.mark.parametrize(
    ("name", "remedy"), [("t.csv", "--overwrite"), ("t.txt", ".csv"), ("no/t.csv", "Make it")]
)
def test_a_table_that_cannot_be_written_is_refused_before_any_work(tmp_path, name, remedy):
    (tmp_path / "t.csv").write_text("mine")
    with pytest.raises(UsageError) as caught:
        prediction_table.refuse_unwritable(tmp_path / name, overwrite=False)
    assert remedy in caught.value.remedy
    prediction_table.refuse_unwritable(tmp_path / "t.csv", overwrite=True)


def test_labels_that_the_model_does_not_know_are_told_and_not_counted(world):
    data, out, _, _ = world
    table = data.parent / "strange.csv"
    lines = data.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line.replace(",ill,", ",Ill,") for line in lines[1:])]))
    result = featstore.predict(out, table)
    strange = sum(",ill," in line for line in lines)
    (finding,) = [f for f in result.findings if f.code == "FS410"]
    assert finding.count == strange
    assert result.counts.labelled + result.counts.seen == 32 - strange


@pytest.mark.parametrize(
    ("kind", "remedy"), [("fuse", "Make these runs again"), ("merged", "whom no hospital trained on")]
)
def test_a_run_that_does_not_tell_its_training_answers_and_says_so(kind, remedy, world, tmp_path):
    """That of an earlier featstore can be made again, a model of several hospitals cannot."""
    data, out, _, _ = world
    shutil.copytree(out, tmp_path / "old")
    (tmp_path / "old" / run.TRAINING).unlink()
    about = document.unseal(document.read(tmp_path / "old" / run.RUN, document.LARGE))
    del about["files"][run.TRAINING]
    about["kind"] = kind
    (tmp_path / "old" / run.RUN).write_text(run.json_text(document.seal(about)))
    result = featstore.predict(tmp_path / "old", data)
    assert [finding.code for finding in result.findings] == ["FS409"]
    assert remedy in result.findings[0].remedy
    assert len(result.predictions) == 32
    assert "whether in training or not (FS409)" in predictions_text(result)


def test_a_model_that_went_on_from_another_has_learned_from_the_images_of_both(world, tmp_path):
    data, out, _, records = world
    cache, options = out.parent / "cache", {"strategy": "concat_head", "options": {"epochs": 2}}
    first = featstore.fuse(data, cache=cache, out=tmp_path / "first", **options)
    other = write_images(tmp_path / "other", 16, seed=5)
    extract(scan(other), cache)
    featstore.fuse(other, cache=cache, out=tmp_path / "next", init_from=tmp_path / "first", **options)
    result = featstore.predict(tmp_path / "next", [data, other])
    seen = {p.path for p in result.predictions if p.in_training == "the same file"}
    assert len([path for path in seen if str(data.parent) in path]) == first.sizes["train"]
    assert 0 < len([path for path in seen if str(other.parent) in path]) < 16
    assert len(result.predictions) == len(records) + 16


@pytest.mark.parametrize("forge", [b"{}", b"[", b'{"ids": 3}'])
def test_a_damaged_list_of_training_images_is_refused(world, tmp_path, forge):
    data, out, _, _ = world
    shutil.copytree(out, tmp_path / "bad")
    (tmp_path / "bad" / run.TRAINING).write_bytes(forge)
    with pytest.raises(RunError, match="training"):
        featstore.predict(tmp_path / "bad", data)


def test_all_that_is_cheap_is_refused_before_a_network_is_loaded(world, tmp_path):
    _, out, _, records = world
    some = next(iter(records.values())).path
    (tmp_path / "cut.png").write_bytes(some.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"Undecodable: .*cut\.png': truncated"):
        featstore.predict(out, tmp_path / "cut.png")
    Image.fromarray(np.full((20, 20), 900, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UsageError, match="needs_range") as caught:
        featstore.predict(out, tmp_path / "deep.png")
    assert "featstore extract" in caught.value.remedy, "predict has no --range"
    with pytest.raises(UsageError, match="the model does without it"):
        featstore.predict(out, some, weights={"Xception": "random:0"})
    with pytest.raises(WeightsError, match="wanted with"):
        prepare(_with_weights(out, tmp_path / "run", f"sha256:{'ab' * 32}"), some)
    assert Grids.loaded == 0


def _with_weights(out, copy, weights):
    """Copy a run as if its features came from a file of the catalogue's MobileNetV2."""
    shutil.copytree(out, copy)
    about = document.unseal(document.read(copy / run.RUN, document.LARGE))
    about["matrix"]["backbones"][0] |= {"weights": weights, "name": "MobileNetV2"}
    (copy / run.RUN).write_text(run.json_text(document.seal(about)))
    return copy
