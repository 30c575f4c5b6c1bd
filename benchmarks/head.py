"""Ratio of one epoch of `keras.Model.fit` to one of featstore for Dropout -> Dense, validation pass included.

The two take turns, so that other work on the machine slows both; each ratio is the median of the turns' ratios. CPU
time is that of all threads: on a busy machine the wall clock favours Keras, whose several threads get a share each.
Then the paper's whole training (`ConcatHead.PRESETS["paper"]`) on 746 rows.

Usage: python benchmarks/head.py [rows] [columns] [batch size]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from featstore.fusion.strategies.concat_head import ConcatHead
from featstore.fusion.training import DenseHead, TrainingConfig, TrainingRows, train

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS, EPOCHS = 3, 2
RATES = (0.0, 0.5)
VALIDATION = 0.4
PAPER_ROWS = 746


def main() -> None:
    rows, columns, batch_size = (
        int(a) for a in (*sys.argv[1:], *("1470", "14144", "2")[len(sys.argv) - 1 :])
    )
    rng = np.random.default_rng(0)
    data, validation = problem(rng, rows, columns), problem(rng, int(VALIDATION * rows), columns)
    print(
        f"{rows} rows (and {len(validation.X)} to validate) x {columns} columns, batch {batch_size},"
        f" load {os.getloadavg()[0]:.1f}"
    )
    for rate in RATES:
        ours = featstore_epoch(data, validation, TrainingConfig(1e-5, batch_size, EPOCHS, rate))
        theirs = keras_epoch(data, validation, batch_size, rate)
        turns = [(seconds(ours), seconds(theirs)) for _ in range(TURNS + 1)][1:]  # the first compiles
        for clock, name in enumerate(("wall", "CPU")):
            mine, other = (statistics.median(turn[who][clock] for turn in turns) / EPOCHS for who in (0, 1))
            ratio = statistics.median(theirs[clock] / ours[clock] for ours, theirs in turns)
            print(
                f"dropout {rate}, {name:4}: featstore {mine * 1e3:7.1f} ms an epoch, keras {other * 1e3:7.1f} ms,"
                f" ratio {ratio:.0f}"
            )
    paper = problem(rng, PAPER_ROWS, columns)
    head = ConcatHead(**ConcatHead.PRESETS["paper"])
    wall, cpu = seconds(lambda: head.fit(paper.X, paper.targets[:, 0].astype(int)))
    print(
        f"--preset paper, {PAPER_ROWS} rows, batch 2, {len(head.history_['loss'])} epochs: {wall:.1f} s,"
        f" {cpu:.1f} s of CPU"
    )


def problem(rng: np.random.Generator, rows: int, columns: int) -> TrainingRows:
    X = rng.random((rows, columns), dtype=np.float32)
    return TrainingRows(X, rng.integers(0, 2, (rows, 1)).astype(np.float32))


def featstore_epoch(
    data: TrainingRows, validation: TrainingRows, config: TrainingConfig
) -> Callable[[], object]:
    head, rng = DenseHead(data.X.shape[1], 1), np.random.default_rng(0)
    head.initialise(rng)
    return lambda: train(head, config, data, validation, rng, rng)


def keras_epoch(
    data: TrainingRows, validation: TrainingRows, batch_size: int, rate: float
) -> Callable[[], object]:
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


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
