"""`predict`: apply a kept model to new images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np

from featstore import runs
from featstore.arguments import public
from featstore.backbones.weights import find_weights
from featstore.covariates import CovariateEncoding, require_covariates
from featstore.errors import BadImageError, ManifestError, RunError, UsageError
from featstore.evaluation.abstention import UnlikeRule, prediction_sets, read_rule, read_unlike
from featstore.evaluation.calibration import OperatingPoint, read_operating_point
from featstore.evaluation.candidates import asked_about_patients
from featstore.evaluation.estimates import AnsweredUnits, held_out_scores
from featstore.evaluation.leakage import read_training_images
from featstore.evaluation.patients import MEAN_LOGIT, is_pool, pool_images
from featstore.extraction.networks import require_computable, training_records
from featstore.extraction.pipeline import embed_images
from featstore.findings import Finding, ordered
from featstore.fusion.model_io import load_strategy
from featstore.fusion.strategy import PatientStrategy
from featstore.image_facts import WAYS, recognise, seen_finding
from featstore.images import manifest
from featstore.images.csv import TABLES, list_csv
from featstore.images.folder import is_clutter
from featstore.images.formats.container import HEAD, raster_format, suffixes
from featstore.images.formats.npz import ARRAYS, read_table
from featstore.images.names import merged_groups
from featstore.images.reading import REASONS, pixel_digest_of, read_pixels
from featstore.images.scan import TABLE_OPTIONS, ScanOptions, refuse_unknown_options
from featstore.results.fusion import MeanOfPages, PatientPrediction, Prediction, Predictions
from featstore.serialization import open_regular, write_private
from featstore.store.paths import require_writable
from featstore.store.store import Store
from featstore.store.training_record import save_training_record
from featstore.types import COVARIATES, Decoding, FeatureKey, ImageRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.fusion.strategy import FusionStrategy
    from featstore.image_facts import Way
    from featstore.images.formats.npz import PageTable
    from featstore.results.fusion import ConformalRule
    from featstore.results.scores import Score
    from featstore.store.notes import BadImage
    from featstore.store.training_record import KnownImages, TrainingRecord
    from featstore.types import Features


# The model of a run, and its predictions

MODEL = "the model"
UNDECLARED = (
    "The run knows no range of values: give 8-bit images, or make it anew from `featstore extract DATA"
    " --range LOW,HIGH`."
)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model of a run folder, and what is needed to use it.

    `training_images` is what it has learned from; None for a run of an earlier featstore, which does not say.
    `positive` is the class that the run calls so, if it does. `pool` is how images become a patient's answer, at
    `patient_point`; None where the operating point was chosen for images. `sets` and `unlike` are what it keeps to
    abstain by; None in a run without. `of_hospitals` tells a model that was made of files of several hospitals.
    """

    folder: Path
    strategy: FusionStrategy
    classes: tuple[str, ...]
    point: OperatingPoint
    keys: tuple[FeatureKey, ...]
    training_images: KnownImages | None
    positive: str | None = None
    covariates: CovariateEncoding | None = None
    pool: str = MEAN_LOGIT
    patient_point: OperatingPoint | None = None
    sets: ConformalRule | None = None
    unlike: UnlikeRule | None = None
    of_hospitals: bool = False

    @property
    def pooling_point(self) -> OperatingPoint:
        """At what operating point patients are answered: their own, else that of images."""
        return self.patient_point or self.point

    @property
    def decoding(self) -> Decoding:
        """How pixels are made."""
        return self.keys[0].decoding


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A prediction with everything checked that can be before a network is loaded.

    Attributes
    ----------
    model, images
        What answers, and what is asked about.
    weights
        Where the weights are, by backbone.
    seen
        How images are recognised that the model or its backbones have learned from, by name and image id.
    findings
        What should be said before anything is computed.
    tuned
        What tuned backbones have learned from, by name.
    """

    model: Model
    images: NewImages
    weights: Mapping[str, str]
    seen: Mapping[str, Mapping[str, Way]]
    findings: tuple[Finding, ...]
    tuned: Mapping[str, TrainingRecord] = field(default_factory=dict)


@public
def predict(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    **reading: Unpack[ScanOptions],
) -> Predictions:
    """Apply the model of a run to new images: an answer per image or page, and per patient where these are known.

    Parameters
    ----------
    folder
        Run of `featstore.fuse`.
    images
        An image file, a folder (walked at any depth), a CSV file with a column ``path``, a pattern such as
        ``scans/**/*.png``, or several of these. Labels of a CSV file are shown beside the answers and counted.
    weights
        Where the backbones' weights are now, as for `featstore.extract`; their digests must be the run's. Those in
        Keras' cache or in a run beside this one are found, and random ones drawn again, without being named.
    cache
        Folder of a store: vectors that are there are not computed again, and new ones are kept as they come, so that
        what was interrupted goes on. None keeps nothing of the new images.
    out
        Write all answers to this ``.json`` file, or ``.csv``, with those for patients in ``NAME-patients.csv`` beside
        it, readable for the owner alone; None writes nothing.
    overwrite
        Replace the files of `out`.
    **reading
        How a CSV file is read, and how a path names the patient, so that patients who were in training are
        recognised: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    RunError
        If the folder holds no model, or the disk refuses.
    UsageError
        If nothing that was given is an image, or `out` is no table or is there already.
    WeightsError
        If the weights that the model was fitted with are not here.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> answers = featstore.predict("runs/fuse", data)
    >>> len(answers.predictions), sorted(answers.predictions[0].probability)
    (16, ['covid', 'normal'])
    >>> answers.counts  # not of those that the model was fitted on
    Counts(labelled=4, right=..., seen=12)
    >>> len(answers.patients)  # of which one image each was asked about
    16
    """
    table = None if out is None else Path(out)
    if table is not None:
        refuse_unwritable(table, overwrite=overwrite)
    result = predict_prepared(prepare(folder, images, weights=weights, **reading), cache)
    if table is not None:
        write_table(table, result)
    return result


def prepare(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Mapping[str, str] | None = None,
    **reading: Unpack[ScanOptions],
) -> Prepared:
    """Check everything that can be checked without loading a network; arguments are those of `predict`."""
    refuse_unknown_options(reading)
    return prepare_model(read_model(Path(folder)), images, weights=weights, **reading)


def prepare_model(
    model: Model,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Mapping[str, str] | None = None,
    **reading: Unpack[ScanOptions],
) -> Prepared:
    """Do what `prepare` does, for a model that has been read."""
    if model.covariates is not None:
        reading["covariates"] = [column.name for column in model.covariates.columns]
    elif reading.get("covariates"):
        raise UsageError("The model has no covariates.", "Leave out --covariates.")
    asked = _find_with_covariates(model, images, reading)
    if model.covariates is not None:
        require_covariates(model.covariates, asked.records)
    found = find_all_weights(model, weights or {})
    if not any(pixel_digest_of(record, model.decoding) for record in asked.records):
        raise _undecodable(asked.records, model.decoding)
    tuned = training_records([key.backbone for key in model.keys], found)
    known = {name: record.known for name, record in tuned.items()}
    if model.training_images is not None:
        known[MODEL] = model.training_images
    seen = recognise(asked.records, known, model.decoding)
    met = [seen_finding(name[:1].upper() + name[1:], asked.records, ways) for name, ways in seen.items()]
    findings = [*asked.findings, *(finding for finding in met if finding), *_label_findings(model, asked)]
    if model.covariates is not None and (lacking := model.covariates.missing(asked.records)):
        findings.append(lacking)
    if model.training_images is None or not model.training_images.is_complete:
        findings.append(_training_unknown(model))
    return Prepared(model, asked, found, seen, ordered(findings), tuned)


def _training_unknown(model: Model) -> Finding:
    if not model.of_hospitals:
        return Finding("FS409", "The run does not tell all images that its model has learned from.")
    return Finding(
        "FS409",
        "The model is of several hospitals, whose files do not tell the images that it has learned from.",
        remedy="Ask it about patients alone whom no hospital trained on, such as those of its split test.",
    )


def _find_with_covariates(
    model: Model, images: str | Path | Sequence[str | Path], reading: ScanOptions
) -> NewImages:
    """Images that are meant; of a table that lacks a covariate of the model, the columns that it needs are said."""
    try:
        return find_images(images, model.classes, **reading)
    except ManifestError as error:
        names = reading.get("covariates") or ()
        if model.covariates is None or not any(f"no column {name!r}" in error.cause for name in names):
            raise
        raise ManifestError(
            f"The model asks for {', '.join(names)}: {error.cause}",
            f"Give a CSV file with the columns path,{','.join(names)}.",
        ) from error


def predict_prepared(prepared: Prepared, cache: str | Path | None = None) -> Predictions:
    """Load the networks, as far as the cache lacks vectors, and let the model answer."""
    keys, store = prepared.model.keys, None if cache is None else Store(Path(cache))
    if store is not None:
        require_writable(store.root)
        for key in keys:  # before their first vector: it must never be lacking
            if key.backbone.name in prepared.tuned:
                save_training_record(store.root, key.backbone, prepared.tuned[key.backbone.name])
    features, bad = embed_images(prepared.images.records, keys, prepared.weights, store=store)
    return answer(prepared, features, bad)


def answer(prepared: Prepared, features: Mapping[str, Features], bad: Mapping[str, BadImage]) -> Predictions:
    """What the model says of vectors ``(columns,)`` by image id; `bad` are the images that have none."""
    model, asked = prepared.model, prepared.images
    records = [record for record in asked.records if record.id in features]
    distances = _distances(model, records, features)
    if model.covariates is not None:
        beside = require_covariates(model.covariates, records)
        features = {image: np.concatenate([features[image], beside[image]]) for image in beside}
    said = _model_answers(model, records, features)
    answers = _predictions(prepared, records, features, said, distances)
    patients = tuple(_patients(model, _named_patients(records), said, answers))
    return Predictions(
        run=str(model.folder),
        operating=model.point.to_json(),
        classes=model.classes,
        predictions=tuple(answers),
        patients=patients,
        without_patient=sum(not record.group for record in records) if len(records) > 1 else 0,
        pool=model.pool,
        patient_operating=model.pooling_point.to_json(),
        chosen_for_patients=model.patient_point is not None,
        alpha=None if model.sets is None else model.sets.alpha,
        unlike=None if model.unlike is None else model.unlike.about,
        scores=_scores(model, answers, [record.group or record.id for record in records], patients),
        files=tuple(_means(prepared, records, features)),
        bad=tuple(
            (str(path), reason, detail)
            for path, reason, detail in (
                *asked.bad,
                *((r.path, bad[r.id].reason, bad[r.id].detail) for r in asked.records if r.id in bad),
            )
        ),
        skipped=asked.skipped,
        findings=prepared.findings,
    )


def read_model(folder: Path) -> Model:
    """Read the model of a run folder.

    Raises
    ------
    RunError
        If there is none, or it is damaged.
    """
    document = runs.read_run(folder)
    if document.get("kind") not in {"fuse", "merged"}:
        raise RunError(f"{folder} holds no model.", "Give a run of `featstore fuse`.")
    runs.require_verified(folder, document, runs.MODEL_STATE)
    strategy, extra = load_strategy(folder / runs.MODEL)
    classes = _classes(extra, strategy)
    point = read_operating_point(extra.get("image_operating", extra.get("operating")), len(classes))
    pool = extra.get("pool")
    if pool is not None and not (isinstance(pool, str) and is_pool(pool)):
        raise RunError("The model does not say how the images of a patient become one answer.", runs.REMEDY)
    keys = [key for key in runs.keys_of(document) if key.backbone.name != COVARIATES]
    beside = CovariateEncoding.from_json(extra["covariates"]) if extra.get("covariates") else None
    widths = [*(key.backbone.dimension for key in keys), *([] if beside is None else [len(beside.names)])]
    if not keys or sum(widths) != strategy.n_features_in_:
        raise RunError("The model was not fitted on the features that run.json names.", runs.REMEDY)
    positive = document.get("matrix", {}).get("positive")
    return Model(
        folder,
        strategy,
        classes,
        point,
        tuple(keys),
        read_training_images(folder, document),
        positive if positive in classes else None,
        beside,
        pool or MEAN_LOGIT,
        None if pool is None else read_operating_point(extra.get("operating"), len(classes)),
        read_rule(extra.get("abstention"), len(classes)),
        read_unlike(extra.get("unlike"), sum(key.backbone.dimension for key in keys)),
        of_hospitals=document["kind"] == "merged",
    )


def find_all_weights(model: Model, weights: Mapping[str, str]) -> dict[str, str]:
    """Choice by backbone that gives the digests of the model's keys."""
    names = [key.backbone.name for key in model.keys]
    if strange := [name for name in weights if name not in {*names, "*"}]:
        raise UsageError(
            f"--weights names {strange[0]}, and the model does without it.",
            f"The backbones of this run are {', '.join(names)}.",
        )
    for key in model.keys:
        require_computable(key.backbone)
    return {key.backbone.name: find_weights(key.backbone, weights, _beside(model)) for key in model.keys}


