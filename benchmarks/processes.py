"""One process with all cores against one process per core: images per second, and the ratio.

Both go through `featstore extract` as installed, on the same images into empty caches, taking turns so that a busy
machine slows both. The clock runs from the first shard of each worker to the last shard of all, so that imports and
the building of networks do not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from featstore.phantom import make_phantoms

NETWORK = sys.argv[1] if len(sys.argv) > 1 else "ResNet50"
CORES = os.cpu_count() or 1
PATIENTS, SLICES = 16, 4
VIEWS = ["--recipe", "mild", "--seeds", "1-7"]
LAYOUTS = {
    "one process": (1, ["--executor", "serial"]),
    "one process per core": (CORES, ["--executor", "processes", "--workers", str(CORES)]),
}
ROUNDS = 3
FEATSTORE = Path(sys.executable).with_name("featstore")


def main() -> None:
    speeds: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    with tempfile.TemporaryDirectory(prefix="featstore-processes-") as folder:
        data = make_phantoms(Path(folder) / "data", patients=PATIENTS, slices=SLICES, size=96)
        for number in range(ROUNDS):
            for name, (workers, layout) in LAYOUTS.items():
                cache = Path(folder) / f"{number}-{name}"
                extract(data, cache, layout)
                speeds[name].append(images_per_second(cache, workers))
    one, all_cores = (median(values) for values in speeds.values())
    ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
    for name, values in speeds.items():
        print(f"{NETWORK}, {name:<22}{median(values):>8.1f} images/s")
    print(f"ratio of medians {all_cores / one:.2f}, by turns {', '.join(f'{r:.2f}' for r in ratios)}")


def extract(data: Path, cache: Path, layout: list[str]) -> None:
    command = [str(FEATSTORE), "extract", str(data), "--backbones", NETWORK, "--weights", "random:1", *VIEWS]
    subprocess.run([*command, "--cache", str(cache), *layout], check=True, capture_output=True)  # noqa: S603


def images_per_second(cache: Path, workers: int) -> float:
    """Every shard holds one view of all images."""
    times = sorted(path.stat().st_mtime for path in cache.glob("features/**/*.h5"))
    return PATIENTS * SLICES * (len(times) - workers) / (times[-1] - times[workers - 1])


if __name__ == "__main__":
    main()
