"""Phantoms: reproducible, balanced, recognisable as chests, and neither trivial nor impossible to tell apart."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featstore.errors import UnknownNameError, UsageError
from featstore.phantom import SCANNERS, lesion_masks, make_phantoms, phantom_slice

SMALL = {"patients": 16, "slices": 3, "size": 64}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_phantoms(tmp_path_factory.mktemp("phantoms"), **SMALL)


def rows_of(manifest):
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def ellipse(size, x, y, rx, ry):
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    return ((axis[None, :] - x) / rx) ** 2 + ((axis[:, None] - y) / ry) ** 2 < 1


def lung_area(size):
    """Two ellipses that lie in the lungs of every patient, clear of heart, liver dome and hila."""
    return ellipse(size, -0.58, 0.18, 0.14, 0.18) | ellipse(size, 0.58, 0.18, 0.14, 0.18)


def area_under_curve(high, low):
    """Mann-Whitney by counting pairs."""
    wins = np.greater.outer(high, low) + 0.5 * np.equal.outer(high, low)
    return float(wins.mean())


def test_two_calls_give_the_same_bytes(manifest, tmp_path):
    again = make_phantoms(tmp_path / "again", **SMALL)
    assert bytes_of(again.parent) == bytes_of(manifest.parent)


def test_bytes_do_not_depend_on_the_process(manifest, tmp_path):
    code = (
        "import sys, pathlib; from featstore.phantom import make_phantoms; "
        "make_phantoms(pathlib.Path(sys.argv[1]), patients=16, slices=3, size=64)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert bytes_of(tmp_path) == bytes_of(manifest.parent)


def test_another_seed_shares_no_slice(manifest, tmp_path):
    other = make_phantoms(tmp_path, seed=1, **SMALL)
    ours, theirs = (
        {data for name, data in bytes_of(m.parent).items() if name.endswith(".png")}
        for m in (manifest, other)
    )
    assert len(ours) == len(theirs) == 48
    assert not ours & theirs


def test_a_second_call_touches_nothing(tmp_path):
    first = make_phantoms(tmp_path, patients=4, slices=1, size=32)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert make_phantoms(tmp_path, patients=4, slices=1, size=32) == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_repeated_call_mends_what_an_interrupted_one_left(manifest, tmp_path):
    make_phantoms(tmp_path, **SMALL)
    (tmp_path / "manifest.csv").unlink()
    victims = sorted(tmp_path.rglob("*.png"))
    victims[0].unlink()
    victims[1].write_bytes(victims[1].read_bytes()[:100])
    make_phantoms(tmp_path, **SMALL)
    assert bytes_of(tmp_path) == bytes_of(manifest.parent)


def test_a_write_that_fails_leaves_no_half_file(tmp_path, monkeypatch):
    def full_disk(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_phantoms(tmp_path, patients=4, slices=1, size=32)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_manifest_lists_exactly_the_files_written(manifest):
    rows = rows_of(manifest)
    assert list(rows[0]) == ["path", "label", "group", "site"]
    assert sorted(row["path"] for row in rows) == [
        n for n in bytes_of(manifest.parent) if n != "manifest.csv"
    ]
    for row in rows:
        assert row["path"].startswith(row["label"] + "/")
        with Image.open(manifest.parent / row["path"]) as image:
            assert (image.mode, image.size) == ("L", (64, 64))


def test_no_two_slices_are_equal(manifest):
    files = bytes_of(manifest.parent)
    assert len(set(files.values())) == len(files)


@settings(max_examples=8, deadline=None)
@given(patients=st.integers(4, 24), seed=st.integers(0, 2**32))
def test_classes_are_balanced_and_both_meet_both_scanners(tmp_path_factory, patients, seed):
    folder = tmp_path_factory.mktemp("set")
    rows = rows_of(make_phantoms(folder, patients=patients, slices=1, size=32, seed=seed))
    labels, cells = Counter(r["label"] for r in rows), Counter((r["label"], r["site"]) for r in rows)
    assert set(labels) == {"covid", "normal"}
    assert abs(labels["covid"] - labels["normal"]) <= 1
    assert len(cells) == 4
    assert max(cells.values()) - min(cells.values()) <= 1


def test_a_patient_has_one_label_and_one_scanner(manifest):
    facts = defaultdict(set)
    for row in rows_of(manifest):
        facts[row["group"]].add((row["label"], row["site"]))
    assert len(facts) == 16
    assert all(len(fact) == 1 for fact in facts.values())


def test_the_number_of_a_patient_does_not_give_the_label_away(tmp_path):
    rows = rows_of(make_phantoms(tmp_path, patients=40, slices=1, size=32))
    label = [row["label"] == "covid" for row in sorted(rows, key=lambda row: row["group"])]
    alternations = sum(a != b for a, b in pairwise(label))
    assert 8 <= alternations <= 31


@pytest.mark.parametrize("size", [32, 64, 256])
@pytest.mark.parametrize("site", SCANNERS)
def test_lungs_are_dark_in_a_bright_body(size, site):
    for seed in range(4):
        pixels = phantom_slice(seed, label="normal", site=site, size=size).astype(float)
        assert pixels.shape == (size, size)
        heart = pixels[ellipse(size, 0.05, -0.12, 0.12, 0.10)].mean()
        spine = pixels[ellipse(size, 0.0, 0.53, 0.08, 0.06)].mean()
        lungs, air = pixels[lung_area(size)].mean(), pixels[:2].mean()
        assert air < heart - 80
        assert lungs < heart - 60
        assert spine > heart


def test_the_same_patient_is_denser_with_the_disease():
    healthy, ill = (
        [phantom_slice(seed, label=label, severity=0.9, size=64)[lung_area(64)].mean() for seed in range(8)]
        for label in ("normal", "covid")
    )
    assert np.mean(ill) > np.mean(healthy) + 10


@pytest.mark.slow
def test_covid_lungs_are_brighter_on_average_but_the_classes_overlap(tmp_path):
    areas = []
    for seed in range(3):
        brightness = defaultdict(list)
        for row in rows_of(make_phantoms(tmp_path / str(seed), size=64, seed=seed)):
            with Image.open(tmp_path / str(seed) / row["path"]) as image:
                brightness[row["label"]].append(np.asarray(image)[lung_area(64)].mean())
        assert np.mean(brightness["covid"]) > np.mean(brightness["normal"])
        areas.append(area_under_curve(brightness["covid"], brightness["normal"]))
    # Without opacities the three areas average 0.46.
    assert 0.62 < np.mean(areas) < 0.88


@pytest.mark.slow
def test_file_size_tells_nothing_about_the_label(tmp_path):
    manifest = make_phantoms(tmp_path, size=64)
    size = defaultdict(list)
    for row in rows_of(manifest):
        size[row["label"]].append((tmp_path / row["path"]).stat().st_size)
    assert 0.35 < area_under_curve(size["covid"], size["normal"]) < 0.65


def test_scanners_differ_in_the_correlation_of_their_noise():
    def neighbours(site):
        corners = [phantom_slice(s, site=site)[:20, :60].astype(float) for s in range(6)]
        return np.mean([np.corrcoef(c[:, 1:].ravel(), c[:, :-1].ravel())[0, 1] for c in corners])

    assert abs(neighbours("scanner-a")) < 0.1
    assert neighbours("scanner-b") > 0.3


def test_levels_of_one_patient_differ_but_share_the_build():
    high, low = (phantom_slice(3, label="normal", z=z).astype(float) for z in (0.3, 0.6))
    body = [(p > 120).any(axis=0).sum() for p in (high, low)]
    dark = [(p[ellipse(256, 0.0, 0.0, 0.8, 0.6)] < 120).sum() for p in (high, low)]
    assert abs(body[0] - body[1]) < 25
    assert dark[0] != dark[1]
    assert not np.array_equal(high, low)


@pytest.mark.parametrize(
    "wrong", [{"patients": 3}, {"slices": 0}, {"size": 31}, {"seed": -1}], ids=lambda w: next(iter(w))
)
def test_impossible_sets_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))) as caught:
        make_phantoms(tmp_path / "set", **wrong)
    assert caught.value.remedy
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("wrong", [{"label": "flu"}, {"site": "scanner-c"}])
def test_unknown_names_are_refused_with_the_known_ones(wrong):
    with pytest.raises(UnknownNameError, match="Choose one of"):
        phantom_slice(size=32, **wrong)


def test_importing_phantoms_loads_no_learning_library():
    code = (
        "import sys, featstore.phantom; "
        "print([m for m in ('tensorflow', 'keras', 'sklearn', 'scipy', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_lesions_lie_in_slices_of_cases_alone_and_change_what_the_mask_says(tmp_path):
    data = make_phantoms(tmp_path, patients=6, slices=2, size=64)
    masks = lesion_masks(patients=6, slices=2, size=64)
    assert sorted(masks) == sorted(f"covid/{path.name}" for path in (data.parent / "covid").iterdir())
    shares = [mask.mean() for mask in masks.values()]
    assert 0 < np.mean(shares) < 0.5
    assert all(mask.shape == (64, 64) for mask in masks.values())
