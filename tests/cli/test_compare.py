"""`featstore compare` at the command line: resumed after kill -9, as CSV, without TensorFlow."""

import csv
import json
import signal
import subprocess
import time

import pytest
from commandline import FEATSTORE, featstore, modules_loaded


@pytest.mark.slow
def test_csv_has_a_line_per_contestant_and_economics_and_views_need_no_tensorflow(world, tmp_path):
    arguments = ["compare", world.data, "--strategies", "concat_logreg", "--folds", "2", "--economics"]
    arguments += ["--views", "identity,average", "--view-curve", "concat_logreg", "--cache", world.cache]
    code, loaded = modules_loaded(*arguments, "--out", tmp_path / "run")
    assert (code, loaded & {"tensorflow", "keras", "torch"}) == (0, set())
    done = featstore(*arguments, "--csv")
    rows = list(csv.DictReader(done.out.splitlines()))
    assert len(rows) == 6
    assert {row["views"] for row in rows} == {"identity", "average"}
    assert (tmp_path / "run" / "results.csv").read_text() == done.out
    fits = json.loads((tmp_path / "run" / "run.json").read_text())["fits"]
    assert fits["taken_from_cache"] < fits["asked"]
    assert f"{fits['asked']} of {fits['asked']} fits were taken as earlier runs left them" in done.err
    assert "--no-resume" in done.err


@pytest.mark.slow
@pytest.mark.crash
def test_killed_in_mid_comparison_it_goes_on_and_ends_the_same(world, tmp_path):
    command = [
        "compare",
        world.data,
        "--strategies",
        "concat_logreg,stacking,soft_vote,cca_concat,mrmr",
        "--folds",
        "3",
        "--cache",
        world.cache,
    ]
    assert featstore(*command, "--no-resume", "--out", tmp_path / "undisturbed").code == 0
    results = world.cache / "results"
    for page in results.iterdir():
        page.unlink()
    child = subprocess.Popen(
        [str(FEATSTORE), *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(results.glob("*.json"))) < 5 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = {page.name: page.stat().st_mtime_ns for page in results.glob("*.json")}
    assert kept
    assert featstore(*command, "--out", tmp_path / "resumed").code == 0
    assert all((results / name).stat().st_mtime_ns == then for name, then in kept.items())
    for name in ("metrics.json", "predictions.csv", "results.csv"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("undisturbed", "resumed"))
        assert one == two, name


def test_the_class_that_is_not_normal_is_the_positive_one_and_the_screen_says_so(world, tmp_path):
    arguments = [world.data, "--cache", world.cache]
    fused = featstore("fuse", *arguments, "--out", tmp_path / "run")
    assert fused.code == 0, fused.err
    assert fused.out.startswith("concat_logreg reaches an AUC of "), "the answer comes first"
    told = " ".join(fused.out.split())
    first = told[told.index("Positive class: ") :].partition(").")[0] + ")."
    assert first.startswith(
        "Positive class: 'covid' (FS406 positive_guessed: since 'normal' names its absence;"
    )
    # The remedy that the line names, followed literally.
    remedy = first.rpartition("add ")[2].removesuffix(").").split()
    assert remedy == ["--positive", "normal"]
    again = featstore("fuse", *arguments, *remedy, "--out", tmp_path / "other")
    assert "\nPositive class: 'normal'.\n" in again.out


@pytest.mark.slow
def test_a_plan_is_sealed_run_and_called_planned_on_the_first_lines(world, tmp_path):
    path = tmp_path / "plan.json"
    where = ["--cache", world.cache, "--seeds", "none"]
    sealed = featstore("plan", world.data, "--out", path, "--folds", "3", "--repeats", "1", *where)
    assert sealed.code == 0, sealed.err
    told = " ".join(sealed.out.split())
    assert told.startswith(f"Sealed in {path}: is concat_logreg better than every single network (")
    planned = ["compare", world.data, "--plan", path, "--strategies", "concat_logreg", *where]
    done = featstore(*planned)
    assert done.code == 0, done.err
    assert any(line.startswith("Planned") for line in done.out.splitlines()[:6])
    other = featstore(*planned, "--margin", "0.05")
    assert (other.code, other.out) == (2, "")
    assert "The plan has settled --margin" in other.err
    assert (
        "Exploratory: no plan was sealed. Look " in featstore(*planned[:2], *planned[4:], "--folds", "3").out
    )
