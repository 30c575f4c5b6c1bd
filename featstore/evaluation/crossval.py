"""Cross-validation: how images come to be tested, and every candidate on the same folds, with a cache of predictions.

By folds, on their own split, or with each site or each patient left out. Leaving out one site at a time asks how a
model does at a hospital that it has never seen (internal-external validation: Steyerberg & Harrell, Journal of
Clinical Epidemiology 69, 2016). Every site is scored for itself and scores are averaged over sites, since the
probabilities of several models need not be comparable; what they give all together stands beside. Leaving out one
patient at a time leaves nothing to rank in a fold, so all patients together are one test set
(`featstore.splits.patient_folds`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from featstore import registry
from featstore.errors import UnknownNameError, UsageError, WorkerLostError, did_you_mean
from featstore.evaluation import leakage, metrics
from featstore.evaluation.candidates import (
    GREEDY,
    HARMONISATIONS,
    NONE,
    PER_SITE,
    STRATEGIES,
    answers_for_patients,
    build,
    by_site,
    comparison_options,
    fit_candidate,
    fit_jointly,
    forecast,
    is_seeded,
    joint_fits,
    predict_proba,
    require_memory,
    select_backbones,
)
from featstore.evaluation.estimates import EvaluationDesign, held_out_scores, score_candidates
from featstore.evaluation.intervals import difference_interval, widen
from featstore.processes import PhaseProgress, end_with_parent, parent_info
from featstore.results.comparison import InsideOutside, SiteResult, SiteScores
from featstore.serialization import digest, digest_blocks, digest_file
from featstore.splits import (
    GROUP,
    LEFT_OUT,
    OWN_SPLIT,
    SITE,
    group_folds,
    own_split,
    patient_folds,
    site_folds,
)
from featstore.store.notes import record_result, recorded_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.estimates import CandidateScores
    from featstore.evaluation.patients import Patients
    from featstore.findings import Finding
    from featstore.matrix import FeatureMatrix
    from featstore.results.comparison import Candidate
    from featstore.splits import LabelledImages, Split
    from featstore.types import Block

    Vector = NDArray[np.float64]
    Play = Callable[..., list[list[Vector]]]


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

    Raises
    ------
    UsageError
        Before the first fit, if one that the cache does not know needs more memory than is free.
    """
    fresh = []
    for joint, f in ((joint, f) for joint in joint_fits(candidates) for f in range(len(splits))):
        resolved = [_with_selected_backbones(candidates[c], selections, f) for c in joint]
        known = prediction_cache.load(matrix, resolved, splits[f], harmonise) if prediction_cache else None
        if known is None:
            fresh.append((joint, f, resolved))
        else:
            yield from zip(joint, [f] * len(joint), known, strict=True)
    if fresh:
        together = dict.fromkeys(one for _, _, resolved in fresh for one in resolved)
        rounds = [splits[f] for f in sorted({f for _, f, _ in fresh})]
        require_memory(matrix, list(together), rounds, jobs, harmonise)
    table = for_processes(matrix, jobs if fresh else 1)
    calls = [(table, resolved, splits[f], prediction_cache, harmonise) for _, f, resolved in fresh]
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
    table = for_processes(matrix, jobs)
    chosen = parallel_starmap(select_backbones, [(table, train) for train, _ in splits], jobs)
    found = []
    with bars.counter("choose", "fold", len(splits)) as step:
        for one in chosen:
            found.append(one)
            step()
    return found


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

DIGESTED_ROWS = 256
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
                block.name: tuple(_vectors_digest(view, block) for view in matrix.features)
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
            **(
                {"patients": digest(matrix.groups[test].tolist())}
                if answers_for_patients(joint[0].strategy)
                else {}
            ),
            "software": _software(),
            **({} if harmonise == NONE else {"harmonise": [harmonise, _sites(matrix, split)]}),
        }


