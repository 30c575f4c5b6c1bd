"""`predict`: what a kept model says about new images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import run
from featstore.errors import RunError
from featstore.evaluation.operating import read_point
from featstore.extraction.embed import embed_images
from featstore.extraction.tuned import learned
from featstore.fingerprint import digest_file
from featstore.fusion.bundle import read_bundle
from featstore.images.contents import page_id
from featstore.signatures import public

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featstore.fusion.strategy import FusionStrategy
    from featstore.store.learned import Learned


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes
    ----------
    path
        The file.
    label
        Predicted class, at the run's operating point.
    probability
        By class, summing to one; calibrated if the run is.
    votes
        Class that each backbone alone would choose, for strategies whose members can vote; else empty.
    tuned_on
        Backbones whose weights have learned from this very image: the answer says nothing about new ones.
    """

    path: str
    label: str
    probability: Mapping[str, float]
    votes: Mapping[str, str]
    tuned_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers for all images that decoded, and the others as (path, reason, detail).

    `operating` is the run's calibration and threshold, as plain dict.
    """

    run: str
    operating: Mapping[str, Any]
    predictions: tuple[Prediction, ...]
    bad: tuple[tuple[str, str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dict for ``--json``."""
        return asdict(self)


@public
def predict(
    folder: str | Path, images: Sequence[str | Path], *, weights: Mapping[str, str] | None = None
) -> Predictions:
    """Apply the model of a run to image files.

    Parameters
    ----------
    folder
        Run of `featstore.fuse`.
    images
        Image files.
    weights
        Where the backbones' weights are now, as for `featstore.extract`; their digests must be the run's.

    Raises
    ------
    RunError
        If the folder holds no model.
    WeightsError
        If the weights are not those that the model was built on.
    """
    document = run.read_run(Path(folder))
    if document.get("kind") != "fuse":
        raise RunError(f"{folder} holds no model.", "Give a run of `featstore fuse`.")
    run.require_own(Path(folder), document, run.MODEL_STATE)
    model, extra = read_bundle(Path(folder) / run.MODEL)
    classes = _classes(extra, model)
    point = read_point(extra.get("operating"), len(classes))
    keys = run.keys_of(document)
    if sum(key.backbone.dimension for key in keys) != model.n_features_in_:
        raise RunError("The model was not fitted on the features that run.json names.", run.REMEDY)
    good, features, bad = embed_images([Path(i) for i in images], keys, weights)
    records = learned([key.backbone for key in keys], weights or {})
    predictions: tuple[Prediction, ...] = ()
    if good:
        proba = point.calibrate(np.asarray(model.predict_proba(features), np.float64))
        ballots = model.votes(features) if hasattr(model, "votes") else np.empty((len(good), 0), int)
        names = [key.backbone.name for key in keys]
        predictions = tuple(
            Prediction(
                str(path),
                classes[answer],
                dict(zip(classes, p.tolist(), strict=True)),
                {name: classes[int(vote)] for name, vote in zip(names, ballot, strict=False)},
                _tuned_on(path, records),
            )
            for path, p, answer, ballot in zip(good, proba, point.decide(proba), ballots, strict=True)
        )
    return Predictions(
        str(folder),
        point.to_json(),
        predictions,
        tuple((str(p), reason, detail) for p, reason, detail in bad),
    )


def _tuned_on(path: Path, records: Mapping[str, Learned]) -> tuple[str, ...]:
    """Backbones that have learned from the image in a file, or from its first page."""
    if not records:
        return ()
    digest = digest_file(path)
    ids = {digest, page_id(digest, 0)}
    return tuple(name for name, record in records.items() if ids & record.images)


def _classes(extra: Any, model: FusionStrategy) -> list[str]:  # noqa: ANN401
    """Names of the classes, one for each that the model knows."""
    classes = extra.get("classes") if isinstance(extra, dict) else None
    if (
        not isinstance(classes, list)
        or len(classes) != len(model.classes_)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise RunError("The model does not say what its classes are called.", run.REMEDY)
    return classes
