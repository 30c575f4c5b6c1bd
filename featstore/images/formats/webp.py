"""WebP."""

from __future__ import annotations

import re
import struct
from typing import IO, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import WEBP, PillowFormat, check_canvas


class Webp(PillowFormat):
    """WebP; of several frames the first, with the note ``frames``."""

    name: ClassVar[str] = "WEBP"
    suffixes: ClassVar[tuple[str, ...]] = (".webp",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"RIFF.{4}WEBP", re.DOTALL)
    code: ClassVar[int] = 7
    is_movable: ClassVar[bool] = True

    def check(self, data: bytes) -> None:
        """Refuse a file that is cut short, and a canvas that nobody has."""
        (size,) = struct.unpack_from("<I", data, 4)
        if size + 8 > len(data):
            raise BadImageError("truncated", f"The WebP has {len(data)} of {size + 8} bytes.")
        kind = data[12:16]
        if kind == b"VP8X":
            extent = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", data, 21)[0]
            extent = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            extent = width & 0x3FFF, height & 0x3FFF
        else:
            raise BadImageError("corrupt", f"The WebP begins with chunk {kind!r}.")
        check_canvas(*extent)

    def bytes_per_pixel(self, file: IO[bytes]) -> float:  # noqa: ARG002
        """Bytes of memory per pixel; libwebp decodes all of it beside the picture."""
        return WEBP
