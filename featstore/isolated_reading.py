"""Foreign files are read in a process of their own: a defect of a library there costs one file, not the run.

The process starts when first needed, stays, and is replaced if it dies. What it died of is told in one line: a
signal, time, memory. Threads that ask at the same time have a process each.

Both talk in JSON and the bytes of arrays, never a pickle, since one of them has read strange files. A message is its
length, JSON of that length and, one behind the other, the arrays that the JSON announces.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore import errors
from featstore.errors import FeatstoreError
from featstore.processes import end_with_parent, parent_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


# The process that asks

TIMEOUT_SECONDS, BYTES_PER_SECOND = 120.0, 1 << 18
"""Seconds that an answer may take: so many, and one for so many bytes of the file."""
ANSWER = 32 << 30
TOO_LONG = "reading it takes longer than a file of its size may"
START = (
    "import sys; number, parent, stays, *sys.path = sys.argv[1:]; "
    "from featstore.isolated_reading import serve; serve(int(number), int(parent), stays == 'True')"
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


def call_isolated(work: str, path: Path, *arguments: Any) -> tuple[Any, list[NDArray[Any]]]:  # noqa: ANN401
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
    question = [_folder(), work, os.fspath(path), arguments]
    try:
        page, arrays = _asked(question, _size(path))
    except LostError as error:
        if not error.again:
            raise
        page, arrays = _asked(question, _size(path), anew=True)
    return _value(page), arrays


def _asked(question: object, size: int, *, anew: bool = False) -> tuple[Any, list[NDArray[Any]]]:
    server = _server_for(question, anew=anew)
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


def _server_for(question: object, *, anew: bool) -> _Server:
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


def _folder() -> str:
    """The working folder, to which relative paths belong; it may be gone."""
    try:
        return os.getcwd()  # noqa: PTH109 - text, as the paths are
    except OSError:
        return os.sep


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
            path = [entry or _folder() for entry in sys.path]
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with this very text
                [sys.executable, "-c", START, str(theirs.fileno()), *map(str, parent_info()), *path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
            )

    def takes(self, question: object) -> bool:
        """Whether it begins with a question; a process that had nothing to do for long has ended."""
        self._channel.settimeout(TIMEOUT_SECONDS)
        try:
            send(self._channel, question)
            return receive(self._channel, 0) == ("begun", [])
        except (FrameError, OSError):
            return False

    def answer(self, size: int) -> tuple[Any, list[NDArray[Any]]]:
        """Wait for the answer about a file of `size` bytes; `LostError` if there is none."""
        self._channel.settimeout(TIMEOUT_SECONDS + size / BYTES_PER_SECOND)
        try:
            page, arrays = receive(self._channel, ANSWER)
        except (FrameError, OSError) as error:
            raise self._lost(error) from error
        self._answers += 1
        return page, arrays

    def _lost(self, error: Exception) -> LostError:
        if isinstance(error, TimeoutError):
            return LostError(TOO_LONG)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(TIMEOUT_SECONDS)
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


# The process that reads: one file after the other, each with limits on memory and time

IDLE = 10.0
"""Seconds without a question after which the process ends; the next question starts another."""
MEMORY, MEMORY_PER_BYTE = 256 << 20, 128
"""Bytes that reading a file may take: so many, and so many for each byte of it."""
SECONDS, BYTES_PER_COMPUTED_SECOND = 10, 1 << 20
"""Seconds of computing that it may take: so many, and one for so many bytes."""


def serve(descriptor: int, parent: int, thread_stays: bool) -> None:
    """Answer until nobody asks, or the process that asked is gone: see `featstore.processes.end_with_parent`."""
    end_with_parent(parent, thread_stays)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all of a terminal, and is for the parent to answer
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # a library that dies says so at length
        os.dup2(nowhere, stream)
    with socket.socket(fileno=descriptor) as channel, suppress(FrameError, OSError):
        while select.select([channel], [], [], IDLE)[0]:
            (folder, work, path, arguments), _ = receive(channel, 0)
            send(channel, "begun")
            with suppress(OSError):
                os.chdir(folder)
            _limit(path)
            if not _answer(channel, work, path, arguments):
                return


def _answer(channel: socket.socket, work: str, path: str, arguments: list[Any]) -> bool:
    """Whether the next file may be read here: where a library stumbled, its memory may be anything."""
    try:
        page, arrays = pkgutil.resolve_name(work)(Path(path), *arguments)
    except FeatstoreError as error:
        stumbled = _is_of_a_library(error.__cause__)
        lines = [error.cause, error.remedy]
        send(channel, {"error": type(error).__name__, "lines": lines, "last": stumbled})
        return not stumbled
    except MemoryError:
        send(channel, {"lost": "it takes more memory than a file of its size may"})
    except OSError as error:
        send(channel, {"errno": error.errno, "strerror": error.strerror or str(error)})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for the parent to say
        send(channel, {"defect": f"{type(error).__name__}: {error}"})
    else:
        send(channel, {"value": page}, arrays)
    return True


def _is_of_a_library(error: BaseException | None) -> bool:
    """Whether compiled code raised it; what Python code refuses, it has refused in time."""
    last = error.__traceback__ if error is not None else None
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and not last.tb_frame.f_code.co_filename.endswith(".py")


def _limit(path: str) -> None:
    """Bound what the next file may take, by its size; the parent keeps the time where there are none."""
    size = 0
    with suppress(OSError, ValueError):
        size = Path(path).stat().st_size
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
        _lower(resource.RLIMIT_DATA, used + MEMORY + MEMORY_PER_BYTE * size)
    with suppress(ImportError, OSError, ValueError):
        import resource

        _lower(resource.RLIMIT_CORE, 0)
        _lower(
            resource.RLIMIT_CPU, math.ceil(time.process_time() + SECONDS + size / BYTES_PER_COMPUTED_SECOND)
        )


def _lower(kind: int, limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


# Messages between both

LENGTH = 8
LONGEST = 1 << 30
"""Bytes of JSON: names of rows and columns at the most."""
KINDS = "biufS"


class FrameError(Exception):
    """The other side is gone, or says what it must not."""


def send(channel: socket.socket, page: object, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Send a message."""
    described = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    text = json.dumps([page, described]).encode()
    channel.sendall(len(text).to_bytes(LENGTH, "little") + text)
    for array in arrays:
        if array.size:
            channel.sendall(array.reshape(-1).view("u1").data)