def _beside(model: Model) -> list[Path]:
    """Folders in which `featstore.finetune` may have left weights: the runs beside this one."""
    try:
        return [path for path in sorted(model.folder.absolute().parent.iterdir()) if path.is_dir()]
    except OSError:
        return []


def _undecodable(records: Sequence[ImageRecord], decoding: Decoding) -> UsageError:
    try:
        read_pixels(records[0], decoding)
    except BadImageError as error:
        reason, detail = error.reason, error.detail
    else:
        reason, detail = "unreadable", "the file changed"
    head = (
        f"None of the {len(records)} images can be decoded, for example"
        if len(records) > 1
        else "Undecodable:"
    )
    return UsageError(
        f"{head} {str(records[0].path)!r}: {reason} ({detail})",
        UNDECLARED if reason == "needs_range" else REASONS.get(reason, "Give other images."),
    )


def _label_findings(model: Model, asked: NewImages) -> list[Finding]:
    strange = [record for record in asked.records if record.label and record.label not in model.classes]
    if not strange:
        return []
    message = (
        f"{len(strange)} images have labels that are no classes of the model ({', '.join(model.classes)})."
    )
    examples = tuple(f"{record.path}: {record.label}" for record in strange)
    return [Finding("FS410", message, len(strange), examples)]


