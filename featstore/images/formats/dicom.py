"""DICOM: which frames of a file are images, whose they are, and the format itself.

The scan reads headers alone, through pydicom (the extra ``dicom``), which is imported when the first DICOM file is
met. What a file says that it is, is looked at before that: a table of contents or a mask needs no library.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any, ClassVar

from featstore.errors import BadImageError
from featstore.images.formats.container import Format, Pages, Place, origin_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from featstore.images.formats.dicom_pixels import DicomImage
    from featstore.types import Pixels


class Dicom(Format):
    """DICOM: each frame is an image, windowed by the range that was declared."""

    name: ClassVar[str] = "DICOM"
    suffixes: ClassVar[tuple[str, ...]] = (".dcm", ".dicom", ".ima")
    magic: ClassVar[re.Pattern[bytes]] = re.compile(rb".{128}DICM", re.DOTALL)
    version: ClassVar[str] = "2"
    code: ClassVar[int] = 8
    has_window: ClassVar[bool] = True

    def list_pages(self, file: IO[bytes]) -> Pages:
        """Frames that the header announces, in the order of space; whose they are, and what made them."""
        from featstore.images.formats import dicom_pixels

        refuse_by_class(file)
        header, texts, numbers = dicom_pixels.read_header(file, (*_WHOSE, *SITE_TAGS), _WHERE)
        places = {
            frame: place
            for frame, found in enumerate(numbers)
            if (place := find_place(texts["SeriesInstanceUID"], found)) is not None
        }
        notes = {"pages"} if header.frames > 1 else set()
        if _LOCALIZER.search(texts["ImageType"]):
            notes.add("localizer")
        return Pages(
            in_space(range(header.frames), places),
            header.frames,
            tuple(sorted(notes)),
            pseudonym(texts["PatientID"], texts["IssuerOfPatientID"]),
            {tag: texts[tag] for tag in SITE_TAGS if texts[tag]},
            places,
            _keys(texts),
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
        image = index or self.index(data)
        return image.decode(frame, value_range), image.notes(frame, value_range)

    def size(self, file: IO[bytes]) -> tuple[int, int]:
        """Width and height from the header."""
        from featstore.images.formats import dicom_pixels

        header, *_ = dicom_pixels.read_header(file)
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


def _keys(texts: Mapping[str, str]) -> dict[str, str]:
    """What a table of labels may name a file by, as digests."""
    named = {level: texts[keyword] for level, keyword in _KEYS.items()}
    if named["patient"].casefold() in _NOBODY:
        del named["patient"]
    return {level: origin_key(level, text) for level, text in named.items() if text}


# Where it lies: slices of a series in the order of space, whatever they are called and numbered

_KEYS = {
    "patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "file": "SOPInstanceUID",
}  # fmt: skip
_WHOSE = (*_KEYS.values(), "IssuerOfPatientID", "ImageType")
_TIMES = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "EchoNumbers", "EffectiveEchoTime",
    "DiffusionBValue",
)  # fmt: skip
_WHERE = ("ImagePositionPatient", "ImageOrientationPatient", *_TIMES)
_LOCALIZER = re.compile(r"\b(?:LOCALIZER|SCOUT|TOPOGRAM)\b")
_SAME_PLACE = 0.01
"""Slices that are not farther apart are at one place, in mm."""
_GAP = 1.6
"""Spacings, by the usual one of the stack, from which on a slice is missing in between."""
_FEWEST = 4
"""Slices of a stack whose spacing is looked at."""


def find_place(series: str, numbers: Mapping[str, Sequence[float]]) -> Place | None:
    """Place of a slice along the normal of its plane, PS3.3 C.7.6.2.1.1; None where the header does not say it.

    Parameters
    ----------
    series
        SeriesInstanceUID.
    numbers
        What the header says of the slice, by keyword: ``ImagePositionPatient`` in mm, ``ImageOrientationPatient`` as
        two unit vectors, and what tells phases, echoes and weightings at one place apart.
    """
    position, plane = numbers.get("ImagePositionPatient", ()), numbers.get("ImageOrientationPatient", ())
    if not series or len(position) != 3 or len(plane) != 6:  # noqa: PLR2004
        return None
    (a, b, c), (d, e, f) = plane[:3], plane[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    if not 0.9 < length < 1.1:  # noqa: PLR2004
        return None
    direction = [round(part, 2) + 0.0 for part in plane]
    phase = [numbers.get(keyword, ()) for keyword in _TIMES]
    stack = hashlib.sha256(f"{series}\0{direction}\0{phase}".encode()).hexdigest()
    return Place(stack, sum(x * y for x, y in zip(position, normal, strict=True)) / length)


def in_space(pages: Iterable[int], places: Mapping[int, Place]) -> tuple[int, ...]:
    """Put those that lie in one stack into the order of space, each stack within the seats that it has."""
    order = list(pages)
    seats: dict[str, list[int]] = {}
    for seat, page in enumerate(order):
        if page in places:
            seats.setdefault(places[page].stack, []).append(seat)
    found = list(order)
    for mine in seats.values():
        inside = sorted((order[seat] for seat in mine), key=lambda page: places[page].position)
        for seat, page in zip(mine, inside, strict=True):
            found[seat] = page
    return tuple(found)


def spacing_faults(positions: Iterable[float]) -> tuple[int, int]:
    """How many slices of a stack are at the place of another, and how many are missing in between.

    Parameters
    ----------
    positions
        In mm along the normal, in any order.

    Examples
    --------
    >>> spacing_faults([0, 5, 10, 10, 20, 25])
    (1, 1)
    """
    every = sorted(positions)
    steps = [after - before for before, after in pairwise(every)]
    apart = sorted(step for step in steps if step > _SAME_PLACE)
    twice = len(steps) - len(apart)
    if len(apart) < _FEWEST - 1:
        return twice, 0
    usual = apart[len(apart) // 2]
    return twice, sum(round(step / usual) - 1 for step in apart if step > _GAP * usual)
