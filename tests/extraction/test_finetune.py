"""A backbone learns from the training images, and nothing that it has learned from is ever scored."""

import csv
import json
import signal
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from commandline import FEATSTORE
from commandline import featstore as command
from fakes import write_images

import featstore
from featstore.api import finetune as module
from featstore.api.cache import inventory
from featstore.api.fuse import fuse
from featstore.backbones import catalog
from featstore.backbones.keras_backbone import load_backbone
from featstore.backbones.trainable import LinearHead, TrainableBackbone
from featstore.errors import (
    AuditError,
    BackboneError,
    RunError,
    StoreError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from featstore.extraction.finetune_loop import LossAndAccuracy, TrainingResult
from featstore.images.reading import decoder_version, pixel_digest_of
from featstore.phantom import make_phantoms
from featstore.results.extraction import Finetuning
from featstore.runs import read_run
from featstore.store.store import Store
from featstore.store.training_record import read_from_weights
from featstore.types import Decoding

NET = "MobileNet025"
RANDOM = {NET: "random:1"}
COURSE = {
    "backbone": NET, "recipe": "flips", "epochs": 2, "batch_size": 8, "unfreeze": 3, "weights": RANDOM,
}  # fmt: skip
BEFORE = LossAndAccuracy(loss=1.0, accuracy=0.5)
UNTAUGHT = TrainingResult(BEFORE, BEFORE, 0, {"loss": ()})
"""For tests of what becomes of the weights, whatever they have learned."""


@dataclass(frozen=True)
class World:
    """A planted signal, a network tuned on it, and its features."""

    data: Path
    cache: Path
    tuned: Finetuning

    @property
    def source(self):
        return {"cache": self.cache, "backbones": [NET], "weights": {NET: self.tuned.weights}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    data, cache = write_images(folder / "data", 32), folder / "cache"
    tuned = featstore.finetune(data, out=folder / "run", **COURSE)
    featstore.extract(data, backbones=[NET], weights=RANDOM, cache=cache)
    featstore.extract(data, backbones=[NET], weights={NET: tuned.weights}, cache=cache)
    return World(data, cache, tuned)


def ids_in(path):
    with path.open(newline="") as lines:
        return {line["image_id"] for line in csv.DictReader(lines)}


@pytest.mark.slow
def test_a_planted_signal_is_learned(world):
    tuned = world.tuned
    assert tuned.best_epoch == tuned.epochs == 2
    assert tuned.after.loss == min(tuned.history["val_loss"]) < tuned.before.loss
    assert tuned.history["loss"][1] < tuned.history["loss"][0]
    assert {len(values) for values in tuned.history.values()} == {2}


@pytest.mark.slow
def test_equal_arguments_give_equal_bytes(world, tmp_path):
    again = featstore.finetune(world.data, out=tmp_path / "again", **COURSE)
    assert Path(again.weights).read_bytes() == Path(world.tuned.weights).read_bytes()
    assert again.history == world.tuned.history


@pytest.mark.slow
def test_what_is_held_out_is_what_fuse_holds_out(world, tmp_path):
    fuse(world.data, out=tmp_path / "fit", **world.source)
    run = read_run(Path(world.tuned.run))
    scored = ids_in(tmp_path / "fit" / "predictions.csv")
    everyone = {record.id for record in featstore.load_matrix(world.data, **world.source).records}
    assert {*run["trained"], *run["validated"]} == everyone - scored
    assert world.tuned.sizes == {"trained": 20, "validated": 4, "test": len(scored)}


@pytest.mark.slow
def test_validation_keeps_patients_whole(world):
    run = read_run(Path(world.tuned.run))
    group = {r.id: r.group for r in featstore.load_matrix(world.data, **world.source).records}
    assert not {group[i] for i in run["trained"]} & {group[i] for i in run["validated"]}


@pytest.mark.slow
def test_the_new_features_are_those_that_plain_keras_computes_under_a_key_of_their_own(world):
    entries = inventory(world.cache)
    assert {entry.weights for entry in entries} == {world.tuned.started_from, world.tuned.digest}
    matrix = featstore.load_matrix(world.data, **world.source)
    network = catalog.mobilenet_025(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    network.load_weights(world.tuned.weights)
    from PIL import Image

    records = matrix.records[:8]
    shown = [Image.open(r.path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for r in records]
    expected = network(np.stack([np.asarray(s, np.float32) for s in shown]) / 127.5 - 1, training=False)
    got = matrix.features[0, :8]
    assert np.abs(got - expected.numpy()).max() <= 1e-5 * np.abs(got).max()


@pytest.mark.slow
def test_images_that_were_learned_from_are_not_scored(world, tmp_path):
    with pytest.raises(AuditError, match=r"tuned on \d of the 8 images") as caught:
        fuse(world.data, split_seed=1, out=tmp_path / "fit", **world.source)
    assert "--split-seed" in caught.value.remedy
    assert caught.value.exit_code == 5
    assert not (tmp_path / "fit").exists()
    fuse(world.data, split_seed=1, out=tmp_path / "fit", **{**world.source, "weights": RANDOM})


@pytest.mark.parametrize("choice", [{"calibrate": "platt"}, {"sensitivity": 0.9}])
@pytest.mark.slow
def test_no_threshold_is_chosen_on_images_that_were_learned_from(world, tmp_path, choice):
    with pytest.raises(AuditError, match="nothing can be chosen"):
        fuse(world.data, out=tmp_path / "fit", **choice, **world.source)


@pytest.mark.slow
def test_a_comparison_leaves_out_what_was_learned_from_and_says_so(world):
    result = featstore.compare(world.data, folds=2, strategies=["concat_logreg"], **world.source)
    assert (result.matrix["images"], result.matrix["set_apart"]) == (8, 24)
    everyone = featstore.compare(
        world.data, folds=2, strategies=["concat_logreg"], **{**world.source, "weights": RANDOM}
    )
    assert (everyone.matrix["images"], everyone.matrix["set_apart"]) == (32, 0)


@pytest.mark.slow
def test_a_prediction_says_when_the_image_was_learned_from(world, tmp_path):
    fuse(world.data, out=tmp_path / "fit", **world.source)
    known = set(read_run(Path(world.tuned.run))["trained"])
    records = featstore.load_matrix(world.data, **world.source).records
    old = next(r for r in records if r.id in known)
    new = next(r for r in records if r.id in ids_in(tmp_path / "fit" / "predictions.csv"))
    answer = featstore.predict(tmp_path / "fit", [old.path, new.path], weights=world.source["weights"])
    assert [p.tuned_on for p in answer.predictions] == [(NET,), ()]


@pytest.mark.slow
def test_the_weights_know_pixels_and_patients_of_all_their_images_and_name_none(world):
    record = read_from_weights(Path(world.tuned.weights), world.tuned.digest)
    records = {r.id: r for r in featstore.load_matrix(world.data, **world.source).records}
    taught = [records[image] for image in record.trained]
    pixels = {pixel_digest_of(r, Decoding(decoder_version())) for r in taught}
    assert record.trained_pixels == pixels
    assert all(record.known_trained.has_group(r.group) for r in taught)
    held_out = {r.group for r in records.values() if r.id not in record.images}
    assert not any(record.known.has_group(group) for group in held_out)
    assert len(record.validated_pixels) == 4
    content = Path(world.tuned.weights).read_bytes()
    assert not any(r.path.name.encode() in content for r in taught)


def page(world):
    (path,) = world.cache.glob("features/*/learned.json")
    return path


@pytest.mark.slow
def test_the_record_beside_the_shards_is_private_sound_and_comes_back_from_the_weights_file(world):
    path = page(world)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert featstore.verify(world.cache).strangers == ()
    assert featstore.gc(world.data, cache=world.cache).garbage == ()
    whole = path.read_bytes()
    path.unlink()
    again = featstore.extract(world.data, **world.source)
    assert again.missing == 0
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_a_damaged_record_closes_the_door_until_extract_has_mended_it(world, tmp_path):
    path = page(world)
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    for repair in (False, True):
        assert [where for where, _ in featstore.verify(world.cache, repair=repair).bad] == [str(path)]
    with pytest.raises(StoreError, match="learned from") as caught:
        fuse(world.data, out=tmp_path / "fit", **world.source)
    assert "featstore extract" in caught.value.remedy
    featstore.extract(world.data, **world.source)
    assert featstore.verify(world.cache).bad == ()
    fuse(world.data, out=tmp_path / "fit", **world.source)


@pytest.mark.slow
def test_weights_that_are_tuned_on_know_all_that_they_ever_learned_from(world, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *_, **__: UNTAUGHT)
    more = {**COURSE, "weights": {NET: world.tuned.weights}}
    with pytest.raises(AuditError, match="held out here"):
        featstore.finetune(world.data, out=tmp_path / "other", **more, split_seed=1)
    again = featstore.finetune(world.data, out=tmp_path / "more", **more)
    known = read_from_weights(Path(again.weights), again.digest)
    run = read_run(Path(world.tuned.run))
    assert (known.trained, known.validated) == (set(run["trained"]), set(run["validated"]))
    assert read_run(tmp_path / "more")["started_from"] == world.tuned.digest


@pytest.mark.slow
def test_the_run_is_sealed_private_and_names_no_file(world):
    folder = Path(world.tuned.run)
    assert {path.name for path in folder.iterdir()} == {"run.json", "metrics.json", f"{NET}.weights.h5"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    run = read_run(folder)
    assert (run["kind"], run["digest"], run["options"]["seed"]) == ("finetune", world.tuned.digest, 0)
    assert json.loads((folder / "metrics.json").read_text())["history"]["loss"] == list(
        world.tuned.history["loss"]
    )
    assert str(world.data.parent) not in (folder / "run.json").read_text()


@pytest.mark.slow
def test_a_forged_record_is_refused(world, tmp_path):
    forged = tmp_path / f"{NET}.weights.h5"
    forged.write_bytes(Path(world.tuned.weights).read_bytes())
    with h5py.File(forged, "r+") as file:
        del file["featstore/validated"]
    with pytest.raises(OSError, match="not on which images"):
        featstore.extract(world.data, backbones=[NET], weights={NET: str(forged)}, cache=tmp_path / "cache")


@pytest.mark.slow
def test_a_disk_that_refuses_leaves_no_half_file(world, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "train", lambda *_, **__: UNTAUGHT)
    monkeypatch.setattr(module, "write_to_weights", full)
    with pytest.raises(RunError, match="No space left"):
        featstore.finetune(world.data, out=tmp_path / "run", **COURSE)
    assert not (tmp_path / "run").exists()


def one_class(folder):
    return write_images(folder, 16, classes=("ill",))


def one_patient_a_side(folder):
    path = write_images(folder, 8)
    sides = ["train"] * 4 + ["test"] * 4
    first, *rows = path.read_text().splitlines()
    lines = [f"{first},split", *(f"{row},{side}" for row, side in zip(rows, sides, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("make", "options", "error", "cause"),
    [
        (one_class, {}, AuditError, "one_class"),
        (one_patient_a_side, {}, AuditError, "can be spared"),
        (None, {"backbone": "MobileNet0"}, UnknownNameError, "no backbone"),
        (None, {"weights": {NET: "theirs.pth"}}, WeightsError, "is a pickle"),
        (None, {"epochs": 0}, UsageError, "--epochs"),
        (None, {"learning_rate": 0.0}, UsageError, "--learning-rate"),
        (None, {"test_size": 0.9}, UsageError, "held out"),
        (None, {"unfreeze": 28}, UsageError, "27 layers"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_cause_and_a_remedy(make, options, error, cause, tmp_path):
    data = (make or (lambda folder: write_images(folder, 32)))(tmp_path / "data")
    with pytest.raises(error, match=cause) as caught:
        featstore.finetune(data, out=tmp_path / "run", **{**COURSE, **options})
    assert caught.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_is_there_stays(world):
    with pytest.raises(UsageError, match="holds a run already"):
        featstore.finetune(world.data, out=world.tuned.run, **COURSE)


def blobs(side):
    """Two smooth images of different colours, ``(2, side, side, 3)`` in 0..255."""
    coarse = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3))
    return np.kron(coarse, np.ones((1, side // 4 + 1, side // 4 + 1, 1)))[:, :side, :side].astype(np.float32)


def head(learner, pixels):
    """Random weights on features of about one: random networks damp their signal."""
    kernel = np.random.default_rng(0).normal(size=(learner.dimension, 2))
    size = np.abs(learner.features(pixels)).max()
    return LinearHead(np.zeros(learner.dimension), np.full(learner.dimension, 1 / size), kernel, np.zeros(2))


CLASSES, ALIKE = np.array([0, 1], np.int32), np.ones(2, np.float32)


def taught(name, unfreeze, steps=2):
    """A network after some steps on two images, and these images."""
    learner = TrainableBackbone(name, "random:1", batch_size=2, unfreeze=unfreeze, learning_rate=1e-2)
    pixels = blobs(learner.input_size)
    learner.attach_head(head(learner, pixels))
    learner.snapshot()
    for _ in range(steps):
        learner.train_on_batch(pixels, CLASSES, ALIKE)
    return learner, pixels


def require_the_same_from_its_file(name, learner, pixels, folder):
    path = folder / f"{name}.weights.h5"
    learner.write_weights(path)
    backbone = load_backbone(name, str(path), batch_size=2)
    expected = learner.features(pixels)
    np.testing.assert_allclose(backbone.embed(pixels), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_only_the_last_layers_move_and_what_was_kept_comes_back(tmp_path):
    """In one test, since a network takes seconds to compile."""
    learner, pixels = taught(NET, unfreeze=2)
    assert (learner.layers, learner.of_layers) == (2, 27)
    names = [variable.path for variable in learner._network.weights]
    after = learner._network.get_weights()
    moved_features = learner.features(pixels)
    require_the_same_from_its_file(NET, learner, pixels, tmp_path)
    learner.restore()
    before = learner._network.get_weights()
    moved = {n for n, old, new in zip(names, before, after, strict=True) if not np.array_equal(old, new)}
    assert moved == {"conv_dw_13/kernel", "conv_pw_13/kernel"}, "no batch norm, and nothing before"
    untouched = TrainableBackbone(NET, "random:1", batch_size=2).features(pixels)
    np.testing.assert_array_equal(learner.features(pixels), untouched)
    assert not np.array_equal(moved_features, untouched)
    with pytest.raises(BackboneError, match="not finite") as caught:
        learner.train_on_batch(np.full_like(pixels, np.inf), CLASSES, ALIKE)
    assert "--learning-rate" in caught.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetLite0", "EfficientNetB0", "MobileNetV3Small", "DenseNet121"])
def test_every_kind_of_network_writes_weights_that_come_back(name, tmp_path):
    learner, pixels = taught(name, unfreeze=3)
    require_the_same_from_its_file(name, learner, pixels, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_it_with_130_and_leaves_no_file(tmp_path, number):
    data = write_images(tmp_path / "data", 32)
    arguments = [FEATSTORE, "finetune", data, "--backbone", NET, "--weights", f"{NET}=random:1"]
    arguments += ["--epochs", "1000", "--patience", "1000", "--out", tmp_path / "run"]
    with (tmp_path / "said").open("wb") as said:
        child = subprocess.Popen(arguments, cwd=tmp_path, stderr=said, stdout=said)
        try:
            while child.poll() is None and "img/s]" not in (tmp_path / "said").read_text():
                time.sleep(0.1)
            child.send_signal(number)
            assert child.wait(timeout=60) == 130
        finally:
            child.kill()
    assert "Interrupted." in (tmp_path / "said").read_text()
    assert not list(tmp_path.rglob("*.weights.h5"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_prints_how_to_go_on_and_that_works(tmp_path):
    data = make_phantoms(tmp_path / "data", patients=16, slices=2, size=64)
    arguments = [data, "--backbone", NET, "--weights", f"{NET}=random:1", "--epochs", 2]
    outcome = command("finetune", *arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "finetune: " in outcome.err
    lines = [line.split() for line in outcome.out.splitlines() if line.startswith("  featstore ")]
    for line in lines:
        done = command(*line[1:], cwd=tmp_path)
        assert done.code == 0, done.err
    leak = command(*lines[1][1:], "--split-seed", 7, "--out", "elsewhere", cwd=tmp_path)
    assert leak.code == 5
    assert "tuned on" in leak.err
    assert command("finetune", *arguments, cwd=tmp_path).code == 2
    again = command("finetune", *arguments, "--overwrite", "--json", cwd=tmp_path)
    assert again.json["sizes"]["test"] == 8
    assert Store(tmp_path / "cache").feature_keys()
