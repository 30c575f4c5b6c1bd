"""Law 2 on every instruction set: which kernels are asked for, and that those in use are watched."""

from __future__ import annotations

import sys

import pytest

from featstore.backbones import precision
from featstore.backbones import precision as kernels
from featstore.backbones.precision import ONEDNN, cpu_flags, prefer_onednn, rows_are_independent

# Features of a batch, hashed, and how many numbers move when its rows change places; then what the probe says.
SCRIPT = """
import hashlib, os, sys
import numpy as np
first, batch, *names = sys.argv[1:]
if first == "tensorflow":
    import tensorflow
from featstore.backbones.keras_backbone import load_backbone
from featstore.backbones.precision import ONEDNN, rows_are_independent
for name in names:
    backbone = load_backbone(name, "random:1", batch_size=int(batch))
    side = backbone.spec.input_size
    images = np.random.default_rng(5).uniform(0, 255, (int(batch), side, side, 3)).astype(np.float32)
    features = backbone.embed(images)
    # Cyclic, one place on: if no place differs from the next, none differs from any.
    moved = int((np.roll(backbone.embed(np.roll(images, 1, 0)), -1, 0) != features).sum())
    print(name, hashlib.sha256(features.tobytes()).hexdigest(), "moved", moved)
print("keeps", rows_are_independent(), "asked", os.environ.get(ONEDNN))
"""


ABOVE_AVX2 = ("avx512", "avx10", "avx_", "amx")
BEYOND_AVX2 = pytest.mark.skipif(
    "avx2" in cpu_flags() and not any(flag.startswith(ABOVE_AVX2) for flag in cpu_flags()),
    reason="this CPU has nothing above AVX2, which has a test of its own",
)


def settings(threads, onednn, isa="DEFAULT"):
    """Environment of a process; oneDNN's limit makes a CPU look smaller than it is, never larger."""
    return {"TF_NUM_INTRAOP_THREADS": str(threads), ONEDNN: onednn, "ONEDNN_MAX_CPU_ISA": isa}


@pytest.fixture
def before_tensorflow(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv(ONEDNN, raising=False)

    def asked(tmp_path, flags, machine="x86_64"):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr(precision, "_CPUINFO", path)
        monkeypatch.setattr(kernels.platform, "machine", lambda: machine)
        prefer_onednn()
        return kernels.os.environ.get(ONEDNN)

    return asked


@pytest.mark.parametrize(
    ("flags", "machine", "wanted"),
    [
        ("sse4_1", "x86_64", "1"),
        ("sse4_1 avx avx2 fma", "x86_64", "1"),
        ("avx2 fma", "AMD64", "1"),
        ("avx2 fma avx512f", "x86_64", None),
        ("avx2 fma avx512f avx512_vnni avx512_bf16", "x86_64", None),
        ("asimd", "aarch64", None),
    ],
)
def test_onednn_is_asked_for_where_tensorflow_would_not_and_needs_it(
    before_tensorflow, tmp_path, flags, machine, wanted
):
    assert before_tensorflow(tmp_path, flags, machine) == wanted


def test_a_choice_of_the_user_stays(before_tensorflow, monkeypatch, tmp_path):
    monkeypatch.setenv(ONEDNN, "0")

    assert before_tensorflow(tmp_path, "avx2 fma") == "0"


def test_nothing_is_asked_of_a_tensorflow_that_has_read_its_settings(
    before_tensorflow, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "tensorflow", object())

    assert before_tensorflow(tmp_path, "avx2 fma") is None


def test_the_kernels_of_this_process_keep_rows():
    assert rows_are_independent()


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["SSE41", "AVX", "AVX2", pytest.param("DEFAULT", marks=BEYOND_AVX2)])
def test_on_every_instruction_set_neither_place_nor_threads_move_a_bit(run_python, isa):
    """At the engine's batch of 16; TensorFlow's own kernels give MobileNet025 other bytes for 1, 2 and 4 threads."""
    names = ["MobileNet025", "EfficientNetLite0", "ResNet50"]
    one = run_python(SCRIPT, "featstore", 16, *names, **settings(1, "1", isa))
    # The remedy of the warning, followed in a process that imports TensorFlow first.
    four = run_python(SCRIPT, "tensorflow", 16, *names, **settings(4, "1", isa))

    assert one == four
    assert one.count(" moved 0\n") == len(names)
    assert "keeps True" in one


@pytest.mark.slow
def test_kernels_that_move_rows_are_told_on_stderr(run_process):
    """A notebook that imported TensorFlow first, or a user who turned oneDNN off."""
    done = run_process(SCRIPT, "tensorflow", 4, "MobileNet025", **settings(2, "0", "AVX2"))

    moved, told = " moved 0\n" not in done.stdout, "keeps False" in done.stdout
    if {"avx2", "fma"} <= cpu_flags():  # else this machine has no kernel that does it
        assert moved
    assert moved <= told
    assert told == (f"set {ONEDNN}=1 before Python starts" in done.stderr)
