"""`explain`: where in an image the evidence of a model lies; of a linear one exactly.

A backbone's vector is the mean of its last feature map f(x, y) over all positions, and a linear model's logit a
weighted sum of vectors. So the logit is a mean over positions, too::

    logit = intercept + sum over backbones of mean over (x, y) of  w . (f(x, y) - m) s

with weights w, and mean m and scale s of each column in training. What stands behind "mean over" is the map: class
activation mapping (Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, "Learning deep features for discriminative
localization", CVPR), with the standardisation taken in, so that nothing is left over.

A model that is not linear has no such weights. Its maps are approximate, and are called so: w s is replaced by the
gradient of the logit, averaged along the straight way from the mean vector of training to the image's own
(integrated gradients: Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks", ICML). On a linear
model that is the exact map. Taken along the true way, maps and constant would add up to the logit here, too; by how
much they do not is told of each image. Eigen-CAM, which looks at the feature maps alone, would show the same of any
head, and explains none (`docs/decisions/034-approximate-maps.md`).
"""

from __future__ import annotations

import dataclasses
import io
import re
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from msgspec.structs import replace

from featstore import registry
from featstore.api.predict import NewImages, Prepared, answer, find_all_weights, prepare_model, read_model
from featstore.arguments import public
from featstore.backbones.engines import TENSORFLOW
from featstore.backbones.precision import FLOAT32
from featstore.errors import BackboneError, RunError, UnknownNameError, UsageError, did_you_mean
from featstore.extraction.pipeline import embed_images
from featstore.fusion.strategy import FOLDER, FusionStrategy, PatientStrategy
from featstore.images.reading import read_pixels
from featstore.images.scan import ScanOptions, refuse_unknown_options
from featstore.reporting.verdict import approximation_text
from featstore.results.fusion import Explanation, Explanations
from featstore.serialization import write_private
from featstore.tables import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from featstore.api.predict import Model
    from featstore.extraction.networks import BackoffBackbone
    from featstore.fusion.linear import LinearModel
    from featstore.results.fusion import Prediction, Predictions
    from featstore.store.notes import BadImage
    from featstore.types import Backbone, Features, ImageRecord, Pixels

    Floats = NDArray[np.float64]
    Grid = tuple[int, int]


@public
def explain(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    class_name: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    weights: Mapping[str, str] | None = None,
    **reading: Unpack[ScanOptions],
) -> Explanations:
    """Show where in images the evidence lies: a map per backbone and their sum, in logits.

    They are exact for a strategy that is linear in the vectors, and integrated gradients, called approximate, for
    others; a count of votes or neighbours has none.

    Parameters
    ----------
    folder
        Run of `featstore.fuse`.
    images
        As for `featstore.predict`. They need not be of the data set that the model was fitted on.
    class_name
        Evidence for this class; None for the run's positive one of two classes, and for the predicted one of more.
    out
        Folder for a picture (``.png``) and the maps (``.npz``) of each image, readable for the owner alone; None
        writes nothing. `overwrite` replaces maps that are there.
    overwrite
        See `out`.
    weights, **reading
        As for `featstore.predict`.

    Raises
    ------
    UsageError
        If the strategy has no maps, nothing that was given is an image, or there are maps in the folder already.
    BackboneError
        If a backbone's vector is no mean of a feature map.
    RunError
        If the folder holds no model, or the disk refuses.
    WeightsError
        If the weights that the model was fitted with are not here.

    References
    ----------
    Zhou et al. 2016, "Learning deep features for discriminative localization", CVPR: class activation mapping.
    Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks", ICML: integrated gradients.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> (one, *_) = featstore.explain("runs/fuse", data).explanations
    >>> one.evidence_for, one.maps["EfficientNetLite0"].shape
    ('covid', (7, 7))
    >>> abs(float(one.maps["EfficientNetLite0"].mean()) + one.constant - one.logit) < 1e-5
    True
    """
    place = None if out is None else Path(out)
    prepared = prepare(
        folder, images, class_name=class_name, out=place, overwrite=overwrite, weights=weights, **reading
    )
    return explain_prepared(prepared, class_name=class_name, out=place)


def default_folder(run: Path) -> Path:
    """Where the command writes maps of a run if it is told nothing: beside it, and not among its sealed files."""
    whole = run.absolute()
    return run.with_name(f"{run.name}-maps") if run.name else whole.with_name(f"{whole.name}-maps")


