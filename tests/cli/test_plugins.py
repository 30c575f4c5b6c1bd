"""One file of a stranger, named at the command line: a strategy and an executor of one's own, and files that fail."""

import json
import os
import py_compile

import pytest
from commandline import featstore

STRATEGY = '''
"""My strategy."""
import numpy as np
from featstore.fusion.linear import LinearModel
from featstore.fusion.strategy import FusionStrategy

class FirstColumn(FusionStrategy):
    """The first column of all, above or below its mean."""

    level = "feature"
    min_blocks = 1

    def __init__(self, blocks=None, steepness=1.0):
        self.blocks = blocks
        self.steepness = steepness

    def _fit(self, X, y, groups):
        coef = np.zeros((1, X.shape[1]))
        coef[0, 0] = self.steepness * STEEPER
        self.model_ = LinearModel(coef, np.zeros(1), X.mean(axis=0, dtype=float), np.ones(X.shape[1]))

    def _predict_proba(self, X):
        return self.model_.proba(X)

STEEPER = 1.0
STRATEGIES = (FirstColumn,)
'''
EXECUTOR = '''
from pathlib import Path

class Backwards:
    """One item after the other, the last first."""

    in_process = True
    workers = 1

    def __init__(self, workers=None, scheduler=None):
        pass

    def run(self, work, items):
        for item in reversed(items):
            Path("seen").write_text("here")
            yield work(item)

EXECUTORS = (Backwards,)
'''
METRIC = """
from featstore.evaluation.metrics import Metric, ratio

def informedness(part):
    tp, positives, fp, negatives, *_ = part.sums
    return (ratio(tp, positives) + ratio(negatives - fp, negatives)) / 2

METRICS = (
    Metric("half_j", "half of J+1", "mean of both rates", "decision", informedness, rests_on="positives", short="J"),
)
"""


@pytest.fixture
def plugin(tmp_path):
    """Write a plug-in."""

    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_strategy_is_listed_compared_fitted_and_asked(world, plugin, tmp_path):
    file = plugin(STRATEGY)
    assert "first_column" in featstore("strategies", "--plugin", file).out
    ours = ["--cache", world.cache, "--plugin", file]
    compared = featstore("compare", world.data, "--strategies", "first_column", "--folds", 2, *ours, "--json")
    assert "first_column" in {c["strategy"] for c in compared.json["contestants"]}
    run = tmp_path / "run"
    fitted = featstore("fuse", world.data, "--strategy", "first_column", "--out", run, *ours)
    assert fitted.code == 0, fitted.err
    assert json.loads((run / "model" / "model.json").read_text())["strategy"] == "first_column"
    page = featstore("report", run, "--out", tmp_path / "page.html", "--plugin", file)
    assert page.code == 0, page.err
    without = featstore("predict", run, world.data)
    assert (without.code, len(without.err.strip().splitlines()[-2:])) == (1, 2)
    assert "Name the plug-in that it was fitted with" in without.err


@pytest.mark.slow
def test_changed_source_of_a_strategy_is_fitted_anew_and_the_same_is_not(world, plugin):
    def fits(text):
        command = [
            "compare",
            world.data,
            "--strategies",
            "first_column",
            "--folds",
            2,
            "--cache",
            world.cache,
        ]
        done = featstore(*command, "--plugin", plugin(text))
        assert done.code == 0, done.err
        return done.err

    fits(STRATEGY.replace("STEEPER = 1.0", "STEEPER = 2.0"))
    again = fits(STRATEGY.replace("STEEPER = 1.0", "STEEPER = 2.0"))
    changed = fits(STRATEGY.replace("STEEPER = 1.0", "STEEPER = -2.0"))
    whole = again.partition(" fits were taken")[0].rpartition(" of ")
    assert whole[0].split()[-1] == whole[2]
    assert f"{whole[2]} of {whole[2]} fits were taken" not in changed


@pytest.mark.slow
def test_an_executor_computes_what_serial_computes(world, plugin, tmp_path):
    cache = tmp_path / "cache"
    one = ["--backbones", "MobileNet025", "--weights", "MobileNet025=random:1"]
    command = ["extract", world.data, *one, "--recipe", "mild", "--seeds", "1", "--cache", cache]
    done = featstore(*command, "--executor", "backwards", "--plugin", plugin(EXECUTOR), cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "seen").read_text() == "here"

    def shards(folder):
        return {path.name for path in folder.glob("features/MobileNet025@*/*/*/*.h5")}

    assert shards(cache)
    assert shards(cache) == shards(world.cache)


