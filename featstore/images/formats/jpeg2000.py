"""JPEG 2000: a file of boxes (``.jp2``) or a bare codestream (``.j2k``), grey and colour of 8 bits, grey of 16."""

from __future__ import annotations

import re
import struct
from typing import IO, Any, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import PillowFormat, check_canvas


class Jpeg2000(PillowFormat):
    """JPEG 2000, as slide scanners, archives and some collections of radiographs write it."""

    name: ClassVar[str] = "JPEG2000"
    suffixes: ClassVar[tuple[str, ...]] = (".jp2", ".j2k", ".j2c", ".jpx")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")
    code: ClassVar[int] = 13

    def check(self, data: bytes) -> None:
        """Refuse a file that is cut short, a canvas that nobody has, and depths that Pillow would change."""
        stream = codestream(data)
        if stream[:4] != _START:
            raise BadImageError("corrupt", "The JPEG 2000 has no picture where it should begin.")
        if stream[-2:] != _END:
            raise BadImageError("truncated", "The JPEG 2000 ends within its picture.")
        right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
        (count,) = struct.unpack_from(">H", stream, 40)
        if right <= left or bottom <= top or not count:
            raise BadImageError("corrupt", "The header of the JPEG 2000 announces no picture.")
        check_canvas(right - left, bottom - top)
        depths = {struct.unpack_from(">BBB", stream, 42 + 3 * part) for part in range(min(count, _PARTS))}
        allowed = {7, 15} if count == 1 else {7}
        if count >= _PARTS or not {depth for depth, _, _ in depths} <= allowed:
            raise BadImageError(
                "unsupported",
                "JPEG 2000 of a depth that is neither 8 bits, nor 16 bits of grey: save it as TIFF (opj_decompress -i"
                " FILE -o FILE.tif).",
            )

    def needs_range(self, data: bytes, frame: int, index: Any = None) -> bool:  # noqa: ANN401, ARG002
        """Whether it is grey of 16 bits."""
        try:
            return struct.unpack_from(">HB", codestream(data), 40) == (1, 15)
        except struct.error:
            return False

    def bytes_per_pixel(self, file: IO[bytes]) -> float:  # noqa: ARG002
        """Bytes of memory per pixel: OpenJPEG keeps each channel as 32 bits, twice."""
        return _BYTES_PER_PIXEL


_START, _END = b"\xff\x4f\xff\x51", b"\xff\xd9"
_PARTS = 5
"""Channels from which on it is no picture of grey or colour, with or without transparency."""
_BYTES_PER_PIXEL = 40


def codestream(data: bytes) -> bytes:
    """The picture within a file: all of a bare codestream, or the box that holds it.

    Raises
    ------
    BadImageError
        ``truncated`` or ``corrupt``; `struct.error` counts as ``truncated``.
    """
    if data.startswith(_START):
        return data
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = size or len(data) - at
        if at + size > len(data):
            raise BadImageError("truncated", f"The JPEG 2000 has {len(data)} of {at + size} bytes.")
        if size < head:
            raise BadImageError("corrupt", "The JPEG 2000 has a box of no length.")
        if kind == b"jp2c":
            return data[at + head : at + size]
        at += size
    raise BadImageError("truncated", "The JPEG 2000 ends before its picture.")