def _vectors_digest(view: NDArray[np.float32], block: Block) -> str:
    """SHA-256 of the vectors of a backbone, a few rows at a time: there may be no memory for a copy."""
    starts = range(0, len(view), DIGESTED_ROWS)
    columns = slice(block.start, block.stop)
    return digest_blocks(np.ascontiguousarray(view[at : at + DIGESTED_ROWS, columns]).data for at in starts)


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
    with one the last bits of a result do not depend on how many processes there are. The processes end with this one.
    They are sent what they need, but for arrays that lie in shared memory (`for_processes`), which they open there.

    Raises
    ------
    WorkerLostError
        If one of them was killed, as the system does when memory is short.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with_this_one = {"initializer": end_with_parent, "initargs": parent_info()}
    no_files = {
        "max_nbytes": None,
        "temp_folder": gettempdir(),
    }  # nor a folder for them, as in /dev/shm by default
    try:
        yield from Parallel(n_jobs=jobs, return_as="generator", **no_files, **with_this_one)(
            delayed(one_thread)(function, *call) for call in calls
        )
    except TerminatedWorkerError as error:
        raise WorkerLostError(
            "A process of --jobs was killed, as the system does when memory is short.",
            "Run the same command again, with fewer --jobs: what was finished is kept.",
        ) from error


def for_processes(matrix: FeatureMatrix, jobs: int) -> FeatureMatrix:
    """Return the matrix as `jobs` processes hold it once: itself if there is one, or if it is shared already."""
    return matrix if jobs == 1 else matrix.shared()


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


INSIDE_FOLDS = 5
"""Folds over patients of all sites, beside which leaving sites out is shown."""
GUESS_FOLDS = 10
"""Folds by which guesses without a network are learned where every patient is left out."""
PATIENT_FACTOR = 1.5
"""Overlap factor where every patient is left out.

`featstore.evaluation.intervals.overlap_factor` has the root of two for it, and up to 1.53 were needed in simulations
(benchmarks/leave_one_patient_out.py).
"""
MOST_SECONDS = 3600.0
"""From so many seconds on, very roughly, not every patient is left out."""
SECONDS_PER_FIT = 0.1
"""Of a fit however small it is, beside what `featstore.evaluation.candidates.forecast` says."""


@dataclass(frozen=True, slots=True, eq=False)
class Folding:
    """How images come to be tested.

    Attributes
    ----------
    splits
        Pairs (training images, test images): what is fitted.
    repeats
        How many times all images are tested.
    left_out
        ``site`` or ``group``; empty for folds and the data set's own split.
    sites
        The site that each fold leaves out.
    never
        Sites that are never left out.
    shared
        Patients of several sites.
    findings
        What had to be left out of the data set's own split.
    """

    splits: list[Split]
    repeats: int = 1
    left_out: Literal["", "site", "group"] = ""
    sites: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    shared: int = 0
    findings: tuple[Finding, ...] = ()

    def design(self, table: LabelledImages, positive: int | None) -> EvaluationDesign:
        """What everyone is tested on."""
        if self.left_out != GROUP:
            return EvaluationDesign(table.y, table.groups, self.splits, self.repeats, positive, self.sites)
        everyone = np.arange(len(table.y))
        return EvaluationDesign(
            table.y, table.groups, [(everyone, everyone)], 1, positive, factor=PATIENT_FACTOR
        )


def draw_folds(matrix: FeatureMatrix, folds: int | str, repeats: int, seed: int) -> Folding:
    """Folds drawn over all images, the data set's own split, or one site or patient left out at a time.

    Raises
    ------
    UsageError
        If it is no number of folds, or what is drawn only once is to be repeated.
    AuditError
        If the images cannot be divided so.
    """
    if folds in (OWN_SPLIT, *LEFT_OUT) and repeats > 1:
        why = {
            OWN_SPLIT: "The data set's own split cannot be repeated.",
            SITE: "Every site is left out once: nothing is drawn, and there is nothing to repeat.",
            GROUP: "Every patient is left out once: nothing is drawn, and there is nothing to repeat.",
        }
        raise UsageError(why[str(folds)], "Leave out --repeats.")
    if folds == OWN_SPLIT:
        parts, dropped = leakage.without_copies_of(matrix, own_split(matrix))
        train = np.sort(np.concatenate([rows for name, rows in parts.items() if name != "test"]))
        return Folding([(train, parts["test"])], findings=dropped)
    if folds == SITE:
        found = site_folds(matrix)
        return Folding(found.splits, 1, "site", found.names, found.never, found.shared)
    if folds == GROUP:
        return Folding(patient_folds(matrix, seed), 1, "group")
    if not isinstance(folds, int):
        raise UsageError(
            f"--folds {folds!r} is no number of folds.",
            "Give a number, or one of the words split, site, group.",
        )
    return Folding(group_folds(matrix, folds, repeats, seed), repeats)


