"""Container formats of images: the format of a file by its first bytes, and checks before it is decoded."""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from featstore.errors import BadImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# What a file is, by its first bytes and never by its name

HEAD = 1024

SUFFIXES = {
    ".bmp": "BMP", ".dib": "BMP", ".gif": "GIF", ".jfif": "JPEG", ".jpe": "JPEG", ".jpeg": "JPEG",
    ".jpg": "JPEG", ".pbm": "PPM", ".pgm": "PPM", ".png": "PNG", ".pnm": "PPM", ".ppm": "PPM",
    ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
"""Usual suffix -> format, as Pillow names it."""

_RASTERS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    # Some writers put stray bytes behind the first marker, which decoders of JPEG are told to skip.
    (re.compile(rb"\xff\xd8(?:\xff|[^\xff]{1,64}\xff[\xc0-\xfe])"), "JPEG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    # Two letters are too little ("BMW ..."): the size of the second header is one of seven numbers.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"P[1-6f][\s#]"), "PPM"),
)
_STRAY = re.compile(rb"\xff\xd8([^\xff]{1,64})\xff[\xc0-\xfe]")
# What a web server's script or an editor puts before a picture: a byte order mark, line ends, blanks.
_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?[\t\n\r ]{0,64}")
_MOVABLE = frozenset({"GIF", "JPEG", "PNG", "WEBP"})  # formats whose offsets do not count from the first byte
_FOREIGN = (
    (re.compile(rb"\x00\x00\x00.ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"\x00\x00\x00.ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\x00\x00\x00\x0cjP  \r\n|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"), "JPEG XL"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM"),
    (re.compile(rb".{344}n[i+]1\0|.{4}n[i+]2\0", re.DOTALL), "NIfTI"),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"PK(?:\x03\x04|\x05\x06)"), "ZIP"),
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), "HDF5"),
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
_HINTS = {
    "DICOM": "Export the slices as PNG with a fixed window first.",
    "NIfTI": "Export the slices as PNG with a fixed window first.",
    "gzip": "Unpack it first (a .nii.gz: export its slices as PNG).",
    "ZIP": "Unpack it first.",
    "7z": "Unpack it first.",
    "RAR": "Unpack it first.",
    "bzip2": "Unpack it first.",
    "xz": "Unpack it first.",
    "MetaImage": "Export the slices as PNG with a fixed window first.",
    "MATLAB": "Export its arrays as PNG with a fixed window first.",
    "SVG": "Render it to PNG first.",
    "PDF": "Extract its figures as PNG first.",
}
_CONVERT = "Convert it to PNG first."
_POINTER = b"version https://git-lfs"
_HTML = re.compile(rb"\s*<(?:!doctype html|html|head|body)", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


def raster_format(head: bytes) -> str | None:
    """Pillow's name of the raster format that begins with `head` (16 bytes or more), or None."""
    if (name := _named(head, 0)) is None and (start := _start(head)):
        name = _named(head, start)
        return name if name in _MOVABLE else None
    return name


def without_stray_bytes(data: bytes) -> bytes:
    """Take away blanks before a picture and bytes between the first two markers of a JPEG; else `data` itself."""
    if (start := _start(data)) and raster_format(data[:HEAD]) in _MOVABLE:
        data = data[start:]
    stray = _STRAY.match(data)
    return data if stray is None else data[:2] + data[stray.end(1) :]


def _named(head: bytes, start: int) -> str | None:
    return next((name for magic, name in _RASTERS if magic.match(head, start)), None)


def _start(head: bytes) -> int:
    found = _LEAD.match(head)
    return found.end() if found else 0


def identify(head: bytes) -> str:
    """Name the raster format of a file, or say why it is none that featstore decodes.

    Parameters
    ----------
    head
        The first `HEAD` bytes of the file, or all of it.

    Returns
    -------
    str
        BMP, GIF, JPEG, PNG, PPM, TIFF or WEBP.

    Raises
    ------
    BadImageError
        ``empty``, ``lfs_pointer``, ``unsupported`` or ``not_image``.
    """
    if not head:
        raise BadImageError("empty", "The file has 0 bytes.")
    if name := raster_format(head):
        return name
    if head.startswith(_POINTER):
        raise BadImageError(
            "lfs_pointer", "The file is a Git-LFS pointer; fetch the image with: git lfs pull"
        )
    if foreign := _foreign_format(head):
        raise BadImageError("unsupported", f"The file is {foreign}. {_HINTS.get(foreign, _CONVERT)}")
    raise BadImageError("not_image", _describe(head))


def _foreign_format(head: bytes) -> str | None:
    if _HTML.match(head[:HEAD]):  # a page may well contain an <svg>
        return None
    if _SVG.search(head[:HEAD]):
        return "SVG"
    return next((name for magic, name in _FOREIGN if magic.match(head)), None)


def _describe(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "The file begins with zeros only; a download or a copy was cut."
    if _HTML.match(head):
        return "The file is an HTML page; the download was answered with an error page."
    return f"The file begins with {head[:12]!r}, which is no known image format."


# What the container promises, checked before a decoder allocates or forgives anything

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
        Format, as `identify` names it.
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
