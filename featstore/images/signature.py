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
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    # Two letters are too little ("BMW ..."): the size of the second header is one of seven numbers.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"P(?:[1-6]|[Ff])[\s#]"), "PPM"),
)
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
)
_HINTS = {
    "DICOM": "Export the slices as PNG with a fixed window first.",
    "NIfTI": "Export the slices as PNG with a fixed window first.",
    "gzip": "Unpack it first (a .nii.gz: export its slices as PNG).",
    "ZIP": "Unpack it first.",
    "SVG": "Render it to PNG first.",
    "PDF": "Extract its figures as PNG first.",
}
_CONVERT = "Convert it to PNG first."
_POINTER = b"version https://git-lfs"
_HTML = re.compile(rb"\s*<(?:!doctype html|html|head|body)", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


def raster_format(head: bytes) -> str | None:
    """Pillow's name of the raster format that begins with `head` (16 bytes or more), or None."""
    return next((name for magic, name in _RASTERS if magic.match(head)), None)


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
