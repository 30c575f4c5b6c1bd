"""Precisions by name, whether this machine has them, and whether its convolutions keep rows apart (law 2).

TensorFlow has two sets of convolution kernels on a CPU. Its own are one product of matrices over all pixels of a
batch. With AVX2, the last one to three pixels of a block are summed in another order than the rest, and where blocks
end depends on the place in the batch and on the number of threads. oneDNN's convolutions work image by image.
TensorFlow turns them on by itself where the CPU has AVX512-VNNI or better; see
docs/decisions/019-rows-and-kernels.md.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featstore.errors import UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence


# Precisions, and the hardware that they need

FLOAT32: Final = "float32"
TF32: Final = "tf32"
BFLOAT16: Final = "bfloat16"
FLOAT16: Final = "float16"

POLICIES: Final = {FLOAT32: "float32", TF32: "float32", BFLOAT16: "bfloat16", FLOAT16: "mixed_float16"}
"""Keras' dtype policy by precision."""

FORCE: Final = "FEATSTORE_FORCE_PRECISION"
"""Environment variable: 1 to compute in an arithmetic that this machine only emulates, or cannot be asked about."""

_CPUINFO: Final = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_AMPERE: Final = (8, 0)


def require_precision(precision: str) -> None:
    """Refuse an arithmetic that does not exist.

    Raises
    ------
    UsageError
        If `precision` is none of `POLICIES`.
    """
    if precision not in POLICIES:
        raise UnknownNameError(f"There is no precision {precision!r}.", did_you_mean(precision, POLICIES))


def require_hardware(precision: str, gpus: Sequence[tuple[int, int]], engine: str = "TensorFlow") -> None:
    """Refuse an arithmetic for which this machine has no instructions: it would be slower than float32.

    Parameters
    ----------
    precision
        One of `POLICIES`.
    gpus
        Compute capability of each visible GPU.
    engine
        What does or does not see them.

    Raises
    ------
    UsageError
        If neither the CPU nor the GPUs have it, and `FORCE` is not set.
    """
    if precision == FLOAT32 or os.environ.get(FORCE) == "1":
        return
    if precision == FLOAT16 and not gpus:
        raise UsageError(
            f"float16 is for GPUs, and {engine} sees none.",
            "Use a machine with a GPU, or float32 in all steps: `featstore extract DATA --precision float32`.",
        )
    if precision == TF32 and not (gpus and all(gpu >= _AMPERE for gpu in gpus)):
        raise UsageError(
            f"tf32 is for GPUs of NVIDIA's Ampere or later (8.0), and {engine} sees none.",
            "Use a machine with such a GPU, or float32 in all steps: `featstore extract DATA --precision float32`.",
        )
    if precision == BFLOAT16 and not has_bfloat16(gpus):
        raise UsageError(
            "This machine does not say that it computes in bfloat16 (CPU flag avx512_bf16 or amx_bf16, GPU 8.0).",
            "Use another machine, or float32 in all steps: `featstore extract DATA --precision float32`;"
            f" or set {FORCE}=1 if you know better.",
        )


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU as Linux names them; empty on other systems."""
    lists = (value.split() for name, value in _cpuinfo() if name in {"flags", "Features"})
    return frozenset().union(*lists)


def cpu_name() -> str:
    """Name of the processor as its maker prints it, or its architecture where the system does not tell."""
    names = (value for name, value in _cpuinfo() if name == "model name" and value)
    return next(names, platform.processor() or platform.machine())


def _cpuinfo() -> list[tuple[str, str]]:
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return []
    lines = (line.partition(":") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, _, value in lines]


def capabilities(gpus: Sequence[Any]) -> list[tuple[int, int]]:
    """Compute capability of TensorFlow's physical GPUs; (0, 0) where TensorFlow does not know it."""
    if not gpus:
        return []
    import tensorflow as tf

    return [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def has_bfloat16(gpus: Sequence[tuple[int, int]]) -> bool:
    """Whether the GPUs of these compute capabilities, or without any the CPU, say that they compute in bfloat16."""
    return all(gpu >= _AMPERE for gpu in gpus) if gpus else bool(_BFLOAT16_FLAGS & cpu_flags())


# Convolution kernels of the CPU

log = logging.getLogger(__name__)

ONEDNN: Final = "TF_ENABLE_ONEDNN_OPTS"
"""TensorFlow's environment variable, read when TensorFlow is imported: 1 for oneDNN's kernels, 0 for its own."""

_X86: Final = frozenset({"x86_64", "amd64"})
# Copies and side. One block whatever the threads; 27 and 75 pixels leave three over from tiles of six.
_PROBES: Final = ((3, 3), (3, 5))
_CHANNELS: Final = 32


def prefer_onednn() -> None:
    """Have TensorFlow use oneDNN's convolutions on an x86 CPU without AVX-512, unless the user chose.

    With AVX-512 TensorFlow's own kernels sum every pixel alike: there its choice, and every stored byte, stays.
    Without effect once TensorFlow is imported.
    """
    if (
        "tensorflow" not in sys.modules
        and platform.machine().lower() in _X86
        and "avx512f" not in cpu_flags()
    ):
        os.environ.setdefault(ONEDNN, "1")


@cache
def rows_are_independent() -> bool:
    """Whether copies of one image come out of a convolution with equal bytes; measured, once per process."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (1, 1, _CHANNELS, _CHANNELS)).astype(np.float32)

    def differ(count: int, side: int) -> bool:
        image = rng.normal(0, 1, (1, side, side, _CHANNELS)).astype(np.float32)
        rows = tf.nn.conv2d(np.repeat(image, count, axis=0), kernel, 1, "VALID").numpy()
        return bool((rows != rows[0]).any())

    return not any(differ(count, side) for count, side in _PROBES)


@cache
def warn_if_rows_are_dependent() -> None:
    """Say once per process that the last bits of a vector are not those of other runs, and what to do about it."""
    if rows_are_independent():
        return
    log.warning(
        "The last bits of features depend here on the number of threads and on the place in the batch:"
        " set %s=1 before Python starts, or load a backbone before anything else imports TensorFlow.",
        ONEDNN,
    )
