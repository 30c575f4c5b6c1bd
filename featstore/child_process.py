"""A process that ends with the one that started it, however that ends, as after kill -9: nobody takes its answer."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
SECONDS = 0.5
"""Between two looks at the parent."""


def parentage() -> tuple[int, bool]:
    """What `end_with_parent` takes in the child: this process, and whether the thread that starts the child stays.

    Linux ends a child with the thread that started it, and of threads only the first is sure to stay.
    """
    return os.getpid(), threading.current_thread() is threading.main_thread()


def end_with_parent(parent: int, thread_stays: bool) -> None:  # as `parentage` gives it
    """See to it, in a child, that it ends with its parent, and at once if that is gone already.

    Linux does it whatever the child is busy with. Elsewhere, and for a child of a passing thread, another thread of
    the child watches, which has to wait where a library holds Python's lock.
    """
    if thread_stays and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS)
    os._exit(1)
