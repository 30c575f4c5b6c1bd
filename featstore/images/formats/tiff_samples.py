"""Samples of TIFF pages: how they are stored, and how a page becomes pixels.

Those for which Pillow has no mode are read here: 16-bit colour, 64-bit numbers, half floats, signed
bytes. Pillow and libtiff undo the compression, of rows that are described to them as bytes; what the bytes mean is
settled here. So their limits and their hardening hold here, too.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from featstore.errors import BadImageError
from featstore.images.formats import tiff_directory as tags
from featstore.images.formats.container import check_size
from featstore.images.formats.jpeg import check_scans
from featstore.images.formats.pillow import (
    Alpha,
    blamed,
    finish,
    no_native_messages,
    no_warnings,
    read_image,
    window,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from featstore.types import Pixels


# How the samples of a TIFF page are stored, and who can read them: Pillow, featstore, or nobody here

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
_WHOLE_BYTES = {
    tags.UNSIGNED: {8, 16, 32, 64},
    tags.SIGNED: {8, 16, 32, 64},
    tags.FLOAT: {16, 32, 64},
}
_PACKED = frozenset({*range(9, 16), *range(17, 24), *range(25, 32)})
_MOST_EXTRAS_BY_PILLOW = 3
_BYTE, _UNDEFINED = 8, 4


@dataclass(frozen=True, slots=True)
class SampleLayout:
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

    directory: tags.Directory
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
        return self.bits > _BYTE or self.form != tags.UNSIGNED

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
        return self.compression == tags.UNCOMPRESSED

    @property
    def _is_apart(self) -> bool:
        return self.directory.value(tags.PLANAR) == tags.SEPARATE

    @property
    def _is_grey_of_pillow(self) -> bool:
        """Whether Pillow returns the numbers of a deep page as they are stored."""
        order, kind = self.directory.order, (self.photometric, self.form, self.bits)
        if self.compression not in _BY_FEATSTORE or self.directory.value(tags.FILL_ORDER, 1) != 1:
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
        unpredicted = self._is_plain or self.directory.value(tags.PREDICTOR, 1) == 1
        return self.form == tags.UNSIGNED and self.bits in _PACKED and unpredicted

    def describe(self) -> str:
        """Say in a few words what a page holds."""
        form = {tags.SIGNED: "signed ", tags.FLOAT: "float "}.get(self.form, "")
        packed = _COMPRESSIONS.get(self.compression, "")
        channels = f"{self.samples} channel{'s' if self.samples > 1 else ''} of {self.bits}-bit {form}samples"
        named = _NAMES.get(self.photometric, f"photometric interpretation {self.photometric}")
        return f"TIFF with {channels} ({named}{', ' + packed if packed else ''})"


def read_sample_layout(directory: tags.Directory) -> SampleLayout:
    """Read how the samples of a page are stored.

    Raises
    ------
    BadImageError
        ``unsupported`` for compressions, colour spaces and numbers that nothing here decodes.
    """
    compression = directory.value(tags.COMPRESSION, 1)
    photometric = directory.value(tags.PHOTOMETRIC, WHITE_IS_ZERO)
    if compression not in _BY_PILLOW:
        name = _COMPRESSIONS.get(compression, f"code {compression}")
        raise BadImageError("unsupported", f"TIFF with compression {name}; save it with LZW or Deflate.")
    if photometric in _MEANINGS:
        raise BadImageError("unsupported", f"TIFF of {_MEANINGS[photometric]}; convert it to 8-bit RGB.")
    colours = _COLOURS.get(photometric, 1)
    bits = directory.values(tags.BITS, most=tags.MAX_SAMPLES) or (1,)
    default = colours if compression in _JPEG else 1
    samples = directory.value(tags.SAMPLES, default)
    if samples > tags.MAX_SAMPLES:
        raise BadImageError("unsupported", f"TIFF with {samples} channels; convert it to 8-bit grey or RGB.")
    bits = bits[: max(samples, 1)]
    said = directory.values(tags.SAMPLE_FORMAT, most=tags.MAX_SAMPLES)
    forms = {tags.UNSIGNED if form == _UNDEFINED else form for form in said}
    form = max(forms, default=tags.UNSIGNED)
    if len(set(bits)) > 1 or len(forms) > 1 or form not in _WHOLE_BYTES:
        raise BadImageError(
            "unsupported", "TIFF with complex or mixed samples; convert it to 8-bit grey or RGB."
        )
    spare = max(0, samples - colours)
    extras = directory.values(tags.EXTRA_SAMPLES, most=tags.MAX_SAMPLES)
    if not extras and photometric == RGB and spare == 1:
        extras = (2,)  # Pillow, too, takes the fourth for alpha where nothing is said
    extras = (*extras, *(0,) * spare)[:spare]
    return SampleLayout(directory, photometric, compression, colours, extras, form, bits[0])


# Samples for which Pillow has no mode

_MAX_UNPACKED = 170_000_000  # bytes; beyond, Pillow takes the file for a bomb
_LETTERS = {tags.UNSIGNED: "u", tags.SIGNED: "i", tags.FLOAT: "f"}
_BITS_OF_A_BYTE = 8
_HORIZONTAL, _FLOATING = 2, 3


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The strips or tiles of a page: how large, where in the file, and how many bytes each.

    Attributes
    ----------
    width, height
        Of one block, in pixels; a strip is as wide as the page.
    across, down
        How many make up a plane.
    starts, lengths
        One entry per block, plane after plane.
    is_tiled
        Whether they are tiles.
    """

    width: int
    height: int
    across: int
    down: int
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    is_tiled: bool


