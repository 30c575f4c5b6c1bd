"""What the container promises, checked before a decoder allocates or forgives anything."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from featstore.errors import BadImageError

if TYPE_CHECKING:
    from collections.abc import Callable

_GIF_EXTENSION, _GIF_FRAME = 0x21, 0x2C
_BITS_OF_BYTE = 8
_FILL = 0xFF
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # what libjpeg decodes; the last two are arithmetic
_JPEG_RARE = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")
_JPEG_RARE |= {0xC3: "lossless JPEG", 0xCB: "lossless JPEG", 0xF7: "JPEG-LS"}
_JPEG_SEGMENTS = frozenset({0xC4, 0xC8, 0xCC, *range(0xDB, 0xFF)}) - _JPEG_RARE.keys()
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_ENDS = frozenset({_JPEG_END, _JPEG_SCAN})
_JPEG_CHANNELS = frozenset({1, 3, 4})

MAX_PIXELS = 64_000_000
"""Largest image that is decoded, in pixels."""
MAX_BYTES = 1 << 30
"""Largest file that is read, in bytes."""
MAX_PAGES = 4096
"""Most pages that a file may have."""
MAX_SCANS = 100
"""Most scans of a JPEG: each goes over the whole picture, and ten are usual."""
MAX_SEGMENTS = 1024
"""Most segments in the header of a JPEG: decoders put some of them together, each time anew."""
MIN_SIDE = 8
"""Smallest side that is decoded, in pixels."""
MAX_ASPECT = 20
"""Largest ratio of the sides that is decoded."""


def check_structure(kind: str, data: bytes) -> None:
    """Refuse a file that is cut short or damaged, where the format allows telling.

    Pillow skips the checksums of PNG pixel data, and it allocates the canvas of a GIF or WebP while it opens
    the file; hence this look before.

    Parameters
    ----------
    kind
        Format, as `featstore.images.signature.identify` names it.
    data
        The whole file.

    Raises
    ------
    BadImageError
        ``truncated``, ``corrupt``, ``too_large`` or ``unsupported``.
    """
    check = _CHECKS.get(kind)
    if check is None:
        return
    try:
        check(data)
    except (struct.error, IndexError) as error:
        raise BadImageError("truncated", f"The {kind} ends within its header.") from error


def check_length(size: int) -> None:
    """Refuse a file that nobody can want read: one of a terabyte, all hole, is made in no time.

    Raises
    ------
    BadImageError
        ``too_large``.
    """
    if size > MAX_BYTES:
        raise BadImageError("too_large", f"The file has {size:,} bytes, more than {MAX_BYTES:,}.")


def check_size(width: int, height: int) -> None:
    """Refuse what no camera and no scanner makes: bombs, lines and dots.

    Raises
    ------
    BadImageError
        ``too_large``, ``aspect`` or ``too_small``.
    """
    size = f"{width} x {height} pixels"
    if width * height > MAX_PIXELS:
        raise BadImageError("too_large", f"{size}, more than {MAX_PIXELS // 1_000_000} megapixels.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImageError("aspect", f"{size}, longer than {MAX_ASPECT}:1.")
    if min(width, height) < MIN_SIDE:
        raise BadImageError("too_small", f"{size}; each side needs {MIN_SIDE}.")


def _check_png(data: bytes) -> None:
    if data[12:16] == b"CgBI":
        raise BadImageError(
            "unsupported", "The file is a PNG of Apple's own kind (CgBI). Convert it to PNG first."
        )
    view = memoryview(data)
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[position + 4 : end - 4]) != crc:
            raise BadImageError("corrupt", f"The checksum of PNG chunk {kind!r} is wrong.")
        if kind == b"IEND":
            return
        position = end
    raise BadImageError("truncated", "The PNG ends before its end chunk.")


def _check_jpeg(data: bytes) -> None:
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
        if marker in _JPEG_ENDS:
            return
        if not is_framed and (marker in _JPEG_FRAMES or marker in _JPEG_RARE):
            _check_frame(marker, bits=data[position + 2], channels=data[position + 7])
            is_framed = True
        segments += marker != _FILL
        if segments > MAX_SEGMENTS:
            raise BadImageError(
                "unsupported",
                f"The JPEG has more than {MAX_SEGMENTS} segments. Save it anew, or as PNG, first.",
            )
        if marker in _JPEG_SEGMENTS or marker in _JPEG_FRAMES:
            position += max(2, int.from_bytes(data[position : position + 2]))


def check_scans(data: bytes) -> None:
    """Refuse a JPEG of more scans than `MAX_SCANS`: a hundred bytes may send a decoder over the whole picture.

    Scans of previews, which lie within the segments of the header, and whatever is behind the end do not count.

    Raises
    ------
    BadImageError
        ``unsupported``.
    """
    if data.count(bytes((_FILL, _JPEG_SCAN))) <= MAX_SCANS:
        return
    scans, position = 0, 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 3 < len(data):
        marker = data[position + 1]
        position += 1 if marker == _FILL else 2
        if marker == _JPEG_END:
            return
        scans += marker == _JPEG_SCAN
        if scans > MAX_SCANS:
            raise BadImageError(
                "unsupported", f"The JPEG has more than {MAX_SCANS} scans. Save it anew, or as PNG, first."
            )
        if marker in _JPEG_SEGMENTS or marker == _JPEG_SCAN:
            position += max(2, int.from_bytes(data[position : position + 2]))


def _check_frame(marker: int, *, bits: int, channels: int) -> None:
    if marker in _JPEG_RARE:
        what = _JPEG_RARE[marker]
    elif bits != _BITS_OF_BYTE:
        what = f"{bits}-bit JPEG"
    elif channels not in _JPEG_CHANNELS:
        what = f"JPEG with {channels} channels"
    else:
        return
    depth = "16-bit PNG" if bits > _BITS_OF_BYTE else "PNG"
    raise BadImageError("unsupported", f"The file is a {what}. Convert it to {depth} first.")


def _check_webp(data: bytes) -> None:
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
    _check_canvas(*extent)


def _check_gif(data: bytes) -> None:
    """Walk to the first frame: it may be larger than the screen that the header declares."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette(flags)
    while data[position] == _GIF_EXTENSION:
        position += 2
        while data[position]:
            position += 1 + data[position]
        position += 1
    if data[position] != _GIF_FRAME:
        raise BadImageError("corrupt", "The GIF holds no frame.")
    left, top, columns, rows = struct.unpack_from("<4H", data, position + 1)
    _check_canvas(max(width, left + columns), max(height, top + rows))


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_canvas(width: int, height: int) -> None:
    if not width or not height:
        raise BadImageError("corrupt", f"The header says {width} x {height} pixels.")
    if width * height > MAX_PIXELS:
        check_size(width, height)


_CHECKS: dict[str, Callable[[bytes], None]] = {
    "GIF": _check_gif,
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "WEBP": _check_webp,
}
