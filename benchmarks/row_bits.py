"""Law 2 per set of kernels: numbers that move with threads and place in the batch, and what the remedy costs.

TensorFlow's own convolution kernels against oneDNN's (`featstore.backbones.precision`), each in processes of its own
with one, two and four threads, at the engine's batch of 16: how many different digests of the features, the share of
numbers that move when the rows of a batch of 4 change places, and CPU ms per image (median of 3, two threads).

Usage: python benchmarks/row_bits.py [NAME ...]
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

from featstore.backbones.precision import ONEDNN

NAMES = ("MobileNet025", "EfficientNetLite0", "ResNet50", "Xception")
THREADS = (1, 2, 4)
BATCH, SHORT = 16, 4
ROUNDS = 3


def main() -> None:
    names = sys.argv[1:] or NAMES
    print(f"{'':<20}{'kernels':<12}{'digests of':>11}{'moved of batch':>15}{'CPU ms':>9}{'of':>8}")
    print(
        f"{'':<20}{'':<12}{THREADS!s:>11}{f'of {SHORT}':>15}{'/image':>9}{'own':>8}   load {os.getloadavg()[0]:.1f}"
    )
    for name in names:
        own = None
        for kernels, onednn in (("TensorFlow", "0"), ("oneDNN", "1")):
            found = {threads: child(name, threads, onednn) for threads in THREADS}
            digests = len({answer["digest"] for answer in found.values()})
            moved, cpu = max(answer["moved"] for answer in found.values()), found[2]["cpu"]
            own = own or cpu
            print(
                f"{name:<20}{kernels:<12}{digests:>11}{moved:>15.1%}{cpu:>9.1f}{cpu / own:>8.2f}", flush=True
            )


def child(name: str, threads: int, onednn: str) -> dict[str, float | str]:
    """Measure in a fresh process: TensorFlow reads both settings once."""
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads), ONEDNN: onednn}
    order = [sys.executable, __file__, "--child", name, str(int(threads == 2))]
    done = subprocess.run(order, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - our own script
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def measure(name: str, timed: bool) -> dict[str, float | str]:
    from featstore.backbones.keras_backbone import load_backbone

    long = load_backbone(name, "random:1", batch_size=BATCH)
    short = long.with_batch_size(SHORT)
    side = long.spec.input_size
    images = np.random.default_rng(5).uniform(0, 255, (BATCH, side, side, 3)).astype(np.float32)
    features = long.embed(images)
    few = short.embed(images[:SHORT])
    turned = np.roll(short.embed(np.roll(images[:SHORT], 1, 0)), -1, 0)
    seconds = []
    for _ in range(ROUNDS if timed else 0):
        started = time.process_time()
        long.embed(images)
        seconds.append(time.process_time() - started)
    return {
        "digest": hashlib.sha256(features.tobytes()).hexdigest(),
        "moved": float((turned != few).mean()),
        "cpu": 1000 * statistics.median(seconds) / BATCH if timed else 0.0,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3] == "1")))
    else:
        main()
