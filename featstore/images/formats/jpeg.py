"""JPEG."""

from __future__ import annotations

import re
import struct
from typing import IO, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import HEAD, PillowFormat

_BITS_OF_BYTE = 8
_FILL = 0xFF
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # what libjpeg decodes; the last two are arithmetic
_RARE = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")
_RARE |= {0xC3: "lossless JPEG", 0xCB: "lossless JPEG", 0xF7: "JPEG-LS"}
_SEGMENTS = frozenset({0xC4, 0xC8, 0xCC, *range(0xDB, 0xFF)}) - _RARE.keys()
_END, _SCAN = 0xD9, 0xDA
_ENDS = frozenset({_END, _SCAN})
_CHANNELS = frozenset({1, 3, 4})
_SIZED = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers behind which width and height stand
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAME_WITHIN = 1 << 18
"""Bytes of a JPEG within which its frame begins, whatever cameras put before it."""
_STRAY = re.compile(rb"\xff\xd8([^\xff]{1,64})\xff[\xc0-\xfe]")

MAX_SCANS = 100
"""Most scans of a JPEG: each goes over the whole picture, and ten are usual."""
MAX_SEGMENTS = 1024
"""Most segments in the header of a JPEG: decoders put some of them together, each time anew."""


class Jpeg(PillowFormat):
    """JPEG as libjpeg decodes it: baseline, progressive, arithmetic; 8 bits, in grey, colour or CMYK."""

    name: ClassVar[str] = "JPEG"
    suffixes: ClassVar[tuple[str, ...]] = (".jfif", ".jpe", ".jpeg", ".jpg")
    # Some writers put stray bytes behind the first marker, which decoders of JPEG are told to skip.
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"\xff\xd8(?:\xff|[^\xff]{1,64}\xff[\xc0-\xfe])")
    code: ClassVar[int] = 3
    is_movable: ClassVar[bool] = True

    def strip(self, data: bytes) -> bytes:
        """Take away blanks before the picture, and bytes between the first two markers."""
        data = super().strip(data)
        stray = _STRAY.match(data)
        return data if stray is None else data[:2] + data[stray.end(1) :]

    def check(self, data: bytes) -> None:
        """Look for the end marker: a file cut within its header would else count as damaged, not as cut.

        And look at the frame: what JPEG allows and few decoders know is sound, and no damage.
        """
        if data.rfind(b"\xff\xd9") < 0:
            raise BadImageError("truncated", "The JPEG ends before its end marker.")
        check_scans(data)
        position, segments, is_framed = 2, 0, False
        while (position := data.find(b"\xff", position)) >= 0 and position + 10 < len(data):
            marker = data[position + 1]
            position += 1 if marker == _FILL else 2
            if marker in _ENDS:
                return
            if not is_framed and (marker in _FRAMES or marker in _RARE):
                _check_frame(marker, bits=data[position + 2], channels=data[position + 7])
                is_framed = True
            segments += marker != _FILL
            if segments > MAX_SEGMENTS:
                raise BadImageError(
                    "unsupported",
                    f"The JPEG has more than {MAX_SEGMENTS} segments. Save it anew, or as PNG, first.",
                )
            if marker in _SEGMENTS or marker in _FRAMES:
                position += max(2, int.from_bytes(data[position : position + 2]))

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height of the first frame."""
        data = file.read(HEAD + _FRAME_WITHIN)
        at = 2
        while (at := data.find(b"\xff", at)) >= 0:
            marker = data[at + 1]
            if marker in _SIZED:
                height, width = struct.unpack_from(">HH", data, at + 5)
                return width, height
            if marker == _FILL:
                at += 1
            elif marker in _ALONE:
                at += 2
            else:
                at += 2 + int.from_bytes(data[at + 2 : at + 4])
        return 0, 0


def check_scans(data: bytes) -> None:
    """Refuse a JPEG of more scans than `MAX_SCANS`: a hundred bytes may send a decoder over the whole picture.

    Scans of previews, which lie within the segments of the header, and whatever is behind the end do not count.

    Raises
    ------
    BadImageError
        ``unsupported``.
    """
    if data.count(bytes((_FILL, _SCAN))) <= MAX_SCANS:
        return
    scans, position = 0, 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 3 < len(data):
        marker = data[position + 1]
        position += 1 if marker == _FILL else 2
        if marker == _END:
            return
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise BadImageError(
                "unsupported", f"The JPEG has more than {MAX_SCANS} scans. Save it anew, or as PNG, first."
            )
        if marker in _SEGMENTS or marker == _SCAN:
            position += max(2, int.from_bytes(data[position : position + 2]))


def _check_frame(marker: int, *, bits: int, channels: int) -> None:
    if marker in _RARE:
        what = _RARE[marker]
    elif bits != _BITS_OF_BYTE:
        what = f"{bits}-bit JPEG"
    elif channels not in _CHANNELS:
        what = f"JPEG with {channels} channels"
    else:
        return
    depth = "16-bit PNG" if bits > _BITS_OF_BYTE else "PNG"
    raise BadImageError("unsupported", f"The file is a {what}. Convert it to {depth} first.")
