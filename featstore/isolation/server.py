"""The process that reads: does what it is asked, one file after the other, each with limits on memory and time."""

from __future__ import annotations

import math
import os
import pkgutil
import select
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from featstore.errors import FeatstoreError
from featstore.isolation import frames

IDLE = 10.0
"""Seconds without a question after which the process ends; the next question starts another."""
MEMORY, MEMORY_PER_BYTE = 256 << 20, 128
"""Bytes that reading a file may take: so many, and so many for each byte of it."""
SECONDS, BYTES_PER_SECOND = 10, 1 << 20
"""Seconds of computing that it may take: so many, and one for so many bytes."""


def serve(descriptor: int) -> None:
    """Answer until nobody asks, or the process that asked is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all of a terminal, and is for the parent to answer
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # a library that dies says so at length
        os.dup2(nowhere, stream)
    with socket.socket(fileno=descriptor) as channel, suppress(frames.FrameError, OSError):
        while select.select([channel], [], [], IDLE)[0]:
            (folder, work, path, arguments), _ = frames.receive(channel, 0)
            frames.send(channel, "begun")
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
        frames.send(channel, {"error": type(error).__name__, "lines": lines, "last": stumbled})
        return not stumbled
    except MemoryError:
        frames.send(channel, {"lost": "it takes more memory than a file of its size may"})
    except OSError as error:
        frames.send(channel, {"errno": error.errno, "strerror": error.strerror or str(error)})
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for the parent to say
        frames.send(channel, {"defect": f"{type(error).__name__}: {error}"})
    else:
        frames.send(channel, {"value": page}, arrays)
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
        _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + SECONDS + size / BYTES_PER_SECOND))


def _lower(kind: int, limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
