"""`predict`: what a kept model says about new images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featstore import run
from featstore.backbones.find_weights import find_weights
from featstore.errors import BadImageError, RunError, UsageError
from featstore.evaluation.new_images import find_images
from featstore.evaluation.operating import OperatingPoint, read_point
from featstore.evaluation.prediction_table import MeanOfPages, Prediction, Predictions
from featstore.evaluation.training_images import read_training_images
from featstore.extraction.embed import embed_images
from featstore.extraction.networks import require_computable
from featstore.extraction.tuned import learned
from featstore.findings import Finding, ordered
from featstore.fusion.bundle import read_bundle
from featstore.images.decode import REASONS
from featstore.images.pixel_digest import pixel_digest_of
from featstore.images.reading import read_pixels
from featstore.images.scan import ScanOptions, refuse_unknown_options
from featstore.recognition import WAYS, recognise, seen_finding
from featstore.signatures import public

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.evaluation.new_images import NewImages
    from featstore.fusion.strategy import FusionStrategy
    from featstore.recognition import Way
    from featstore.store.known_images import KnownImages
    from featstore.types import Decoding, FeatureKey, Features, ImageRecord

MODEL = "the model"
UNDECLARED = (
    "The run knows no range of values: give 8-bit images, or make it anew from `featstore extract DATA"
    " --range LOW,HIGH`."
)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model of a run folder, and what is needed to use it.

    `learned` is what it has learned from; None for a run of an earlier featstore, which does not say.
    """

    folder: Path
    strategy: FusionStrategy
    classes: tuple[str, ...]
    point: OperatingPoint
    keys: tuple[FeatureKey, ...]
    learned: KnownImages | None

    @property
    def decoding(self) -> Decoding:
        """How pixels are made."""
        return self.keys[0].decoding


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """All that can be known before a network is loaded.

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
    """

    model: Model
    images: NewImages
    weights: Mapping[str, str]
    seen: Mapping[str, Mapping[str, Way]]
    findings: tuple[Finding, ...]


@public
def predict(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Mapping[str, str] | None = None,
    **reading: Unpack[ScanOptions],
) -> Predictions:
    """Apply the model of a run to new images: one answer per image, and per page where a file holds several.

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
    **reading
        How a CSV file is read, and how a path names the patient, so that patients who were in training are
        recognised: see `featstore.images.scan.ScanOptions`.

    Raises
    ------
    RunError
        If the folder holds no model.
    UsageError
        If nothing that was given is an image.
    WeightsError
        If the weights that the model was fitted with are not here.
    """
    return answer(prepare(folder, images, weights=weights, **reading))


def prepare(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    weights: Mapping[str, str] | None = None,
    **reading: Unpack[ScanOptions],
) -> Prepared:
    """Check everything that can be checked without loading a network; arguments are those of `predict`."""
    refuse_unknown_options(reading)
    model = read_model(Path(folder))
    asked = find_images(images, **reading)
    found = _find_all_weights(model, weights or {})
    if not any(pixel_digest_of(record, model.decoding) for record in asked.records):
        raise _undecodable(asked.records, model.decoding)
    tuned = learned([key.backbone for key in model.keys], found)
    known = {name: record.known for name, record in tuned.items()}
    if model.learned is not None:
        known[MODEL] = model.learned
    seen = recognise(asked.records, known, model.decoding)
    met = [seen_finding(name[:1].upper() + name[1:], asked.records, ways) for name, ways in seen.items()]
    findings = [*asked.findings, *(finding for finding in met if finding), *_label_findings(model, asked)]
    if model.learned is None or not model.learned.is_complete:
        findings.append(Finding("FS409", "The run does not tell all images that its model has learned from."))
    return Prepared(model, asked, found, seen, ordered(findings))


def answer(prepared: Prepared) -> Predictions:
    """Load the networks, and let the model answer."""
    model, asked = prepared.model, prepared.images
    features, bad = embed_images(asked.records, model.keys, prepared.weights)
    records = [record for record in asked.records if record.id in features]
    return Predictions(
        str(model.folder),
        model.point.to_json(),
        model.classes,
        tuple(_answers(prepared, records, features)),
        tuple(_means(prepared, records, features)),
        tuple(
            (str(path), reason, detail)
            for path, reason, detail in (
                *asked.bad,
                *((r.path, bad[r.id].reason, bad[r.id].detail) for r in asked.records if r.id in bad),
            )
        ),
        asked.skipped,
        prepared.findings,
    )


def read_model(folder: Path) -> Model:
    """Read the model of a run folder.

    Raises
    ------
    RunError
        If there is none, or it is damaged.
    """
    document = run.read_run(folder)
    if document.get("kind") != "fuse":
        raise RunError(f"{folder} holds no model.", "Give a run of `featstore fuse`.")
    run.require_own(folder, document, run.MODEL_STATE)
    strategy, extra = read_bundle(folder / run.MODEL)
    classes = _classes(extra, strategy)
    point = read_point(extra.get("operating"), len(classes))
    keys = run.keys_of(document)
    if sum(key.backbone.dimension for key in keys) != strategy.n_features_in_:
        raise RunError("The model was not fitted on the features that run.json names.", run.REMEDY)
    return Model(folder, strategy, classes, point, tuple(keys), read_training_images(folder, document))


def _find_all_weights(model: Model, weights: Mapping[str, str]) -> dict[str, str]:
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


def _answers(
    prepared: Prepared, records: Sequence[ImageRecord], features: Mapping[str, Features]
) -> list[Prediction]:
    if not records:
        return []
    model, several = prepared.model, prepared.images.several
    X = np.array([features[record.id] for record in records])
    proba = _probabilities(model, X)
    ballots = model.strategy.votes(X) if hasattr(model.strategy, "votes") else np.empty((len(X), 0), int)
    names = [key.backbone.name for key in model.keys]
    own = prepared.seen.get(MODEL, {})
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
        )
        for record, p, chosen, ballot in zip(records, proba, model.point.decide(proba), ballots, strict=True)
    ]


def _means(
    prepared: Prepared, records: Sequence[ImageRecord], features: Mapping[str, Features]
) -> list[MeanOfPages]:
    """Mean over the pages of each file that has several."""
    model, found = prepared.model, []
    for path in dict.fromkeys(record.path for record in records if record.path in prepared.images.several):
        pages = [record.id for record in records if record.path == path]
        mean = _probabilities(model, np.array([features[page] for page in pages])).mean(axis=0)
        label = model.classes[int(model.point.decide(mean[None])[0])]
        found.append(
            MeanOfPages(str(path), len(pages), label, dict(zip(model.classes, mean.tolist(), strict=True)))
        )
    return found


def _probabilities(model: Model, X: Features) -> np.ndarray[Any, np.dtype[np.float64]]:
    return model.point.calibrate(np.asarray(model.strategy.predict_proba(X), np.float64))


def _classes(extra: Any, strategy: FusionStrategy) -> tuple[str, ...]:  # noqa: ANN401
    """Names of the classes, one for each that the model knows."""
    classes = extra.get("classes") if isinstance(extra, dict) else None
    if (
        not isinstance(classes, list)
        or len(classes) != len(strategy.classes_)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise RunError("The model does not say what its classes are called.", run.REMEDY)
    return tuple(classes)