def refuse_unfit(
    folding: Folding,
    matrix: FeatureMatrix,
    compared: Sequence[Candidate],
    *,
    chooses: bool,
    economics: bool,
    harmonise: str = NONE,
) -> None:
    """Refuse what cannot be done so: by every patient left out in sensible time, or harmonised.

    Raises
    ------
    UsageError
        If so.
    """
    _refuse_harmonising(folding, compared, harmonise, economics=economics)
    if folding.left_out != GROUP:
        return
    if chooses:
        raise UsageError(
            "--calibrate, --sensitivity and --nested need five further fits of every candidate for each patient who"
            " is left out.",
            "Leave them out, or use --folds 5.",
        )
    if economics or any(one.greedy for one in compared):
        what = "--economics" if economics else f"--subsets {GREEDY}"
        raise UsageError(
            f"{what} fits all subsets for each patient who is left out.", "Use --folds 5 for it."
        )
    ahead = forecast(matrix, compared, folding.splits, 1, 1)
    seconds = ahead.seconds + SECONDS_PER_FIT * ahead.fits
    if seconds > MOST_SECONDS:
        raise UsageError(
            f"Leaving out each of {len(folding.splits)} patients takes {ahead.fits:,} fits, very roughly"
            f" {seconds / 3600:,.1f} hours.",
            "Compare fewer candidates, such as `--strategies ridge_loo`; or use --folds 5.",
        )


def _refuse_harmonising(
    folding: Folding, compared: Sequence[Candidate], harmonise: str, *, economics: bool
) -> None:
    if harmonise not in HARMONISATIONS:
        raise UnknownNameError(
            f"There is no harmonisation {harmonise!r}.", did_you_mean(harmonise, HARMONISATIONS)
        )
    if harmonise == NONE:
        return
    if folding.left_out != SITE:
        raise UsageError(
            f"--harmonise {harmonise} takes the images of the site that is left out, without their labels.",
            "Add --folds site, or leave out --harmonise.",
        )
    if economics or any(one.greedy for one in compared):
        raise UsageError(
            f"--economics and --subsets {GREEDY} choose from features that are not harmonised.",
            "Leave them out, or leave out --harmonise.",
        )


@dataclass(frozen=True, slots=True, eq=False)
class ScoredUnits:
    """What is scored: the images, or the patients who have them."""

    folding: Folding
    by_image: EvaluationDesign
    patients: Patients | None

    @property
    def design(self) -> EvaluationDesign:
        """What everyone is tested on."""
        return self.by_image if self.patients is None else self.patients.design(self.by_image)

    @property
    def merges(self) -> bool:
        """Whether all folds together are one test set."""
        return self.folding.left_out == GROUP

    def splits(self, splits: Sequence[Split]) -> list[Split]:
        """Folds over images as folds over what is scored."""
        if self.merges:
            return list(self.design.splits)
        return list(splits) if self.patients is None else [self.patients.split(one) for one in splits]

    def pooled(
        self, proba: Sequence[Sequence[Vector]], splits: Sequence[Split], *, images: bool = False
    ) -> list[list[Vector]]:
        """Probabilities of what is scored, or of `images`, by candidate and fold, from those of images."""
        people = None if images else self.patients
        found = [list(one) if people is None else people.pooled_folds(one, splits) for one in proba]
        if not self.merges:
            return found
        rows = np.concatenate([test if people is None else people.rows(test) for _, test in splits])
        order = np.argsort(rows, kind="stable")
        return [[np.concatenate(one)[order]] for one in found]

    def play(
        self,
        play_in: Play,
        everyone: Sequence[Candidate],
        splits: Sequence[Split],
        selections: Sequence[tuple[str, ...]],
    ) -> list[list[Vector]]:
        """Fit on folds over images; probabilities of what is scored."""
        return self.pooled(play_in(everyone, splits, selections), splits)

    def learned_by_guesses(self, table: LabelledImages, seed: int) -> list[Split] | None:
        """Folds by which guesses without a network are learned; None for those of the comparison."""
        if not self.merges:
            return None
        fewest = min(len(set(table.groups[table.y == c])) for c in range(len(table.classes)))
        return group_folds(table, min(GUESS_FOLDS, fewest), 1, seed)


# One site left out: a table by site, and the drop from inside to outside


