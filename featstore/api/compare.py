"""`compare`: strategies and single backbones on identical folds, and what the difference is worth."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import runs
from featstore.errors import UsageError
from featstore.evaluation.backbone_value import economics as weigh
from featstore.evaluation.backbone_value import view_curve as curve_of_views
from featstore.evaluation.calibration import Wish, curves
from featstore.evaluation.candidates import (
    EXPAND,
    IDENTITY,
    Contestant,
    draws,
    line_up,
    not_fitted,
    reseed,
    with_views,
)
from featstore.evaluation.crossval import Ledger, Reuse, draft, forecast, one_thread, play
from featstore.evaluation.estimates import Arena, out_of_fold, standings
from featstore.evaluation.intervals import group_weights
from featstore.evaluation.leakage import merge_copies, unknown, without_copies_of
from featstore.evaluation.metrics import positive_class
from featstore.evaluation.pairwise_tests import duels
from featstore.evaluation.selection_bias import guard, picks, points, with_inner
from featstore.evaluation.shortcuts import data_findings, shortcut_standings, shortcut_verdict
from featstore.findings import mark_accepted, ordered, resolve
from featstore.image_facts import image_facts
from featstore.matrix import Source, load_matrix
from featstore.processes import Progress, available_cores, showing_bars
from featstore.results.comparison import Comparison, findings_of
from featstore.signatures import public
from featstore.splits import OWN_SPLIT, group_folds, own_split
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.crossval import Forecast
    from featstore.evaluation.estimates import Standing
    from featstore.findings import Finding
    from featstore.images.manifest import Manifest
    from featstore.matrix import FeatureMatrix
    from featstore.splits import Split

    Vector = NDArray[np.float64]
    Play = Callable[..., list[list[Vector]]]


@public
@runs.writes_run
def compare(
    data: str | Path | Manifest,
    *,
    strategies: Sequence[str] | str = "all",
    subsets: Sequence[Sequence[str]] | str = "singles",
    folds: int | str = 5,
    repeats: int = 1,
    fold_seed: int = 0,
    training_seeds: int = 1,
    positive: str | None = None,
    calibrate: str | None = None,
    sensitivity: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,  # noqa: ARG001  # `writes_run` looks at it
    views: Sequence[str] = (EXPAND,),
    test_views: str = IDENTITY,
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
    Intervals come from 2000 bootstrap resamples of the groups, shared by all, so differences are paired.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` whose features are in the store.
    strategies
        Names, or ``all``.
    subsets
        ``singles`` (each backbone alone, and all together), ``all``, ``greedy``, names joined by plus signs, several
        of these with commas, or lists of names: see `featstore.evaluation.candidates.line_up`.
    folds, repeats, fold_seed
        Cross-validation; two calls with the same values give the same folds and the same numbers. ``split`` takes the
        data set's own instead: trained on ``train`` and ``val``, scored on ``test``.
    training_seeds
        Seeds to train with on the folds of the first repeat, for strategies that draw random numbers; more than one
        tells the luck of training from the choice of patients.
    positive
        Class that sensitivity is about. By default, of two classes, the one that is not called normal, healthy,
        negative or the like; the last in sorted order where the names do not tell
        (`featstore.evaluation.metrics.positive_class`).
    calibrate
        ``temperature``, ``platt`` or ``isotonic``, fitted within the training images of each fold; five further fits.
    sensitivity
        Share of the positive class to be found; the threshold is chosen within the training images of each fold.
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
    """
    if view_curve is not None:
        draws(view_curve)  # refuses a strategy that does not exist, before anything is fitted
    cache = Path(source.get("cache") or default_cache())
    known = [resolve(code) for code in accept]
    with showing_bars(wanted=progress):
        matrix = unknown(load_matrix(data, **source))
    facts = image_facts(matrix.records, matrix.decoding, cache, progress=progress)
    matrix = merge_copies(matrix, facts, cache, known, progress=progress)
    contestants = with_views(
        line_up(strategies, subsets, matrix.backbones), views, test_views, len(matrix.views)
    )
    preferred = positive_class(matrix.classes, positive)
    index = preferred.index
    wish = Wish(calibrate, sensitivity, index)
    splits, dropped = _splits(matrix, folds, repeats, fold_seed)
    own = folds == OWN_SPLIT
    arena = Arena(matrix.y, matrix.groups, splits, repeats, index)
    chooses = nested or not wish.is_none
    rounds = with_inner(matrix, arena.splits, fold_seed) if chooses else list(arena.splits)
    bars = Progress(progress)
    idle = not_fitted(strategies, contestants)
    _foretell(bars, matrix, forecast(matrix, contestants, rounds, jobs, available_cores()), idle)
    drafts = draft(matrix, contestants, rounds, jobs, bars)
    reuse = Reuse()
    play_in = partial(_play, root=cache, resume=resume, jobs=jobs, bars=bars, reuse=reuse)
    play_all = partial(play_in, matrix)
    raw = play_all(contestants, rounds, drafts)
    chosen = [points(matrix.y, arena.splits, rounds, values, wish) for values in raw]
    proba = [
        [point.calibrate(values) for point, values in zip(mine, answers, strict=False)]
        for mine, answers in zip(chosen, raw, strict=True)
    ]
    weights = group_weights(matrix.groups, seed=fold_seed)
    ranked = standings(
        arena,
        contestants,
        proba,
        weights,
        [[point.threshold for point in mine] for mine in chosen],
        _reseeded(play_all, dict(zip(contestants, raw, strict=True)), arena, drafts, training_seeds),
        bars,
    )
    result = Comparison(
        {**runs.describe(matrix, index), "positive_origin": preferred.origin},
        len(splits) // repeats,
        repeats,
        fold_seed,
        wish,
        tuple(ranked),
        tuple(duels(arena, ranked)),
        guard(arena, ranked, weights, picks(arena, rounds, raw)),
        {s.contestant.label: _curves(arena, s) for s in ranked},
        tuple(drafts[: len(arena.splits)]),
        ()
        if view_curve is None
        else curve_of_views(
            matrix,
            arena,
            Contestant(view_curve, matrix.backbones, view_curve),
            lambda part, contestant: play_in(part, [contestant], arena.splits, ())[0],
            weights,
        ),
        one_thread(weigh, matrix, arena, lambda everyone: play_all(everyone, arena.splits, ()), cache)
        if economics
        else None,
        own_split=own,
        shortcuts=shortcut_standings(arena, facts, weights),
        fits=reuse.asked,
        fits_taken=reuse.taken,
    )
    told = [
        *data_findings(matrix, facts, draws_folds=not own),
        *dropped,
        *([] if idle is None else [idle]),
        *shortcut_verdict(ranked, result.shortcuts),
        *findings_of(result, arena, preferred, has_groups=matrix.has_groups),
    ]
    result = replace(result, findings=ordered(mark_accepted(told, known)))
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
                    "training_seeds": training_seeds,
                    "views": list(views),
                    "test_views": test_views,
                    "view_curve": view_curve,
                    "economics": economics,
                    "nested": nested,
                    "accepted": known,
                },
                "matrix": document["matrix"],
                "protocol": document["protocol"],
                "fits": {"asked": result.fits, "taken_from_cache": result.fits_taken},
            },
            document,
            out_of_fold(matrix, ranked, arena.splits, data),
            result.rows(),
        )
    return result


