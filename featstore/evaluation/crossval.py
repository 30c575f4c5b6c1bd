"""Cross-validation: every candidate on the same folds, with a cache of predictions and a forecast."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featstore import registry
from featstore.errors import UsageError
from featstore.evaluation.candidates import (
    EXPAND,
    NONE,
    PER_SITE,
    STRATEGIES,
    build,
    by_site,
    comparison_options,
    fit_candidate,
    fit_jointly,
    fits_subsets,
    is_seeded,
    predict_proba,
    select_backbones,
)
from featstore.processes import PhaseProgress, available_cores, end_with_parent, memory_bytes, parent_info
from featstore.serialization import digest, digest_bytes, digest_file
from featstore.store.notes import record_result, recorded_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.results.comparison import Candidate
    from featstore.splits import Split

    Vector = NDArray[np.float64]


# Fits on folds


def cross_validate(
    matrix: FeatureMatrix,
    candidates: Sequence[Candidate],
    splits: Sequence[Split],
    selections: Sequence[tuple[str, ...]] = (),
    jobs: int = 1,
    prediction_cache: PredictionCache | None = None,
    harmonise: str = NONE,
) -> Iterator[tuple[int, int, Vector]]:
    """Fit every candidate on every fold; yield (candidate, fold, probabilities of the test images).

    Candidates whose strategy can fit many subsets together (`featstore.fusion.strategy.SubsetStrategy`) share a fit
    in each fold. `selections` is what `select_per_fold` returns; without greedy candidates nobody looks at it. What
    the cache knows is taken from it and comes first; what is new is saved by the process that computed it, at once.
    With `harmonise`, features are those of `by_site`, made inside each fold.
    """
    fresh = []
    for joint, f in ((joint, f) for joint in joint_fits(candidates) for f in range(len(splits))):
        resolved = [_with_selected_backbones(candidates[c], selections, f) for c in joint]
        known = prediction_cache.load(matrix, resolved, splits[f], harmonise) if prediction_cache else None
        if known is None:
            fresh.append((joint, f, resolved))
        else:
            yield from zip(joint, [f] * len(joint), known, strict=True)
    calls = [(matrix, resolved, splits[f], prediction_cache, harmonise) for _, f, resolved in fresh]
    for (joint, f, _), proba in zip(fresh, parallel_starmap(_fit_fold, calls, jobs), strict=True):
        yield from zip(joint, [f] * len(joint), proba, strict=True)


def select_per_fold(
    matrix: FeatureMatrix,
    candidates: Sequence[Candidate],
    splits: Sequence[Split],
    jobs: int = 1,
    bars: PhaseProgress = PhaseProgress(),  # noqa: B008  # frozen
) -> list[tuple[str, ...]]:
    """Backbones for the greedy candidates, chosen in each fold from its training images; empty if no one is greedy.

    The linear probe chooses for all strategies: it is cheap, and they meet on the same backbones.
    """
    if not any(candidate.greedy for candidate in candidates):
        return []
    chosen = parallel_starmap(select_backbones, [(matrix, train) for train, _ in splits], jobs)
    return list(bars.track(chosen, "choose", "fold", len(splits)))


def joint_fits(candidates: Sequence[Candidate]) -> list[list[int]]:
    """Positions of candidates fitted together: all of a strategy on the same rows if it offers that, else each."""
    alike: dict[tuple[str, str, str, int | None], list[int]] = {}
    for at, one in enumerate(candidates):
        alike.setdefault((one.strategy, one.views, one.test_views, one.seed), []).append(at)
    return [
        joint
        for (strategy, *_), members in alike.items()
        for joint in ([members] if fits_subsets(strategy) else [[at] for at in members])
    ]


def _with_selected_backbones(
    candidate: Candidate, selections: Sequence[tuple[str, ...]], fold: int
) -> Candidate:
    return replace(candidate, backbones=selections[fold]) if candidate.greedy else candidate


def _fit_fold(
    matrix: FeatureMatrix,
    joint: Sequence[Candidate],
    split: Split,
    prediction_cache: PredictionCache | None,
    harmonise: str,
) -> list[Vector]:
    """Fit candidates together on one fold, and return the probabilities of each of the test images."""
    train, test = split
    table = by_site(matrix, split) if harmonise == PER_SITE else matrix
    if len(joint) > 1:
        proba = fit_jointly(table, joint, train, test)
    else:
        (candidate,) = joint
        unfitted = build(candidate, table, comparison_options(candidate.strategy))
        proba = [predict_proba(fit_candidate(unfitted, table, train, candidate), table, test, candidate)]
    if prediction_cache is not None:
        prediction_cache.save(matrix, joint, split, proba, harmonise)
    return proba


# Prediction cache: what a fit predicted is never computed twice.

LIBRARIES = ("joblib", "numba", "numpy", "scikit-learn", "scipy")
SOURCE_PATTERNS = ("fusion/**/*.py", "evaluation/candidates.py", "splits.py")
"""Source files that can change an answer: they stand in the key by their content, not by a version number."""


@dataclass(slots=True)
class CacheUsage:
    """How many fits were asked for, and how many of them the cache had: their answers are what it says.

    A cache of a stranger may hold any answers: see docs/security.md.
    """

    requests: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class PredictionCache:
    """Answers by round: who, on which vectors, trained on which images, asked about which.

    Attributes
    ----------
    root
        The cache folder.
    vectors
        SHA-256 of the vectors of each backbone in each view, by backbone.
    reads
        Whether what is in it is used; if not, it is only written.
    usage
        Counts what is asked for.
    """

    root: Path
    vectors: Mapping[str, tuple[str, ...]]
    reads: bool = True
    usage: CacheUsage = field(default_factory=CacheUsage, compare=False)

    @classmethod
    def for_matrix(
        cls, matrix: FeatureMatrix, root: Path, *, reads: bool = True, usage: CacheUsage | None = None
    ) -> Self:
        """Prediction cache in `root` for the vectors of a matrix."""
        return cls(
            root,
            {
                block.name: tuple(
                    digest_bytes(np.ascontiguousarray(view[:, block.start : block.stop]).tobytes())
                    for view in matrix.features
                )
                for block in matrix.blocks
            },
            reads,
            usage or CacheUsage(),
        )

    def load(
        self, matrix: FeatureMatrix, joint: Sequence[Candidate], split: Split, harmonise: str = NONE
    ) -> list[Vector] | None:
        """Probabilities of the test images by candidate, if this split was fitted before."""
        self.usage.requests += len(joint)
        if not self.reads:
            return None
        shape = len(split[1]), len(matrix.classes)
        found = recorded_result(self.root, self._key(matrix, joint, split, harmonise), [shape] * len(joint))
        self.usage.hits += len(found or ())
        return found

    def save(
        self,
        matrix: FeatureMatrix,
        joint: Sequence[Candidate],
        split: Split,
        proba: Sequence[Vector],
        harmonise: str = NONE,
    ) -> None:
        """Keep what was answered."""
        record_result(self.root, self._key(matrix, joint, split, harmonise), proba)

    def _key(
        self, matrix: FeatureMatrix, joint: Sequence[Candidate], split: Split, harmonise: str
    ) -> dict[str, Any]:
        """Who is fitted together is part of it: company can change the last bits."""
        train, test = split
        learned = [train.tolist(), matrix.y[train].tolist(), matrix.groups[train].tolist()]
        return {
            "team": [_describe(candidate, matrix) for candidate in joint],
            "vectors": {n: list(self.vectors[n]) for candidate in joint for n in candidate.backbones},
            "training": digest(learned),
            "test": digest(test.tolist()),
            "software": _software(),
            **({} if harmonise == NONE else {"harmonise": [harmonise, _sites(matrix, split)]}),
        }


def _sites(matrix: FeatureMatrix, split: Split) -> str:
    """Digest of which images are of one site."""
    rows = np.concatenate(split)
    return digest(np.unique([matrix.records[at].site or "" for at in rows], return_inverse=True)[1].tolist())


def _describe(candidate: Candidate, matrix: FeatureMatrix) -> dict[str, Any]:
    unfitted = build(candidate, matrix, comparison_options(candidate.strategy))
    foreign = registry.source_files(STRATEGIES, candidate.strategy)
    return {
        **({"plugin": [digest_file(path) for path in foreign]} if foreign else {}),
        "strategy": candidate.strategy,
        "backbones": list(candidate.backbones),
        "views": candidate.views,
        "test_views": candidate.test_views,
        "ids": digest([record.id for record in matrix.records]) if candidate.samples_views else None,
        "parameters": {name: repr(value) for name, value in unfitted.get_params().items()},
    }


@cache
def _software() -> str:
    here = Path(__file__).parents[1]
    found = {pattern: list(here.glob(pattern)) for pattern in SOURCE_PATTERNS}
    if not all(found.values()):
        raise FileNotFoundError(
            f"Of {', '.join(SOURCE_PATTERNS)} some are no source files: their changes would go unnoticed."
        )
    files = sorted(path for paths in found.values() for path in paths)
    return digest(
        {
            **{name: version(name) for name in LIBRARIES},
            **{path.relative_to(here).as_posix(): digest_file(path) for path in files},
        }
    )


# Many small fits at once, on a machine of few cores


def parallel_starmap(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int
) -> Iterator[Any]:
    """Results of ``function(*call)`` in order, computed by `jobs` processes (-1: one per core).

    Each fit has one BLAS thread. The fits are small: more threads would wait for each other most of the time, and
    with one the last bits of a result do not depend on how many processes there are. The processes end with this one,
    and so does what they share in memory.
    """
    from joblib import Parallel, delayed

    with_this_one = {"initializer": end_with_parent, "initargs": parent_info()}
    yield from Parallel(n_jobs=jobs, return_as="generator", **with_this_one)(
        delayed(one_thread)(function, *call) for call in calls
    )


def one_thread(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """Return ``function(*arguments)``, computed with one BLAS thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(*arguments)


