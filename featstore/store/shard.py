"""Shards as bytes: rows of (image id, vector) for one feature key, encoded and decoded in memory.

Working on bytes keeps two promises cheap. The name of a shard is the SHA-256 of exactly what is written; and a reader
hashes exactly what it then opens, so that a file that changes in between cannot slip through, and damaged HDF5, which
can hang the library, never reaches it. Ids, by the hundred thousand, are sorted arrays of 32 bytes each with the
arithmetic of a set (`IdSet`).
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from h5py import h5s

from featstore import serialization
from featstore.errors import RefusedFileError, ShardCorruptError
from featstore.store.hdf5_guard import SIGNATURE, Bytes, Limits, PlainContent, view_plain
from featstore.types import Computation, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import Features

    PackedIds = NDArray[np.bytes_]


# Shards

FORMAT = 1
ID_BYTES = 32
MAX_SHARD_BYTES = 1 << 31
LIMITS = Limits(members=2, depth=1, values=None, filters=frozenset({h5py.h5z.FILTER_FLETCHER32}))
REMEDY = (
    "Run `featstore extract` again (for imported features `featstore cache import`): it adds what is missing."
)


UNRECORDED = Computation()


@dataclass(frozen=True, slots=True)
class Shard:
    """Content of one shard file.

    Attributes
    ----------
    key
        Address of all its rows.
    packed
        ``(n,)`` image ids, 32 bytes each, in row order.
    features
        ``(n, dimension)`` float32; most often a read-only view of the bytes that were hashed.
    computation
        Batch, engine, device and libraries of the rows, as far as they were recorded.
    """

    key: FeatureKey
    packed: PackedIds
    features: Features
    computation: Computation = UNRECORDED

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids, 64 hex digits each, in row order."""
        text, width = self.packed.tobytes().hex(), 2 * ID_BYTES
        return tuple(text[at : at + width] for at in range(0, len(text), width))


def encode(
    key: FeatureKey, ids: Sequence[str], features: Features, computation: Computation = UNRECORDED
) -> bytes:
    """Serialise rows to the bytes of an HDF5 file; equal content gives equal bytes.

    Parameters
    ----------
    key
        Address of the rows.
    ids
        Image ids, distinct.
    features
        ``(len(ids), key.backbone.dimension)`` float32, finite.
    computation
        What is known of batch, engine, device and libraries, which may move last bits (law 2).

    Raises
    ------
    ValueError
        If shapes, dtype or ids do not fit, or a value is not finite.
    """
    features = np.ascontiguousarray(features)
    if features.shape != (len(ids), key.backbone.dimension) or features.dtype != np.float32:
        raise ValueError(f"rows are {features.shape} {features.dtype}, not those of {key.backbone}")
    if len(set(ids)) != len(ids):
        raise ValueError("an image id stands twice in one shard")
    if not np.isfinite(features).all():
        raise ValueError("a feature is not finite")
    recorded = tuple(
        (name, value, type(value)) for name, value in asdict(computation).items() if value is not None
    )
    before, between = _frame(serialization.canonical_json(key.to_json()), *features.shape, recorded)
    return b"".join((before, pack_ids(ids).data, between, features.data))


@lru_cache(64)
def _frame(
    key: str, rows: int, dimension: int, recorded: tuple[tuple[str, Any, type], ...]
) -> tuple[bytes, bytes]:
    """What HDF5 writes before the ids and between them and the features, which come last.

    It depends on no id and no value, since no checksum of HDF5 is asked for, and takes as long as half a megabyte of
    SHA-256: shards of the same key and length share it. Types are told, since 1 and True are equal and not written
    alike.
    """
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        contents: dict[str, NDArray[Any]] = {
            "ids": np.zeros((rows, ID_BYTES), np.uint8),
            "features": np.zeros((rows, dimension), np.float32),
        }
        places = [
            file.create_dataset(name, values.shape, values.dtype, track_times=False)
            for name, values in contents.items()
        ]
        file.attrs["format"] = FORMAT
        file.attrs["key"] = key
        file.attrs["rows"] = rows
        for name, value, _ in recorded:
            file.attrs[name] = value
        file.attrs["h5py"] = h5py.__version__
        file.attrs["numpy"] = np.__version__
        # In one piece each, which a reader can use where it lies; the name of the shard is their checksum. They get
        # their place last, behind all that HDF5 looks at in opening the file, and now: the last reference may be held
        # by a profiler, such as that of a dask worker, and equal content would have unequal bytes.
        for place, values in zip(places, contents.values(), strict=True):
            place.id.write(h5s.ALL, h5s.ALL, values)
        ids_at, features_at = (place.id.get_offset() for place in places)
    if not rows:
        return data.getvalue(), b""
    written, ids_end = data.getbuffer(), ids_at + contents["ids"].nbytes
    if not ids_end <= features_at == len(written) - contents["features"].nbytes:
        raise ValueError("HDF5 did not put ids and features last, in this order")
    return bytes(written[:ids_at]), bytes(written[ids_end:features_at])


