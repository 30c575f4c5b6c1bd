"""`export`: a run's model as one file that works without featstore: Keras, ONNX, or a sealed bundle."""

from __future__ import annotations

import importlib.util
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore import registry, runs
from featstore.api.explain import linear_strategies
from featstore.api.predict import Model, find_all_weights, read_model
from featstore.arguments import public
from featstore.backbones import catalog, keras_export
from featstore.backbones.keras_backbone import load_backbone
from featstore.backbones.keras_export import DenseLayer
from featstore.errors import RunError, UsageError
from featstore.evaluation.calibration import Platt, Temperature, VectorScaling
from featstore.evaluation.candidates import answers_for_patients
from featstore.exchange.pack import seal_archive
from featstore.fusion.strategies.concat_mlp import ConcatMlp
from featstore.fusion.strategy import FOLDER, FusionStrategy, PatientStrategy
from featstore.images.augment import resize
from featstore.phantom import LABELS, phantom_slice
from featstore.reporting.page.model_card import model_card
from featstore.reporting.run_record import read_record
from featstore.reporting.wording import PURPOSE
from featstore.results.fusion import ExportedModel
from featstore.serialization import digest_bytes, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from featstore.evaluation.calibration import AnyCalibration

    Floats = NDArray[np.float64]
    Images = dict[int, NDArray[np.float32]]

KERAS, ONNX, BUNDLE = ".keras", ".onnx", ".zip"
BUNDLE_KIND = "model bundle"
TOLERANCE = 1e-4
"""Largest difference of a probability from the run's own."""
N_CHECKED = 8
"""Generated images on which the two are compared."""
VALUES = "RGB of 0..255 (grey on all three), scaled to a square with Pillow's bilinear filter"
MODEL_FILE, CARD_FILE, LICENCES_FILE, PROGRAM_FILE = "model.keras", "CARD.md", "LICENCES.txt", "predict.py"


@public
def export(
    folder: str | Path,
    out: str | Path,
    *,
    weights: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> ExportedModel:
    """Write the model of a run as one file: image to probability, without featstore.

    The file holds the colours' preprocessing, the networks, the fused head and its calibration, in layers of Keras
    alone; ``keras.saving.load_model(..., safe_mode=True)`` opens it. Decoding a file and scaling it to the input size
    are not in it: ``keras.utils.load_img(path, target_size=(side, side), interpolation="bilinear")`` does for PNG and
    JPEG what featstore does, and `featstore.convert` makes PNG of everything else.

    Parameters
    ----------
    folder
        Run of `featstore.fuse`.
    out
        ``X.keras``; ``X.onnx`` (needs ``tf2onnx``, of the extra ``onnx``); or ``X.zip``, a sealed bundle of the Keras
        model, its card, the licences of the weights and a program that uses it, each with its SHA-256.
    weights
        As for `featstore.predict`.
    overwrite
        Replace a file that is there.

    Returns
    -------
    ExportedModel
        Inputs take ``(n, side, side, 3)`` float32; the answer is ``(n, n_classes)`` float32, rows sum to one.

    Raises
    ------
    UsageError
        If the suffix is another, a file is there already, or strategy or calibration cannot be layers of Keras.
    BackboneError
        If a network is none of Keras.
    RunError
        If the folder holds no model, the disk refuses, or the file does not answer as the run does.
    WeightsError
        If the weights that the model was fitted with are not here.

    Examples
    --------
    >>> import featstore
    >>> data = featstore.make_phantoms("phantoms", patients=16, slices=1, size=64)
    >>> _ = featstore.extract(data, backbones=["EfficientNetLite0"], recipe="identity")
    >>> _ = featstore.fuse(data, positive="covid", out="runs/fuse", overwrite=True)
    >>> exported = featstore.export("runs/fuse", "model.keras", overwrite=True)
    >>> exported.inputs, exported.classes, exported.largest_difference < 1e-4
    ({'image_224': 224}, ('covid', 'normal'), True)
    """
    run, target = Path(folder), Path(out)
    _refuse_target(target, overwrite=overwrite)
    model = read_model(run)
    if model.covariates is not None:
        raise UsageError(
            "The model asks for covariates beside the image, and an exported one takes images alone.",
            "Fit one without them: `featstore fuse DATA`, without --covariates.",
        )
    head = head_of(model)
    for key in model.keys:
        keras_export.require_exportable(key.backbone)
    found = find_all_weights(model, weights or {})
    card = describe(model)
    name = registry.name_of(FOLDER, type(model.strategy)) or type(model.strategy).__name__
    networks = [(key.backbone, found[key.backbone.name]) for key in model.keys]
    built = keras_export.build_model(networks, head, name)
    images = _generated({key.backbone.input_size for key in model.keys})
    try:
        with tempfile.TemporaryDirectory(prefix="featstore-export-") as place:
            draft = Path(place, MODEL_FILE)
            keras_export.save_model(built, draft, card)
            answers = keras_export.run_model(draft, images)
            if target.suffix == ONNX:
                draft = Path(place, "model.onnx")
                keras_export.save_onnx(built, draft, images)
                answers = keras_export.run_onnx(draft, images)
            data = draft.read_bytes()
        apart = float(np.abs(answers - _own_answers(model, found, images)).max())
        if not apart <= TOLERANCE:
            raise RunError(
                f"The exported model departs from the run by {apart:.1e} in a probability.",
                "Predict with the run itself: `featstore predict RUN IMAGE`.",
            )
        if target.suffix == BUNDLE:
            data = _bundle(run, model, card, data)
        write_private(target, data)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"Cannot write {target}: {error.strerror or error}", "Choose another place."
        ) from error
    return ExportedModel(
        file=str(target),
        format=target.suffix.removeprefix("."),
        size_bytes=len(data),
        classes=model.classes,
        inputs=card["inputs"],
        strategy=name,
        backbones=tuple(key.backbone.name for key in model.keys),
        positive=card["positive"],
        threshold=model.point.threshold,
        largest_difference=apart,
        licences=card["licences"],
    )


