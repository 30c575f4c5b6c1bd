"""All 127 subsets of seven backbones: the batched dual solver against scikit-learn, as called and as laid out best.

Usage: python benchmarks/subsets.py [--rows 1500] [--penalty 0.01] [--sample 2 | --full] [--rounds 3] [--threads 2]

Features are made up, float32, with a spectrum like that of pooled networks: 60 directions that all backbones share
and 300 of each backbone's own, both decaying, noise under them, a rectifier, columns of different spread. Everyone
solves the problem a user poses, columns standardised and L2 logistic regression of one C (0.01 by default); the block
weights of `concat_logreg` are left out, since scikit-learn's own stopping rule would end far too early with them.

Three contenders, wall clock, in turns, each from float32 features to the probabilities of 300 held-out rows: ours,
all 127 subsets together; scikit-learn as a user calls it (StandardScaler, LogisticRegression(max_iter=10000), its own
tolerance), one subset after the other; and scikit-learn laid out as well as it can be: each block's Gram matrix
computed once, then for each subset a root of their sum, n x n, and lbfgs on that at a tight tolerance, by two
processes of one thread (by one with --threads 1). Laid out best really fits all 127; as called is extrapolated from a
sample of subsets of each size, unless --full fits all (some minutes a round).

Wall clock means little where others use the machine: the CPU seconds of all threads and processes stand beside it.
Those are fair with --threads 1, where no thread waits for another.

At last the floor: how much of our time is matrix products, at what speed BLAS did them, and what the ratio would be
if everything else took no time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed, parallel_config
from scipy.linalg import cholesky, solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from featstore.fusion.dual_newton import Kernel, scaled_blocks, solve, targets
from featstore.fusion.linear import standardise
from featstore.types import make_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTHS = {
    "InceptionV3": 2048,
    "DenseNet201": 1920,
    "ResNet50": 2048,
    "Xception": 2048,
    "VGG19": 512,
    "NASNetLarge": 4032,
    "InceptionResNetV2": 1536,
}
BLOCKS = make_blocks(WIDTHS)
SUBSETS = [s for size in range(1, 8) for s in itertools.combinations(range(7), size)]
HELD_OUT = 300
TIGHT = 1e-10
JITTER = 1e-11


def main() -> None:
    options = parse()
    threadpool_limits(options.threads)
    X, y = features(options.rows + HELD_OUT)
    train, test, labels = X[: options.rows], X[options.rows :], y[: options.rows]
    sample = SUBSETS if options.full else stratified(options.sample)
    print(f"{options.rows} rows, {X.shape[1]} columns, C = {options.penalty}, load {os.getloadavg()[0]:.1f}")
    print(f"scikit-learn as called fits {len(sample)} of {len(SUBSETS)} subsets, laid out best all of them")
    grams = block_grams(train, test)
    ratios: dict[str, list[tuple[float, float]]] = {"as a user calls it": [], "laid out best": []}
    for turn in range(options.rounds):
        started, before = time.perf_counter(), time.process_time()
        ours = batched(train, labels, test, options.penalty)
        wall, cpu = time.perf_counter() - started, time.process_time() - before
        print(f"round {turn + 1}: featstore {wall:.1f} s, {cpu:.1f} CPU s, load {os.getloadavg()[0]:.1f}")
        for label, contender in (
            ("as a user calls it", lambda: as_called(train, labels, test, sample, options.penalty)),
            ("laid out best", lambda: laid_out(train, labels, test, options.penalty, options.threads)),
        ):
            their_wall, their_cpu, proba = contender()
            ratios[label].append((their_wall / wall, their_cpu / cpu))
            apart = max(np.abs(ours[SUBSETS.index(s)] - p).max() for s, p in proba.items())
            print(
                f"  scikit-learn {label}: {their_wall:.0f} s, {their_cpu:.0f} CPU s, max |delta p| {apart:.1e}"
            )
    apart = against_newton(ours, grams, labels, options.penalty)
    print(f"max |delta p| to scikit-learn's newton-cholesky, three subsets: {apart:.1e}")
    best = statistics.median(wall for wall, _ in ratios["laid out best"])
    floor(train, labels, test, options.penalty, best, options.threads)
    for label, values in ratios.items():
        by_wall, by_cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(
            f"median ratio to scikit-learn {label}: {by_wall:.1f} by wall clock, {by_cpu:.1f} by CPU seconds"
        )


def against_newton(ours, grams, labels, C):
    """Largest difference to a solver that goes to machine precision: a narrow subset, a pair, and all seven."""
    some = [(4,), (0, 3), tuple(range(len(BLOCKS)))]
    exact = [by_root(grams, labels, subset, C, "newton-cholesky")[2] for subset in some]
    return max(np.abs(ours[SUBSETS.index(s)] - p).max() for s, p in zip(some, exact, strict=True))


def floor(train, labels, test, C, ratio, threads):
    """Print what the matrix products of one round take by themselves."""
    spent = {"seconds": 0.0, "flops": 0.0}

    def timed(kernel, rows):
        started = time.perf_counter()
        found = plain(kernel, rows)
        spent["seconds"] += time.perf_counter() - started
        inner = kernel.inner.shape
        spent["flops"] += 2.0 * len(rows) * inner[0] * inner[1] * (1 if kernel.outer is None else 2)
        return found

    plain = Kernel.times
    Kernel.times = timed
    started = time.perf_counter()
    try:
        batched(train, labels, test, C)
    finally:
        Kernel.times = plain
    wall = time.perf_counter() - started
    square = np.random.default_rng(0).normal(size=(2048, 2048)).astype(np.float32)
    started = time.perf_counter()
    for _ in range(5):
        square @ square
    peak = 5 * 2.0 * 2048**3 / (time.perf_counter() - started)
    busy = spent["seconds"] / threads  # each group of subsets is solved by a thread of its own
    share, speed = busy / wall, spent["flops"] / busy
    started = time.perf_counter()
    for part in plainly_standardised(train, test)[0]:
        Kernel.of(part)
    grams = (time.perf_counter() - started) / wall
    print(
        f"of our time, Gram matrices are {grams:.0%}, their products with coefficients {share:.0%}, at"
        f" {speed / 1e9:.0f} GFlop/s (large float32 squares: {peak / 1e9:.0f});"
        f" if all else took none, the ratio would be {ratio / (share + grams):.1f}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--penalty", type=float, default=0.01)
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def features(n: int, shared: int = 60, own: int = 300) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    common = rng.normal(size=(n, shared)) * np.arange(1, shared + 1) ** -0.5
    common[:, :20] += 0.25 * (y[:, None] - 0.5) * rng.normal(size=20)
    columns = []
    for width in WIDTHS.values():
        private = rng.normal(size=(n, own)) * np.arange(1, own + 1) ** -0.6
        values = common @ rng.normal(size=(shared, width)) + 0.7 * private @ rng.normal(size=(own, width))
        values += 0.5 * rng.normal(size=(n, width))
        columns.append((np.maximum(values, 0) * rng.lognormal(size=width)).astype(np.float32))
    return np.concatenate(columns, axis=1), y


def stratified(count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    chosen = []
    for size in range(1, 8):
        alike = [s for s in SUBSETS if len(s) == size]
        chosen += [alike[at] for at in rng.permutation(len(alike))[:count]]
    return chosen


def extrapolate(seconds: dict[tuple[int, ...], float]) -> float:
    """Sum over all subsets of the mean time of their size."""
    means = {
        size: statistics.mean(t for s, t in seconds.items() if len(s) == size)
        for size in {len(s) for s in seconds}
    }
    return sum(means[len(s)] for s in SUBSETS)


def as_called(train, labels, test, sample, C):
    wall, cpu, proba = {}, {}, {}
    for subset in sample:
        started, before = time.perf_counter(), time.process_time()
        columns = np.concatenate([np.arange(BLOCKS[m].start, BLOCKS[m].stop) for m in subset])
        scaler = StandardScaler().fit(train[:, columns].astype(np.float64))
        Z = scaler.transform(train[:, columns].astype(np.float64))
        model = LogisticRegression(C=C, max_iter=10_000).fit(Z, labels)
        proba[subset] = model.predict_proba(scaler.transform(test[:, columns].astype(np.float64)))[:, 1]
        wall[subset], cpu[subset] = time.perf_counter() - started, time.process_time() - before
    return extrapolate(wall), extrapolate(cpu), proba


def laid_out(train, labels, test, C, processes):
    """What starting processes and sending them matrices takes is not held against it."""
    started, before = time.perf_counter(), time.process_time()
    grams = block_grams(train, test)
    wall, cpu = time.perf_counter() - started, time.process_time() - before
    with parallel_config(backend="loky", inner_max_num_threads=1):
        done = Parallel(n_jobs=processes)(delayed(by_root)(grams, labels, s, C) for s in SUBSETS)
    walls, cpus, proba = zip(*done, strict=True)
    return wall + sum(walls) / processes, cpu + sum(cpus), dict(zip(SUBSETS, proba, strict=True))


def by_root(grams, labels, subset, C, solver="lbfgs"):
    started, before = time.perf_counter(), time.process_time()
    gram = sum(grams[m][0] for m in subset)
    gram.flat[:: len(gram) + 1] += JITTER * gram.trace() / len(gram)
    root = cholesky(gram, lower=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=C, tol=TIGHT, max_iter=10_000, solver=solver).fit(root, labels)
    dual = solve_triangular(root, model.coef_[0], lower=True, trans="T")
    logits = sum(grams[m][1] for m in subset) @ dual + model.intercept_
    proba = 1 / (1 + np.exp(-logits))
    return time.perf_counter() - started, time.process_time() - before, proba


def block_grams(train, test):
    pairs = zip(*plainly_standardised(train, test), strict=True)
    return [(a @ a.T, b @ a.T) for a, b in pairs]


def batched(train, labels, test, C):
    """What `SubsetLogistic` does, without the weights of the blocks; ``(subsets, rows)``."""
    inside, outside = plainly_standardised(train, test)
    kernels = [Kernel.of(part) for part in inside]
    members = np.array([[m in subset for m in range(len(BLOCKS))] for subset in SUBSETS])
    solution = solve(kernels, members, targets(labels, 2), np.full(len(SUBSETS), C))
    logits = np.repeat(solution.intercept, len(test), axis=1)
    for a, b, where in zip(inside, outside, members.T, strict=True):
        logits[where] += solution.dual[where, 0] @ a @ b.T
    return 1 / (1 + np.exp(-logits))


def plainly_standardised(train, test):
    mean, scale = standardise(train, BLOCKS)
    plain = scale * np.concatenate([np.full(block.width, block.width**0.5) for block in BLOCKS])
    return [scaled_blocks(X, BLOCKS, mean, plain) for X in (train, test)]


if __name__ == "__main__":
    main()