def _distances(
    model: Model, records: Sequence[ImageRecord], features: Mapping[str, Features]
) -> list[float | None]:
    """How far each image is from those of training, over the largest distance that is usual."""
    if model.unlike is None or not records:
        return [None] * len(records)
    found: list[float | None] = [
        *map(float, model.unlike.ratios(np.array([features[record.id] for record in records])))
    ]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _ModelAnswers:
    """What a model says of images, before calibration.

    Attributes
    ----------
    proba
        ``(images, classes)``; of a `PatientStrategy` those of the patient, at each of the patient's images.
    weights
        ``(images,)`` share in the answer of its patient, of a `PatientStrategy`; None of any other.
    """

    proba: NDArray[np.float64]
    weights: NDArray[np.float64] | None


def _model_answers(
    model: Model, records: Sequence[ImageRecord], features: Mapping[str, Features]
) -> _ModelAnswers:
    """Ask the model about images; a picture that is in two files of a patient is one picture to it."""
    if not records:
        return _ModelAnswers(np.empty((0, len(model.classes))), None)
    X = np.array([features[record.id] for record in records])
    if not isinstance(model.strategy, PatientStrategy):
        return _ModelAnswers(np.asarray(model.strategy.predict_proba(X), np.float64), None)
    pictures = {(record.group or record.id, record.id): at for at, record in enumerate(records)}
    rows = list(pictures.values())
    groups = [group for group, _ in pictures]
    place = {picture: at for at, picture in enumerate(pictures)}
    back = [place[record.group or record.id, record.id] for record in records]
    return _ModelAnswers(
        model.strategy.predict_patients(X[rows], groups)[back],
        model.strategy.image_weights(X[rows], groups)[back],
    )


