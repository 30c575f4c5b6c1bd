"""How often the primary question is answered rightly, beside max-T and Holm over all pairs.

    python benchmarks/primary_question.py [--studies 100] [--patients 60,120,330,1000]

Every study draws new patients with two images each and five networks, fits a linear probe on each and on all of them
in five folds, and fuses the probes' answers in five other ways: 55 pairs in all. Nothing is to be found where the
networks carry nothing (noise), and where the primary fusion is one more network, as good as the best single one
(level): there every "better" is an error. Where two networks know half of the truth each (gain) it is power.
"""

from __future__ import annotations

import argparse
from collections import Counter
from types import SimpleNamespace

import numpy as np
from interval_coverage import FOLDS, IMAGES, cross_validate, features, scored_by_auc

from featstore.evaluation.candidates import Candidate
from featstore.evaluation.estimates import EvaluationDesign
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.pairwise_tests import ALPHA, holm, pairwise_tests
from featstore.evaluation.primary_question import Question, answer
from featstore.splits import group_folds

NETWORKS = tuple("ABCDE")
SIGNALS = {"noise": (0.0,) * 5, "level": (1.5, 0.5, 0.5, 0.5, 0.5), "gain": (1.0, 1.0, 0.5, 0.5, 0.5)}
RESAMPLES = 100
"""For the intervals of scores alone: no difference rests on them."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--patients", default="60,120,330,1000")
    arguments = parser.parse_args()
    print(
        f"{arguments.studies} studies of each kind, 5 networks, 6 fusions, 55 pairs; share of the studies with"
    )
    print(
        "kind  patients  better  worse  number of patients  better by Holm  any pair: max-T  Holm  gain seen"
    )
    for patients in map(int, arguments.patients.split(",")):
        for kind in SIGNALS:
            row(kind, patients, arguments.studies)


def row(kind: str, patients: int, studies: int) -> None:
    seen: Counter[str] = Counter()
    gains = []
    for seed in range(studies):
        design, question, scored = study(kind, seed, patients)
        found = answer(design, question, scored)
        pairs = pairwise_tests(design, scored)
        adjusted = holm(np.array([pair.tests["clustered"].p for pair in pairs]))
        asked = [p for p, pair in zip(adjusted, pairs, strict=True) if _is_asked(pair)]
        deltas = [one.delta for one in found.singles]
        gains.append(min(deltas))
        seen.update(
            {
                found.verdict: 1,
                "number": int(found.needed is not None),
                "by holm": int(min(deltas) > 0 and max(asked) < ALPHA),
                "max-T": int(any(pair.verdict != "cannot_tell" for pair in pairs)),
                "holm": int((adjusted < ALPHA).any()),
            }
        )
    shares = [seen[name] / studies for name in ("better", "worse", "number", "by holm", "max-T", "holm")]
    told = "  ".join(f"{share:.2f}" for share in shares)
    print(f"{kind:5}  {patients:5}  {told}  {np.mean(gains):+.3f}", flush=True)


def _is_asked(pair: object) -> bool:
    return pair.a == "concat_logreg" and pair.b in NETWORKS


def study(kind: str, seed: int, patients: int) -> tuple[EvaluationDesign, Question, list]:
    """One comparison of five probes and six fusions."""
    rng = np.random.default_rng([seed, patients])
    groups = np.repeat([f"p{i:04d}" for i in range(patients)], IMAGES)
    y = np.repeat(np.arange(patients) % 2, IMAGES)
    splits = group_folds(SimpleNamespace(y=y, groups=groups, classes=("a", "b")), FOLDS, seed=seed)
    tables = [features(rng, y, patients, (signal,)) for signal in SIGNALS[kind]]
    singles = [cross_validate(y, splits, X) for X in tables]
    whole = features(rng, y, patients, (1.5,)) if kind == "level" else np.hstack(tables)
    fused = [cross_validate(y, splits, whole), *_fused(singles)]
    who = [Candidate("concat_logreg", (name,), name) for name in NETWORKS]
    who += [
        Candidate("x", NETWORKS, name) for name in ("concat_logreg", "mean", "logit", "max", "median", "vote")
    ]
    design = EvaluationDesign(y, groups, splits, 1, 1)
    weights = group_weights(groups, RESAMPLES, seed)
    scored = [scored_by_auc(design, *one, weights) for one in zip(who, [*singles, *fused], strict=True)]
    return design, Question(who[5], tuple(who[:5]), 0.01), scored


def _fused(singles: list) -> list:
    """Five decision-level fusions of the probes' answers, fold by fold."""
    p = [np.array([answers[at][:, 1] for answers in singles]).clip(1e-9, 1 - 1e-9) for at in range(FOLDS)]
    ways = [
        [part.mean(axis=0) for part in p],
        [1 / (1 + np.exp(-np.log(part / (1 - part)).mean(axis=0))) for part in p],
        [part.max(axis=0) for part in p],
        [np.median(part, axis=0) for part in p],
        [(part > 1 / 2).mean(axis=0) for part in p],
    ]
    return [[np.column_stack([1 - part, part]) for part in way] for way in ways]


if __name__ == "__main__":
    main()
