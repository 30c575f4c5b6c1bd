"""Precision: what is refused where, what is in the key, and that its error is small."""

from __future__ import annotations

import numpy as np
import pytest

from featstore.backbones import catalog, precision
from featstore.backbones.keras_backbone import load_backbone, spec
from featstore.backbones.precision import BFLOAT16, FLOAT16, FLOAT32, FORCE, require_hardware
from featstore.backbones.weights import resolve_weights
from featstore.errors import FeatstoreError, OutOfMemoryError, UsageError
from featstore.serialization import digest
from featstore.types import BACKBONE_REVISION

BATCH = 4


@pytest.fixture
def forced(monkeypatch):
    monkeypatch.setenv(FORCE, "1")


@pytest.fixture
def images():
    return np.random.default_rng(5).uniform(0, 255, (BATCH, 224, 224, 3)).astype(np.float32)


def test_the_precision_is_in_the_key_and_the_digest_of_the_weights_is_not_touched():
    row = catalog.row("MobileNet025")
    weights = resolve_weights(row, "random:1")

    specs = [spec(row, weights, precision=p) for p in (FLOAT32, BFLOAT16, FLOAT16)]

    assert len({digest([s.precision, s.name]) for s in specs}) == 3
    assert {(s.weights, s.revision) for s in specs} == {(weights.digest, BACKBONE_REVISION)}


@pytest.mark.parametrize(
    "call", [load_backbone, lambda n, w, **o: spec(catalog.row(n), resolve_weights(catalog.row(n), w), **o)]
)
def test_a_precision_that_does_not_exist_is_refused(call):
    with pytest.raises(UsageError, match="no precision 'int8'") as error:
        call("MobileNet025", "random:1", precision="int8")

    assert "float32, tf32, bfloat16, float16" in error.value.remedy


def cpu(monkeypatch, tmp_path, flags):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", path)


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_bfloat16_may_use_it(monkeypatch, tmp_path, flag):
    cpu(monkeypatch, tmp_path, flag)

    require_hardware(BFLOAT16, [])


def test_a_cpu_without_bfloat16_is_told_so_unless_forced(monkeypatch, tmp_path):
    cpu(monkeypatch, tmp_path, "avx2 avx512f")
    with pytest.raises(UsageError, match="does not say that it computes in bfloat16") as error:
        require_hardware(BFLOAT16, [])
    assert FORCE in error.value.remedy

    monkeypatch.setenv(FORCE, "1")
    require_hardware(BFLOAT16, [])


def test_a_system_that_cannot_be_asked_is_not_trusted(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "absent")

    with pytest.raises(UsageError):
        require_hardware(BFLOAT16, [])


@pytest.mark.parametrize(("gpus", "fine"), [([(7, 5)], False), ([(8, 0)], True), ([(9, 0), (7, 0)], False)])
def test_with_gpus_it_is_the_gpus_that_count(monkeypatch, tmp_path, gpus, fine):
    cpu(monkeypatch, tmp_path, "amx_bf16")
    if fine:
        require_hardware(BFLOAT16, gpus)
    else:
        with pytest.raises(UsageError):
            require_hardware(BFLOAT16, gpus)


def test_float16_wants_a_gpu(monkeypatch):
    require_hardware(FLOAT16, [(7, 0)])
    with pytest.raises(UsageError, match="float16 is for GPUs") as error:
        require_hardware(FLOAT16, [])
    assert "--precision float32" in error.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "name", "weights"),
    [
        (BFLOAT16, "MobileNet025", "random:1"),
        pytest.param(FLOAT16, "EfficientNetLite0", "imagenet", marks=pytest.mark.slow),
    ],
)
def test_low_precision_stays_near_float32_and_is_not_it(chosen, name, weights, forced, images):
    """float16 runs here as on a GPU, mixed policy and XLA; it has not the range for MobileNet025's random weights."""
    reference = load_backbone(name, weights, batch_size=BATCH).embed(images)

    cheap = load_backbone(name, weights, batch_size=BATCH, precision=chosen).embed(images)

    assert cheap.dtype == np.float32
    assert 0 < np.abs(cheap - reference).max() / np.abs(reference).max() < 0.01


@pytest.mark.parametrize(
    "name",
    [
        "MobileNet025",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("EfficientNetLite0", "DenseNet121")),
    ],
)
def test_a_row_in_bfloat16_depends_on_its_image_alone(name, forced, images):
    backbone = load_backbone(name, "random:1", batch_size=BATCH, precision=BFLOAT16)
    expected = backbone.embed(images)

    others = images[::-1].copy()
    others[0] = 255 - others[0]

    assert backbone.embed(others)[1:].tobytes() == expected[::-1][1:].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [FLOAT32, BFLOAT16])
def test_every_output_is_float32_whatever_the_last_layer(chosen, forced):
    """ConvNeXt ends in a layer norm behind its pooling."""
    backbone = load_backbone("ConvNeXtTiny", "random:1", batch_size=1, precision=chosen)

    assert backbone.embed(np.full((1, 224, 224, 3), 90, np.float32)).dtype == np.float32


def test_another_batch_size_is_the_same_network_with_the_same_weights(images):
    four = load_backbone("MobileNet025", "random:1", batch_size=BATCH)

    two = four.with_batch_size(2)

    assert (two.spec, two.batch_size, four.batch_size) == (four.spec, 2, BATCH)
    assert two._network is four._network
    np.testing.assert_allclose(two.embed(images[:2]), four.embed(images)[:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError):
        four.with_batch_size(0)


def test_a_device_without_room_is_a_typed_error(images):
    backbone = load_backbone("MobileNet025", "random:1", batch_size=BATCH)

    def full(_):
        import tensorflow as tf

        raise tf.errors.ResourceExhaustedError(
            None, None, "OOM when allocating tensor\nwith shape[4,112,112,8]"
        )

    object.__setattr__(backbone, "_forward", full)

    with pytest.raises(OutOfMemoryError, match="MobileNet025 has no room for 4 images: OOM when") as error:
        backbone.embed(images)
    assert isinstance(error.value, (MemoryError, FeatstoreError))
    assert "\n" not in error.value.cause
