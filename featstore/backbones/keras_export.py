"""A frozen network with a head on it as one Keras model of stock layers: what plain Keras loads, without featstore.

The networks are built as `keras_backbone.build` builds them, but not folded: the layers of
`featstore.backbones.folding` are featstore's own, and whoever opens the file has only Keras. Preprocessing is an
affine map of the colours of each pixel, which is measured on the network's own function and becomes one layer.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import build, fresh_layer_names, prepare_keras, preprocessing_function
from featstore.backbones.precision import FLOAT32
from featstore.backbones.weights import resolve_weights
from featstore.errors import BackboneError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import keras
    from numpy.typing import NDArray

    from featstore.backbones.catalog import Row
    from featstore.types import BackboneSpec

CARD = "card.json"
"""Member of the ``.keras`` archive in which the file says what it is; Keras passes it over."""
GREY_LEVELS = 255.0
ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class DenseLayer:
    """A layer of the head: ``activation(x @ kernel + bias)``, then ``* scale + offset`` where these are given.

    Attributes
    ----------
    kernel, bias
        ``(inputs, units)`` and ``(units,)`` float64.
    activation
        Keras' name of it.
    scale, offset
        ``(units,)`` float64, or None.
    """

    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]
    activation: str = "linear"
    scale: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None


def input_name(side: int) -> str:
    """Name of the input that takes images of so many pixels a side."""
    return f"image_{side}"


def require_exportable(spec: BackboneSpec) -> None:
    """Refuse, before anything is loaded, a network that cannot be put into a model of stock layers.

    Raises
    ------
    BackboneError
        If it is no network of Keras.
    UsageError
        If it does not compute in float32.
    """
    if spec.is_imported or spec.has_loader:
        raise BackboneError(
            f"{spec.name} is no network of Keras, so that it cannot be put into a Keras model.",
            "Fit a model without it: `featstore fuse DATA --backbones A,B`.",
        )
    if spec.precision != FLOAT32:
        raise UsageError(
            f"The model was fitted on vectors of {spec.precision}; an exported one computes in float32.",
            "Run `featstore extract DATA --precision float32`, and fuse again.",
        )


def build_model(
    networks: Sequence[tuple[BackboneSpec, str]], head: Sequence[DenseLayer], name: str
) -> keras.Model:
    """Keras model from images to probabilities.

    Parameters
    ----------
    networks
        Spec of each, and the choice of its weights; their vectors are put side by side in this order.
    head
        Layers on top, the first one first; a softmax follows them.
    name
        Of the model.

    Returns
    -------
    keras.Model
        Inputs ``(n, side, side, 3)``, RGB of 0..255, one for each size (`input_name`); output ``(n, classes)``.

    Raises
    ------
    BackboneError
        If a network has layers that are not Keras' own, or another preprocessing than one of each pixel's colours.
    """
    prepare_keras()
    import keras

    with fresh_layer_names():
        sides = sorted({spec.input_size for spec, _ in networks})
        inputs = {side: keras.Input((side, side, 3), name=input_name(side)) for side in sides}
        vectors = [_vector(spec, choice, inputs[spec.input_size]) for spec, choice in networks]
        joined = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate(name="vectors")(vectors)
        for at, part in enumerate(head):
            joined = _dense(part, f"head_{at + 1}", joined)
        output = keras.layers.Softmax(name="probability")(joined)
        asked = [inputs[side] for side in sides]
        return keras.Model(asked if len(asked) > 1 else asked[0], output, name=name)


def _vector(spec: BackboneSpec, choice: str, image: Any) -> Any:  # noqa: ANN401
    """Symbolic vector of one network."""
    row = catalog.row(spec.name)
    built = build(row, resolve_weights(row, choice), spec.preprocess)
    _require_stock(row, built)
    named = _renamed(built, spec.name)
    return named(_colours(row, spec.preprocess)(image))


def _renamed(network: keras.Model, name: str) -> keras.Model:
    """Give a network a name of its own: two of one kind may stand side by side."""
    import keras

    plain = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name)
    return keras.Model(network.inputs, network.outputs[0], name=plain)


def _colours(row: Row, preprocess: str) -> Any:  # noqa: ANN401
    """Layer that does the preprocessing of a network."""
    import keras

    matrix, offset = affine_colours(row, preprocess)
    name = f"colours_{''.join(letter if letter.isalnum() else '_' for letter in row.name)}"
    diagonal = np.diag(matrix)
    if np.array_equal(matrix, np.diag(diagonal)):
        return keras.layers.Rescaling(diagonal.tolist(), offset.tolist(), name=name)
    layer = keras.layers.Conv2D(3, 1, name=name, trainable=False)
    layer.build((None, None, None, 3))
    layer.set_weights([matrix[None, None].astype(np.float32), offset.astype(np.float32)])
    return layer


def affine_colours(row: Row, preprocess: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix ``(3, 3)`` and offset ``(3,)`` of a preprocessing ``rgb @ matrix + offset``, measured on it.

    Raises
    ------
    BackboneError
        If it is not affine in the colours of each pixel.
    """
    prepare = preprocessing_function(row, preprocess)

    def asked(colours: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.asarray(prepare(colours.astype(np.float32)[None, None]), np.float64)[
            0, 0
        ]
        return found

    offset = asked(np.zeros((1, 3)))[0]
    matrix = (asked(GREY_LEVELS * np.eye(3)) - offset) / GREY_LEVELS
    matrix[np.abs(matrix) < ROUNDING * np.abs(matrix).max()] = 0.0
    tried = np.random.default_rng(0).uniform(0, GREY_LEVELS, (64, 3))
    expected = asked(tried)
    if np.abs(tried @ matrix + offset - expected).max() > ROUNDING * max(1.0, np.abs(expected).max()):
        raise BackboneError(
            f"The preprocessing of {row.name} is more than a scale and an offset of colours.",
            "Fit a model without it: `featstore fuse DATA --backbones A,B`.",
        )
    return matrix, offset


def _dense(part: DenseLayer, name: str, below: Any) -> Any:  # noqa: ANN401
    import keras

    layer = keras.layers.Dense(part.kernel.shape[1], activation=part.activation, name=name)
    above = layer(below)
    layer.set_weights([part.kernel.astype(np.float32), part.bias.astype(np.float32)])
    if part.scale is None or part.offset is None:
        return above
    return keras.layers.Rescaling(part.scale.tolist(), part.offset.tolist(), name=f"{name}_scaled")(above)


def _require_stock(row: Row, network: keras.Model) -> None:
    """Refuse layers that plain Keras would not find, or that are code."""
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.Model):
            _require_stock(row, layer)
        elif not type(layer).__module__.startswith("keras.") or type(layer) is keras.layers.Lambda:
            raise BackboneError(
                f"{row.name} has a layer that is not Keras' own: {type(layer).__name__}.",
                "Fit a model without it: `featstore fuse DATA --backbones A,B`.",
            )


