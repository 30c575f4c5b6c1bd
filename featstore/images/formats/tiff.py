"""TIFF: which pages or slices of a file are images, and the format itself.

Slices may lie behind the only page of a file. The scan reads directories, without numpy.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats import tiff_directory as tags
from featstore.images.formats.container import MAX_PAGES, Pages, PillowFormat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from featstore.types import Pixels


class Tiff(PillowFormat):
    """TIFF and BigTIFF, stacks of ImageJ and MetaMorph among them: each page or slice is an image."""

    name: ClassVar[str] = "TIFF"
    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".tiff")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb"II[*+]\0|MM\0[*+]")
    code: ClassVar[int] = 6

    def list_pages(self, file: IO[bytes]) -> Pages:
        """Pages and slices, without smaller copies and masks."""
        return list_pages(file)

    def index(self, data: bytes) -> Chain:
        """Where the pages are."""
        return read_chain(data)

    def needs_range(self, data: bytes, frame: int, index: Chain | None = None) -> bool:
        """Whether a page has more than 8 bits, or signed or float values."""
        from featstore.images.formats import pillow
        from featstore.images.formats.tiff_samples import read_sample_layout

        file, directory = page_tiff(data, frame, index)
        layout = read_sample_layout(directory)
        if layout.needs_own_reader:
            return layout.is_deep
        return pillow.needs_range(file, self.name, layout)

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[Pixels, Iterable[str]]:
        """Decode one page; see `Format.decode`."""
        from featstore.images.formats.tiff_samples import read_page, read_sample_layout

        file, directory = page_tiff(data, frame, index)
        _require_stored(directory)
        return read_page(file, read_sample_layout(directory), value_range)


def _require_stored(directory: tags.Directory) -> None:
    """Refuse a page of which some parts are not in the file: Pillow would read the header in their place."""
    places = directory.values(tags.TILE_OFFSETS) or directory.values(tags.STRIP_OFFSETS)
    lengths = directory.values(tags.TILE_BYTES) or directory.values(tags.STRIP_BYTES)
    absent = sum(not place for place in places) or (sum(not n for n in lengths) if len(places) > 1 else 0)
    if absent:
        raise BadImageError(
            "unsupported",
            f"TIFF of which {absent} of {len(places)} parts are not stored (sparse): write it whole, with"
            " gdal_translate FILE FILE.png or the program that it is from.",
        )


# Pages that are images

PAGE_NOTES: dict[str, str] = {
    "channels": "The pages are colour or stain channels of one picture.",
    "localizer": "The picture is a localizer, an overview to plan slices by.",
    "cut_short": "The file announces more slices than it holds.",
    "pages": "Each page or slice is an image.",
    "reduced": "Smaller copies of a picture (pyramids, thumbnails) and masks were skipped.",
    "sizes": "The pages are of different sizes.",
    "slices": "The file is a volume, and slices of it are images.",
    "unplaced": "The volume does not say how it lies in space.",
}
"""What is odd about the pages of a file: code -> what it means."""

_KEPT = (
    tags.WIDTH, tags.HEIGHT, tags.BITS, tags.PHOTOMETRIC, tags.FILL_ORDER, tags.ORIENTATION, tags.SAMPLES,
    tags.PLANAR, tags.COLOR_MAP, tags.EXTRA_SAMPLES, tags.SAMPLE_FORMAT,
)  # fmt: skip
_IMAGEJ = re.compile(r"^(images|channels|slices|frames)=(\d{1,18})\s*$", re.MULTILINE)
_MAX_BELOW = 256
_OME = re.compile(r"<(?:\w+:)?Pixels\s[^<>]*\bSizeC\s*=\s*[\"'](\d{1,6})[\"']")


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

    directory: tags.Directory
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
        fields = {tag: values for tag in _KEPT if (values := first.values(tag))}
        planes = first.samples if first.value(tags.PLANAR) == tags.SEPARATE else 1
        if planes == 1:
            fields.pop(tags.PLANAR, None)
        part = self.length // planes
        fields |= {
            tags.COMPRESSION: (tags.UNCOMPRESSED,),
            tags.STRIP_OFFSETS: tuple(range(0, part * planes, part)),
            tags.STRIP_ROWS: (first.size[1],),
            tags.STRIP_BYTES: (part,) * planes,
        }
        try:
            file.seek(self.start + frame * self.length)
            return tags.tiff_bytes(first.order, fields, file.read(self.length))
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
    offsets = tags.directory_offsets(file)
    if not offsets:
        return Pages()
    first = tags.read_directory(file, offsets[0])
    announced, channels = _announced(first)
    stack = _stack(first, offsets, announced)
    if stack is not None:
        frames, total, notes = tuple(range(stack.count)), stack.count, set[str]()
    else:
        chain = [tags.read_directory(file, offset) for offset in offsets]
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
    offsets = tags.directory_offsets(file)
    if not offsets:
        raise BadImageError("corrupt", "The header of the TIFF makes no sense.")
    first = tags.read_directory(file, offsets[0])
    stack = _stack(first, offsets, _announced(first)[0])
    return Chain(tuple(offsets), None if stack is None else (stack.start, stack.length, stack.count))


def page_tiff(data: bytes, frame: int, chain: Chain | None = None) -> tuple[io.BytesIO, tags.Directory]:
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
        first = tags.read_directory(file, chain.offsets[0])
        return page_tiff(Stack(first, *chain.slices).slice_tiff(frame), 0)
    if not 0 <= frame < len(chain.offsets):
        raise BadImageError("corrupt", f"The TIFF has {len(chain.offsets)} pages and none of number {frame}.")
    directory = tags.read_directory(file, chain.offsets[frame])
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


def _stack(first: tags.Directory, offsets: Sequence[int], announced: int) -> Stack | None:
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


def _full_size(chain: Sequence[tags.Directory]) -> tuple[tuple[int, ...], set[str]]:
    """Pages that are pictures of their own, and the note ``reduced`` if any were left out.

    Raises
    ------
    BadImageError
        ``unsupported`` if a picture itself lies below the chain, as in camera raw files.
    """
    pairs = ((page, sub) for page in chain for sub in tags.sub_directories(page))
    below = [(page, sub) for page, sub in islice(pairs, _MAX_BELOW) if sub.fields]
    if any(_area(sub) > _area(page) for page, sub in below):
        raise BadImageError(
            "unsupported", "The TIFF shows a preview of a picture stored elsewhere in it (camera raw)."
        )
    frames = tuple(frame for frame, directory in enumerate(chain) if not directory.is_reduced)
    if not frames:  # a writer that marks its only picture as reduced
        frames = (max(range(len(chain)), key=lambda frame: (_area(chain[frame]), -frame)),)
    return frames, {"reduced"} if below or len(frames) < len(chain) else set()


def _area(directory: tags.Directory) -> int:
    width, height = directory.size
    return width * height


def _announced(first: tags.Directory) -> tuple[int, int]:
    """How many pages or slices the first page announces, and how many channels of one picture; else 1."""
    text = first.text(tags.DESCRIPTION)
    if text.startswith("ImageJ="):
        numbers = {name: int(number) for name, number in _IMAGEJ.findall(text)}
        channels = numbers.get("channels", 1)
        product = channels * numbers.get("slices", 1) * numbers.get("frames", 1)
        return numbers.get("images", product), channels
    if text.startswith('{"shape"'):
        return _shaped(first, text)
    if channels := max(map(int, _OME.findall(text)), default=0):
        return 1, channels // max(first.samples, 1)
    return (first.fields[tags.STK_PLANES].number if tags.STK_PLANES in first.fields else 1), 1


def _shaped(first: tags.Directory, text: str) -> tuple[int, int]:
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
