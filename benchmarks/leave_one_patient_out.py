"""What the AUC of `compare --folds group` is worth: its bias, and by how much its errors must be widened.

    python benchmarks/leave_one_patient_out.py [--studies 300] [--patients 30,60] [--minutes 20]
    python benchmarks/leave_one_patient_out.py --fixed [--studies 1000] [--patients 30,60,120]

Every study draws new patients with two images each and the features of two networks: a patient's level and noise,
normal, of width 6 or 60, with no signal or with one. `ridge_loo` and `concat_logreg` are fitted for every patient
left out, as `featstore compare` does; all patients together are ranked. A single network is also fitted plainly,
without setting aside one patient of the other class. The truth is the AUC of the fold models on ever so many new
patients, which normal features tell in closed form, averaged over the folds.

bias: mean of AUC less truth, in the way featstore leaves patients out, and plainly. factor: the spread of AUC less
truth over studies, in parts of the clustered standard error that was computed in each (root mean square), for AUCs
(of ridge and probe, networks and fusion) and for the difference fusion less network; 1 is an error that needs no
widening. held: how often the 95 % intervals hold the truth with the factor that is used.

``--fixed``: ridge regression with a penalty of 30 in place of both, without intervals, which is quick enough for very
many studies.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from featstore.evaluation.crossval import PATIENT_FACTOR
from featstore.evaluation.estimates import EvaluationDesign, score_candidates
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.pairwise_tests import differences, patient_contributions
from featstore.fusion.linear import LinearModel
from featstore.fusion.strategies.concat_logreg import ConcatLogreg
from featstore.fusion.strategies.ridge_loo import RidgeLoo, Spectrum
from featstore.results.comparison import Candidate
from featstore.splits import patient_folds
from featstore.types import make_blocks

IMAGES, RESAMPLES, PENALTY = 2, 500, 30.0
KINDS = {"noise": (6, 0.0), "signal": (6, 1.0), "wide signal": (60, 2.0)}
WHO = {"ridge": RidgeLoo, "probe": ConcatLogreg}


class Table:
    """Labelled images, as splits see them."""

    def __init__(self, patients: int) -> None:
        self.classes = ("ill", "well")
        self.y = np.repeat(np.arange(patients) % 2, IMAGES)
        self.groups = np.repeat([f"p{at:03d}" for at in range(patients)], IMAGES)
        self.records = ()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--patients", default="30,60")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--fixed", action="store_true")
    options = parser.parse_args()
    sizes = list(map(int, options.patients.split(",")))
    if options.fixed:
        fixed(sizes, options.studies)
        return
    rows = {(kind, n, who): defaultdict(list) for n in sizes for kind in KINDS for who in WHO}
    end, done = time.monotonic() + 60 * options.minutes, 0
    while done < options.studies and time.monotonic() < end:
        for n in sizes:
            for kind, (width, signal) in KINDS.items():
                study(rows, kind, n, width, signal, done)
        done += 1
    print(f"{done} studies a line, factor used {PATIENT_FACTOR}\n")
    print(
        "| kind | patients | who | truth | bias | bias, plainly | factor: AUC | difference | held: AUC | difference |"
    )
    print("|" + "---|" * 10)
    for (kind, n, who), found in rows.items():
        print(f"| {kind} | {n} | {who} | {line(found)} |")


def fixed(sizes: list[int], studies: int) -> None:
    """Bias and factor of ridge regression with one penalty."""
    print(f"{studies} studies a line, ridge regression with a penalty of {PENALTY:g}\n")
    print("| kind | patients | truth | bias | bias, plainly | factor: AUC | difference |")
    print("|" + "---|" * 7)
    for n in sizes:
        for kind, (width, signal) in KINDS.items():
            found: defaultdict[str, list[float]] = defaultdict(list)
            for seed in range(studies):
                X, shift, table, aside, plain = draw(n, width, signal, seed)
                everyone = np.arange(len(table.y))
                design = EvaluationDesign(table.y, table.groups, [(everyone, everyone)], 1, 1)
                network, fusion = (ridge(X[:, :w], table.y, aside, shift[:w]) for w in (width, 2 * width))
                scored = [SimpleNamespace(proba=[p]) for p, _ in (network, fusion)]
                parts = patient_contributions(design, scored)
                errors = [roc_auc_score(table.y, p[:, 1]) - truth for p, truth in (network, fusion)]
                found["truth"] += [network[1], fusion[1]]
                found["error auc"] += errors
                found["variance auc"] += list((parts**2).sum(axis=1))
                found["error difference"].append(errors[1] - errors[0])
                found["variance difference"].append(((parts[1] - parts[0]) ** 2).sum())
                plainly, truth = ridge(X[:, :width], table.y, plain, shift[:width])
                found["plain"].append(roc_auc_score(table.y, plainly[:, 1]) - truth)
            mean = {name: np.mean(values) for name, values in found.items()}
            factors = [
                np.std(found[f"error {name}"]) / np.sqrt(mean[f"variance {name}"])
                for name in ("auc", "difference")
            ]
            print(
                f"| {kind} | {n} | {mean['truth']:.3f} | {mean['error auc']:+.3f} | {mean['plain']:+.3f} |"
                f" {factors[0]:.2f} | {factors[1]:.2f} |",
                flush=True,
            )


def ridge(X: np.ndarray, y: np.ndarray, splits: list, shift: np.ndarray) -> tuple[np.ndarray, float]:
    """Decisions ``(n, 2)`` about all images by models that have not seen the patient, and the models' mean AUC."""
    decisions, slopes = np.zeros((len(X), 2)), []
    for train, test in splits:
        mean, target = X[train].mean(axis=0), 2.0 * y[train] - 1
        centred = X[train] - mean
        slope = np.linalg.solve(centred.T @ centred + PENALTY * np.eye(X.shape[1]), centred.T @ target)
        decisions[test, 1] = (X[test] - mean) @ slope + target.mean()
        slopes.append(slope)
    sizes = np.linalg.norm(slopes, axis=1)
    return decisions, float(norm.cdf(np.array(slopes) @ shift / (2 * sizes)).mean())


