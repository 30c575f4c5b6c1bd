"""AVIF: a picture of AV1 in boxes, 8 bits a channel; read by Pillow where it was built with libavif."""

from __future__ import annotations

import re
import struct
from typing import IO, TYPE_CHECKING, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import PillowFormat, check_canvas

if TYPE_CHECKING:
    from collections.abc import Iterator


class Avif(PillowFormat):
    """AVIF; of a sequence the first picture, with the note ``frames``."""

    name: ClassVar[str] = "AVIF"
    suffixes: ClassVar[tuple[str, ...]] = (".avif",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(
        rb"\x00\x00[\x00-\x01].ftyp(?:avi[fs]|(?:mif1|msf1).{4}(?:.{4}){0,8}?avi[fs])", re.DOTALL
    )
    code: ClassVar[int] = 14

    def check(self, data: bytes) -> None:
        """Refuse a file that is cut short, a canvas that nobody has, and depths that Pillow would change."""
        meta = None
        for kind, content in boxes(data):
            meta = content if kind == b"meta" and meta is None else meta
        if meta is None:
            raise BadImageError("truncated", "The AVIF ends before it says where its picture is.")
        for kind, content in _properties(meta[4:]):
            if kind == b"ispe":
                check_canvas(*struct.unpack_from(">II", content, 4))
            if kind == b"av1C" and content[2] & _DEEP:
                raise BadImageError(
                    "unsupported",
                    "AVIF of 10 or 12 bits, which would lose the lowest: save it as 16-bit PNG (avifdec -d 16 FILE"
                    " FILE.png).",
                )
        _require_libavif()

    def bytes_per_pixel(self, file: IO[bytes]) -> float:  # noqa: ARG002
        """Bytes of memory per pixel, measured with pictures of 12 megapixels, transparency included."""
        return BYTES_PER_PIXEL


BYTES_PER_PIXEL = 18
_DEEP = 0x40
"""Bit that says more than 8 bits, in the third byte of the settings of AV1."""
_CONTAINERS = (b"iprp", b"ipco")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box; `struct.error` counts as ``truncated``.

    Raises
    ------
    BadImageError
        ``truncated``, ``corrupt``.
    """
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = size or len(data) - at
        if size < head:
            raise BadImageError("corrupt", "The file has a box of no length.")
        if at + size > len(data):
            raise BadImageError("truncated", f"The file has {len(data)} of {at + size} bytes.")
        yield kind, data[at + head : at + size]
        at += size


def _properties(meta: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Properties of the pictures."""
    for kind, content in boxes(meta):
        if kind in _CONTAINERS:
            yield from _properties(content)
        else:
            yield kind, content


def _require_libavif() -> None:
    from PIL import features

    if not features.check("avif"):
        raise BadImageError(
            "needs_package",
            "AVIF needs Pillow 11.3 or later, built with libavif: pip install 'pillow>=11.3'; or convert it to PNG.",
        )
