"""TIFF files: their directories, and which of their pages or slices are images.

Slices may lie behind the only page of a file. The scan reads directories, without numpy.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import IO, TYPE_CHECKING, NamedTuple

from featstore.errors import BadImageError
from featstore.images.formats.container import MAX_PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


# Directories: what the pages of a TIFF are, and where their samples lie

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


# Pages that are images

PAGE_NOTES: dict[str, str] = {
    "channels": "The pages are colour or stain channels of one picture.",
    "cut_short": "The file announces more slices than it holds.",
    "pages": "Each page or slice is an image.",
    "reduced": "Smaller copies of a picture (pyramids, thumbnails) and masks were skipped.",
    "sizes": "The pages are of different sizes.",
}
"""What is odd about the pages of a file: code -> what it means."""

_KEPT = (
    WIDTH, HEIGHT, BITS, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES,
    PLANAR, COLOR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT,
)  # fmt: skip
_IMAGEJ = re.compile(r"^(images|channels|slices|frames)=(\d{1,18})\s*$", re.MULTILINE)
_MAX_BELOW = 256
_OME = re.compile(r"<(?:\w+:)?Pixels\s[^<>]*\bSizeC\s*=\s*[\"'](\d{1,6})[\"']")


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a file that are images.

    Attributes
    ----------
    frames
        Their numbers, from 0; what `featstore.images.formats.decode.decode` takes as `frame`.
    total
        How many pages the file has, with those that are skipped.
    notes
        Keys of `PAGE_NOTES`, sorted.
    """

    frames: tuple[int, ...] = (0,)
    total: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices of equal size that lie behind one another, of which only the first has a directory.

    Attributes
    ----------
    directory
        The directory of the first slice.
    start
        Where that slice begins.
    length
        Bytes of a slice.
    count
        Slices that the file really holds.
    """

    directory: Directory
    start: int
    length: int
    count: int

    def slice_tiff(self, frame: int) -> bytes:
        """One slice as a TIFF of its own.

        Raises
        ------
        BadImageError
            ``corrupt`` if there is no such slice.
        """
        if not 0 <= frame < self.count:
            raise BadImageError("corrupt", f"The stack has {self.count} slices and none of number {frame}.")
        first, file = self.directory, self.directory.file
        tags = {tag: values for tag in _KEPT if (values := first.values(tag))}
        planes = first.samples if first.value(PLANAR) == SEPARATE else 1
        if planes == 1:
            tags.pop(PLANAR, None)
        part = self.length // planes
        tags |= {
            COMPRESSION: (UNCOMPRESSED,),
            STRIP_OFFSETS: tuple(range(0, part * planes, part)),
            STRIP_ROWS: (first.size[1],),
            STRIP_BYTES: (part,) * planes,
        }
        try:
            file.seek(self.start + frame * self.length)
            return tiff_bytes(first.order, tags, file.read(self.length))
        except (struct.error, OSError, OverflowError, ValueError) as error:
            raise BadImageError("corrupt", "The TIFF names sizes or places that no file has.") from error


def list_pages(file: IO[bytes]) -> Pages:
    """Find the pages of a TIFF that are images.

    Parameters
    ----------
    file
        The TIFF, open for reading.

    Raises
    ------
    BadImageError
        ``too_large`` if there are more than `MAX_PAGES`; ``unsupported`` if all of them are previews.
    """
    offsets = directory_offsets(file)
    if not offsets:
        return Pages()
    first = read_directory(file, offsets[0])
    announced, channels = _announced(first)
    stack = _stack(first, offsets, announced)
    if stack is not None:
        frames, total, notes = tuple(range(stack.count)), stack.count, set[str]()
    else:
        chain = [read_directory(file, offset) for offset in offsets]
        frames, notes = _full_size(chain)
        total = len(chain)
        if len({chain[frame].size for frame in frames}) > 1:
            notes.add("sizes")
    if announced > total:
        notes.add("cut_short")
    if len(frames) > 1:
        notes |= {"pages"} | ({"channels"} if channels > 1 else set())
    return Pages(frames, total, tuple(sorted(notes)))


@dataclass(frozen=True, slots=True)
class Chain:
    """Where the pages of a TIFF are, found once for all of them.

    Attributes
    ----------
    offsets
        Of the directories.
    slices
        Where the first slice of a stack begins, bytes of a slice, and how many there are; None where it is none.
    """

    offsets: tuple[int, ...]
    slices: tuple[int, int, int] | None = None

    @property
    def last(self) -> int:
        """Number of the last page or slice."""
        return (len(self.offsets) if self.slices is None else self.slices[2]) - 1


def read_chain(data: bytes) -> Chain:
    """Find the pages of a TIFF.

    Raises
    ------
    BadImageError
        ``corrupt`` if it has none, ``too_large`` if it has too many.
    """
    file = io.BytesIO(data)
    offsets = directory_offsets(file)
    if not offsets:
        raise BadImageError("corrupt", "The header of the TIFF makes no sense.")
    first = read_directory(file, offsets[0])
    stack = _stack(first, offsets, _announced(first)[0])
    return Chain(tuple(offsets), None if stack is None else (stack.start, stack.length, stack.count))


def page_tiff(data: bytes, frame: int, chain: Chain | None = None) -> tuple[io.BytesIO, Directory]:
    """One page of a TIFF, as a file whose first page it is, and its directory.

    A slice of a stack comes as a file of its own, and so does a page that Pillow would take for another.

    Parameters
    ----------
    data, frame
        The TIFF, and the number of the page.
    chain
        What `read_chain` says of `data`, if that is known.

    Raises
    ------
    BadImageError
        ``corrupt`` if the file has no such page.
    """
    chain = chain or read_chain(data)
    file = io.BytesIO(data)
    if chain.slices is not None:
        first = read_directory(file, chain.offsets[0])
        return page_tiff(Stack(first, *chain.slices).slice_tiff(frame), 0)
    if not 0 <= frame < len(chain.offsets):
        raise BadImageError("corrupt", f"The TIFF has {len(chain.offsets)} pages and none of number {frame}.")
    directory = read_directory(file, chain.offsets[frame])
    if directory.misleads_pillow and (place := directory.contiguous()) is not None:
        return page_tiff(Stack(directory, *place, 1).slice_tiff(0), 0)
    return (_PageFirst(data, chain.offsets[frame]) if frame else io.BytesIO(data)), directory


class _PageFirst(io.BytesIO):
    """A TIFF whose header names another directory as the first: no chain is followed, and no byte is copied."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        order = "<" if data[:2] == b"II" else ">"
        is_big = data[2:4] in {b"+\0", b"\0+"}
        self._head = (
            data[:8] + struct.pack(f"{order}Q", offset)
            if is_big
            else data[:4] + struct.pack(f"{order}I", offset)
        )

    def read(self, size: int | None = -1, /) -> bytes:
        """Bytes from where it stands, with the header as it should be."""
        start = self.tell()
        found = super().read(size)
        if start >= len(self._head) or not found:
            return found
        return (self._head[start : start + len(found)] + found[len(self._head) - start :])[: len(found)]


