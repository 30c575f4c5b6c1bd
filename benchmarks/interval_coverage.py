"""How often the intervals and verdicts of `compare` are right, on data whose truth is known.

    python benchmarks/interval_coverage.py [--studies 1000] [--minutes 60] [--patients 60,120,330,1000] [--repeats 1]
    python benchmarks/interval_coverage.py --only scores|winner|held-out [--studies 200] [--patients 40,60,120]

Every study draws new patients with two images each, networks whose features carry nothing (or a planted signal), fits
the linear probe in five folds and scores it as `featstore compare` does. The first table has a line for each number
of patients: how often the 95 % intervals of the AUC and of its differences hold the truth (that of the models of the
folds on ever so many new patients, which normal features tell in closed form), how often a pair is told apart that
is not apart, or the wrong way round (family-wise error), and how often the better network is told (power), by max-T
and by Holm over three pairs. The last column is the factor by which intervals of differences would have to be
widened for the overlap of training sets, where they are widened by 1.5: from the spread of the differences over
studies and the errors that were computed.

``--only scores``: four scores of three that guess. ``winner``: the best of twelve. ``held-out``: scores as `featstore
fuse` gives them, of a fixed model with few patients and scores up to the very edge, against 40,000 patients.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featstore.evaluation.candidates import Candidate
from featstore.evaluation.estimates import (
    CandidateScores,
    EvaluationDesign,
    correct_selection_bias,
    fold_mean,
    held_out_scores,
    score_candidates,
    select_in_inner_folds,
    with_inner_folds,
)
from featstore.evaluation.intervals import (
    group_weights,
    minimal_interval,
    percentile_interval,
    ranking_sample_sizes,
    score_interval,
    widen,
)
from featstore.evaluation.metrics import BOUNDED, PRIMARY, primary_score, score
from featstore.evaluation.pairwise_tests import (
    ALPHA,
    differences,
    holm,
    max_t,
    pair_variances,
    pairwise_tests,
)
from featstore.results.scores import MetricEstimate, VarianceComponents
from featstore.splits import group_folds

CHANCE = ("auc", "accuracy", "balanced_accuracy", "average_precision")
"""Scores that are one half when nothing is to be learned from two classes of one size."""
HELD_OUT = ("auc", "average_precision", "sensitivity", "balanced_accuracy", "f1", "brier", "log_loss")
IMAGES, WIDTH, FOLDS = 2, 6, 5


KINDS = {
    "noise": ((0.0,), (0.0,), (0.0, 0.0)),
    "level": ((1.0,), (1.0,), (1.0,)),
    "gain": ((1.0,), (1.0,), (2.0,)),
}
"""Signals of three candidates: nothing to be found, all equally good, and the third better than both others."""
COLUMNS = (
    "kind | patients | AUC held | difference held | told wrongly: max-T | Holm | power: max-T | Holm | gain"
    " | factor needed"
)
RESAMPLES = 1000
STEPS, TOLERANCE = 30, 1e-7


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int)
    parser.add_argument("--patients", default="60,120,330,1000")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("scores", "winner", "held-out"))
    arguments = parser.parse_args()
    numbers = list(map(int, arguments.patients.split(",")))
    studies = arguments.studies or (200 if arguments.only else 1000)
    print("95 % intervals, verdicts at 0.05", flush=True)
    match arguments.only:
        case "winner":
            many(60, 12, studies)
        case "held-out":
            all_held_out(studies)
        case "scores":
            all_scores(numbers, studies)
        case _:
            rows = [Coverage(kind, n, arguments.repeats) for n in numbers for kind in KINDS]
            simulate(COLUMNS, rows, studies, arguments.minutes)


def simulate(columns: str, rows: list, studies: int, minutes: float) -> None:
    """Add a study to each line in turn, as many as were asked for or as the time allows, and print the table."""
    end, done = time.monotonic() + 60 * minutes, 0
    while done < studies and time.monotonic() < end:
        for row in rows:
            row.add(done)
        done += 1
    print(f"{done:,} studies a line\n\n| {columns} |\n|{'---|' * (columns.count('|') + 1)}")
    for row in rows:
        print("|", " | ".join(row.cells()), "|")


def all_held_out(studies: int) -> None:
    for images, between in ((1, 0.0), (5, 0.0), (5, 1.0)):
        for signal in (1.0, 3.0, 5.0):
            for patients in (8, 20, 60, 200):
                held_out(patients, images, between, signal, studies)


def all_scores(numbers: list[int], studies: int) -> None:
    for patients in numbers:
        noise(patients, studies)
    for signal in (0.0, 0.5, 1.0, 2.0):
        planted(120, signal, studies)


class Coverage:
    """One line: coverage of scores and differences, family-wise error, and power where there is a gain."""

    def __init__(self, kind: str, patients: int, repeats: int) -> None:
        self.kind, self.patients, self.repeats = kind, patients, repeats
        # As in the product, all have the same resamples.
        self.weights = group_weights(np.repeat(np.arange(patients), IMAGES), RESAMPLES)
        self.held, self.apart, self.gains, self.seen, self.errors = [], [], [], [], []
        self.wrong, self.power = Counter(), Counter()

    def add(self, seed: int) -> None:
        """Draw a study and look at its intervals and tests."""
        design, ranked, truth = known_study(KINDS[self.kind], seed, self.patients, self.repeats, self.weights)
        for s, right in zip(ranked, truth, strict=True):
            low, high = s.estimates[PRIMARY].interval
            self.held.append(low <= right <= high)
        pairs = differences(design, ranked, np.array([1, 2, 2]), np.array([0, 0, 1]))
        for at, (low, high) in enumerate(pairs.intervals()):
            self.apart.append(low <= truth[pairs.first[at]] - truth[pairs.second[at]] <= high)
        for name, p in (("max-T", max_t(pairs)[0]), ("Holm", holm(pairs.p))):
            told = p < ALPHA
            right = told & (pairs.first == 2) & (pairs.delta > 0) & (self.kind == "gain")
            self.wrong[name] += bool((told & ~right).any())
            self.power[name] += bool(right.sum() == 2)
        self.seen.append(pairs.delta)
        self.errors.append(pair_variances(pairs.contributions, pairs.first, pairs.second))
        self.gains.append(truth[2] - max(truth[:2]))

    def cells(self) -> list[str]:
        """Its shares so far."""
        studies = len(self.seen)
        power = [f"{self.power[name] / studies:.3f}" for name in ("max-T", "Holm")]
        factor = np.sqrt(np.var(self.seen, axis=0).mean() / np.mean(self.errors))
        return [
            self.kind,
            f"{self.patients:,}",
            f"{np.mean(self.held):.3f}",
            f"{np.mean(self.apart):.3f}",
            *(f"{self.wrong[name] / studies:.3f}" for name in ("max-T", "Holm")),
            *(power if self.kind == "gain" else ("-", "-")),
            f"{np.mean(self.gains):+.3f}",
            f"{factor:.2f}",
        ]


def known_study(
    signals: tuple[tuple[float, ...], ...], seed: int, patients: int, repeats: int, weights: np.ndarray
) -> tuple[EvaluationDesign, list[CandidateScores], list[float]]:
    """One comparison, and the AUC that the models of its folds have on new patients."""
    rng = np.random.default_rng([seed, patients])
    design = drawn_design(rng, patients, repeats)
    ranked, truth = [], []
    for at, signal in enumerate(signals):
        proba, area = probes(design, features(rng, design.y, patients, signal), signal)
        ranked.append(scored_by_auc(design, Candidate("concat_logreg", ("A",), str(at)), proba, weights))
        truth.append(area)
    return design, ranked, truth


# Many studies in little time: patients of equal size in folds, and the linear probe by Newton's method


def drawn_design(rng: np.random.Generator, patients: int, repeats: int = 1) -> EvaluationDesign:
    """Folds over whole patients with the same number of each class, as `featstore.splits.group_folds` makes them."""
    groups, splits = np.repeat(np.arange(patients), IMAGES), []
    for _ in range(repeats):
        part = np.empty(patients, int)
        for kind in range(2):
            part[rng.permutation(np.arange(kind, patients, 2))] = np.arange(len(part[kind::2])) % FOLDS
        splits += [
            (np.flatnonzero(part[groups] != at), np.flatnonzero(part[groups] == at)) for at in range(FOLDS)
        ]
    return EvaluationDesign(groups % 2, groups, splits, repeats, 1)


def probes(
    design: EvaluationDesign, X: np.ndarray, signal: tuple[float, ...]
) -> tuple[list[np.ndarray], float]:
    """Probabilities on the test images of each fold, and the mean AUC of these models on new patients.

    A score w of normal features, of variance 2 each and apart by `signal`, has the AUC P(w·signal / (2 |w|)).
    """
    from scipy.special import expit
    from scipy.stats import norm

    shift = np.zeros(X.shape[1])
    shift[: WIDTH * len(signal) : WIDTH] = signal
    proba, areas = [], []
    for train, test in design.splits:
        w, b = fit_probe(X[train], design.y[train])
        p = expit(X[test] @ w + b)
        proba.append(np.column_stack([1 - p, p]))
        areas.append(norm.cdf(w @ shift / (2 * np.linalg.norm(w))))
    return proba, float(np.mean(areas))


def fit_probe(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and offset of scikit-learn's LogisticRegression() after a StandardScaler()."""
    from scipy.special import expit

    mean, scale = X.mean(axis=0), X.std(axis=0)
    Z = np.column_stack([(X - mean) / scale, np.ones(len(X))])
    penalty, w = np.append(np.ones(X.shape[1]), 0.0), np.zeros(Z.shape[1])
    for _ in range(STEPS):
        p = expit(Z @ w)
        slope = Z.T @ (p - y) + penalty * w
        step = np.linalg.solve((Z.T * (p * (1 - p))) @ Z + np.diag(penalty), slope)
        w -= step
        if np.abs(step).max() < TOLERANCE:
            break
    return w[:-1] / scale, float(w[-1] - w[:-1] @ (mean / scale))


