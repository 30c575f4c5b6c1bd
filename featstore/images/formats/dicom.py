"""DICOM: which frames of a file are images, whose they are, and the format itself.

The scan reads headers alone, through pydicom (the extra ``dicom``), which is imported when the first DICOM file is
met. What a file says that it is, is looked at before that: a table of contents or a mask needs no library.
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import IO, TYPE_CHECKING, Any, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import Format, Pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from featstore.images.formats.dicom_pixels import DicomImage
    from featstore.types import Pixels


class Dicom(Format):
    """DICOM: each frame is an image, windowed by the range that was declared."""

    name: ClassVar[str] = "DICOM"
    suffixes: ClassVar[tuple[str, ...]] = (".dcm", ".dicom", ".ima")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb".{128}DICM", re.DOTALL)
    version: ClassVar[str] = "1"
    code: ClassVar[int] = 8
    has_window: ClassVar[bool] = True

    def list_pages(self, file: IO[bytes]) -> Pages:
        """Frames that the header announces, whose they are, and what made them."""
        from featstore.images.formats import dicom_pixels

        refuse_by_class(file)
        header, texts = dicom_pixels.read_header(file, ("PatientID", "IssuerOfPatientID", *SITE_TAGS))
        return Pages(
            tuple(range(header.frames)),
            header.frames,
            ("pages",) if header.frames > 1 else (),
            pseudonym(texts["PatientID"], texts["IssuerOfPatientID"]),
            {tag: texts[tag] for tag in SITE_TAGS if texts[tag]},
        )

    def index(self, data: bytes) -> DicomImage:
        """The header, with what each frame has of its own."""
        from featstore.images.formats import dicom_pixels

        return dicom_pixels.read_image(data)

    def needs_range(self, data: bytes, frame: int, index: Any = None) -> bool:  # noqa: ANN401
        """Whether a frame is grey of more than 8 bits, signed, or in units such as Hounsfield's."""
        return (index or self.index(data)).is_deep(frame)

    def decode(
        self,
        data: bytes,
        frame: int,
        value_range: tuple[float, ...] | None,
        index: Any = None,  # noqa: ANN401
    ) -> tuple[Pixels, Iterable[str]]:
        """Decode one frame; see `Format.decode`."""
        return (index or self.index(data)).decode(frame, value_range), ()

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height from the header."""
        from featstore.images.formats import dicom_pixels

        header, _ = dicom_pixels.read_header(file)
        return header.columns, header.rows

    def bytes_per_pixel(self, file: IO[bytes]) -> float:  # noqa: ARG002
        """Stored values, the same in their unit as double, and what scaling takes."""
        return _BYTES_PER_PIXEL


_BYTES_PER_PIXEL = 24

# What a file is by its own header, of which the first part is always stored in the same way

_START = 132
_META = 1 << 16
"""Bytes within which the first part of a header ends."""
_LONG = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT"})
MEDIA_CLASS, TRANSFER_SYNTAX = 0x0002, 0x0010
_DIRECTORY = "1.2.840.10008.1.3.10"
_NO_PICTURES = {
    _DIRECTORY: "a DICOMDIR, the table of contents of a disc: the pictures are in the other files",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation, a mask that belongs to other pictures",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation, a mask that belongs to other pictures",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose distribution of radiotherapy",
}


def read_meta(head: bytes) -> dict[int, str]:
    """UIDs and texts of group 0002 by their element number, from the first bytes of a file."""
    found: dict[int, str] = {}
    at = _START
    while at + 12 <= len(head):
        group, element, kind, length = struct.unpack_from("<HH2sH", head, at)
        if group != 2:  # noqa: PLR2004
            break
        at += 8
        if kind in _LONG:
            (length,) = struct.unpack_from("<I", head, at)
            at += 4
        found[element] = head[at : at + length].decode("latin-1").strip("\0 ")
        at += length
    return found


def refuse_by_class(file: IO[bytes]) -> None:
    """Refuse what says of itself that it is no picture of a patient.

    Raises
    ------
    BadImageError
        ``no_picture``.
    """
    file.seek(0)
    found = read_meta(file.read(_META)).get(MEDIA_CLASS, "")
    file.seek(0)
    if what := _NO_PICTURES.get(found):
        raise BadImageError("no_picture", f"The DICOM file is {what}.")


# Whose it is: nothing that leaves here names a patient

SITE_TAGS = (
    "Manufacturer", "ManufacturerModelName", "InstitutionName", "InstitutionalDepartmentName", "StationName",
    "DeviceSerialNumber", "SoftwareVersions", "Modality", "ConvolutionKernel", "MagneticFieldStrength",
)  # fmt: skip
"""Keywords that may name a site: those of devices and institutions, none of a person."""
_NOBODY = frozenset({
    "", "0", "anon", "anonymised", "anonymized", "anonymous", "n/a", "na", "none", "null", "patient", "unknown",
})  # fmt: skip


def pseudonym(patient: str, issuer: str = "") -> str | None:
    """Name of a group made of a patient's id, by SHA-256; None where the id says nothing.

    The same id gives the same name everywhere. Who knows or guesses an id can find out whether it is there, since ids
    are few: it is a pseudonym, not anonymous.
    """
    if patient.casefold() in _NOBODY:
        return None
    text = f"featstore patient\0{issuer}\0{patient}"
    return f"patient-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
