"""Inverted dropout whose mask is computed, not stored: a hash of column and key decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.fusion.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = 2**16
SPREAD = 0x9E3779B9


class Dropout:
    """Zeroes each input with probability `rate` and scales the others up (Srivastava et al. 2014).

    The mask of a row is a counter hashed with the row's key (the 32-bit finaliser "lowbias32" of Wellons), which
    vectorises; a stream of random numbers does not. One hash decides two columns.

    Parameters
    ----------
    rate
        0 to below 1, in steps of 2^-16.
    width
        Number of columns.
    rng
        Source of one 32-bit key per row and epoch.
    """

    def __init__(self, rate: float, width: int, rng: np.random.Generator) -> None:
        self.kept = np.uint32(max(LEVELS - round(rate * LEVELS), 1))
        self.gain = LEVELS / float(self.kept)
        self._counter = np.arange((width + 1) // 2, dtype=np.uint32) * np.uint32(SPREAD)
        self._rng = rng

    def keys(self, n_rows: int) -> NDArray[np.uint32]:
        """Keys ``(n_rows,)`` for `pick`."""
        return self._rng.integers(2**32, size=n_rows, dtype=np.uint32)

    def pick(
        self,
        X: NDArray[np.float32],
        rows: NDArray[np.intp],
        keys: NDArray[np.uint32],
        out: NDArray[np.float32],
    ) -> None:
        """Write the rows `rows` of ``X (n, d)``, masked but not scaled up, to ``out (len(rows), d)``."""
        if self.gain > 1:
            _pick(X, rows, keys, self._counter, self.kept, out)
        else:
            X.take(rows, axis=0, out=out, mode="clip")


@compiled
def _pick(X: Any, rows: Any, keys: Any, counter: Any, kept: Any, out: Any) -> None:  # noqa: ANN401
    # The two halves share the middle column where their number is odd.
    half = len(counter)
    offset = X.shape[1] - half
    for i in range(len(rows)):
        left, right = X[rows[i], :half], X[rows[i], offset:]
        left_out, right_out, key = out[i, :half], out[i, offset:], keys[i]
        for j in range(half):
            # Numba widens what two 32-bit numbers make; casting every step back is what keeps the registers full.
            h = np.uint32(counter[j] ^ key)
            h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(16))) * np.uint32(0x7FEB352D))
            h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(15))) * np.uint32(0x846CA68B))
            h = np.uint32(h ^ np.uint32(h >> np.uint32(16)))
            left_out[j] = left[j] if np.uint32(h & np.uint32(0xFFFF)) < kept else np.float32(0)
            right_out[j] = right[j] if np.uint32(h >> np.uint32(16)) < kept else np.float32(0)
