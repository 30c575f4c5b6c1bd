"""The numbers that TensorFlow draws for seeded weights, without TensorFlow.

Whoever asks for ``random:0`` gets the same network on every engine. Keras asks its backend for random numbers, and
each backend has a generator of its own; these are TensorFlow's ``tf.random.stateless_*`` on a CPU: Philox 4x32 with
ten rounds (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), keyed by the seed as TensorFlow
scrambles it. Uniform numbers are equal to the bit; normal ones to the rounding of sine, cosine and logarithm.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Words = NDArray[np.uint32]
    Floats = NDArray[np.float32]

_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_SCRAMBLE: Final = (0x3EC8F720, 0x02461E29)
_ROUNDS: Final = 10
_GROUP: Final = 4
"""Numbers of one call of Philox, and of one group of TensorFlow's output."""
_SKIP: Final = 256
"""Calls that TensorFlow sets aside for each group of truncated normal numbers."""
_LIMIT: Final = 2.0
"""Standard deviations at which they are cut off."""
_FIRST: Final = 6
"""Calls that are computed for every group at first: few groups need more."""
_AT_ONCE: Final = 1 << 18
"""Groups that are computed at once; bounds memory."""


def uniform(shape: Sequence[int], minval: float, maxval: float, seed: int) -> Floats:
    """Float32 numbers in [minval, maxval), those of ``tf.random.stateless_uniform`` for ``(seed, 0)``."""
    low, high = np.float32(minval), np.float32(maxval)
    return _unit_interval(_stream(math.prod(shape), seed)).reshape(shape) * (high - low) + low


def normal(shape: Sequence[int], mean: float, stddev: float, seed: int) -> Floats:
    """Float32 normal numbers, those of ``tf.random.stateless_normal`` but for rounding."""
    count = math.prod(shape)
    words = _stream(count + count % 2, seed).reshape(-1, 2)
    return _box_muller(words).ravel()[:count].reshape(shape) * np.float32(stddev) + np.float32(mean)


def truncated_normal(shape: Sequence[int], mean: float, stddev: float, seed: int) -> Floats:
    """Float32 normal numbers within two deviations: ``tf.random.stateless_truncated_normal`` but for rounding."""
    count = math.prod(shape)
    groups = -(-count // _GROUP)
    parts = [
        _truncated(np.arange(start, min(start + _AT_ONCE, groups), dtype=np.uint64), seed)
        for start in range(0, groups, _AT_ONCE)
    ]
    drawn = np.concatenate(parts).ravel()[:count] if parts else np.zeros(0, np.float32)
    return drawn.reshape(shape) * np.float32(stddev) + np.float32(mean)


@contextlib.contextmanager
def drawn_like_tensorflow(random: Any) -> Iterator[None]:  # noqa: ANN401
    """Have the initialisers of Keras draw these numbers, whatever its backend.

    Parameters
    ----------
    random
        The module ``random`` of Keras' backend.
    """

    def drawing(draw: Any, first: str, second: str, defaults: tuple[float, float]) -> Any:  # noqa: ANN401
        def drawn(shape: Sequence[int], *given: float, dtype: Any = None, seed: int, **named: float) -> Any:  # noqa: ANN401
            values = dict(zip((first, second), defaults, strict=True)) | named
            values |= dict(zip((first, second), given, strict=False))
            return draw(shape, values[first], values[second], seed).astype(dtype or np.float32)

        return drawn

    with (
        mock.patch.object(random, "uniform", drawing(uniform, "minval", "maxval", (0.0, 1.0))),
        mock.patch.object(random, "normal", drawing(normal, "mean", "stddev", (0.0, 1.0))),
        mock.patch.object(
            random, "truncated_normal", drawing(truncated_normal, "mean", "stddev", (0.0, 1.0))
        ),
    ):
        yield


def _stream(count: int, seed: int) -> Words:
    """So many words, in order."""
    key, high = _key_of(seed)
    calls = -(-count // _GROUP)
    words = np.empty((calls, _GROUP), np.uint32)
    for start in range(0, calls, _AT_ONCE):
        counters = np.arange(start, min(start + _AT_ONCE, calls), dtype=np.uint64)
        words[start : start + len(counters)] = _philox(counters, high, key)
    return words.ravel()[:count]


def _key_of(seed: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Key, and upper half of the counter, that TensorFlow makes of a seed."""
    word = seed & 0xFFFFFFFFFFFFFFFF
    mixed = _philox(np.array([word], np.uint64), (0, 0), _SCRAMBLE)[0].tolist()
    return (mixed[0], mixed[1]), (mixed[2], mixed[3])


def _philox(low: NDArray[np.uint64], high: tuple[int, int], key: tuple[int, int]) -> Words:
    """One call for each counter, whose lower half is `low`: ``(len(low), 4)``."""
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1 = (low & mask).astype(np.uint32), (low >> shift).astype(np.uint32)
    c2, c3 = (np.full(low.shape, word, np.uint32) for word in high)
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    with np.errstate(over="ignore"):
        for _ in range(_ROUNDS):
            one, other = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
            c0, c1, c2, c3 = (
                (other >> shift).astype(np.uint32) ^ c1 ^ k0,
                (other & mask).astype(np.uint32),
                (one >> shift).astype(np.uint32) ^ c3 ^ k1,
                (one & mask).astype(np.uint32),
            )
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return np.stack([c0, c1, c2, c3], axis=1)


def _unit_interval(words: Words) -> Floats:
    """[0, 1) from the 23 lower bits."""
    bits = (words & np.uint32(0x7FFFFF)) | np.uint32(127 << 23)
    return bits.view(np.float32) - np.float32(1)


def _box_muller(words: Words) -> Floats:
    """Two normal numbers from each pair of words (Box & Muller, 1958)."""
    uniform = _unit_interval(words)
    angle = np.float32(2 * np.pi) * uniform[..., 1]
    radius = np.sqrt(np.float32(-2) * np.log(np.maximum(uniform[..., 0], np.float32(1e-7))))
    return np.stack([np.sin(angle) * radius, np.cos(angle) * radius], axis=-1)


def _truncated(groups: NDArray[np.uint64], seed: int, calls: int = _FIRST) -> Floats:
    """The first four numbers of each group that are near enough: ``(len(groups), 4)``."""
    key, high = _key_of(seed)
    first_of_group, call = groups[:, None] * np.uint64(_SKIP), np.arange(calls, dtype=np.uint64)
    counters = np.add(first_of_group, call, dtype=np.uint64)
    words = _philox(counters.ravel(), high, key).reshape(len(groups), -1, 2)
    normals = _box_muller(words).reshape(len(groups), -1)
    near = np.abs(normals) < _LIMIT
    first = np.argsort(~near, axis=1, kind="stable")[:, :_GROUP]
    drawn = np.take_along_axis(normals, first, axis=1)
    short = np.flatnonzero(near.sum(axis=1) < _GROUP)
    if len(short):
        drawn[short] = _truncated(groups[short], seed, 4 * calls)
    return drawn
