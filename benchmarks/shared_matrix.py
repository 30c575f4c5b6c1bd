"""How often a comparison holds its matrix, all of its processes together: ratios to the size of the matrix.

Usage: python benchmarks/shared_matrix.py [IMAGES] [JOBS...]       (default: 2048 1 2)

A store of eight networks of 1,024 numbers in 16 views, 1.07 GB for 2,048 images, is compared by the installed
command, with ``--views identity --test-views average``: a fit needs one view, and all are looked at. Ten times a
second the memory of all its processes is added up: proportional set sizes (``Pss`` in /proc/*/smaps_rollup, where
pages that several share count once), and what lies in shared memory whole, mapped or not. From the peak is taken that
of the same comparison with the identity view alone, which has the same programs and fits: what is left is the matrix.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from featstore.extraction.plan import BLOCK_ROWS
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = tuple(f"Net{letter}" for letter in "ABCDEFGH")
WIDTH, VIEWS = 1024, 16
LOOK_SECONDS = 0.1
SHARED = ("/memfd:", "/dev/shm/")  # noqa: S108  # where shared memory is seen
COMMAND = (
    "compare --strategies concat_logreg --folds 5 --repeats 1 --no-resume --positive ill --views identity"
    " --test-views average"
)


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 2048
    processes = [int(word) for word in sys.argv[2:]] or [1, 2]
    root = Path(tempfile.mkdtemp(prefix="featstore-shared-", dir=os.environ.get("FEATSTORE_SCRATCH")))
    try:
        make(root, images)
        view = images * len(NETWORKS) * WIDTH * 4
        print(f"{images:,} images, {VIEWS} views: {VIEWS * view / 1e6:,.0f} MB")
        for jobs in processes:
            whole, least = peak(root, jobs), peak(root, jobs, "--seeds", "none")
            matrix = (whole - least) / ((VIEWS - 1) * view)
            print(
                f"--jobs {jobs}: {whole / 1e9:.2f} GB at the peak, {whole / (VIEWS * view):.2f} of the matrix;"
                f" without programs and fits {matrix:.2f}, load {os.getloadavg()[0]:.0f}",
                flush=True,
            )
    finally:
        shutil.rmtree(root)


def make(root: Path, images: int) -> None:
    """Small pictures of noise, and vectors of noise that know a little of the class; without fsync."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = root / "data" / ("ill", "well")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20), dtype=np.uint8)).save(path)
    os.fsync = lambda _descriptor: None
    store, records = Store(root / "cache"), scan(root / "data").records
    decoding = Decoding(decoder_version())
    for view in (IDENTITY, *(View("flip(h)", seed) for seed in range(1, VIEWS))):
        for name in NETWORKS:
            key = FeatureKey(BackboneSpec(name, "random:0", 224, "official", WIDTH), view, decoding)
            for start in range(0, images, BLOCK_ROWS):
                block = records[start : start + BLOCK_ROWS]
                vectors = rng.standard_normal((len(block), WIDTH), np.float32)
                vectors[:, 0] += [record.label == "ill" for record in block]
                store.write(key, [record.id for record in block], vectors)
    store.flush()


def peak(root: Path, jobs: int, *more: str) -> int:
    """Bytes that a comparison and all its processes hold at most."""
    command = [Path(sys.executable).parent / "featstore", *COMMAND.split(), *more]
    command += [root / "data", "--cache", root / "cache", "--jobs", str(jobs)]
    most = 0
    with (root / "said").open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:  # noqa: S603
        while process.poll() is None:
            most = max(most, held(process.pid))
            time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise SystemExit((root / "said").read_text())
    return most


def held(pid: int) -> int:
    """Bytes of a process and all that it has started; what they share is counted once, also what none has mapped."""
    family = descendants(pid)
    blocks = {}
    for path in (path for one in family for path in shared_files(one)):
        with suppress(OSError):  # it is gone
            known = path.stat()
            blocks[known.st_dev, known.st_ino] = 512 * known.st_blocks
    return sum(map(own, family)) + sum(blocks.values())


def shared_files(pid: int) -> Iterator[Path]:
    """Files in shared memory that joblib has made for a process, and those that it has open."""
    yield from Path("/dev/shm").glob(f"joblib_*_{pid}_*/*")  # noqa: S108
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # it was closed in between
            if str(path.readlink()).startswith(SHARED):
                yield path


def own(pid: int) -> int:
    """Proportional set size of a process, less that of shared memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    known = {
        name: 1024 * int(number) for name, number in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)
    }
    return known.get("Pss", 0) - known.get("Pss_Shmem", 0)


def descendants(pid: int) -> list[int]:
    """A process and all that it and they have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


if __name__ == "__main__":
    main()
