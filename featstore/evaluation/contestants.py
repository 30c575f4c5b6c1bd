"""Who takes part in a comparison: a strategy over a subset of backbones."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry
from featstore.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix

STRATEGIES = "featstore.fusion.strategies"
PROBE = "concat_logreg"
"""On a single backbone nothing is fused: one plain linear probe stands for it."""
MAX_EXHAUSTIVE = 8
SEED = "random_state"
"""Parameter by which a strategy takes its training seed."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A strategy over a subset of the backbones.

    Attributes
    ----------
    seed
        Training seed; None is the strategy's own.
    """

    strategy: str
    backbones: tuple[str, ...]
    label: str
    seed: int | None = None


def line_up(
    strategies: Sequence[str] | str, subsets: Sequence[Sequence[str]] | str, backbones: Sequence[str]
) -> list[Contestant]:
    """Pair strategies with subsets; a subset of one gets the linear probe only.

    Parameters
    ----------
    strategies
        Names, or ``all``.
    subsets
        ``singles`` (each backbone, and all together), ``all`` (every subset), or a list of lists of names.
    backbones
        Names, in column order.

    Raises
    ------
    UnknownNameError
        If a strategy or a backbone does not exist.
    """
    names = registry.names(STRATEGIES) if strategies == "all" else list(dict.fromkeys(strategies))
    for name in names:
        registry.load(STRATEGIES, name)
    chosen = _subsets(subsets, backbones)
    singles = [Contestant(PROBE, subset, subset[0]) for subset in chosen if len(subset) == 1]
    fused = [
        Contestant(name, subset, name if len(subset) == len(backbones) else f"{name}:{'+'.join(subset)}")
        for subset in chosen
        if len(subset) > 1
        for name in names
    ]
    if not singles + fused:
        raise UsageError("There is nothing to compare.", "Name strategies and subsets, or leave both out.")
    return singles + fused


def build(contestant: Contestant, matrix: FeatureMatrix, options: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
    """Make the unfitted estimator of a contestant, with the columns that `fit_rows` will give it."""
    strategy = registry.load(STRATEGIES, contestant.strategy)
    seed = {} if contestant.seed is None else {SEED: contestant.seed}
    return strategy(blocks=matrix.columns(contestant.backbones), **{**(options or {}), **seed})


def reseed(contestant: Contestant, seeds: Sequence[int]) -> list[Contestant]:
    """Return the contestant once for each training seed; no one if its training leaves nothing to chance."""
    if SEED not in inspect.signature(registry.load(STRATEGIES, contestant.strategy)).parameters:
        return []
    return [replace(contestant, seed=seed) for seed in seeds]


def competing_options(strategy: str) -> Mapping[str, Any]:
    """Parameters by which a strategy uses all its training rows when it competes with others."""
    options: Mapping[str, Any] = getattr(registry.load(STRATEGIES, strategy), "COMPETING", {})
    return options


def fit(estimator: Any, matrix: FeatureMatrix, images: NDArray[np.intp], backbones: Sequence[str]) -> Any:  # noqa: ANN401
    """Fit on all views of `images`; groups go along, so that an inner split can respect them."""
    views = range(len(matrix.views))
    rows = matrix.rows(images, backbones, views)
    y = np.tile(matrix.y[images], len(views))
    return estimator.fit(rows, y, groups=np.tile(matrix.groups[images], len(views)))


def predict_proba(
    estimator: Any,  # noqa: ANN401
    matrix: FeatureMatrix,
    images: NDArray[np.intp],
    backbones: Sequence[str],
) -> NDArray[np.float64]:
    """Class probabilities of the identity view: ``(len(images), classes)`` float64."""
    proba = estimator.predict_proba(matrix.rows(images, backbones, [0]))
    return np.asarray(proba, np.float64)


def _subsets(subsets: Sequence[Sequence[str]] | str, backbones: Sequence[str]) -> list[tuple[str, ...]]:
    everything = tuple(backbones)
    if subsets == "singles":
        return list(dict.fromkeys([*((name,) for name in everything), everything]))
    if subsets == "all":
        if len(everything) > MAX_EXHAUSTIVE:
            raise UsageError(
                f"All subsets of {len(everything)} backbones are {2 ** len(everything) - 1:,}.",
                f"Use at most {MAX_EXHAUSTIVE} backbones, or name the subsets: --subsets A+B,A+C.",
            )
        sizes = range(1, len(everything) + 1)
        return [subset for size in sizes for subset in combinations(everything, size)]
    if isinstance(subsets, str):
        raise UsageError(
            f"--subsets {subsets!r} means nothing.", "Use singles, all, or a list such as A+B,A+C."
        )
    return [_in_order(subset, everything) for subset in subsets]


def _in_order(subset: Sequence[str], everything: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(subset) - set(everything))
    if unknown or not subset:
        raise UnknownNameError(
            f"The subset {'+'.join(subset)!r} names no loaded backbone: {', '.join(unknown)}.",
            f"Choose among: {', '.join(everything)}.",
        )
    return tuple(name for name in everything if name in subset)
