"""What each backbone costs beside what it is worth, by the linear probe on the folds of the comparison."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.evaluation.contestants import PROBE, Contestant
from featstore.evaluation.metrics import PRIMARY
from featstore.evaluation.standing import primary_mean
from featstore.evaluation.transferability import h_score, linear_cka, log_me
from featstore.evaluation.worth import MAX_EXACT, pareto, shapley, subsets_to_fit
from featstore.extraction.cost import CATALOGUE, MEASURED, SCALED, estimate
from featstore.extraction.meter import machine
from featstore.store.rates import recorded_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.evaluation.standing import Arena
    from featstore.matrix import FeatureMatrix

    Vector = NDArray[np.float64]

CHANCE = 0.5
"""AUC of no backbone at all."""
IMPORTED = "unknown, since the vectors were imported"
ROUNDS = 50
FEWEST = 3
"""Backbones from which a rank correlation is a number at all."""


@dataclass(frozen=True, slots=True)
class Price:
    """One backbone.

    Attributes
    ----------
    milliseconds, basis
        Per image on all cores of this machine, and where that is known from; None for imported vectors.
    bytes
        Of one vector, uncompressed.
    alone
        Primary metric of the linear probe on it alone.
    shapley
        Its mean gain in the primary metric when backbones join in random order.
    caruana
        Its weight in an ensemble picked greedily from the single backbones' out-of-fold probabilities.
    log_me, h_score
        Transferability scores of its identity view.
    """

    name: str
    milliseconds: float | None
    basis: str
    bytes: int
    alone: float
    shapley: float
    caruana: float
    log_me: float
    h_score: float


@dataclass(frozen=True, slots=True)
class Bargain:
    """A subset that no cheaper one surpasses: its cost per image and its primary metric."""

    backbones: tuple[str, ...]
    milliseconds: float
    score: float


@dataclass(frozen=True, slots=True)
class Economics:
    """Cost and worth.

    Attributes
    ----------
    prices
        Of each backbone.
    exact
        Whether the Shapley values are over all subsets, or over sampled permutations.
    front
        The Pareto front of the subsets whose cost is known, cheapest first.
    redundancy
        Linear CKA ``(backbones, backbones)`` of the identity view.
    agreement
        Spearman correlation of each transferability score with `Price.alone`; None for fewer than three backbones.
    """

    metric: str
    prices: tuple[Price, ...]
    exact: bool
    front: tuple[Bargain, ...]
    redundancy: tuple[tuple[float, ...], ...]
    agreement: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json`` and ``metrics.json``."""
        return asdict(self)


def economics(
    matrix: FeatureMatrix, arena: Arena, play: Callable[[list[Contestant]], list[list[Vector]]], cache: Path
) -> Economics:
    """Weigh the backbones of a matrix.

    Parameters
    ----------
    matrix, arena
        As of the comparison.
    play
        Fits contestants on the arena's folds; all subsets are one team.
    cache
        Folder whose recorded rates tell the cost.
    """
    names = matrix.backbones
    subsets = subsets_to_fit(names)
    proba = play([Contestant(PROBE, subset, "+".join(subset)) for subset in subsets])
    everyone, folds = np.ones((1, len(arena.y))), range(len(arena.splits))
    scores = [float(primary_mean(arena, values, everyone, folds)[0]) for values in proba]
    value = {frozenset(): CHANCE, **dict(zip(map(frozenset, subsets), scores, strict=True))}
    costs = _costs(matrix, cache)
    worth = shapley(names, value)
    picked = _caruana(names, arena, dict(zip(subsets, proba, strict=True)))
    parts = [matrix.features[0, :, block.start : block.stop] for block in matrix.blocks]
    prices = tuple(
        Price(
            spec.name,
            *costs[spec.name],
            4 * spec.dimension,
            value[frozenset({spec.name})],
            worth[spec.name],
            picked[spec.name],
            log_me(part, matrix.y),
            h_score(part, matrix.y),
        )
        for spec, part in zip(matrix.specs, parts, strict=True)
    )
    priced = [at for at, subset in enumerate(subsets) if all(costs[name][0] is not None for name in subset)]
    total = [sum(costs[name][0] or 0.0 for name in subsets[at]) for at in priced]
    cheapest = pareto(total, [scores[at] for at in priced])
    return Economics(
        PRIMARY,
        prices,
        len(names) <= MAX_EXACT,
        tuple(Bargain(subsets[priced[i]], total[i], scores[priced[i]]) for i in cheapest),
        _redundancy(parts),
        {name: _agreement(prices, name) for name in ("log_me", "h_score")},
    )


def _costs(matrix: FeatureMatrix, cache: Path) -> dict[str, tuple[float | None, str]]:
    """Milliseconds per image, and what they rest on."""
    known = recorded_rates(cache, machine())
    own = [spec for spec in matrix.specs if not spec.is_foreign]
    seconds = estimate(dict.fromkeys(own, 0), known, os.cpu_count() or 1).per_vector
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
    names: Sequence[str], arena: Arena, proba: Mapping[tuple[str, ...], Sequence[Vector]]
) -> dict[str, float]:
    """Weights of the ensemble that `featstore.fusion.strategies.ensemble_selection` would pick from all images."""
    from featstore.fusion.strategies.ensemble_selection import pick

    y = np.concatenate([arena.y[arena.splits[at][1]] for at in arena.first_repeat])
    each = [np.concatenate([proba[(name,)][at] for at in arena.first_repeat]) for name in names]
    team = pick(np.stack([answers[np.arange(len(y)), y] for answers in each], axis=1), ROUNDS)
    return {name: team.count(at) / len(team) for at, name in enumerate(names)}


def _agreement(prices: Sequence[Price], score: str) -> float | None:
    from scipy.stats import spearmanr

    promised, seen = [getattr(price, score) for price in prices], [price.alone for price in prices]
    if len(prices) < FEWEST or len(set(promised)) == 1 or len(set(seen)) == 1:
        return None
    return float(spearmanr(promised, seen).statistic)
