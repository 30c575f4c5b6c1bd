"""Candidates of a comparison: a strategy over some backbones, its views and parameters, and what fits of it take."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry
from featstore.errors import UnknownNameError, UsageError, did_you_mean
from featstore.evaluation.patients import NOISY_OR
from featstore.findings import Finding
from featstore.processes import available_cores, is_shared, memory_bytes
from featstore.results.comparison import Candidate
from featstore.types import COVARIATES, GROUP, IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.matrix import FeatureMatrix
    from featstore.splits import Split

    Rows = NDArray[np.intp]

# View policies: which rows a candidate is trained on, and which it answers for

IDENTITY, EXPAND, AVERAGE, SAMPLE = POLICIES = ("identity", "expand", "average", "sample")
TEST_POLICIES = (IDENTITY, AVERAGE)


def read_policies(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct policies for training, in the order named.

    Raises
    ------
    UsageError
        If one does not exist, or there is none.
    """
    wanted = tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in POLICIES]
    if unknown or not wanted:
        raise UnknownNameError(
            f"There is no view policy {', '.join(map(repr, unknown)) or 'named'}.",
            did_you_mean(unknown[0] if unknown else "", POLICIES),
        )
    return wanted


def require_test_policy(name: str) -> None:
    """Make sure that views can be treated so in testing.

    Raises
    ------
    UsageError
        If they cannot.
    """
    if name not in TEST_POLICIES:
        raise UsageError(f"Test views cannot be treated by {name!r}.", did_you_mean(name, TEST_POLICIES))


def training_rows(
    matrix: FeatureMatrix, images: Rows, backbones: Sequence[str], policy: str = EXPAND, seed: int = 0
) -> tuple[NDArray[np.float32], Rows, NDArray[np.str_]]:
    """Rows to train on: features, classes, groups.

    Parameters
    ----------
    matrix, images, backbones
        Which features.
    policy
        ``identity``: the unaugmented view; ``expand``: every view is a row; ``average``: the mean vector of all
        views; ``sample``: one view for each image, drawn from `seed` and the image id, the same for all backbones.
        That is for strategies that see their rows once; a `ViewStrategy` is given all and draws anew in each epoch.
    seed
        Of ``sample``.
    """
    n_views = len(matrix.views)
    match policy:
        case "expand":
            rows = matrix.rows(images, backbones, range(n_views))
            return rows, np.tile(matrix.y[images], n_views), np.tile(matrix.groups[images], n_views)
        case "average":
            rows = mean_rows(matrix, images, backbones)
        case "sample":
            drawn = np.array([_sample_view(matrix.records[i].id, seed, n_views) for i in images])
            every = matrix.rows(images, backbones, range(n_views)).reshape(n_views, len(images), -1)
            rows = every[drawn, np.arange(len(images))]
        case _:
            rows = matrix.rows(images, backbones, [0])
    return rows, matrix.y[images], matrix.groups[images]


def predict_views(
    predict: Callable[[NDArray[np.float32]], NDArray[Any]],
    matrix: FeatureMatrix,
    images: Rows,
    backbones: Sequence[str],
    policy: str = EXPAND,
    test_policy: str = IDENTITY,
) -> NDArray[np.float64]:
    """Probabilities ``(..., len(images), classes)`` float64 of test images.

    Parameters
    ----------
    predict
        From rows to probabilities ``(..., rows, classes)``.
    matrix, images, backbones
        Which features.
    policy
        How it was trained.
    test_policy
        ``identity``: the unaugmented view alone; ``average``: the mean of the answers to every view, or the answer to
        the mean vector where mean vectors were trained on.
    """
    if test_policy == IDENTITY:
        return np.asarray(predict(matrix.rows(images, backbones, [0])), np.float64)
    if policy == AVERAGE:
        return np.asarray(predict(mean_rows(matrix, images, backbones)), np.float64)
    each = [predict(matrix.rows(images, backbones, [view])) for view in range(len(matrix.views))]
    return np.asarray(np.mean(each, axis=0, dtype=np.float64))


def mean_rows(matrix: FeatureMatrix, images: Rows, backbones: Sequence[str]) -> NDArray[np.float32]:
    """Mean vector of all views of each image: ``(len(images), columns)`` float32."""
    n_views = len(matrix.views)
    every = matrix.rows(images, backbones, range(n_views)).reshape(n_views, len(images), -1)
    return np.asarray(every.mean(axis=0, dtype=np.float64).astype(np.float32))


