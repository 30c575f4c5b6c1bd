"""`featstore check` on 1,000, 10,000 and 100,000 images: time per image must not grow, nor memory by much.

Two kinds of look-alikes, the worst that a folder can hold: nearly black slices, and chests that are mixtures of the
same few hundred phantoms. Each check runs in a fresh process, so that its peak memory is its own, without a cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from featstore.phantom import phantom_slice

SIDE, BLACK_SIDE = 64, 24
BASES = 200
MOST = 1.3
"""Largest ratio of the time per image to that of the fewest images."""
MOST_KIB = 3.0
"""Memory per image at the peak, beyond what the fewest images take and `ONCE`."""
ONCE = 16 * 1024
"""KiB that some thousands of images take once, however many more there are: miniatures at hand, spectra, and what the
threads that align have of the allocator."""
CHILD = """
import resource, sys, time
from featstore import check
check(sys.argv[2], cache="/nonexistent")  # what is imported and warmed up does not count
start = time.process_time()
wall = time.perf_counter()
found = check(sys.argv[1], cache="/nonexistent")
print(found.images, time.process_time() - start, time.perf_counter() - wall,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(found.findings))
"""


def main() -> None:
    arguments = parse()
    grew = []
    for kind in arguments.kinds:
        draw = {"black": black, "phantoms": Phantoms()}[kind]
        first = least = None
        for count in arguments.images:
            folder = Path(tempfile.mkdtemp(dir=arguments.folder))
            try:
                fill(folder / "few", draw, min(arguments.images[0], 64))
                fill(folder / "all", draw, count)
                cpu, wall, peak = run(folder / "all", folder / "few")
            finally:
                shutil.rmtree(folder)
            first, least = first or cpu / count, least or peak
            more = max(0, peak - least - ONCE) / count
            ratio = cpu / count / first
            grew += [f"time, {kind} {count}"] if ratio > MOST else []
            grew += [f"memory, {kind} {count}"] if more > MOST_KIB else []
            print(
                f"{kind:9} {count:7,} images: {1000 * cpu / count:6.2f} ms of CPU per image, ratio {ratio:4.2f};"
                f" {wall:6.1f} s; {peak / 1024:5.0f} MiB at the peak, {more:4.1f} KiB per image more",
                flush=True,
            )
    if grew:
        sys.exit(f"grew by more than {MOST} in time or {MOST_KIB} KiB per image in memory: {', '.join(grew)}")


def run(folder: Path, few: Path) -> tuple[float, float, float]:
    """CPU and wall seconds, and KiB of memory at the peak."""
    command = [sys.executable, "-c", CHILD, str(folder), str(few)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait for each other count as CPU time
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
    _, cpu, wall, peak, _ = done.stdout.split()[-5:]
    return float(cpu), float(wall), float(peak)


def fill(folder: Path, draw, count: int) -> None:
    rng = np.random.default_rng(count)
    for label in ("covid", "normal"):
        (folder / label).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(draw(number, rng)).save(folder / ("covid", "normal")[number % 2] / f"{number}.png")


def black(number: int, rng: np.random.Generator) -> np.ndarray:
    """A nearly black slice that no other equals."""
    picture = np.zeros((BLACK_SIDE, BLACK_SIDE), np.uint8)
    picture[rng.integers(BLACK_SIDE), rng.integers(BLACK_SIDE)] = rng.integers(1, 4)
    picture[0, :3] = number % 256, number // 256 % 256, number // 65536
    return picture


class Phantoms:
    """Chests: two of the same few, laid over each other, with noise."""

    def __init__(self) -> None:
        self.bases = np.array(
            [phantom_slice(n, label=("covid", "normal")[n % 2], size=SIDE, z=0.4) for n in range(BASES)]
        ).reshape(BASES, SIDE, SIDE)

    def __call__(self, _: int, rng: np.random.Generator) -> np.ndarray:
        """Draw one."""
        one, other = self.bases[rng.choice(BASES, 2, replace=False)].astype(np.float32)
        share = rng.uniform(0.3, 0.7)
        noise = rng.normal(0, 3, one.shape)
        mixed = share * one + (1 - share) * other + noise
        return mixed.clip(0, 255).astype(np.uint8)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=["black", "phantoms"], default=["black", "phantoms"])
    parser.add_argument("--folder", type=Path, help="where to make the images; default the temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
