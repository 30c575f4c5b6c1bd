"""What extraction's forward pass costs: ours against the bare folded one, and folded against plain Keras.

Ratios of medians of process CPU time, in turns, on data in memory: above 1 the second of the two is slower.

Usage: python benchmarks/forward.py [NAME ...]
"""

from __future__ import annotations

import os
import sys
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import build, load_backbone
from featstore.backbones.weights import resolve_weights

if TYPE_CHECKING:
    from collections.abc import Callable

STUDY = ("ResNet50", "InceptionV3", "DenseNet201", "Xception", "VGG19", "InceptionResNetV2", "NASNetLarge")
WEIGHTS = "random:1"
BATCH = 16
ROUNDS = 5


def main() -> None:
    print(f"CPU ms per image, batch {BATCH}, median of {ROUNDS}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<20}{'keras':>8}{'raw':>8}{'ours':>8}{'raw/ours':>10}{'keras/raw':>11}")
    sums = np.zeros(3)
    for name in sys.argv[1:] or STUDY:
        times = measure(name)
        sums += times
        print(line(name, *times), flush=True)
    print(line("sum", *sums))


def measure(name: str) -> list[float]:
    """Keras in a tf.function, the folded network in one, and `KerasBackbone.embed` with its checks."""
    import keras

    row = catalog.row(name)
    ours = load_backbone(name, WEIGHTS, batch_size=BATCH)
    images = (
        np.random.default_rng(0)
        .uniform(0, 255, (BATCH, row.input_size, row.input_size, 3))
        .astype(np.float32)
    )
    plain = compiled(build(row, resolve_weights(row, WEIGHTS), "official"), images.shape)
    raw = compiled(ours._network, images.shape)  # noqa: SLF001
    times = take_turns([lambda: plain(images), lambda: raw(images), lambda: ours.embed(images)])
    keras.backend.clear_session()
    return times


def compiled(network: Callable[..., Any], shape: tuple[int, ...]) -> Callable[[Any], Any]:
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, tf.float32)]
    function = tf.function(lambda x: network(x, training=False), input_signature=signature, autograph=False)
    return lambda images: function(images).numpy()


def take_turns(functions: list[Callable[[], object]]) -> list[float]:
    """Median CPU milliseconds per image; in turns, so that a busy machine slows all."""
    seconds: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(ROUNDS):
        for function, account in zip(functions, seconds, strict=True):
            start = process_time()
            function()
            account.append(process_time() - start)
    return [1e3 * median(account) / BATCH for account in seconds]


def line(name: str, keras: float, raw: float, ours: float) -> str:
    return f"{name:<20}{keras:>8.1f}{raw:>8.1f}{ours:>8.1f}{raw / ours:>10.2f}{keras / raw:>11.2f}"


if __name__ == "__main__":
    main()