# Repeats: how often the folds are drawn, where nobody said it

REPEATS = 3
"""Enough that the luck of the folds is seen, and averaged over."""


def usual_repeats(matrix: FeatureMatrix, candidates: Sequence[Candidate], folds: int | str) -> int:
    """Return how often the folds are drawn where nobody said it: `REPEATS` where fits are cheap, else once.

    It depends on sizes and strategies alone, so that the same call gives the same numbers on any machine. Fits are
    cheap where none of the strategies trains with random numbers, as networks do, and all of them together take less
    time by the `forecast` than is worth telling.

    Parameters
    ----------
    matrix, candidates
        What is compared.
    folds
        As for `featstore.compare`; the data set's own split is scored once.
    """
    if not isinstance(folds, int) or any(is_seeded(one.strategy) for one in candidates):
        return 1
    images = len(matrix.records)
    rows = np.arange(images - images // max(2, folds))
    rounds = [(rows, rows)] * (REPEATS * max(2, folds))
    return 1 if forecast(matrix, candidates, rounds, 1, 1).is_notable else REPEATS


# Forecast: how many fits, about how long, and how much memory

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
    def is_notable(self) -> bool:
        """Whether anybody would want to know before it begins."""
        return self.seconds >= LONG or self.bytes >= LARGE


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Memory that the largest fits of a strategy take, beyond the features that are loaded.

    Attributes
    ----------
    strategy
        Its name.
    rows, columns
        Of its largest fit, every view counted.
    bytes
        Of that fit and its training rows.
    """

    strategy: str
    rows: int
    columns: int
    bytes: int


def memory_needs(
    matrix: FeatureMatrix, candidates: Sequence[Candidate], rounds: Sequence[Split]
) -> list[MemoryNeed]:
    """Memory of one fit of each strategy, the largest first, by `FusionStrategy.fit_bytes`."""
    widths = {spec.name: spec.dimension for spec in matrix.specs}
    images = max(len(train) for train, _ in rounds)
    found: dict[str, MemoryNeed] = {}
    for joint in joint_fits(candidates):
        members = [candidates[at] for at in joint]
        rows = images * (len(matrix.views) if members[0].views == EXPAND else 1)
        together = [widths[name] for name in {name for one in members for name in one.backbones}]
        beyond = max(
            _fit_bytes(one.strategy, rows, [widths[name] for name in one.backbones]) for one in members
        )
        if (
            len(members) > 1
        ):  # each block scaled, in float64 and float32, and its Gram matrix if that is smaller
            squares = sum(2 * width >= rows for width in together)
            beyond += 3 * FLOAT_BYTES * rows * (sum(together) + squares * rows)
        name, columns = members[0].strategy, sum(together)
        need = MemoryNeed(name, rows, columns, rows * columns * FLOAT_BYTES + beyond)
        found[name] = max(found.get(name, need), need, key=lambda one: one.bytes)
    return sorted(found.values(), key=lambda need: (-need.bytes, need.strategy))


def _fit_bytes(strategy: str, rows: int, widths: Sequence[int]) -> int:
    """What the strategy says; of one from elsewhere that says nothing, as many copies as of most."""
    kind = registry.load(STRATEGIES, strategy)
    if hasattr(kind, "fit_bytes"):
        return int(kind.fit_bytes(rows, widths))
    return COPIES * rows * sum(widths) * FLOAT_BYTES


def require_memory(
    matrix: FeatureMatrix, candidates: Sequence[Candidate], rounds: Sequence[Split], jobs: int = 1
) -> None:
    """Refuse, before the first fit, what does not fit into the memory that is free.

    Raises
    ------
    UsageError
        If the largest fits of as many processes as work at a time need more: how much, and what to leave out.
    """
    _, free = memory_bytes()
    needs = memory_needs(matrix, candidates, rounds)
    if not (free and needs):
        return
    processes = max(1, min(available_cores() if jobs < 0 else jobs, len(candidates) * len(rounds)))
    shared = matrix.features.nbytes if processes > 1 else 0
    most = needs[0]
    if shared + processes * most.bytes <= free:
        return
    at_a_time = f" in each of {processes} processes" if processes > 1 else ""
    cause = (
        f"{most.strategy} needs about {most.bytes / 1e9:.1f} GB of memory{at_a_time} beside the features, for"
        f" {most.rows:,} rows of {most.columns:,} numbers, and {free / 1e9:.1f} GB are free."
    )
    small = sorted(need.strategy for need in needs if need.bytes <= free)
    if processes > 1 and len(small) == len(needs):
        raise UsageError(cause, "Let one process work at a time: --jobs 1.")
    views = " or views" if len(matrix.views) > 1 else ""
    fewer = f"ake fewer networks (--backbones A,B){views}, or free memory."
    if small:
        raise UsageError(cause, f"Take one that needs less ({', '.join(small[:8])}), or t{fewer}")
    raise UsageError(cause, f"T{fewer}")


def forecast(
    matrix: FeatureMatrix, candidates: Sequence[Candidate], rounds: Sequence[Split], jobs: int, cores: int
) -> Forecast:
    """Estimate a comparison from the sizes alone.

    Parameters
    ----------
    matrix, candidates, rounds
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
        for one in candidates
        for rows in images
    ]
    cells = [rows * width for rows, width in shapes]
    seconds = SECONDS_PER_PRODUCT * sum(rows * width * min(rows, width) for rows, width in shapes)
    processes = max(1, min(cores if jobs < 0 else jobs, len(cells)))
    copies = sum(sorted(cells, reverse=True)[:processes]) * COPIES * FLOAT_BYTES
    return Forecast(len(cells), seconds / min(processes, cores), matrix.features.nbytes + copies)
