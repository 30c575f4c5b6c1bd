"""What each backbone adds: Shapley values over subsets, and the subsets that nobody beats for less."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Subset = frozenset[str]

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
