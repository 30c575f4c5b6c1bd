"""Writing, verifying and loading a store, against raw h5py and against numpy's own file.

The same random vectors, 2048 columns of float32 as ResNet50 gives them, go three ways. featstore commits shards of
256 rows: hashed, checksummed, synced, named by their hash. h5py writes one contiguous data set, numpy one ``.npy``;
neither hashes, and each is synced once, so that all three end on the disk. `featstore cache verify` is held against
reading all values and looking whether they are finite. Whatever is read is in the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from timing import ROUNDS, report, take_turns

from featstore.api.cache import verify
from featstore.extraction.plan import BLOCK_ROWS
from featstore.serialization import digest
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey

if TYPE_CHECKING:
    from collections.abc import Callable

    Contenders = dict[str, Callable[[], object]]

COLUMNS = 2048
KEY = FeatureKey(BackboneSpec("Net", "random:0", 224, "official", COLUMNS), IDENTITY, Decoding("none"))
REFERENCES = ("h5py", "numpy")


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
            seconds = take_turns(contenders, arguments.rounds)
            for reference in REFERENCES:
                print(f"\n{what}, against {reference}: ", end="")
                pair = {name: seconds[name] for name in ("featstore", reference)}
                report(pair, reference, size, "MB")


def races(folder: Path, vectors: np.ndarray) -> dict[str, Contenders]:
    """What is measured, in this order: the first leaves the files that the others read."""
    cache, h5, npy = folder / "cache", folder / "raw.h5", folder / "raw.npy"
    ids = [digest(number) for number in range(len(vectors))]
    return {
        "write": {
            "featstore": lambda: write_store(cache, ids, vectors),
            "h5py": lambda: write_h5py(h5, vectors),
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
