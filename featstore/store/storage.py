"""What an HDF5 data set keeps in the file, against what it announces; looked at before HDF5 unpacks any of it.

HDF5 1.14 trusts a chunk to be as long as its filters left it. A shorter one is read beyond its end: heap bytes as
values, or the death of the process (HDFGroup/hdf5 #6488, #6579, #6585). So the stored size of every chunk must be
exactly what the filters give, and the filters are the three that everybody has, each once, in an order that some
library writes.
"""

from __future__ import annotations

import math
import zlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5d, h5z

if TYPE_CHECKING:
    from collections.abc import Collection

SHUFFLE, DEFLATE, FLETCHER32 = h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32
FILTERS = {DEFLATE: "gzip", SHUFFLE: "shuffle", FLETCHER32: "fletcher32"}
CHECKSUM = 4
"""Bytes that Fletcher-32 adds."""
ORDERS = {
    (), (SHUFFLE,), (DEFLATE,), (FLETCHER32,), (SHUFFLE, DEFLATE), (SHUFFLE, FLETCHER32), (DEFLATE, FLETCHER32),
    (SHUFFLE, DEFLATE, FLETCHER32), (FLETCHER32, SHUFFLE), (FLETCHER32, DEFLATE), (FLETCHER32, SHUFFLE, DEFLATE),
}  # fmt: skip
"""Bytes are sorted before they are packed, and the checksum comes last (h5py, netCDF) or first (PyTables)."""
LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}


@dataclass(slots=True)
class Extents:
    """Which bytes of the file the values take: none may be taken twice, else a small file holds a large one."""

    size: int
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))

    def take(self, name: str, start: int | None, size: int) -> None:
        """Note bytes; ValueError if they are not in the file."""
        if start is None or start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"{name} keeps values beyond the end of the file")
        self.starts.append(start)
        self.sizes.append(size)

    def require_apart(self) -> None:
        """ValueError if bytes are taken twice."""
        starts, sizes = np.array(self.starts, np.int64), np.array(self.sizes, np.int64)
        order = np.lexsort((sizes, starts))
        ends = (starts + sizes)[order]
        if (ends[:-1] > starts[order][1:]).any():
            raise ValueError("the same bytes of it are the values of several places")


def check_layout(name: str, dataset: Any, allowed: Collection[int]) -> None:  # noqa: ANN401
    """ValueError if values lie elsewhere, or went through filters not `allowed` or in an order that nobody writes."""
    plan = dataset.id.get_create_plist()
    if plan.get_layout() not in LAYOUTS or plan.get_external_count():
        raise ValueError(f"{name} keeps its values outside the file")
    pipeline = [plan.get_filter(number) for number in range(plan.get_nfilters())]
    codes = tuple(code for code, *_ in pipeline)
    unknown = next((code for code in codes if code not in allowed), None)
    if unknown is not None:
        raise ValueError(f"{name} has gone through the filter {FILTERS.get(unknown, unknown)}")
    if codes not in ORDERS:
        shown = ", ".join(FILTERS[code] for code in codes[:8])
        raise ValueError(f"{name} has gone through filters in an order that no program writes ({shown})")
    for code, _, options, _ in pipeline:
        if not _is_plausible(code, options, dataset.id.get_type().get_size()):
            raise ValueError(f"{name} has gone through {FILTERS[code]} with options {options[:8]}")


def _is_plausible(code: int, options: tuple[int, ...], width: int) -> bool:
    if code == DEFLATE:
        return len(options) == 1 and options[0] <= zlib.Z_BEST_COMPRESSION
    return options == ((width,) if code == SHUFFLE else ())


def check_storage(name: str, dataset: Any, extents: Extents) -> None:  # noqa: ANN401
    """ValueError if not every value has its place in the file, or a place is of another size than it must be."""
    found, shape, width = dataset.id, dataset.shape, dataset.id.get_type().get_size()
    layout, size = found.get_create_plist().get_layout(), math.prod(shape) * width
    if layout == h5d.CHUNKED:
        _check_chunks(name, dataset, math.prod(dataset.chunks) * width, extents)
    elif found.get_storage_size() != size:
        raise ValueError(f"{name} announces {shape}, and not all of that is in the file")
    elif layout == h5d.CONTIGUOUS and size:
        extents.take(name, found.get_offset(), size)


def check_inflation(name: str, dataset: Any) -> None:  # noqa: ANN401
    """ValueError if a packed chunk is not, unpacked, of the size that it must be; after `check_storage`."""
    codes = _codes(dataset.id)
    if DEFLATE not in codes:
        return
    size = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    for number, place in enumerate(np.ndindex(*_grid(dataset))):
        corner = tuple(at * chunk for at, chunk in zip(place, dataset.chunks, strict=True))
        _, stored = dataset.id.read_direct_chunk(corner)
        _check_inflation(f"chunk {number} of {name}", stored, codes, size)


def _codes(found: Any) -> tuple[int, ...]:  # noqa: ANN401
    plan = found.get_create_plist()
    return tuple(plan.get_filter(number)[0] for number in range(plan.get_nfilters()))


def _grid(dataset: Any) -> tuple[int, ...]:  # noqa: ANN401
    return tuple(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))


def _check_chunks(name: str, dataset: Any, size: int, extents: Extents) -> None:  # noqa: ANN401
    chunks, grid, codes = dataset.chunks, _grid(dataset), _codes(dataset.id)
    fixed = None if DEFLATE in codes else size + CHECKSUM * (FLETCHER32 in codes)
    count, places = math.prod(grid), array("q")

    def look(chunk: Any) -> None:  # noqa: ANN401
        which = f"chunk {len(places)} of {name}"
        at = _place(chunk.chunk_offset, chunks, grid)
        if at is None or len(places) == count:
            raise ValueError(f"{which} is where none belongs")
        if chunk.filter_mask:
            unpacked = f", and does not inflate to the {size:,} bytes that it should" if fixed is None else ""
            raise ValueError(f"{which} has skipped a filter{unpacked}")
        if fixed is not None and chunk.size != fixed:
            raise ValueError(f"{which} has {chunk.size:,} bytes, and must have {fixed:,}")
        extents.take(which, chunk.byte_offset, chunk.size)
        places.append(at)

    if count <= extents.size:
        dataset.id.chunk_iter(look)
    if len(places) != count or len(np.unique(places)) != count:
        raise ValueError(f"{name} announces {dataset.shape}, and not all of that is in the file")


def _place(corner: tuple[int, ...], chunks: tuple[int, ...], grid: tuple[int, ...]) -> int | None:
    """Number of a chunk in its grid; None where it lies beside."""
    at = 0
    for start, chunk, count in zip(corner, chunks, grid, strict=True):
        number, rest = divmod(start, chunk)
        if rest or not 0 <= number < count:
            return None
        at = at * count + number
    return at


def _check_inflation(name: str, stored: bytes, codes: tuple[int, ...], size: int) -> None:
    """Inflate a chunk with a bound: HDF5 would go on as long as there is something to inflate."""
    packed = stored[: len(stored) - CHECKSUM] if codes[-1] == FLETCHER32 else stored
    wanted = size + CHECKSUM * (codes[0] == FLETCHER32)
    stream = zlib.decompressobj()
    try:
        inflated = len(stream.decompress(packed, wanted + 1))
    except zlib.error as error:
        raise ValueError(f"{name} does not inflate") from error
    if inflated != wanted or not stream.eof or stream.unused_data:
        raise ValueError(f"{name} does not inflate to the {size:,} bytes that it should")
