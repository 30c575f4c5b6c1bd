"""Predicted against measured seconds of `featstore extract`, for a mix of large and small networks.

Each network first extracts a few images alone, which records its rate. Then `--dry-run` predicts all of them
together on other images and views, and the same command without it is timed. The load of the machine moves the
ratio: the rate is that of the first runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from featstore.phantom import make_phantoms

NETWORKS = ("MobileNetV2", "EfficientNetLite0", "ResNet50", "DenseNet121")
FEATSTORE = Path(sys.executable).with_name("featstore")
ROUNDS = 2


def main() -> None:
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="featstore-cost-") as folder:
            compare(Path(folder), number)


def compare(folder: Path, number: int) -> None:
    first = make_phantoms(folder / "first", patients=40, slices=2, size=96, seed=2 * number)
    second = make_phantoms(folder / "second", patients=40, slices=2, size=96, seed=2 * number + 1)
    cache = ["--cache", str(folder / "cache"), "--weights", "random:1"]
    print(f"{'':<44}{'predicted':>10}{'measured':>10}{'ratio':>7}")
    for name in NETWORKS:
        report(name, [str(first), "--backbones", name, *cache])
    views = ["--recipe", "mild", "--seeds", "1-2"]
    report("all of them, 3 views", [str(second), "--backbones", ",".join(NETWORKS), *views, *cache])
    print()


def report(title: str, arguments: list[str]) -> None:
    planned = extract([*arguments, "--dry-run"])
    done = extract(arguments)
    predicted, measured = planned["estimated_seconds"], done["seconds"]
    basis = planned["estimated_from"].split()[0]
    print(
        f"{title + ', ' + basis:<44}{predicted:>10.1f}{measured:>10.1f}{predicted / measured:>7.2f}",
        flush=True,
    )


def extract(arguments: list[str]) -> dict[str, float | str]:
    command = [str(FEATSTORE), "extract", *arguments, "--json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return json.loads(out)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
