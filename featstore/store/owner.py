"""Which process something belongs to, and whether that process is still there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")
STATE, START = 0, 19
"""Fields of ``/proc/PID/stat`` behind the name: state, and time of start in ticks since boot."""
ENDED = {"Z", "X"}


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that no other process in the world has the same name.

    Attributes
    ----------
    host
        Name of the machine, its boot and its PID namespace: containers share names, and reboots reuse PIDs.
    pid
        Process number on that host.
    start
        When the process began, in ticks since the host's boot; no clock that can be set. -1 where it is not known.
    """

    host: str
    pid: int
    start: int


def this_process() -> Owner:
    """Return the owner of what this process does."""
    return Owner(_host(), os.getpid(), _start(os.getpid()) or -1)


def is_gone(owner: Owner) -> bool | None:
    """Whether a process has ended; None where this process cannot know: on another host, or without ``/proc``."""
    if owner.host != _host():
        return None
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process
        pass
    start = _start(owner.pid)
    return None if start is None or owner.start < 0 else start != owner.start


@cache
def _host() -> str:
    parts = [socket.gethostname()]
    try:
        parts += [(PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()]
        parts += [str((PROC / "self/ns/pid").readlink())]
    except OSError:  # not Linux: the name has to do
        pass
    return " ".join(parts)


def _start(pid: int) -> int | None:
    """Ticks from boot to the start of a process; 0 for a zombie, None where nothing can be read."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return 0 if fields[STATE] in ENDED else int(fields[START])