def _named_patients(records: Sequence[ImageRecord]) -> dict[str, list[int]]:
    """Positions of the images of each patient, sorted by name; a single image is a patient of its own."""
    if len(records) == 1 and not records[0].group:
        return {str(records[0].path): [0]}
    named: dict[str, dict[str, int]] = {}
    for at, record in enumerate(records):
        if record.group:
            named.setdefault(record.group, {}).setdefault(
                record.id, at
            )  # one picture in two files counts once
    return {name: list(images.values()) for name, images in sorted(named.items())}


def _patients(
    model: Model,
    named: Mapping[str, Sequence[int]],
    said: _ModelAnswers,
    answers: Sequence[Prediction],
) -> Iterator[PatientPrediction]:
    """One answer per patient, pooled as the run pools, at the operating point that it has for patients."""
    if not named:
        return
    rows = [at for part in named.values() for at in part]
    numbers = np.repeat(np.arange(len(named)), [len(part) for part in named.values()])
    positive = None if model.positive is None else model.classes.index(model.positive)
    proba = model.pooling_point.calibrate(pool_images(said.proba[rows], numbers, model.pool, positive))
    chosen = model.pooling_point.decide(proba)
    for (name, part), p, label, held in zip(
        named.items(), proba, chosen, _sets(model, proba, None if model.sets is None else model.sets.by_patient),
        strict=True,
    ):  # fmt: skip
        images = [answers[at] for at in part]
        labels, ways = {image.given for image in images}, {image.in_training for image in images}
        yield PatientPrediction(
            patient=name,
            images=len(part),
            label=model.classes[int(label)],
            probability=dict(zip(model.classes, p.tolist(), strict=True)),
            given=next(iter(labels)) if len(labels) == 1 else None,
            in_training=next((way for way in WAYS.values() if way in ways), None),
            is_new=all(image.is_new for image in images),
            prediction_set=held,
            unlike=sum(image.is_unlike for image in images),
        )