def prepare(
    folder: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    class_name: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    weights: Mapping[str, str] | None = None,
    **reading: Unpack[ScanOptions],
) -> Prepared:
    """Check everything that can be checked without loading a network; arguments are those of `explain`."""
    refuse_unknown_options(reading)
    model = read_model(Path(folder))
    _require_maps(model)
    if class_name is not None and class_name not in model.classes:
        raise UnknownNameError(
            f"The model knows no class {class_name!r}.", did_you_mean(class_name, model.classes)
        )
    if out is not None:
        _refuse_full(out, overwrite=overwrite)
    return prepare_model(model, images, weights=weights, **reading)


def explain_prepared(
    prepared: Prepared, *, class_name: str | None = None, out: Path | None = None
) -> Explanations:
    """Load the networks, compute answers and maps, and write them."""
    told, found = _evidence(prepared, class_name)
    explanations = [
        explained if out is None else _write(out, record, explained, prepared.model)
        for record, explained in found
    ]
    return Explanations(
        run=told.run,
        operating=told.operating,
        classes=told.classes,
        explanations=tuple(explanations),
        bad=told.bad,
        skipped=told.skipped,
        findings=told.findings,
    )


def explain_records(
    folder: Path, records: Sequence[ImageRecord], weights: Mapping[str, str]
) -> dict[str, Explanation]:
    """Evidence in images of a data set, by image id; one that does not decode has none.

    The class is the run's positive one of two classes, and the predicted one of more.

    Raises
    ------
    UsageError, BackboneError
        If the model has no maps, see `explain`.
    RunError
        If the folder holds no model.
    WeightsError
        If the weights are neither named nor where featstore looks by itself.
    """
    model = read_model(folder)
    _require_maps(model)
    images = NewImages(tuple(records), frozenset(), (), 0, ())
    prepared = Prepared(model, images, find_all_weights(model, weights), {}, ())
    return {record.id: explained for record, explained in _evidence(prepared, None)[1]}


def _evidence(
    prepared: Prepared, class_name: str | None
) -> tuple[Predictions, list[tuple[ImageRecord, Explanation]]]:
    """Load the networks and compute answers and maps of all images that decode."""
    model, records = prepared.model, prepared.images.records
    exact = model.strategy.linear_logits() is not None
    maps: EvidenceMaps | ApproximateMaps = EvidenceMaps(model) if exact else ApproximateMaps(model)
    parts: dict[str, tuple[Features, dict[str, Floats]]] = {}
    bad: dict[str, BadImage] = {}
    for start in range(0, len(records), maps.at_a_time):
        some = records[start : start + maps.at_a_time]
        rows, failed = embed_images(some, model.keys, prepared.weights, TENSORFLOW, maps.of_network)
        parts |= {image: maps.split(row) for image, row in rows.items()}
        bad |= failed
    if isinstance(model.strategy, PatientStrategy):  # a map is about its image alone
        records = tuple(dataclasses.replace(record, group="") for record in records)
        asked = dataclasses.replace(prepared.images, records=records)
        prepared = dataclasses.replace(prepared, images=asked)
    told = answer(prepared, {image: features for image, (features, _) in parts.items()}, bad)
    good = [record for record in records if record.id in parts]
    return told, [
        (
            record,
            maps.explanation(prediction, class_name or _default_class(model, prediction), *parts[record.id]),
        )
        for record, prediction in zip(good, told.predictions, strict=True)
    ]


def _default_class(model: Model, prediction: Prediction) -> str:
    if len(model.classes) > 2:  # noqa: PLR2004
        return prediction.label
    return model.positive or model.classes[-1]


# What has maps


def require_gradient(model: Model) -> None:
    """Make sure that a strategy that is not linear has approximate maps.

    Raises
    ------
    UsageError
        If its answer does not change with small changes of a vector, or the run does not know the mean of training.
    """
    name = registry.name_of(FOLDER, type(model.strategy)) or type(model.strategy).__name__
    first, *others = linear_strategies()
    remedy = f"Fit one that is linear: `featstore fuse DATA --strategy {first}`. So are {', '.join(others)}."
    if not model.strategy.is_smooth:
        raise UsageError(
            f"{name} has no map: its answer jumps, and no evidence of single positions adds up to it.",
            remedy,
        )
    if model.unlike is None:
        raise UsageError(
            f"{name} is not linear in the vectors, and the run keeps no mean of its training images, from which"
            " evidence is counted (it had too few patients, or is one of before).",
            remedy,
        )


