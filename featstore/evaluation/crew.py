"""Many small fits at once, on a machine of few cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featstore.child_process import end_with_parent, parentage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def work(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Results of ``function(*call)`` in order, computed by `jobs` processes (-1: one per core).

    Each fit has one BLAS thread. The fits are small: more threads would wait for each other most of the time, and
    with one the last bits of a result do not depend on how many processes there are. The processes end with this one,
    and so does what they share in memory.
    """
    from joblib import Parallel, delayed

    with_this_one = {"initializer": end_with_parent, "initargs": parentage()}
    yield from Parallel(n_jobs=jobs, return_as="generator", **with_this_one)(
        delayed(one_thread)(function, *call) for call in calls
    )


def one_thread(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Return ``function(*arguments)``, computed with one BLAS thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(*arguments)
