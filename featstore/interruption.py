"""Ctrl-C and SIGTERM, heard also where a library loses them.

Python raises `KeyboardInterrupt` in whatever the first thread is running. Compiled code that calls back into Python,
as TensorFlow's does while it traces a network, drops it now and then or makes an error of its own out of it
(``SystemError: bad argument to internal function``). So the wish is noted as well, and looked up between two steps.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_asked = False


def listen() -> None:
    """Note both signals from now on; Ctrl-C stays ignored where the shell wants it so, as in a background job."""
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Note that an end was asked for, and raise `KeyboardInterrupt`: a handler of signals."""
    global _asked  # noqa: PLW0603  # signals are the process's own
    _asked = True
    raise KeyboardInterrupt


def was_asked() -> bool:
    """Whether a signal has asked for an end."""
    return _asked


def heed() -> None:
    """Raise `KeyboardInterrupt` if a signal has asked for an end and nothing has come of it yet."""
    if _asked:
        raise KeyboardInterrupt
