"""Guesses that need no network stand beside every score, and the answer says so when nothing is above them."""

import json
import re

import numpy as np
import pytest
from fakes_comparison import scored
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

import featstore
from featstore import runs as run
from featstore.api.report import write_report
from featstore.evaluation import findings as data_findings
from featstore.evaluation.findings import HISTOGRAM, LEAF, MAJORITY, TREES, shortcut_probabilities
from featstore.image_facts import FACT
from featstore.reporting.terminal.comparison import comparison_text, fusion_text
from featstore.tables import interval_text, typeset

IMAGES = 40


def picture(rng, size=48):
    return Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8))


def test_guesses_are_those_of_scikit_learns_extremely_randomised_trees():
    """Of regression on indicators to the last bits, and of classification but for the order of equal splits."""
    rng = np.random.default_rng(3)
    facts = np.ones(90, FACT)
    facts["histogram"] = rng.integers(0, 9, facts["histogram"].shape)
    y = np.repeat([0, 1, 2], 30)
    splits = [(np.flatnonzero(at), np.flatnonzero(~at)) for at in (rng.random(90) < 0.6, y < 2)]
    grey = facts["histogram"].astype(np.float64)

    answers = shortcut_probabilities(facts, y, splits)

    for (train, test), proba, shares in zip(splits, answers[HISTOGRAM], answers[MAJORITY], strict=True):
        options = {"min_samples_leaf": LEAF, "max_features": "sqrt", "random_state": 0}
        regression = ExtraTreesRegressor(TREES, **options).fit(grey[train], np.eye(3)[y[train]])
        np.testing.assert_allclose(proba, regression.predict(grey[test]), rtol=0, atol=1e-12)
        known = np.unique(y[train])
        classifier = ExtraTreesClassifier(TREES, **options).fit(grey[train], y[train])
        np.testing.assert_allclose(proba[:, known], classifier.predict_proba(grey[test]), atol=0.02)
        assert not np.delete(proba, known, axis=1).any()
        np.testing.assert_array_equal(shares[0], np.bincount(y[train], minlength=3) / len(train))


