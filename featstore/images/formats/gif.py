"""GIF: the first frame."""

from __future__ import annotations

import re
import struct
from typing import IO, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import HEAD, PillowFormat, check_canvas

_EXTENSION, _FRAME = 0x21, 0x2C


class Gif(PillowFormat):
    """GIF; of several frames the first, with the note ``frames``."""

    name: ClassVar[str] = "GIF"
    suffixes: ClassVar[tuple[str, ...]] = (".gif",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"GIF8[79]a")
    code: ClassVar[int] = 2
    is_movable: ClassVar[bool] = True

    def check(self, data: bytes) -> None:
        """Walk to the first frame: it may be larger than the screen that the header declares."""
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        position = 13 + _palette(flags)
        while data[position] == _EXTENSION:
            position += 2
            while data[position]:
                position += 1 + data[position]
            position += 1
        if data[position] != _FRAME:
            raise BadImageError("corrupt", "The GIF holds no frame.")
        left, top, columns, rows = struct.unpack_from("<4H", data, position + 1)
        check_canvas(max(width, left + columns), max(height, top + rows))

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height of the screen."""
        width, height = struct.unpack_from("<HH", file.read(HEAD), 6)
        return width, height


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
