"""The whole line on real CT slices with real ImageNet weights: extract, fuse, compare."""

import csv
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore, modules_loaded

from featstore.images.scan import scan
from featstore.store.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = SHARED / "data" / "covid_ct" / "manifest.csv"
XCEPTION = SHARED / "weights" / "xception_imagenet_notop.weights.h5"
MOBILENET = SHARED / "weights" / "mobilenetv2_imagenet_notop.weights.h5"
NETS = [
    "--backbones",
    "Xception,MobileNetV2",
    "--weights",
    f"Xception={XCEPTION}",
    "--weights",
    f"MobileNetV2={MOBILENET}",
]
VIEWS = ["--backbones", "MobileNetV2", "--weights", f"MobileNetV2={MOBILENET}", "--recipe", "paper"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="the shared CT slices are not beside this checkout"),
    pytest.mark.skipif(
        not XCEPTION.exists(), reason="the shared ImageNet weights are not beside this checkout"
    ),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One view of each image through the smaller network, and the images as they are through both."""
    cache = tmp_path_factory.mktemp("ct") / "cache"
    views = featstore("extract", DATA, *VIEWS, "--seeds", "1", "--cache", cache, timeout=1800)
    assert views.code == 0, views.err
    assert "Computed 1492 of 1492 vectors" in views.out
    plain = featstore("extract", DATA, *NETS, "--cache", cache, timeout=1800)
    assert plain.code == 0, plain.err
    assert "Computed 746 of 746 vectors" in plain.out
    return cache


def test_a_second_run_has_nothing_to_do_and_another_seed_is_all_that_it_costs(cache):
    arguments = ["extract", DATA, *VIEWS, "--cache", cache]
    assert modules_loaded(*arguments, "--seeds", "1") == (0, set())
    document = featstore(*arguments, "--seeds", "1-2", "--dry-run", "--json").json
    assert {c["seed"] for c in document["cells"] if c["missing"]} == {2}
    assert document["missing"] == 746


def test_xception_features_are_those_of_keras(cache):
    """An independent path: Keras' own image loader, network, pooling and predict, on the first 32 slices."""
    import keras

    records = scan(DATA).records[:32]
    pixels = np.stack(
        [
            keras.utils.img_to_array(
                keras.utils.load_img(
                    r.path, target_size=(299, 299), interpolation="bilinear", color_mode="rgb"
                )
            )
            for r in records
        ]
    )
    network = keras.applications.Xception(weights=str(XCEPTION), include_top=False, pooling="avg")
    expected = network.predict(keras.applications.xception.preprocess_input(pixels), verbose=0)
    store = Store(cache)
    (key,) = [k for k in store.feature_keys() if k.backbone.name == "Xception" and k.view.is_identity]
    ours = store.read(key, [r.id for r in records])
    assert np.abs(ours - expected).max() / np.abs(expected).max() < 1e-5


def test_fusion_on_the_published_split_is_better_than_chance_and_no_miracle(cache, tmp_path):
    document = featstore(
        "fuse", DATA, *NETS, "--strategy", "vote_backbones", "--positive", "COVID", "--seeds", "none",
        "--cache", cache, "--out", tmp_path / "run", "--json",
    ).json  # fmt: skip
    # Of 447 training images, those of patients of whom a test image shows a neighbouring slice are left out.
    assert document["sizes"] == {"train": 434, "val": 149, "test": 150}
    assert {"FS102", "FS103"} <= {finding["code"] for finding in document["findings"]}
    assert 0.65 < document["scores"]["test"]["auc"]["value"] < 0.95


