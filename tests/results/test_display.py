"""What a result shows of itself in Python: one line, one harmless table, rows for pandas, a figure, a verdict."""

import html
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featstore
from featstore import results
from featstore.evaluation.metrics import SINCE_THEN, metrics
from featstore.findings import Finding
from featstore.reporting import figures
from featstore.reporting.run_record import read_comparison, read_fusion
from featstore.results.comparison import PlannedDifference, PrimaryQuestion
from featstore.results.document import Result
from featstore.results.extraction import Check, Extraction, Finetuning, KeySummary, LossAndAccuracy
from featstore.results.fusion import Prediction, Predictions
from featstore.results.scores import Score
from featstore.tables import MOST_ROWS, WIDTH, Rows

BEFORE = Path(__file__).parents[1] / "data" / "before"
HOSTILE = "<script>alert(1)</script>\x1b[2J"


def before(name, reader):
    return reader(json.loads((BEFORE / name / "metrics.json").read_text()))


COMPARISON = before("comparison", read_comparison)
FUSION = before("head", read_fusion)
KEY = KeySummary(backbone="A", weights="w", recipe="identity", seed=0, stored=0, missing=2)
EXTRACTION = Extraction(
    images=2, keys=(KEY,), computed=2, phases={}, seconds=1.0, idle=0.0, announced_bytes=1,
    measured_bytes=1, batch_size=16, precision="float32", cache="cache",
)  # fmt: skip
CHECK = Check(
    images=2, groups=2, classes={HOSTILE: 1, "well": 1}, no_error_found=True,
    findings=(Finding("FS403", f"few patients of {HOSTILE}", count=2),), bad=(),
    shortcuts={"file alone": Score(value=0.5, interval=None)},
)  # fmt: skip
PREDICTIONS = Predictions(
    run="runs/x", operating={}, classes=("ill", "well"), files=(), bad=(),
    predictions=tuple(
        Prediction(path=f"{HOSTILE}{at}.png", label="ill", probability={"ill": 0.75, "well": 0.25}, votes={})
        for at in range(20)
    ),
)  # fmt: skip
TUNED = Finetuning(
    run="runs/t", backbone="A", weights="w.h5", digest="d", started_from="imagenet", options={},
    classes={}, sizes={}, layers=1, of_layers=2, epochs=2, best_epoch=1,
    before=LossAndAccuracy(loss=0.7, accuracy=0.5), after=LossAndAccuracy(loss=0.6, accuracy=0.6),
    history={"loss": (0.7, 0.6), "val_loss": (0.8, 0.7)},
)  # fmt: skip
SHOWN = [COMPARISON, FUSION, EXTRACTION, CHECK, PREDICTIONS, TUNED]


@pytest.mark.parametrize("result", SHOWN, ids=lambda result: type(result).__name__)
def test_a_result_is_one_line_one_table_and_rows(result):
    said = repr(result)
    assert said.startswith(f"<{type(result).__name__}: ")
    assert said.isprintable()
    assert len(said) < 300
    shown = result._repr_html_()
    assert shown.count("<table>") == shown.count("</table>") == 1
    assert "<script>" not in shown
    assert "\x1b" not in shown
    assert html.escape(result.headline()) in shown
    assert shown.count("<tr>") <= 1 + MOST_ROWS
    rows = result.table()
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)
    cells = [cell for row in rows for cell in row.values()]
    assert all(cell is None or isinstance(cell, str | int | float | bool) for cell in cells)


def test_every_outcome_of_a_public_function_says_what_it_is():
    """A result that a function returns has a headline of its own; parts are shown by their fields."""
    rooms = [
        importlib.import_module(f"featstore.results.{m.name}") for m in pkgutil.iter_modules(results.__path__)
    ]
    kinds = {
        k for room in rooms for k in vars(room).values() if isinstance(k, type) and issubclass(k, Result)
    }
    functions = [getattr(featstore, name) for name in featstore.__all__ if name.islower()]
    named = {str(f.__annotations__.get("return")) for f in functions}
    outcomes = {kind for kind in kinds if kind.__name__ in named}
    assert {"Comparison", "Fusion", "Check", "MachineReport", "Demonstration"} <= {
        k.__name__ for k in outcomes
    }
    assert [k.__name__ for k in outcomes if k.headline is Result.headline or k.table is Result.table] == []
    part = Score(value=0.5, interval=None)
    assert repr(part) == "Score(value=0.5, interval=None)"
    assert part._repr_html_() is None


