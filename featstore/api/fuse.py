"""`fuse`: train one strategy, score it on images it has not seen, and keep the model."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import runs
from featstore.api.compare import take_look
from featstore.arguments import public
from featstore.errors import RunError, UsageError
from featstore.evaluation import abstention, calibration, candidates, intervals, leakage, metrics, patients
from featstore.evaluation.candidates import require_memory
from featstore.evaluation.estimates import held_out, held_out_primary, held_out_scores, patients_held_out
from featstore.evaluation.findings import (
    ScoredImages,
    data_findings,
    fusion_findings,
    held_out_shortcuts,
    held_out_verdict,
)
from featstore.findings import mark_accepted, ordered, resolve
from featstore.fusion.model_io import load_strategy, save_strategy
from featstore.fusion.neural import NeuralStrategy
from featstore.matrix import FeatureMatrix, Source  # noqa: TC001  # `public` looks the entries of Source up
from featstore.results.comparison import Candidate
from featstore.results.fusion import Fusion, MetricChange, SingleNetwork, WarmStart
from featstore.splits import hold_out, inner_folds
from featstore.store.store import default_cache
from featstore.store.training_record import KnownImages
from featstore.types import COVARIATES, IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.images.manifest import Manifest
    from featstore.results.fusion import Abstention, UnlikeTraining
    from featstore.splits import LabelledImages


@public
@runs.writes_run
def fuse(
    data: str | Path | Manifest,
    *,
    strategy: str = "concat_logreg",
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    test_size: float = 0.25,
    split_seed: int = 0,
    positive: str | None = None,
    unit: str = IMAGE,
    pool: str | None = None,
    calibrate: str | None = None,
    sensitivity: float | None = None,
    confidence: float | None = None,
    abstain: float | None = None,
    init_from: str | Path | None = None,
    freeze_blocks: Sequence[str] = (),
    out: str | Path,
    overwrite: bool = False,  # noqa: ARG001  # `writes_run` looks at it
    accept: Collection[str] = (),
    progress: bool = False,
    **source: Unpack[Source],
) -> Fusion:
    """Train a fusion strategy on stored features and score it on held-out images.

    The data set's own splits are used where it has them; else whole groups are held out, stratified by class.
    Training sees all views of the training images; scores are those of the identity view. Where the data set has a
    split ``val``, its identity view is what a network validates on: with `patience` that picks the epoch, so trust
    ``test``.

    Parameters
    ----------
    data
        A folder, a CSV file or a `Manifest` whose features are in the store.
    strategy
        Name; `featstore strategies` lists them.
    preset
        Named settings of the strategy, such as ``paper`` of ``concat_head``.
    options
        Constructor parameters that override strategy and preset.
    test_size, split_seed
        Share of the groups to hold out where the data set has no splits, and its seed.
    positive, unit, pool
        As for `featstore.compare`. The model is fitted on images in any case; with ``group`` patients are scored, at
        an operating point that was chosen for patients. The model keeps one that was chosen for images beside it.
    calibrate, sensitivity, confidence
        As for `featstore.compare`; chosen on out-of-fold probabilities of the training images, kept with the model,
        and used by `featstore.predict`.
    abstain
        Error rate, such as 0.1, of prediction sets with a guarantee: at most this share of new patients of a class
        has a set without it, so that `featstore.predict` can answer "not sure". They are calibrated on whole patients
        that the model is not fitted on: the split ``val`` where there is one and no network validates on it, else a
        quarter of the training patients, more where a class would have too few.
    init_from, freeze_blocks
        Run of the same strategy, features and classes whose weights to go on from, at a tenth of its learning rate
        unless `options` has one, and its other settings unless `preset` or `options` say otherwise; and names of
        backbones whose input weights stay. Not together with `calibrate`, `sensitivity` or `abstain`: images to
        choose them on would have to be unknown to the earlier run.
    out, overwrite
        Folder of the run.
    accept
        As for `featstore.compare`.
    progress
        Show a bar on stderr while files are looked at.
    **source
        Which features: see `featstore.matrix.Source`.

    Raises
    ------
    AuditError
        If the split leaks, a side lacks a class, too few patients certify `abstain`, or a backbone was tuned on
        images that would be scored or, with `calibrate`, `sensitivity` or `abstain`, chosen on.
    UsageError
        If `options` names a parameter that the strategy does not have, or a value is out of range.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> fusion = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> fusion.strategy, fusion.sizes
    ('concat_logreg', {'train': 12, 'test': 4})
    >>> accuracy = fusion.scores["test"]["accuracy"]
    >>> 0 <= accuracy.value <= 1
    True
    """
    refuse_contradiction(
        init_from,
        freeze_blocks,
        calibrated=bool(calibrate or sensitivity),
        abstain=abstain,
        has_covariates=bool(source.get("covariates")),
    )
    candidates.require_asked_so([strategy], pooling := patients.require_unit(unit, pool))
    settings = candidates.resolve_options(strategy, preset, options or {})
    codes = [resolve(code) for code in accept]
    loaded = leakage.loaded_matrix(data, progress=progress, **source)
    cache = Path(source.get("cache") or default_cache())
    prepared = leakage.prepare(data, loaded, cache, codes, drops_seen=False, progress=progress)
    matrix, facts = prepared.matrix, prepared.facts
    earlier = None if init_from is None else read_previous_run(Path(init_from), strategy, matrix)
    if earlier is not None:
        settings = {**earlier.options(), **settings}
    chosen = metrics.positive_class(matrix.classes, positive)
    index = chosen.index
    units = patients.Units(matrix, None if pooling is None else patients.patients_of(matrix, pooling, index))
    splits, dropped = leakage.without_copies_of(matrix, hold_out(matrix, test_size, split_seed))
    leakage.require_unseen(matrix, splits, choosing=bool(calibrate or sensitivity or abstain))
    request = calibration.OperatingPointRequest(calibrate, sensitivity, index, confidence)
    candidate = Candidate(strategy, matrix.backbones, strategy)
    tested = {name: rows for name, rows in splits.items() if name != "train"}
    known = None if earlier is None else earlier.held_out(matrix, np.concatenate(list(tested.values())))

    def ask(model: Any, images: NDArray[np.intp]) -> NDArray[np.float64]:  # noqa: ANN401
        return candidates.predict_proba(model, matrix, images, candidate)

    require_memory(matrix, [candidate], [(splits["train"], splits["train"])])
    with candidates.blame_options(options or {}):
        unfitted = candidates.build(candidate, matrix, settings)
        validation = _validation(unfitted, matrix, splits)
        splits, part = _set_aside(matrix, splits, abstain, split_seed, validates=bool(validation))
        train = splits["train"]
        if earlier is None:
            model = candidates.fit_candidate(unfitted, matrix, train, candidate, **validation)
        else:
            model = unfitted.fine_tune(
                earlier.model,
                *candidates.training_rows(matrix, train, matrix.backbones),
                freeze=freeze_blocks,
                **validation,
            )
    point, image_point = _operating_point(units, matrix, candidate, settings, train, request, split_seed)
    raw = {name: ask(model, rows) for name, rows in tested.items()}
    scored = {name: units.rows(rows) for name, rows in tested.items()}
    pooled = {name: units.pooled(raw[name], rows) for name, rows in tested.items()}
    sets = _prediction_sets(
        matrix, splits, partial(ask, model), abstain, part, (pooling, index), (point, image_point)
    )
    unlike, unlike_kept = _unlike_training(matrix, splits, tested)
    proba = {name: point.calibrate(p) for name, p in pooled.items()}
    decisions = {name: point.decide(p) for name, p in proba.items()}
    guesses, answers = held_out_shortcuts(matrix, facts, train, tested, index, units.patients)
    told = [
        *data_findings(matrix, facts, draws_folds=False),
        *dropped,
        *(
            finding
            for name, rows in scored.items()
            if answers
            for finding in held_out_verdict(
                units.table, rows, strategy, proba[name], answers[name], guesses[name], index, name
            )
        ),
        *fusion_findings(
            matrix.classes,
            [
                ScoredImages(name, units.table.y[rows], decisions[name], units.table.groups[rows], units.noun)
                for name, rows in scored.items()
            ],
            chosen,
            has_groups=matrix.has_groups,
            at_edge=model.at_edge() if hasattr(model, "at_edge") else None,
        ),
    ]
    looks = take_look(cache, loaded.records, "fuse").looks
    result = Fusion(
        run=str(out),
        strategy=strategy,
        options=settings,
        matrix=runs.describe(matrix, index, chosen.origin),
        sizes={name: len(rows) for name, rows in splits.items()},
        operating=point.to_json(),
        scores={
            name: held_out_scores(units.table, scored[name], p, index, point.threshold)
            for name, p in proba.items()
        },
        curves={
            name: calibration.curves(
                units.table.y[rows], proba[name], decisions[name], index, units.table.groups[rows]
            )
            for name, rows in scored.items()
        },
        history=getattr(model, "history_", None),
        warm_start=None
        if earlier is None
        else WarmStart(
            run=str(init_from),
            frozen=tuple(freeze_blocks),
            held_out_then=known,
            changes=earlier.changes(units, tested, ask, pooled, index),
        ),
        shortcuts=guesses,
        singles=_single_networks(units, matrix, train, tested, pooled, index),
        findings=ordered(mark_accepted(told, codes)),
        looks=looks,
        unit="image" if units.patients is None else "group",
        pool=pooling,
        patients=_patients_by_split(units, splits),
        by_image={}
        if units.patients is None
        else {
            name: held_out_scores(
                matrix, rows, image_point.calibrate(raw[name]), index, image_point.threshold
            )
            for name, rows in tested.items()
        },
        abstention=sets,
        unlike=unlike,
    )
    document = result.to_json(examples=False)
    learned = leakage.training_images(
        matrix,
        np.concatenate([train, *(splits[name] for name in _known_splits(part, validation))]),
        None if earlier is None else earlier.training_images(),
        Path(source.get("cache") or default_cache()),
    )
    runs.clear(Path(out))
    save_strategy(
        Path(out) / runs.MODEL,
        model,
        {
            "classes": list(matrix.classes),
            "operating": result.operating,
            **({} if matrix.covariates is None else {"covariates": matrix.covariates.to_json()}),
            **({} if pooling is None else {"pool": pooling, "image_operating": image_point.to_json()}),
            **({} if sets is None else {"abstention": sets.rule.to_json()}),
            **unlike_kept,
        },
    )
    leakage.write_training_images(Path(out), learned)
    runs.write_run(
        Path(out),
        {
            "kind": "fuse",
            "asked": {
                "preset": preset,
                "options": dict(options or {}),
                "test_size": test_size,
                "split_seed": split_seed,
                "abstain": abstain,
                "accepted": codes,
            },
            **{k: document[k] for k in ("strategy", "options", "matrix", "sizes", "operating")},
            "looks": looks.to_json(),
        },
        document,
        _image_lines(matrix, splits, model, raw, image_point, data),
        patients=None
        if units.patients is None
        else patients_held_out(units.patients, tested, proba, decisions),
    )
    return result


SET_ASIDE = "calibration"
"""Training patients that only prediction sets are calibrated on."""


def _set_aside(
    matrix: FeatureMatrix,
    splits: dict[str, NDArray[np.intp]],
    alpha: float | None,
    seed: int,
    *,
    validates: bool,
) -> tuple[dict[str, NDArray[np.intp]], str | None]:
    """Splits, and the one that prediction sets are calibrated on, set aside of ``train`` where there is none."""
    if alpha is None:
        return splits, None
    if "val" in splits and not validates:
        return splits, "val"
    kept, aside = abstention.set_aside(matrix, splits["train"], alpha, seed)
    return {**splits, "train": kept, SET_ASIDE: aside}, SET_ASIDE


def _known_splits(part: str | None, validation: Mapping[str, Any]) -> set[str]:
    """Splits beside ``train`` from which a model, or what it keeps, has learned something."""
    return {name for name in (part, "val" if validation else None) if name is not None}


def _prediction_sets(
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
    ask: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    alpha: float | None,
    part: str | None,
    pooling: tuple[str | None, int | None],
    points: tuple[calibration.OperatingPoint, calibration.OperatingPoint],
) -> Abstention | None:
    """Calibrate prediction sets, for images and patients, and count what they do elsewhere; None if not asked for.

    Parameters
    ----------
    matrix, splits
        The images.
    ask
        What the model says of rows.
    alpha, part
        Error rate, and the split to calibrate on.
    pooling
        How images are pooled if patients are scored, and the positive class.
    points
        Operating point of patients, or of images where these are scored, and that of images.
    """
    if alpha is None or part is None:
        return None
    pool = pooling[0] or patients.MEAN_LOGIT
    units = patients.Units(matrix, patients.patients_unless_torn(matrix, pool, pooling[1]))
    point, image_point = points
    rows = {name: rows for name, rows in splits.items() if name != "train"}
    raw = {name: ask(images) for name, images in rows.items()}
    images = {name: (rows[name], image_point.calibrate(p)) for name, p in raw.items()}
    whole = (
        {}
        if units.patients is None
        else {
            name: (units.rows(rows[name]), point.calibrate(units.pooled(p, rows[name])))
            for name, p in raw.items()
        }
    )
    pooled = (units.table.y[whole[part][0]], whole[part][1]) if whole else None
    rule = abstention.calibrate_sets(matrix, *images[part], alpha, part, pool, pooled)
    return abstention.held_out_coverage(rule, units, images, whole)


def _unlike_training(
    matrix: FeatureMatrix, splits: Mapping[str, NDArray[np.intp]], tested: Collection[str]
) -> tuple[UnlikeTraining | None, dict[str, Any]]:
    """When an image is unlike those of training; and what the model keeps to tell."""
    blocks = [block for block in matrix.blocks if block.name != COVARIATES]
    networks, widths = [block.name for block in blocks], [block.stop - block.start for block in blocks]

    def vectors(rows: NDArray[np.intp]) -> NDArray[Any]:
        return matrix.rows(rows, networks, [0])

    train = abstention.at_most(splits["train"])
    rule = abstention.fit_unlike(vectors(train), matrix.groups[train], widths, has_patients=matrix.has_groups)
    if rule is None:
        return None, {}
    found = {name: (vectors(splits[name]), matrix.groups[splits[name]]) for name in tested}
    return abstention.held_out_unlike(rule, found), {"unlike": rule.to_json()}


def _patients_by_split(units: patients.Units, splits: Mapping[str, NDArray[np.intp]]) -> dict[str, int]:
    """Patients of each split, where they are scored."""
    if units.patients is None:
        return {}
    return {name: len(units.rows(rows)) for name, rows in splits.items()}


def _image_lines(
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
    model: Any,  # noqa: ANN401
    raw: Mapping[str, NDArray[np.float64]],
    point: calibration.OperatingPoint,
    data: str | Path | Manifest,
) -> Iterator[list[Any]]:
    """Lines of ``predictions.csv``, which is about images whatever is scored."""
    proba = {name: point.calibrate(p) for name, p in raw.items()}
    decisions = {name: point.decide(p) for name, p in proba.items()}
    votes = {}
    if hasattr(model, "votes"):
        votes = {name: model.votes(matrix.rows(splits[name], matrix.backbones, [0])) for name in raw}
    return held_out(matrix, splits, proba, decisions, votes, data)


def _single_networks(
    units: patients.Units,
    matrix: FeatureMatrix,
    train: NDArray[np.intp],
    tested: Mapping[str, NDArray[np.intp]],
    fused: Mapping[str, NDArray[np.float64]],
    positive: int | None,
) -> dict[str, tuple[SingleNetwork, ...]]:
    """Score each backbone alone on the same images, and what the fusion is more: paired, before any calibration."""
    if len(matrix.backbones) == 1:
        return {}
    alone = [Candidate(candidates.PROBE, (name,), name) for name in matrix.backbones]
    answers = candidates.fit_jointly(matrix, alone, train, np.concatenate(list(tested.values())))
    found, start = {}, 0
    for split, rows in tested.items():
        part = slice(start, start + len(rows))
        own = {c.label: units.pooled(p[part], rows) for c, p in zip(alone, answers, strict=True)}
        start += len(rows)
        scored = units.rows(rows)
        scores = held_out_primary(units.table, scored, own, positive)
        changes = {
            name: primary_change(units.table, scored, (p, fused[split]), positive) for name, p in own.items()
        }
        singles = [
            SingleNetwork(
                name=name, score=score, delta=changes[name].difference, interval=changes[name].interval
            )
            for name, score in scores.items()
        ]
        found[split] = tuple(sorted(singles, key=lambda one: -(one.score.value or 0.0)))
    return found


def primary_change(
    matrix: LabelledImages,
    rows: NDArray[np.intp],
    answers: tuple[NDArray[np.float64], NDArray[np.float64]],
    positive: int | None,
) -> MetricChange:
    """Primary metric of two answers to the same images or patients, and the paired difference of the second."""
    y, groups = matrix.y[rows], matrix.groups[rows]
    weights = np.vstack([np.ones((1, len(rows))), intervals.group_weights(groups)])
    classes = [positive] if positive is not None else range(answers[0].shape[1])
    scores = [metrics.primary_score(y, proba, weights, positive) for proba in answers]
    known = [
        intervals.ranking_sample_sizes([(y == c, proba[:, c]) for c in classes], groups)[metrics.PRIMARY]
        for proba in answers
    ]
    return _metric_change(metrics.PRIMARY, (scores[0], scores[1]), (known[0], known[1]))


def _validation(
    unfitted: Any,  # noqa: ANN401
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
) -> dict[str, Any]:
    """Plain rows of the split ``val``, for a network."""
    if "val" not in splits or not isinstance(unfitted, NeuralStrategy):
        return {}
    rows = splits["val"]
    return {"validation": (matrix.rows(rows, matrix.backbones, [0]), matrix.y[rows], matrix.groups[rows])}


def _operating_point(
    units: patients.Units,
    matrix: FeatureMatrix,
    candidate: Candidate,
    settings: Mapping[str, Any],
    train: NDArray[np.intp],
    request: calibration.OperatingPointRequest,
    seed: int,
) -> tuple[calibration.OperatingPoint, calibration.OperatingPoint]:
    """Fit once more for each fold within the training images, and choose on what these models had not seen.

    Returns
    -------
    The operating point of what is scored, and that of images: the same where images are.
    """
    if request.is_none:
        return calibration.NEUTRAL, calibration.NEUTRAL
    folds = inner_folds(
        matrix, train, calibration.INNER_FOLDS, seed, needed_by="--calibrate and --sensitivity"
    )
    models = [
        candidates.fit_candidate(candidates.build(candidate, matrix, settings), matrix, rest, candidate)
        for rest, _ in folds
    ]
    tests = [test for _, test in folds]
    proba = [
        candidates.predict_proba(model, matrix, test, candidate)
        for model, test in zip(models, tests, strict=True)
    ]
    chosen = []
    for part in (units, patients.Units(matrix))[: 1 if units.patients is None else 2]:
        rows = np.concatenate([part.rows(test) for test in tests])
        pooled = [part.pooled(p, test) for p, test in zip(proba, tests, strict=True)]
        chosen.append(
            calibration.fit_operating_point(
                part.table.y[rows], np.concatenate(pooled), request, part.table.groups[rows]
            )
        )
    return chosen[0], chosen[-1]


# Going on from the weights of an earlier run: what both must share, and what it changed.


@dataclass(frozen=True, slots=True, eq=False)
class PreviousRun:
    """A fitted network, and what its run says of itself."""

    folder: Path
    model: NeuralStrategy
    document: Mapping[str, Any]

    def options(self) -> dict[str, Any]:
        """Parameters to go on with: the same, but at a rate of its own."""
        params: dict[str, Any] = self.model.get_params(deep=False)
        return {key: value for key, value in params.items() if key not in {"blocks", "learning_rate"}}

    def training_images(self) -> KnownImages:
        """What it has learned from, as far as it says so."""
        found = leakage.read_training_images(self.folder, self.document)
        return KnownImages(is_complete=False) if found is None else found

    def held_out(self, matrix: FeatureMatrix, rows: NDArray[np.intp]) -> bool | None:
        """Whether it held out these images, None if it saw another table.

        Raises
        ------
        UsageError
            If it saw this table, and was trained on some of them.
        """
        if self.document["matrix"]["data_sha256"] != runs.data_digest(matrix.records):
            return None
        runs.require_verified(self.folder, self.document, runs.PREDICTIONS)
        with (self.folder / runs.PREDICTIONS).open(encoding="utf-8", newline="") as lines:
            known = {line["image_id"] for line in csv.DictReader(lines)}
        seen = sum(matrix.records[row].id not in known for row in rows)
        if seen:
            raise UsageError(
                f"{self.folder} was trained on {seen} of the {len(rows)} images held out here.",
                "Give the --test-size and --split-seed of that run.",
            )
        return True

    def changes(
        self,
        units: patients.Units,
        tested: Mapping[str, NDArray[np.intp]],
        ask: Callable[[NeuralStrategy, NDArray[np.intp]], NDArray[np.float64]],
        after: Mapping[str, NDArray[np.float64]],
        positive: int | None,
    ) -> dict[str, dict[str, MetricChange]]:
        """By split and metric, from its own answers to `ask` to the probabilities `after` of what is scored."""
        found = {}
        for name, images in tested.items():
            rows = units.rows(images)
            y, groups = units.table.y[rows], units.table.groups[rows]
            weights = np.vstack([np.ones((1, len(rows))), intervals.group_weights(groups)])
            both = units.pooled(ask(self.model, images), images), after[name]
            old, new = (metrics.score(y, p, weights, positive) for p in both)
            first, last = (
                intervals.sample_sizes(y, p, metrics.decide(p, positive), groups, positive) for p in both
            )
            found[name] = {
                metric: _metric_change(metric, (old[metric], new[metric]), (first[metric], last[metric]))
                for metric in new
            }
            if len(rows) < metrics.ENOUGH_IMAGES:
                found[name]["ece"] = MetricChange(before=None, after=None, difference=None, interval=None)
        return found


def refuse_contradiction(
    init_from: str | Path | None,
    freeze_blocks: Sequence[str],
    *,
    calibrated: bool,
    abstain: float | None = None,
    has_covariates: bool,
) -> None:
    """Make sure that the options of a fine-tuning can be meant together, and that an error rate is one.

    Raises
    ------
    UsageError
        If they cannot, or it is none.
    """
    if freeze_blocks and init_from is None:
        raise UsageError("There are no earlier weights to freeze.", "Add --init-from RUN.")
    if calibrated and init_from is not None:
        raise UsageError(
            "A fine-tuned model cannot be calibrated: the earlier one may know the images to calibrate on.",
            "Leave out --calibrate and --sensitivity.",
        )
    abstention.require_alpha(abstain)
    if abstain is not None and init_from is not None:
        raise UsageError(
            "A fine-tuned model cannot be calibrated to abstain: the earlier one may know the patients to do so on.",
            "Leave out --abstain.",
        )
    if has_covariates and init_from is not None:
        raise UsageError(
            "A run with covariates cannot go on from earlier weights.",
            "Leave out --init-from or --covariates.",
        )


def read_previous_run(folder: Path, strategy: str, matrix: FeatureMatrix) -> PreviousRun:
    """Read the network of a run, if `matrix` holds what it was fitted on.

    Raises
    ------
    RunError
        If there is no model, or it is damaged.
    UsageError
        If it is another strategy, no network, or one of other features or classes.
    """
    document = runs.read_run(folder)
    if document.get("kind") != "fuse":
        raise RunError(f"{folder} holds no model.", "Give a run of `featstore fuse`.")
    if document["strategy"] != strategy:
        raise UsageError(
            f"{folder} holds {document['strategy']}, not {strategy}.",
            f"Add --strategy {document['strategy']}.",
        )
    runs.require_verified(folder, document, runs.MODEL_STATE)
    model, extra = load_strategy(folder / runs.MODEL)
    if not isinstance(model, NeuralStrategy):
        raise UsageError(
            f"{strategy} has no weights to go on from.",
            "Use concat_head, concat_mlp, gated_head, bilinear_head or attention_pooling.",
        )
    theirs, ours = document["matrix"]["backbones"], _plain(runs.describe(matrix, None)["backbones"])
    if theirs != ours:
        raise UsageError(
            f"{folder} was fitted on {_names(theirs)}, these features are {_names(ours)}"
            f"{' with other weights or preprocessing' if _names(theirs) == _names(ours) else ''}.",
            "Give the same --backbones, --weights, --preprocess and --precision.",
        )
    if extra.get("classes") != list(matrix.classes):
        raise UsageError(
            f"{folder} knows other classes: {', '.join(extra.get('classes', []))}.",
            "Fine-tune with the same classes.",
        )
    return PreviousRun(folder, model, document)


def _metric_change(
    name: str,
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    around: tuple[intervals.SampleSize | None, intervals.SampleSize | None],
) -> MetricChange:
    before, after = float(scores[0][0]), float(scores[1][0])
    if not np.isfinite(after - before):
        return MetricChange(before=None, after=None, difference=None, interval=None)
    interval = intervals.difference_interval(
        (before, after), (scores[0][1:], scores[1][1:]), around, bounded=metrics.metrics()[name].bounded
    )
    return MetricChange(before=before, after=after, difference=after - before, interval=interval)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def _names(specs: Sequence[Mapping[str, Any]]) -> str:
    return "+".join(str(spec["name"]) for spec in specs)
