"""What a command takes from its start: CPU seconds against an interpreter that imports NumPy and h5py.

`--help`, `check` of 1,000 phantoms without a cache, and `predict` of one image with a model of EfficientNet-Lite0,
whose weights come with the installation; each is the installed command in a process of its own. Commands and
reference take turns, and a ratio is the median over the turns. One more run says what the CPU seconds go into:
imports by library, each without what it imports itself, all else, and what the interpreter does when all is done.
"""

from __future__ import annotations

import argparse
import json
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
CHILD = """
import _frozen_importlib, atexit, json, runpy, sys, threading, time
own, here, load = {}, threading.local(), _frozen_importlib._find_and_load

def timed(name, importer):
    inner = here.__dict__.setdefault("inner", [])
    inner.append(0.0)
    start = time.thread_time()
    try:
        return load(name, importer)
    finally:
        taken = time.thread_time() - start
        top = name.partition(".")[0]
        own[top] = own.get(top, 0.0) + taken - inner.pop()
        if inner:
            inner[-1] += taken

def tell(place):
    with open(place, "w") as file:
        json.dump([own, time.process_time()], file)

_frozen_importlib._find_and_load = timed
atexit.register(tell, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""``-X importtime`` counts what other threads do, too, and TensorFlow's lines go where its greeting goes."""


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
        by_part = {name: parts(command) for name, command in commands.items()}
    print(f"reference: an interpreter that imports numpy and h5py, {reference:.2f} s of CPU")
    for name, taken in seen.items():
        cpu, wall, ratio = (median(values) for values in zip(*taken, strict=True))
        imports, work, end = by_part[name]
        named = ", ".join(f"{lib} {value:.2f}" for lib, value in imports.most_common() if value >= LEAST)
        print(f"{name:20} {cpu:6.2f} s of CPU, {wall:6.2f} s, {ratio:5.1f} times the reference: imports")
        print(f"{'':20} {sum(imports.values()):6.2f} ({named}), all else {work:.2f}, end {end:.2f}")


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


def parts(command: list[str]) -> tuple[Counter[str], float, float]:
    """CPU seconds of imports by library, of all else that a command does, and of how its process ends."""
    with tempfile.NamedTemporaryFile("r") as told:
        taken, _ = seconds([sys.executable, "-c", CHILD, told.name, FEATSTORE, *command])
        imports, until_end = json.load(told)
    standard = sum(imports.pop(name) for name in list(imports) if name in sys.stdlib_module_names)
    found = Counter({**imports, "the standard library": standard})
    return found, until_end - sum(found.values()), taken - until_end


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
