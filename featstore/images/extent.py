"""How much memory decoding a file takes, from its header."""

from __future__ import annotations

import heapq
import struct
from typing import TYPE_CHECKING

from featstore.files import open_regular
from featstore.images.quiet import no_warnings
from featstore.images.signature import HEAD, identify
from featstore.images.structure import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedReader
    from pathlib import Path

    from PIL.Image import Image

_HEADERS = {"PNG": (">II", 16), "GIF": ("<HH", 6), "BMP": ("<ii", 18)}
"""Where width and height stand."""
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FILL = 0xFF
_JPEG_HEAD = 1 << 18
"""Bytes of a JPEG within which its frame begins, whatever cameras put before it."""
GREY, COLOUR, PROGRESSIVE, TURNED, ALPHA, WEBP = 2, 7.5, 10, 12, 12, 21
"""Bytes per pixel at the peak of decoding and scaling, measured with pictures of 30 megapixels."""
_TURNS = 0x0112
_MOST_LOOKED_AT = 4
"""For each file that is asked for; pixels alone rank them up to the dearest of the kinds above."""


def dearest(paths: Iterable[Path], count: int) -> tuple[int, ...]:
    """Bytes that decoding takes of the `count` files that take the most, the dearest first."""
    large = heapq.nlargest(_MOST_LOOKED_AT * count, paths, key=pixel_count)
    return tuple(heapq.nlargest(count, map(decoding_bytes, large)))


def pixel_count(path: Path) -> int:
    """Pixels that the header announces; 0 where it cannot be read, or announces more than is ever decoded."""
    try:
        with open_regular(path) as file:
            width, height = _size(file)
    except Exception:  # noqa: BLE001  # decoding will say what is wrong with it
        return 0
    return width * height if width * height <= MAX_PIXELS else 0


def decoding_bytes(path: Path) -> int:
    """Bytes that reading, decoding and scaling a file takes at most; 0 where its header cannot be read."""
    from PIL import Image

    from featstore.images import raster  # noqa: F401  # which makes Pillow's plugins known

    pixels = pixel_count(path)
    if not pixels:
        return 0
    try:
        with open_regular(path) as file, no_warnings():
            kind = identify(file.read(HEAD))
            with Image.open(file, formats=[kind]) as image:
                each = _each(image, kind)
            return round(pixels * each) + path.stat().st_size
    except Exception:  # noqa: BLE001
        return round(pixels * COLOUR)


def _each(image: Image, kind: str) -> float:
    if kind == "WEBP":
        return WEBP
    if image.has_transparency_data:
        return ALPHA
    if kind == "JPEG" and image.getexif().get(_TURNS, 1) != 1:
        return TURNED
    if image.info.get("progressive"):
        return PROGRESSIVE
    return GREY if image.mode in {"1", "L"} else COLOUR


def _size(file: BufferedReader) -> tuple[int, int]:
    head = file.read(HEAD)
    kind = identify(head)
    if kind in _HEADERS:
        form, at = _HEADERS[kind]
        width, height = struct.unpack_from(form, head, at)
        return abs(width), abs(height)
    if kind == "JPEG":
        return _jpeg_size(head + file.read(_JPEG_HEAD))
    from PIL import Image

    from featstore.images import raster  # noqa: F401

    file.seek(0)
    with no_warnings(), Image.open(file, formats=[kind]) as image:
        return image.size


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == _FILL:
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0, 0
