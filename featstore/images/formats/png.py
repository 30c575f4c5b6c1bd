"""PNG."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from featstore.errors import BadImageError
from featstore.images.formats.container import HEAD, PillowFormat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from featstore.types import Pixels


class Png(PillowFormat):
    """PNG; 16-bit grey needs a range, and 16-bit colour is refused."""

    name: ClassVar[str] = "PNG"
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"\x89PNG\r\n\x1a\n")
    code: ClassVar[int] = 4
    is_movable: ClassVar[bool] = True

    def check(self, data: bytes) -> None:
        """Go over the chunks and their checksums, which Pillow skips for pixels."""
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

    def needs_range(self, data: bytes, frame: int, index: Any = None) -> bool:  # noqa: ANN401, ARG002
        """Whether the header says 16-bit grey."""
        from featstore.images.formats import pillow

        return pillow.needs_range(io.BytesIO(without_bulk(data)), self.name)

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[Pixels, Iterable[str]]:
        """Decode it without what Pillow would refuse it for; see `Format.decode`."""
        return super().decode(without_bulk(data), frame, value_range, index)

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height from the header."""
        width, height = struct.unpack_from(">II", file.read(HEAD), 16)
        return width, height


# PNG files with more beside the picture than Pillow takes: profiles of scanners, protocols as text

_MAX_CHUNK = 1 << 20
_MAX_ALL = 64 << 20
"""Bytes of text and profiles that Pillow takes, per chunk and in all, unpacked; beyond, it gives the picture up."""
_BULK = frozenset({b"iCCP", b"iTXt", b"tEXt", b"zTXt"})


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    end: int


def without_bulk(data: bytes) -> bytes:
    """Leave out the text and the colour profile of a PNG where they are so large that Pillow refuses the file.

    Neither changes a pixel. At most 64 MiB are unpacked to find out.

    Parameters
    ----------
    data
        A PNG whose chunks are sound.

    Returns
    -------
    The same bytes, if nothing is too large.
    """
    left, bulky = _MAX_ALL, []
    for chunk in _chunks(data):
        if chunk.kind in _BULK:
            size = _size(chunk.kind, data[chunk.start + 8 : chunk.end - 4]) if left else 0
            if size is None or size >= left:
                bulky.append(chunk)
            left = max(0, left - (_MAX_CHUNK if size is None else size))
    if not bulky:
        return data
    edges = [0, *(edge for chunk in bulky for edge in (chunk.start, chunk.end)), len(data)]
    return b"".join(data[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _chunks(data: bytes) -> Iterator[_Chunk]:
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield _Chunk(kind, position, position := position + 12 + length)
        if kind == b"IEND":
            return


def _size(kind: bytes, body: bytes) -> int | None:
    """How many bytes a chunk has when unpacked; None if more than Pillow takes."""
    packed = _packed(kind, body)
    if packed is None:
        return len(body)
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(packed, _MAX_CHUNK))
    except zlib.error:
        return _MAX_CHUNK  # what it took to find out
    return None if unpacker.unconsumed_tail else size


def _packed(kind: bytes, body: bytes) -> bytes | None:
    """The part of a chunk that is deflated; None for plain text."""
    rest = body.partition(b"\0")[2]
    if kind in {b"iCCP", b"zTXt"}:
        return rest[1:]
    if kind == b"iTXt" and rest[:1] == b"\1":
        return rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return None