def _foretell(bars: Progress, matrix: FeatureMatrix, ahead: Forecast, idle: Finding | None) -> None:
    """Say before the first fit what will not be fitted, and what a long comparison takes."""
    if idle is not None:
        bars.say(f"compare: {idle.message}")
    if ahead.is_worth_telling:
        rows, columns = len(matrix.views) * len(matrix.records), matrix.features.shape[2]
        bars.say(
            f"compare: at most {ahead.fits:,} fits on {rows:,} rows of {columns:,} numbers: very roughly"
            f" {max(1, round(ahead.seconds / 60)):,} minutes and {ahead.bytes / 1e9:.1f} GB of memory."
        )


def _splits(
    matrix: FeatureMatrix, folds: int | str, repeats: int, seed: int
) -> tuple[list[Split], tuple[Finding, ...]]:
    """Folds drawn over all images, or the data set's own split; and what had to be left out of that."""
    if folds == OWN_SPLIT:
        if repeats > 1:
            raise UsageError("The data set's own split cannot be repeated.", "Leave out --repeats.")
        parts, dropped = without_copies_of(matrix, own_split(matrix))
        train = np.sort(np.concatenate([rows for name, rows in parts.items() if name != "test"]))
        return [(train, parts["test"])], dropped
    if not isinstance(folds, int):
        raise UsageError(f"--folds {folds!r} is no number of folds.", "Give a number, or --folds split.")
    return group_folds(matrix, folds, repeats, seed), ()


def _play(
    matrix: FeatureMatrix,
    contestants: Sequence[Contestant],
    rounds: Sequence[Split],
    drafts: Sequence[tuple[str, ...]],
    *,
    root: Path,
    resume: bool,
    jobs: int,
    bars: Progress,
    reuse: Reuse,
) -> list[list[Vector]]:
    """Probabilities of the test images, by contestant and round."""
    proba: list[list[Vector]] = [[np.empty(0)] * len(rounds) for _ in contestants]
    ledger = Ledger.of(matrix, root, believes=resume, reuse=reuse)
    results = play(matrix, contestants, rounds, drafts, jobs, ledger)
    for at, fold, values in bars.over(results, "fit", "fit", len(contestants) * len(rounds)):
        proba[at][fold] = values
    return proba


def _reseeded(
    play_all: Play,
    first: Mapping[Contestant, Sequence[Vector]],
    arena: Arena,
    drafts: Sequence[tuple[str, ...]],
    seeds: int,
) -> dict[Contestant, list[Sequence[Vector]]]:
    """Probabilities on the first repeat with each training seed, for those whose training has one."""
    others = {contestant: reseed(contestant, range(1, seeds)) for contestant in first}
    folds = [arena.splits[at] for at in arena.first_repeat]
    drawn = [other for reseeded in others.values() for other in reseeded]
    if not drawn:
        return {}
    answers = iter(play_all(drawn, folds, drafts[: len(folds)]))
    return {
        contestant: [first[contestant][: len(folds)], *(next(answers) for _ in reseeded)]
        for contestant, reseeded in others.items()
    }


def _curves(arena: Arena, standing: Standing) -> dict[str, Any]:
    folds = arena.first_repeat
    y = np.concatenate([arena.y[arena.splits[at][1]] for at in folds])
    proba = np.concatenate([standing.proba[at] for at in folds])
    decisions = np.concatenate([standing.decisions[at] for at in folds])
    groups = np.concatenate([arena.groups[arena.splits[at][1]] for at in folds])
    return curves(y, proba, decisions, arena.positive, groups)
