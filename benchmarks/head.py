"""Ratio of one Keras epoch to one featstore epoch for the Dropout -> Dense head (median of several epochs).

Usage: python benchmarks/head.py [rows] [columns] [batch size]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from featstore.fusion.head import Head, Regimen, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCHS = 7
RATES = (0.0, 0.5)


def main() -> None:
    rows, columns, batch_size = (int(a) for a in (*sys.argv[1:], *("400", "14144", "2")[len(sys.argv) - 1 :]))
    rng = np.random.default_rng(0)
    X = rng.random((rows, columns), dtype=np.float32)
    targets = rng.integers(0, 2, (rows, 1)).astype(np.float32)
    print(f"{rows} rows x {columns} columns, batch {batch_size}, median of {EPOCHS} epochs")
    for rate in RATES:
        ours = median_seconds(featstore_epoch(X, targets, Regimen(1e-5, batch_size, 1, rate)))
        theirs = median_seconds(keras_epoch(X, targets, batch_size, rate))
        print(
            f"dropout {rate}: featstore {ours * 1e3:7.1f} ms ({ours * 1470 / rows:.3f} s for 1470 rows),"
            f" keras {theirs * 1e3:7.1f} ms, ratio {theirs / ours:.0f}"
        )


def featstore_epoch(X: np.ndarray, targets: np.ndarray, regimen: Regimen) -> Callable[[], object]:
    rng = np.random.Generator(np.random.PCG64(0))
    trainer = Trainer(Head.draw(1, X.shape[1], rng), regimen, rng)
    return lambda: trainer.epoch(X, targets, rng.permutation(len(X)))


def keras_epoch(X: np.ndarray, targets: np.ndarray, batch_size: int, rate: float) -> Callable[[], object]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    layers = [
        keras.Input((X.shape[1],)),
        keras.layers.Dropout(rate),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", metrics=["accuracy"])
    return lambda: model.fit(X, targets, batch_size=batch_size, verbose=0)


def median_seconds(epoch: Callable[[], object]) -> float:
    epoch()  # Keras traces its graph in the first one
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
