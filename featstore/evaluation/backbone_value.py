"""Cost and worth of backbones and views, by the linear probe on the folds of the comparison.

What each backbone adds is told by Shapley values over subsets, and by the Pareto front of score and cost.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.candidates import PROBE
from featstore.evaluation.estimates import EvaluationDesign, primary_mean, score_candidates
from featstore.evaluation.metrics import PRIMARY
from featstore.results.comparison import BackboneCost, BackboneValue, Candidate, ParetoPoint, ViewPoint
from featstore.store.notes import recorded_timings
from featstore.time_estimates import CATALOGUE, MEASURED, SCALED, estimate_time, machine_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]
    Subset = frozenset[str]

# Cost, redundancy and contribution of each backbone

CHANCE = 0.5
"""AUC of no backbone at all."""
IMPORTED = "unknown, since the vectors were imported"
SELECTION_ROUNDS = 50
FEWEST = 3
"""Backbones from which a rank correlation is a number at all."""


def backbone_value(
    matrix: FeatureMatrix,
    design: EvaluationDesign,
    play: Callable[[list[Candidate]], list[list[Vector]]],
    cache: Path,
) -> BackboneValue:
    """Cost, redundancy and contribution of each backbone of a matrix.

    Parameters
    ----------
    matrix, design
        As of the comparison.
    play
        Fits candidates on the folds of the comparison; all subsets are fitted together.
    cache
        Folder whose recorded rates tell the cost.
    """
    names = matrix.backbones
    subsets = subsets_to_fit(names)
    proba = play([Candidate(PROBE, subset, "+".join(subset)) for subset in subsets])
    everyone, folds = np.ones((1, len(design.y))), range(len(design.splits))
    scores = [float(primary_mean(design, values, everyone, folds)[0]) for values in proba]
    value = {frozenset(): CHANCE, **dict(zip(map(frozenset, subsets), scores, strict=True))}
    costs = _costs(matrix, cache)
    worth = shapley(names, value)
    picked = _caruana(names, design, dict(zip(subsets, proba, strict=True)))
    parts = [matrix.features[0, :, block.start : block.stop] for block in matrix.blocks]
    weighed = tuple(
        BackboneCost(
            name=spec.name,
            milliseconds=costs[spec.name][0],
            basis=costs[spec.name][1],
            bytes=4 * spec.dimension,
            alone=value[frozenset({spec.name})],
            shapley=worth[spec.name],
            caruana=picked[spec.name],
            log_me=log_me(part, matrix.y),
            h_score=h_score(part, matrix.y),
        )
        for spec, part in zip(matrix.specs, parts, strict=True)
    )
    priced = [at for at, subset in enumerate(subsets) if all(costs[name][0] is not None for name in subset)]
    total = [sum(costs[name][0] or 0.0 for name in subsets[at]) for at in priced]
    cheapest = pareto(total, [scores[at] for at in priced])
    return BackboneValue(
        metric=PRIMARY,
        costs=weighed,
        exact=len(names) <= MAX_EXACT,
        front=tuple(
            ParetoPoint(backbones=subsets[priced[i]], milliseconds=total[i], score=scores[priced[i]])
            for i in cheapest
        ),
        redundancy=_redundancy(parts),
        agreement={name: _agreement(weighed, name) for name in ("log_me", "h_score")},
    )


def _costs(matrix: FeatureMatrix, cache: Path) -> dict[str, tuple[float | None, str]]:
    """Milliseconds per image, and what they rest on."""
    known = recorded_timings(cache, machine_name())
    own = [spec for spec in matrix.specs if not spec.is_imported]
    seconds = estimate_time(dict.fromkeys(own, 0), known, os.cpu_count() or 1).per_vector
    guess = SCALED if known else CATALOGUE
    costs = {spec.name: (1000 * seconds[spec], MEASURED if spec in known else guess) for spec in own}
    return {name: costs.get(name, (None, IMPORTED)) for name in matrix.backbones}


def _redundancy(parts: Sequence[NDArray[np.float32]]) -> tuple[tuple[float, ...], ...]:
    """Linear CKA of all pairs; it is symmetric."""
    alike = np.eye(len(parts))
    for a, b in combinations(range(len(parts)), 2):
        alike[a, b] = alike[b, a] = linear_cka(parts[a], parts[b])
    return tuple(map(tuple, alike.tolist()))


def _caruana(
    names: Sequence[str], design: EvaluationDesign, proba: Mapping[tuple[str, ...], Sequence[Vector]]
) -> dict[str, float]:
    """Weights of the ensemble that `featstore.fusion.strategies.ensemble_selection` would pick from all images."""
    from featstore.fusion.strategies.ensemble_selection import select_ensemble

    y = np.concatenate([design.y[design.splits[at][1]] for at in design.first_repeat])
    each = [np.concatenate([proba[(name,)][at] for at in design.first_repeat]) for name in names]
    ensemble = select_ensemble(
        np.stack([answers[np.arange(len(y)), y] for answers in each], axis=1), SELECTION_ROUNDS
    )
    return {name: ensemble.count(at) / len(ensemble) for at, name in enumerate(names)}


def _agreement(weighed: Sequence[BackboneCost], score: str) -> float | None:
    from scipy.stats import spearmanr

    promised, seen = [getattr(one, score) for one in weighed], [one.alone for one in weighed]
    if len(weighed) < FEWEST or len(set(promised)) == 1 or len(set(seen)) == 1:
        return None
    return float(spearmanr(promised, seen).statistic)


# Shapley values over subsets, and the Pareto front

MAX_EXACT = 8
PERMUTATIONS = 100


def subsets_to_fit(names: Sequence[str], seed: int = 0) -> list[tuple[str, ...]]:
    """Subsets that `shapley` needs: all for up to eight names, else those along sampled permutations."""
    if len(names) <= MAX_EXACT:
        return [subset for size in range(1, len(names) + 1) for subset in combinations(names, size)]
    walked = {frozenset({name}) for name in names} | {
        frozenset(order[:size]) for order in _orders(names, seed) for size in range(1, len(names) + 1)
    }
    return sorted(tuple(name for name in names if name in subset) for subset in walked)


def shapley(names: Sequence[str], value: Mapping[Subset, float], seed: int = 0) -> dict[str, float]:
    """Mean gain of each name when it joins the others in random order; together the value of all less that of none.

    Shapley, A value for n-person games, 1953; sampled permutations: Castro, Gomez & Tejada 2009.

    Parameters
    ----------
    names
        The players.
    value
        Of every subset that `subsets_to_fit` named, and of the empty one.
    seed
        As given to `subsets_to_fit`.
    """
    if len(names) > MAX_EXACT:
        walks = [_gains(order, value) for order in _orders(names, seed)]
        return {name: float(np.mean([walk[name] for walk in walks])) for name in names}
    return {name: _exact(name, [n for n in names if n != name], value) for name in names}


def pareto(cost: Sequence[float], score: Sequence[float]) -> list[int]:
    """Positions of those that nothing at most as dear surpasses, cheapest first; of equals the first stands."""
    order = sorted(range(len(cost)), key=lambda at: (cost[at], -score[at]))
    front: list[int] = []
    for at in order:
        if not front or score[at] > score[front[-1]]:
            front.append(at)
    return front


def _exact(name: str, others: Sequence[str], value: Mapping[Subset, float]) -> float:
    n = len(others) + 1
    return sum(
        factorial(size)
        * factorial(n - size - 1)
        / factorial(n)
        * (value[frozenset({*rest, name})] - value[frozenset(rest)])
        for size in range(n)
        for rest in combinations(others, size)
    )


def _orders(names: Sequence[str], seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[names[at] for at in rng.permutation(len(names))] for _ in range(PERMUTATIONS)]


def _gains(order: Sequence[str], value: Mapping[Subset, float]) -> dict[str, float]:
    values = [value[frozenset(order[:size])] for size in range(len(order) + 1)]
    return dict(zip(order, np.diff(values).tolist(), strict=True))


# Score of one candidate by the number of augmented views that it trains on


def view_curve(
    matrix: FeatureMatrix,
    design: EvaluationDesign,
    candidate: Candidate,
    play: Callable[[FeatureMatrix, Candidate], list[Vector]],
    weights: Vector,
) -> tuple[ViewPoint, ...]:
    """Play one candidate with no augmented view, then one, up to all of them, in the order of the view axis.

    Parameters
    ----------
    matrix, design, weights
        As of the comparison.
    candidate
        The candidate; every view is a row in training.
    play
        Probabilities of the test images in each fold.
    """
    points = []
    for count in range(len(matrix.views)):
        kept = slice(count + 1)
        part = replace(matrix, views=matrix.views[kept], features=matrix.features[kept])
        (scored,) = score_candidates(design, [candidate], [play(part, candidate)], weights)
        estimate = scored.estimates[PRIMARY]
        points.append(
            ViewPoint(
                candidate=candidate.label,
                metric=PRIMARY,
                views=count,
                mean=estimate.mean,
                interval=estimate.interval,
            )
        )
    return tuple(points)


# What features promise before anything is fitted to them, and how alike networks are. Advice only.

EVIDENCE_ROUNDS = 100
TOLERANCE = 1e-6


def linear_cka(X: NDArray[Any], Y: NDArray[Any]) -> float:
    """Linear centred kernel alignment of ``X (n, d)`` and ``Y (n, e)``: 1 for the same up to rotation and scale.

    Kornblith, Norouzi, Lee & Hinton, Similarity of neural network representations revisited, ICML 2019. Many columns
    push it up with few images, so it is for comparing pairs with each other.
    """
    X, Y = _centred(X), _centred(Y)
    if X.shape[1] + Y.shape[1] > 2 * len(X):  # the same by Gram matrices, which are then the smaller ones
        K, L = X @ X.T, Y @ Y.T
        return float((K * L).sum() / (np.linalg.norm(K) * np.linalg.norm(L)))
    across = np.linalg.norm(X.T @ Y) ** 2
    return float(across / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)))


def log_me(X: NDArray[Any], y: NDArray[np.intp]) -> float:
    """Log of the maximum evidence per image, mean over classes, of features ``(n, d)`` for class numbers ``(n,)``.

    You, Liu, Wang & Long, LogME: practical assessment of pre-trained models for transfer learning, ICML 2021, with
    the fixed point of You et al. 2022: each class is a linear regression whose prior precision and noise precision
    are those that make the labels likeliest.
    """
    features = np.asarray(X, np.float64)
    left, sigma, _ = np.linalg.svd(features, full_matrices=False)
    targets = np.eye(int(y.max()) + 1)[y]
    return float(np.mean([_evidence(left, sigma, target) for target in targets.T]))


def h_score(X: NDArray[Any], y: NDArray[np.intp]) -> float:
    """Spread between the class means of ``X (n, d)``, measured in the spread of all images: ``tr(S^-1 B)``.

    Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019. S is
    shrunk after Ledoit & Wolf (Ibrahim, Ponomareva & Mazumder, ECML 2022): with more columns than images the plain
    one would give every network the same score.
    """
    from sklearn.covariance import ledoit_wolf

    features = _centred(X)
    covariance, _ = ledoit_wolf(features, assume_centered=True)
    numbers, counts = np.unique(y, return_counts=True)
    means = np.array([features[y == c].mean(axis=0) for c in numbers])
    weighted = means * np.sqrt(counts / len(y))[:, None]
    return float(np.trace(weighted @ np.linalg.solve(covariance, weighted.T)))


def _centred(X: NDArray[Any]) -> Vector:
    values = np.asarray(X, np.float64)
    centred: Vector = values - values.mean(axis=0)
    return centred


def _evidence(left: Vector, sigma: Vector, target: Vector) -> float:
    """Evidence of one regression at its fixed point, per image."""
    n, squares, inside = len(target), sigma**2, left.T @ target
    outside = max(float(target @ target - inside @ inside), 0.0)
    prior, noise = 1.0, 1.0
    for _ in range(EVIDENCE_ROUNDS):
        shrunk = prior + noise * squares
        effective = float((noise * squares / shrunk).sum())
        weights = float(((noise * sigma * inside / shrunk) ** 2).sum())
        residual = outside + float(((prior * inside / shrunk) ** 2).sum())
        before = prior / noise
        prior, noise = effective / max(weights, TOLERANCE**2), (n - effective) / max(residual, TOLERANCE**2)
        if abs(prior / noise - before) <= TOLERANCE * before:
            break
    spread = np.log1p(noise / prior * squares).sum()
    shrunk = prior + noise * squares
    misfit = noise * outside + float((noise * prior * inside**2 / shrunk).sum())
    return float((n * np.log(noise / (2 * np.pi)) - spread - misfit) / (2 * n))
