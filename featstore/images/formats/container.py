"""What an image format says of itself, which formats there are, and what a file is by its first bytes.

A format is one file of this folder, or a plug-in of somebody else (`featstore.registry`); see `Format`. Here are also
the limits that hold for all of them.
"""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from featstore import registry
from featstore.errors import BadImageError, UsageError
from featstore.serialization import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from featstore.types import Pixels


FOLDER = "featstore.images.formats"
HEAD = 1024
"""Bytes from the start of a file by which its format is known."""

# Limits

MAX_PIXELS = 64_000_000
"""Largest image that is decoded, in pixels."""
MAX_BYTES = 1 << 30
"""Largest file that is read, in bytes; of a format that holds many images, `Format.most_bytes` may say more."""
MAX_PAGES = 4096
"""Most pages that a file may have."""
MIN_SIDE = 8
"""Smallest side that is decoded, in pixels."""
MAX_ASPECT = 20
"""Largest ratio of the sides that is decoded."""
GREY, COLOUR, PROGRESSIVE, TURNED, ALPHA, WEBP = 2, 7.5, 10, 12, 12, 21
"""Bytes of memory per pixel at the peak of decoding and scaling, measured with pictures of 30 megapixels."""


def most_bytes_of(head: bytes) -> int:
    """Most bytes that are read of a file that begins with `head`."""
    known = find_format(head)
    return MAX_BYTES if known is None else known.most_bytes()


def check_length(size: int, most: int = MAX_BYTES) -> None:
    """Refuse a file that nobody can want read: one of a terabyte, all hole, is made in no time.

    Raises
    ------
    BadImageError
        ``too_large``.
    """
    if size > most:
        raise BadImageError("too_large", f"The file has {size:,} bytes, more than {most:,}.")


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


def check_canvas(width: int, height: int) -> None:
    """Refuse what a header announces and no picture has, before a decoder makes room for it.

    Raises
    ------
    BadImageError
        ``corrupt`` or ``too_large``.
    """
    if not width or not height:
        raise BadImageError("corrupt", f"The header says {width} x {height} pixels.")
    if width * height > MAX_PIXELS:
        check_size(width, height)


# What a format says of itself


