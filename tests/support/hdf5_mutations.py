"""HDF5 files that are damaged where it matters: chunk indices, filter pipelines, heaps, headers; checksums made good.

Random bytes mostly hit values, or a checksum stops them. Here a mutation knows the structures of the format (HDF5
File Format Specification 3.0): it changes a field of one, lets an address point at another, or at itself, and seals
it again.
"""

from __future__ import annotations

import io
import math
import random
import time
import zlib
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
from fakes import key

from featstore.errors import RefusedFileError, ShardCorruptError
from featstore.store import hdf5_guard as guard
from featstore.store import shard

SEALED = (
    b"OHDR",
    b"OCHK",
    b"BTHD",
    b"BTLF",
    b"BTIN",
    b"FAHD",
    b"FADB",
    b"EAHD",
    b"EAIB",
    b"EADB",
    b"FRHP",
    b"FHDB",
)
OPEN = (b"TREE", b"SNOD", b"HEAP", b"GCOL")
_MARKS = {*OPEN, *SEALED, b"\1\0\1\0"}
_ARRAYS = {b"FADB", b"EAIB", b"BTLF", b"EADB"}
LONGEST = 600
"""Bytes of a structure that are looked at."""
NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    255,
    256,
    4095,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)


@lru_cache
def seeds() -> dict[str, bytes]:
    """Valid files, in which every structure occurs that a reader of features can meet."""
    ids = [f"{number:064x}" for number in range(40)]
    rows = np.arange(480, dtype="f4").reshape(40, 12)
    return {
        "shard": shard.encode(key(), ids, rows),
        "old": _written(None, _usual),
        "new": _written("latest", _usual),
        "weights": _written(None, _weights),
        "new weights": _written("latest", _weights),
    }


def _written(version, fill) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=version) as file:
        fill(file)
    return buffer.getvalue()


def _usual(file):
    rows = np.arange(480, dtype="f4").reshape(40, 12)
    file.attrs["model"] = "Xception"
    file.attrs["rows"] = 40
    packed = {"compression": "gzip", "shuffle": True, "fletcher32": True}
    file.create_dataset("train", data=rows, chunks=(7, 12), **packed)  # B-tree, or a fixed array
    file.create_dataset(
        "growing", data=rows, chunks=(7, 12), maxshape=(None, 12), fletcher32=True
    )  # extensible array
    file.create_dataset(
        "wide", data=rows, chunks=(7, 5), maxshape=(None, None), shuffle=True
    )  # B-tree of version 2
    file.create_dataset("single", data=rows, chunks=(40, 12), compression="gzip")
    file.create_dataset("plain", data=rows[:9], chunks=(3, 12))
    file.create_dataset("deep/er/labels", data=np.arange(40))
    file.create_dataset("names", data=np.array([b"a.png", b"b.png"]))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((5,)), plan)
    compact.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(5.0))


def _weights(file):
    file.attrs["layer_names"] = np.array([f"layer{number}".encode() for number in range(12)])
    for number in range(12):
        group = file.create_group(f"layer{number}")
        group.attrs["weight_names"] = [f"layer{number}/kernel:0", "bias"]
        group.create_dataset("kernel:0", data=np.eye(4, dtype="f4"))
    for number in range(12):
        file.attrs[f"note {number}"] = "x" * number


@lru_cache
def structures(name: str) -> list[tuple[int, int]]:
    """Where the structures of a seed begin, and the bytes of each up to its checksum; 0 for one that has none."""
    data = seeds()[name]
    found = [(0, 44 if data[8] >= 2 else 0)]
    for mark in (*SEALED, *OPEN):
        at = data.find(mark)
        while at >= 0:
            found.append((at, _sealed_bytes(data, at) if mark in SEALED else 0))
            at = data.find(mark, at + 4)
    with h5py.File(io.BytesIO(data)) as file:
        members: list[h5py.HLObject] = [file]
        file.visititems(lambda _, member: members.append(member))
        found += [(h5py.h5o.get_info(member.id).addr, 0) for member in members if data[8] < 2]
    return sorted(found)