def receive(channel: socket.socket, most: int) -> tuple[Any, list[NDArray[Any]]]:
    """Wait for a message whose arrays have at most so many bytes.

    Raises
    ------
    FrameError
        If there is none, or none such.
    TimeoutError
        If the channel has a timeout, and it is over.
    """
    length = int.from_bytes(_exactly(channel, LENGTH), "little")
    if length > LONGEST:
        raise FrameError(f"a message of {length:,} bytes")
    try:
        page, described = json.loads(_exactly(channel, length))
        return page, _arrays(channel, described, most)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FrameError(f"a message that is none: {error}") from error


def _arrays(channel: socket.socket, described: Sequence[dict[str, Any]], most: int) -> list[NDArray[Any]]:
    if not described:
        return []
    import numpy as np

    arrays = []
    for about in described:
        dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
        most -= math.prod(shape) * dtype.itemsize
        if dtype.kind not in KINDS or min(shape, default=0) < 0 or most < 0:
            raise FrameError("an array that is larger than it may be")
        array = np.empty(shape, dtype)
        if array.size:
            _fill(channel, array.reshape(-1).view("u1").data)
        arrays.append(array)
    return arrays


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    _fill(channel, memoryview(data))
    return bytes(data)


def _fill(channel: socket.socket, into: memoryview) -> None:
    while into:
        count = channel.recv_into(into)
        if not count:
            raise FrameError("the other side is gone")
        into = into[count:]
