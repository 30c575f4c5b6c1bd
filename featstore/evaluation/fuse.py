"""`fuse`: train one strategy, score it on images it has not seen, and keep the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import run
from featstore.bars import showing_bars
from featstore.evaluation.contestants import Contestant, build, fit, predict_proba
from featstore.evaluation.continuation import Continuation, read_earlier, refuse_contradiction
from featstore.evaluation.copies import merge_copies, without_copies_of
from featstore.evaluation.curves import curves
from featstore.evaluation.data_findings import data_findings, held_out_verdict, shortcut_scores
from featstore.evaluation.findings import Answered, fusion_findings
from featstore.evaluation.innocence import require_unknown
from featstore.evaluation.operating import INNER_FOLDS, NEUTRAL, OperatingPoint, Wish, choose
from featstore.evaluation.positive import positive_class
from featstore.evaluation.predictions import held_out
from featstore.evaluation.scores import Score, held_out_scores
from featstore.evaluation.settings import blamed_on, gather
from featstore.evaluation.training_images import training_images, write_training_images
from featstore.evaluation.views import training_rows
from featstore.extraction.facts import image_facts
from featstore.findings import mark_accepted, ordered, resolve
from featstore.folds import hold_out, inner_folds
from featstore.fusion.bundle import write_bundle
from featstore.fusion.neural import NeuralStrategy
from featstore.matrix import Source, load_matrix
from featstore.signatures import public
from featstore.store.store import default_cache

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.findings import Finding
    from featstore.images.manifest import Manifest
    from featstore.matrix import FeatureMatrix


@dataclass(frozen=True, slots=True)
class Fusion:
    """Outcome of a fit.

    Attributes
    ----------
    run
        Folder that holds the model, predictions and metrics.
    strategy, options
        What was fitted.
    matrix
        What it was fitted on, as a plain dict.
    sizes
        Images by split; the model is fitted on ``train`` only.
    operating
        Calibration and threshold, as plain dict; both None where none were asked for.
    scores
        By evaluated split and metric, on the identity view, at the operating point.
    curves
        By evaluated split: decision, calibration and risk-coverage curve, and how well probabilities are calibrated.
    history
        Learning curves by epoch, for strategies that have them.
    continuation
        What it was fine-tuned from, before and after; None for a fit from scratch.
    shortcuts
        By evaluated split: scores of guesses that need no network, as `scores`.
    findings
        What a reader of the scores must know, the gravest first.
    """

    run: str
    strategy: str
    options: Mapping[str, Any]
    matrix: Mapping[str, Any]
    sizes: Mapping[str, int]
    operating: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, Score]]
    curves: Mapping[str, Any]
    history: Mapping[str, Sequence[float]] | None
    continuation: Continuation | None = None
    shortcuts: Mapping[str, Mapping[str, Mapping[str, Score]]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def to_json(self, *, examples: bool = True) -> dict[str, Any]:
        """Plain dict for ``--json`` and, without the examples of findings, which name files, ``metrics.json``."""
        return {**asdict(self), "findings": [finding.to_json(examples=examples) for finding in self.findings]}


@public
@run.writes_run
def fuse(
    data: str | Path | Manifest,
    *,
    strategy: str = "concat_logreg",
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    test_size: float = 0.25,
    split_seed: int = 0,
    positive: str | None = None,
    calibrate: str | None = None,
    sensitivity: float | None = None,
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
    positive
        As for `featstore.compare`.
    calibrate, sensitivity
        As for `featstore.compare`; chosen on out-of-fold probabilities of the training images, kept with the model,
        and used by `featstore.predict`.
    init_from, freeze_blocks
        Run of the same strategy, features and classes whose weights to go on from, at a tenth of its learning rate
        unless `options` has one, and its other settings unless `preset` or `options` say otherwise; and names of
        backbones whose input weights stay. Not together with `calibrate` or `sensitivity`: images to choose them on
        would have to be unknown to the earlier run.
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
        If the split leaks, a side lacks a class, or a backbone was tuned on images that would be scored or, with
        `calibrate` or `sensitivity`, chosen on.
    UsageError
        If `options` names a parameter that the strategy does not have, or a value is out of range.
    """
    refuse_contradiction(init_from, freeze_blocks, calibrated=bool(calibrate or sensitivity))
    settings = gather(strategy, preset, options or {})
    codes = [resolve(code) for code in accept]
    with showing_bars(wanted=progress):
        matrix = load_matrix(data, **source)
    cache = Path(source.get("cache") or default_cache())
    facts = image_facts(matrix.records, matrix.decoding, cache, progress=progress)
    matrix = merge_copies(matrix, facts, cache, codes, progress=progress)
    earlier = None if init_from is None else read_earlier(Path(init_from), strategy, matrix)
    if earlier is not None:
        settings = {**earlier.options(), **settings}
    chosen = positive_class(matrix.classes, positive)
    index = chosen.index
    splits, dropped = without_copies_of(matrix, hold_out(matrix, test_size, split_seed))
    require_unknown(matrix, splits, choosing=bool(calibrate or sensitivity))
    wish = Wish(calibrate, sensitivity, index)
    contestant = Contestant(strategy, matrix.backbones, strategy)
    tested = {name: rows for name, rows in splits.items() if name != "train"}
    known = None if earlier is None else earlier.held_out(matrix, np.concatenate(list(tested.values())))

    def ask(model: Any, images: NDArray[np.intp]) -> NDArray[np.float64]:  # noqa: ANN401
        return predict_proba(model, matrix, images, contestant)

    train = splits["train"]
    with blamed_on(options or {}):
        unfitted = build(contestant, matrix, settings)
        validation = _validation(unfitted, matrix, splits)
        if earlier is None:
            model = fit(unfitted, matrix, train, contestant, **validation)
        else:
            rows = training_rows(matrix, train, matrix.backbones)
            model = unfitted.fine_tune(earlier.model, *rows, freeze=freeze_blocks, **validation)
    point = _operating_point(matrix, contestant, settings, train, wish, split_seed)
    raw = {name: ask(model, rows) for name, rows in tested.items()}
    proba = {name: point.calibrate(p) for name, p in raw.items()}
    decisions = {name: point.decide(p) for name, p in proba.items()}
    votes = {}
    if hasattr(model, "votes"):
        votes = {name: model.votes(matrix.rows(rows, matrix.backbones, [0])) for name, rows in tested.items()}
    guesses, answers = shortcut_scores(matrix, facts, train, tested, index)
    told = [
        *data_findings(matrix, facts, draws_folds=False),
        *dropped,
        *(
            finding
            for name, rows in tested.items()
            if answers
            for finding in held_out_verdict(
                matrix, rows, strategy, proba[name], answers[name], guesses[name], index
            )
        ),
        *fusion_findings(
            matrix.classes,
            [
                Answered(name, matrix.y[rows], decisions[name], matrix.groups[rows])
                for name, rows in tested.items()
            ],
            chosen,
            has_groups=matrix.has_groups,
        ),
    ]
    result = Fusion(
        run=str(out),
        strategy=strategy,
        options=settings,
        matrix={**run.describe(matrix, index), "positive_origin": chosen.origin},
        sizes={name: len(rows) for name, rows in splits.items()},
        operating=point.to_json(),
        scores={
            name: held_out_scores(matrix, splits[name], p, index, point.threshold)
            for name, p in proba.items()
        },
        curves={
            name: curves(matrix.y[rows], proba[name], decisions[name], index, matrix.groups[rows])
            for name, rows in tested.items()
        },
        history=getattr(model, "history_", None),
        continuation=None
        if earlier is None
        else Continuation(
            str(init_from), tuple(freeze_blocks), known, earlier.changes(matrix, tested, ask, raw, index)
        ),
        shortcuts=guesses,
        findings=ordered(mark_accepted(told, codes)),
    )
    document = result.to_json(examples=False)
    learned = training_images(
        matrix,
        np.concatenate([train, splits["val"]]) if validation else train,
        None if earlier is None else earlier.learned(),
        Path(source.get("cache") or default_cache()),
    )
    run.clear(Path(out))
    write_bundle(
        Path(out) / run.MODEL, model, {"classes": list(matrix.classes), "operating": result.operating}
    )
    write_training_images(Path(out), learned)
    run.write_run(
        Path(out),
        {
            "kind": "fuse",
            "asked": {
                "preset": preset,
                "options": dict(options or {}),
                "test_size": test_size,
                "split_seed": split_seed,
                "accepted": codes,
            },
            **{k: document[k] for k in ("strategy", "options", "matrix", "sizes", "operating")},
        },
        document,
        held_out(matrix, splits, proba, decisions, votes, data),
    )
    return result