def test_the_table_of_a_comparison_has_every_score_by_rank():
    rows = COMPARISON.table()
    known = {s.label: s for s in (*COMPARISON.candidates, *COMPARISON.shortcuts)}
    assert [row["auc"] for row in rows] == sorted((row["auc"] for row in rows), reverse=True)
    assert {row["candidate"] for row in rows} == set(known)
    for row in rows:
        for name, estimate in known[row["candidate"]].estimates.items():
            assert row[name] == estimate.mean
            assert (row[f"{name}_low"], row[f"{name}_high"]) == (estimate.interval or (None, None))


def test_the_table_of_a_fit_has_its_guesses_beside_it():
    rows = FUSION.table()
    assert next(row["answers"] for row in rows if row["split"] == "test") == FUSION.strategy
    assert set(metrics()) - SINCE_THEN <= set(rows[0]) | {"ece"}
    assert len(rows) == sum(1 + len(FUSION.shortcuts.get(split, {})) for split in FUSION.scores)


def test_a_verdict_is_the_answer_to_the_primary_question():
    import msgspec

    decisive = PlannedDifference(name="Xception", delta=0.031, interval=(0.01, 0.052), p=0.004)
    asked = PrimaryQuestion(
        primary="concat_logreg", metric="auc", margin=0.01, verdict="better", against="Xception",
        singles=(decisive,), patients=60,
    )  # fmt: skip
    answered = msgspec.structs.replace(COMPARISON, primary_question=asked)
    assert (COMPARISON.verdict, answered.verdict) == (None, "better")
    drawn = answered.plot()
    assert drawn.alt == figures.differences(asked.to_json()).alt
    assert "Xception +0.031" in drawn.alt
    assert "better: concat_logreg less Xception, AUC +0.031 [+0.010 to +0.052]" in repr(answered)


@pytest.mark.parametrize("result", [COMPARISON, FUSION, TUNED], ids=lambda result: type(result).__name__)
def test_a_result_that_has_a_figure_draws_it(result):
    picture = result.plot()
    assert isinstance(picture, featstore.Picture)
    assert picture._repr_svg_().startswith("<svg") or "<svg " in picture._repr_svg_()


def test_results_load_no_pandas_and_no_matplotlib():
    """Neither for a line nor for a table; pyarrow's threads, which pandas brings, break forks."""
    script = (
        "import sys, json; from featstore.reporting.run_record import read_comparison as read\n"
        f"r = read(json.load(open({str(BEFORE / 'comparison' / 'metrics.json')!r})))\n"
        "repr(r), r._repr_html_(), r.table(); print({'pandas', 'matplotlib', 'pyarrow'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Lists of what is registered


@pytest.mark.parametrize("name", ["backbones", "recipes", "strategies"])
def test_a_list_prints_itself_as_a_table_that_fits_a_screen(name):
    rows = getattr(featstore, name)()
    assert isinstance(rows, Rows)
    assert isinstance(rows, tuple)
    lines = repr(rows).split("\n")
    assert max(map(len, lines)) <= WIDTH
    assert all(any(line.startswith(row.name) for line in lines) for row in rows)
    assert rows._repr_html_().count("<tr>") == len(rows) + 1
    narrow = rows.text(80).split("\n")
    assert [line.split()[0] for line in narrow[1:] if line[0] != " "] == [row.name for row in rows]


def test_a_list_makes_names_harmless():
    listed = Rows([featstore.RecipeSummary(HOSTILE, "flip(h)", "a < b")])
    assert "\x1b" not in repr(listed)
    assert "<script>" not in listed._repr_html_()
    assert "a &lt; b" in listed._repr_html_()


def test_the_function_backbones_is_not_hidden_by_the_package_of_that_name():
    script = (
        "import featstore.backbones.catalog; from featstore.backbones import weights; import featstore\n"
        "print(callable(featstore.backbones), featstore.backbones()[0].name)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "InceptionV3"]


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", featstore.__version__)
    assert not hasattr(featstore, "__verison__")


# Data sets and features


def test_a_manifest_and_a_matrix_are_one_line(tmp_path):
    manifest = featstore.scan(featstore.make_phantoms(tmp_path, patients=8, slices=1, size=32))
    assert repr(manifest).startswith("<Manifest: 8 images, 8 groups, classes: covid 4, normal 4; ")
    cache = shutil.copytree(BEFORE / "cache", tmp_path / "cache")  # an index of it is written there
    matrix = featstore.load_matrix(BEFORE / "images" / "manifest.csv", cache=cache)
    assert repr(matrix).startswith("<FeatureMatrix: ")
    assert len(repr(matrix)) < 300
    assert np.shares_memory(matrix.X, matrix.features)
    assert (
        matrix.X.shape == (len(matrix.y), matrix.blocks[-1].stop) == (len(matrix.groups), matrix.X.shape[1])
    )
    assert (matrix.rows(np.arange(len(matrix.y)), matrix.backbones, [0]) == matrix.X).all()