class Place(NamedTuple):
    """Where an image lies in a stack of parallel slices.

    Attributes
    ----------
    stack
        Digest of the series and of the direction of its slices; it names nobody.
    position
        Along the normal of the slices, in mm.
    """

    stack: str
    position: float


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a file that are images.

    Attributes
    ----------
    frames
        Their numbers, from 0; what `featstore.images.reading.decode` takes as `frame`.
    total
        How many pages the file has, with those that are skipped.
    notes
        Keys of `PAGE_NOTES`, sorted.
    group
        Pseudonym of the patient, always the same for one patient; None where the file names nobody.
    sites
        What may name scanner or hospital, by the name of its tag: none of it names a person.
    places
        Where the pages lie, by number; empty where the file does not say.
    keys
        Digests of what a table of labels may name the file by: see `origin_key`.
    rows
        Of files of arrays, which volume each of `frames` is a slice of; empty where each picture is its own.
    """

    frames: tuple[int, ...] = (0,)
    total: int = 1
    notes: tuple[str, ...] = ()
    group: str | None = None
    sites: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[int, Place] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[int, ...] = ()

    @property
    def last(self) -> int:
        """Number of the last page."""
        return self.total - 1


def origin_key(level: str, text: str) -> str:
    """Digest of the id of a patient, study, series or file, by which a file and a row of a table find each other.

    Capitals, spaces and zeros in front do not count: spreadsheets change these. Empty where the id is.

    Examples
    --------
    >>> origin_key("patient", " 0012") == origin_key("patient", "12") != origin_key("study", "12")
    True
    """
    plain = text.strip("\0 \t\r\n").casefold()
    return digest_bytes(f"{level}\0{plain.lstrip('0') or '0'}".encode()) if plain else ""


class Index(Protocol):
    """Where the pages of a file are."""

    @property
    def last(self) -> int:
        """Number of the last page."""
        ...


class Format:
    """An image format; a subclass is one file of this folder, or one class of a plug-in.

    A file is of the first format whose `sniff` says so, those of featstore before those of others; its name counts
    for nothing. Whatever a method raises but `BadImageError` is taken for damage of the file.

    Attributes
    ----------
    name
        Short name, in capitals; where Pillow decodes it, Pillow's name.
    suffixes
        Usual suffixes in small letters, with their dot: what a listing takes for an image before it looks.
    magic
        What the first bytes match, from the first; `sniff` may look closer.
    version
        Of the decoder, for whom Pillow does not decode: what must change when a pixel does. It enters the id of every
        image of the format, and with it the address of its features. Pillow's version is in the key of all features.
    code
        Number of the format in facts that a cache keeps; 0 for a format of somebody else: see `format_number`.
    has_window
        Whether files say of themselves what is black and white: `decode` may get
        `featstore.images.recipe.FILE_WINDOW` as `value_range`.
    has_slices
        Whether files are volumes, of which ``--slices`` chooses: see `choose`.
    is_movable
        Whether blanks may stand before the first byte: no offset in the file counts from there.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    magic: ClassVar[re.Pattern[bytes]]
    version: ClassVar[str] = ""
    code: ClassVar[int] = 0
    has_window: ClassVar[bool] = False
    has_slices: ClassVar[bool] = False
    is_movable: ClassVar[bool] = False

    def sniff(self, head: bytes) -> bool:
        """Whether a file that begins with `head` (at most `HEAD` bytes) is of this format."""
        return self.magic.match(head) is not None

    def most_bytes(self) -> int:
        """Largest file of this format that is read, in bytes."""
        return MAX_BYTES

    def strip(self, data: bytes) -> bytes:
        """Take away what stands in a file and is none of the format's; `data` itself where there is nothing."""
        return data[_lead(data) :] if self.is_movable else data

    def check(self, data: bytes) -> None:
        """Refuse a file that is cut short or announces too much, where that shows before it is decoded.

        Raises
        ------
        BadImageError
            ``truncated``, ``corrupt``, ``too_large`` or ``unsupported``; `struct.error` and IndexError count as
            ``truncated``.
        """

    def list_pages(self, file: IO[bytes]) -> Pages:  # noqa: ARG002
        """Pages of an open file that are images of their own; most formats have one."""
        return Pages()

    def choose(self, file: IO[bytes], pages: Pages, slices: str) -> Pages:  # noqa: ARG002
        """Those of the pages that ``--slices`` asks for, of files that hold a volume; all of others."""
        return pages

    def index(self, data: bytes) -> Index:
        """What is found once for all pages of a file, and handed to `decode`; `last` is the number of the last page.

        Raises
        ------
        BadImageError
            If the pages cannot be found; `decode` is asked all the same.
        """
        return self.list_pages(io.BytesIO(data))

    def needs_range(self, data: bytes, frame: int, index: Any = None) -> bool:  # noqa: ANN401, ARG002
        """Whether a page has more than 8 bits, so that ``--range`` has to say what is black and what is white."""
        return False

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[NDArray[Any], Iterable[str]]:
        """Decode one page.

        Parameters
        ----------
        data
            The whole file, after `strip` and `check`.
        frame
            Number of the page, one of `list_pages`.
        value_range
            ``(low, high)`` in stored values, None where the user said none. Formats of 8 bits ignore it; for others
            `featstore.images.formats.pillow.window` does the mapping.
        index
            What `index` found, if anybody asked.

        Returns
        -------
        pixels : ndarray of uint8, shape (height, width), (height, width, 1) or (height, width, 3)
            Grey or RGB, the right way up.
        warnings
            Keys of `featstore.images.reading.WARNINGS`.

        Raises
        ------
        BadImageError
            With one of `featstore.images.reading.REASONS`.
        """
        raise NotImplementedError

    def size(self, file: IO[bytes]) -> tuple[int, int]:  # noqa: ARG002
        """Width and height that the header announces; (0, 0) where it does not, and then no memory is set aside."""
        return 0, 0

    def bytes_per_pixel(self, file: IO[bytes]) -> float:  # noqa: ARG002
        """Bytes of memory per pixel that decoding and scaling take at their peak."""
        return ALPHA


