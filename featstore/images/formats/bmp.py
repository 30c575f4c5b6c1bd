"""BMP."""

from __future__ import annotations

import re
import struct
from typing import IO, ClassVar

from featstore.images.formats.container import HEAD, PillowFormat


class Bmp(PillowFormat):
    """Windows bitmaps."""

    name: ClassVar[str] = "BMP"
    suffixes: ClassVar[tuple[str, ...]] = (".bmp", ".dib")
    # Two letters are too little ("BMW ..."): the size of the second header is one of seven numbers.
    magic: ClassVar[re.Pattern[bytes]] = re.compile(
        rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL
    )
    code: ClassVar[int] = 1

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height from the header; the height is negative where the top row comes first."""
        width, height = struct.unpack_from("<ii", file.read(HEAD), 18)
        return abs(width), abs(height)
