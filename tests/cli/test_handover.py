"""A model handed over: one file of plain Keras whose probabilities are those of the run, or a refusal that helps."""

import io
import json
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from commandline import featstore as command

import featstore
from featstore import registry
from featstore.api.export import PROGRAM_FILE, head_of
from featstore.backbones import keras_export
from featstore.errors import BackboneError, RefusedFileError, UsageError
from featstore.evaluation.calibration import METHODS, OperatingPoint, OperatingPointRequest
from featstore.exchange.pack import read_archive, seal_archive
from featstore.fusion.strategy import FOLDER
from featstore.testing import blocky, make_strategy
from featstore.types import BackboneSpec

EXPORTED = ("concat_head", "concat_logreg", "concat_mlp", "mean_logit", "stacking")


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A calibrated linear probe on both networks of the world."""
    out = tmp_path_factory.mktemp("handover") / "run"
    featstore.fuse(
        world.data, cache=world.cache, out=out, positive="covid", recipe="identity", calibrate="platt"
    )
    return out


class _Point:
    """What a model needs for its head."""

    def __init__(self, strategy, calibration):
        self.strategy = strategy
        self.point = OperatingPoint(calibration, None, OperatingPointRequest())


def answered(layers, X):
    """Probabilities of the layers, by NumPy."""
    values = X.astype(np.float64)
    for layer in layers:
        values = values @ layer.kernel + layer.bias
        if layer.activation == "relu":
            values = np.maximum(values, 0)
        elif layer.activation == "log_softmax":
            values = values - np.log(np.exp(values - values.max(1, keepdims=True)).sum(1, keepdims=True))
            values -= np.log(np.exp(values).sum(1, keepdims=True))
        if layer.scale is not None:
            values = values * layer.scale + layer.offset
    odds = np.exp(values - values.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


# The head


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", EXPORTED)
def test_the_layers_of_a_strategy_answer_as_it_does(name, n_classes):
    X, y = blocky(n=60, n_classes=n_classes)
    strategy = make_strategy(registry.load(FOLDER, name)).fit(X, y)
    found = answered(head_of(_Point(strategy, None)), X)
    np.testing.assert_allclose(found, strategy.predict_proba(X), atol=1e-9)


@pytest.mark.parametrize(
    ("method", "n_classes"), [("temperature", 2), ("temperature", 3), ("platt", 2), ("vector", 3)]
)
def test_a_calibration_is_in_the_layers(method, n_classes):
    X, y = blocky(n=90, n_classes=n_classes)
    strategy = make_strategy(registry.load(FOLDER, "concat_logreg")).fit(X[:45], y[:45])
    raw = strategy.predict_proba(X[45:])
    calibration = METHODS[method].fit(np.searchsorted(strategy.classes_, y[45:]), raw)
    found = answered(head_of(_Point(strategy, calibration)), X[45:])
    assert np.abs(calibration.apply(raw) - raw).max() > 1e-3
    np.testing.assert_allclose(found, calibration.apply(raw), atol=1e-7)


@pytest.mark.parametrize(("name", "method"), [("knn", None), ("concat_logreg", "isotonic")])
def test_what_is_no_layer_is_refused_with_what_is_one(name, method):
    X, y = blocky(n=60)
    strategy = make_strategy(registry.load(FOLDER, name)).fit(X, y)
    numbers = np.searchsorted(strategy.classes_, y)
    calibration = METHODS[method].fit(numbers, strategy.predict_proba(X)) if method else None
    with pytest.raises(UsageError, match="cannot be written as layers of Keras") as refused:
        head_of(_Point(strategy, calibration))
    assert "featstore fuse DATA --" in refused.value.remedy


# What is refused before anything is loaded


def test_a_network_that_is_not_keras_or_not_float32_is_refused():
    with pytest.raises(BackboneError, match="mine is no network of Keras"):
        keras_export.require_exportable(BackboneSpec("mine", "version:1", 32, "official", 8))
    with pytest.raises(UsageError, match="bfloat16"):
        keras_export.require_exportable(BackboneSpec("VGG16", "random:1", 32, "official", 8, "bfloat16"))


def test_a_place_that_will_not_do_is_refused_before_a_network_is_loaded(run, tmp_path):
    for name, why in {"model.h5": "no file of an exported model", "none/m.keras": "no folder"}.items():
        done = command("export", run, tmp_path / name)
        assert done.code == 2
        assert why in done.err
    (tmp_path / "m.keras").write_bytes(b"mine")
    done = command("export", run, tmp_path / "m.keras")
    assert done.code == 2
    assert "--overwrite" in done.err
    assert (tmp_path / "m.keras").read_bytes() == b"mine"


def test_a_folder_without_a_model_is_refused(world, tmp_path):
    done = command("export", world.data.parent, tmp_path / "m.keras")
    assert done.code == 1
    assert "no readable run" in done.err


def test_a_model_that_asks_for_covariates_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("featstore.api.export.read_model", lambda _: SimpleNamespace(covariates=object()))
    with pytest.raises(UsageError, match="asks for covariates beside the image"):
        featstore.export("run", tmp_path / "m.keras")


# The archive around it


def test_an_archive_comes_back_and_equal_content_is_equal_bytes(tmp_path):
    members = {"b.txt": b"two", "a.txt": b"one"}
    data = seal_archive("test", members, {"n": 1})
    assert data == seal_archive("test", dict(reversed(members.items())), {"n": 1})
    (tmp_path / "x.zip").write_bytes(data)
    assert read_archive(tmp_path / "x.zip", "test") == (members, {"n": 1})
    with pytest.raises(RefusedFileError, match="'test', and 'other' is wanted"):
        read_archive(tmp_path / "x.zip", "other")


def hostile(change):
    """An archive after a change of its members, by name."""
    members = {"a.txt": b"one", "b.txt": b"two"}
    plain = seal_archive("test", members, {})
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        change(parts, archive)
    return buffer.getvalue()


def write(parts, archive):
    for name, data in parts.items():
        archive.writestr(name, data)


def _traversal(parts, archive):
    write(parts | {"../../evil.txt": b"x"}, archive)


def _bomb(parts, archive):
    write(parts, archive)
    archive.writestr("bomb", b"0" * 1_000_000, zipfile.ZIP_DEFLATED)


def _changed(parts, archive):
    write(parts | {"a.txt": b"eno"}, archive)


def _extra(parts, archive):
    write(parts | {"c.txt": b"x"}, archive)


def _missing(parts, archive):
    del parts["a.txt"]
    write(parts, archive)


def _forged(parts, archive):
    contents = json.loads(parts["contents.json"])
    contents["members"]["a.txt"]["sha256"] = "0" * 64
    write(parts | {"contents.json": json.dumps(contents).encode()}, archive)


def _unsealed(parts, archive):
    write(parts | {"contents.json": b"{}"}, archive)


@pytest.mark.hostile
@pytest.mark.parametrize("where", ["before", "between", "behind", "comment", "comment of a member"])
def test_bytes_that_no_digest_covers_are_refused(where, tmp_path, tried):
    """A pack promises that no image is in it, so nothing may lie beside its members."""
    plain = seal_archive("test", {"a.txt": b"one", "b.txt": b"two"}, {})
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            if where == "between":
                archive.fp.write(b"picture")
                archive.start_dir = archive.fp.tell()
            member = zipfile.ZipInfo(name)
            member.comment = b"picture" if where == "comment of a member" else b""
            archive.writestr(member, data)
        archive.comment = b"picture" if where == "comment" else b""
    changed = buffer.getvalue()
    changed = b"picture" * (where == "before") + changed + b"picture" * (where == "behind")
    (tmp_path / "x.zip").write_bytes(changed)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
    with pytest.raises(RefusedFileError, match="bytes beside its members"):
        read_archive(tmp_path / "x.zip", "test")
    tried("archives")


@pytest.mark.hostile
@pytest.mark.parametrize("change", [_traversal, _bomb, _changed, _extra, _missing, _forged, _unsealed])
def test_a_hostile_archive_is_refused_and_nothing_is_written(change, tmp_path, tried):
    (tmp_path / "x.zip").write_bytes(hostile(change))
    with pytest.raises(RefusedFileError, match="is refused"):
        read_archive(tmp_path / "x.zip", "test")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    tried("archives")


# Networks


@pytest.mark.slow
def test_a_bundle_gives_the_run_s_probabilities_in_plain_keras(world, run, tmp_path):
    """Its own program, in a process to which featstore cannot be imported."""
    done = command("export", run, tmp_path / "bundle.zip", "--json")
    assert done.code == 0, done.err
    assert done.json["classes"] == ["covid", "normal"]
    assert done.json["largest_difference"] < 1e-4
    members, about = read_archive(tmp_path / "bundle.zip", "model bundle")
    assert set(members) == {"model.keras", "card.json", "CARD.md", "LICENCES.txt", PROGRAM_FILE}
    assert len(about["run_sha256"]) == 64
    for name in ("model.keras", PROGRAM_FILE):
        (tmp_path / name).write_bytes(members[name])
    assert b"Lambda" not in zipfile.ZipFile(tmp_path / "model.keras").read("config.json")
    images = sorted((world.data.parent / "covid").glob("*.png"))[:6]
    images += sorted((world.data.parent / "normal").glob("*.png"))[:6]
    alone = "import sys, runpy; sys.modules['featstore'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    told = subprocess.run(
        [sys.executable, "-c", alone, PROGRAM_FILE, *map(str, images)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.partition(" {") for line in told.stdout.splitlines() if " {" in line]
    found = {path: json.loads("{" + rest.replace("'", '"')) for path, _, rest in lines}
    answers = featstore.predict(run, images).predictions
    assert len(found) == len(answers) == 12
    assert len({round(a.probability["covid"], 3) for a in answers}) > 6
    for answer in answers:
        assert found[answer.path] == pytest.approx(answer.probability, abs=1e-4)


@pytest.mark.slow
def test_the_card_of_a_bundle_says_that_the_file_answers_images_and_from_which_threshold(world, tmp_path):
    """The run's own threshold is that of patients, and is not in the file."""
    featstore.fuse(
        world.data, cache=world.cache, out=tmp_path / "run", positive="covid", recipe="identity", unit="group",
        calibrate="platt", sensitivity=0.9,
    )  # fmt: skip
    featstore.export(tmp_path / "run", tmp_path / "bundle.zip")
    members, _ = read_archive(tmp_path / "bundle.zip", "model bundle")
    threshold = json.loads(members["card.json"])["threshold"]
    about = members["CARD.md"].decode().split("## This file")[1].split("##")[0]
    assert "one image, calibrated (platt)" in about
    assert f"It is called 'covid' from a probability of {threshold:.4g} on." in about
    assert "those of patients, whose images `featstore predict` pools (mean-logit)" in about


@pytest.mark.slow
def test_onnx_gives_the_run_s_probabilities(world, run, tmp_path):
    """Asked here as anybody would ask it, on pictures of patients."""
    import onnxruntime
    from PIL import Image

    pytest.importorskip("tf2onnx")
    done = command("export", run, tmp_path / "m.onnx", "--json")
    assert "Warning" not in done.err
    assert done.code == 0, done.err
    images = sorted((world.data.parent / "covid").glob("*.png"))[:4]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == list(done.json["inputs"]) == ["image_224"]
    scaled = [
        Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for path in images
    ]
    found = session.run(None, {"image_224": np.stack(scaled).astype(np.float32)})[0]
    expected = [list(answer.probability.values()) for answer in featstore.predict(run, images).predictions]
    np.testing.assert_allclose(found, expected, atol=1e-4)
