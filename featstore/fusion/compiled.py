"""Loops compiled by Numba: where NumPy would sweep an array once per operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

    Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compile `loop` when it is first called.

    Nothing is kept on disk: Numba's cache is a pickle, and nothing loaded may run code. Division as NumPy does it,
    without a test for zero, and products contracted into additions are what lets the loops use the wide registers.
    """
    return cast("Loop", numba.njit(loop, error_model="numpy", fastmath={"contract"}, nogil=True))