def save_model(model: keras.Model, path: Path, card: Mapping[str, Any]) -> None:
    """Write a model as ``.keras``, with what it is as member `CARD`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, about Keras' own arrays
        model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CARD, json.dumps(card, indent=1, sort_keys=True))


def run_model(path: Path, images: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Load a ``.keras`` file as anybody would, with ``safe_mode``, and ask it.

    Parameters
    ----------
    path
        The file.
    images
        ``(n, side, side, 3)`` by side, RGB values in 0..255.

    Returns
    -------
    ndarray
        ``(n, classes)`` probabilities.
    """
    import keras

    model = keras.saving.load_model(path, safe_mode=True, compile=False)
    asked = [images[side] for side in sorted(images)]
    found = model(asked if len(asked) > 1 else asked[0], training=False)
    return np.asarray(found, np.float64)


# The same as ONNX


def save_onnx(model: keras.Model, path: Path, images: Mapping[int, NDArray[np.float32]]) -> None:
    """Write a model as ONNX by tf2onnx; images are those that Keras traces it with."""
    import contextlib
    import sys
    import warnings

    batches = [images[side][:1] for side in sorted(images)]
    model(batches if len(batches) > 1 else batches[0])
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # of the converter about NumPy: nothing that a user could do
        model.export(path, format="onnx", verbose=False)


def run_onnx(path: Path, images: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Ask an ONNX file on the processor; arguments and answer are those of `run_model`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    asked = {input_name(side): batch for side, batch in images.items()}
    return np.asarray(session.run(None, asked)[0], np.float64)