class PillowFormat(Format):
    """A format that Pillow decodes, under the name that Pillow has for it."""

    def decode(
        self,
        data: bytes,
        frame: int,  # noqa: ARG002
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401, ARG002
    ) -> tuple[Pixels, Iterable[str]]:
        """Decode the first picture; see `Format.decode`."""
        from featstore.images.formats import pillow

        return pillow.read_image(io.BytesIO(data), data, self.name, None, value_range)

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height, by Pillow's look at the header."""
        from featstore.images.formats import pillow

        return pillow.read_size(file, self.name)

    def bytes_per_pixel(self, file: IO[bytes]) -> float:
        """Bytes of memory per pixel, by the colours that the header announces."""
        from featstore.images.formats import pillow

        return pillow.bytes_per_pixel(file, self.name)


# Which formats there are


def formats() -> Mapping[str, Format]:
    """All formats by name: featstore's, then those of others.

    Raises
    ------
    UsageError
        If a plug-in does not load, has no version, or takes a name or a suffix that is taken.
    """
    return _found(os.environ.get(registry.PLUGINS, ""), tuple(sys.path))[0]


def suffixes() -> Mapping[str, str]:
    """Usual suffix to the name of its format."""
    return _found(os.environ.get(registry.PLUGINS, ""), tuple(sys.path))[1]


_FIRST_OF_OTHERS = 128


@cache
def _found(_plugins: str, _path: tuple[str, ...]) -> tuple[Mapping[str, Format], Mapping[str, str]]:
    """Formats and suffixes; asked for each file, and another answer only with other plug-ins or packages."""
    kinds = [registry.load(FOLDER, name) for name in registry.names(FOLDER)]
    found: dict[str, Format] = {}
    for kind in sorted(kinds, key=_is_plugin):
        if _is_plugin(kind):
            _check_plugin(kind, found)
        found[kind.name] = kind()
    return found, {suffix: known.name for known in found.values() for suffix in known.suffixes}


def format_number(known: Format) -> int:
    """Number of a format in facts: its own; of somebody else's format one from 128 to 255, by its name."""
    return known.code or _FIRST_OF_OTHERS + zlib.crc32(known.name.encode()) % _FIRST_OF_OTHERS


def _is_plugin(kind: type) -> bool:
    return not kind.__module__.startswith(f"{FOLDER}.")


def _check_plugin(kind: type[Format], known: Mapping[str, Format]) -> None:
    what, remedy = (
        f"The format {kind.__name__} of a plug-in",
        "See `featstore.images.formats.container.Format`.",
    )
    if not (isinstance(kind, type) and issubclass(kind, Format)):
        raise UsageError(f"{what} is no Format.", remedy)
    missing = [n for n in ("name", "suffixes", "version") if not getattr(kind, n, None)]
    if missing:
        raise UsageError(f"{what} has no {missing[0]}.", remedy)
    taken = {suffix: other.name for other in known.values() for suffix in other.suffixes}
    if kind.name in known:
        raise UsageError(f"{what} calls itself {kind.name}, as another format does.", "Give it another name.")
    if clash := [suffix for suffix in kind.suffixes if suffix in taken]:
        raise UsageError(
            f"{what} claims {clash[0]}, which is of {taken[clash[0]]}.", "Leave that suffix out."
        )


def find_format(head: bytes) -> Format | None:
    """Format of a file that begins with `head` (16 bytes or more), or None."""
    start = _lead(head)
    for known in formats().values():
        if _sniffs(known, head) or (start and known.is_movable and _sniffs(known, head[start:])):
            return known
    return None


