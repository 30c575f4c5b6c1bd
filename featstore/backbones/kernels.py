"""TensorFlow's two sets of convolution kernels on a CPU, and whether those in use keep rows apart (law 2).

TensorFlow's own convolutions are one product of matrices over all pixels of a batch. With AVX2, the last one to three
pixels of a block are summed in another order than the rest, and where blocks end depends on the place in the batch
and on the number of threads. oneDNN's convolutions work image by image. TensorFlow turns them on by itself where the
CPU has AVX512-VNNI or better; see docs/decisions/019-rows-and-kernels.md.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from functools import cache
from typing import Final

import numpy as np

from featstore.backbones.precision import cpu_flags

log = logging.getLogger(__name__)

ONEDNN: Final = "TF_ENABLE_ONEDNN_OPTS"
"""TensorFlow's environment variable, read when TensorFlow is imported: 1 for oneDNN's kernels, 0 for its own."""

_X86: Final = frozenset({"x86_64", "amd64"})
# Copies and side. One block whatever the threads; 27 and 75 pixels leave three over from tiles of six.
_PROBES: Final = ((3, 3), (3, 5))
_CHANNELS: Final = 32


def ask_for_onednn() -> None:
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
def keeps_rows() -> bool:
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
def warn_unless_rows_are_kept() -> None:
    """Say once per process that the last bits of a vector are not those of other runs, and what to do about it."""
    if keeps_rows():
        return
    log.warning(
        "The last bits of features depend here on the number of threads and on the place in the batch:"
        " set %s=1 before Python starts, or load a backbone before anything else imports TensorFlow.",
        ONEDNN,
    )