def _refuse_target(target: Path, *, overwrite: bool) -> None:
    """Refuse, before anything is read, a file that cannot be written."""
    if target.suffix not in {KERAS, ONNX, BUNDLE}:
        raise UsageError(
            f"{target} is no file of an exported model.",
            "Call it X.keras, X.onnx, or X.zip for a bundle with card and licences.",
        )
    if not target.parent.is_dir():
        raise UsageError(f"There is no folder {target.parent}.", "Make it first, or choose another name.")
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", "Choose another name.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already.", "Choose another name, or add --overwrite.")
    if target.suffix == ONNX and not all(map(importlib.util.find_spec, ("tf2onnx", "onnxruntime"))):
        raise UsageError(
            "ONNX files are written by tf2onnx, which is not installed.", "pip install 'featstore[onnx]'"
        )


# What can be a layer


def head_of(model: Model) -> list[DenseLayer]:
    """Layers from the vectors, side by side, to logits ``(n, n_classes)``, calibration and all.

    Raises
    ------
    UsageError
        If the strategy or its calibration cannot be layers.
    """
    if isinstance(model.strategy, PatientStrategy):
        name = registry.name_of(FOLDER, type(model.strategy)) or type(model.strategy).__name__
        raise UsageError(
            f"{name} answers from all images of a patient, and an exported model takes one.",
            "Fit one that answers for images: `featstore fuse DATA --unit group --strategy concat_logreg`.",
        )
    layers = _strategy_layers(model.strategy)
    last = layers[-1]
    if len(last.bias) == 1:  # the logit of the second of two classes
        last = DenseLayer(np.hstack([0 * last.kernel, last.kernel]), np.append(0.0, last.bias))
    return [*layers[:-1], *_calibrated(last, model.point.calibration)]


def _strategy_layers(strategy: FusionStrategy) -> list[DenseLayer]:
    linear = strategy.linear_logits()
    if linear is not None:
        kernel = (linear.coef * linear.scale).T
        return [DenseLayer(kernel, linear.intercept - linear.mean @ kernel)]
    if isinstance(strategy, ConcatMlp):
        network = strategy._restored()  # noqa: SLF001 - one family: its weights are what is exported
        hidden = (network.hidden.weights * strategy.scale_).T
        bias = network.hidden.bias - strategy.mean_ @ hidden
        return [
            DenseLayer(hidden, bias, "relu"),
            DenseLayer(network.output.weights.T, network.output.bias),
        ]
    name = registry.name_of(FOLDER, type(strategy)) or type(strategy).__name__
    first, *others = [*(n for n in linear_strategies() if not answers_for_patients(n)), "concat_mlp"]
    raise UsageError(
        f"{name} cannot be written as layers of Keras.",
        f"Fit one that can: `featstore fuse DATA --strategy {first}`. So can {', '.join(others)}.",
    )


def _calibrated(last: DenseLayer, calibration: AnyCalibration | None) -> list[DenseLayer]:
    """Take a calibration into the last layer."""
    n_classes = len(last.bias)
    match calibration:
        case None:
            return [last]
        case Temperature(slope=slope):
            return [DenseLayer(slope * last.kernel, slope * last.bias)]
        case Platt(slopes=(slope,), offsets=(offset,)) if n_classes == 2:  # noqa: PLR2004
            return [DenseLayer(slope * last.kernel, slope * last.bias + np.array([0.0, offset]))]
        case VectorScaling(slopes=slopes, offsets=offsets):
            scaled = "log_softmax", np.array(slopes), np.array(offsets)
            return [DenseLayer(last.kernel, last.bias, *scaled)]
    raise UsageError(
        f"The calibration {calibration.name} of {n_classes} classes cannot be written as layers of Keras.",
        "Fit with another: `featstore fuse DATA --calibrate temperature`.",
    )


# What the file says of itself, and how it is checked