def decode(data: Bytes) -> Shard:
    """Read back what `encode` wrote, refusing everything else; its features are views of `data`, if they can be.

    Raises
    ------
    ShardCorruptError
        If the bytes are not a shard of this format.
    """
    try:
        return _checked(view_plain(data, LIMITS))
    except RefusedFileError as error:
        raise ShardCorruptError(error.cause, REMEDY) from error
    except (LookupError, ValueError, TypeError, ArithmeticError) as error:
        why = str(error).partition("\n")[0]
        raise ShardCorruptError(f"Not a feature shard: {why}.", REMEDY) from error


def _is_finite(features: Features) -> bool:
    """Whether all values are. Their sum, which takes no memory, is finite only then, but for an overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(features.sum()) or np.isfinite(features).all())


def read(path: Path, memory: serialization.WorkingMemory | None = None) -> Shard:
    """Read a shard file: its bytes, whose hash must be that of its name, before anything is made of them.

    Parameters
    ----------
    path
        The file.
    memory
        Where its bytes go; the features are good until those of another file go there. None for memory of their own.

    Raises
    ------
    ShardCorruptError
        If the bytes are not what the name promises, or not a shard.
    OSError
        If they cannot be read.
    """
    try:
        data = serialization.read_regular_into(
            memory or serialization.WorkingMemory(), path, MAX_SHARD_BYTES, follow_links=False
        )
    except serialization.UnfitFileError as error:
        raise ShardCorruptError(f"Not a feature shard: {error.strerror}.", REMEDY) from error
    if serialization.digest_bytes(data) != path.stem:
        raise ShardCorruptError("Its bytes are not those of its name.", REMEDY)
    return decode(data)


def pack_ids(ids: Sequence[str]) -> NDArray[np.uint8]:
    """``(N, 32)`` bytes from hex ids. Not an HDF5 string type: those drop trailing zero bytes."""
    return np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, ID_BYTES)


def _checked(plain: PlainContent) -> Shard:
    found, arrays = plain.attributes, plain.arrays
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']}, this version reads {FORMAT}")
    if set(arrays) != {"ids", "features"}:
        raise ValueError(f"holds {sorted(arrays)}, not ids and features")
    ids, features = arrays["ids"], arrays["features"]
    if ids.dtype != np.dtype("u1") or features.dtype != np.dtype("<f4"):
        raise ValueError(f"ids are {ids.dtype}, features {features.dtype}")
    key = FeatureKey.from_json(serialization.parse_json(found["key"]))
    rows = int(found["rows"])
    if (ids.shape, features.shape) != ((rows, ID_BYTES), (rows, key.backbone.dimension)):
        raise ValueError(f"{rows} rows announced, {ids.shape} ids and {features.shape} features found")
    if not _is_finite(features):
        raise ValueError("a value is not finite")
    packed = np.ascontiguousarray(ids).view(ID_DTYPE).reshape(rows)
    if len(IdSet.of_packed(packed)) != rows:
        raise ValueError("an image id stands twice in it")
    return Shard(key, packed, features, _computation(found))


def _computation(found: Mapping[str, Any]) -> Computation:
    batch_size = found.get("batch_size")
    texts = {name: found.get(name) for name in ("engine", "device", "libraries")}
    if not all(text is None or isinstance(text, str) for text in texts.values()):
        raise ValueError(f"what computed it is not told by texts: {texts}")
    return Computation(None if batch_size is None else int(batch_size), **texts)


# First bytes of a shard: enough to see that a file was cut short or is something else

END_OF_FILE = {0: (40, 48), 1: (44, 52), 2: (28, 36), 3: (28, 36)}
"""Where the superblock of each version keeps the length of the file (HDF5 File Format Specification, II.A)."""
LONGEST = 52
DIGEST = re.compile(r"[0-9a-f]{64}")


def check_header(path: Path) -> int:
    """Return 0 if name, header and size of a shard file belong together.

    Raises
    ------
    ShardCorruptError
        If they do not.
    """
    if not DIGEST.fullmatch(path.stem):
        raise ShardCorruptError("its name is no SHA-256", REMEDY)
    try:
        with serialization.open_regular(path, follow_links=False) as file:
            start, size = file.read(LONGEST), os.fstat(file.fileno()).st_size
    except serialization.UnfitFileError as error:
        raise ShardCorruptError(str(error.strerror), REMEDY) from error
    if not start.startswith(SIGNATURE) or len(start) < LONGEST or start[8] not in END_OF_FILE:
        raise ShardCorruptError("it does not begin like an HDF5 file", REMEDY)
    first, last = END_OF_FILE[start[8]]
    announced = int.from_bytes(start[first:last], "little")
    if announced != size:
        raise ShardCorruptError(f"it has {size} bytes, and its header says {announced}", REMEDY)
    return 0


# Plain HDF5 for other people's scripts: arrays by name, readable by anything that reads HDF5


def encode_arrays(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, str]) -> bytes:
    """Serialise arrays to the bytes of an HDF5 file without filters; equal content gives equal bytes.

    Parameters
    ----------
    arrays
        Numbers, or fixed-length bytes (``S``), by data set name.
    attributes
        Text, attached to the root.
    """
    with h5py.File.in_memory() as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, track_times=False).flush()
        for name, text in attributes.items():
            file.attrs[name] = text
        file.flush()
        return bytes(file.id.get_file_image())


ID_DTYPE = np.dtype("S32")
"""numpy compares such strings as if zero-padded, so ids of one width compare exactly; `tolist` would strip zeros."""


def pack(ids: Iterable[str]) -> PackedIds:
    """``(N,)`` of 32 bytes each from hex ids, in their order."""
    return np.frombuffer(bytes.fromhex("".join(ids)), ID_DTYPE)


@dataclass(frozen=True, slots=True, eq=False)
class IdSet(AbstractSet[str]):
    """An immutable set of image ids; equal to any other set of the same hex ids.

    Seven million ids as Python strings need a gigabyte; as sorted bytes, a fifth, and a difference is one
    binary search that numpy does.

    Attributes
    ----------
    rows
        ``(N,)`` of 32 bytes each, ascending, distinct.
    """

    rows: PackedIds

    @classmethod
    def of(cls, ids: Iterable[str]) -> IdSet:
        """Set of hex ids, 64 digits each."""
        return ids if isinstance(ids, cls) else cls(_distinct(pack(ids)))

    @classmethod
    def from_bytes(cls, packed: bytes) -> IdSet:
        """Set of ids that stand one behind the other, 32 bytes each, in any order."""
        return cls.of_packed(np.frombuffer(packed, ID_DTYPE))

    @classmethod
    def of_packed(cls, packed: PackedIds) -> IdSet:
        """Set of packed ids, in any order."""
        return cls(_distinct(packed))

    def __contains__(self, image: object) -> bool:
        """Whether the hex id is in the set."""
        return isinstance(image, str) and bool(self.holds(pack([image]))[0])

    def __iter__(self) -> Iterator[str]:
        """Hex ids, ascending."""
        text, width = self.rows.tobytes().hex(), 2 * ID_DTYPE.itemsize
        return (text[at : at + width] for at in range(0, len(text), width))

    def __len__(self) -> int:
        """Count of the ids."""
        return len(self.rows)

    def __repr__(self) -> str:
        """How many, not which."""
        return f"IdSet of {len(self)}"

    def holds(self, ids: PackedIds) -> NDArray[np.bool_]:
        """For each of the packed `ids`, in any order, whether it is in the set."""
        if not len(self.rows):
            return np.zeros(len(ids), bool)
        at = np.searchsorted(self.rows, ids)
        found: NDArray[np.bool_] = self.rows[np.minimum(at, len(self.rows) - 1)] == ids
        return found

    def difference(self, other: Collection[str]) -> IdSet:
        """Ids of this set that are not in `other`; this set itself where nothing is taken away."""
        taken = IdSet.of(other).holds(self.rows)
        return IdSet(self.rows[~taken]) if taken.any() else self

    def union(self, *others: Collection[str]) -> IdSet:
        """Ids of this set or of any other."""
        distinct = {id(rows): rows for rows in (self.rows, *(IdSet.of(other).rows for other in others))}
        return IdSet(_distinct(np.concatenate(list(distinct.values()))))

    @classmethod
    def _from_iterable(cls, it: Iterable[str]) -> IdSet:  # type: ignore[override]  # ids are all it takes
        return cls.of(it)


def _distinct(ids: PackedIds) -> PackedIds:
    """Ascending, each once. `np.unique` hashes texts before it sorts them: nine times as long for a million ids."""
    rows = np.sort(ids)
    first = np.ones(len(rows), bool)
    first[1:] = rows[1:] != rows[:-1]
    return rows if first.all() else rows[first]


NO_IDS = IdSet.of(())
