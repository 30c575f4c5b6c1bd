"""What a file is, by its first bytes and never by its name."""

from __future__ import annotations

import re

from featstore.errors import BadImageError

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
