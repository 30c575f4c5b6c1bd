"""Directories of TIFF files: what the pages are, and where their samples lie; read without numpy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, TYPE_CHECKING, NamedTuple

from featstore.errors import BadImageError
from featstore.images.formats.container import MAX_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION = 254, 255, 256, 257, 258, 259
PHOTOMETRIC, FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, SAMPLES, STRIP_ROWS = 262, 266, 270, 273, 277, 278
STRIP_BYTES, PLANAR, PREDICTOR, COLOR_MAP, ORIENTATION = 279, 284, 317, 320, 274
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT = 330, 338, 339
STK_PLANES = 33629

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
"""Values of the tag SampleFormat."""
UNCOMPRESSED = 1
SEPARATE = 2
"""Value of PlanarConfiguration: one plane per sample."""

MAX_SAMPLES = 1 << 12
"""Most samples per pixel that are believed; hyperspectral cameras have hundreds."""

_WANTED = frozenset(
    {NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, DESCRIPTION}
    | {STRIP_OFFSETS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR, PREDICTOR, COLOR_MAP, TILE_WIDTH}
    | {TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_DIRECTORIES, EXTRA_SAMPLES, SAMPLE_FORMAT, STK_PLANES}
)
_LONG = frozenset(
    {WIDTH, HEIGHT, STRIP_OFFSETS, STRIP_BYTES, STRIP_ROWS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES}
)
_MAX_TAGS = 128  # of a directory; 30 are many, and tags stand in rising order, those that count first
_MAX_VALUES = 1 << 20
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_BROKEN = (struct.error, OSError, OverflowError, ValueError)


class _Form(NamedTuple):
    """Field widths of the classic format, or of BigTIFF."""

    order: str
    counter: str
    link: str
    entry: int
    start: int


class _Field(NamedTuple):
    """An entry of a directory: its type, how many values, and where they stand."""

    kind: int
    number: int
    position: int


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory of a TIFF: the tags of a page.

    Attributes
    ----------
    file
        The file, open for reading.
    offset
        Where the directory stands in it.
    order
        ``<`` or ``>``: the byte order of the file.
    is_big
        Whether the file is a BigTIFF.
    fields
        Tag to entry.
    """

    file: IO[bytes]
    offset: int
    order: str
    is_big: bool
    fields: Mapping[int, _Field]

    def values(self, tag: int, *, most: int = _MAX_VALUES) -> tuple[int, ...]:
        """Whole numbers of a tag; empty where it is absent, broken or longer than `most`."""
        field = self.fields.get(tag)
        if field is None or field.kind not in _LETTERS or not 0 < field.number <= most:
            return ()
        try:
            return _unpack(self.file, field.position, f"{self.order}{field.number}{_LETTERS[field.kind]}")
        except _BROKEN:
            return ()

    def value(self, tag: int, default: int = 0) -> int:
        """The first number of a tag, or `default`."""
        field = self.fields.get(tag)
        if field is None or field.kind not in _LETTERS or not field.number:
            return default
        try:
            return _unpack(self.file, field.position, self.order + _LETTERS[field.kind])[0]
        except _BROKEN:
            return default

    def text(self, tag: int, *, most: int = 1 << 20) -> str:
        """Text of a tag, of which no more than `most` bytes are read; empty where there is none."""
        field = self.fields.get(tag)
        if field is None or _SIZES.get(field.kind) != 1:
            return ""
        try:
            self.file.seek(field.position)
            return self.file.read(min(field.number, most)).split(b"\0")[0].decode("latin-1")
        except _BROKEN:
            return ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height; 0 where they are not said."""
        return self.value(WIDTH), self.value(HEIGHT)

    @property
    def samples(self) -> int:
        """Samples per pixel: 1 for grey, 3 for RGB, more with alpha or further channels."""
        return self.value(SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of the deepest sample."""
        return max(self.values(BITS, most=1 << 16), default=1)

    @property
    def is_reduced(self) -> bool:
        """Whether the page repeats another one in a smaller size, or is the mask of one."""
        return bool(self.value(NEW_SUBFILE_TYPE) & 0b101) or self.value(SUBFILE_TYPE) == 2  # noqa: PLR2004

    @property
    def misleads_pillow(self) -> bool:
        """Whether Pillow mistakes it: big-endian BigTIFF for TIFF, and one plane apart from no other for a letter."""
        return (self.is_big and self.order == ">") or (self.samples == 1 and self.value(PLANAR) == SEPARATE)

    def contiguous(self) -> tuple[int, int] | None:
        """Where the samples begin and how many bytes they take, if they are plain and lie in one piece."""
        width, height = self.size
        row = -(-width * self.samples * self.bits // 8)
        starts, lengths = self.values(STRIP_OFFSETS), self.values(STRIP_BYTES)
        plain = self.value(COMPRESSION, 1) == UNCOMPRESSED and 0 < self.samples <= MAX_SAMPLES
        if not plain or not starts or row * height <= 0:
            return None
        if len(starts) > 1:
            ends = [start + length for start, length in zip(starts, lengths, strict=False)]
            if len(ends) != len(starts) or any(
                end != after for end, (_, after) in zip(ends, pairwise(starts), strict=False)
            ):
                return None
            if sum(lengths) != row * height:
                return None
        return starts[0], row * height


def directory_offsets(file: IO[bytes]) -> list[int]:
    """Follow the chain of directories; a broken chain ends where it breaks, a circle where it closes.

    A page may be six bytes and share all others, so a small file could announce millions.

    Raises
    ------
    BadImageError
        ``too_large`` if there are more than `MAX_PAGES`.
    """
    found: dict[int, None] = {}
    try:
        form = _form(file)
        (offset,) = _unpack(file, form.start, form.order + form.link)
        while offset and offset not in found and len(found) <= MAX_PAGES:
            (count,) = _unpack(file, offset, form.order + form.counter)
            found[offset] = None
            after = offset + struct.calcsize(form.counter) + count * form.entry
            (offset,) = _unpack(file, after, form.order + form.link)
    except _BROKEN:
        pass  # the pages found so far are there; decoding will say what is wrong with the last
    if len(found) > MAX_PAGES:
        raise BadImageError("too_large", f"The TIFF has more than {MAX_PAGES} pages.")
    return list(found)


def read_directory(file: IO[bytes], offset: int) -> Directory:
    """Read the directory at `offset`; what lies beyond the end of the file is absent from it."""
    form = _form(file)
    width = struct.calcsize(form.link)
    fields: dict[int, _Field] = {}
    try:
        (count,) = _unpack(file, offset, form.order + form.counter)
        table = file.read(min(count, _MAX_TAGS) * form.entry)
    except _BROKEN:
        return Directory(file, offset, form.order, form.link == "Q", fields)
    first = offset + struct.calcsize(form.counter)
    for at in range(0, len(table) - form.entry + 1, form.entry):
        tag, kind, number, far = struct.unpack_from(f"{form.order}HH{form.link}{form.link}", table, at)
        if tag in _WANTED:
            is_near = _SIZES.get(kind, 8) * number <= width
            fields.setdefault(tag, _Field(kind, number, first + at + form.entry - width if is_near else far))
    return Directory(file, offset, form.order, form.link == "Q", fields)


def sub_directories(directory: Directory, most: int = 32) -> Iterator[Directory]:
    """Yield the directories below one: thumbnails, levels of a pyramid, or the picture behind a preview."""
    for offset in directory.values(SUB_DIRECTORIES, most=1 << 12)[:most]:
        yield read_directory(directory.file, offset)


def tiff_bytes(order: str, tags: Mapping[int, Sequence[int]], samples: bytes) -> bytes:
    """A TIFF of one page and one directory, with `samples` behind it.

    Parameters
    ----------
    order
        ``<`` or ``>``.
    tags
        Tag to its numbers. Offsets of strips or tiles count from the beginning of `samples`.
    samples
        What the strips or tiles hold.
    """
    entries, far = b"", b""
    data_at = 8 + 2 + 12 * len(tags) + 4
    far_at = data_at + len(samples) + len(samples) % 2
    for tag, numbers in sorted(tags.items()):
        if tag in {STRIP_OFFSETS, TILE_OFFSETS}:
            numbers = [data_at + number for number in numbers]  # noqa: PLW2901
        letter, kind = ("I", 4) if tag in _LONG else ("H", 3)
        value = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(value) > 4:  # noqa: PLR2004
            far += value + b"\0" * (len(value) % 2)
            value = struct.pack(f"{order}I", far_at + len(far) - len(value) - len(value) % 2)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + value.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return b"".join((head, entries, bytes(4), samples, bytes(len(samples) % 2), far))


def _form(file: IO[bytes]) -> _Form:
    file.seek(0)
    head = file.read(4)
    order = "<" if head[:2] == b"II" else ">"
    return _Form(order, "Q", "Q", 20, 8) if head[2:4] in {b"+\0", b"\0+"} else _Form(order, "H", "I", 12, 4)


def _unpack(file: IO[bytes], offset: int, form: str) -> tuple[int, ...]:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))
