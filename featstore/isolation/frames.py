"""How two processes talk: JSON and the bytes of arrays, never a pickle, since one of them has read strange files.

A message is its length, JSON of that length and, one behind the other, the arrays that the JSON announces.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
