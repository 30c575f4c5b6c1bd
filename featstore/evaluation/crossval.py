"""Cross-validation: everyone on the same folds, a cache of their answers, and what it will take.

Everyone on the same folds.

The results table as a cache: what a round answered is never computed twice.

Many small fits at once, on a machine of few cores.

What a comparison will take, told before it begins: how many fits, about how long, and how much memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore.evaluation.candidates import (
    EXPAND,
    Contestant,
    build,
    competing_options,
    fit,
    fits_subsets,
    play_together,
    predict_proba,
    select_backbones,
)
from featstore.processes import Progress, end_with_parent, parentage
from featstore.serialization import digest, digest_bytes, digest_file
from featstore.store.notes import record_result, recorded_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.splits import Split

    Vector = NDArray[np.float64]


def play(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    splits: Sequence[Split],
    drafts: Sequence[tuple[str, ...]] = (),
    jobs: int = 1,
    ledger: Ledger | None = None,
) -> Iterator[tuple[int, int, Vector]]:
    """Fit every contestant on every fold; yield (contestant, fold, probabilities of the test images).

    Contestants whose strategy can fit many subsets together (`featstore.fusion.strategy.SubsetStrategy`) share a fit
    in each fold. `drafts` is what `draft` returns; without greedy contestants nobody looks at it. What the ledger
    knows is taken from it and comes first; what is new is entered there by the process that computed it, at once.
    """
    fresh = []
    for team, f in ((team, f) for team in teams(contestants) for f in range(len(splits))):
        fielded = [_fielded(contestants[c], drafts, f) for c in team]
        known = ledger.find(matrix, fielded, splits[f]) if ledger else None
        if known is None:
            fresh.append((team, f, fielded))
        else:
            yield from zip(team, [f] * len(team), known, strict=True)
    calls = [(matrix, fielded, splits[f], ledger) for _, f, fielded in fresh]
    for (team, f, _), proba in zip(fresh, work(_one_round, calls, jobs), strict=True):
        yield from zip(team, [f] * len(team), proba, strict=True)


def draft(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    splits: Sequence[Split],
    jobs: int = 1,
    bars: Progress = Progress(),  # noqa: B008  # frozen
) -> list[tuple[str, ...]]:
    """Backbones for the greedy contestants, chosen in each fold from its training images; empty if no one is greedy.

    The linear probe chooses for all strategies: it is cheap, and they meet on the same backbones.
    """
    if not any(contestant.greedy for contestant in contestants):
        return []
    chosen = work(select_backbones, [(matrix, train) for train, _ in splits], jobs)
    return list(bars.over(chosen, "choose", "fold", len(splits)))


def teams(contestants: Sequence[Contestant]) -> list[list[int]]:
    """Who is fitted together, as positions: all of a strategy on the same rows if it offers that, else each alone."""
    alike: dict[tuple[str, str, str, int | None], list[int]] = {}
    for at, one in enumerate(contestants):
        alike.setdefault((one.strategy, one.views, one.test_views, one.seed), []).append(at)
    return [
        team
        for (strategy, *_), members in alike.items()
        for team in ([members] if fits_subsets(strategy) else [[at] for at in members])
    ]


def _fielded(contestant: Contestant, drafts: Sequence[tuple[str, ...]], fold: int) -> Contestant:
    return replace(contestant, backbones=drafts[fold]) if contestant.greedy else contestant


def _one_round(
    matrix: FeatureMatrix, team: Sequence[Contestant], split: Split, ledger: Ledger | None
) -> list[Vector]:
    """Fit a team on one fold, and return each member's probabilities of the test images."""
    train, test = split
    if len(team) > 1:
        proba = play_together(matrix, team, train, test)
    else:
        (contestant,) = team
        unfitted = build(contestant, matrix, competing_options(contestant.strategy))
        proba = [predict_proba(fit(unfitted, matrix, train, contestant), matrix, test, contestant)]
    if ledger is not None:
        ledger.enter(matrix, team, split, proba)
    return proba


LIBRARIES = ("joblib", "numba", "numpy", "scikit-learn", "scipy")
CODE = ("fusion/**/*.py", "evaluation/candidates.py", "splits.py")
"""Source files that can change an answer: they stand in the key by their content, not by a version number."""


