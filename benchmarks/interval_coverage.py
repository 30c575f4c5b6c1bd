"""How often the intervals and verdicts of `compare` are right, on data whose truth is known.

    python benchmarks/interval_coverage.py [--studies 200] [--patients 60,120,330,1000] [--repeats 1]
    python benchmarks/interval_coverage.py --only scores|winner|held-out [--studies 200] [--patients 40,60,120]

Every study draws new patients with two images each, networks whose features carry nothing (or a planted signal), and
runs the five-fold comparison that `featstore compare` runs. The first table has a line for each number of patients:
how often the 95 % intervals of the AUC and of its differences hold the truth (one half, or that of the same models on
4,000 new patients), how often any pair is told apart where there is nothing to tell (family-wise error), and how
often the better network is told (power), all by max-T over three pairs.

``--only scores``: four scores of three that guess. ``winner``: the best of twelve. ``held-out``: scores as `featstore
fuse` gives them, of a fixed model with few patients and scores up to the very edge, against 40,000 patients.
"""

from __future__ import annotations

import argparse
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
from featstore.evaluation.pairwise_tests import pairwise_tests
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
NEW, RESAMPLES = 4000, 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--patients", default="60,120,330,1000")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", choices=("scores", "winner", "held-out"))
    arguments = parser.parse_args()
    numbers = list(map(int, arguments.patients.split(",")))
    print(f"{arguments.studies} studies of each kind; 95 % intervals, verdicts at 0.05", flush=True)
    match arguments.only:
        case "winner":
            many(60, 12, arguments.studies)
        case "held-out":
            all_held_out(arguments.studies)
        case "scores":
            all_scores(numbers, arguments.studies)
        case _:
            print("kind   patients  AUC held  difference held  told wrongly  power  gain")
            for patients in numbers:
                for kind in KINDS:
                    by_patients(kind, patients, arguments.studies, arguments.repeats)


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


def by_patients(kind: str, patients: int, studies: int, repeats: int) -> None:
    """One line: coverage of scores and differences, family-wise error, and power where there is a gain."""
    scores, differences, wrong, power, gains = [], [], 0, 0, []
    for seed in range(studies):
        design, ranked, truth = known_study(KINDS[kind], seed, patients, repeats)
        for s, right in zip(ranked, truth, strict=True):
            low, high = s.estimates["auc"].interval
            scores.append(low <= right <= high)
        pairs = pairwise_tests(design, ranked)
        told = {(pair.a, pair.b): pair for pair in pairs if pair.verdict != "cannot_tell"}
        for pair in pairs:
            low, high = pair.interval
            differences.append(low <= truth[int(pair.a)] - truth[int(pair.b)] <= high)
        better = [pair for pair in told.values() if kind == "gain" and "2" in (pair.a, pair.b)]
        right = [p for p in better if (p.verdict == "a_better") == (p.a == "2")]
        power += len(right) == 2
        wrong += len(told) > len(right)
        gains.append(truth[2] - max(truth[:2]))
    found = f"{power / studies:.3f}" if kind == "gain" else "    -"
    print(
        f"{kind:5}  {patients:8}  {np.mean(scores):8.3f}  {np.mean(differences):15.3f}  {wrong / studies:12.3f}"
        f"  {found}  {np.mean(gains):+.3f}",
        flush=True,
    )


def known_study(
    signals: tuple[tuple[float, ...], ...], seed: int, patients: int, repeats: int
) -> tuple[EvaluationDesign, list[CandidateScores], list[float]]:
    """One comparison, and the AUC that the models of its folds have on new patients."""
    rng = np.random.default_rng([seed, patients])
    groups = np.repeat([f"p{i:04d}" for i in range(patients)], IMAGES)
    y = np.repeat(np.arange(patients) % 2, IMAGES)
    y_new = np.repeat(np.arange(NEW) % 2, IMAGES)
    matrix = SimpleNamespace(y=y, groups=groups, classes=("a", "b"))
    design = EvaluationDesign(y, groups, group_folds(matrix, FOLDS, repeats, seed), repeats, 1)
    weights = group_weights(groups, RESAMPLES, seed)
    ranked, truth = [], []
    for at, signal in enumerate(signals):
        X, X_new = features(rng, y, patients, signal), features(rng, y_new, NEW, signal)
        model = make_pipeline(StandardScaler(), LogisticRegression())
        proba, areas = [], []
        for train, test in design.splits:
            model.fit(X[train], y[train])
            proba.append(model.predict_proba(X[test]))
            areas.append(
                float(primary_score(y_new, model.predict_proba(X_new), np.ones((1, len(y_new))), 1)[0])
            )
        ranked.append(scored_by_auc(design, Candidate("concat_logreg", ("A",), str(at)), proba, weights))
        truth.append(float(np.mean(areas)) if any(signal) else 0.5)
    return design, ranked, truth


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
