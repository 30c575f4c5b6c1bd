"""GFLOP/s of one core, network by network, folded and by CPU time.

It fills the costs in `featstore/backbones/catalog.py`.

Usage: python benchmarks/speeds.py [NETWORK ...]      (default: one of each family; 16 images a batch, float32)
"""

from __future__ import annotations

import os
import sys
from statistics import median
from time import process_time

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import load_backbone

FAMILIES = (
    "MobileNet025", "MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetLite0",
    "EfficientNetB0", "EfficientNetV2B0", "NASNetMobile", "DenseNet121", "ResNet50", "InceptionV3", "VGG16",
    "Xception", "InceptionResNetV2", "EfficientNetV2S", "ConvNeXtTiny", "NASNetLarge",
)  # fmt: skip
BATCH, WARM, ROUNDS = 16, 2, 5


def main() -> None:
    import keras

    print(f"load {os.getloadavg()[0]:.1f}, batch {BATCH}, median of {ROUNDS}")
    print(f"{'':<20}{'CPU ms/image':>14}{'GFLOP/s of a core':>20}")
    for name in sys.argv[1:] or FAMILIES:
        seconds = median(measure(name))
        print(f"{name:<20}{1e3 * seconds:>14.1f}{catalog.row(name).gflops / seconds:>20.0f}", flush=True)
        keras.backend.clear_session()


def measure(name: str) -> list[float]:
    """CPU seconds per image of each round, all cores together."""
    backbone = load_backbone(name, "random:1", batch_size=BATCH)
    side = backbone.spec.input_size
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, side, side, 3)).astype(np.float32)
    rounds = []
    for _ in range(WARM + ROUNDS):
        started = process_time()
        backbone.embed(images)
        rounds.append((process_time() - started) / BATCH)
    return rounds[WARM:]


if __name__ == "__main__":
    main()