@dataclass(slots=True)
class Reuse:
    """How many fits were asked for, and how many of them the cache had: their answers are what it says.

    A cache of a stranger may hold any answers: see docs/security.md.
    """

    asked: int = 0
    taken: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Answers by round: who, on which vectors, trained on which images, asked about which.

    Attributes
    ----------
    root
        The cache folder.
    vectors
        SHA-256 of the vectors of each backbone in each view, by backbone.
    believes
        Whether what is in it is used; if not, it is only written.
    reuse
        Counts what is asked for.
    """

    root: Path
    vectors: Mapping[str, tuple[str, ...]]
    believes: bool = True
    reuse: Reuse = field(default_factory=Reuse, compare=False)

    @classmethod
    def of(
        cls, matrix: FeatureMatrix, root: Path, *, believes: bool = True, reuse: Reuse | None = None
    ) -> Self:
        """Ledger in `root` for the vectors of a matrix."""
        return cls(
            root,
            {
                block.name: tuple(
                    digest_bytes(np.ascontiguousarray(view[:, block.start : block.stop]).tobytes())
                    for view in matrix.features
                )
                for block in matrix.blocks
            },
            believes,
            reuse or Reuse(),
        )

    def find(self, matrix: FeatureMatrix, team: Sequence[Contestant], split: Split) -> list[Vector] | None:
        """Probabilities of the test images by contestant, if this round was played before."""
        self.reuse.asked += len(team)
        if not self.believes:
            return None
        shape = len(split[1]), len(matrix.classes)
        found = recorded_result(self.root, self._key(matrix, team, split), [shape] * len(team))
        self.reuse.taken += len(found or ())
        return found

    def enter(
        self, matrix: FeatureMatrix, team: Sequence[Contestant], split: Split, proba: Sequence[Vector]
    ) -> None:
        """Keep what was answered."""
        record_result(self.root, self._key(matrix, team, split), proba)

    def _key(self, matrix: FeatureMatrix, team: Sequence[Contestant], split: Split) -> dict[str, Any]:
        """Who is fitted together is part of it: company can change the last bits."""
        train, test = split
        learned = [train.tolist(), matrix.y[train].tolist(), matrix.groups[train].tolist()]
        return {
            "team": [_describe(contestant, matrix) for contestant in team],
            "vectors": {n: list(self.vectors[n]) for contestant in team for n in contestant.backbones},
            "training": digest(learned),
            "test": digest(test.tolist()),
            "software": _software(),
        }


def _describe(contestant: Contestant, matrix: FeatureMatrix) -> dict[str, Any]:
    unfitted = build(contestant, matrix, competing_options(contestant.strategy))
    return {
        "strategy": contestant.strategy,
        "backbones": list(contestant.backbones),
        "views": contestant.views,
        "test_views": contestant.test_views,
        "ids": digest([record.id for record in matrix.records]) if contestant.draws_views else None,
        "parameters": {name: repr(value) for name, value in unfitted.get_params().items()},
    }


@cache
def _software() -> str:
    here = Path(__file__).parents[1]
    found = {pattern: list(here.glob(pattern)) for pattern in CODE}
    if not all(found.values()):
        raise FileNotFoundError(
            f"Of {', '.join(CODE)} some are no source files: their changes would go unnoticed."
        )
    files = sorted(path for paths in found.values() for path in paths)
    return digest(
        {
            **{name: version(name) for name in LIBRARIES},
            **{path.relative_to(here).as_posix(): digest_file(path) for path in files},
        }
    )


def work(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Results of ``function(*call)`` in order, computed by `jobs` processes (-1: one per core).

    Each fit has one BLAS thread. The fits are small: more threads would wait for each other most of the time, and
    with one the last bits of a result do not depend on how many processes there are. The processes end with this one,
    and so does what they share in memory.
    """
    from joblib import Parallel, delayed

    with_this_one = {"initializer": end_with_parent, "initargs": parentage()}
    yield from Parallel(n_jobs=jobs, return_as="generator", **with_this_one)(
        delayed(one_thread)(function, *call) for call in calls
    )


def one_thread(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Return ``function(*arguments)``, computed with one BLAS thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(*arguments)


SECONDS_PER_PRODUCT = 1.8e-10
"""Of the linear probe on two cores, an order of magnitude: it multiplies its rows by each other, or its columns.

A quarter of a second for 576 rows of 3,840 numbers, twelve minutes for 20,000 rows of 14,144.
"""
COPIES = 6
"""A fit holds its training rows about so many times, in float32 and float64."""
LONG, LARGE = 60.0, 2 * 10**9
"""From so many seconds or bytes on it is said beforehand."""
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """Fits, seconds and peak bytes of all processes; rough, and at most: answers that are kept cost nothing."""

    fits: int
    seconds: float
    bytes: int

    @property
    def is_worth_telling(self) -> bool:
        """Whether anybody would want to know before it begins."""
        return self.seconds >= LONG or self.bytes >= LARGE


def forecast(
    matrix: FeatureMatrix, contestants: Sequence[Contestant], rounds: Sequence[Split], jobs: int, cores: int
) -> Forecast:
    """Estimate a comparison from the sizes alone.

    Parameters
    ----------
    matrix, contestants, rounds
        What is compared, and the folds.
    jobs
        As for `featstore.compare`.
    cores
        Of this machine.
    """
    columns = {spec.name: spec.dimension for spec in matrix.specs}
    images = [len(train) for train, _ in rounds]
    shapes = [
        (
            rows * (len(matrix.views) if one.views == EXPAND else 1),
            sum(columns[name] for name in one.backbones),
        )
        for one in contestants
        for rows in images
    ]
    cells = [rows * width for rows, width in shapes]
    seconds = SECONDS_PER_PRODUCT * sum(rows * width * min(rows, width) for rows, width in shapes)
    processes = max(1, min(cores if jobs < 0 else jobs, len(cells)))
    copies = sum(sorted(cells, reverse=True)[:processes]) * COPIES * FLOAT_BYTES
    return Forecast(len(cells), seconds / min(processes, cores), matrix.features.nbytes + copies)