def _stack(first: Directory, offsets: Sequence[int], announced: int) -> Stack | None:
    """Slices behind the first page: as many as are announced, and as fit before a directory or the end."""
    if announced <= len(offsets) or (place := first.contiguous()) is None:
        return None
    start, length = place
    end = min((offset for offset in offsets if offset > start), default=first.file.seek(0, 2))
    count = min(announced, (end - start) // length)
    if count <= len(offsets):
        return None
    if count > MAX_PAGES:
        raise BadImageError("too_large", f"The TIFF has more than {MAX_PAGES} slices.")
    return Stack(first, start, length, count)


def _full_size(chain: Sequence[Directory]) -> tuple[tuple[int, ...], set[str]]:
    """Pages that are pictures of their own, and the note ``reduced`` if any were left out.

    Raises
    ------
    BadImageError
        ``unsupported`` if a picture itself lies below the chain, as in camera raw files.
    """
    pairs = ((page, sub) for page in chain for sub in sub_directories(page))
    below = [(page, sub) for page, sub in islice(pairs, _MAX_BELOW) if sub.fields]
    if any(_area(sub) > _area(page) for page, sub in below):
        raise BadImageError(
            "unsupported", "The TIFF shows a preview of a picture stored elsewhere in it (camera raw)."
        )
    frames = tuple(frame for frame, directory in enumerate(chain) if not directory.is_reduced)
    if not frames:  # a writer that marks its only picture as reduced
        frames = (max(range(len(chain)), key=lambda frame: (_area(chain[frame]), -frame)),)
    return frames, {"reduced"} if below or len(frames) < len(chain) else set()


def _area(directory: Directory) -> int:
    width, height = directory.size
    return width * height


def _announced(first: Directory) -> tuple[int, int]:
    """How many pages or slices the first page announces, and how many channels of one picture; else 1."""
    text = first.text(DESCRIPTION)
    if text.startswith("ImageJ="):
        numbers = {name: int(number) for name, number in _IMAGEJ.findall(text)}
        channels = numbers.get("channels", 1)
        product = channels * numbers.get("slices", 1) * numbers.get("frames", 1)
        return numbers.get("images", product), channels
    if text.startswith('{"shape"'):
        return _shaped(first, text)
    if channels := max(map(int, _OME.findall(text)), default=0):
        return 1, channels // max(first.samples, 1)
    return (first.fields[STK_PLANES].number if STK_PLANES in first.fields else 1), 1


def _shaped(first: Directory, text: str) -> tuple[int, int]:
    """What tifffile writes for arrays of any shape."""
    try:
        said = json.loads(text)
        shape, axes = [int(side) for side in said["shape"]], str(said.get("axes", ""))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return 1, 1
    width, height = first.size
    pages = math.prod(shape) // max(1, width * height * first.samples) if len(shape) < 16 else 1  # noqa: PLR2004
    channels = shape[axes.index("C")] if "C" in axes and len(axes) == len(shape) else 1
    return (pages if said.get("truncated") else 1), channels // max(first.samples, 1)