def test_compare_agrees_with_the_independent_baseline(cache):
    """Plain Keras + StandardScaler + logistic regression gave AUC .773 (Xception) and .788 (MobileNetV2)."""
    arguments = [
        "compare",
        DATA,
        *NETS,
        "--strategies",
        "concat_logreg,vote_backbones",
        "--positive",
        "COVID",
    ]
    arguments += ["--seeds", "none", "--cache", cache, "--json"]
    one, two = featstore(*arguments), featstore(*arguments)
    assert one.out == two.out
    auc = {c["name"]: c["metrics"]["auc"]["mean"] for c in one.json["contestants"]}
    assert auc["Xception"] == pytest.approx(0.773, abs=0.03)
    assert auc["MobileNetV2"] == pytest.approx(0.788, abs=0.03)
    assert auc["concat_logreg"] > auc["Xception"]


def test_check_tells_that_the_label_leaks_through_the_files(cache):
    found = featstore("check", DATA, "--json").json
    assert max(score["value"] for score in found["shortcuts"].values()) > 0.8
    assert {"FS101", "FS102"} <= {finding["code"] for finding in found["findings"]}


@pytest.mark.parametrize("seed", range(5))
def test_of_random_labels_nothing_is_better_and_no_number_of_patients_is_promised(cache, tmp_path, seed):
    """Whole patients change their class, so that nothing is left that a network could have learned."""
    with DATA.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    label = {row["group"]: row["label"] for row in rows}
    drawn = dict(zip(label, np.random.default_rng(seed).permutation(list(label.values())), strict=True))
    table = tmp_path / "random.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "label", "group"])
        lines.writerows([row["path"], drawn[row["group"]], row["group"]] for row in rows)
    asked = featstore(
        "compare", table, "--root", DATA.parent, *NETS, "--strategies", "concat_logreg,vote_backbones",
        "--positive", "COVID", "--seeds", "none", "--cache", cache, "--json",
    ).json["primary_question"]  # fmt: skip
    assert asked["verdict"] != "better"
    assert (asked["needed"], asked["needed_interval"]) == (None, None)


def test_the_test_split_predicted_gives_the_numbers_of_the_fit_by_image_and_by_patient(cache, tmp_path):
    """Three patients of `fuse` bear the name of another who shows the same picture; their answers are the same."""
    with DATA.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == "test"]
    table = tmp_path / "test.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    out = tmp_path / "run"
    options = [
        "--positive",
        "COVID",
        "--unit",
        "group",
        "--abstain",
        "0.1",
        "--recipe",
        "identity",
        *NETS[:2],
    ]
    fitted = featstore("fuse", DATA, *options, "--cache", cache, "--out", out, "--json", timeout=600)
    assert fitted.code == 0, fitted.err
    asked = ["predict", out, table, "--root", DATA.parent, "--cache", cache, *NETS[2:], "--json"]
    answers = featstore(*asked, timeout=600).json
    images = {Path(p["path"]).name: p for p in answers["predictions"]}
    with (out / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert len(rows) == len(images) == 150
    for row in rows:
        mine = images[Path(row["path"]).name]
        assert (mine["label"], mine["given"]) == (row["predicted"], row["label"])
        assert mine["probability"]["COVID"] == pytest.approx(float(row["p(COVID)"]), abs=1e-9)
    people = {p["patient"]: p for p in answers["patients"]}
    with (out / "patients.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert len(rows) == len(people) == 66
    for row in rows:
        if row["group"] in people:
            assert people[row["group"]]["label"] == row["predicted"]
            assert people[row["group"]]["probability"]["COVID"] == pytest.approx(
                float(row["p(COVID)"]), abs=1e-9
            )
    assert len({row["group"] for row in rows} - people.keys()) == 3
    found = sorted((p["label"], p["probability"]["COVID"]) for p in people.values())
    expected = sorted((row["predicted"], float(row["p(COVID)"])) for row in rows)
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-9)
    sets = fitted.json["abstention"]["by_patient"]["test"]
    for name in ("COVID", "NonCOVID"):
        covered = [name in p["prediction_set"] for p in people.values() if p["given"] == name]
        assert sets[name]["patients"] == len(covered)
        assert sets[name]["covered"] == pytest.approx(np.mean(covered))
