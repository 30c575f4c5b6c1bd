"""The audit finds what would make a score a lie."""

import shutil

import numpy as np
import pytest
from PIL import Image

from featstore.evaluation.check import check
from featstore.images.phantom import make_phantoms


@pytest.fixture
def phantoms(tmp_path):
    return make_phantoms(tmp_path / "phantoms", patients=20, slices=2, size=64)


def codes(result):
    return {finding.name for finding in result.findings}


def test_a_data_set_without_errors_says_so(phantoms):
    result = check(phantoms)
    assert result.no_error_found
    assert (result.images, result.groups, dict(result.classes)) == (40, 20, {"covid": 20, "normal": 20})


def test_a_resaved_copy_in_another_split_is_a_near_leak_and_other_chests_are_not(phantoms, tmp_path):
    root = tmp_path / "split"
    for i, path in enumerate(sorted(phantoms.parent.glob("*/*.png"))):
        target = root / ("train" if i % 2 else "test") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert "copies_across_groups" not in codes(check(root, group_pattern=r"([^/]+)\.png$"))
    original = next((root / "train" / "covid").iterdir())
    with Image.open(original) as image:
        image.resize((90, 90)).save(root / "test" / "covid" / "again.jpg", quality=80)
    (leak,) = [
        f for f in check(root, group_pattern=r"([^/]+)\.\w+$").findings if f.name == "copies_across_groups"
    ]
    assert (leak.severity, leak.message.split()[0]) == ("warning", "1")
    assert "again.jpg" in leak.examples[0]
    assert original.name in leak.examples[0]


def test_a_label_that_the_file_size_gives_away_is_told(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        label, size = ("ill", 48) if i % 2 else ("well", 32)
        path = tmp_path / "data" / label / f"p{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8)).save(path)
    file_alone, histogram = check(tmp_path / "data").shortcuts.values()
    assert file_alone.value > 0.99
    assert histogram.interval[0] < 0.6


def test_a_bad_image_is_listed_and_the_rest_is_audited(phantoms):
    victim = next((phantoms.parent / "normal").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-9])
    result = check(phantoms)
    assert [(path, reason) for path, reason, _ in result.bad] == [(str(victim), "truncated")]
    assert result.shortcuts
