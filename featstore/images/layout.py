"""How the samples of a TIFF page are stored, and who can read them: Pillow, featstore, or nobody here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featstore.errors import BadImageError
from featstore.images import tiff
from featstore.images.tiff import FLOAT, MAX_SAMPLES, SIGNED, UNCOMPRESSED, UNSIGNED

if TYPE_CHECKING:
    from featstore.images.tiff import Directory

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""Values of PhotometricInterpretation."""
ASSOCIATED = 1
"""Value of ExtraSamples: alpha with which the colours are multiplied already."""

_COLOURS = {RGB: 3, 5: 4, 6: 3, 8: 3}
_ALPHA = frozenset({1, 2, 999})  # 999 is what Corel writes
_JPEG = frozenset({6, 7})
_BY_PILLOW = frozenset({1, 2, 3, 4, 5, *_JPEG, 8, 32771, 32773, 32946, 34925, 50000, 50001})
_OPTIONAL = frozenset(
    {6, 34925, 50000, 50001}
)  # compressions that not every build of Pillow and libtiff knows
_BY_FEATSTORE = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})
_COMPRESSIONS = {
    6: "old-style JPEG", 7: "JPEG", 32809: "ThunderScan", 32908: "PixarFilm", 32909: "PixarLog", 33003: "JPEG 2000",
    33004: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI Log", 34677: "SGI Log 24", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34926: "Zstandard", 34927: "WebP", 34933: "PNG",
    34934: "JPEG XR", 22610: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_MEANINGS = {
    4: "transparency mask", 8: "CIE L*a*b*", 9: "ICC L*a*b*", 10: "ITU L*a*b*", 32803: "camera raw samples",
    32844: "LogL", 32845: "LogLuv", 34892: "linear camera raw",
}  # fmt: skip
_NAMES = {WHITE_IS_ZERO: "grey", BLACK_IS_ZERO: "grey", RGB: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_GREY_BY_PILLOW = {
    "<": {(0, 1, 16), (1, 1, 16), (1, 2, 16), (0, 3, 32), (1, 3, 32), (1, 2, 32), (1, 1, 12)},
    ">": {(1, 1, 16), (1, 2, 16), (0, 3, 32), (1, 3, 32), (1, 2, 32)},
}
"""Photometric interpretation, sample format and bits of the deep greys that Pillow reads without loss."""
_SWAPPED_BY_PILLOW = _GREY_BY_PILLOW[">"] - {(1, 1, 16)}
"""Those that Pillow returns with their bytes swapped, in big-endian files that are compressed."""
_WHOLE_BYTES = {UNSIGNED: {8, 16, 32, 64}, SIGNED: {8, 16, 32, 64}, FLOAT: {16, 32, 64}}
_PACKED = frozenset({*range(9, 16), *range(17, 24), *range(25, 32)})
_MOST_EXTRAS_BY_PILLOW = 3
_BYTE, _UNDEFINED = 8, 4


@dataclass(frozen=True, slots=True)
class Layout:
    """The samples of a page.

    Attributes
    ----------
    directory
        Where all of this is said.
    photometric, compression
        Values of the tags.
    colours
        Samples that are grey (1), RGB (3) or CMYK (4).
    extras
        One entry per further sample: 1 or 2 for alpha, 0 where nothing is said.
    form
        `UNSIGNED`, `SIGNED` or `FLOAT`.
    bits
        Per sample.
    """

    directory: Directory
    photometric: int
    compression: int
    colours: int
    extras: tuple[int, ...]
    form: int
    bits: int

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.colours + len(self.extras)

    @property
    def is_deep(self) -> bool:
        """Whether the values are other than 0..255, so that their range must be declared."""
        return self.bits > _BYTE or self.form != UNSIGNED

    @property
    def alpha(self) -> int | None:
        """Number of the sample that is transparency, if there is one."""
        found = (self.colours + k for k, extra in enumerate(self.extras) if extra in _ALPHA)
        return next(found, None)

    @property
    def is_associated(self) -> bool:
        """Whether the colours are multiplied with alpha already."""
        return ASSOCIATED in self.extras

    @property
    def has_spare_channels(self) -> bool:
        """Whether there are samples that say nothing of what they are."""
        return any(extra not in _ALPHA for extra in self.extras)

    @property
    def is_jpeg(self) -> bool:
        """Whether each strip or tile is a JPEG."""
        return self.compression in _JPEG

    @property
    def is_optional(self) -> bool:
        """Whether the compression is one that not every machine can undo."""
        return self.compression in _OPTIONAL

    @property
    def needs_own_reader(self) -> bool:
        """Whether featstore takes the samples apart itself, since Pillow would refuse or squeeze them.

        Raises
        ------
        BadImageError
            ``unsupported`` where neither of the two can read them.
        """
        is_big = self.directory.is_big and self.directory.order == ">"
        by_pillow = self._is_grey_of_pillow if self.is_deep else not self._has_channels_beyond_pillow
        if by_pillow and not is_big:
            return False
        if not self._is_readable:
            raise BadImageError("unsupported", f"{self.describe()}; convert it to 8-bit grey or RGB.")
        return True

    @property
    def _is_plain(self) -> bool:
        return self.compression == UNCOMPRESSED

    @property
    def _is_apart(self) -> bool:
        return self.directory.value(tiff.PLANAR) == tiff.SEPARATE

    @property
    def _is_grey_of_pillow(self) -> bool:
        """Whether Pillow returns the numbers of a deep page as they are stored."""
        order, kind = self.directory.order, (self.photometric, self.form, self.bits)
        if self.compression not in _BY_FEATSTORE or self.directory.value(tiff.FILL_ORDER, 1) != 1:
            return False
        if order == ">" and not self._is_plain and kind in _SWAPPED_BY_PILLOW:
            return False
        first_of_many = self._is_apart and not self._is_plain and self.colours == 1 and self.alpha is None
        return kind in _GREY_BY_PILLOW[order] and (self.samples == 1 or first_of_many)

    @property
    def _has_channels_beyond_pillow(self) -> bool:
        """Whether there is RGB with more further channels than Pillow skips."""
        many = len(self.extras) > _MOST_EXTRAS_BY_PILLOW or (self._is_apart and self.has_spare_channels)
        return many and self.photometric == RGB and self.bits == _BYTE

    @property
    def _is_readable(self) -> bool:
        known = self.compression in _BY_FEATSTORE and self.photometric in {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB}
        meant = (
            self.photometric == RGB or self.samples == 1 or (len(self.extras) == 1 and self.alpha is not None)
        )
        return known and meant and (self.bits in _WHOLE_BYTES[self.form] or self._is_packed)

    @property
    def _is_packed(self) -> bool:
        """Whether samples share bytes; the predictor of TIFF is not defined for them."""
        unpredicted = self._is_plain or self.directory.value(tiff.PREDICTOR, 1) == 1
        return self.form == UNSIGNED and self.bits in _PACKED and unpredicted

    def describe(self) -> str:
        """Say in a few words what a page holds."""
        form = {SIGNED: "signed ", FLOAT: "float "}.get(self.form, "")
        packed = _COMPRESSIONS.get(self.compression, "")
        channels = f"{self.samples} channel{'s' if self.samples > 1 else ''} of {self.bits}-bit {form}samples"
        named = _NAMES.get(self.photometric, f"photometric interpretation {self.photometric}")
        return f"TIFF with {channels} ({named}{', ' + packed if packed else ''})"


def read_layout(directory: Directory) -> Layout:
    """Read how the samples of a page are stored.

    Raises
    ------
    BadImageError
        ``unsupported`` for compressions, colour spaces and numbers that nothing here decodes.
    """
    compression = directory.value(tiff.COMPRESSION, 1)
    photometric = directory.value(tiff.PHOTOMETRIC, WHITE_IS_ZERO)
    if compression not in _BY_PILLOW:
        name = _COMPRESSIONS.get(compression, f"code {compression}")
        raise BadImageError("unsupported", f"TIFF with compression {name}; save it with LZW or Deflate.")
    if photometric in _MEANINGS:
        raise BadImageError("unsupported", f"TIFF of {_MEANINGS[photometric]}; convert it to 8-bit RGB.")
    colours = _COLOURS.get(photometric, 1)
    bits = directory.values(tiff.BITS, most=MAX_SAMPLES) or (1,)
    default = colours if compression in _JPEG else 1
    samples = directory.value(tiff.SAMPLES, default)
    if samples > MAX_SAMPLES:
        raise BadImageError("unsupported", f"TIFF with {samples} channels; convert it to 8-bit grey or RGB.")
    bits = bits[: max(samples, 1)]
    said = directory.values(tiff.SAMPLE_FORMAT, most=MAX_SAMPLES)
    forms = {UNSIGNED if form == _UNDEFINED else form for form in said}
    form = max(forms, default=UNSIGNED)
    if len(set(bits)) > 1 or len(forms) > 1 or form not in _WHOLE_BYTES:
        raise BadImageError(
            "unsupported", "TIFF with complex or mixed samples; convert it to 8-bit grey or RGB."
        )
    spare = max(0, samples - colours)
    extras = directory.values(tiff.EXTRA_SAMPLES, most=MAX_SAMPLES)
    if not extras and photometric == RGB and spare == 1:
        extras = (2,)  # Pillow, too, takes the fourth for alpha where nothing is said
    extras = (*extras, *(0,) * spare)[:spare]
    return Layout(directory, photometric, compression, colours, extras, form, bits[0])
