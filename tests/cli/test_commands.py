"""Every command through its installed entry point."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from commandline import FEATSTORE, HEAVY, NETS, featstore, modules_loaded
from commandserver import LIBRARIES
from PIL import Image

from featstore import load_matrix
from featstore.api.cache import verify
from featstore.errors import MissingFeaturesError

COMMANDS = [
    "demo", "check", "extract", "fuse", "compare", "predict", "explain", "report", "paper", "finetune", "backbones",
    "strategies", "recipes", "cache", "doctor", "bench",
    "split", "convert", "plan",
]  # fmt: skip
UNWANTED = ("jax", "pandas")
"""Libraries that others try to import, and no command asks anything of."""


def test_help_lists_every_command_with_one_line():
    out = featstore("--help").out
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE), name


@pytest.mark.parametrize(
    "command", [*([name] for name in COMMANDS), *(["cache", c] for c in ("ls", "du", "verify"))]
)
def test_every_command_explains_itself_and_loads_nothing_heavy(command):
    assert modules_loaded(*command, "--help") == (0, set())


@pytest.mark.parametrize("command", [["backbones"], ["strategies"], ["recipes"], ["--help"]])
def test_lists_load_nothing_heavy(command):
    assert modules_loaded(*command) == (0, set())


def test_lists_have_a_json_form():
    assert {"Xception", "NASNetLarge", "EfficientNetLite2"} <= {
        row["name"] for row in featstore("backbones", "--json").json
    }
    assert {"concat_head", "concat_logreg", "vote_backbones"} <= set(featstore("strategies", "--json").json)
    assert featstore("strategies", "--json").json["stacking"] == {
        "level": "decision",
        "min_blocks": 2,
        "summary": "Stacking: a small logistic regression on the backbones' out-of-fold logits.",
    }
    assert {"identity", "paper", "mild", "flips"} <= set(featstore("recipes", "--json").json)


def test_the_first_extraction_says_what_it_did(world):
    assert world.first.out.startswith("Computed 128 of 128 vectors"), "the answer comes first"
    assert max(map(len, world.first.out.splitlines())) <= 100
    said = " ".join(world.first.out.split())
    assert re.search(r"vectors/s \(pixels .*; networks idle \d+ %\)", said)
    assert "extract: " in world.first.err, "the progress bar belongs to stderr"


@pytest.mark.slow
def test_an_extraction_names_its_phases_before_its_bar_and_ends_with_what_is_stored_now(world, tmp_path):
    """In a fresh interpreter: the forks of these tests have loaded TensorFlow."""
    arguments = ["extract", world.data, *NETS, "--recipe", "mild", "--seeds", "1"]
    done = featstore(*arguments, "--cache", tmp_path / "cache", "--out", tmp_path / "run", fresh=True)
    phases = [
        "reading the data set",
        "32 images, 128 vectors to compute, about",
        "loading TensorFlow and MobileNet025",
        "loading EfficientNetLite0",
        "computing",
        "  0%|",
    ]
    places = [done.err.index(f"extract: {phase}") for phase in phases]
    assert places == sorted(places)
    assert places[0] == 0
    assert done.out.startswith("Computed "), "the answer comes first"
    lines = done.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("backbone "))
    header, *rows = (re.split(r" {2,}", line.strip()) for line in lines[at : at + 5])
    assert header == ["backbone", "view", "stored now", "of them new", "missing"]
    assert [row[2:] for row in rows] == [["32", "32", "0"]] * 4
    taken = json.loads((tmp_path / "run" / "run.json").read_text())
    assert taken["measured_bytes"] == pytest.approx(taken["announced_bytes"], rel=0.3)


@pytest.mark.slow
def test_what_others_computed_and_what_is_in_quarantine_is_told_apart_in_the_last_table(world, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.data.parent, data)
    victim = next((data / "covid").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-20])
    cache = tmp_path / "cache"
    shutil.copytree(world.cache, cache)
    shutil.rmtree(next(cache.glob("features/MobileNet025*/*/seed-0001")))
    asked = ["--backbones", "MobileNet025", "--weights", "random:1", "--recipe", "mild", "--seeds", "1"]
    cells = featstore("extract", data / "manifest.csv", *asked, "--cache", cache, "--json").json["cells"]
    assert [(c["stored"], c["missing"], c["stored_now"], c["missing_now"]) for c in cells] == [
        (31, 1, 31, 0),
        (0, 32, 31, 0),
    ]


def test_a_second_run_finds_nothing_missing_and_does_not_load_tensorflow(world):
    arguments = ["extract", world.data, *NETS, "--recipe", "mild", "--seeds", "1", "--cache", world.cache]
    assert "Nothing is missing: all 128 vectors" in featstore(*arguments).out
    assert modules_loaded(*arguments) == (0, set())


def test_a_dry_run_counts_what_is_missing_computes_nothing_and_does_not_load_tensorflow(world):
    arguments = [
        "extract",
        world.data,
        *NETS,
        "--recipe",
        "mild",
        "--seeds",
        "1-3",
        "--dry-run",
        "--cache",
        world.cache,
    ]
    before = sorted(world.cache.rglob("*"))
    document = featstore(*arguments, "--json").json
    assert (document["stored"], document["missing"], document["computed"]) == (128, 128, 0)
    assert [c["missing"] for c in document["cells"]] == [0, 0, 0, 0, 32, 32, 32, 32]
    assert "To do: 128 vectors" in featstore(*arguments).out
    assert modules_loaded(*arguments) == (0, set())
    assert sorted(world.cache.rglob("*")) == before


@pytest.mark.slow
def test_adding_a_seed_computes_only_that_seed(world, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(world.cache, cache)
    result = featstore(
        "extract", world.data, *NETS, "--recipe", "mild", "--seeds", "1-2", "--cache", cache, "--json"
    )
    assert result.json["computed"] == 64
    assert result.err.count("extract:") == 0, "--json shows no bar"


@pytest.mark.slow
def test_a_damaged_image_is_set_aside_with_exit_code_3(world, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(world.data.parent, data)
    victim = next((data / "covid").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-20])
    cache = tmp_path / "cache"
    shutil.copytree(world.cache, cache)
    network = ["--backbones", "MobileNet025", "--weights", "MobileNet025=random:1"]
    arguments = ["extract", data / "manifest.csv", *network, "--cache", cache]
    for _ in range(2):
        result = featstore(*arguments)
        assert result.code == 3
        assert "truncated" in result.out
        assert victim.name in result.out
    assert (
        featstore(
            "compare",
            data / "manifest.csv",
            "--strategies",
            "soft_vote",
            "--folds",
            "3",
            "--cache",
            cache,
            "--json",
        ).json["matrix"]["quarantined"]
        == 1
    )


def test_extract_leaves_a_run_with_what_it_took(world):
    run = json.loads((world.cache.parent / "run" / "run.json").read_text())
    assert (run["kind"], run["computed"], run["images"]) == ("extract", 128, 32)
    assert {pace["backbone"] for pace in run["paces"]} == {"MobileNet025", "EfficientNetLite0"}
    assert "Peak memory" in world.first.out


def test_fuse_leaves_a_run_and_predict_uses_it(world, tmp_path):
    run = tmp_path / "run"
    fused = featstore(
        "fuse",
        world.data,
        "--strategy",
        "vote_backbones",
        "--positive",
        "covid",
        "--cache",
        world.cache,
        "--out",
        run,
    )
    assert fused.code == 0, fused.err
    assert "Positive class: 'covid'" in fused.out
    assert {p.name for p in run.iterdir()} == {"run.json", "metrics.json", "predictions.csv", "model"}
    assert (run / "predictions.csv").stat().st_mode & 0o077 == 0
    images = sorted(world.data.parent.glob("*/*.png"))[:3]
    answer = featstore("predict", run, *images, "--weights", "MobileNet025=random:1", "--json").json
    assert [p["path"] for p in answer["predictions"]] == [str(path) for path in images]
    for p in answer["predictions"]:
        assert sum(p["probability"].values()) == pytest.approx(1)
        assert max(p["probability"], key=p["probability"].get) == p["label"]
        assert set(p["votes"]) == {"MobileNet025", "EfficientNetLite0"}
    wrong = featstore("predict", run, images[0], "--weights", "MobileNet025=random:2")
    assert wrong.code == 1
    assert "with the weights random:1" in wrong.err
    assert "random:2 are others" in wrong.err
    assert "Loading" not in wrong.err


@pytest.fixture(scope="module")
def fused(world, tmp_path_factory):
    run = tmp_path_factory.mktemp("fused") / "run"
    done = featstore("fuse", world.data, "--positive", "covid", "--cache", world.cache, "--out", run)
    assert done.code == 0, done.err
    return run


def test_predict_takes_a_folder_says_what_was_in_training_and_writes_a_table(world, fused, tmp_path):
    """Without class folders or --weights: random weights are drawn again, those in a package are found."""
    import csv

    with (fused / "predictions.csv").open() as file:
        held_out = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    source = {path.name: path for path in world.data.parent.glob("*/*.png")}
    new = min(held_out)
    old = min(set(source) - set(held_out))
    (tmp_path / "scans/deep").mkdir(parents=True)
    shutil.copy(source[new], tmp_path / "scans" / new)
    Image.open(source[old]).save(tmp_path / "scans/deep/anew.bmp")
    (tmp_path / "scans/notes.txt").write_text("x")
    done = featstore("predict", fused, tmp_path / "scans", "--csv", "--out", "t.csv")
    assert done.code == 0, done.err
    assert "FS407" in done.err
    assert done.err.index("FS407") < done.err.index("loading"), "said before anything is computed"
    assert done.out == (tmp_path / "t.csv").read_text()
    header, *_ = done.out.splitlines()
    assert header == "path,predicted,P(covid),P(normal),in_training,tuned_on"
    rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(done.out.splitlines())}
    assert float(rows[new]["P(covid)"]) == pytest.approx(float(held_out[new]["p(covid)"]), abs=1e-9)
    assert {name: row["in_training"] for name, row in rows.items()} == {
        new: "",
        "anew.bmp": "the same pixels",
    }
    again = featstore("predict", fused, tmp_path / "scans", "--out", "t.csv")
    assert (again.code, "--overwrite" in again.err) == (2, True)


@pytest.mark.slow
def test_predict_refuses_what_it_can_before_tensorflow_is_loaded(fused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.png").write_bytes(b"no image")
    for arguments in (["empty"], ["*.pgn"], ["gone.png", "x.png"]):
        code, loaded = modules_loaded("predict", fused, *arguments)
        assert (code, loaded & {"tensorflow", "keras"}) == (2, set()), arguments


@pytest.mark.slow
def test_predict_loads_no_library_that_tensorflow_merely_tries(fused, world):
    image = next(world.data.parent.rglob("*.png"))
    _, loaded = modules_loaded("predict", fused, image, fresh=True, among=(*HEAVY, *UNWANTED))
    assert loaded == {"tensorflow", "keras", "sklearn", "scipy"}


@pytest.mark.slow
def test_predictions_of_a_file_agree_with_those_of_the_run(world, tmp_path):
    """The held-out probabilities in predictions.csv come back when the same files are given to predict."""
    import csv

    run = tmp_path / "run"
    all_asked = ["--calibrate", "platt", "--sensitivity", "0.9", "--positive", "covid"]
    fused = featstore("fuse", world.data, *all_asked, "--cache", world.cache, "--out", run)
    assert fused.code == 0, fused.err
    told = " ".join(fused.out.split())  # wherever a line ends
    assert re.search(
        r"calibrated \(platt\)\. An image is called 'covid' from a probability of 0\.\d+ on", told
    )
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = [world.data.parent / row["path"] for row in rows]
    answer = featstore("predict", run, *images, "--weights", "MobileNet025=random:1", "--json").json
    for row, p in zip(rows, answer["predictions"], strict=True):
        assert float(row["p(covid)"]) == pytest.approx(p["probability"]["covid"], abs=1e-9)
        assert row["predicted"] == p["label"]
        assert p["label"] == (
            "covid" if p["probability"]["covid"] >= answer["operating"]["threshold"] else "normal"
        )


def test_one_choice_of_weights_may_stand_for_every_backbone_in_the_store(world):
    assert load_matrix(world.data, cache=world.cache, weights={"*": "random:1"}).backbones == (
        "MobileNet025",
    )
    with pytest.raises(MissingFeaturesError):
        load_matrix(world.data, cache=world.cache, weights={"*": "random:7"})


@pytest.mark.slow
def test_the_papers_preset_trains_the_papers_head_and_records_its_curves(world, tmp_path):
    document = featstore(
        "fuse", world.data, "--strategy", "concat_head", "--preset", "paper", "--cache", world.cache,
        "--out", tmp_path / "run", "--json",
    ).json  # fmt: skip
    options = document["options"]
    assert (options["learning_rate"], options["batch_size"], options["epochs"]) == (1e-5, 2, 100)
    assert (options["validation_fraction"], options["standardize"]) == (0.4, False)
    assert set(document["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(curve) == 100 for curve in document["history"].values())


@pytest.mark.slow
def test_fine_tuning_reports_before_and_after_on_the_same_patients(world, tmp_path):
    arguments = ["fuse", world.data, "--strategy", "concat_head", "--cache", world.cache]
    chosen = ["--set", "optimizer=nag", "--set", "epochs=7"]
    first = featstore(*arguments, *chosen, "--out", tmp_path / "a", "--json").json
    later = [*arguments, "--init-from", tmp_path / "a", "--out", tmp_path / "b"]
    document = featstore(*later, "--freeze-blocks", "MobileNet025", "--json").json
    continuation = document["continuation"]
    assert first["continuation"] is None
    assert len(first["history"]["loss"]) == len(document["history"]["loss"]) == 7
    assert first["options"] == {"optimizer": "nag", "epochs": 7}
    assert document["options"]["optimizer"] == "nag"
    assert (continuation["frozen"], continuation["held_out_then"]) == (["MobileNet025"], True)
    for split, changes in continuation["changes"].items():
        for metric, change in changes.items():
            assert change["before"] == pytest.approx(first["scores"][split][metric]["value"]), metric
            assert change["after"] == pytest.approx(document["scores"][split][metric]["value"]), metric
    assert "Before, after, and the difference" in featstore(*later, "--overwrite").out
    other = featstore(*later, "--overwrite", "--split-seed", "7")
    assert (other.code, "was trained on" in other.err) == (2, True)
    fewer = featstore(*later, "--overwrite", "--backbones", "MobileNet025")
    assert (fewer.code, "was fitted on EfficientNetLite0+MobileNet025" in fewer.err) == (2, True)


def test_an_existing_run_is_not_replaced_unless_asked(world, tmp_path):
    arguments = ["fuse", world.data, "--cache", world.cache, "--out", tmp_path / "run"]
    assert featstore(*arguments).code == 0
    refused = featstore(*arguments)
    assert (refused.code, "--overwrite" in refused.err) == (2, True)
    assert featstore(*arguments, "--overwrite").code == 0


@pytest.mark.slow
def test_compare_gives_the_same_numbers_twice_and_a_verdict(world, tmp_path):
    strategies = ["concat_head", "concat_logreg", "vote_backbones"]
    asked = ["--strategies", ",".join(strategies), "--positive", "covid"]
    arguments = ["compare", world.data, "--folds", "4", *asked, "--cache", world.cache]
    one, two = (
        featstore(*arguments, "--json", fresh=fresh) for fresh in (False, True)
    )  # other string hashes
    assert one.code == 0, one.err
    assert one.out == two.out
    names = [c["name"] for c in one.json["contestants"]]
    assert names == ["EfficientNetLite0", "MobileNet025", *strategies]
    for candidate in one.json["contestants"]:
        assert {"accuracy", "auc", "sensitivity", "specificity", "f1"} < set(candidate["metrics"])
        error = candidate["metrics"].pop("ece")
        assert (error["mean"], error["interval"]) == (None, None)  # of 32 images there is none
        for name, estimate in candidate["metrics"].items():
            low, high = estimate["interval"]
            assert low < high
            assert 0 <= low <= estimate["mean"] <= high
            assert high <= 1 or name == "log_loss"
            assert len(estimate["folds"]) == 4
        assert set(candidate["curves"]) == {
            "risk_coverage",
            "calibration_error",
            "decision",
            "calibration",
            "recalibration",
        }
    pairs = {(c["a"], c["b"]) for c in one.json["comparisons"]}
    assert len(pairs) == len(names) * (len(names) - 1) / 2
    assert {c["verdict"] for c in one.json["comparisons"]} <= {"a_better", "b_better", "cannot_tell"}
    assert one.json["winner"]["of"] == len(names)
    assert one.json["winner"]["nested"] is None  # no inner round was paid for
    assert one.json["winner"]["guarded"] <= one.json["winner"]["naive"]
    for pair in one.json["comparisons"]:
        assert -1 <= pair["interval"][0] < pair["interval"][1] <= 1
    asked = one.json["primary_question"]
    assert (asked["primary"], asked["margin"]) == ("concat_logreg", 0.01)
    assert {single["name"] for single in asked["singles"]} == set(names[:2])
    question = ["--primary", "vote_backbones", "--margin", "0.02", "--pairs"]
    table = featstore(*arguments, *question, "--out", tmp_path / "run").out
    assert re.match(r"(Cannot tell yet whether|Yes:|No:|No gain:) .*\bvote_backbones\b", table)
    assert max(map(len, table.splitlines())) <= 100
    text = " ".join(table.split())
    assert "Positive class: 'covid'." in text
    assert "no ECE of fewer than 100 images" in text
    assert f"Of all {len(pairs)} pairs" in text
    assert re.search(rf"Best of {len(names)}: .* expect 0\.\d+ \[", text)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["asked"]["primary"], run["asked"]["margin"]) == ("vote_backbones", 0.02)
    assert (tmp_path / "run" / "predictions.csv").read_text().count("\n") == 1 + len(names) * 32


@pytest.mark.slow
def test_compare_chooses_operating_points_in_the_fold_and_tells_the_kinds_of_luck_apart(world):
    arguments = ["compare", world.data, "--strategies", "concat_head", "--folds", "3", "--positive", "covid"]
    all_asked = [
        "--calibrate",
        "temperature",
        "--sensitivity",
        "0.9",
        "--repeats",
        "2",
        "--training-seeds",
        "2",
    ]
    document = featstore(*arguments, *all_asked, "--cache", world.cache, "--json").json
    assert document["protocol"]["calibrate"] == "temperature"
    assert document["protocol"]["sensitivity"] == 0.9
    spreads = {c["name"]: c["spread"] for c in document["contestants"]}
    assert all(spread["folds"] is not None for spread in spreads.values())
    assert {name for name, s in spreads.items() if s["training"] is not None} == {"concat_head"}
    assert len(document["winner"]["nested"]["picked"]) == 6


def test_check_loads_no_network_and_nothing_to_draw_with(world, tmp_path):
    arguments = ["check", world.data, "--cache", tmp_path / "none"]
    code, loaded = modules_loaded(*arguments, among=(*HEAVY, *UNWANTED))
    assert (code, loaded) == (0, {"sklearn", "scipy"})


@pytest.mark.slow
def test_stage_two_never_loads_tensorflow(world, tmp_path):
    asked = [world.data, "--cache", world.cache]
    for command in (["compare", *asked, "--folds", "3"], ["fuse", *asked, "--out", tmp_path / "r"]):
        code, loaded = modules_loaded(*command, within=LIBRARIES)
        assert code == 0
        assert not loaded & {"tensorflow", "keras"}


def test_the_store_can_be_looked_at(world):
    entries = featstore("cache", "ls", "--cache", world.cache, "--json").json
    assert [(e["backbone"], e["images"]) for e in entries] == [("EfficientNetLite0", 32)] * 2 + [
        ("MobileNet025", 32)
    ] * 2
    assert "MobileNet025" in featstore("cache", "ls", "--cache", world.cache).out
    assert "total" in featstore("cache", "du", "--cache", world.cache).out
    assert (
        "4 shards with 128 rows are good, 0 bad." in featstore("cache", "verify", "--cache", world.cache).out
    )


def test_verify_fails_on_a_damaged_shard(world, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(world.cache, cache)
    victim = next(cache.rglob("*.h5"))
    victim.write_bytes(victim.read_bytes()[:-1])
    result = featstore("cache", "verify", "--cache", cache)
    assert result.code == 4
    assert victim.name in result.out


def test_check_finds_the_shortcut_and_accepts_the_phantoms(world):
    result = featstore("check", world.data, "--json")
    assert result.code == 0, result.err
    assert result.json["no_error_found"] is True
    assert len(result.json["shortcuts"]) == 2


def test_check_fails_on_one_picture_in_two_classes(tmp_path):
    for label in ("ill", "well"):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.effect_noise((32, 32), 50).save(tmp_path / "data" / label / "own.png")
    same = Image.effect_noise((32, 32), 50)
    same.save(tmp_path / "data" / "ill" / "a.png")
    same.save(tmp_path / "data" / "well" / "b.png")
    result = featstore("check", tmp_path / "data")
    assert result.code == 5
    assert "label_conflict" in result.out


ERRORS = {
    "sensitivity in percent": (
        ["compare", "{data}", "--sensitivity", "95", "--cache", "{cache}"],
        2,
        "--sensitivity 0.95",
    ),
    "unknown calibration": (
        ["fuse", "{data}", "--calibrate", "magic", "--cache", "{cache}"],
        2,
        "temperature",
    ),
    "unknown parameter": (
        ["fuse", "{data}", "--strategy", "concat_head", "--set", "optimiser=sgd", "--cache", "{cache}"],
        2,
        "optimizer",
    ),
    "parameter out of range": (
        ["fuse", "{data}", "--strategy", "concat_head", "--set", "epochs=many", "--cache", "{cache}"],
        2,
        "Set epochs",
    ),
    "parameter of another kind": (
        ["fuse", "{data}", "--strategy", "knn", "--set", "n_neighbors=five", "--cache", "{cache}"],
        2,
        "n_neighbors=five",
    ),
    "unknown backbone": (["extract", "{data}", "--backbones", "Xceptoin"], 2, "Xception"),
    "absent data": (["extract", "nowhere"], 2, "does not exist"),
    "bad recipe": (["extract", "{data}", "--recipe", "twirl(3)", "--seeds", "1"], 2, "twirl"),
    "bad seeds": (["extract", "{data}", "--seeds", "4-1"], 2, "--seeds"),
    "seeds of the identity": (["extract", "{data}", "--recipe", "identity", "--seeds", "1"], 2, "identity"),
    "absent weights": (["extract", "{data}", "--backbones", "VGG19", "--weights", "VGG19=no.h5"], 1, "no.h5"),
    "weights not downloaded": (
        ["extract", "{data}", "--backbones", "VGG19", "--dry-run"],
        1,
        "--weights VGG19=",
    ),
    "empty store": (["compare", "{data}", "--cache", "empty"], 1, "featstore extract"),
    "frozen without weights": (
        ["fuse", "{data}", "--freeze-blocks", "A", "--cache", "{cache}"],
        2,
        "--init-from",
    ),
    "calibrated twice": (
        ["fuse", "{data}", "--init-from", "r", "--calibrate", "platt", "--cache", "{cache}"],
        2,
        "may know",
    ),
    "unknown strategy": (
        ["fuse", "{data}", "--strategy", "magic", "--cache", "{cache}"],
        2,
        "featstore strategies",
    ),
    "unknown preset": (["fuse", "{data}", "--preset", "paper", "--cache", "{cache}"], 2, "no preset"),
    "unknown class": (["compare", "{data}", "--positive", "flu", "--cache", "{cache}"], 2, "covid, normal"),
    "too many folds": (["compare", "{data}", "--folds", "30", "--cache", "{cache}"], 5, "--folds 8"),
    "bad range": (["extract", "{data}", "--range", "9,1"], 2, "--range"),
    "no run": (["predict", "nowhere", "x.png"], 1, "featstore fuse"),
    "cache is a file": (
        ["extract", "{data}", "--weights", "random:1", "--cache", "{data}"],
        4,
        "another cache",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "hint"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_of_cause_and_one_of_remedy(world, arguments, code, hint):
    filled = [a.format(data=world.data, cache=world.cache) for a in arguments]
    result = featstore(*filled)
    talk = [line for line in result.err.splitlines() if line.startswith(("featstore: ", "           "))]
    assert result.code == code, result.err
    assert len(talk) == 2, result.err
    assert hint in result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_a_cache_that_cannot_be_written_is_refused_before_a_network_is_loaded(world):
    arguments = ["extract", world.data, "--weights", "random:1", "--cache", world.data / "cache"]
    assert modules_loaded(*arguments) == (4, set())


def test_debug_shows_the_traceback():
    result = featstore("extract", "nowhere", "--debug")
    assert "Traceback" in result.err
    assert result.code == 2


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_leaves_a_valid_store(world, tmp_path):
    cache = tmp_path / "cache"
    command = [
        str(FEATSTORE),
        "extract",
        str(world.data),
        "--backbones",
        "EfficientNetLite0",
        "--seeds",
        "1-200",
    ]
    child = subprocess.Popen(
        [*command, "--cache", str(cache)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while not list(cache.rglob("*.h5")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    _, talk = child.communicate(timeout=60)
    assert child.returncode == 130, talk
    assert "goes on from there" in talk
    state = verify(cache)
    assert state.rows > 0
    assert state.bad == ()


@pytest.mark.slow
def test_a_pattern_on_the_path_names_the_patient(world, tmp_path):
    data = tmp_path / "folders"
    shutil.copytree(world.data.parent, data)
    (data / "manifest.csv").unlink()
    arguments = [
        "compare",
        data,
        "--cache",
        world.cache,
        "--folds",
        "3",
        "--strategies",
        "concat_logreg",
        "--json",
    ]
    assert featstore(*arguments).json["matrix"]["has_groups"] is False
    grouped = featstore(*arguments, "--group-pattern", r"(p\d+)").json["matrix"]
    assert (grouped["has_groups"], grouped["groups"]) == (True, 16)


def test_a_patient_in_two_splits_is_refused_before_anything_is_fitted(world, tmp_path):
    rows = world.data.read_text().splitlines()
    head, *body = rows
    assert head == "path,label,group,site"
    halves = [f"{row},{'train' if i % 2 else 'test'}" for i, row in enumerate(body)]
    leaking = world.data.with_name("leaking.csv")
    leaking.write_text("\n".join([f"{head},split", *halves]) + "\n")
    result = featstore("fuse", leaking, "--cache", world.cache, "--out", tmp_path / "run")
    leaking.unlink()
    assert (result.code, "leak_group" in result.err) == (5, True)
    assert not (tmp_path / "run").exists()
