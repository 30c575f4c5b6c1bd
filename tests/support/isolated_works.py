"""What a process that reads files is asked to do by the tests of it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from featstore.errors import RefusedFileError, UsageError

Answer = tuple[object, list[object]]


def die(path: Path, number: int = signal.SIGSEGV) -> Answer:
    """As a defect of a library ends a process."""
    os.kill(os.getpid(), number)
    raise AssertionError


def die_after_another(path: Path) -> Answer:
    """Die if this process has read a file before, as one whose memory that file has spoilt."""
    if path.name in sys.modules:
        die(path)
    sys.modules[path.name] = sys
    return os.getpid(), []


def swallow(path: Path) -> Answer:
    """Ask for more memory than any small file deserves."""
    import numpy as np

    return 0, [np.ones(2 << 30, "u1")]


def told(path: Path) -> Answer:
    """Process, folder, name, and limits on memory and time."""
    limits = [
        resource.getrlimit(kind)[0]
        for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_CORE)
    ]
    return {"pid": os.getpid(), "folder": str(Path.cwd()), "name": str(path), "limits": limits}, []


def twice(path: Path, names: list[str]) -> Answer:
    """Arrays of all kinds, and what was asked."""
    import numpy as np

    os.write(1, b"noise for stdout")
    os.write(2, b"noise for stderr")
    arrays = [np.arange(6.0).reshape(2, 3).T, np.array([b"ab", b"c"]), np.array(True), np.empty((0, 4), "f4")]
    return [names, "\udcff"], arrays


def refuse(path: Path, kind: str) -> Answer:
    """Raise."""
    if kind == "stumble":
        import h5py

        try:
            h5py.h5f.open(b"/absent/x.h5")
        except OSError as error:
            raise RefusedFileError("cause", "remedy") from error
    if kind == "refuse":
        try:
            int("x")
        except ValueError as error:
            raise RefusedFileError("cause", "remedy") from error
    raise (
        UsageError("cause", "remedy") if kind == "usage" else FileNotFoundError(2, "No such file", str(path))
    )
