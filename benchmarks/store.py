"""Writing, verifying and loading a store, against raw h5py and against numpy's own file.

The same random vectors, 2048 columns of float32 as ResNet50 gives them, go three ways. featstore commits shards of
256 rows: hashed, synced, named by their hash. h5py writes one contiguous data set, numpy one ``.npy``; neither
hashes, and each is synced once, so that all three end on the disk; "h5py, synced as often" is one file of h5py for
256 rows, synced, renamed, and its folder synced. `featstore cache verify` is held against reading all values and
looking whether they are finite. Whatever is read is in the page cache.

SHA-256 of all bytes on one core, and a copy of them in memory, are the floor: every byte is hashed before it is used.
Wall seconds tell how a machine does that has nothing else to do; CPU seconds disturb others least, and are disturbed
least: with two idle cores the wall time of reading is half of them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import h5py
import numpy as np
from timing import ROUNDS, cpu_seconds, report, take_turns

from featstore.api.cache import verify
from featstore.extraction.plan import BLOCK_ROWS
from featstore.serialization import digest
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable

    Contenders = dict[str, Callable[[], object]]

COLUMNS = 2048
SYNCED = "h5py, synced as often"
KEY = FeatureKey(BackboneSpec("Net", "random:0", 224, "official", COLUMNS), IDENTITY, Decoding("none"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", help="where the files are made and deleted again")
    arguments = parser.parse_args()
    vectors = np.random.default_rng(0).standard_normal((arguments.rows, COLUMNS), np.float32)
    size = vectors.nbytes / 1e6
    print(
        f"{len(vectors)} x {COLUMNS} float32, {size:.0f} MB, shards of {BLOCK_ROWS} rows; above 1 is faster"
    )
    with tempfile.TemporaryDirectory(prefix="featstore-store-", dir=arguments.folder) as folder:
        for what, contenders in races(Path(folder), vectors).items():
            for clock, name in ((perf_counter, "wall"), (cpu_seconds, "CPU")):
                print(f"\n{what}, {name} seconds, against h5py: ", end="")
                seconds = take_turns(contenders, arguments.rounds, clock)
                report(seconds, "h5py", size, "MB")
                if SYNCED in seconds:
                    rounds = zip(seconds[SYNCED], seconds["featstore"], strict=True)
                    print(
                        f"featstore against {SYNCED}: {median(theirs / ours for theirs, ours in rounds):.2f}"
                    )


def races(folder: Path, vectors: np.ndarray) -> dict[str, Contenders]:
    """What is measured, in this order: the first leaves the files that the others read."""
    cache, h5, npy, parts = (folder / name for name in ("cache", "raw.h5", "raw.npy", "parts"))
    ids = [digest(number) for number in range(len(vectors))]
    return {
        "write": {
            "featstore": lambda: write_store(cache, ids, vectors),
            "h5py": lambda: write_h5py(h5, vectors),
            SYNCED: lambda: write_h5py_in_parts(parts, vectors),
            "numpy": lambda: write_numpy(npy, vectors),
        },
        "verify": {
            "featstore": lambda: require(verify(cache).rows == len(ids)),
            "h5py": lambda: require(np.isfinite(load_h5py(h5)).all()),
            "numpy": lambda: require(np.isfinite(np.load(npy)).all()),
        },
        "load": {
            "featstore": lambda: Store(cache).read(KEY, ids),
            "h5py": lambda: load_h5py(h5),
            "numpy": lambda: np.load(npy),
            "SHA-256 on one core": lambda: hashlib.sha256(vectors).digest(),
            "copy in memory": vectors.copy,
        },
    }


def write_store(cache: Path, ids: list[str], vectors: np.ndarray) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    store = Store(cache)
    for start in range(0, len(ids), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        store.write(KEY, ids[block], vectors[block])
    store.flush()


def write_h5py(path: Path, vectors: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = vectors
    sync(path)


def write_h5py_in_parts(folder: Path, vectors: np.ndarray) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    for start in range(0, len(vectors), BLOCK_ROWS):
        write_h5py(folder / "new", vectors[start : start + BLOCK_ROWS])
        (folder / "new").rename(folder / f"{start}.h5")
        os.fsync(descriptor)
    os.close(descriptor)


def write_numpy(path: Path, vectors: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    np.save(path, vectors)
    sync(path)


def sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def load_h5py(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return file["features"][:]


def require(holds: object) -> None:
    assert holds


if __name__ == "__main__":
    main()
