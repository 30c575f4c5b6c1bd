"""`compare`: strategies and single backbones on identical folds, with tests of the differences; `plan` before it."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import msgspec
import numpy as np

from featstore import runs, serialization
from featstore.arguments import public
from featstore.errors import StoreError, UsageError
from featstore.evaluation import candidates, crossval, estimates, leakage, pairwise_tests, patients
from featstore.evaluation import primary_question as questions
from featstore.evaluation.backbone_value import backbone_value as weigh
from featstore.evaluation.backbone_value import view_curve as curve_of_views
from featstore.evaluation.calibration import OperatingPointRequest, curves, method
from featstore.evaluation.crossval import ScoredUnits, draw_folds, refuse_unfit, site_result, usual_repeats
from featstore.evaluation.findings import (
    cross_validated_shortcuts,
    data_findings,
    findings_of,
    shortcut_verdict,
)
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.metrics import PRIMARY, positive_class
from featstore.evaluation.negative_controls import control_findings, negative_controls
from featstore.findings import Finding, mark_accepted, ordered, resolve
from featstore.matrix import FeatureMatrix, Source, load_matrix
from featstore.processes import PhaseProgress, available_cores
from featstore.results.comparison import (
    Candidate,
    CandidateResult,
    Comparison,
    Looks,
    Plan,
    Planning,
    Protocol,
    ScoresByImage,
    ShortcutResult,
)
from featstore.results.document import ShapeError, read_result
from featstore.splits import OWN_SPLIT, SITE
from featstore.store.notes import Look, record_look, recorded_looks
from featstore.store.store import default_cache
from featstore.types import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.image_facts import FactTable
    from featstore.images.manifest import Manifest
    from featstore.results.comparison import PrimaryQuestion
    from featstore.results.scores import Curves
    from featstore.splits import Split
    from featstore.types import ImageRecord

    Vector = NDArray[np.float64]
    Play = Callable[..., list[list[Vector]]]


@public
@runs.writes_run
def compare(
    data: str | Path | Manifest,
    *,
    strategies: Sequence[str] | str = "all",
    subsets: Sequence[Sequence[str]] | str = "singles",
    plan: str | Path | None = None,
    primary: str | None = None,
    margin: float = questions.MARGIN,
    folds: int | str = 5,
    repeats: int | None = None,
    fold_seed: int = 0,
    harmonise: str = candidates.NONE,
    training_seeds: int = 1,
    positive: str | None = None,
    unit: str = IMAGE,
    pool: str | None = None,
    calibrate: str | None = None,
    sensitivity: float | None = None,
    confidence: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,  # noqa: ARG001  # `writes_run` looks at it
    views: Sequence[str] = (candidates.EXPAND,),
    test_views: str = candidates.IDENTITY,
    view_curve: str | None = None,
    economics: bool = False,
    nested: bool = False,
    jobs: int = 1,
    resume: bool = True,
    accept: Collection[str] = (),
    progress: bool = False,
    **source: Unpack[Source],
) -> Comparison:
    """Cross-validate strategies and single backbones on the same group-stratified folds.

    Unless `views` says otherwise, everyone trains on all views of the training images and is scored on the identity
    view of the test images. Answers are kept in the cache, fit by fit: the same call goes on where a killed one was.
    Images that a backbone was tuned on, and those of the same patients, are left out for everyone.
    One question is settled before any score is seen and tested at full strength: is the primary fusion better than
    every single network? All other pairs are exploration. Intervals of scores come from 2000 bootstrap resamples of
    the groups, those of differences from what each group contributes to both scores.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` whose features are in the store.
    strategies
        Names, or ``all``. ``mean_vector`` and ``attention_pooling`` pool the images of a patient before they answer,
        and take part with ``unit="group"`` alone.
    subsets
        ``singles`` (each backbone alone, and all together), ``all``, ``greedy``, names joined by plus signs, several
        of these with commas, or lists of names: see `featstore.evaluation.candidates.make_candidates`.
    plan
        A question that `featstore.plan` has sealed: `primary`, `margin`, `folds`, `repeats`, `fold_seed`,
        `harmonise`, `positive`, `calibrate`, `views` and `test_views` are its own, and the data and features must be
        those it was made for. Without one the comparison is exploratory.
    primary
        The fusion that the primary question is about, ``NAME`` or ``NAME:A+B``; by default ``concat_logreg`` over all
        networks. It is compared whether or not it is among `strategies`, and so is every single network.
    margin
        Difference in the AUC that is too small to matter: `featstore.evaluation.primary_question`.
    folds, repeats, fold_seed
        Cross-validation; two calls with the same values give the same folds and the same numbers. None repeats it
        three times where fits are cheap, else not (`featstore.evaluation.crossval.usual_repeats`). ``split`` takes
        the data set's own folds instead: trained on ``train`` and ``val``, scored on ``test``. ``site`` leaves out
        one site at a time, and tells what that costs against folds over all patients
        (`featstore.results.comparison.SiteResult`); ``group`` leaves out one patient at a time. Both are done once.
    harmonise
        With ``site``, what is done inside each fold about features that differ between sites: ``none``, or
        ``per-site`` for the mean and deviation of each site's own images, which takes those of the site that is left
        out, without their labels (`featstore.evaluation.candidates.by_site`). That can make scores worse.
    training_seeds
        Seeds to train with on the folds of the first repeat, for strategies that draw random numbers; more than one
        tells the luck of training from the choice of patients.
    positive
        Class that sensitivity is about. By default, of two classes, the one that is not called normal, healthy,
        negative or the like; the last in sorted order where the names do not tell
        (`featstore.evaluation.metrics.positive_class`).
    unit, pool
        What is scored: ``image``, or ``group`` for whole patients, each of whom then counts once, in every score,
        interval and test; the scores by image stand beside (`featstore.results.comparison.ScoresByImage`). A
        patient's answer is pooled from those of the images in a way that is fixed beforehand: ``mean-logit`` unless
        `pool` says ``mean``, ``max``, ``top-3`` or ``noisy-or`` (`featstore.evaluation.patients.pool_images`). What
        `calibrate` and `sensitivity` choose is then chosen for patients.
    calibrate
        ``temperature``, ``platt``, ``isotonic`` or ``vector`` (for three or more classes), fitted within the
        training images of each fold; five further fits.
    sensitivity
        Share of the positive class to be found; the threshold is chosen within the training images of each fold.
    confidence
        How sure the sensitivity must be reached on other patients, such as 0.95
        (`featstore.evaluation.calibration.tolerance_threshold`); None: at best half the time.
    out, overwrite
        Folder for the run; None writes nothing.
    views, test_views
        View policies to train by, each for everyone, and the one to be tested by: `featstore.evaluation.candidates`.
    view_curve
        Strategy over all backbones whose score against the number of augmented views is wanted.
    economics
        Weigh cost and worth of each backbone: `featstore.evaluation.backbone_value`. All subsets are fitted for it.
    nested
        Also pick the winner anew inside each fold, by five folds within its training images: five further fits. Done
        without asking where `calibrate` or `sensitivity` need these fits anyway.
    jobs
        Processes, each with one BLAS thread; -1 for one per core. The numbers do not depend on it.
    resume
        Take fits that an earlier comparison kept; without it all are computed (and kept) anew.
    accept
        Codes of findings that are known, such as ``FS101``: they stay in the run, marked. With ``FS102`` accepted,
        patients that share a picture are not merged.
    progress
        Show a bar for each phase on stderr.
    **source
        Which features: see `featstore.matrix.Source`.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> result = featstore.compare(data, strategies=["concat_logreg"], folds=3, positive="covid")
    >>> [scored.candidate.strategy for scored in result.candidates]
    ['concat_logreg']
    >>> auc = result.candidates[0].estimates["auc"]
    >>> 0 <= auc.mean <= 1
    True
    """
    sealed = None if plan is None else read_plan(Path(plan))
    asked = settled(
        sealed,
        Planned(
            primary=primary,
            margin=margin,
            folds=folds,
            repeats=repeats,
            fold_seed=fold_seed,
            positive=positive,
            calibrate=calibrate,
            views=views,
            test_views=test_views,
            unit=unit,
            pool=pool,
            harmonise=harmonise,
        ),
    )
    pooling = patients.require_unit(asked.unit, asked.pool)
    if view_curve is not None:
        candidates.require_asked_so([view_curve], pooling)  # or it does not exist
    cache = Path(source.get("cache") or default_cache())
    known = [resolve(code) for code in accept]
    looked_at, matrix, facts = _prepared(data, sealed, cache, known, jobs, progress=progress, source=source)
    named = candidates.make_candidates(strategies, subsets, matrix.networks, pooling)
    everyone, question = questions.settle(asked.primary, asked.margin, named, matrix.networks, pooling)
    compared = candidates.with_views(
        _with_covariates(matrix, everyone, economics=economics),
        asked.views,
        asked.test_views,
        len(matrix.views),
    )
    question = questions.with_policy(question, compared)
    preferred = positive_class(matrix.classes, asked.positive)
    index = preferred.index
    people = None if pooling is None else patients.patients_of(matrix, pooling, index)
    request = OperatingPointRequest(asked.calibrate, sensitivity, index, confidence)
    repeats = usual_repeats(matrix, compared, asked.folds) if asked.repeats is None else asked.repeats
    folding = draw_folds(matrix, asked.folds, repeats, asked.fold_seed)
    units = ScoredUnits(folding, folding.design(matrix, index), people)
    design = units.design
    chooses = nested or not request.is_none
    refuse_unfit(folding, matrix, compared, chooses=chooses, economics=economics, harmonise=asked.harmonise)
    rounds = (
        estimates.with_inner_folds(matrix, folding.splits, asked.fold_seed)
        if chooses
        else list(folding.splits)
    )
    candidates.require_memory(
        matrix, [one for one in compared if one.greedy or not resume], rounds, jobs, asked.harmonise
    )
    bars = PhaseProgress(progress)
    idle = candidates.not_fitted(strategies, named)
    _announce_forecast(
        bars, matrix, candidates.forecast(matrix, compared, rounds, jobs, available_cores()), idle
    )
    selections = crossval.select_per_fold(matrix, compared, rounds, jobs, bars)
    reuse = crossval.CacheUsage()
    play_in = partial(
        _cross_validate,
        root=cache,
        resume=resume,
        jobs=jobs,
        bars=bars,
        reuse=reuse,
        harmonise=asked.harmonise,
    )
    answers = play_in(matrix, compared, rounds, selections)
    raw = units.pooled(answers, rounds)
    thresholds, proba = _at_operating_points(design, units.splits(rounds), raw, request)
    planning = take_look(cache, looked_at, "compare", sealed)
    weights = group_weights(design.groups, seed=asked.fold_seed)
    ranked = estimates.score_candidates(
        design,
        compared,
        proba,
        weights,
        thresholds,
        _vary_training_seeds(
            partial(units.play, partial(play_in, matrix)),
            dict(zip(compared, raw, strict=True)),
            folding.splits[: len(folding.splits) // repeats],
            selections,
            training_seeds,
        ),
        bars,
    )
    images = (
        ranked
        if people is None
        else _scored_by_image(units, compared, answers, rounds, request, asked.fold_seed)
    )
    shortcuts = cross_validated_shortcuts(
        units.by_image, facts, weights, people, units.learned_by_guesses(matrix, asked.fold_seed)
    )
    answered = questions.answer(design, question, ranked, shortcuts)
    result = Comparison(
        matrix=runs.describe(matrix, index, preferred.origin),
        protocol=Protocol(
            folds=len(folding.splits) // repeats,
            repeats=repeats,
            fold_seed=asked.fold_seed,
            calibrate=asked.calibrate,
            sensitivity=sensitivity,
            confidence=confidence,
            plan=planning.plan,
            own_split=asked.folds == OWN_SPLIT,
            left_out=folding.left_out,
            harmonise=cast("Any", asked.harmonise),
            adjustment="max-T",
            unit="image" if people is None else "group",
            pool=pooling,
        ),
        primary_question=answered,
        shortcuts=tuple(ShortcutResult(label=s.candidate.label, estimates=s.estimates) for s in shortcuts),
        candidates=tuple(_result(design, s, selections[: len(design.splits)]) for s in ranked),
        pairs=tuple(
            pairwise_tests.pairwise_tests(
                design, ranked, planned=answered is not None and answered.opens_the_gate
            )
        ),
        selection_bias=estimates.correct_selection_bias(
            design, ranked, weights, estimates.select_in_inner_folds(design, units.splits(rounds), raw)
        ),
        view_curve=()
        if view_curve is None
        else curve_of_views(
            matrix,
            design,
            Candidate(view_curve, matrix.networks, view_curve),
            lambda part, candidate: units.play(partial(play_in, part), [candidate], folding.splits, ())[0],
            weights,
        ),
        backbone_value=crossval.one_thread(
            weigh,
            matrix,
            design,
            lambda everyone: units.play(partial(play_in, matrix), everyone, folding.splits, ()),
            cache,
        )
        if economics
        else None,
        fits=reuse.requests,
        fits_reused=reuse.hits,
        planning=planning,
        by_image=None
        if people is None
        else ScoresByImage(
            patients=people.by_class, estimates={s.candidate.label: s.estimates for s in images}
        ),
        sites=None
        if folding.left_out != SITE
        else site_result(
            units,
            matrix,
            ranked,
            thresholds,
            partial(units.play, partial(play_in, matrix)),
            weights,
            _shown(ranked, answered),
            asked.fold_seed,
            jobs,
        ),
        negative_controls=crossval.one_thread(
            negative_controls,
            units,
            matrix,
            facts,
            ranked,
            shortcuts,
            weights,
            _asked_about(answered),
            asked.fold_seed,
        ),
    )
    told = [
        *data_findings(matrix, facts, draws_folds=asked.folds != OWN_SPLIT),
        *folding.findings,
        *([] if idle is None else [idle]),
        *(doubted := shortcut_verdict(ranked, shortcuts, answered)),
        *control_findings(result, doubted),
        *findings_of(result, design, preferred, has_groups=matrix.has_groups),
    ]
    result = msgspec.structs.replace(result, findings=ordered(mark_accepted(told, known)))
    if out is not None:
        document = result.to_json(examples=False)
        runs.clear(Path(out))
        runs.write_run(
            Path(out),
            {
                "kind": "compare",
                "asked": {
                    "strategies": strategies if isinstance(strategies, str) else list(strategies),
                    "subsets": subsets if isinstance(subsets, str) else [list(subset) for subset in subsets],
                    "primary": asked.primary,
                    "margin": asked.margin,
                    "training_seeds": training_seeds,
                    "views": list(asked.views),
                    "test_views": asked.test_views,
                    "view_curve": view_curve,
                    "economics": economics,
                    "nested": nested,
                    "accepted": known,
                },
                "matrix": document["matrix"],
                "protocol": document["protocol"],
                "fits": {"asked": result.fits, "taken_from_cache": result.fits_reused},
                "planning": planning.to_json(),
            },
            document,
            estimates.out_of_fold(matrix, images, units.by_image.splits, data),
            result.rows(),
            None if people is None else estimates.patients_out_of_fold(people, ranked, units.by_image.splits),
        )
    return result


def _prepared(
    data: str | Path | Manifest,
    sealed: Plan | None,
    cache: Path,
    known: Collection[str],
    jobs: int,
    *,
    progress: bool,
    source: Source,
) -> tuple[tuple[ImageRecord, ...], FeatureMatrix, FactTable]:
    """Images as they were loaded, and the matrix and facts of those that are scored.

    Where images were left out, nobody holds the features with them from here on.
    """
    loaded = leakage.loaded_matrix(data, progress=progress, shared=jobs != 1, **source)
    require_planned(sealed, loaded)
    prepared = leakage.prepare(data, loaded, cache, known, drops_seen=True, progress=progress)
    return loaded.records, crossval.for_processes(prepared.matrix, jobs), prepared.facts


def _shown(ranked: Sequence[estimates.CandidateScores], answered: PrimaryQuestion | None) -> str:
    """Label of the primary fusion, or of the highest primary metric where there is none."""
    return max(ranked, key=lambda s: s.primary).candidate.label if answered is None else answered.primary


def _asked_about(answered: PrimaryQuestion | None) -> tuple[str, ...]:
    """Labels of the primary fusion and of the single networks."""
    return () if answered is None else (answered.primary, *(one.name for one in answered.singles))


def _with_covariates(matrix: FeatureMatrix, everyone: list[Candidate], *, economics: bool) -> list[Candidate]:
    """Candidates without the covariates and with them, where there are some."""
    if matrix.covariates is None:
        return everyone
    if economics:
        raise UsageError(
            "--economics weighs networks by what they cost, and covariates cost nothing.",
            "Leave out --covariates or --economics.",
        )
    return candidates.with_covariates(everyone)


def _announce_forecast(
    bars: PhaseProgress, matrix: FeatureMatrix, ahead: candidates.Forecast, idle: Finding | None
) -> None:
    """Say before the first fit what will not be fitted, and what a long comparison takes."""
    if idle is not None:
        bars.say(f"compare: {idle.message}")
    if ahead.is_notable:
        rows, columns = len(matrix.views) * len(matrix.records), matrix.features.shape[2]
        bars.say(
            f"compare: at most {ahead.fits:,} fits on {rows:,} rows of {columns:,} numbers: very roughly"
            f" {max(1, round(ahead.seconds / 60)):,} minutes and {ahead.bytes / 1e9:.1f} GB of memory."
        )


def _cross_validate(
    matrix: FeatureMatrix,
    compared: Sequence[Candidate],
    rounds: Sequence[Split],
    selections: Sequence[tuple[str, ...]],
    *,
    root: Path,
    resume: bool,
    jobs: int,
    bars: PhaseProgress,
    reuse: crossval.CacheUsage,
    harmonise: str,
) -> list[list[Vector]]:
    """Probabilities of the test images, by candidate and round."""
    proba: list[list[Vector]] = [[np.empty(0)] * len(rounds) for _ in compared]
    prediction_cache = crossval.PredictionCache.for_matrix(matrix, root, reads=resume, usage=reuse)
    results = crossval.cross_validate(matrix, compared, rounds, selections, jobs, prediction_cache, harmonise)
    with bars.counter("fit", "fit", len(compared) * len(rounds)) as step:
        for at, fold, values in results:
            proba[at][fold] = values
            step()
    return proba


def _scored_by_image(
    units: ScoredUnits,
    compared: Sequence[Candidate],
    answers: Sequence[Sequence[Vector]],
    rounds: Sequence[Split],
    request: OperatingPointRequest,
    seed: int,
) -> list[estimates.CandidateScores]:
    """Scores beside those of patients: every image counts for itself, operating points are those of images."""
    merged = units.pooled(answers, rounds, images=True)
    thresholds, proba = _at_operating_points(units.by_image, rounds, merged, request)
    weights = group_weights(units.by_image.groups, seed=seed)
    return estimates.score_candidates(units.by_image, compared, proba, weights, thresholds)


def _at_operating_points(
    design: estimates.EvaluationDesign,
    rounds: Sequence[Split],
    raw: Sequence[Sequence[Vector]],
    request: OperatingPointRequest,
) -> tuple[list[list[float | None]], list[list[Vector]]]:
    """Threshold and calibrated probabilities, by candidate and fold, chosen on the inner folds of each."""
    points = [
        estimates.operating_points(design.y, design.splits, rounds, values, request, design.groups)
        for values in raw
    ]
    proba = [
        [point.calibrate(values) for point, values in zip(mine, answers, strict=False)]
        for mine, answers in zip(points, raw, strict=True)
    ]
    return [[point.threshold for point in mine] for mine in points], proba


def _vary_training_seeds(
    play_all: Play,
    first: Mapping[Candidate, Sequence[Vector]],
    folds: Sequence[Split],
    selections: Sequence[tuple[str, ...]],
    seeds: int,
) -> dict[Candidate, list[Sequence[Vector]]]:
    """Probabilities on the first repeat with each training seed, for those whose training has one."""
    others = {candidate: candidates.with_seeds(candidate, range(1, seeds)) for candidate in first}
    drawn = [other for reseeded in others.values() for other in reseeded]
    if not drawn:
        return {}
    answers = iter(play_all(drawn, folds, selections[: len(folds)]))
    return {
        candidate: [first[candidate][: len(folds)], *(next(answers) for _ in reseeded)]
        for candidate, reseeded in others.items()
    }


def _result(
    design: estimates.EvaluationDesign,
    scored: estimates.CandidateScores,
    selections: Sequence[tuple[str, ...]],
) -> CandidateResult:
    """A candidate as a comparison shows it."""
    who = scored.candidate
    return CandidateResult(
        label=who.label,
        strategy=who.strategy,
        backbones=who.backbones,
        views=who.views,
        test_views=who.test_views,
        selected_backbones=tuple(selections) if who.greedy else None,
        estimates=scored.estimates,
        variance_components=scored.variance_components,
        curves=_curves(design, scored),
        proba=scored.proba,
        decisions=scored.decisions,
    )


def _curves(design: estimates.EvaluationDesign, scored: estimates.CandidateScores) -> Curves:
    folds = design.first_repeat
    y = np.concatenate([design.y[design.splits[at][1]] for at in folds])
    proba = np.concatenate([scored.proba[at] for at in folds])
    decisions = np.concatenate([scored.decisions[at] for at in folds])
    groups = np.concatenate([design.groups[design.splits[at][1]] for at in folds])
    return curves(y, proba, decisions, design.positive, groups)


# A plan: the question of a comparison, sealed before any score


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a plan settles of `featstore.compare`, named as its arguments, and what that takes without one."""

    primary: str | None = None
    margin: float = questions.MARGIN
    folds: int | str = 5
    repeats: int | None = None
    fold_seed: int = 0
    positive: str | None = None
    calibrate: str | None = None
    views: Sequence[str] = (candidates.EXPAND,)
    test_views: str = candidates.IDENTITY
    unit: str = IMAGE
    pool: str | None = None
    harmonise: str = candidates.NONE


AGAIN = "Make it again, before you look: featstore plan DATA --out plan.json"


@public
def plan(
    data: str | Path | Manifest,
    out: str | Path,
    *,
    primary: str | None = None,
    margin: float = questions.MARGIN,
    folds: int | str = 5,
    repeats: int | None = None,
    fold_seed: int = 0,
    harmonise: str = candidates.NONE,
    positive: str | None = None,
    calibrate: str | None = None,
    views: Sequence[str] = (candidates.EXPAND,),
    test_views: str = candidates.IDENTITY,
    unit: str = IMAGE,
    pool: str | None = None,
    overwrite: bool = False,
    **source: Unpack[Source],
) -> Plan:
    """Seal the primary question of a comparison before any score is seen.

    Question, margin, data, features, folds, repeats and seeds are written down with the date, under a seal; no label
    is used but to count classes, and nothing is fitted. ``featstore.compare(data, plan=...)`` then runs exactly that
    and says that it was planned. The seal shows a change by hand or by accident; it keeps nobody from making a new
    plan, and therefore looks at the same images are counted in the cache and told.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` whose features are in the store.
    out
        The plan: a JSON file, for its owner alone.
    primary, margin, folds, repeats, fold_seed, harmonise, positive, calibrate, views, test_views, unit, pool
        As for `featstore.compare`; `repeats` by the cost of the primary fusion and the single networks.
    overwrite
        Replace a file that is there already.
    **source
        Which features: see `featstore.matrix.Source`.

    Raises
    ------
    UsageError
        If there is no question to ask, it cannot be asked so, or the file is there already.
    StoreError
        If it cannot be written.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0", "EfficientNetLite1"], recipe="identity")
    >>> sealed = featstore.plan(data, "plan.json", folds=3, overwrite=True)
    >>> sealed.primary, sealed.metric, sealed.margin, sealed.folds
    ('concat_logreg', 'auc', 0.01, 3)
    """
    target = Path(out)
    if os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target} is there already.", "Choose another --out, or add --overwrite.")
    matrix = load_matrix(data, **source)
    pooling = patients.require_unit(unit, pool)
    _, question = questions.settle(primary, margin, (), matrix.networks, pooling)
    if question is None:
        raise UsageError(
            f"There is nothing to plan: {matrix.backbones[0]} is the only network, and nothing is fused.",
            "Extract another network: featstore extract DATA --backbones A,B",
        )
    chosen = positive_class(matrix.classes, positive)
    if calibrate is not None:
        method(calibrate)
    candidates.with_views([question.primary], views, test_views, len(matrix.views))
    if pooling is not None:
        patients.patients_of(matrix, pooling, chosen.index)
    asked = [*question.singles, question.primary]
    times = usual_repeats(matrix, asked, folds) if repeats is None else repeats
    folding = draw_folds(matrix, folds, times, fold_seed)
    refuse_unfit(folding, matrix, asked, chooses=calibrate is not None, economics=False, harmonise=harmonise)
    cache = Path(source.get("cache") or default_cache())
    sealed = Plan(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        primary=primary or questions.DEFAULT,
        margin=margin,
        metric=PRIMARY,
        positive=None if chosen.index is None else matrix.classes[chosen.index],
        folds=cast("Any", folds),
        repeats=times,
        fold_seed=fold_seed,
        calibrate=calibrate,
        views=tuple(views),
        test_views=test_views,
        data_sha256=runs.data_digest(matrix.records),
        images=len(matrix.records),
        groups=len(set(matrix.groups.tolist())),
        features_sha256=_features_digest(matrix),
        backbones=matrix.backbones,
        looks=_count(looks_at(cache, matrix.records)),
        unit="image" if pooling is None else "group",
        pool=pooling,
        harmonise=cast("Any", harmonise),
    )
    try:
        target.parent.mkdir(mode=serialization.PRIVATE_FOLDER, parents=True, exist_ok=True)
        serialization.write_private(target, runs.json_text(serialization.seal(sealed.to_json())).encode())
    except OSError as error:
        raise StoreError(
            f"Cannot write {target}: {error.strerror or error}", "Choose another place with --out."
        ) from error
    return sealed


# Running a plan


def read_plan(path: Path) -> Plan:
    """Read a sealed plan.

    Raises
    ------
    UsageError
        If the file is none, or was changed after it was sealed.
    """
    try:
        return read_result(Plan, serialization.unseal(serialization.read(path)), "the plan")
    except (OSError, serialization.DocumentError, ShapeError) as error:
        why = (error.strerror or error) if isinstance(error, OSError) else error
        raise UsageError(f"{path} is no sealed plan: {why}.", AGAIN) from error


def settled(sealed: Plan | None, given: Planned) -> Planned:
    """Return what a plan settles; without one, what was given.

    Raises
    ------
    UsageError
        If another value was given beside the plan.
    """
    if sealed is None:
        return given
    for one in fields(Planned):
        planned, value = getattr(sealed, one.name), getattr(given, one.name)
        asked = tuple(value) if isinstance(value, list | tuple) else value
        if asked not in (one.default, planned):
            flag = f"--{one.name.replace('_', '-')}"
            raise UsageError(
                f"The plan has settled {flag}: it is {planned}, and {asked} was given.",
                f"Leave out {flag}; or run `featstore compare DATA` without the plan, and it is exploratory.",
            )
    return Planned(**{one.name: getattr(sealed, one.name) for one in fields(Planned)})


def require_planned(sealed: Plan | None, matrix: FeatureMatrix) -> None:
    """Make sure that a plan is about these images and these features.

    Raises
    ------
    UsageError
        If it is not.
    """
    if sealed is None:
        return
    if sealed.data_sha256 != runs.data_digest(matrix.records):
        groups = len(set(matrix.groups.tolist()))
        raise UsageError(
            f"The plan is about other data: {sealed.images} images of {sealed.groups} groups, sealed on"
            f" {sealed.created[:10]}; these are {len(matrix.records)} images of {groups}, or other labels, groups or"
            " splits.",
            "Give the data set that was planned for, or plan this one: featstore plan DATA --out plan.json",
        )
    if sealed.features_sha256 != _features_digest(matrix):
        raise UsageError(
            f"The plan is about other features, of {', '.join(sealed.backbones)}; these are of"
            f" {', '.join(matrix.backbones)}, or of other weights, views or decoding.",
            "Choose them as the plan did: `featstore compare DATA --plan PLAN.json --backbones A,B --seeds 1-4`",
        )


def _features_digest(matrix: FeatureMatrix) -> str:
    fields = runs.describe(matrix, None)
    return serialization.digest({name: fields[name] for name in ("backbones", "views", "decoding")})


# Looks at a data set


def looks_at(cache: Path, images: Sequence[ImageRecord]) -> list[Look]:
    """Looks at these images that the cache knows of, the earliest first."""
    return recorded_looks(cache, [record.id for record in images])


def take_look(
    cache: Path, images: Sequence[ImageRecord], command: str, sealed: Plan | None = None
) -> Planning:
    """Note that scores of these images are about to be seen; return what was planned, and how often they were seen.

    Parameters
    ----------
    cache
        The cache folder.
    images
        The images, as they were loaded.
    command
        ``compare`` or ``fuse``.
    sealed
        The plan that is run.
    """
    earlier = looks_at(cache, images)
    record_look(
        cache,
        [record.id for record in images],
        Look(datetime.now(UTC).isoformat(timespec="seconds"), command),
    )
    if sealed is None:
        return Planning(plan=None, looks=_count(earlier))
    before = sum(look.when < sealed.created for look in earlier)
    return Planning(
        plan=serialization.digest(sealed.to_json()),
        created=sealed.created,
        before_plan=max(before, sealed.looks.count),
        looks=_count(earlier),
    )


def _count(looks: Sequence[Look]) -> Looks:
    return Looks(
        compare=sum(look.command == "compare" for look in looks),
        fuse=sum(look.command == "fuse" for look in looks),
        first=looks[0].when if looks else "",
        last=looks[-1].when if looks else "",
    )