def _sniffs(known: Format, head: bytes) -> bool:
    try:
        return known.sniff(head)
    except Exception as error:
        raise UsageError(
            f"The format {known.name} cannot tell what a file is: {type(error).__name__}: {error}"[:300],
            "Mend `sniff` of that plug-in: it has to answer for any bytes.",
        ) from error


def raster_format(head: bytes) -> str | None:
    """Name of the format that begins with `head` (16 bytes or more), or None."""
    known = find_format(head)
    return None if known is None else known.name


def check_structure(kind: str | Format, data: bytes) -> None:
    """Refuse a file that is cut short or damaged, where its format allows telling.

    Pillow skips the checksums of PNG pixel data, and it allocates the canvas of a GIF or WebP while it opens
    the file; hence this look before.

    Parameters
    ----------
    kind
        Format, or its name as `identify` gives it.
    data
        The whole file.

    Raises
    ------
    BadImageError
        ``truncated``, ``corrupt``, ``too_large`` or ``unsupported``.
    """
    known = formats()[kind] if isinstance(kind, str) else kind
    try:
        known.check(data)
    except (struct.error, IndexError) as error:
        raise BadImageError("truncated", f"The {known.name} ends within its header.") from error


@contextmanager
def damage_of(known: Format) -> Iterator[None]:
    """Take whatever the format of a plug-in raises for damage of the file; featstore's own say what it is."""
    try:
        yield
    except BadImageError:
        raise
    except MemoryError as error:
        if not known.version:
            raise
        raise BadImageError("too_large", f"The {known.name} needs more memory than there is.") from error
    except Exception as error:
        if not known.version:
            raise
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadImageError("corrupt", f"The {known.name} does not decode: {why}") from error


def _lead(head: bytes) -> int:
    found = _LEAD.match(head)
    return found.end() if found else 0


# What else a file can be

