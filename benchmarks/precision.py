"""How much faster bfloat16 is than float32, and its error against float32.

CPU ms per image, median, in turns. The error is relative to the spread between the images, here noise of ever coarser
grain: only with trained weights does it mean anything; `featstore extract --precision-check` takes your own images.

Usage: python benchmarks/precision.py [--weights NAME=PATH ...] [NAME ...]
"""

from __future__ import annotations

import argparse
import os

import numpy as np
from forward import BATCH, ROUNDS, STUDY, WEIGHTS, take_turns

from featstore.api.extract import relative_error
from featstore.backbones import catalog
from featstore.backbones.keras_backbone import load_backbone
from featstore.backbones.weights import parse_weights_options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=PATH")
    arguments = parser.parse_args()
    weights = dict(parse_weights_options(arguments.weights))
    names = arguments.names or [*STUDY, *(name for name in weights if name not in STUDY)]
    print(f"CPU ms per image, batch {BATCH}, median of {ROUNDS}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<20}{'float32':>9}{'bfloat16':>10}{'ratio':>7}{'error':>9}")
    sums = np.zeros(2)
    for name in names:
        times, error = measure(name, weights.get(name, WEIGHTS))
        sums += times
        shown = f"{100 * error:8.1f}%" if name in weights else f"{'-':>9}"
        print(f"{name:<20}{times[0]:>9.1f}{times[1]:>10.1f}{times[0] / times[1]:>7.2f}{shown}", flush=True)
    print(f"{'sum':<20}{sums[0]:>9.1f}{sums[1]:>10.1f}{sums[0] / sums[1]:>7.2f}")


def measure(name: str, weights: str) -> tuple[list[float], float]:
    import keras

    full, cheap = (
        load_backbone(name, weights, batch_size=BATCH, precision=p) for p in ("float32", "bfloat16")
    )
    images = blobs(catalog.row(name).input_size)
    times = take_turns([lambda: full.embed(images), lambda: cheap.embed(images)])
    error = relative_error(full.embed(images), cheap.embed(images))
    keras.backend.clear_session()
    return times, error


def blobs(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = np.empty((BATCH, side, side, 3), np.float32)
    for i in range(BATCH):
        grain = 2 + 2 * i
        coarse = rng.uniform(0, 255, (side // grain + 1, side // grain + 1, 3))
        images[i] = np.kron(coarse, np.ones((grain, grain, 1)))[:side, :side]
    return images


if __name__ == "__main__":
    main()