def _validation(
    unfitted: Any,  # noqa: ANN401
    matrix: FeatureMatrix,
    splits: Mapping[str, NDArray[np.intp]],
) -> dict[str, Any]:
    """Plain rows of the split ``val``, for a network."""
    if "val" not in splits or not isinstance(unfitted, NeuralStrategy):
        return {}
    rows = splits["val"]
    return {"validation": (matrix.rows(rows, matrix.backbones, [0]), matrix.y[rows])}


def _operating_point(
    matrix: FeatureMatrix,
    contestant: Contestant,
    settings: Mapping[str, Any],
    train: NDArray[np.intp],
    wish: Wish,
    seed: int,
) -> OperatingPoint:
    """Fit once more for each fold within the training images, and choose on what these models had not seen."""
    if wish.is_none:
        return NEUTRAL
    folds = inner_folds(matrix, train, INNER_FOLDS, seed, needed_by="--calibrate and --sensitivity")
    models = [fit(build(contestant, matrix, settings), matrix, rest, contestant) for rest, _ in folds]
    tests = [test for _, test in folds]
    proba = [
        predict_proba(model, matrix, test, contestant) for model, test in zip(models, tests, strict=True)
    ]
    return choose(matrix.y[np.concatenate(tests)], np.concatenate(proba), wish)