def _sample_view(image_id: str, seed: int, n_views: int) -> int:
    """A view from the seed and the image alone, so that neither fold nor order moves it."""
    return int(np.random.default_rng([seed, int(image_id, 16)]).integers(n_views))


# Harmonisation inside a fold

NONE, PER_SITE = HARMONISATIONS = ("none", "per-site")
"""What is done about features that differ between sites: nothing, or `by_site`."""


def by_site(matrix: FeatureMatrix, split: Split) -> FeatureMatrix:
    """Standardise the features of a fold by the mean and deviation of each site.

    They are those of the site's training images, in their identity view; of a site that is left out, which has none,
    those of its test images, without their labels.

    Parameters
    ----------
    matrix
        Features whose images name their sites.
    split
        Training and test images; all others stay as they are.
    """
    train, test = split
    sites = np.array([record.site or "" for record in matrix.records])
    features = matrix.features.copy()
    for site in np.unique(sites[np.concatenate(split)]):
        mine = train[sites[train] == site]
        others = test[sites[test] == site]
        known = mine if len(mine) else others
        rows = np.concatenate([mine, others])
        for block in matrix.blocks:
            if block.name in matrix.networks:
                columns = slice(block.start, block.stop)
                part = matrix.features[0, known, columns].astype(np.float64)
                mean, deviation = part.mean(axis=0), part.std(axis=0)
                scaled = (matrix.features[:, rows, columns] - mean) / np.where(deviation > 0, deviation, 1.0)
                features[:, rows, columns] = scaled
    return replace(matrix, features=features)


# Candidates

STRATEGIES = "featstore.fusion.strategies"
PROBE = "concat_logreg"
"""On a single backbone nothing is fused: one plain linear probe stands for it."""
LIGHT = (PROBE, "nearest_centroid")
"""Strategies that need little memory, to be offered where another does not fit."""
MAX_EXHAUSTIVE = 8
SEED = "random_state"
"""Parameter by which a strategy takes its training seed."""
GREEDY = "greedy"
_SHOWN = 200
SUBSET_WORDS = ("singles", "all", GREEDY)
"""What `subsets` understands beside names."""


def answers_for_patients(strategy: str) -> bool:
    """Whether it pools the images of a patient itself: see `featstore.fusion.strategy.PatientStrategy`."""
    return bool(getattr(registry.load(STRATEGIES, strategy), "unit", IMAGE) == GROUP)


def is_asked_so(strategy: str, pool: str | None) -> bool:
    """Whether a strategy answers about what is scored: images (None), or patients pooled by `pool`.

    One that answers for patients is asked about them, and not under `NOISY_OR`: its answer, which stands at each of
    the images, would be counted as so many independent ones. All other ways of pooling leave it as it is.
    """
    return pool not in {None, NOISY_OR} or not answers_for_patients(strategy)


def require_asked_so(strategies: Iterable[str], pool: str | None) -> None:
    """Make sure that all strategies answer about what is scored: `is_asked_so`.

    Raises
    ------
    UsageError
        If one does not.
    """
    for name in dict.fromkeys(strategies):
        if not is_asked_so(name, pool):
            raise UsageError(
                f"{name} pools the images of a patient itself, and "
                + ("images are scored." if pool is None else f"--pool {pool} would pool its answers again."),
                "Add --unit group, or leave it out."
                if pool is None
                else "Leave out --pool, or the strategy.",
            )


