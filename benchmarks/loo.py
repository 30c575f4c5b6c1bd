"""Every patient left out, for all subsets of seven backbones and 20 penalties: in closed form, against fitting again.

Usage: python benchmarks/loo.py [--rows 1500] [--patients 300] [--width 2048] [--sample 3] [--threads 2]

Made-up features, seven blocks of equal width, standardised and weighed as everywhere in fusion; the patients have
about the same number of rows. Ours is what `RidgeLoo` does inside a fold, from the blocks to the squared errors of
every subset and penalty: the blocks' Gram matrices once, one eigendecomposition for each subset of their sum, all
penalties and patients in its eigenvectors.

Fitting again is laid out as well as it can be: from the same summed Gram matrices, for each subset, penalty and
patient left out one Cholesky factorisation of the other rows and a solve, never a look at the columns. A sample of
subsets of each size and of patients is fitted so, the largest penalty and the smallest among them, and scaled up to
all; the predictions of that sample are compared.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from featstore.fusion.dual_newton import in_threads, scaled_blocks
from featstore.fusion.linear import standardise
from featstore.fusion.strategies.ridge_loo import PENALTIES, Spectrum, centred_gram, left_out
from featstore.types import make_blocks

BACKBONES = 7
SUBSETS = [s for size in range(1, BACKBONES + 1) for s in itertools.combinations(range(BACKBONES), size)]
FEW = (PENALTIES[0], PENALTIES[10], PENALTIES[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--sample", type=int, default=3, help="patients left out by fitting again")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    threadpool_limits(options.threads)
    X, targets, groups = cohort(options.rows, options.patients, options.width)
    blocks = make_blocks({str(at): options.width for at in range(BACKBONES)})
    print(
        f"{options.rows} rows, {options.patients} patients, {BACKBONES} blocks of {options.width},"
        f" {len(SUBSETS)} subsets x {len(PENALTIES)} penalties, {options.threads} threads,"
        f" load {os.getloadavg()[0]:.1f}"
    )
    started, before = time.perf_counter(), time.process_time()
    parts = scaled_blocks(X, blocks, *standardise(X, blocks))
    grams = [centred_gram(part) for part in parts]
    shared = time.perf_counter() - started
    predicted: dict[int, np.ndarray] = {}

    def settle(subsets: np.ndarray) -> int:
        for at in subsets:
            spectrum = Spectrum.of_gram(sum(grams[m] for m in SUBSETS[at]))
            predicted[int(at)] = left_out(spectrum, targets, groups, PENALTIES)
        return 0

    in_threads(settle, len(SUBSETS), least=1)
    ours, cpu = time.perf_counter() - started, time.process_time() - before
    print(
        f"closed form: {ours:.1f} s, {cpu:.1f} CPU s; of them the blocks and their Gram matrices {shared:.1f} s"
    )
    fits, seconds, apart = 0, 0.0, 0.0
    patients = np.linspace(0, options.patients - 1, options.sample).astype(int)
    for size in range(1, BACKBONES + 1):
        subset = next(s for s in SUBSETS if len(s) == size)
        gram = sum(grams[m] for m in subset)
        for patient, penalty in itertools.product(patients, FEW):
            started = time.perf_counter()
            again = fitted_again(gram, targets, groups == patient, penalty)
            seconds, fits = seconds + time.perf_counter() - started, fits + 1
            closed = predicted[SUBSETS.index(subset)][PENALTIES.index(penalty)][groups == patient]
            apart = max(apart, float(np.abs(again - closed).max()))
    wanted = len(SUBSETS) * len(PENALTIES) * options.patients
    theirs = shared + seconds / fits * wanted
    print(
        f"fitting again: {fits} of {wanted} fits took {seconds:.1f} s, all would take {theirs / 3600:.1f} h"
    )
    print(f"ratio {theirs / ours:.0f}; max |delta prediction| {apart:.1e}")


def cohort(rows: int, patients: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float32 features with a spectrum like that of pooled networks, targets -1 and 1, and patients."""
    rng = np.random.default_rng(0)
    groups = np.sort(np.arange(rows) % patients)
    targets = np.where(groups % 2, 1.0, -1.0)[:, None]
    latent = rng.normal(size=(rows, 200)) + rng.normal(size=(patients, 200))[groups]
    latent[:, :20] += 0.25 * targets
    latent *= np.arange(1, 201) ** -0.5
    X = np.empty((rows, BACKBONES * width), np.float32)
    for at in range(BACKBONES):
        values = latent @ rng.normal(size=(200, width)) + 0.5 * rng.normal(size=(rows, width))
        X[:, at * width : (at + 1) * width] = np.maximum(values, 0)
    return X, targets, groups


def fitted_again(gram: np.ndarray, targets: np.ndarray, out: np.ndarray, penalty: float) -> np.ndarray:
    """Predictions for one patient of ridge regression on all others: intercept by block elimination."""
    inside = np.asfortranarray(gram[np.ix_(~out, ~out)])
    inside.flat[:: len(inside) + 1] += penalty
    factor = cho_factor(inside, lower=True, overwrite_a=True, check_finite=False)
    ones = np.ones((len(inside), 1))
    solved = cho_solve(factor, np.concatenate([targets[~out], ones], axis=1), check_finite=False)
    intercept = solved[:, :1].sum() / solved[:, 1:].sum()
    return gram[np.ix_(out, ~out)] @ (solved[:, :1] - intercept * solved[:, 1:]) + intercept


if __name__ == "__main__":
    main()
