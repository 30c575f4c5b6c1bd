"""How much memory this process has held at most, measured."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
KIBIBYTE = 1024


def peak_resident() -> int:
    """Peak resident bytes of this program.

    Linux carries ``ru_maxrss`` over fork and exec, so that a program inherits the peak of the one that started it;
    ``VmHWM`` belongs to the memory of this program alone. Where there is no such line, ``ru_maxrss`` is all there is.
    """
    try:
        lines = STATUS.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    own = next((int(line.split()[1]) * KIBIBYTE for line in lines if line.startswith("VmHWM:")), None)
    return _ever() if own is None else own


def _ever() -> int:
    """``ru_maxrss``, which macOS gives in bytes and all others in KiB."""
    unit = 1 if sys.platform == "darwin" else KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
