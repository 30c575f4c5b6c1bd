"""Arithmetics by name, and whether this machine has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from featstore.errors import UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"
FLOAT16: Final = "float16"

POLICIES: Final = {FLOAT32: "float32", BFLOAT16: "bfloat16", FLOAT16: "mixed_float16"}
"""Keras' dtype policy by precision."""

FORCE: Final = "FEATSTORE_FORCE_PRECISION"
"""Environment variable: 1 to compute in an arithmetic that this machine only emulates, or cannot be asked about."""

_CPUINFO: Final = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_BFLOAT16_GPU: Final = (8, 0)


def require_precision(precision: str) -> None:
    """Refuse an arithmetic that does not exist.

    Raises
    ------
    UsageError
        If `precision` is none of `POLICIES`.
    """
    if precision not in POLICIES:
        raise UnknownNameError(f"There is no precision {precision!r}.", did_you_mean(precision, POLICIES))


def require_hardware(precision: str, gpus: Sequence[tuple[int, int]]) -> None:
    """Refuse an arithmetic for which this machine has no instructions: it would be slower than float32.

    Parameters
    ----------
    precision
        One of `POLICIES`.
    gpus
        Compute capability of each visible GPU.

    Raises
    ------
    UsageError
        If neither the CPU nor the GPUs have it, and `FORCE` is not set.
    """
    if precision == FLOAT32 or os.environ.get(FORCE) == "1":
        return
    if precision == FLOAT16 and not gpus:
        raise UsageError(
            "float16 is for GPUs, and TensorFlow sees none.",
            "Use --precision float32, or bfloat16 on a CPU that has it.",
        )
    if precision == BFLOAT16 and not _has_bfloat16(gpus):
        raise UsageError(
            "This machine does not say that it computes in bfloat16 (CPU flag avx512_bf16 or amx_bf16, GPU 8.0).",
            f"Use --precision float32, or set {FORCE}=1 if you know better.",
        )


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the CPU as Linux names them; empty on other systems."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset().union(
        *(value.split() for name, _, value in lines if name.strip() in {"flags", "Features"})
    )


def capabilities(gpus: Sequence[Any]) -> list[tuple[int, int]]:
    """Compute capability of TensorFlow's physical GPUs; (0, 0) where TensorFlow does not know it."""
    if not gpus:
        return []
    import tensorflow as tf

    return [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def _has_bfloat16(gpus: Sequence[tuple[int, int]]) -> bool:
    return all(gpu >= _BFLOAT16_GPU for gpu in gpus) if gpus else bool(_BFLOAT16_FLAGS & cpu_flags())