def _sealed_bytes(data: bytes, at: int) -> int:
    for size in range(8, min(LONGEST, len(data) - at - 4)):
        if data[at + size : at + size + 4] == lookup3(data[at : at + size]):
            return size
    return 0


def lookup3(data: bytes) -> bytes:
    """Jenkins' checksum, as HDF5 seals its structures."""
    mask, size = 0xFFFFFFFF, len(data)
    a = b = c = (0xDEADBEEF + size) & mask
    rotations = ((4, 6, 8), (16, 19, 4))
    padded = data + bytes(-size % 12 if size else 0)
    for at in range(0, len(padded), 12):
        x, y, z = (int.from_bytes(padded[at + k : at + k + 4], "little") for k in (0, 4, 8))
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        if at + 12 >= len(padded):
            break
        for one, two, three in rotations:
            a = ((a - c) & mask) ^ _turned(c, one)
            c = (c + b) & mask
            b = ((b - a) & mask) ^ _turned(a, two)
            a = (a + c) & mask
            c = ((c - b) & mask) ^ _turned(b, three)
            b = (b + a) & mask
    if size:
        c = ((c ^ b) - _turned(b, 14)) & mask
        a = ((a ^ c) - _turned(c, 11)) & mask
        b = ((b ^ a) - _turned(a, 25)) & mask
        c = ((c ^ b) - _turned(b, 16)) & mask
        a = ((a ^ c) - _turned(c, 4)) & mask
        b = ((b ^ a) - _turned(a, 14)) & mask
        c = ((c ^ b) - _turned(b, 24)) & mask
    return c.to_bytes(4, "little")


