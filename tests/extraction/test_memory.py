"""Memory is announced before the work and kept under a budget by letting networks take turns."""

import json
import re
import subprocess
import sys

import pytest
from commandline import featstore as run_command
from fakes import DECODING
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import featstore
from featstore.backbones import catalog
from featstore.errors import UsageError
from featstore.extraction.plan import (
    BASE_BYTES,
    DecodingMemory,
    announced_bytes,
    decoding_budget,
    passes,
    peak_bytes,
    plan,
)
from featstore.images.reading import decoding_bytes
from featstore.phantom import make_phantoms
from featstore.types import IDENTITY, BackboneSpec, FeatureKey

NAMES = ["ResNet50", "Xception", "VGG19", "MobileNetV2", "NASNetLarge", "DenseNet121"]
IDS = [f"{i:064x}" for i in range(20)]


def spec(name):
    row = catalog.row(name)
    return BackboneSpec(name, "random:0", row.input_size, "official", row.dimension)


def todo(names):
    return plan([FeatureKey(spec(name), IDENTITY, DECODING) for name in names], IDS, {})


names = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)


@given(names, st.integers(2_700, 6_000))
def test_every_pass_fits_and_together_they_do_all_the_work_once(chosen, megabytes):
    whole, budget = todo(chosen), megabytes * 1_000_000
    parts = passes(whole, budget, 16)
    assert peak_bytes(parts, 16) <= budget
    assert sorted(c.key.backbone.name for part in parts for c in part.key_plans) == sorted(chosen)
    assert sum(part.rows_missing for part in parts) == whole.rows_missing


def test_without_a_budget_there_is_one_pass():
    assert len(passes(todo(NAMES), None, 16)) == 1


def test_a_small_budget_takes_more_passes():
    counts = [len(passes(todo(NAMES), megabytes * 1_000_000, 16)) for megabytes in (9_000, 3_000, 2_700)]
    assert counts[0] == 1 < counts[1] <= counts[2]


def test_a_network_that_does_not_fit_alone_is_named_with_the_budget_it_needs():
    with pytest.raises(UsageError, match="NASNetLarge alone takes") as caught:
        passes(todo(NAMES), 1_500_000_000, 16)
    assert "--memory" in caught.value.remedy


@given(names)
def test_more_networks_are_never_announced_as_less(chosen):
    specs = [spec(name) for name in chosen]
    assert announced_bytes(specs, 20, 16) >= announced_bytes(specs[1:], 20, 16) >= BASE_BYTES


def test_more_images_are_more_memory_up_to_one_block_and_no_further():
    one, block, many = (announced_bytes([spec("Xception")], images, 16) for images in (1, 256, 1_000_000))
    assert one < block == many


def test_the_largest_pictures_are_announced_as_threads_meet_them(tmp_path):
    paths = [tmp_path / f"{side}.png" for side in (400, 300, 200, 100)]
    for path in paths:
        Image.new("RGB", (int(path.stem), int(path.stem))).save(path)
    costs = [decoding_bytes(path) for path in paths]
    assert DecodingMemory.of(paths, 1, 1) == DecodingMemory(costs[0], costs[0])
    assert DecodingMemory.of(paths, 3, 1) == DecodingMemory(costs[0], sum(costs[:3]))
    assert DecodingMemory.of(paths, 1, 2) == DecodingMemory(costs[0], costs[0])
    assert DecodingMemory.of([], 4, 2) == DecodingMemory()


LARGE = DecodingMemory(alone=500_000_000, together=4_000_000_000)


def test_pictures_take_what_a_budget_leaves_and_the_largest_always_fits():
    whole, free = todo(["Xception"]), peak_bytes([todo(["Xception"])], 16)
    assert peak_bytes([whole], 16, LARGE) == free + LARGE.together
    assert passes(whole, free + LARGE.alone, 16, LARGE) == [whole]
    for budget in (free + LARGE.alone, free + 2 * LARGE.alone, 10**11):
        announcement = peak_bytes([whole], 16, LARGE, budget)
        assert announcement == min(budget, free + LARGE.together)
        assert decoding_budget([whole], 16, LARGE, budget) == budget - free
    assert decoding_budget([whole], 16, LARGE, None) is None


def test_a_picture_that_does_not_fit_is_named_with_the_budget_that_it_needs():
    whole = todo(["MobileNetV2"])
    with pytest.raises(UsageError, match="decoding the largest image 500 MB") as caught:
        passes(whole, 1_400_000_000, 16, LARGE)
    enough = int(re.search(r"--memory (\d+)MB", caught.value.remedy)[1]) * 1_000_000
    assert passes(whole, enough, 16, LARGE) == [whole]


@pytest.mark.parametrize(("text", "code"), [("4GB", 0), ("900MB", 2), ("lots", 2), ("0", 2)])
def test_the_flag_is_read_and_refused_like_any_other(text, code, tmp_path):
    data = make_phantoms(tmp_path / "data", patients=4, slices=1, size=32)
    arguments = ["extract", data, "--backbones", "ResNet50,NASNetLarge", "--weights", "random:1", "--dry-run"]
    assert run_command(*arguments, "--memory", text).code == code


@pytest.mark.slow
def test_a_budget_is_kept_with_large_pictures_by_the_whole_command(tmp_path):
    """Peak of the process from its first line to its last, looking for copies included."""
    for number in range(6):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").convert("RGB").resize((6000, 4000 + number)).save(path)
    options = {
        "data": str(tmp_path / "data"), "backbones": ["MobileNet025"], "weights": {"*": "random:1"},
        "cache": str(tmp_path / "cache"), "memory": 1_100_000_000,
    }  # fmt: skip
    told = featstore.extract(**options, dry_run=True).announced_bytes
    assert told <= 1_100_000_000
    command = [sys.executable, "-c", MEASURE, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[1] == pytest.approx(told, rel=0.15)


MEASURE = """
import json, sys
from featstore import extract
from featstore.extraction.scheduler import peak_resident_bytes
options = json.loads(sys.argv[1])
result = extract(**options)
print(json.dumps([result.passes, peak_resident_bytes()]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("networks", "memory", "expected_passes"),
    [
        (["MobileNetV2"], None, 1),
        (["ResNet50"], None, 1),
        (["ResNet50", "DenseNet201", "InceptionV3"], None, 1),
        (["ResNet50", "Xception", "VGG19", "InceptionV3"], None, 1),
        (["ResNet50", "Xception", "VGG19", "InceptionV3"], 2_000_000_000, 2),
    ],
)
def test_the_peak_is_within_15_percent_of_what_the_dry_run_announced(
    tmp_path, networks, memory, expected_passes
):
    data = make_phantoms(tmp_path / "data", patients=10, slices=2, size=64)
    arguments = [
        "extract",
        data,
        "--backbones",
        ",".join(networks),
        "--weights",
        "random:1",
        "--dry-run",
        "--json",
    ]
    told = run_command(*arguments, *(["--memory", memory] if memory else [])).json
    options = {
        "data": str(data), "backbones": networks, "weights": {"*": "random:1"},
        "cache": str(tmp_path / "cache"), "memory": memory,
    }  # fmt: skip
    command = [sys.executable, "-c", MEASURE, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, measured = json.loads(done.stdout)
    assert count == told["passes"] == expected_passes
    assert measured == pytest.approx(told["announced_bytes"], rel=0.15)
