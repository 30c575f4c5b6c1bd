"""Ratio of one epoch of `keras.Model.fit` to one of featstore for Dropout -> Dense, validation pass included.

The two take turns, so that other work on the machine slows both; the ratio is the median of the turns' ratios. Then
the paper's whole training (`ConcatHead.PRESETS["paper"]`) on 746 rows, in seconds.

Usage: python benchmarks/head.py [rows] [columns] [batch size]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from featstore.fusion.head import Head
from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.training import Regimen, Rows, train

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCHS = 7
RATES = (0.0, 0.5)
VALIDATION = 0.4
PAPER_ROWS = 746


def main() -> None:
    rows, columns, batch_size = (
        int(a) for a in (*sys.argv[1:], *("1470", "14144", "2")[len(sys.argv) - 1 :])
    )
    rng = np.random.default_rng(0)
    data, validation = problem(rng, rows, columns), problem(rng, int(VALIDATION * rows), columns)
    print(f"{rows} rows (and {len(validation.X)} to validate) x {columns} columns, batch {batch_size}")
    for rate in RATES:
        ours = featstore_epoch(data, validation, Regimen(1e-5, batch_size, 1, rate))
        theirs = keras_epoch(data, validation, batch_size, rate)
        turns = [(seconds(ours), seconds(theirs)) for _ in range(EPOCHS + 1)][1:]  # the first compiles
        mine, other = (statistics.median(column) for column in zip(*turns, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in turns)
        print(
            f"dropout {rate}: featstore {mine * 1e3:7.1f} ms, keras {other * 1e3:7.1f} ms, ratio {ratio:.0f}"
        )
    paper = problem(rng, PAPER_ROWS, columns)
    head = ConcatHead(**ConcatHead.PRESETS["paper"])
    took = seconds(lambda: head.fit(paper.X, paper.targets[:, 0].astype(int)))
    print(f"--preset paper, {PAPER_ROWS} rows, batch 2, {len(head.history_['loss'])} epochs: {took:.1f} s")


def problem(rng: np.random.Generator, rows: int, columns: int) -> Rows:
    X = rng.random((rows, columns), dtype=np.float32)
    return Rows(X, rng.integers(0, 2, (rows, 1)).astype(np.float32))


def featstore_epoch(data: Rows, validation: Rows, regimen: Regimen) -> Callable[[], object]:
    head, rng = Head(data.X.shape[1], 1), np.random.default_rng(0)
    head.draw(rng)
    return lambda: train(head, regimen, data, validation, rng, rng)


def keras_epoch(data: Rows, validation: Rows, batch_size: int, rate: float) -> Callable[[], object]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    layers = [
        keras.Input((data.X.shape[1],)),
        keras.layers.Dropout(rate),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(1e-5), "binary_crossentropy", metrics=["accuracy"])
    held = (validation.X, validation.targets)
    return lambda: model.fit(
        data.X,
        data.targets,
        batch_size=batch_size,
        validation_data=held,
        validation_batch_size=batch_size,
        verbose=0,
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
