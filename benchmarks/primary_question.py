"""How often the primary question is answered rightly, beside max-T and Holm over all pairs.

    python benchmarks/primary_question.py [--studies 1000] [--minutes 60] [--patients 60,120,330,1000]
                                            [--kinds noise,level,...]

Every study draws new patients with two images each and five networks, whose probes are fused in six ways: 55 pairs in
all. With real fits a linear probe is fitted on each network and on all of them in five folds:

* noise: no network carries anything, and every "better" or "worse" is an error;
* level: the primary fusion is one more network, as good as the best single one, and the others are worse. This is
  where "better" has its largest error;
* gain: two networks know half of the truth each, and the fusion is better where patients are enough to learn it.

Without fits the logits themselves are drawn, so that the true difference to the best single network is a number that
does not depend on what was learned: 0 (as level), the margin of 0.01 (where "equivalent" has its largest error), and
gains of 0.03 and 0.05. There models do not change with the training patients, which the factor of 1.5 allows for.

Columns: shares of the studies with each answer; with a number of patients promised; in which today's test before
(Holm over all pairs) would have called the fusion better than every single network; in which any pair is told by
max-T, by Holm, though nothing is between the two, or the wrong way round; the true gain.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from interval_coverage import FOLDS, drawn_design, features, probes, simulate
from scipy.special import expit, logit
from scipy.stats import norm

from featstore.evaluation.candidates import Candidate
from featstore.evaluation.estimates import CandidateScores, EvaluationDesign
from featstore.evaluation.intervals import ranking_sample_sizes
from featstore.evaluation.metrics import PRIMARY, primary_score
from featstore.evaluation.pairwise_tests import ALPHA, differences, holm, max_t
from featstore.evaluation.primary_question import MARGIN, Question, answer
from featstore.results.scores import MetricEstimate, VarianceComponents

NETWORKS = tuple("ABCDE")
FUSIONS = ("concat_logreg", "mean", "logit", "max", "median", "vote")
SIGNALS = {"noise": (0.0,) * 5, "level": (1.5, 0.5, 0.5, 0.5, 0.5), "gain": (1.0, 1.0, 0.5, 0.5, 0.5)}
"""Signals of the networks, with real fits."""
GAINS = {"0": 0.0, "0.01": MARGIN, "0.03": 0.03, "0.05": 0.05}
"""True gain over the best single network, without fits."""
AREAS = (0.8, 0.79, 0.78, 0.75, 0.7)
"""AUC of the networks there."""
SHARED, TAKEN = 0.6, 0.5
"""Share of the variance of a logit that all networks have in common; of the rest, that of the best in the fusion."""
COLUMNS = (
    "kind | patients | better | worse | equivalent | number of patients | better by Holm"
    " | told wrongly: max-T | Holm | gain"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--patients", default="60,120,330,1000")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--kinds", default=",".join((*SIGNALS, *GAINS)))
    arguments = parser.parse_args()
    print("5 networks, 6 fusions, 55 pairs; shares of the studies", flush=True)
    patients = map(int, arguments.patients.split(","))
    rows = [Answers(kind, n, arguments.repeats) for n in patients for kind in arguments.kinds.split(",")]
    simulate(COLUMNS, rows, arguments.studies, arguments.minutes)


class Answers:
    """One line: how the primary question was answered, and which pairs were told that are not apart."""

    def __init__(self, kind: str, patients: int, repeats: int) -> None:
        self.kind, self.patients, self.repeats = kind, patients, repeats
        self.seen: Counter[str] = Counter()
        self.gains: list[float] = []

    def add(self, seed: int) -> None:
        """Draw a study and answer its question."""
        design, question, scored, truth = study(self.kind, seed, self.patients, self.repeats)
        found = answer(design, question, scored)
        first, second = np.tril_indices(len(scored), -1)
        asked = (first == len(NETWORKS)) & (second < len(NETWORKS))
        pairs = differences(design, scored, first, second)
        adjusted = holm(pairs.p)
        errors = wrong(self.kind, pairs.delta, truth, first, second)
        # An adjusted p is never below the plain one: often there is nothing to draw for.
        some = bool((errors & (pairs.p < ALPHA)).any())
        self.gains.append(truth[len(NETWORKS)] - max(truth[: len(NETWORKS)]))
        self.seen[found.verdict] += 1
        self.seen["number"] += found.needed is not None
        self.seen["by holm"] += bool(pairs.delta[asked].min() > 0 and adjusted[asked].max() < ALPHA)
        self.seen["max-T"] += some and bool((errors & (max_t(pairs)[0] < ALPHA)).any())
        self.seen["holm"] += bool((errors & (adjusted < ALPHA)).any())

    def cells(self) -> list[str]:
        """Its shares so far."""
        names = ("better", "worse", "equivalent", "number", "by holm", "max-T", "holm")
        shares = [f"{self.seen[name] / len(self.gains):.3f}" for name in names]
        return [self.kind, f"{self.patients:,}", *shares, f"{np.mean(self.gains):+.3f}"]


def wrong(
    kind: str, delta: np.ndarray, truth: list[float], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Pairs that would be told wrongly, of those whose truth is known: networks, and the primary fusion."""
    a, b = np.array(truth)[first], np.array(truth)[second]
    nothing = np.isclose(a, b, atol=1e-9) if kind in GAINS else _alike(kind, first, second)
    return (nothing | ((a - b) * delta < 0)) & np.isfinite(a - b)


