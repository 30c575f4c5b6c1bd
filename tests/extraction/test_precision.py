"""The precision check: its two numbers, and what real weights say on real CT slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commandline import featstore
from fakes import write_images
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from featstore.api.extract import agreement, check_precision, relative_error
from featstore.backbones.precision import cpu_flags
from featstore.errors import UsageError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
DATA = SHARED / "data" / "covid_ct" / "manifest.csv"
XCEPTION = SHARED / "weights" / "xception_imagenet_notop.weights.h5"
MOBILENET = SHARED / "weights" / "mobilenetv2_imagenet_notop.weights.h5"
QUARTER = SHARED / "weights" / "mobilenet_0.25_224_imagenet_notop.h5"
NAMES = "Xception,MobileNetV2,MobileNet025,EfficientNetLite0,EfficientNetLite1,EfficientNetLite2"
NETS = ["--backbones", NAMES, "--weights", f"Xception={XCEPTION}"]
NETS += ["--weights", f"MobileNetV2={MOBILENET}", "--weights", f"MobileNet025={QUARTER}"]
HAS_BFLOAT16 = bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


@given(seed=st.integers(0, 2**31), share=st.floats(0.001, 0.3))
def test_noise_of_a_share_of_the_spread_is_an_error_of_that_share(seed, share):
    rng = np.random.default_rng(seed)
    rows = rng.normal(5, rng.uniform(0.1, 3, 200), (50, 200))
    spread = np.sqrt(rows.var(axis=0).mean())

    noisy = rows + share * spread * np.sign(rng.normal(size=rows.shape))

    assert relative_error(rows, noisy) == pytest.approx(share, rel=1e-9)
    assert relative_error(7 * rows, 7 * noisy) == pytest.approx(share, rel=1e-9)


def test_agreement_is_the_correlation_of_distances_as_scipy_measures_them():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 30))
    other = rows + rng.normal(0, 0.5, rows.shape)

    assert agreement(rows, other) == pytest.approx(np.corrcoef(pdist(rows), pdist(other))[0, 1], abs=1e-9)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(UsageError, match="2 images say nothing"):
        check_precision(write_images(tmp_path, 8), images=2)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16")
def test_the_command_prints_the_check_and_stores_nothing(tmp_path):
    manifest = write_images(tmp_path / "data", 8)
    arguments = [
        "extract",
        manifest,
        "--backbones",
        "EfficientNetLite0",
        "--precision-check",
        "--cache",
        tmp_path / "c",
    ]

    document = featstore(*arguments, "--check-images", 5, "--json").json

    assert (document["precision"], document["images"]) == ("bfloat16", 5)
    (cost,) = document["costs"]
    assert 0 < cost["error"] < 0.5
    assert 0.9 < cost["correlation"] <= 1
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA.exists() and XCEPTION.exists()), reason="the shared slices and weights are not here"
)
@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16")
def test_bfloat16_on_real_slices_is_near_float32_and_no_classifier_notices(tmp_path):
    check = featstore("extract", DATA, *NETS, "--precision-check", "--json", timeout=1800).json
    assert [c["backbone"] for c in check["costs"]] == NAMES.split(",")
    assert all(0 < c["error"] < 0.05 for c in check["costs"])
    assert min(c["correlation"] for c in check["costs"]) > 0.999

    auc = []
    for precision in ("float32", "bfloat16"):
        chosen = ["--precision", precision, "--cache", tmp_path / "cache"]
        assert featstore("extract", DATA, *NETS, *chosen, timeout=1800).code == 0
        compared = featstore(
            "compare", DATA, *chosen, "--positive", "COVID", "--seeds", "none", "--json", timeout=600
        )
        auc.append({c["name"]: c["metrics"]["auc"]["mean"] for c in compared.json["contestants"]})
    assert auc[0] == pytest.approx(auc[1], abs=0.01)
    assert auc[0] != auc[1]
