"""Peak memory of each network in MB, over that of a process with TensorFlow loaded.

It fills the costs in `featstore/backbones/catalog.py`.

Usage: python benchmarks/footprint.py [NETWORK ...]      (default: all; 16 images a batch)

Each network gets a process of its own; "together" loads all the named ones into one.
"""

from __future__ import annotations

import subprocess
import sys

BATCH, CALLS = 16, 3


def main() -> None:
    from featstore.backbones import catalog

    names = sys.argv[1:] or catalog.names()
    for name in names:
        base, peak = in_a_process([name])
        print(f"{name:20} base {base:5.0f}  network {peak - base:6.0f}", flush=True)
    if len(sys.argv) > 2:
        base, peak = in_a_process(names)
        print(f"{'together':20} base {base:5.0f}  network {peak - base:6.0f}")


def in_a_process(names: list[str]) -> tuple[float, float]:
    command = [sys.executable, __file__, "--child", *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)  # noqa: S603
    base, peak = done.stdout.split()[-2:]
    return float(base), float(peak)


def child(names: list[str]) -> None:
    import numpy as np

    from featstore.backbones.keras_backbone import load_backbone, prepare_keras
    from featstore.extraction.scheduler import peak_resident_bytes

    prepare_keras()
    base = peak_resident_bytes()
    backbones = [load_backbone(name, "random:1", batch_size=BATCH) for name in names]
    for backbone in backbones:
        side = backbone.spec.input_size
        pixels = np.full((BATCH, side, side, 3), 100.0, np.float32)
        for _ in range(CALLS):
            backbone.embed(pixels)
    print(base / 1e6, peak_resident_bytes() / 1e6)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