def draw(n: int, width: int, signal: float, seed: int) -> tuple:
    """Features, their shift, the table, and the folds with one patient set aside and without."""
    rng = np.random.default_rng([seed, n, width, int(10 * signal)])
    table = Table(n)
    X = rng.normal(size=(len(table.y), 2 * width))
    X += np.repeat(rng.normal(size=(n, 2 * width)), IMAGES, axis=0)
    shift = np.zeros(2 * width)
    shift[[0, width]] = signal
    X += np.outer(table.y, shift)
    aside = patient_folds(table, seed)
    plain = [(np.flatnonzero(table.groups != table.groups[test[0]]), test) for _, test in aside]
    return X, shift, table, aside, plain


def line(found: dict[str, list[float]]) -> str:
    """Cells of a row."""
    mean = {name: np.mean(values) for name, values in found.items()}

    def factor(name: str) -> float:
        return np.std(found[f"error {name}"]) / np.sqrt(mean[f"variance {name}"])

    return (
        f"{mean['truth']:.3f} | {mean['error auc']:+.3f} | {mean['plain']:+.3f} | {factor('auc'):.2f} |"
        f" {factor('difference'):.2f} | {mean['held auc']:.3f} | {mean['held difference']:.3f}"
    )


def study(rows: dict, kind: str, n: int, width: int, signal: float, seed: int) -> None:
    """Draw patients, leave each out, and note errors."""
    X, shift, table, aside, plain = draw(n, width, signal, seed)
    everyone = np.arange(len(table.y))
    weights = group_weights(table.groups, RESAMPLES, seed)
    for who, strategy in WHO.items():
        answers, truths = zip(
            *(left_out(strategy, X[:, :w], table, aside, shift[:w]) for w in (width, 2 * width)), strict=True
        )
        design = EvaluationDesign(table.y, table.groups, [(everyone, everyone)], 1, 1, factor=PATIENT_FACTOR)
        candidates = [Candidate("x", ("A",), "network"), Candidate("x", ("A", "B"), "fusion")]
        scored = score_candidates(design, candidates, [[p] for p in answers], weights)
        parts = patient_contributions(design, scored)
        found = rows[kind, n, who]
        for at, s in enumerate(scored):
            low, high = s.estimates["auc"].interval
            found["truth"].append(truths[at])
            found["error auc"].append(s.primary - truths[at])
            found["variance auc"].append((parts[at] ** 2).sum())
            found["held auc"].append(low <= truths[at] <= high)
        pair = differences(design, scored, np.array([1]), np.array([0]))
        true = truths[1] - truths[0]
        found["error difference"].append(pair.delta[0] - true)
        found["variance difference"].append(((parts[1] - parts[0]) ** 2).sum())
        found["held difference"].append(-pair.below[0] <= true - pair.delta[0] <= pair.above[0])
        p = left_out(strategy, X[:, :width], table, plain, shift[:width])[0]
        one = score_candidates(design, candidates[:1], [[p]], weights[:2])[0]
        found["plain"].append(one.primary - truths[0])


def left_out(
    strategy: type, X: np.ndarray, table: Table, splits: list, shift: np.ndarray
) -> tuple[np.ndarray, float]:
    """Probabilities of all images by models that have not seen the patient, and the mean AUC of these models."""
    proba, aucs = np.empty((len(X), 2)), []
    blocks = make_blocks({"A": X.shape[1] // 2, "B": X.shape[1] - X.shape[1] // 2})
    for train, test in splits:
        linear = fitted(strategy(blocks=blocks), X[train], table.y[train], table.groups[train])
        proba[test] = linear.proba(X[test])
        slope = (linear.coef * linear.scale)[-1]
        size = np.linalg.norm(slope)
        # Columns vary by 1 between patients and by 1 within; a difference of two images by twice their sum.
        aucs.append(norm.cdf(slope @ shift / (2 * size)) if size > 0 else 0.5)
    return proba, float(np.mean(aucs))


def fitted(model: RidgeLoo | ConcatLogreg, X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> LinearModel:
    """Fit; for ridge without looking for threads in every one of many small fits."""
    if not isinstance(model, RidgeLoo):
        return model.fit(X, y, groups=groups).linear_logits()
    model.blocks_ = model.blocks
    task = model._task(X, y, np.unique(groups, return_inverse=True)[1])  # noqa: SLF001
    spectrum = Spectrum.of_columns(np.concatenate(task.parts, axis=1))
    best = task._best(spectrum, np.arange(len(task.parts)))  # noqa: SLF001
    return LinearModel(
        np.concatenate([best.coefs[at] for at in range(len(task.parts))], axis=1),
        best.intercept,
        task.mean,
        task.scale,
    )


if __name__ == "__main__":
    main()
