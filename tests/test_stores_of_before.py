"""What an earlier featstore stored is read by this one: `data/before/README.md` says how it was made."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import PIL
import pytest

import featstore

BEFORE = Path(__file__).with_name("data") / "before"
PILLOW = json.loads((BEFORE / "head/run.json").read_text())["matrix"]["decoding"]["decoder"]
same_decoder = pytest.mark.skipif(
    f"pillow {PIL.__version__}" != PILLOW,
    reason="the decoder is part of the key: other features are wanted here",
)


@pytest.fixture
def before(tmp_path):
    """A copy of all, for its owner alone, as featstore leaves it."""
    folder = shutil.copytree(BEFORE, tmp_path / "before")
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def rows_of(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_its_cache_is_whole(before):
    found = featstore.verify(before / "cache")
    assert (found.shards, found.rows, list(found.bad), list(found.strangers)) == (2, 40, [], [])
    assert {(entry.backbone, entry.images) for entry in featstore.inventory(before / "cache")} == {
        ("Alien", 20),
        ("Other", 20),
    }


@same_decoder
@pytest.mark.parametrize("name", ["Alien", "Other"])
def test_its_vectors_are_those_that_were_stored(before, name):
    data = before / "images/manifest.csv"
    featstore.export_features(data, before / "out.npz", cache=before / "cache", backbones=[name])
    with np.load(before / "out.npz") as found, np.load(BEFORE / f"{name}.npz") as given:
        wanted = dict(zip(given["path"].tolist(), given["features"], strict=True))
        assert found["path"].tolist() == sorted(row["path"] for row in rows_of(data))
        np.testing.assert_array_equal(
            found[f"features/{name}"], [wanted[path] for path in found["path"].tolist()]
        )


@same_decoder
def test_its_model_answers_as_it_did(before):
    """Training goes on from it, and first it is asked again: its scores are those of then."""
    then = json.loads((before / "head/metrics.json").read_text())["scores"]["test"]
    featstore.fuse(
        before / "images/manifest.csv",
        strategy="concat_head",
        init_from=before / "head",
        test_size=0.4,
        cache=before / "cache",
        out=before / "further",
    )
    now = json.loads((before / "further/metrics.json").read_text())["continuation"]["changes"]["test"]
    added = {"ppv", "npv"}
    """Metrics that came later."""
    assert {
        name: change["before"]
        for name, change in now.items()
        if change["before"] is not None and name not in added
    } == {
        name: pytest.approx(score["value"], rel=1e-6)
        for name, score in then.items()
        if score["value"] is not None
    }


def test_its_runs_are_reported(before):
    """The page names each run's files by their digests, and whoever was compared."""
    runs = [before / name for name in ("comparison", "stacking")]
    page = featstore.write_report(runs).read_text()
    for run in runs:
        about = json.loads((run / "run.json").read_text())
        assert all(text in page for text in (about["created"], *about["files"].values()))
    assert all(row["contestant"] in page for row in rows_of(before / "comparison/results.csv"))
