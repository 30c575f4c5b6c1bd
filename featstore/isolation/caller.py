"""Ask another process what is in a file. It starts when first needed, stays, and is replaced if it dies.

What it died of is told in one line: a signal, time, memory. Threads that ask at the same time have a process each.
"""

from __future__ import annotations

import atexit
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from featstore import errors
from featstore.isolation import frames

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PATIENCE, BYTES_PER_SECOND = 120.0, 1 << 18
"""Seconds that an answer may take: so many, and one for so many bytes of the file."""
ANSWER = 32 << 30
TOO_LONG = "reading it takes longer than a file of its size may"
START = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from featstore.isolation.server import serve; serve(int(sys.argv[1]))"
)
"""The path of modules is that of this process, so that nothing in the working folder is taken for a module."""
ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve more than they use
    "HDF5_PLUGIN_PRELOAD": "::",  # no file may name code to load
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class LostError(Exception):
    """The process that read a file ended on it; the text says of what, and no more than that.

    Attributes
    ----------
    again
        Whether it may have died of a file that it read before, so that a new process should try.
    """

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


def call(work: str, path: Path, *arguments: Any) -> tuple[Any, list[NDArray[Any]]]:  # noqa: ANN401
    """Let another process read a file.

    Parameters
    ----------
    work
        ``module:function``, which takes the path and the arguments, and returns what JSON can hold and a list of
        arrays. Named by text, since it is never called here.
    path
        The file; the limits on memory and time go by its size.
    *arguments
        What JSON can hold.

    Raises
    ------
    LostError
        If the process ends on this file, or takes longer or more memory than a file of this size may.
    FeatstoreError, OSError
        What `work` raises.
    """
    if os.name == "nt":  # which cannot hand a socket to a process
        return pkgutil.resolve_name(work)(path, *arguments)  # type: ignore[no-any-return]
    question = [os.getcwd(), work, os.fspath(path), arguments]  # noqa: PTH109 - text, as the path is
    try:
        page, arrays = _asked(question, _size(path))
    except LostError as error:
        if not error.again:
            raise
        page, arrays = _asked(question, _size(path), anew=True)
    return _value(page), arrays


def _asked(question: object, size: int, *, anew: bool = False) -> tuple[Any, list[NDArray[Any]]]:
    server = _taker(question, anew=anew)
    try:
        page, arrays = server.answer(size)
    except BaseException:
        server.end()
        raise
    if isinstance(page, dict) and page.get("last"):
        server.end()
    else:
        with _lock:
            _idle.append(server)
    return page, arrays


def _taker(question: object, *, anew: bool) -> _Server:
    """A process that has taken the question: one that waits for it, if it still does, else a new one."""
    while True:
        with _lock:
            waiting = _idle.pop() if _idle and not anew else None
        try:
            server = waiting or _Server()
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        if server.takes(question):
            return server
        server.end()
        if waiting is None:
            raise _not_started("it ended at once")


def _not_started(why: str) -> errors.FeatstoreError:
    return errors.WorkerLostError(
        f"The process that reads files from elsewhere does not start: {why}.",
        "Run the same command again when this machine has memory and processes to spare.",
    )


def _value(page: dict[str, Any]) -> Any:  # noqa: ANN401
    match page:
        case {"value": value}:
            return value
        case {"error": str() as name, "lines": [str() as cause, str() as remedy]} if name.endswith("Error"):
            raise getattr(errors, name)(cause, remedy)
        case {"errno": number, "strerror": why}:
            raise OSError(number, why)
        case {"lost": why}:
            raise LostError(why)
    raise RuntimeError(f"the process that reads files failed: {page}")


def _size(path: Path) -> int:
    with suppress(OSError, ValueError):
        return path.stat().st_size
    return 0


class _Server:
    """A process that answers."""

    def __init__(self) -> None:
        self._answers = 0
        self._channel, theirs = socket.socketpair()
        with theirs:
            path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with this very text
                [sys.executable, "-c", START, str(theirs.fileno()), *path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
            )

    def takes(self, question: object) -> bool:
        """Whether it begins with a question; a process that had nothing to do for long has ended."""
        self._channel.settimeout(PATIENCE)
        try:
            frames.send(self._channel, question)
            return frames.receive(self._channel, 0) == ("begun", [])
        except (frames.FrameError, OSError):
            return False

    def answer(self, size: int) -> tuple[Any, list[NDArray[Any]]]:
        """Wait for the answer about a file of `size` bytes; `LostError` if there is none."""
        self._channel.settimeout(PATIENCE + size / BYTES_PER_SECOND)
        try:
            page, arrays = frames.receive(self._channel, ANSWER)
        except (frames.FrameError, OSError) as error:
            raise self._lost(error) from error
        self._answers += 1
        return page, arrays

    def _lost(self, error: Exception) -> LostError:
        if isinstance(error, TimeoutError):
            return LostError(TOO_LONG)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return LostError(TOO_LONG)
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return LostError(f"the library that reads it dies of it ({name})", again=self._answers > 0)

    def end(self) -> None:
        """Stop it at once."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def disown(self) -> None:
        """Leave it to the process that started it: this one is a fork of that one."""
        self._channel.close()
        self._process.returncode = 0  # else it would be waited for


_lock = threading.Lock()
_idle: list[_Server] = []


def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()


def _disown_all() -> None:
    global _lock  # noqa: PLW0603 - a thread that is not here may hold it
    _lock = threading.Lock()
    while _idle:
        _idle.pop().disown()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