# What a web server's script or an editor puts before a picture: a byte order mark, line ends, blanks.
_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?[\t\n\r ]{0,64}")
_BARE = "DICOM without the preamble that marks such files"
_PAIR = "one half of a NIfTI volume (.hdr and .img)"
_ANALYZE = "one half of an Analyze volume (.hdr and .img)"
_MGH = "a volume of FreeSurfer (.mgh, .mgz)"
_FOREIGN = (
    (re.compile(rb"\x00\x00\x00.ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\x00\x00\x00\x0cjP  \r\n"), "JPEG 2000, damaged in transfer"),
    (re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb"[\x02\x08]\0[\0-\x18]\0(?:UL|UI|CS|[\x02-\x40]\0\0\0)"), _BARE),
    (re.compile(rb".{344}ni1\0|.{4}ni2\0", re.DOTALL), _PAIR),
    (re.compile(rb"\x5c\x01\0\0|\0\0\x01\x5c"), _ANALYZE),
    (re.compile(rb"\0\0\0\x01(?:\0\0..){3}\0\0\0.\0\0\0[\0-\x04]", re.DOTALL), _MGH),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"PK(?:\x03\x04|\x05\x06)"), "ZIP"),
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\x93NUMPY"), "NumPy"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"NRRD000"), "NRRD"),
    (re.compile(rb"\x00\x00[\x01\x02]\x00"), "icon"),
    (re.compile(rb"II\xbc\x01|WMPHOTO"), "JPEG XR"),
    (re.compile(rb"\x76\x2f\x31\x01"), "OpenEXR"),
    (re.compile(rb"#\?(?:RADIANCE|RGBE)"), "Radiance HDR"),
    (re.compile(rb"P7\s"), "PAM"),
    (re.compile(rb"PF\s"), "a colour PFM"),
    (re.compile(rb"gimp xcf"), "GIMP"),
    (re.compile(rb"qoif"), "QOI"),
    (re.compile(rb"DDS "), "DDS"),
    (re.compile(rb"SIMPLE  ="), "FITS"),
    (re.compile(rb"ObjectType\s*=|NDims\s*="), "MetaImage"),
    (re.compile(rb"MATLAB 5\.0"), "MATLAB"),
    (re.compile(rb"%!PS"), "PostScript"),
    (re.compile(rb"AT&TFORM"), "DjVu"),
    (re.compile(rb"ZISRAWFILE"), "Zeiss CZI"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "an OLE document (Zeiss ZVI, Olympus OIB)"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "7z"),
    (re.compile(rb"Rar!\x1a\x07"), "RAR"),
    (re.compile(rb"BZh[1-9]"), "bzip2"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz"),
)
_TO_NIFTI = "Write it as NIfTI, which is read: SimpleITK.WriteImage(SimpleITK.ReadImage('v{}'), 'v.nii.gz')."
_BY_NIBABEL = "nibabel.save(nibabel.Nifti1Image.from_image(nibabel.load('v{}')), 'v.nii.gz')"
_HINTS = {
    _BARE: "Write it anew with pydicom: dcmread(file, force=True).save_as(file, enforce_file_format=True).",
    _PAIR: f"Join both: {_BY_NIBABEL.format('.hdr')}",
    _ANALYZE: f"Join both: {_BY_NIBABEL.format('.hdr')}",
    _MGH: f"Write it as NIfTI, which is read: {_BY_NIBABEL.format('.mgz')}",
    "HEIC": "Convert it to PNG first, with libheif: heif-dec FILE.heic FILE.png",
    "gzip": "Unpack it first.",
    "ZIP": "Unpack it first.",
    "7z": "Unpack it first.",
    "RAR": "Unpack it first.",
    "bzip2": "Unpack it first.",
    "xz": "Unpack it first.",
    "JPEG 2000, damaged in transfer": "Fetch it again, in binary mode.",
    "MetaImage": _TO_NIFTI.format(".mha"),
    "NRRD": _TO_NIFTI.format(".nrrd"),
    "MATLAB": "Save its arrays, pictures along the first axis: numpy.savez('v.npz',"
    " images=scipy.io.loadmat('v.mat')['NAME']).",
    "SVG": "Render it to PNG first.",
    "PDF": "Extract its figures as PNG first.",
}
_CONVERT = "Convert it to PNG first."
_GZIP = b"\x1f\x8b"
_POINTER = b"version https://git-lfs"
_HTML = re.compile(rb"\s*<(?:!doctype html|html|head|body)", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


def identify_format(head: bytes) -> Format:
    """Format of a file, or the reason why it is none that featstore decodes.

    Parameters
    ----------
    head
        The first `HEAD` bytes of the file, or all of it.

    Returns
    -------
    Format
        One of `formats`.

    Raises
    ------
    BadImageError
        ``empty``, ``lfs_pointer``, ``unsupported`` or ``not_image``.
    """
    if not head:
        raise BadImageError("empty", "The file has 0 bytes.")
    if known := find_format(head):
        return known
    if head.startswith(_POINTER):
        raise BadImageError(
            "lfs_pointer", "The file is a Git-LFS pointer; fetch the image with: git lfs pull"
        )
    if foreign := foreign_format(head):
        raise BadImageError("unsupported", f"The file is {foreign}. {_HINTS.get(foreign, _CONVERT)}")
    raise BadImageError("not_image", _describe(head))


def identify(head: bytes) -> str:
    """Name of the format of a file, such as PNG; see `identify_format`."""
    return identify_format(head).name


def foreign_format(head: bytes) -> str | None:
    """Name of a format that is not decoded; None if that is not known either."""
    if _HTML.match(head[:HEAD]):  # a page may well contain an <svg>
        return None
    if _SVG.search(head[:HEAD]):
        return "SVG"
    if head.startswith(_GZIP):
        with suppress(zlib.error):
            inside = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD)
            return _MGH if foreign_format(inside) == _MGH else "gzip"
    return next((name for magic, name in _FOREIGN if magic.match(head)), None)


def _describe(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "The file begins with zeros only; a download or a copy was cut."
    if _HTML.match(head):
        return "The file is an HTML page; the download was answered with an error page."
    return f"The file begins with {head[:12]!r}, which is no known image format."