def _scores(
    model: Model,
    images: Sequence[Prediction],
    groups: Sequence[str],
    patients: Sequence[PatientPrediction],
) -> dict[str, dict[str, Score]]:
    """Every metric, by unit, of the answers to what has a label and was not in training."""
    positive = None if model.positive is None else model.classes.index(model.positive)
    found = {}
    units: tuple[tuple[str, Sequence[Any], Sequence[str], OperatingPoint], ...] = (
        ("image", images, groups, model.point),
        ("patient", patients, [one.patient for one in patients], model.pooling_point),
    )
    for unit, answers, who, point in units:
        new = [at for at, one in enumerate(answers) if one.given in model.classes and one.is_new]
        if len({who[at] for at in new}) < 2:  # noqa: PLR2004
            continue
        y = np.array([model.classes.index(answers[at].given) for at in new], np.intp)
        table = AnsweredUnits(model.classes, y, np.array([who[at] for at in new]))
        proba = np.array([[answers[at].probability[name] for name in model.classes] for at in new])
        found[unit] = held_out_scores(table, np.arange(len(new)), proba, positive, point.threshold)
    return found


def _sets(
    model: Model, proba: NDArray[np.float64], thresholds: Sequence[float] | None
) -> list[tuple[str, ...] | None]:
    """Classes that the prediction set of each row holds; None of a model without sets."""
    if thresholds is None:
        return [None] * len(proba)
    return [
        tuple(name for name, held in zip(model.classes, row, strict=True) if held)
        for row in prediction_sets(proba, thresholds).tolist()
    ]


def _predictions(
    prepared: Prepared,
    records: Sequence[ImageRecord],
    features: Mapping[str, Features],
    said: _ModelAnswers,
    distances: Sequence[float | None],
) -> list[Prediction]:
    if not records:
        return []
    model, several = prepared.model, prepared.images.several
    X = np.array([features[record.id] for record in records])
    proba = model.point.calibrate(said.proba)
    ballots = model.strategy.votes(X) if hasattr(model.strategy, "votes") else np.empty((len(X), 0), int)
    names = [key.backbone.name for key in model.keys] + ([] if model.covariates is None else [COVARIATES])
    own = prepared.seen.get(MODEL, {})
    sets = _sets(model, proba, None if model.sets is None else model.sets.by_image)
    return [
        Prediction(
            path=str(record.path),
            label=model.classes[chosen],
            probability=dict(zip(model.classes, p.tolist(), strict=True)),
            votes={name: model.classes[int(vote)] for name, vote in zip(names, ballot, strict=False)},
            tuned_on=tuple(name for name in names if record.id in prepared.seen.get(name, {})),
            page=record.frame + 1 if record.path in several else None,
            given=record.label or None,
            in_training=WAYS[own[record.id]] if record.id in own else None,
            patient=record.group or None,
            prediction_set=held,
            distance=distance,
            weight=None if said.weights is None else float(said.weights[at]),
        )
        for at, (record, p, chosen, ballot, held, distance) in enumerate(
            zip(records, proba, model.point.decide(proba), ballots, sets, distances, strict=True)
        )
    ]


def _means(
    prepared: Prepared, records: Sequence[ImageRecord], features: Mapping[str, Features]
) -> list[MeanOfPages]:
    """Mean over the pages of each file that has several, unless they are of several patients or classes."""
    model, found = prepared.model, []
    for path in dict.fromkeys(record.path for record in records if record.path in prepared.images.several):
        mine = [record for record in records if record.path == path]
        if len({(record.group, record.label) for record in mine}) > 1:
            continue
        pages = [record.id for record in mine]
        mean = _mean_of_pages(model, np.array([features[page] for page in pages]))
        label = model.classes[int(model.point.decide(mean[None])[0])]
        found.append(
            MeanOfPages(
                path=str(path),
                pages=len(pages),
                label=label,
                probability=dict(zip(model.classes, mean.tolist(), strict=True)),
            )
        )
    return found