def _turned(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & 0xFFFFFFFF


def mutated(name: str, rng: random.Random) -> bytes:  # noqa: C901 - one case a kind
    """A seed with one to three structures changed."""
    data, places = bytearray(seeds()[name]), structures(name)
    for _ in range(rng.choice([1, 1, 2, 3])):
        start, sealed = rng.choice(places)
        length = sealed or min(200, len(data) - start)
        match rng.choice(
            ["number", "number", "number", "near", "address", "address", "chunk", "filters", "copy"]
        ):
            case "number":
                _put(data, start, length, rng, rng.choice(NUMBERS), rng.choice([1, 2, 4, 8]))
            case "near":
                size = rng.choice([1, 2, 4, 8])
                at = start + _field(length, size, rng)
                near = int.from_bytes(data[at : at + size], "little") + rng.choice([-9, -1, 1, 4, 64])
                data[at : at + size] = (near % 256**size).to_bytes(size, "little")
            case "address":
                known = [field for field in range(4, max(5, length - 8)) if _is_address(data, start + field)]
                at = start + (rng.choice(known) if known else _field(length, 8, rng))
                data[at : at + 8] = rng.choice([rng.choice(places)[0], start, len(data) - 4]).to_bytes(
                    8, "little"
                )
            case "chunk":
                start, sealed = _change_chunk(data, places, rng) or (start, sealed)
            case "filters":
                start, sealed = _change_filters(data, places, rng) or (start, sealed)
            case "copy":
                other, _ = rng.choice(places)
                data[start + 4 : start + length] = data[other + 4 : other + length].ljust(length - 4, b"\0")
        if sealed:
            data[start + sealed : start + sealed + 4] = lookup3(bytes(data[start : start + sealed]))
    return bytes(data)


def _put(data, start, length, rng, number, size):
    at = start + _field(length, size, rng)
    data[at : at + size] = (number % 256**size).to_bytes(size, "little")


def _field(length: int, size: int, rng: random.Random) -> int:
    return rng.randrange(4, max(5, length - size + 1))


def _is_address(data: bytes, at: int) -> bool:
    value = int.from_bytes(data[at : at + 8], "little")
    return value % 8 == 0 and 48 <= value < len(data) and bytes(data[value : value + 4]) in _MARKS


def _change_chunk(data, places, rng):
    """Size, mask or corner of a chunk in a B-tree of version 1, or anything in the arrays of newer files."""
    trees = [at for at, _ in places if data[at : at + 5] == b"TREE\1"]
    if trees:
        at = rng.choice(trees) + 24 + rng.choice([0, 4, 8, 16]) + rng.choice([0, 40]) * rng.randrange(4)
        data[at : at + 4] = rng.choice(NUMBERS[:12]).to_bytes(4, "little")
        return None
    arrays = [(at, size) for at, size in places if bytes(data[at : at + 4]) in _ARRAYS and size]
    if not arrays:
        return None
    start, sealed = rng.choice(arrays)
    _put(data, start + 10, sealed - 10, rng, rng.choice(NUMBERS), rng.choice([1, 2, 4, 8]))
    return start, sealed


def _change_filters(data, places, rng):
    """Number, options or flags of a filter, wherever its name betrays it."""
    names = [at for name in (b"deflate", b"shuffle", b"fletcher32") if (at := data.find(name)) > 0]
    short = [at + k for at, size in places for k in range(size) if data[at + k : at + k + 4] == b"\x02\0\1\0"]
    if not names and not short:
        return None
    at = rng.choice(names or short)
    at += rng.choice([-8, -6, -4, -2, 8, 12]) if names else rng.choice([0, 2, 4, 6, 8])
    data[at : at + 2] = rng.choice([0, 1, 2, 3, 4, 5, 6, 255, 32000, 65535]).to_bytes(2, "little")
    return next(((start, size) for start, size in places if size and start <= at < start + size), None)


def truthful(name: str, rng: random.Random) -> bytes:
    """A file that HDF5 itself wrote, with a chunk of the wrong bytes: nothing but its length or content is amiss."""
    filters = rng.choice([{}, {"shuffle": True}, {"fletcher32": True}, {"compression": "gzip"}])
    filters |= rng.choice(
        [{}, {"shuffle": True, "fletcher32": True}, {"compression": "gzip", "fletcher32": True}]
    )
    rows = rng.choice([1, 8, 2000])
    chunk = rng.choice([b"", zlib.compress(bytes(rows * 48)), bytes(rows * 48)])[
        : rng.choice([1, 2, 4, 40, None])
    ]
    chunk = chunk or rng.randbytes(rng.choice([1, 3, 4, 5, 100]))

    def fill(file):
        x = file.create_dataset("x", (rows, 12), "f4", chunks=(rows, 12), **filters)
        x.id.write_direct_chunk((0, 0), chunk, filter_mask=rng.choice([0, 0, 0, 1, 2, 3, 2**32 - 1]))
        file.create_dataset("rest", data=np.zeros(rows * 60 + 5000, "u1"))

    return _written("latest" if name.startswith("new") else None, fill)


def mutation(number: int) -> tuple[str, bytes]:
    """The mutation of a number, with the name of what it was made from."""
    rng = random.Random(number)
    name = rng.choice([*seeds()])
    return name, (truthful if rng.random() < 0.15 else mutated)(name, rng)


def attempt(path: Path, name: str):
    """Read a file by all that read HDF5; run by `featstore.isolated_reading`. How it ended, and the memory in KiB."""
    import resource

    used = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + 2, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    data = path.read_bytes()
    ends = []
    readers = [
        lambda: guard.read_plain(path),
        lambda: guard.read_plain(data),
        lambda: guard.check_weights(path),
    ]
    readers += [
        lambda: guard.read_datasets(path, ["train", "deep/er/labels", "x"]),
        lambda: shard.decode(data),
    ]
    for read in readers[2:3] if name.endswith("weights") else readers:
        try:
            read()
            ends.append("read")
        except (RefusedFileError, ShardCorruptError) as error:
            ends.append(str(error).splitlines()[0])
    peak = next(line for line in Path("/proc/self/status").read_text("ascii").splitlines() if "VmHWM" in line)
    return [ends, int(peak.split()[1])], []