def linear_strategies() -> list[str]:
    """Names of the strategies that can say their logits as a linear function; the linear probe comes first."""
    default = FusionStrategy.linear_logits
    found = [
        name for name in registry.names(FOLDER) if registry.load(FOLDER, name).linear_logits is not default
    ]
    return sorted(found, key=lambda name: (name != "concat_logreg", name))


def _require_maps(model: Model) -> None:
    """Refuse, before anything is loaded, a model whose maps are not to be had, by its head or by its networks."""
    if model.covariates is not None:
        raise UsageError(
            "The model has covariates, whose evidence lies in no image.",
            "Fit it again without --covariates: featstore fuse DATA --out RUN",
        )
    if model.strategy.linear_logits() is None:
        require_gradient(model)
    for key in model.keys:
        name = key.backbone.name
        if key.backbone.is_imported or key.backbone.has_loader:
            raise BackboneError(
                f"{name} is no network of Keras, so that its feature map is not known here.",
                "Fit a model without it: `featstore fuse DATA --backbones A,B`.",
            )
        if key.backbone.precision != FLOAT32:
            raise UsageError(
                f"The model was fitted on vectors of {key.backbone.precision}; maps are those of float32 alone.",
                "Run `featstore extract DATA --precision float32`, and fuse again.",
            )


class EvidenceMaps:
    """Maps of a linear model: what it asks of each network, and what it makes of the answer.

    Parameters
    ----------
    model
        Of a run, linear in the vectors.

    Attributes
    ----------
    at_a_time
        Images whose maps are in memory together.
    """

    at_a_time = 4096

    def __init__(self, model: Model) -> None:
        linear = model.strategy.linear_logits()
        if linear is None:
            raise ValueError("the model is not linear: `ApproximateMaps` are of such")
        self._classes = model.classes
        self._logits = linear
        rows, self._constants = by_class(linear)
        scaled = rows * linear.scale
        edges = np.cumsum([key.backbone.dimension for key in model.keys])[:-1]
        self._names = [key.backbone.name for key in model.keys]
        self._weights = dict(zip(self._names, np.split(scaled.T, edges), strict=True))
        self._offsets = {
            name: mean @ self._weights[name]
            for name, mean in zip(self._names, np.split(linear.mean, edges), strict=True)
        }
        self._grids: dict[str, Grid] = {}

    def of_network(self, network: BackoffBackbone) -> Backbone:
        """Let a network give the evidence for each class at each position, behind its vector."""
        mapped, self._grids[network.spec.name] = network.with_maps(self._weights[network.spec.name])
        return mapped

    def split(self, row: NDArray[Any]) -> tuple[Features, dict[str, Floats]]:
        """Vectors ``(columns,)`` and maps ``(rows, columns, n_classes)`` of one image."""
        vectors, maps, start = [], {}, 0
        for name in self._names:
            width, n_classes = self._weights[name].shape
            shape = (*self._grids[name], n_classes)
            middle, stop = start + width, start + width + int(np.prod(shape))
            vectors.append(row[start:middle])
            maps[name] = row[middle:stop].reshape(shape) - self._offsets[name]
            start = stop
        return np.concatenate(vectors).astype(np.float32), maps

    def explanation(
        self, prediction: Prediction, wanted: str, vector: Features, maps: Mapping[str, Floats]
    ) -> Explanation:
        """What speaks for one class in one image."""
        at = self._classes.index(wanted)
        chosen = {name: np.ascontiguousarray(part[..., at]) for name, part in maps.items()}
        logit = float(logits_by_class(self._logits.decision(vector[None]))[0, at])
        return _explanation(prediction, wanted, logit, float(self._constants[at]), chosen, exact=True)


