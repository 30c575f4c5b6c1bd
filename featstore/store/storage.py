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
from h5py import h5d, h5s, h5z

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

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
        end = 0
        for start, size in sorted(zip(self.starts, self.sizes, strict=True)):
            if start < end:
                raise ValueError("the same bytes of it are the values of several places")
            end = start + size


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A data set as its header describes it.

    Attributes
    ----------
    name
        Its path.
    found, plan, kept
        HDF5's handles of the data set, of how it was created, and of its type in the file.
    shape, dtype, chunks
        As h5py has them.
    pipeline
        Number and options of each filter, in the order of writing.
    """

    name: str
    found: Any
    plan: Any
    kept: Any
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    pipeline: tuple[tuple[int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, name: str, found: Any) -> Stored:  # noqa: ANN401
        """Describe a data set."""
        plan, kept, space = found.get_create_plist(), found.get_type(), found.get_space()
        shape = None if space.get_simple_extent_type() == h5s.NULL else space.get_simple_extent_dims()
        chunks = plan.get_chunk() if plan.get_layout() == h5d.CHUNKED else None
        filters = (plan.get_filter(number) for number in range(plan.get_nfilters()))
        pipeline = tuple((code, options) for code, _, options, _ in filters)
        return cls(name, found, plan, kept, shape, kept.dtype, chunks, pipeline)

    @property
    def codes(self) -> tuple[int, ...]:
        """Numbers of the filters."""
        return tuple(code for code, _ in self.pipeline)

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks in each direction."""
        return tuple(
            -(-side // chunk) for side, chunk in zip(self.shape or (), self.chunks or (), strict=True)
        )

    def check_pipeline(self, allowed: Collection[int]) -> None:
        """ValueError if values lie elsewhere, or went through filters not `allowed` or in an order nobody writes."""
        if self.plan.get_layout() not in LAYOUTS or self.plan.get_external_count():
            raise ValueError(f"{self.name} keeps its values outside the file, in external or virtual storage")
        unknown = next((code for code in self.codes if code not in allowed), None)
        if unknown is not None:
            raise ValueError(f"{self.name} has gone through the filter {FILTERS.get(unknown, unknown)}")
        if self.codes not in ORDERS:
            shown = ", ".join(FILTERS[code] for code in self.codes[:8])
            raise ValueError(
                f"{self.name} has gone through filters in an order that no program writes ({shown})"
            )
        for code, options in self.pipeline:
            if not _is_plausible(code, options, self.kept.get_size()):
                raise ValueError(f"{self.name} has gone through {FILTERS[code]} with options {options[:8]}")

    def check_storage(self, extents: Extents) -> None:
        """ValueError if not every value has its place in the file, or a place is of another size than it must be."""
        if self.chunks is not None:
            self._check_chunks(extents)
            return
        size = math.prod(self.shape or ()) * self.kept.get_size()
        if self.found.get_storage_size() != size:
            raise self._incomplete()
        if size and self.plan.get_layout() == h5d.CONTIGUOUS:
            extents.take(self.name, self.found.get_offset(), size)

    def check_inflation(self) -> None:
        """ValueError if a packed chunk is not, unpacked, of the size that it must be; after `check_storage`."""
        if DEFLATE not in self.codes or self.chunks is None:
            return
        size = math.prod(self.chunks) * self.kept.get_size()
        for number, place in enumerate(np.ndindex(*self.grid)):
            corner = tuple(at * chunk for at, chunk in zip(place, self.chunks, strict=True))
            _, stored = self.found.read_direct_chunk(corner)
            _check_inflation(f"chunk {number} of {self.name}", stored, self.codes, size)

    def values(self) -> NDArray[Any]:
        """Read all of it; after the checks."""
        values: NDArray[Any] = np.empty(self.shape or (), self.dtype)
        if values.size:
            self.found.read(h5s.ALL, h5s.ALL, values)
        return values

    def _incomplete(self) -> ValueError:
        return ValueError(f"{self.name} announces {self.shape}, and not all of that is in the file")

    def _check_chunks(self, extents: Extents) -> None:
        chunks, grid, places = self.chunks or (), self.grid, array("q")
        size, packed = math.prod(chunks) * self.kept.get_size(), DEFLATE in self.codes
        fixed, count = size + CHECKSUM * (FLETCHER32 in self.codes), math.prod(grid)

        def look(chunk: Any) -> None:  # noqa: ANN401
            which = f"chunk {len(places)} of {self.name}"
            at = _place(chunk.chunk_offset, chunks, grid)
            if at is None or len(places) == count:
                raise ValueError(f"{which} is where none belongs")
            if chunk.filter_mask:
                unpacked = f", and does not inflate to the {size:,} bytes that it should" if packed else ""
                raise ValueError(f"{which} has skipped a filter{unpacked}")
            if not packed and chunk.size != fixed:
                raise ValueError(f"{which} has {chunk.size:,} bytes, and must have {fixed:,}")
            extents.take(which, chunk.byte_offset, chunk.size)
            places.append(at)

        if count <= extents.size:
            self.found.chunk_iter(look)
        if len(places) != count or len(set(places)) != count:
            raise self._incomplete()


def _is_plausible(code: int, options: tuple[int, ...], width: int) -> bool:
    if code == DEFLATE:
        return len(options) == 1 and options[0] <= zlib.Z_BEST_COMPRESSION
    return options == ((width,) if code == SHUFFLE else ())


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
