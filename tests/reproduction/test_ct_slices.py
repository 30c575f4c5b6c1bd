"""`featstore paper` as installed, on real CT slices: trained, random and absent networks side by side."""

from pathlib import Path

import pytest
from commandline import featstore, modules_loaded

SHARED = Path(__file__).resolve().parents[3] / "shared"
DATA = SHARED / "data" / "covid_ct" / "manifest.csv"
MOBILENET = SHARED / "weights" / "mobilenetv2_imagenet_notop.weights.h5"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="the shared CT slices are not beside this checkout"),
    pytest.mark.skipif(
        not MOBILENET.exists(), reason="the shared ImageNet weights are not beside this checkout"
    ),
]
WEIGHTS = ["--weights", f"MobileNetV2={MOBILENET}", "--weights", "ResNet50=random:1"]
HERE = "ResNet50,MobileNetV2,EfficientNetLite0"


def command(networks, out):
    arguments = ["paper", DATA, "--images", "60", "--views", "1", "--epochs", "20", "--positive", "COVID"]
    return [*arguments, "--backbones", networks, *WEIGHTS, "--cache", "cache", "--out", out]


def test_a_small_part_of_the_ct_slices_gives_every_number_and_every_figure(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "no hub has filled this"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a hub that nobody can reach
    first = featstore(*command(f"VGG19,{HERE}", "one"), "--json", timeout=900)
    assert first.code == 0, first.err
    found = first.json
    assert {row["name"]: row["weights"] for row in found["networks"]} == {
        "VGG19": "absent",
        "ResNet50": "random",
        "MobileNetV2": "file",
        "EfficientNetLite0": "imagenet",
    }
    assert [claim["name"] for claim in found["claims"]] == ["paper", "by_image", "by_patient", "honest"]
    for claim in found["claims"]:
        low, high = claim["accuracy"]["interval"]
        assert 0 <= low <= claim["accuracy"]["value"] <= high <= 1
    assert {drawn["number"] for drawn in found["figures"]} == {*range(1, 24), None}
    assert all((Path("one") / drawn["file"]).stat().st_size > 1000 for drawn in found["figures"])
    assert set(found["conversion"]["formats"]) == {"JPEG", "PNG"}
    assert found["leak"]["in_both"] > 0, "patients with several slices, split by image"

    assert modules_loaded(*command(HERE, "two")) == (0, {"sklearn", "scipy", "matplotlib"})
    again = featstore(*command(HERE, "two"))
    assert again.code == 0, again.err
    assert " 0 vectors were computed" in again.out
    assert "RANDOM WEIGHTS" in again.out