def make_candidates(
    strategies: Sequence[str] | str,
    subsets: Sequence[Sequence[str]] | str,
    backbones: Sequence[str],
    pool: str | None = None,
) -> list[Candidate]:
    """Pair strategies with subsets; a subset of one gets the linear probe only.

    Parameters
    ----------
    strategies
        Names, and ``all`` for those that answer about what is scored.
    subsets
        Text as for ``--subsets``: ``singles`` (each backbone, and all together), ``all`` (every subset; of more than
        eight backbones ``singles,greedy``), ``greedy`` (singles, and a subset chosen in each fold), names joined by
        plus signs, or several of these with commas. Or a list of lists of names.
    backbones
        Names, in column order.
    pool
        How images become a patient's answer; None where images are scored.

    Raises
    ------
    UnknownNameError
        If a strategy or a backbone does not exist.
    UsageError
        If a strategy is named that does not answer about what is scored.
    """
    named = [strategies] if isinstance(strategies, str) else strategies
    everyone = [name for name in registry.names(STRATEGIES) if is_asked_so(name, pool)]
    names = list(dict.fromkeys(name for part in named for name in (everyone if part == "all" else [part])))
    require_asked_so(names, pool)
    wanted = _wanted(subsets)
    chosen = list(dict.fromkeys(part for want in wanted for part in _subsets(want, tuple(backbones))))
    singles = [Candidate(PROBE, subset, subset[0]) for subset in chosen if len(subset) == 1]
    fused = [
        Candidate(name, subset, name if len(subset) == len(backbones) else f"{name}:{'+'.join(subset)}")
        for subset in chosen
        if len(subset) > 1
        for name in names
    ]
    greedy = [Candidate(name, tuple(backbones), f"{name}:{GREEDY}", greedy=True) for name in names]
    if len(backbones) > 1 and _asks_for_greedy(wanted, len(backbones)):
        fused += greedy
    if not singles + fused:
        raise UsageError("There is nothing to compare.", "Name strategies and subsets, or leave both out.")
    return singles + fused


