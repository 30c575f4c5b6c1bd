"""Loops compiled by Numba: where NumPy would sweep an array once per operation."""

from __future__ import annotations

from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compile `loop` when it is first called; whoever trains no network never loads Numba.

    Nothing is kept on disk: Numba's cache is a pickle, and nothing loaded may run code. Division as NumPy does it,
    without a test for zero, and products contracted into additions are what lets the loops use the wide registers.
    """

    @cache
    def program() -> Callable[..., Any]:
        import numba

        return cast(
            "Callable[..., Any]",
            numba.njit(loop, error_model="numpy", fastmath={"contract"}, nogil=True),
        )

    @wraps(loop)
    def run(*arguments: Any) -> Any:  # noqa: ANN401
        return program()(*arguments)

    return cast("Loop", run)