def read_samples(data: bytes, layout: SampleLayout) -> NDArray[Any]:
    """Colour samples of a page, and its alpha behind them if there is any.

    Returns
    -------
    ndarray, shape (height, width, channels)
        In the stored numbers.

    Raises
    ------
    BadImageError
        ``truncated``, ``corrupt``, ``too_large`` or ``unsupported``.
    """
    wanted = [*range(layout.colours), *([] if layout.alpha is None else [layout.alpha])]
    apart = layout.samples > 1 and layout.directory.value(tags.PLANAR) == tags.SEPARATE
    planes, each = (wanted, 1) if apart else ([0], layout.samples)
    blocks = _blocks(layout, layout.samples if apart else 1)
    read = [_numbers(_rows(data, layout, blocks, plane, each), layout, blocks, each) for plane in planes]
    if apart:
        return np.concatenate(read, axis=2)
    return read[0] if wanted == list(range(layout.samples)) else read[0][..., wanted]


def to_pixels(
    samples: NDArray[Any], layout: SampleLayout, value_range: tuple[float, ...] | None
) -> tuple[Pixels, frozenset[str]]:
    """Make samples grey or RGB: window what is deep, put transparency on black, turn what is inverted.

    Raises
    ------
    BadImageError
        ``nonfinite`` if there is NaN or infinity anywhere.
    """
    inverted = layout.photometric == 0
    colour, alpha = samples[..., : layout.colours], samples[..., layout.colours :]
    if value_range is None:
        shown = 255 - colour if inverted else np.ascontiguousarray(colour)
    else:
        shown = window(colour, value_range, inverted=inverted)
    if not alpha.shape[2]:
        return finish(shown, None)
    opaque = 1.0 if layout.form == tags.FLOAT else float(np.iinfo(samples.dtype).max)
    return finish(shown, Alpha(window(alpha, (0.0, opaque)), is_associated=layout.is_associated))