def with_covariates(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Everyone but those that choose their networks in each fold once more, with the covariates; and these alone."""
    beside = [
        replace(one, backbones=(*one.backbones, COVARIATES), label=f"{one.label}+{COVARIATES}")
        for one in candidates
        if not one.greedy
    ]
    return [*candidates, *beside, Candidate(PROBE, (COVARIATES,), COVARIATES)]


def not_fitted(strategies: Sequence[str] | str, candidates: Sequence[Candidate]) -> Finding | None:
    """FS411 where strategies were named that no candidate uses, since no subset has two networks."""
    named = dict.fromkeys([strategies] if isinstance(strategies, str) else strategies)
    everyone = {candidate.strategy for candidate in candidates}
    idle = [name for name in named if name not in {*everyone, "all"}]
    if not idle:
        return None
    probes = ", ".join(dict.fromkeys(candidate.label for candidate in candidates))
    return Finding(
        "FS411",
        f"Not fitted: {', '.join(idle)}. Only single networks are compared ({probes[:_SHOWN]}), each under"
        f" {PROBE}.",
        count=len(idle),
        remedy="Compare two networks or more, --backbones A,B, or fit it on the single one: "
        f"`featstore fuse DATA --strategy {idle[0]} --out RUN`",
    )


def with_views(
    candidates: Sequence[Candidate], policies: Sequence[str], test_policy: str, n_views: int
) -> list[Candidate]:
    """Everyone once for each view policy; where several are tried, a label ends in ``@policy``.

    With the identity view alone all policies are the same, and nobody is fitted twice.
    """
    require_test_policy(test_policy)
    chosen = read_policies(policies)
    if n_views == 1:
        return list(candidates)
    return [
        replace(
            candidate,
            label=f"{candidate.label}@{policy}" if len(chosen) > 1 else candidate.label,
            views=policy,
            test_views=test_policy,
        )
        for policy in chosen
        for candidate in candidates
    ]


def build(candidate: Candidate, matrix: FeatureMatrix, options: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401
    """Make the unfitted estimator of a candidate, with the columns that `fit_rows` will give it."""
    strategy = registry.load(STRATEGIES, candidate.strategy)
    seed = {SEED: candidate.seed} if candidate.seed is not None and is_seeded(candidate.strategy) else {}
    return strategy(blocks=matrix.columns(candidate.backbones), **{**(options or {}), **seed})


def with_seeds(candidate: Candidate, seeds: Sequence[int]) -> list[Candidate]:
    """Return the candidate once for each training seed; no one if its training leaves nothing to chance."""
    if not candidate.samples_views and not is_seeded(candidate.strategy):
        return []
    return [replace(candidate, seed=seed) for seed in seeds]


def is_seeded(strategy: str) -> bool:
    """Whether training the strategy takes a seed."""
    return SEED in inspect.signature(registry.load(STRATEGIES, strategy)).parameters


def comparison_options(strategy: str) -> Mapping[str, Any]:
    """Parameters by which a strategy uses all its training rows when it competes with others."""
    options: Mapping[str, Any] = getattr(registry.load(STRATEGIES, strategy), "COMPARISON_OPTIONS", {})
    return options


def fit_candidate(
    estimator: Any,  # noqa: ANN401
    matrix: FeatureMatrix,
    images: NDArray[np.intp],
    candidate: Candidate,
    **more: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Fit on the views of `images` that the candidate wants; groups go along for inner splits, `more` too."""
    from featstore.fusion.strategy import ViewStrategy

    if candidate.samples_views and isinstance(estimator, ViewStrategy):
        every = training_rows(matrix, images, candidate.backbones, EXPAND)
        return estimator.fit_views(*every, np.tile(images, len(matrix.views)), **more)
    X, y, groups = _rows(matrix, images, candidate)
    return estimator.fit(X, y, groups=groups, **more)


def predict_proba(
    estimator: Any,  # noqa: ANN401
    matrix: FeatureMatrix,
    images: NDArray[np.intp],
    candidate: Candidate,
) -> NDArray[np.float64]:
    """Class probabilities ``(len(images), classes)`` float64, of the identity view or averaged over views.

    Of a `PatientStrategy` they are those of the patient, alike for all of the patient's images among these.
    """
    ask = asked_about_patients(estimator, matrix.groups[images])
    return predict_views(ask, matrix, images, candidate.backbones, candidate.views, candidate.test_views)


def asked_about_patients(
    estimator: Any,  # noqa: ANN401
    groups: NDArray[Any],
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What an estimator says of rows of patients `groups` ``(n,)``; of the patients, if it answers for them."""
    from featstore.fusion.strategy import PatientStrategy

    if isinstance(estimator, PatientStrategy):
        return partial(estimator.predict_patients, groups=groups)
    ask: Callable[[NDArray[Any]], NDArray[Any]] = estimator.predict_proba
    return ask


def fits_subsets(strategy: str) -> bool:
    """Whether the strategy can fit many subsets of the backbones together."""
    from featstore.fusion.strategy import SubsetStrategy

    return issubclass(registry.load(STRATEGIES, strategy), SubsetStrategy)


def fit_jointly(
    matrix: FeatureMatrix, joint: Sequence[Candidate], train: NDArray[np.intp], test: NDArray[np.intp]
) -> list[NDArray[np.float64]]:
    """Fit candidates of one strategy and view policy together; probabilities ``(len(test), classes)`` of each."""
    union = {name for candidate in joint for name in candidate.backbones}
    backbones = tuple(name for name in matrix.backbones if name in union)
    everyone = replace(joint[0], backbones=backbones)
    unfitted = build(everyone, matrix, comparison_options(everyone.strategy))
    X, y, groups = _rows(matrix, train, everyone)
    family = unfitted.fit_subsets(X, y, [candidate.backbones for candidate in joint], groups)
    return list(predict_proba(family, matrix, test, everyone))


def select_backbones(matrix: FeatureMatrix, train: NDArray[np.intp]) -> tuple[str, ...]:
    """Backbones that greedy forward selection picks, from all views of training images alone."""
    from featstore.fusion.strategies.concat_logreg import DEFAULT_C, forward_selection

    X, y, groups = training_rows(matrix, train, matrix.networks)
    numbers = np.unique(groups, return_inverse=True)[1]
    return forward_selection(X, y, matrix.columns(matrix.networks), DEFAULT_C, numbers)


def _rows(
    matrix: FeatureMatrix, images: NDArray[np.intp], candidate: Candidate
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.str_]]:
    return training_rows(matrix, images, candidate.backbones, candidate.views, candidate.seed or 0)


def _wanted(subsets: Sequence[Sequence[str] | str] | str) -> list[tuple[str, ...] | str]:
    """Words, and tuples of names; a text in a list is what it would be by itself."""
    if isinstance(subsets, str):
        return [word.strip() for word in subsets.split(",")]
    wanted: list[tuple[str, ...] | str] = []
    for subset in subsets:
        wanted += _wanted(subset) if isinstance(subset, str) else [tuple(subset)]
    return wanted


def _subsets(want: Sequence[str] | str, everything: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Fixed subsets that one word or list of names asks for."""
    if want == "all" and len(everything) <= MAX_EXHAUSTIVE:
        sizes = range(1, len(everything) + 1)
        return [subset for size in sizes for subset in combinations(everything, size)]
    if want in {"all", "singles", GREEDY}:
        return [*((name,) for name in everything), everything]
    return [_in_order(want.split("+") if isinstance(want, str) else want, everything)]


def read_subset(text: str, everything: Sequence[str]) -> tuple[str, ...]:
    """Names joined by plus signs, in column order.

    Raises
    ------
    UnknownNameError
        If one of them is no loaded backbone.
    """
    return _in_order(text.split("+"), tuple(everything))


def _asks_for_greedy(wanted: Sequence[Sequence[str] | str], n_backbones: int) -> bool:
    return GREEDY in wanted or ("all" in wanted and n_backbones > MAX_EXHAUSTIVE)


def _in_order(subset: Sequence[str], everything: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(subset) - set(everything))
    if unknown or not subset:
        raise UnknownNameError(
            f"The subset {'+'.join(subset)!r} names no loaded backbone: {', '.join(unknown)}.",
            did_you_mean("+".join(unknown), [*everything, *SUBSET_WORDS])
            + " Names are joined by plus signs; singles, all and greedy are sets of subsets.",
        )
    return tuple(name for name in everything if name in subset)


# Parameters of a strategy: by preset, by name, or from an earlier run


def resolve_options(strategy: str, preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a preset, overridden by `options`.

    Raises
    ------
    UnknownNameError
        If the strategy has no such preset or parameter.
    """
    known = inspect.signature(registry.load(STRATEGIES, strategy)).parameters
    names = [name for name in known if name != "blocks"]
    unknown = sorted(set(options) - set(names))
    if unknown:
        raise UnknownNameError(
            f"{strategy} has no parameter {', '.join(unknown)}.", did_you_mean(unknown[0], names)
        )
    return {**_preset(strategy, preset), **options}


@contextmanager
def blame_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Where the user has set parameters, what scikit-learn cannot make sense of is about them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not options or isinstance(error, UsageError):
            raise
        given = ", ".join(f"{name}={value}" for name, value in options.items())
        raise UsageError(
            f"It cannot be trained with {given}: {error}", "Set the parameters as documented."
        ) from error


def _preset(strategy: str, preset: str | None) -> Mapping[str, Any]:
    presets: dict[str, dict[str, Any]] = getattr(registry.load(STRATEGIES, strategy), "PRESETS", {})
    if preset is None:
        return {}
    if preset not in presets:
        raise UnknownNameError(
            f"{strategy} has no preset {preset!r}.",
            did_you_mean(preset, presets)
            if presets
            else "It has none; its parameters are given by --set NAME=VALUE.",
        )
    return presets[preset]


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
    matrix: FeatureMatrix,
    candidates: Sequence[Candidate],
    rounds: Sequence[Split],
    jobs: int = 1,
    harmonise: str = NONE,
) -> None:
    """Refuse, before the first fit, what does not fit into the memory that is free.

    The matrix is loaded already and all processes share it; only one that is not shared yet is copied for them.
    What is harmonised is a table of its own in each fit.

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
    table, harmonises = matrix.features.nbytes, harmonise != NONE
    copied = table if processes > 1 and not is_shared(matrix.features) else 0
    beside = table if harmonises else 0
    most = needs[0]
    if copied + processes * (beside + most.bytes) <= free:
        return
    at_a_time = f" in each of {processes} processes" if processes > 1 else ""
    what = f"{most.rows:,} rows of {most.columns:,} numbers{' and what is harmonised' if harmonises else ''}"
    cause = (
        f"{most.strategy} needs about {(beside + most.bytes) / 1e9:.1f} GB of memory{at_a_time} beside the features,"
        f" for {what}, and {free / 1e9:.1f} GB are free."
    )
    small = sorted(need.strategy for need in needs if beside + need.bytes <= free)
    if processes > 1 and len(small) == len(needs):
        raise UsageError(cause, "Let one process work at a time: --jobs 1.")
    steps = []
    if not small:
        largest = next(one for one in candidates if one.strategy == most.strategy)
        light = memory_needs(matrix, [replace(largest, strategy=name) for name in LIGHT], rounds)
        small = [need.strategy for need in light if beside + need.bytes <= free]
        steps += [f"take a strategy that needs less, such as {small[0]}"] if small else []
    else:
        steps.append(f"take one that needs less ({', '.join(small[:8])})")
    if len(matrix.backbones) > 1:
        steps.append("take fewer networks (--backbones A,B)")
    if len(matrix.views) > 1:
        steps.append("take fewer views (--seeds none)")
    steps += ["leave out --harmonise"] if harmonises else []
    text = ", or ".join([*steps, "free memory"])
    raise UsageError(cause, f"{text[:1].upper()}{text[1:]}.")


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