# Scores, held-out answers and the winner's curse


def held_out(patients: int, images: int, between: float, signal: float, studies: int) -> None:
    """Share of studies whose interval holds the truth, that of the bootstrap alone, and the median width of both."""
    truth = {
        name: values[0]
        for name, values in score(
            *model(99, 40_000, images, between, signal)[:2], np.ones((1, 40_000 * images)), 1
        ).items()
    }
    held, plain, wide, narrow = (
        Counter(),
        Counter(),
        {name: [] for name in HELD_OUT},
        {n: [] for n in HELD_OUT},
    )
    for seed in range(studies):
        y, proba, groups = model(seed, patients, images, between, signal)
        matrix = SimpleNamespace(y=y, groups=groups)
        found = held_out_scores(matrix, np.arange(len(y)), proba, 1)
        resampled = score(y, proba, group_weights(groups), 1)
        for name in HELD_OUT:
            low, high = found[name].interval
            drawn = widen(resampled[name], found[name].value, 1.0).clip(0.0, 1.0 if name in BOUNDED else None)
            first, last = percentile_interval(drawn)
            held[name] += low <= truth[name] <= high
            plain[name] += first <= truth[name] <= last
            wide[name].append(high - low)
            narrow[name].append(last - first)
    told = ", ".join(
        f"{name} {truth[name]:.3f}: {held[name] / studies:.2f} ({np.median(wide[name]):.2f};"
        f" bootstrap {plain[name] / studies:.2f}, {np.median(narrow[name]):.2f})"
        for name in HELD_OUT
    )
    print(f"held out, {patients} patients, {images} images, between {between:g}: {told}", flush=True)