class ApproximateMaps:
    """Maps of a model that is not linear: integrated gradients from the mean vector of training, by position.

    The vector z of a network is the mean of its feature map f over positions, and so is that of a map between the
    mean vector m, everywhere, and f: m + a (f - m), with a from 0 to 1. The part of a position is the derivative of
    the logit in the direction of f(x, y) - m, averaged over a. Derivatives are central differences, the average is
    Gaussian quadrature, so that every head is asked in one way: by its probabilities.

    Parameters
    ----------
    model
        Of a run that knows the mean of its training images.

    Attributes
    ----------
    at_a_time
        Images whose feature maps are in memory together.
    """

    PLACES = (8, 32)
    """So many places on the way where the gradient is taken; more of them where the first miss more than `ENOUGH`."""
    ENOUGH, LITTLE = 0.01, 1e-3
    """Share of the evidence, and logits, that maps may miss without more places being asked."""
    DIFFERENCE = 1e-3
    """Half the distance of two answers whose difference is a derivative, as a share of f - m."""
    MEMORY, USUAL_GRID = 10**9, 64
    """Bytes of feature maps at a time, if a map has so many positions."""

    def __init__(self, model: Model) -> None:
        if model.unlike is None:
            raise ValueError("the run keeps no mean of its training images: `require_gradient` says so")
        self._classes = model.classes
        self._strategy = model.strategy
        self._baseline = model.unlike.distance.mean.astype(np.float64)
        self._names = [key.backbone.name for key in model.keys]
        self._widths = [key.backbone.dimension for key in model.keys]
        self._grids: dict[str, Grid] = {}
        self.at_a_time = max(1, self.MEMORY // (8 * self.USUAL_GRID * sum(self._widths)))

    def of_network(self, network: BackoffBackbone) -> Backbone:
        """Let a network give its feature map behind its vector."""
        mapped, self._grids[network.spec.name] = network.with_maps(np.eye(network.spec.dimension))
        return mapped

    def split(self, row: NDArray[Any]) -> tuple[Features, dict[str, Floats]]:
        """Vectors ``(columns,)`` and maps ``(rows, columns, n_classes)`` of one image."""
        vectors, features, start = [], {}, 0
        for name, width in zip(self._names, self._widths, strict=True):
            middle, stop = start + width, start + width + width * int(np.prod(self._grids[name]))
            vectors.append(row[start:middle])
            features[name] = row[middle:stop].reshape(-1, width)
            start = stop
        vector, maps = np.concatenate(vectors), {}
        evidence = np.subtract(*self._logits_of(np.stack([vector, self._baseline])))
        for places in self.PLACES:
            maps = self._integrated(vector, features, places)
            missed = np.abs(evidence - sum(part.mean(axis=(0, 1)) for part in maps.values()))
            if (missed <= np.maximum(self.ENOUGH * np.abs(evidence), self.LITTLE)).all():
                break
        return vector.astype(np.float32), maps

    def _integrated(self, vector: Floats, features: Mapping[str, Floats], places: int) -> dict[str, Floats]:
        """Maps ``(rows, columns, n_classes)`` from feature maps ``(positions, width)``, by so many places."""
        nodes, shares = np.polynomial.legendre.leggauss(places)
        way = list(zip((nodes + 1) / 2, shares / 2, strict=True))
        away, edge, maps = vector - self._baseline, 0, {}
        for name, width in zip(self._names, self._widths, strict=True):
            block = slice(edge, edge + width)
            directions = features[name] - self._baseline[block]
            parts = sum(
                share * self._slopes(self._baseline + at * away, block, directions) for at, share in way
            )
            maps[name] = np.asarray(parts).reshape(*self._grids[name], -1)
            edge += width
        return maps

    def _slopes(self, place: Floats, block: slice, directions: Floats) -> Floats:
        """Derivatives ``(n, n_classes)`` of the logits at a place along `directions` ``(n, width)`` in a block."""
        rows = np.tile(place, (2, len(directions), 1))
        rows[0, :, block] += self.DIFFERENCE * directions
        rows[1, :, block] -= self.DIFFERENCE * directions
        ahead, behind = np.split(self._logits_of(rows.reshape(-1, len(place))), 2)
        slopes: Floats = (ahead - behind) / (2 * self.DIFFERENCE)
        return slopes

    def _logits_of(self, vectors: Floats) -> Floats:
        """Logits ``(n, n_classes)``, as those of `logits_by_class`, from probabilities."""
        logs = np.log(np.maximum(self._strategy.predict_proba(vectors), np.finfo(float).tiny))
        centred: Floats = logs - logs.mean(axis=1, keepdims=True)
        return 2 * centred if len(self._classes) == 2 else centred  # noqa: PLR2004 - of two, the log of the odds

    def explanation(
        self, prediction: Prediction, wanted: str, vector: Features, maps: Mapping[str, Floats]
    ) -> Explanation:
        """What speaks for one class in one image, about."""
        at = self._classes.index(wanted)
        chosen = {name: np.ascontiguousarray(part[..., at]) for name, part in maps.items()}
        constant, logit = self._logits_of(np.stack([self._baseline, vector]))[:, at]
        return _explanation(prediction, wanted, float(logit), float(constant), chosen, exact=False)


def _explanation(
    prediction: Prediction,
    wanted: str,
    logit: float,
    constant: float,
    maps: Mapping[str, Floats],
    *,
    exact: bool,
) -> Explanation:
    contributions = {name: float(part.mean()) for name, part in maps.items()}
    return Explanation(
        prediction=prediction,
        evidence_for=wanted,
        exact=exact,
        logit=logit,
        constant=constant,
        contributions=contributions,
        remainder=logit - constant - sum(contributions.values()),
        maps=maps,
        total=add_maps(list(maps.values())),
    )


def by_class(linear: LinearModel) -> tuple[Floats, Floats]:
    """Coefficients ``(n_classes, d)`` and intercepts ``(n_classes,)`` of `logits_by_class`."""
    return logits_by_class(linear.coef.T).T, logits_by_class(linear.intercept[None])[0]


def logits_by_class(logits: Floats) -> Floats:
    """A logit for each class ``(n, n_classes)`` of ``(n, 1)`` or ``(n, n_classes)``.

    Of two classes: the logarithm of the odds. Of more, logits mean something only up to a number that all share, so
    their mean is taken off: what is left is the logarithm of the probability less its mean over the classes.
    """
    if logits.shape[1] == 1:
        return np.concatenate([-logits, logits], axis=1)
    centred: Floats = logits - logits.mean(axis=1, keepdims=True)
    return centred


# Maps of several grids added up

FINEST = 512


def add_maps(maps: Sequence[Floats]) -> Floats:
    """Sum of maps of several grids on a common one, whose mean is the sum of their means.

    On the least common multiple of the grids every cell is divided into whole ones; nothing is interpolated. Where it
    is finer than `FINEST`, a cell on a border gets the mean of both sides by area.
    """
    shape = [min(lcm(*(part.shape[axis] for part in maps)), FINEST) for axis in (0, 1)]
    parts = [_shares(shape[0], len(part)) @ part @ _shares(shape[1], part.shape[1]).T for part in maps]
    total: Floats = np.sum(parts, axis=0)
    return total


def _shares(n_cells: int, n_old: int) -> Floats:
    """Matrix ``(n_cells, n_old)``: what share of a new cell lies in each of the old ones."""
    new, old = np.arange(n_cells + 1) / n_cells, np.arange(n_old + 1) / n_old
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    shares: Floats = np.maximum(overlap, 0.0) * n_cells
    return shares


# Files


def _refuse_full(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no folder.", "Choose another --out.")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UsageError(f"There is something in {out} already.", "Choose another --out, or add --overwrite.")


def _write(out: Path, record: ImageRecord, explained: Explanation, model: Model) -> Explanation:
    """Write the picture and the maps of one image."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", record.path.stem)[:80].lstrip(".-") or "image"
    stem = f"{name}-{record.id[:8]}"
    picture, arrays = out / f"{stem}.png", out / f"{stem}.npz"
    pixels = read_pixels(record, model.decoding)
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(picture, _png(draw(pixels, explained)))
        write_private(arrays, _npz(explained))
    except OSError as error:
        raise RunError(f"Cannot write to {out}: {error.strerror}", "Choose another --out.") from error
    return replace(explained, overlay=str(picture), arrays=str(arrays))


def _npz(explained: Explanation) -> bytes:
    """Maps as ``map_NAME``, their sum as ``total``, and the numbers; nothing in it needs a pickle."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"map_{name}": part for name, part in explained.maps.items()}
    about = ("total", "constant", "logit", "remainder", "exact", "evidence_for")
    arrays |= {name: getattr(explained, name) for name in about}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# The picture

PANEL = 2.6
"""Width of a panel, inches."""
ACROSS = 4
DOTS_PER_INCH = 150
STRONGEST = 0.75
"""Opacity of the strongest evidence; none is transparent, so that the slice can be read."""


FOR, AGAINST = (178, 24, 43), (33, 102, 172)
"""Red and blue of the colours of `draw`, 0 to 255."""


def overlay(pixels: Pixels, evidence: Floats, strongest: float) -> Pixels:
    """The image ``(height, width, 3)`` under its evidence: red for the class, blue against, cell by cell.

    Parameters
    ----------
    pixels
        ``(height, width, 1 or 3)`` uint8.
    evidence
        A map of any grid, in logits.
    strongest
        What has the strongest colour, so that several pictures have one scale.
    """
    height, width = pixels.shape[:2]
    rows = np.arange(height) * len(evidence) // height
    columns = np.arange(width) * evidence.shape[1] // width
    part = (evidence[rows][:, columns] / (strongest or 1.0))[..., None]
    opacity = STRONGEST * np.clip(np.abs(part), 0.0, 1.0)
    mixed: Pixels = np.rint(pixels * (1 - opacity) + np.where(part > 0, FOR, AGAINST) * opacity).astype(
        np.uint8
    )
    return mixed


def draw(pixels: Pixels, explained: Explanation) -> Figure:
    """Draw the slice, the sum over it, and the map of each backbone over it, in one scale of colours.

    Parameters
    ----------
    pixels
        ``(height, width, 1 or 3)`` uint8: the image as decoded, which the network saw scaled to a square.
    explained
        Its maps, shown cell by cell as the network has them; nothing is smoothed.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    several = len(explained.maps) > 1
    panels: dict[str, Floats | None] = {"image": None}
    panels |= {"all backbones": explained.total} if several else {}
    panels |= explained.maps
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    height, width = pixels.shape[:2]
    limit = max(float(np.abs(part).max()) for part in panels.values() if part is not None) or 1.0
    with rc_context({"font.family": ["DejaVu Sans", "sans-serif"], "text.parse_math": False}):
        tall = PANEL * height / width * down + 1.6
        figure = Figure(figsize=(PANEL * across + 1.1, min(tall, 4 * PANEL * down)), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        shown: Any = None
        for ax, (name, part) in zip(axes, panels.items(), strict=False):
            ax.imshow(pixels.squeeze() if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            ax.set_title(_panel_title(name, explained), fontsize=9)
            if part is not None:
                shown = ax.imshow(
                    part,
                    cmap=_colours(),
                    vmin=-limit,
                    vmax=limit,
                    extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                    interpolation="nearest",
                    aspect="equal",
                )
        for ax in axes:
            ax.set_axis_off()
        wanted = printable(explained.evidence_for)
        bar = figure.colorbar(shown, ax=list(axes), shrink=0.85, pad=0.02)
        bar.ax.set_facecolor("0.5")
        bar.set_label(f"evidence at a position (logits): + for {wanted}, - against", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        figure.suptitle(_title(explained), fontsize=10)
        grids = " and ".join(
            dict.fromkeys(f"{part.shape[0]} x {part.shape[1]}" for part in explained.maps.values())
        )
        about = "" if explained.exact else f"{approximation_text([explained])}\n"
        figure.supxlabel(
            f"Grid of the network: {grids}, shown as it is. The mean of a map is the number above it.\n{about}"
            "A map says what the model used, not what causes the disease.",
            fontsize=8,
        )
    return figure


def _title(explained: Explanation) -> str:
    prediction = explained.prediction
    name = printable(Path(prediction.path).name) + (f", page {prediction.page}" if prediction.page else "")
    return (
        f"{name}: {printable(prediction.label)}, P = {prediction.probability[prediction.label]:.3f}\n"
        f"logit of {printable(explained.evidence_for)} {explained.logit:+.2f}"
        f" = constant {explained.constant:+.2f} + evidence {explained.logit - explained.constant:+.2f}"
        + ("" if explained.exact else " (approximate maps)")
    )


def _panel_title(name: str, explained: Explanation) -> str:
    if name in explained.contributions:
        return f"{name}  {explained.contributions[name]:+.2f}"
    return name if name == "image" else f"{name}  {sum(explained.contributions.values()):+.2f}"


def _colours() -> Any:  # noqa: ANN401 - a ListedColormap
    """Blue against, red for; the weaker the evidence, the more transparent."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    steps = np.linspace(-1, 1, 257)
    # The middle of the table is white: its colours are taken from either side, and the opacity does the fading.
    colours = colormaps["RdBu_r"](np.where(steps < 0, 0.1, 0.9))
    colours[:, 3] = STRONGEST * np.abs(steps)
    return ListedColormap(colours)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