def describe(model: Model) -> dict[str, Any]:
    """What a stranger has to know of an exported model: inputs, order of classes, threshold, weights, licences."""
    point = model.point.to_json()
    positive = model.point.request.positive
    decoding = model.decoding
    return {
        "featstore": version("featstore"),
        "purpose": PURPOSE,
        "classes": list(model.classes),
        "positive": model.positive if positive is None else model.classes[positive],
        "threshold": model.point.threshold,
        "calibration": point["calibration"] and point["calibration"]["method"],
        "strategy": registry.name_of(FOLDER, type(model.strategy)),
        "inputs": {f"image_{side}": side for side in sorted({k.backbone.input_size for k in model.keys})},
        "values": VALUES,
        "value_range": decoding.value_range and list(decoding.value_range),
        "decoder": decoding.decoder,
        "weights": {key.backbone.name: key.backbone.weights for key in model.keys},
        "licences": {key.backbone.name: _licence(key.backbone) for key in model.keys},
    }


def _licence(spec: Any) -> str:  # noqa: ANN401
    if spec.weights.startswith("random:"):
        return "none: random numbers"
    return catalog.licence(spec.name)


def _generated(sides: set[int]) -> Images:
    """Generated chest slices ``(N_CHECKED, side, side, 3)`` by side, scaled as those of files are."""
    slices = [phantom_slice(seed, label=LABELS[seed % 2], size=128) for seed in range(N_CHECKED)]
    return {
        side: np.repeat(np.stack([resize(one[..., None], side) for one in slices]), 3, axis=3).astype(
            np.float32
        )
        for side in sorted(sides)
    }


def _own_answers(model: Model, found: Mapping[str, str], images: Images) -> Floats:
    """Probabilities ``(N_CHECKED, n_classes)`` as `featstore.predict` computes them."""
    vectors = []
    for key in model.keys:
        spec = key.backbone
        network = load_backbone(spec.name, found[spec.name], spec.preprocess, N_CHECKED)
        vectors.append(network.embed(images[spec.input_size]))
    return model.point.calibrate(model.strategy.predict_proba(np.concatenate(vectors, axis=1)))


# The sealed bundle


def _bundle(run: Path, model: Model, card: Mapping[str, Any], keras_model: bytes) -> bytes:
    members = {
        MODEL_FILE: keras_model,
        "card.json": runs.json_text(card).encode(),
        CARD_FILE: _card_text(run, card, model.pool if model.patient_point else None).encode(),
        LICENCES_FILE: _licences_text(card).encode(),
        PROGRAM_FILE: program(list(card["inputs"].values()), model.classes).encode(),
    }
    return seal_archive(BUNDLE_KIND, members, {"run_sha256": digest_bytes((run / runs.RUN).read_bytes())})


def _card_text(run: Path, card: Mapping[str, Any], pool: str | None) -> str:
    """Model card as Markdown: what the file does, what the run knows, and what its authors have to add."""
    answers = ", ".join(card["classes"])
    lines = ["# Model card", "", f"{card['strategy']} of {', '.join(card['weights'])}; answers {answers}."]
    lines += ["", "## This file", "", *_about_file(card, pool)]
    for section in model_card(read_record(run)):
        lines += ["", f"## {section.title}", "", *section.known]
        lines += ["", *(f"To be filled in: {text}" for text in section.open)]
    return "\n".join(lines) + "\n"


def _about_file(card: Mapping[str, Any], pool: str | None) -> list[str]:
    """What `model.keras` does; `pool` is how the run itself answers for patients, who are not in the file."""
    threshold, method = card["threshold"], card["calibration"]
    called = (
        "The most probable class is the answer."
        if threshold is None
        else f"It is called '{card['positive']}' from a probability of {threshold:.4g} on."
    )
    lines = [
        f"It answers one image, {'not calibrated' if method is None else f'calibrated ({method})'}. {called}"
    ]
    if pool is not None:
        lines.append(
            f"Scores and threshold below are those of patients, whose images `featstore predict` pools ({pool});"
            " this file does not."
        )
    return lines


def _licences_text(card: Mapping[str, Any]) -> str:
    named = [f"{name}: {text}" for name, text in card["licences"].items()]
    return "\n".join(
        [
            "Licences of the networks' weights, as the documentation of Keras 2 gives them for those it publishes.",
            "Weights that were tuned from them, or given as a file, may have terms of their own.",
            "",
            *named,
            "",
            "The head was fitted with featstore (Apache-2.0) on data whose terms are those of the data.",
            "",
        ]
    )


def program(sides: Sequence[int], classes: Sequence[str]) -> str:
    """Ten lines of plain Keras that use an exported model."""
    return f'''import sys

import keras
import numpy as np

model = keras.saving.load_model("{MODEL_FILE}", safe_mode=True)
for path in sys.argv[1:]:  # PNG or JPEG; `featstore convert` makes PNG of the rest
    sized = [keras.utils.load_img(path, target_size=(s, s), interpolation="bilinear") for s in {list(sides)}]
    asked = [np.asarray(image, "float32")[None] for image in sized]
    answer = model.predict(asked if len(asked) > 1 else asked[0], verbose=0)[0]
    print(path, dict(zip({list(classes)!r}, answer.tolist())))
'''