def _alike(kind: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs of equal signals: what their models learned differs by chance alone."""
    level = kind == "level"
    signals = np.array([*SIGNALS[kind], 1.5 if level else np.nan, *[np.nan] * (len(FUSIONS) - 1)])
    return (signals[first] == signals[second]) | (kind == "noise")


def study(
    kind: str, seed: int, patients: int, repeats: int = 1
) -> tuple[EvaluationDesign, Question, list[CandidateScores], list[float]]:
    """One comparison of five probes and six fusions, and the true AUC of each, NaN where it is not known."""
    rng = np.random.default_rng([seed, patients])
    design = drawn_design(rng, patients, repeats)
    answers, truth = (drawn if kind in GAINS else fitted)(kind, rng, design, patients)
    truth += [0.5 if kind == "noise" else np.nan] * (len(FUSIONS) - 1)
    who = [Candidate("concat_logreg", (name,), name) for name in NETWORKS]
    who += [Candidate("x", NETWORKS, name) for name in FUSIONS]
    answers += _fused(answers[: len(NETWORKS)])
    scored = [scored_without_resamples(design, *one) for one in zip(who, answers, strict=True)]
    return design, Question(who[len(NETWORKS)], tuple(who[: len(NETWORKS)]), MARGIN), scored, truth


def fitted(
    kind: str, rng: np.random.Generator, design: EvaluationDesign, patients: int
) -> tuple[list, list[float]]:
    """Answers of the five probes and of the primary fusion, by real fits, and their AUC on new patients."""
    tables = [features(rng, design.y, patients, (signal,)) for signal in SIGNALS[kind]]
    whole = (np.hstack(tables), SIGNALS[kind])
    if kind == "level":
        whole = (features(rng, design.y, patients, (1.5,)), (1.5,))
    each = [*((X, (signal,)) for X, signal in zip(tables, SIGNALS[kind], strict=True)), whole]
    found = [probes(design, *one) for one in each]
    return [proba for proba, _ in found], [area for _, area in found]


def drawn(
    kind: str, rng: np.random.Generator, design: EvaluationDesign, patients: int
) -> tuple[list, list[float]]:
    """The same without fits: logits of known AUC, alike between networks, patients and their images."""
    truth = [*AREAS, AREAS[0] + GAINS[kind]]
    index = design.groups

    def noise(columns: int) -> np.ndarray:
        return rng.normal(size=(len(index), columns)) + rng.normal(size=(patients, columns))[index]

    own = noise(len(AREAS))
    of_fusion = np.sqrt(TAKEN) * own[:, :1] + np.sqrt(1 - TAKEN) * noise(1)
    z = np.sqrt(SHARED) * noise(1) + np.sqrt(1 - SHARED) * np.hstack([own, of_fusion])
    z += 2 * norm.ppf(truth) * design.y[:, None]
    p = expit(z - z.mean(axis=0))
    return [
        [np.column_stack([1 - p[test, at], p[test, at]]) for _, test in design.splits]
        for at in range(len(truth))
    ], truth


def _fused(singles: list) -> list:
    """Five decision-level fusions of the probes' answers, fold by fold."""
    folds = range(len(singles[0]))
    p = [np.array([answers[at][:, 1] for answers in singles]).clip(1e-9, 1 - 1e-9) for at in folds]
    ways = [
        [part.mean(axis=0) for part in p],
        [expit(logit(part).mean(axis=0)) for part in p],
        [part.max(axis=0) for part in p],
        [np.median(part, axis=0) for part in p],
        [(part > 1 / 2).mean(axis=0) for part in p],
    ]
    return [[np.column_stack([1 - part, part]) for part in way] for way in ways]


def scored_without_resamples(design: EvaluationDesign, candidate: Candidate, proba: list) -> CandidateScores:
    """A candidate with its AUC alone, and no interval of it: no difference rests on resamples."""
    folds = np.array(
        [
            float(primary_score(design.y[test], p, np.ones((1, len(test))), 1)[0])
            for (_, test), p in zip(design.splits, proba, strict=True)
        ]
    )
    once = design.splits[:FOLDS]
    rows = np.concatenate([test for _, test in once])
    ends = np.cumsum([len(test) for _, test in once])[:-1]
    size = ranking_sample_sizes(
        [(design.y[rows] == 1, np.concatenate(proba[:FOLDS])[:, 1])],
        design.groups[rows],
        np.split(np.arange(len(rows)), ends),
    )[PRIMARY]
    mean = float(folds.mean())
    estimate = MetricEstimate(mean=mean, deviation=None, interval=None, folds=tuple(folds))
    return CandidateScores(
        candidate,
        tuple(proba),
        (),
        {PRIMARY: estimate},
        VarianceComponents(patients=None, folds=None, training=None),
        np.array([]),
        None if size is None else (mean, mean),  # asked for nothing but whether there is one
        size,
    )


if __name__ == "__main__":
    main()
