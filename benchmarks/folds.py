"""Whole groups dealt into stratified folds: ours against scikit-learn's StratifiedGroupKFold.

Usage: python benchmarks/folds.py [--rounds 5]

Both deal the same made-up groups, take turns, and must give the same rows, ties included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from featstore.splits import stratified_folds

SETS = [(60, 20, 2, 5), (746, 377, 2, 5), (5_000, 1_500, 7, 5), (3_000, 3_000, 10, 10)]
"""Images, patients, classes, folds."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"load {os.getloadavg()[0]:.1f}\nimages  patients  classes  folds  times as fast (CPU)")
    for images, patients, classes, folds in SETS:
        ratios = []
        for seed in range(rounds):
            chance = np.random.default_rng(seed)
            y, groups = chance.integers(0, classes, images), chance.integers(0, patients, images)
            began = time.process_time()
            ours = stratified_folds(y, groups, folds, seed)
            between = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                theirs = list(
                    StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, groups)
                )
            ratios.append((time.process_time() - between) / (between - began))
            assert all(np.array_equal(a[1], b[1]) for a, b in zip(ours, theirs, strict=True))
        print(f"{images:6}  {patients:8}  {classes:7}  {folds:5}  {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
