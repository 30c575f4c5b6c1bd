"""What a command takes from its start: CPU seconds against an interpreter that imports NumPy and h5py.

`--help`, `check` of 1,000 phantoms without a cache, and `predict` of one image with a model of EfficientNet-Lite0,
whose weights come with the installation; each is the installed command in a process of its own. Commands and
reference take turns, and a ratio is the median over the turns. Imports are read from ``python -X importtime`` in one
more run: seconds by library, each without what it imports itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from time import perf_counter

from featstore import extract, fuse, make_phantoms

FEATSTORE = str(Path(sys.executable).with_name("featstore"))
REFERENCE = [sys.executable, "-c", "import numpy, h5py"]
LEAST = 0.05
"""Seconds from which on a library is named."""


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="featstore-starts-") as folder:
        commands = prepare(Path(folder), arguments.images)
        seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            reference, _ = seconds(REFERENCE)
            for name, command in commands.items():
                cpu, wall = seconds([FEATSTORE, *command])
                seen[name].append((cpu, wall, cpu / reference))
        imports = {name: imported(command) for name, command in commands.items()}
    print(f"reference: an interpreter that imports numpy and h5py, {reference:.2f} s of CPU")
    for name, taken in seen.items():
        cpu, wall, ratio = (median(values) for values in zip(*taken, strict=True))
        total = sum(imports[name].values())
        named = ", ".join(
            f"{lib} {value:.2f}" for lib, value in imports[name].most_common() if value >= LEAST
        )
        print(f"{name:22} {cpu:6.2f} s of CPU, {wall:6.2f} s, {ratio:5.1f} times the reference")
        print(f"{'':22} {total:6.2f} s of these are imports: {named}")


def prepare(folder: Path, images: int) -> dict[str, list[str]]:
    """Make images and a run; return the commands that are timed."""
    many = make_phantoms(folder / "many", patients=images, slices=1, size=256)
    few = make_phantoms(folder / "few", patients=32, slices=1, size=256)
    extract(few, backbones=["EfficientNetLite0"], recipe="identity", cache=folder / "cache")
    fuse(few, positive="covid", out=folder / "run", cache=folder / "cache")
    image = next((folder / "many").rglob("*.png"))
    return {
        "--help": ["--help"],
        f"check, {images:,} images": ["check", str(many), "--cache", str(folder / "none"), "--json"],
        "predict, one image": ["predict", str(folder / "run"), str(image), "--json"],
    }


def seconds(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a process and of those that it waits for."""
    before, start = os.times(), perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)  # noqa: S603
    wall, after = perf_counter() - start, os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system,
        wall,
    )


def imported(command: list[str]) -> Counter[str]:
    """Seconds that imports take, by library."""
    with tempfile.TemporaryFile("w+") as told:
        run = [sys.executable, "-X", "importtime", FEATSTORE, *command]
        subprocess.run(run, stdout=subprocess.DEVNULL, stderr=told, check=True)  # noqa: S603
        told.seek(0)
        lines = [line.partition(":")[2].split("|") for line in told if line.startswith("import time:")]
    found: Counter[str] = Counter()
    for own, _, name in lines[1:]:
        found[name.strip().partition(".")[0]] += int(own) / 1e6
    standard = sum(found.pop(name) for name in list(found) if name in sys.stdlib_module_names)
    return found + Counter({"the standard library": standard})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