def site_result(
    units: ScoredUnits,
    matrix: FeatureMatrix,
    scored: Sequence[CandidateScores],
    thresholds: Sequence[Sequence[float | None]],
    play: Play,
    weights: Vector,
    shown: str,
    seed: int,
    jobs: int = 1,
) -> SiteResult:
    """Scores by site, and what leaving sites out costs against folds over the patients of all sites.

    Parameters
    ----------
    units, matrix
        What is scored, by sites left out; and the features.
    scored, thresholds
        Every candidate, and by candidate and site the probability from which an image is positive.
    play
        Fits candidates on folds over images; probabilities of what is scored.
    weights
        ``(resamples, n)``, those that the candidates were scored with.
    shown
        Label of the candidate whose scores are told by site.
    seed
        Of the folds inside.
    jobs
        As for `featstore.compare`.
    """
    design, folding = units.design, units.folding
    fewest = min(len(set(matrix.groups[matrix.y == c])) for c in range(len(matrix.classes)))
    inside = group_folds(matrix, min(INSIDE_FOLDS, fewest), 1, seed)
    candidates = [s.candidate for s in scored]
    proba = play(candidates, inside, select_per_fold(matrix, candidates, inside, jobs))
    splits = inside if units.patients is None else [units.patients.split(one) for one in inside]
    within = EvaluationDesign(design.y, design.groups, splits, 1, design.positive)
    found = score_candidates(within, candidates, proba, weights)
    whole = [_in_order(splits, one) for one in proba]
    at = next(i for i, s in enumerate(scored) if s.candidate.label == shown)
    return SiteResult(
        candidate=shown,
        sites=tuple(
            _of_site(units, matrix, name, fold, scored[at], thresholds[at][fold], whole[at])
            for fold, name in enumerate(folding.sites)
        ),
        never_left_out=folding.never,
        shared_patients=folding.shared,
        inside_folds=len(inside),
        drops=tuple(_drop(design, within, *each) for each in zip(scored, found, whole, strict=True)),
    )


def _in_order(splits: Sequence[Split], proba: Sequence[Vector]) -> Vector:
    rows = np.concatenate([test for _, test in splits])
    ordered: Vector = np.concatenate(proba)[np.argsort(rows, kind="stable")]
    return ordered


def _of_site(
    units: ScoredUnits,
    table: LabelledImages,
    name: str,
    fold: int,
    scored: CandidateScores,
    threshold: float | None,
    inside: Vector,
) -> SiteScores:
    design = units.design
    rows = design.splits[fold][1]
    scores = held_out_scores(units.patients or table, rows, scored.proba[fold], design.positive, threshold)
    groups, images = design.groups[rows], units.by_image.splits[fold][1]
    return SiteScores(
        site=name,
        images=len(images),
        patients=len(np.unique(groups)),
        classes={label: len(np.unique(groups[design.y[rows] == c])) for c, label in enumerate(table.classes)},
        scores=scores,
        inside=_number(_primary(design, rows, inside[rows])),
    )


def _has_lone_patient(design: EvaluationDesign, fold: int) -> bool:
    """Whether a class has a single patient at a site: no resample tells how another would have moved its score."""
    rows = design.splits[fold][1]
    y, groups = design.y[rows], design.groups[rows]
    return any(len(np.unique(groups[y == c])) == 1 for c in np.unique(y))


def _primary(design: EvaluationDesign, rows: NDArray[np.intp], proba: Vector) -> float:
    return float(metrics.primary_score(design.y[rows], proba, np.ones((1, len(rows))), design.positive)[0])


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _drop(
    design: EvaluationDesign,
    within: EvaluationDesign,
    outside: CandidateScores,
    inside: CandidateScores,
    whole: Vector,
) -> InsideOutside:
    """Inside less outside; both are resampled with the same patients, and widened as they are by themselves."""
    ranked = design.ranked_folds
    rows = np.concatenate([test for _, test in design.splits])
    of_sites = [_primary(design, design.splits[at][1], whole[design.splits[at][1]]) for at in ranked]
    value_in, value_out = inside.estimates[metrics.PRIMARY].mean, outside.estimates[metrics.PRIMARY].mean
    drop, interval = None, None
    if value_in is not None and value_out is not None:
        drop = value_in - value_out
        interval = difference_interval(
            (value_out, value_in),
            (
                widen(outside.resampled, value_out, design.overlap_factor),
                widen(inside.resampled, value_in, within.overlap_factor),
            ),
            (outside.sample_size, inside.sample_size),
        )
    if any(_has_lone_patient(design, at) for at in ranked):
        interval = None
    return InsideOutside(
        candidate=outside.candidate.label,
        metric=metrics.PRIMARY,
        inside=value_in,
        inside_by_site=float(np.mean(of_sites)) if of_sites else None,
        outside=value_out,
        outside_pooled=_number(_primary(design, rows, np.concatenate(outside.proba))),
        drop=drop,
        interval=interval,
    )