def model(
    seed: int, patients: int, images: int, between: float, signal: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and patients; the deviation `between` patients is in units of that between images."""
    rng = np.random.default_rng([seed, patients])
    groups = np.repeat([f"p{i:05d}" for i in range(patients)], images)
    y = np.repeat(np.arange(patients) % 2, images)
    z = signal * (y - 0.5) + rng.normal(size=len(y)) + between * np.repeat(rng.normal(size=patients), images)
    p = 1 / (1 + np.exp(-signal * z / (1 + between**2)))
    return y, np.column_stack([1 - p, p]), groups


def noise(patients: int, studies: int) -> None:
    covered, told, raw = Counter(), 0, Counter()
    for seed in range(studies):
        design, ranked, *_ = study(seed, patients, [(0.0,), (0.0,), (0.0, 0.0)])
        for s in ranked:
            for name in CHANCE:
                low, high = s.estimates[name].interval
                covered[name] += low < 0.5 < high
        found = pairwise_tests(design, ranked)
        told += any(pair.verdict != "cannot_tell" for pair in found)
        for pair in found:
            raw.update(name for name, test in pair.tests.items() if test.p is not None and test.p < 0.05)
    shares = ", ".join(f"{name} {covered[name] / studies / 3:.2f}" for name in CHANCE)
    alarms = ", ".join(f"{name} {raw[name] / studies / 3:.3f}" for name in sorted(raw))
    print(f"noise, {patients} patients: interval covers one half: {shares}")
    print(
        f"  studies in which any of three pairs is told apart: {told / studies:.3f}; single p < .05: {alarms}"
    )


def many(patients: int, candidates: int, studies: int) -> None:
    apparent, corrected, nested, covered, within, plain, told = [], [], [], 0, 0, 0, 0
    for seed in range(studies):
        design, ranked, weights, chosen = study(seed, patients, [(0.0,)] * candidates, inside=True)
        winner = correct_selection_bias(design, ranked, weights, chosen)
        nested.append(winner.nested.mean)
        within += winner.nested.interval[0] < 0.5 < winner.nested.interval[1]
        best = max(ranked, key=lambda s: s.primary).estimates["auc"].interval
        apparent.append(winner.apparent)
        corrected.append(winner.corrected)
        covered += winner.interval[0] < 0.5 < winner.interval[1]
        plain += best[0] < 0.5 < best[1]
        told += any(pair.verdict != "cannot_tell" for pair in pairwise_tests(design, ranked))
    pairs = candidates * (candidates - 1) // 2
    print(
        f"best of {candidates} that guess, {patients} patients: AUC {np.mean(apparent):.3f}, corrected"
        f" {np.mean(corrected):.3f}, nested {np.mean(nested):.3f}; one half is covered by the winner's own"
        f" interval in {plain / studies:.2f}, by the corrected one in {covered / studies:.2f}, by the nested one in"
        f" {within / studies:.2f}; any of {pairs} pairs told: {told / studies:.3f}"
    )


def planted(patients: int, signal: float, studies: int) -> None:
    right = wrong = 0
    for seed in range(studies):
        design, ranked, *_ = study(seed, patients, [(1.0,), (1.0 + signal,)])
        (pair,) = pairwise_tests(design, ranked)
        right += pair.verdict == "a_better"
        wrong += pair.verdict == "b_better"
    print(
        f"one network better by {signal:.1f} patient deviations, {patients} patients:"
        f" told {right / studies:.2f}, told the wrong way round {wrong / studies:.3f}"
    )


def study(
    seed: int, patients: int, signals: list[tuple[float, ...]], *, inside: bool = False
) -> tuple[EvaluationDesign, list, np.ndarray, list[int]]:
    """One comparison; each entry of `signals` is a candidate over as many networks of its own.

    `inside` also plays the rounds within each fold, and tells who is picked by them.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{i:03d}" for i in range(patients)], IMAGES)
    y = np.repeat(np.arange(patients) % 2, IMAGES)
    matrix = SimpleNamespace(y=y, groups=groups, classes=("a", "b"))
    splits = group_folds(matrix, FOLDS, seed=seed)
    design = EvaluationDesign(y, groups, splits, 1, 1)
    rounds = with_inner_folds(matrix, splits, seed) if inside else splits
    proba = [cross_validate(y, rounds, features(rng, y, patients, signal)) for signal in signals]
    who = [Candidate("concat_logreg", ("A",), f"c{i}") for i in range(len(signals))]
    weights = group_weights(groups, seed=seed)
    outer = [answers[:FOLDS] for answers in proba]
    return (
        design,
        score_candidates(design, who, outer, weights),
        weights,
        select_in_inner_folds(design, rounds, proba),
    )


def features(rng: np.random.Generator, y: np.ndarray, patients: int, signal: tuple[float, ...]) -> np.ndarray:
    shape = (len(y), WIDTH * len(signal))
    X = rng.normal(size=shape) + np.repeat(rng.normal(size=(patients, shape[1])), IMAGES, axis=0)
    for at, strength in enumerate(signal):
        X[:, at * WIDTH] += strength * y
    return X


def cross_validate(y: np.ndarray, rounds: list, X: np.ndarray) -> list[np.ndarray]:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return [model.fit(X[train], y[train]).predict_proba(X[test]) for train, test in rounds]


def scored_by_auc(
    design: EvaluationDesign, candidate: Candidate, proba: list, weights: np.ndarray
) -> CandidateScores:
    """A candidate with its AUC alone, as `score_candidates` gives it with all scores."""
    parts = [
        primary_score(design.y[test], p, np.vstack([np.ones((1, len(test))), weights[:, test]]), 1)
        for (_, test), p in zip(design.splits, proba, strict=True)
    ]
    folds, resampled = np.array([part[0] for part in parts]), fold_mean([part[1:] for part in parts])
    rows = np.concatenate([test for _, test in design.splits])
    ends = np.cumsum([len(test) for _, test in design.splits])[:-1]
    size = ranking_sample_sizes(
        [(design.y[rows] == 1, np.concatenate(proba)[:, 1])],
        design.groups[rows],
        np.split(np.arange(len(rows)), ends),
    )[PRIMARY]
    mean = float(folds.mean())
    interval = score_interval(PRIMARY, mean, resampled, size, design.overlap_factor)
    estimate = MetricEstimate(mean=mean, deviation=None, interval=interval, folds=tuple(folds))
    return CandidateScores(
        candidate,
        tuple(proba),
        tuple(p.argmax(axis=1) for p in proba),
        {PRIMARY: estimate},
        VarianceComponents(patients=None, folds=None, training=None),
        resampled,
        minimal_interval(mean, resampled, size),
        size,
    )


if __name__ == "__main__":
    main()
