"""One process with all cores against one process per core: images per second, and the ratio.

Both go through `featstore extract` as installed, on the same images into empty caches, taking turns so that a busy
machine slows both. The seconds of the start (imports, networks) are taken off by a first run of few images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from featstore.images.phantom import make_phantoms

NETWORK = sys.argv[1] if len(sys.argv) > 1 else "ResNet50"
VIEWS = ["--recipe", "mild", "--seeds", "1-3"]
LAYOUTS = {
    "one process": [],
    "one process per core": ["--executor", "processes", "--workers", str(os.cpu_count())],
}
ROUNDS = 3
FEATSTORE = Path(sys.executable).with_name("featstore")


def main() -> None:
    speeds: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    with tempfile.TemporaryDirectory(prefix="featstore-processes-") as folder:
        few = make_phantoms(Path(folder) / "few", patients=4, slices=1, size=96)
        many = make_phantoms(Path(folder) / "many", patients=32, slices=2, size=96)
        for number in range(ROUNDS):
            for name, layout in LAYOUTS.items():
                rows, start = extract(few, Path(folder) / f"few-{number}-{name}", layout)
                more, seconds = extract(many, Path(folder) / f"many-{number}-{name}", layout)
                speeds[name].append((more - rows) / (seconds - start))
    one, all_cores = (median(values) for values in speeds.values())
    ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
    for name, values in speeds.items():
        print(f"{NETWORK}, {name:<22}{median(values):>8.1f} images/s")
    print(f"ratio of medians {all_cores / one:.2f}, by turns {', '.join(f'{r:.2f}' for r in ratios)}")


def extract(data: Path, cache: Path, layout: list[str]) -> tuple[int, float]:
    command = [str(FEATSTORE), "extract", str(data), "--backbones", NETWORK, "--weights", "random:1", *VIEWS]
    done = subprocess.run(  # noqa: S603
        [*command, "--cache", str(cache), "--json", *layout], check=True, capture_output=True, text=True
    )
    result = json.loads(done.stdout)
    return result["computed"], result["seconds"]


if __name__ == "__main__":
    main()
