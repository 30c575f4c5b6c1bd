"""Inverted dropout whose mask is computed, not stored: a hash of column and key decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.fusion.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = 2**32


class Dropout:
    """Zeroes each input with probability `rate` and scales the others up (Srivastava et al. 2014).

    Parameters
    ----------
    rate
        0 to below 1, in steps of 2^-32.
    rng
        Source of one 32-bit key per row and call. The mask of a row is a counter hashed with the key (the 32-bit
        finaliser "lowbias32" of Wellons), which vectorises; a stream of random numbers does not.
    """

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        self.kept = min(LEVELS - round(rate * LEVELS), LEVELS - 1) if rate else 0
        self.gain = LEVELS / self.kept if rate else 1.0
        self._rng = rng

    def pick(self, X: NDArray[np.float32], rows: NDArray[np.intp], out: NDArray[np.float32]) -> None:
        """Write the rows `rows` of ``X (n, d)``, masked but not scaled up, to ``out (len(rows), d)``."""
        if self.kept:
            keys = self._rng.integers(LEVELS, size=len(rows), dtype=np.uint32)
            _pick(X, rows, keys, np.uint32(self.kept), out)
        else:
            X.take(rows, axis=0, out=out, mode="clip")


@compiled
def _pick(X: Any, rows: Any, keys: Any, kept: Any, out: Any) -> None:  # noqa: ANN401
    for i in range(len(rows)):
        source, target, key = X[rows[i]], out[i], keys[i]
        for j in range(len(source)):
            h = np.uint32(np.uint32(j) * np.uint32(0x9E3779B9)) ^ key
            h = np.uint32(np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
            h = np.uint32(np.uint32(h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
            h = np.uint32(h ^ (h >> np.uint32(16)))
            target[j] = source[j] if h < kept else np.float32(0)