def _blocks(layout: SampleLayout, planes: int) -> _Blocks:
    directory = layout.directory
    width, height = directory.size
    starts = directory.values(tags.TILE_OFFSETS)
    if starts:
        size = directory.value(tags.TILE_WIDTH), directory.value(tags.TILE_HEIGHT)
        lengths = directory.values(tags.TILE_BYTES)
    else:
        starts, lengths = directory.values(tags.STRIP_OFFSETS), directory.values(tags.STRIP_BYTES)
        size = width, min(directory.value(tags.STRIP_ROWS, height), height)
    if min(*size) < 1:
        raise BadImageError("corrupt", "The TIFF does not say how large its strips or tiles are.")
    across, down = -(-width // size[0]), -(-height // size[1])
    is_tiled = tags.TILE_OFFSETS in directory.fields
    if len(starts) < across * down * planes:
        raise BadImageError(
            "corrupt", f"The TIFF names {len(starts)} of {across * down * planes} strips or tiles."
        )
    return _Blocks(*size, across, down, starts, lengths, is_tiled)


def _rows(data: bytes, layout: SampleLayout, blocks: _Blocks, plane: int, each: int) -> NDArray[np.uint8]:
    """Bytes of one plane, row by row; with tiles, to the end of the last one."""
    height = layout.directory.size[1]
    row = blocks.across * -(-blocks.width * each * layout.bits // _BITS_OF_A_BYTE)
    first = plane * blocks.across * blocks.down
    starts = blocks.starts[first : first + blocks.across * blocks.down]
    lengths = blocks.lengths[first : first + blocks.across * blocks.down]
    is_plain = layout.compression == tags.UNCOMPRESSED and layout.directory.value(tags.FILL_ORDER, 1) == 1
    if is_plain and not blocks.is_tiled:
        return _joined(data, starts, row, blocks.height, height)
    if row * height > _MAX_UNPACKED:
        detail = f"{row * height:,} bytes when unpacked, more than {_MAX_UNPACKED:,}; save it uncompressed."
        raise BadImageError("too_large", detail)
    if len(lengths) < len(starts) or sum(lengths) > len(data):
        raise BadImageError("corrupt", "The TIFF does not say how long its strips or tiles are.")
    return _unpacked(data, layout, blocks, row, starts, lengths)


def _joined(data: bytes, starts: tuple[int, ...], row: int, step: int, height: int) -> NDArray[np.uint8]:
    lengths = [row * min(step, height - top) for top in range(0, height, step)]
    if row * height > len(data) or any(
        start + length > len(data) for start, length in zip(starts, lengths, strict=True)
    ):
        raise BadImageError("truncated", "The TIFF ends before its samples do.")
    view = memoryview(data)
    joined = b"".join(view[start : start + length] for start, length in zip(starts, lengths, strict=True))
    return np.frombuffer(joined, np.uint8).reshape(height, row)


def _unpacked(
    data: bytes,
    layout: SampleLayout,
    blocks: _Blocks,
    row: int,
    starts: tuple[int, ...],
    lengths: tuple[int, ...],
) -> NDArray[np.uint8]:
    """Undo the compression: a TIFF of the same strips or tiles that says they are 8-bit grey."""
    directory = layout.directory
    if any(start + length > len(data) for start, length in zip(starts, lengths, strict=True)):
        raise BadImageError("truncated", "The TIFF ends before its samples do.")
    places, position = [], 0
    for length in lengths:
        places.append(position)
        position += length
    fields: dict[int, tuple[int, ...]] = {
        tags.WIDTH: (row,), tags.HEIGHT: (directory.size[1],), tags.BITS: (_BITS_OF_A_BYTE,), tags.PHOTOMETRIC: (1,),
        tags.COMPRESSION: (layout.compression,), tags.FILL_ORDER: (directory.value(tags.FILL_ORDER, 1),),
        tags.SAMPLES: (1,),
    }  # fmt: skip
    if blocks.is_tiled:
        fields |= {tags.TILE_WIDTH: (row // blocks.across,), tags.TILE_HEIGHT: (blocks.height,)}
        fields |= {tags.TILE_OFFSETS: tuple(places), tags.TILE_BYTES: lengths}
    else:
        fields |= {
            tags.STRIP_ROWS: (blocks.height,),
            tags.STRIP_OFFSETS: tuple(places),
            tags.STRIP_BYTES: lengths,
        }
    view = memoryview(data)
    packed = b"".join(view[start : start + length] for start, length in zip(starts, lengths, strict=True))
    with Image.open(io.BytesIO(tags.tiff_bytes(directory.order, fields, packed)), formats=["TIFF"]) as image:
        with no_native_messages():
            image.load()
        return np.array(image)


def _numbers(rows: NDArray[np.uint8], layout: SampleLayout, blocks: _Blocks, each: int) -> NDArray[Any]:
    """What the bytes of one plane mean, cropped to the page."""
    width, height = layout.directory.size
    if layout.bits % _BITS_OF_A_BYTE:
        return _bit_by_bit(rows, layout.bits, width * each).reshape(height, width, each)
    size, order = layout.bits // _BITS_OF_A_BYTE, layout.directory.order
    predictor = 1 if layout.compression == tags.UNCOMPRESSED else layout.directory.value(tags.PREDICTOR, 1)
    if predictor == _FLOATING and layout.form == tags.FLOAT:
        rows, order = _floating(rows, blocks.across, each, size), ">"
    elif predictor == _HORIZONTAL:
        rows, order = _horizontal(rows, blocks.across, each, np.dtype(f"{order}u{size}")), "="
    elif predictor != 1:
        raise BadImageError("unsupported", f"TIFF with predictor {predictor}; save it without one.")
    dtype = np.dtype(f"{order}{_LETTERS[layout.form]}{size}")
    return np.ascontiguousarray(rows).view(dtype).reshape(height, -1, each)[:, :width]


def _horizontal(rows: NDArray[np.uint8], across: int, each: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo the predictor of whole numbers: differences between neighbours, per row of a strip or tile."""
    native = dtype.newbyteorder("=")
    parts = np.ascontiguousarray(rows).view(dtype).astype(native).reshape(len(rows), across, -1, each)
    summed: NDArray[Any] = np.cumsum(parts, axis=2, dtype=native)
    return summed.reshape(len(rows), -1)


def _floating(rows: NDArray[np.uint8], across: int, each: int, size: int) -> NDArray[np.uint8]:
    """Undo the predictor of floats: differences of bytes, highest bytes first, per row of a strip or tile."""
    parts = rows.reshape(len(rows), across, -1, each)
    summed = np.cumsum(parts, axis=2, dtype=np.uint8).reshape(len(rows), across, size, -1)
    return np.ascontiguousarray(summed.swapaxes(2, 3)).reshape(len(rows), -1)


def _bit_by_bit(rows: NDArray[np.uint8], bits: int, columns: int) -> NDArray[np.uint32]:
    """Numbers that share bytes, highest bit first, each row on a byte of its own."""
    numbers = np.zeros((len(rows), columns), np.uint32)
    for top in range(0, len(rows), step := max(1, (1 << 22) // (columns * bits))):
        part = np.unpackbits(rows[top : top + step], axis=1)[:, : columns * bits].reshape(-1, columns, bits)
        for bit in range(bits):
            numbers[top : top + step] = numbers[top : top + step] << 1 | part[..., bit]
    return numbers


# A page as pixels

_TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""The same, for arrays."""


def read_page(
    file: io.BytesIO, layout: SampleLayout, value_range: tuple[float, ...] | None
) -> tuple[Pixels, frozenset[str]]:
    """Decode one page of a TIFF.

    Parameters
    ----------
    file
        A TIFF whose first page it is.
    layout
        How that page is stored.
    value_range
        As for `featstore.images.reading.decode`.
    """
    data = file.getvalue()
    if layout.is_jpeg:
        _check_parts(data, layout)
    if layout.needs_own_reader:
        pixels, notes = _read_samples(data, layout, value_range)
    else:
        pixels, notes = read_image(file, data, "TIFF", layout, value_range)
    return pixels, notes | ({"extra_channels"} if layout.has_spare_channels else frozenset())


def _check_parts(data: bytes, layout: SampleLayout) -> None:
    """Look at the JPEG in each strip or tile as at one that is a file; equal tiles may stand in one place."""
    directory = layout.directory
    places = zip(
        directory.values(tags.TILE_OFFSETS) or directory.values(tags.STRIP_OFFSETS),
        directory.values(tags.TILE_BYTES) or directory.values(tags.STRIP_BYTES),
        strict=False,
    )
    parts = set(places)
    if sum(length for _, length in parts) > len(data):
        raise BadImageError("truncated", "The TIFF ends before its samples do.")
    for start, length in parts:
        check_scans(data[start : start + length])


def _read_samples(
    data: bytes, layout: SampleLayout, value_range: tuple[float, ...] | None
) -> tuple[Pixels, frozenset[str]]:
    """Pages for which Pillow has no mode, or a wrong one."""
    if not min(layout.directory.size):
        raise BadImageError("corrupt", "The TIFF does not say how wide and how high it is.")
    check_size(*layout.directory.size)
    if layout.is_deep and value_range is None:
        raise BadImageError("needs_range", f"{layout.describe()}, with no declared range.")
    with no_warnings(), blamed("TIFF"):
        values = read_samples(data, layout)
    pixels, notes = to_pixels(values, layout, value_range if layout.is_deep else None)
    if value_range is not None and not layout.is_deep:
        notes |= {"range_unused"}
    turn = _TURNED.get(layout.directory.value(tags.ORIENTATION, 1))
    return (pixels if turn is None else np.ascontiguousarray(turn(pixels))), notes