def _mean_of_pages(model: Model, X: Features) -> NDArray[np.float64]:
    """Mean probability ``(classes,)`` over pages ``X (n, d)``; of a `PatientStrategy`, its answer to all of them."""
    ask = asked_about_patients(model.strategy, np.zeros(len(X)))
    mean: NDArray[np.float64] = model.point.calibrate(np.asarray(ask(X), np.float64)).mean(axis=0)
    return mean


def _classes(extra: Any, strategy: FusionStrategy) -> tuple[str, ...]:  # noqa: ANN401
    """Names of the classes, one for each that the model knows."""
    classes = extra.get("classes") if isinstance(extra, dict) else None
    if (
        not isinstance(classes, list)
        or len(classes) != len(strategy.classes_)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise RunError("The model does not say what its classes are called.", runs.REMEDY)
    return tuple(classes)


# Images to predict: by name, by folder, by CSV file or by pattern; no class folders are needed.

REMEDY = (
    "Give image files, a folder of images, a CSV file with a column path, or a quoted pattern: 'scans/*.png'."
)


@dataclass(frozen=True, slots=True)
class NewImages:
    """New images to predict, as the caller named them.

    Attributes
    ----------
    records
        An image each, those of one file in the order of its pages; label and group are empty where not given.
    several
        Files that give several images.
    bad
        Files that are no images, as (path, reason, detail).
    skipped
        Files in folders that do not look like images.
    findings
        What reading a CSV file met.
    """

    records: tuple[ImageRecord, ...]
    several: frozenset[Path]
    bad: tuple[tuple[Path, str, str], ...]
    skipped: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Named:
    """A file that somebody named, and what he said about it."""

    path: Path
    name: str
    label: str = ""
    group: str = ""
    covariates: tuple[str, ...] = ()
    pictures: PageTable | None = None


@dataclass(slots=True)
class _Search:
    """Turns what was given into files; keeps what it met on the way."""

    follow_links: bool
    table: Mapping[str, Any]
    classes: Sequence[str]
    tables: int = 0
    unreadable: list[manifest.Quarantined] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def files(self, given: str | Path) -> list[_Named]:
        path = Path(given)
        if path.is_dir():
            return self._folder(path)
        if path.is_file() and path.suffix.lower() in TABLES:
            return self._csv(path)
        if path.is_file() and path.suffix.lower() in ARRAYS:
            return [_Named(path, str(path), pictures=_table_of(path))]
        if not path.exists() and glob.has_magic(str(given)):
            return self._pattern(str(given))
        return [_Named(path, str(path))]

    def _folder(self, folder: Path) -> list[_Named]:
        found = []
        for path in self._below(folder):
            if _looks_like_image(path) and not is_clutter(path.name):
                name = path.relative_to(folder)
                found.append(_Named(path, name.as_posix(), self._class_folder(name)))
            else:
                self.passed_over.append(path)
        return found

    def _class_folder(self, name: Path) -> str:
        """The class of the model that a folder on the way is called by, the nearest to the file; empty if none is."""
        return next((part for part in reversed(name.parts[:-1]) if part in self.classes), "")

    def _below(self, folder: Path) -> list[Path]:
        """Files at any depth, sorted; hidden ones are passed over, a folder inside itself is entered once."""
        found: list[Path] = []
        seen = {os.path.realpath(folder)}
        for top, folders, names in os.walk(folder, followlinks=True, onerror=self._refused):
            entered = []
            for name in filter(_is_visible, sorted(folders)):
                real = manifest.real_path_inside(Path(top, name), folder, follow_links=self.follow_links)
                if real not in seen:
                    seen.add(real)
                    entered.append(name)
            folders[:] = entered
            for name in filter(_is_visible, names):
                path = Path(top, name)
                manifest.real_path_inside(path, folder, follow_links=self.follow_links)
                found.append(path)
        return sorted(found)

    def _refused(self, error: OSError) -> None:
        self.unreadable.append(manifest.quarantine(Path(error.filename), error))

    def _csv(self, file: Path) -> list[_Named]:
        self.tables += 1
        listing = list_csv(file, follow_links=self.follow_links, labelled=False, **self.table)
        self.unreadable += listing.unreadable
        self.findings += listing.findings
        return [_Named(e.path, e.name, e.label, e.group or "", e.covariates) for e in listing.entries]

    def _pattern(self, pattern: str) -> list[_Named]:
        found = []
        for path in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207 - absolute patterns, too
            found += self._folder(path) if path.is_dir() else [_Named(path, str(path))]
        return found


def _paths_of(images: object) -> list[str | Path]:
    """What was given, as a list of paths.

    Raises
    ------
    TypeError
        If something else is in it, such as an array of pixels.
    """
    one = isinstance(images, str | os.PathLike) or not isinstance(images, Iterable)
    given: list[Any] = [images] if one else list(cast("Iterable[Any]", images))
    if odd := [each for each in given if not isinstance(each, str | os.PathLike)]:
        kind = type(odd[0]).__name__
        raise TypeError(
            f"images holds a {kind}, which is no path: save pictures as files first, such as PNG."
        )
    return given


def find_images(
    images: str | Path | Sequence[str | Path], classes: Sequence[str] = (), **reading: Unpack[ScanOptions]
) -> NewImages:
    """List and hash the images that are meant, page by page.

    Parameters
    ----------
    images
        A file, a folder (walked at any depth), a CSV file with a column ``path`` (and ``label`` and ``group``), a
        pattern such as ``scans/**/*.png``, arrays of pictures, or several of these.
    classes
        Folders of these names, below a folder that was given, are labels.
    **reading
        See `featstore.images.scan.ScanOptions`; the group pattern is searched in paths relative to the folder or CSV
        file that was given, and need not be found in all.

    Raises
    ------
    UsageError
        If nothing that was given is an image; with one example.
    """
    refuse_unknown_options(reading)
    if reading.get("labels") is not None:
        raise UsageError(
            "--labels is for images that are learned from, and these are new ones.",
            "Leave out --labels; known answers go into a CSV file with the columns path,label.",
        )
    given = _paths_of(images)
    table = {name: reading.get(name) for name in TABLE_OPTIONS}
    search = _Search(reading.get("follow_links", False), table, classes)
    named: dict[Path, _Named] = {}
    empty = []
    for one in given:
        files = search.files(one)
        empty += (
            [] if files else [manifest.Quarantined(Path(one), None, "missing", "No image was found there.")]
        )
        for file in files:
            named.setdefault(file.path, file)
    regex = _compiled(reading.get("group_pattern"))
    if not search.tables and (
        unused := [name for name, value in table.items() if value and name != COVARIATES]
    ):
        raise UsageError(
            f"--{unused[0]} is for a CSV file, and none was given.",
            f"Leave out --{unused[0]}, or give the file.",
        )
    records: list[ImageRecord] = []
    several = set()
    read: list[tuple[str, manifest.Contents]] = []
    bad = list(search.unreadable)
    for path, file in named.items():
        contents = manifest.read_contents(path, reading.get("slices"))
        if isinstance(contents, manifest.Contents):
            records += _pages(file, contents, regex)
            several |= {path} if contents.pages > 1 else set()
            read.append((str(path), contents))
        else:
            bad.append(contents)
    if not records:
        raise _nothing(given, bad, search.passed_over)
    named_alike = merged_groups((record.group, record.id) for record in records if record.group)
    return NewImages(
        tuple(replace(r, group=named_alike.get(r.group, r.group)) for r in records),
        frozenset(several),
        tuple((row.path, row.reason, row.detail) for row in [*bad, *empty]),
        len(search.passed_over),
        (*search.findings, *manifest.findings_of_pages(read)),
    )


def _pages(file: _Named, contents: manifest.Contents, regex: re.Pattern[str] | None) -> Iterator[ImageRecord]:
    group = file.group or (_group(file.name, regex) if regex else contents.group or "")
    labels, groups = [file.label] * contents.pages, [group] * contents.pages
    rows = contents.rows or range(contents.pages)
    if file.pictures is not None and (contents.rows or len(file.pictures.labels) == contents.pages):
        labels = [file.pictures.labels[row] for row in rows]
        groups = [file.pictures.groups[row] for row in rows] if file.pictures.groups else groups
    if contents.rows and not any(groups):  # a volume is a group, as where it was learned from
        groups = [manifest.page_id(contents.digest, row) for row in rows]
    for image, frame, label, own in zip(contents.ids, contents.frames, labels, groups, strict=True):
        yield ImageRecord(image, file.path, label, own, frame=frame, covariates=file.covariates)


def _table_of(path: Path) -> PageTable | None:
    """Classes and patients of arrays of pictures, if they say any."""
    try:
        return read_table(path)
    except (BadImageError, OSError):
        return None


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ManifestError(
            f"The group pattern {pattern!r} is no regular expression: {error}.", "Mend it."
        ) from error
    if not regex.groups:
        raise ManifestError(
            f"The group pattern {pattern!r} captures nothing.", r"Put the patient in parentheses: '(p\d+)_'."
        )
    return regex


def _group(name: str, regex: re.Pattern[str] | None) -> str:
    match = regex.search(name) if regex else None
    return next((part for part in match.groups() if part), "") if match else ""


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in suffixes():
        return True
    try:
        with open_regular(path) as file:
            return raster_format(file.read(HEAD)) is not None
    except OSError:
        return False


def _nothing(
    given: Sequence[str | Path], bad: Sequence[manifest.Quarantined], other: Sequence[Path]
) -> UsageError:
    if bad:
        one = bad[0]
        head = (
            f"None of the {len(bad)} files is an image, for example" if len(bad) > 1 else "This is no image:"
        )
        return UsageError(
            f"{head} {str(one.path)!r}: {one.reason} ({one.detail})",
            REASONS.get(one.reason, REMEDY) if len(bad) == 1 else REMEDY,
        )
    if other:
        found = manifest.read_contents(other[0])
        why = f": {found.detail}" if isinstance(found, manifest.Quarantined) else "."
        what = f"{len(other)} other files, for example" if len(other) > 1 else "only"
        return UsageError(f"There is no image in {_shown(given)}, {what} {str(other[0])!r}{why}", REMEDY)
    if not given:
        return UsageError("No image was given.", REMEDY)
    return UsageError(f"There is no image in {_shown(given)}.{_near(Path(given[0]))}", REMEDY)


def _shown(given: Sequence[str | Path]) -> str:
    more = f" and {len(given) - 1} more" if len(given) > 1 else ""
    return f"{str(given[0])!r}{more}"


def _near(pattern: Path) -> str:
    """One example of what lies where a pattern looked."""
    folder = next((p for p in pattern.parents if p.is_dir() and not glob.has_magic(str(p))), None)
    if folder is None:
        return ""
    there = (p for p in sorted(folder.iterdir()) if _is_visible(p.name) and p.suffix.lower() in suffixes())
    one = next(there, None)
    return f" In {str(folder)!r} there is for example {one.name!r}." if one else ""


# Predictions as a table


def patients_file(path: Path) -> Path:
    """Where the answers for patients go, beside a ``.csv`` of those for images."""
    return path.with_name(f"{path.stem}-patients{path.suffix}")


def refuse_unwritable(path: Path, *, overwrite: bool) -> None:
    """Make sure, before any work is done, that tables may be written to `path` and beside it.

    Raises
    ------
    UsageError
        If it is neither ``.csv`` nor ``.json``, lies in no folder, or is there already and `overwrite` is off.
    """
    if path.suffix.lower() not in {".csv", ".json"}:
        raise UsageError(
            f"--out {path} is neither a .csv nor a .json file.", "Write for instance --out answers.csv."
        )
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", "Make it first, or choose another --out.")
    for file in [path, patients_file(path)] if path.suffix.lower() == ".csv" else [path]:
        if file.is_dir():
            raise UsageError(f"{file} is a folder.", "Choose another --out.")
        if file.exists() and not overwrite:
            raise UsageError(f"{file} is there already.", "Choose another --out, or add --overwrite.")


def write_table(path: Path, result: Predictions) -> tuple[Path, ...]:
    """Write all answers as ``.csv`` or ``.json``, for the owner alone; those for patients in a CSV file beside it.

    Returns
    -------
    The files that were written. Where no patients are known there is none about them; one from before gets no rows.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    texts = {path: runs.json_text(result.to_json())}
    if path.suffix.lower() == ".csv":
        texts = {path: runs.csv_text(result.rows())}
        if result.patients or patients_file(path).exists():
            texts[patients_file(path)] = runs.csv_text(result.patient_rows())
    for file, text in texts.items():
        try:
            write_private(file, text.encode())
        except OSError as error:
            raise RunError(f"Cannot write {file}: {error.strerror}", "Choose another --out.") from error
    return tuple(texts)
