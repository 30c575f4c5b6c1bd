"""Samples of TIFF pages for which Pillow has no mode: 16-bit colour, 64-bit numbers, half floats, signed bytes.

Pillow and libtiff undo the compression, of rows that are described to them as bytes; what the bytes mean is settled
here. So their limits and their hardening hold here, too.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from featstore.errors import BadImageError
from featstore.images import tiff
from featstore.images.pixels import Alpha, finish, window
from featstore.images.quiet import no_native_messages
from featstore.images.tiff import FLOAT, SEPARATE, SIGNED, UNCOMPRESSED, UNSIGNED

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from featstore.images.layout import Layout
    from featstore.types import Pixels

_MAX_UNPACKED = 170_000_000  # bytes; beyond, Pillow takes the file for a bomb
_LETTERS = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}
_BYTE = 8
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


def read_samples(data: bytes, layout: Layout) -> NDArray[Any]:
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
    apart = layout.samples > 1 and layout.directory.value(tiff.PLANAR) == SEPARATE
    planes, each = (wanted, 1) if apart else ([0], layout.samples)
    blocks = _blocks(layout, layout.samples if apart else 1)
    read = [_numbers(_rows(data, layout, blocks, plane, each), layout, blocks, each) for plane in planes]
    if apart:
        return np.concatenate(read, axis=2)
    return read[0] if wanted == list(range(layout.samples)) else read[0][..., wanted]


def to_pixels(
    samples: NDArray[Any], layout: Layout, value_range: tuple[float, float] | None
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
    opaque = 1.0 if layout.form == FLOAT else float(np.iinfo(samples.dtype).max)
    return finish(shown, Alpha(window(alpha, (0.0, opaque)), is_associated=layout.is_associated))


def _blocks(layout: Layout, planes: int) -> _Blocks:
    directory = layout.directory
    width, height = directory.size
    starts = directory.values(tiff.TILE_OFFSETS)
    if starts:
        size = directory.value(tiff.TILE_WIDTH), directory.value(tiff.TILE_HEIGHT)
        lengths = directory.values(tiff.TILE_BYTES)
    else:
        starts, lengths = directory.values(tiff.STRIP_OFFSETS), directory.values(tiff.STRIP_BYTES)
        size = width, min(directory.value(tiff.STRIP_ROWS, height), height)
    if min(*size) < 1:
        raise BadImageError("corrupt", "The TIFF does not say how large its strips or tiles are.")
    across, down = -(-width // size[0]), -(-height // size[1])
    is_tiled = tiff.TILE_OFFSETS in directory.fields
    if len(starts) < across * down * planes:
        raise BadImageError(
            "corrupt", f"The TIFF names {len(starts)} of {across * down * planes} strips or tiles."
        )
    return _Blocks(*size, across, down, starts, lengths, is_tiled)


def _rows(data: bytes, layout: Layout, blocks: _Blocks, plane: int, each: int) -> NDArray[np.uint8]:
    """Bytes of one plane, row by row; with tiles, to the end of the last one."""
    height = layout.directory.size[1]
    row = blocks.across * -(-blocks.width * each * layout.bits // _BYTE)
    first = plane * blocks.across * blocks.down
    starts = blocks.starts[first : first + blocks.across * blocks.down]
    lengths = blocks.lengths[first : first + blocks.across * blocks.down]
    is_plain = layout.compression == UNCOMPRESSED and layout.directory.value(tiff.FILL_ORDER, 1) == 1
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
    data: bytes, layout: Layout, blocks: _Blocks, row: int, starts: tuple[int, ...], lengths: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Undo the compression: a TIFF of the same strips or tiles that says they are 8-bit grey."""
    directory = layout.directory
    if any(start + length > len(data) for start, length in zip(starts, lengths, strict=True)):
        raise BadImageError("truncated", "The TIFF ends before its samples do.")
    places, position = [], 0
    for length in lengths:
        places.append(position)
        position += length
    tags: dict[int, tuple[int, ...]] = {
        tiff.WIDTH: (row,), tiff.HEIGHT: (directory.size[1],), tiff.BITS: (_BYTE,), tiff.PHOTOMETRIC: (1,),
        tiff.COMPRESSION: (layout.compression,), tiff.FILL_ORDER: (directory.value(tiff.FILL_ORDER, 1),),
        tiff.SAMPLES: (1,),
    }  # fmt: skip
    if blocks.is_tiled:
        tags |= {tiff.TILE_WIDTH: (row // blocks.across,), tiff.TILE_HEIGHT: (blocks.height,)}
        tags |= {tiff.TILE_OFFSETS: tuple(places), tiff.TILE_BYTES: lengths}
    else:
        tags |= {
            tiff.STRIP_ROWS: (blocks.height,),
            tiff.STRIP_OFFSETS: tuple(places),
            tiff.STRIP_BYTES: lengths,
        }
    view = memoryview(data)
    packed = b"".join(view[start : start + length] for start, length in zip(starts, lengths, strict=True))
    with Image.open(io.BytesIO(tiff.tiff_bytes(directory.order, tags, packed)), formats=["TIFF"]) as image:
        with no_native_messages():
            image.load()
        return np.array(image)


def _numbers(rows: NDArray[np.uint8], layout: Layout, blocks: _Blocks, each: int) -> NDArray[Any]:
    """What the bytes of one plane mean, cropped to the page."""
    width, height = layout.directory.size
    if layout.bits % _BYTE:
        return _bit_by_bit(rows, layout.bits, width * each).reshape(height, width, each)
    size, order = layout.bits // _BYTE, layout.directory.order
    predictor = 1 if layout.compression == UNCOMPRESSED else layout.directory.value(tiff.PREDICTOR, 1)
    if predictor == _FLOATING and layout.form == FLOAT:
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