def test_a_guess_that_was_made_before_is_the_same_and_nobody_elses():
    """Trees are remembered by what they learned and were asked: neither a caller nor another label changes one."""
    rng = np.random.default_rng(4)
    facts = np.ones(30, FACT)
    facts["histogram"] = rng.integers(0, 9, facts["histogram"].shape)
    y, splits = np.arange(30) % 2, [(np.arange(20), np.arange(20, 30))]
    first = shortcut_probabilities(facts, y, splits)[HISTOGRAM][0]
    kept = first.copy()
    first[:] = 9.0
    np.testing.assert_array_equal(shortcut_probabilities(facts, y, splits)[HISTOGRAM][0], kept)
    other = shortcut_probabilities(facts, np.arange(30) // 3 % 2, splits)[HISTOGRAM][0]
    assert not np.array_equal(other, kept)
    backwards = [(np.arange(20), np.arange(20, 30)[::-1])]
    np.testing.assert_array_equal(shortcut_probabilities(facts, y, backwards)[HISTOGRAM][0], kept[::-1])


def written(root, sizes):
    """A data set of noise whose classes have images of these sizes, and features that know nothing."""
    rng = np.random.default_rng(0)
    files = []
    for n in range(IMAGES):
        label = ("covid", "normal")[n % 2]
        path = root / label / f"p{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(rng, sizes[label][n // 2 % len(sizes[label])]).save(path)
        files.append(path.relative_to(root).as_posix())
    np.savez(
        root.parent / "noise.npz",
        features=rng.normal(size=(IMAGES, 16)).astype(np.float32),
        filenames=np.array(files),
    )
    return root


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """Neither class is larger on average: only a band of sizes gives the label away."""
    folder = tmp_path_factory.mktemp("leaky")
    data = written(folder / "data", {"covid": [40, 56], "normal": [48]})
    featstore.import_features(data, folder / "noise.npz", name="Noise", cache=folder / "cache")
    return data, folder / "cache"


def named(result, name):
    return [finding for finding in result.findings if finding.name == name]


def test_check_tells_a_shortcut_with_its_interval_and_says_no_error_not_sound(leaky):
    result = featstore.check(leaky[0])
    (found,) = named(result, "shortcut")
    assert found.value > 0.95
    assert found.interval[0] > 0.8
    assert result.no_error_found
    assert "sound" not in json.dumps(result.to_json())


def test_a_data_set_without_a_shortcut_has_no_such_finding(tmp_path):
    assert (
        named(featstore.check(written(tmp_path / "data", {"covid": [48], "normal": [48]})), "shortcut") == []
    )


def test_compare_shows_the_shortcuts_as_rows_and_says_that_nothing_is_above_them(leaky, tmp_path):
    data, cache = leaky
    result = featstore.compare(
        data, strategies=["concat_logreg"], folds=4, positive="covid", cache=cache, out=tmp_path / "run"
    )
    assert [s.candidate.label for s in result.shortcuts] == [
        "file alone", "grey histogram alone", "most frequent class",
    ]  # fmt: skip
    assert result.shortcuts[0].primary > 0.95
    assert result.shortcuts[2].estimates["auc"].mean == 0.5
    (verdict,) = named(result, "not_above_shortcut")
    text = " ".join(comparison_text(result).split())
    assert "file alone" in text
    assert verdict.message in text
    kept = json.loads((tmp_path / "run" / run.METRICS).read_text("utf-8"))
    assert {"FS101", "FS401"} <= {finding["code"] for finding in kept["findings"]}
    assert all(finding["examples"] == [] for finding in kept["findings"])
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text("utf-8")
    assert typeset(verdict.message) in page
    assert "file alone" in page
    assert str(data) not in page


@pytest.mark.slow
def test_fuse_shows_them_too(leaky, tmp_path):
    data, cache = leaky
    result = featstore.fuse(data, positive="covid", cache=cache, out=tmp_path / "run")
    assert result.shortcuts["test"]["file alone"]["auc"].value > 0.9
    assert named(result, "shortcut")
    assert re.search(r"^  file alone +(0\.9|1\.0)", fusion_text(result), re.MULTILINE)
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text("utf-8")
    assert page.count(named(result, "shortcut")[0].message.split(":")[0]) >= 2
    assert {finding.message.split(" the ")[0] for finding in named(result, "shortcut")} == {"On test"}


@pytest.mark.slow
def test_the_own_split_is_named_when_it_is_not_used_and_can_be_used(leaky, tmp_path):
    data, cache = leaky
    files = sorted(data.rglob("*.png"))
    lines = [
        f"{path.relative_to(data).as_posix()},{path.parent.name},{('train', 'train', 'test')[n % 3]}"
        for n, path in enumerate(files)
    ]
    table = data / "split.csv"
    table.write_text("\n".join(["path,label,split", *lines]) + "\n", encoding="utf-8")
    shared = {"strategies": ["concat_logreg"], "positive": "covid", "cache": cache}
    drawn = featstore.compare(table, folds=4, repeats=1, **shared)
    assert named(drawn, "split_ignored")
    text = comparison_text(drawn)
    above = " ".join(text.partition("AUC, mean of 4 folds")[0].split())
    assert above.endswith(
        "The data set's own split is NOT used (FS114): 4 folds are drawn over all images."
        " To score on its test images: --folds split"
    ), "it stands between the answer and the scores"
    assert text.count("FS114") == 1
    own = featstore.compare(table, folds="split", **shared, out=tmp_path / "run")
    assert not named(own, "split_ignored")
    assert own.own_split
    assert "Scored on the data set's own test images." in comparison_text(own).partition("\n\n")[0]
    assert len(own.candidates[0].proba) == 1
    assert len(own.candidates[0].proba[0]) == sum(line.endswith(",test") for line in lines)
    assert "the data set's own test images" in comparison_text(own)
    assert "own test images" in write_report([tmp_path / "run"], tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize(("best", "said"), [(0.4, True), (0.85, True), (0.95, False)])
def test_a_best_score_below_a_guess_is_told_even_where_that_guess_may_be_luck(best, said, monkeypatch):
    monkeypatch.setattr(data_findings, "difference_interval", lambda *_: (-0.5, 0.4))
    ranked = [scored("concat_logreg", best, (0.0, 1.0))]
    guesses = [scored("file alone", 0.9, (0.4, 1.0)), scored("most frequent class", 0.5, (0.2, 0.8))]
    for one in (*ranked, *guesses):
        one.resampled = one.sample_size = None
    found = data_findings.shortcut_verdict(ranked, guesses)
    assert [finding.code for finding in found] == (["FS401"] if said else [])
    assert all(f"AUC {best:.3f} of concat_logreg, is not above that" in finding.message for finding in found)


def test_a_score_that_is_above_a_guess_and_not_shown_to_be_is_called_that_with_its_split():
    (finding,) = data_findings.not_above("concat_logreg", 0.938, "file alone", 0.91, (-0.18, 0.285), "test")
    assert finding.message == (
        "On test the AUC of concat_logreg, 0.938, is not shown to be above that of the file alone, 0.910"
        " (difference [-0.180 to +0.285])."
    )
    assert not data_findings.not_above("concat_logreg", 0.938, "file alone", 0.7, (0.1, 0.3), "test")
    (finding,) = data_findings.shortcut_findings({"file alone": (0.826, (0.609, 0.971))}, "val")
    assert finding.message.startswith("On val the class is guessed from the file alone")


def test_without_shortcuts_there_is_nothing_to_find():
    """The facts of an image that is gone since its extraction are not known, and nobody guesses from them."""
    assert data_findings.shortcut_verdict([scored("concat_logreg", 0.8, (0.7, 0.9))], ()) == ()


def test_one_difference_has_one_interval(tmp_path):
    """Where the best candidate is the primary fusion, FS401 has the interval of the answer, not another one."""
    data = written(tmp_path / "data", {"covid": [40, 56], "normal": [48]})
    files = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.png"))]
    rng = np.random.default_rng(1)
    for name in ("A", "B"):
        known = np.array([file.startswith("covid") for file in files]) * 1.0
        features = rng.normal(size=(len(files), 8)) + known[:, None]
        np.savez(tmp_path / f"{name}.npz", features=features.astype(np.float32), filenames=np.array(files))
        featstore.import_features(data, tmp_path / f"{name}.npz", name=name, cache=tmp_path / "cache")
    result = featstore.compare(
        data, strategies=["concat_logreg"], folds=4, positive="covid", cache=tmp_path / "cache"
    )
    (verdict,) = named(result, "not_above_shortcut")
    assert f"of {result.primary_question.primary}," in verdict.message
    (answer,) = (one for one in result.primary_question.shortcuts if one.name == "file alone")
    assert f"(difference [{interval_text(answer.interval, signed=True)}])" in verdict.message
    assert verdict.interval == answer.interval
