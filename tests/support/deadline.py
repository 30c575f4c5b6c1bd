"""Run cases in a child process, each against a clock: a reader that hangs or dies is a failure with a name."""

from __future__ import annotations

import multiprocessing
import resource
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECONDS = 20.0
"""For one case. They take milliseconds; a machine under load takes its time, a hanging reader all of it."""


def outcomes(work: Callable[..., Iterable[object]], *arguments: object, headroom: int | None = None) -> list:
    """Everything that ``work(*arguments)`` yields in a child process, at least one thing in `SECONDS`.

    `work` is a generator function of a module that a fresh interpreter finds. With `headroom`, the child may
    allocate that many bytes and no more.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_report, args=(theirs, work, arguments, headroom))
    child.start()
    theirs.close()
    found: list[object] = []
    try:
        while ours.poll(3 * SECONDS if not found else SECONDS):
            kind, value = ours.recv()
            if kind == "end":
                return found
            assert kind == "case", value
            found.append(value)
        raise AssertionError(f"no answer within {SECONDS:.0f} s after {len(found)} cases: {found[-1:]}")
    except EOFError:
        child.join()
        raise AssertionError(
            f"the reader died ({child.exitcode}) after {len(found)} cases: {found[-1:]}"
        ) from None
    finally:
        child.kill()
        child.join()
        ours.close()


def _report(pipe, work, arguments, headroom):
    try:
        for number, value in enumerate(work(*arguments)):
            if number == 0 and headroom is not None:
                _limit_memory(headroom)
            pipe.send(("case", value))
        pipe.send(("end", None))
    except BaseException:  # noqa: BLE001 - the parent says what it was
        pipe.send(("error", traceback.format_exc()))


def _limit_memory(headroom):
    """From the first case on, which has loaded the libraries."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + headroom, used + headroom))