@pytest.mark.slow
def test_a_metric_is_in_the_table_the_files_and_the_report(world, plugin, tmp_path):
    run, file = tmp_path / "run", plugin(METRIC)
    command = ["compare", world.data, "--strategies", "soft_vote", "--folds", 2, "--cache", world.cache]
    done = featstore(*command, "--out", run, "--plugin", file)
    assert done.code == 0, done.err
    assert "half of J+1" in done.out
    assert "half_j_low" in (run / "results.csv").read_text().partition("\n")[0]
    scores = json.loads((run / "metrics.json").read_text())["contestants"][0]["metrics"]
    assert scores["half_j"]["mean"] == pytest.approx(scores["balanced_accuracy"]["mean"])
    for options, there in (["--plugin", file], True), ([], False):
        page = featstore("report", run, "--out", tmp_path / f"{there}.html", *options)
        assert page.code == 0, page.err
        assert ("half of J+1" in (tmp_path / f"{there}.html").read_text()) == there


@pytest.mark.slow
def test_the_environment_names_plug_ins_too(plugin, monkeypatch):
    monkeypatch.setenv("FEATSTORE_PLUGINS", str(plugin(STRATEGY)))
    assert "first_column" in featstore("strategies", fresh=True).out


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("x = (", "cannot be loaded: SyntaxError: '(' was never closed", "Correct the file"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3", "Correct the file"),
        ("x = 1", "lists nothing", "STRATEGIES"),
        (
            "class A: pass\nSTRATEGIES = (A,)",
            "A in STRATEGIES of a plug-in has no level",
            "featstore.testing",
        ),
        ("STRATEGIES = ('a',)", "STRATEGIES of a plug-in holds 'a'", "List the classes"),
    ],
)
def test_a_file_that_fails_gives_one_line_of_cause_and_one_of_remedy(plugin, text, cause, remedy):
    done = featstore("strategies", "--plugin", plugin(text))
    lines = done.err.splitlines()
    assert done.code in {1, 2}
    assert len(lines) == 2
    assert cause in lines[0]
    assert remedy in lines[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "failing"),
    [(1, "X.no_such_attribute"), (2, "X.no_such_attribute"), (1, "np.linalg.inv('text')")],
    ids=["here", "in another process", "in what it calls"],
)
def test_what_a_plug_in_raises_is_said_to_be_the_plug_in_s(world, plugin, jobs, failing):
    file = plugin(STRATEGY.replace("return self.model_.proba(X)", failing))
    command = [
        "compare",
        world.data,
        "--strategies",
        "first_column,concat_logreg",
        "--folds",
        2,
        "--jobs",
        jobs,
    ]
    done = featstore(*command, "--cache", world.cache, "--plugin", file)
    cause, remedy = done.err.strip().splitlines()[-2:]
    assert (done.code, "Error: " in cause) == (1, True)
    assert remedy.strip() == f"Correct {file}, the plug-in whose code raised this; --debug shows the line."


def test_what_featstore_raises_for_a_plug_in_is_not():
    from featstore.registry import plugin_at_fault

    with pytest.raises(AttributeError) as caught:
        plugin_at_fault(None)
    assert plugin_at_fault(caught.value) is None


def test_a_plug_in_is_what_its_file_says_and_no_bytecode_beside_it(plugin):
    """A change of the same length within the same second, and bytecode that somebody else has left there."""
    file = plugin(STRATEGY)
    first = file.stat()
    listed = featstore("--plugin", file, "strategies")
    assert listed.code == 0, listed.err
    assert not (file.parent / "__pycache__").exists()
    py_compile.compile(str(file), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    file.write_text(file.read_text().replace('level = "feature"', 'level = "featura"'))
    os.utime(file, ns=(first.st_atime_ns, first.st_mtime_ns))
    again = featstore("--plugin", file, "strategies")
    assert ("featura" in again.out, "featura" in listed.out) == (True, False)


def test_a_plug_in_that_lies_in_a_run_or_a_cache_is_never_loaded(plugin, tmp_path):
    plugin("open('ran', 'w')\nSTRATEGIES = ()", "features.py")
    folder = tmp_path / "cache"
    (folder / "shards").mkdir(parents=True)
    for place in (tmp_path, folder):
        plugin("open('ran', 'w')\nSTRATEGIES = ()", str(place / "features.py"))
    featstore("cache", "ls", "--cache", folder, cwd=folder)
    featstore("strategies", cwd=folder)
    assert not list(tmp_path.rglob("ran"))
