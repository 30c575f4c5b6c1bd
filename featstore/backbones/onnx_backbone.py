"""ONNX networks as backbones: ``--backbones RADDINO=model.onnx``, computed by onnxruntime (the extra ``onnx``).

What the graph does not say stands in a small file beside it, ``model.onnx.json`` (`Settings`). Both are in the key of
every vector: the digest of the file, and that of the settings in the version of the row.

A file may be a stranger's. A reader of the few fields of the format that matter walks through it first, in Python: a
library that parses all of it would be the very thing to guard. It refuses data outside the file, operators that are
not the standard's, loops, random numbers and tensors that announce more than they hold. Then another process, with
limits on memory and time, computes one image, and tells the shape of what comes out. Only then is it opened here.

Every image goes through the network alone, on one thread, and several images side by side: so a vector depends
neither on its neighbours nor on the number of threads (law 2).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featstore.backbones.catalog import Row
from featstore.errors import (
    BackboneError,
    RefusedFileError,
    UnknownNameError,
    UsageError,
    WeightsError,
    did_you_mean,
)
from featstore.isolated_reading import LostError, call_isolated
from featstore.processes import threads
from featstore.serialization import DocumentError, digest, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featstore.types import BackboneSpec, Features

SUFFIX: Final = ".onnx"
REVISION: Final = 1
"""Raised when this module changes a number."""


# What a row knows of a file


@dataclass(frozen=True, slots=True)
class Settings:
    """How pixels become the input of a network, and its output a vector: the fields of ``model.onnx.json``.

    Pixels of 0..255 are divided by `scale`; then the mean is taken off, and what is left divided by the standard
    deviation.

    Attributes
    ----------
    input_size
        Side of the square input in pixels; may be left out if the graph fixes it.
    mean, std
        One number, or one for each channel in the order of the network.
    scale
        255, so that mean and std are about pixels of 0..1; 1 where they are about pixels of 0..255.
    channels
        ``RGB``, ``BGR``, or ``grey``: the mean of the three, where the network takes one channel.
    layout
        ``NCHW`` or ``NHWC``; may be left out if the graph fixes where the channels are.
    output
        Name of an output, or of any tensor inside; may be left out if there is one output.
    pooling
        ``none``: the output is a vector. ``cls``: the first of its tokens. ``mean``: the mean of its tokens.
        ``avg``: the mean over a map, in the layout of the input. Must be said for tokens only.
    skip_tokens
        How many leading tokens ``mean`` leaves out: 1 for a class token, more for registers.
    """

    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    channels: str = "RGB"
    layout: str = "NCHW"
    output: str = ""
    pooling: str = ""
    skip_tokens: int = 0


POOLINGS: Final = {2: ("none",), 3: ("cls", "mean"), 4: ("avg",)}
"""What can be done to an output, by its number of axes."""
CHANNELS: Final = {"RGB": 3, "BGR": 3, "grey": 1}
LAYOUTS: Final = ("NCHW", "NHWC")
IMAGENET: Final = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LARGEST_SIDE, LONGEST_VECTOR = 4096, 1 << 17


def state(path: Path) -> list[int]:
    """What tells whether a file or its settings are others than before: sizes and times of change.

    Raises
    ------
    WeightsError
        If there is no such file.
    """
    if not path.is_file():
        raise WeightsError(f"There is no network {path}.", f"Check the path of the file: NAME=FILE{SUFFIX}.")
    beside = sidecar(path)
    found = [path.stat(), *([beside.stat()] if beside.is_file() else [])]
    return [number for one in found for number in (one.st_size, one.st_mtime_ns)]


def sidecar(path: Path) -> Path:
    """File of the settings of a network."""
    return path.with_name(f"{path.name}.json")


def parse_settings(name: str, text: str) -> dict[str, Any]:
    """Read ``input_size=224,mean=0.485/0.456/0.406,std=0.5,pooling=cls``: what could stand in ``model.onnx.json``.

    Raises
    ------
    UsageError
        If a part is no field, or its value none that the field can have.

    Examples
    --------
    >>> parse_settings("mine", "input_size=224,mean=0.5/0.4/0.3,channels=BGR")
    {'input_size': 224, 'mean': [0.5, 0.4, 0.3], 'channels': 'BGR'}
    """
    known = [one.name for one in fields(Settings)]
    found: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise UsageError(
                f"{name}: {part[:60]!r} is no setting of an ONNX file.",
                f"{did_you_mean(key, known)} Write for instance {name}=model.onnx[{_EXAMPLE}].",
            )
        if key in found:
            raise UsageError(f"{name}: {key} is said twice.", "Leave one of them out.")
        try:
            found[key] = _value_of(key, value)
        except ValueError:
            raise UsageError(
                f"{name}: {part[:60]!r} cannot be.", f"Write for instance {name}=model.onnx[{_EXAMPLE}]."
            ) from None
    return found


def _value_of(key: str, value: str) -> Any:  # noqa: ANN401
    if key in {"input_size", "skip_tokens"}:
        return int(value)
    if key == "scale":
        return float(value)
    if key in {"mean", "std"}:
        numbers = [float(number) for number in value.split("/")]
        return numbers if len(numbers) > 1 else numbers[0]
    return value.strip()


_EXAMPLE: Final = "input_size=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"


def examine(name: str, path: Path, given: Mapping[str, Any] | None = None) -> tuple[Settings, int]:
    """Settings of a network, completed from its graph, and the length of its vector.

    Parameters
    ----------
    name
        Of the network.
    path
        Its file; settings may lie beside it.
    given
        Fields of `Settings` that go before those in the file beside it.

    Raises
    ------
    RefusedFileError
        If the file could do harm, or is damaged.
    WeightsError
        If graph and settings do not say together what the network takes and gives.
    BackboneError
        If onnxruntime is not installed.
    """
    return _examined(name, path, json.dumps(dict(given or {})), *state(path))


@lru_cache
def _examined(name: str, path: Path, given: str, *_state: int) -> tuple[Settings, int]:
    _require_runtime()
    graph = read_graph(path)
    settings = _complete(name, path, {**_written(path), **json.loads(given)}, graph)
    try:
        (shape, steady), _ = call_isolated(f"{__name__}:probe", path, asdict(settings))
    except LostError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", _EXPORT) from error
    settings = replace(settings, pooling=_pooling(path, settings, shape))
    dimension = shape[3 if settings.layout == "NHWC" and len(shape) == len("NHWC") else -1]
    if settings.pooling == "avg" and settings.layout == "NCHW":
        dimension = shape[1]
    if not 1 <= dimension <= LONGEST_VECTOR:
        raise WeightsError(
            f"{path} gives vectors of {dimension:,} numbers.", f"Name a shorter output in {sidecar(path)}."
        )
    if not steady:
        raise WeightsError(f"{path} gives other numbers for the same image each time.", _EXPORT)
    return settings, dimension


def row(name: str, path: Path, settings: Settings, dimension: int) -> Row:
    """Row of the catalogue of a network that was examined."""
    megabytes = path.stat().st_size / 1e6 if path.is_file() else 0.0
    return Row(
        name,
        preprocess=f"(pixels / {settings.scale:g} - mean) / std, {settings.channels}",
        input_size=settings.input_size,
        dimension=dimension,
        weights_file=str(path),
        megabytes=250 + 2 * megabytes,
        loader=f"{__name__}:load",
        version=f"onnx{REVISION}-{digest(asdict(settings))[:16]}",
    )


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Settings that `dataclasses.asdict` described."""
    found: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Settings(**found)


_NEWER: Final = "Update onnxruntime, or export the network for an older version of ONNX: opset_version=17"
_EXPORT: Final = (
    "Export the network again, for inference: standard operators, weights inside the file, no random numbers."
)


def _written(path: Path) -> dict[str, Any]:
    """What the file beside a network says."""
    beside = sidecar(path)
    if not beside.is_file():
        return {}
    try:
        found = read(beside)
    except (DocumentError, OSError) as error:
        raise WeightsError(f"{beside} cannot be read: {error}.", "Write it as JSON.") from error
    known = [one.name for one in fields(Settings)]
    if not isinstance(found, dict):
        raise WeightsError(f"{beside} is no JSON object.", f"Write for instance {_example({})}.")
    if unknown := [key for key in found if key not in known]:
        raise WeightsError(f"{beside} has no field {unknown[0][:50]!r}.", did_you_mean(unknown[0], known))
    return found


def _example(found: Mapping[str, Any]) -> str:
    return json.dumps({"input_size": 224, **IMAGENET, **found})


def _complete(name: str, path: Path, written: Mapping[str, Any], graph: Graph) -> Settings:
    """Settings as they are written, and for the rest what the graph leaves no doubt about."""
    takes, layout, side, depth = _input(path, graph, written)
    found: dict[str, Any] = {
        "input_size": side,
        "layout": layout,
        "channels": "grey" if depth == 1 else "RGB",
    }
    found = {key: value for key, value in {**found, **written}.items() if value is not None}
    missing = [key for key in ("input_size", "mean", "std", "layout") if key not in found]
    enough = {"input_size": 224, **IMAGENET, **({"layout": "NCHW"} if "layout" in missing else {})}
    enough |= {key: found[key] for key in ("input_size", "mean", "std") if key in found}
    asked = {**enough, **written}
    if missing:
        raise WeightsError(
            f"{name}: {path} does not say the {' and '.join(missing)} of its input {takes.name!r} {takes.shown}.",
            f"Write {sidecar(path)} beside it: {json.dumps(asked)}{_OF_IMAGENET * ('mean' in missing)}; or say it in"
            f" the command: '{name}={path}[{_bracket(asked)}]'.",
        )
    if "output" not in found and len(graph.outputs) > 1:
        asked["output"] = graph.outputs[0]
        raise WeightsError(
            f"{name}: {path} has {len(graph.outputs)} outputs: {_listed(graph.outputs)}.",
            f"Say which in {sidecar(path)}: {json.dumps(asked)}; or in the command:"
            f" '{name}={path}[{_bracket(asked)}]'.",
        )
    found.setdefault("output", graph.outputs[0] if graph.outputs else "")
    if found["output"] not in graph.tensors:
        raise UnknownNameError(
            f"{path} has no tensor {str(found['output'])[:80]!r}.",
            did_you_mean(str(found["output"]), graph.outputs),
        )
    return _checked(path, found, side, layout, depth)


_OF_IMAGENET: Final = " (mean and std here are those of ImageNet, of pixels of 0..1)"


def _bracket(said: Mapping[str, Any]) -> str:
    """Settings as the command takes them."""
    return ",".join(
        f"{key}={'/'.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in said.items()
    )


def _checked(
    path: Path, found: dict[str, Any], side: int | None, layout: str | None, depth: int | None
) -> Settings:
    """Settings whose every field can be meant."""
    beside = str(sidecar(path)) if sidecar(path).is_file() else "The command"
    for key in ("mean", "std"):
        values = found[key] if isinstance(found[key], list) else [found[key]]
        found[key] = tuple(values)
    whole = [found["input_size"], found.get("skip_tokens", 0)]
    numbers = [*found["mean"], *found["std"], found.get("scale", 255.0)]
    right = {
        "input_size": _is_whole(whole[0]) and 1 <= whole[0] <= LARGEST_SIDE and side in {None, whole[0]},
        "skip_tokens": _is_whole(whole[1]) and whole[1] >= 0,
        "mean, std or scale": all(type(n) in {int, float} for n in numbers)
        and all(n > 0 for n in numbers[len(found["mean"]) :]),
        "channels": found["channels"] in CHANNELS
        and CHANNELS[found["channels"]] == (depth or CHANNELS[found["channels"]]),
        "layout": found["layout"] in LAYOUTS and layout in {None, found["layout"]},
        "pooling": found.get("pooling", "") in {"", *(p for some in POOLINGS.values() for p in some)},
    }
    for what, is_right in right.items():
        if not is_right:
            raise WeightsError(
                f"{beside} says something about {what} that cannot be, or that the graph contradicts.",
                "docs/how-to/onnx.md says what each field means.",
            )
    depth = CHANNELS[found["channels"]]
    for key in ("mean", "std"):
        if len(found[key]) not in {1, depth}:
            raise WeightsError(
                f"{beside} has {len(found[key])} numbers for {key}, and the network {depth} channels.",
                f"Give one number, or {depth}.",
            )
        found[key] = tuple(float(n) for n in (found[key] * depth if len(found[key]) == 1 else found[key]))
    return Settings(**{**found, "scale": float(found.get("scale", 255.0))})


def _is_whole(value: object) -> bool:
    return type(value) is int


def _input(
    path: Path, graph: Graph, written: Mapping[str, Any]
) -> tuple[Tensor, str | None, int | None, int | None]:
    """The input, and what the graph says of its layout, side and number of channels; None where it is open."""
    if (
        len(graph.inputs) != 1
        or len(graph.inputs[0].shape) != len("NCHW")
        or graph.inputs[0].kind not in KINDS
    ):
        raise WeightsError(
            f"{path} takes {_listed([f'{one.name} {one.shown}{one.type}' for one in graph.inputs]) or 'nothing'}, not"
            " one batch of images.",
            "Export the image part of the network alone: one float32 input of four axes.",
        )
    takes = graph.inputs[0]
    many, second, third, last = takes.shape
    if many not in {None, 1}:
        raise WeightsError(
            f"{path} takes {many} images at a time, and here each goes alone.",
            "Export the network for one image, or for any number (dynamic_axes, dynamic_shapes).",
        )
    if not {second, last} & {1, 3, None}:
        raise WeightsError(
            f"{path} takes {takes.name} {takes.shown}: images of neither 1 nor 3 channels.",
            "Export a network of grey or colour images.",
        )
    depths = (1, 3)
    layout = (
        "NCHW"
        if second in depths and last not in depths
        else "NHWC"
        if last in depths and second not in depths
        else None
    )
    asked = layout or written.get("layout")
    depth, sides = (second, (third, last)) if asked == "NCHW" else (last, (second, third))
    if asked is None:
        return takes, layout, None, None
    fixed = {side for side in sides if side is not None}
    if len(fixed) > 1:
        raise WeightsError(
            f"{path} takes images of {sides[0]} x {sides[1]} pixels.",
            "featstore's images are square: export the network for a square input.",
        )
    return takes, layout, next(iter(fixed), None), depth


def _pooling(path: Path, settings: Settings, shape: Sequence[int]) -> str:
    able = POOLINGS.get(len(shape), ())
    if settings.pooling == "mean" and len(shape) == 3 and settings.skip_tokens >= shape[1]:  # noqa: PLR2004
        raise WeightsError(
            f"{path} gives {shape[1]} tokens, and skip_tokens={settings.skip_tokens} leaves none.",
            "Say fewer: 1 for a class token, 5 where four registers follow it.",
        )
    if settings.pooling in able:
        return settings.pooling
    if len(able) == 1 and not settings.pooling:
        return able[0]
    said = f" and pooling {settings.pooling!r}" if settings.pooling else ""
    if not able or settings.pooling:
        raise WeightsError(
            f"{path} gives {settings.output!r} of shape {tuple(shape)}{said}: that makes no vector.",
            f"Name another output in {sidecar(path)}, or another pooling: none for a vector, cls or mean for tokens,"
            " avg for a map.",
        )
    raise WeightsError(
        f"{path} gives {shape[1]} tokens of {shape[2]} numbers in {settings.output!r}.",
        f'Say in {sidecar(path)} what becomes of them: "pooling": "cls" (the first) or "mean" (of all).',
    )


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*(name[:80] for name in names[:most]), *more])


# The network


@dataclass(frozen=True, slots=True)
class OnnxBackbone:
    """A network that onnxruntime computes, image by image; see `featstore.types.Backbone`."""

    spec: BackboneSpec
    batch_size: int
    _settings: Settings = field(repr=False)
    _session: Any = field(repr=False, compare=False)
    _takes: str = field(repr=False)
    _half: bool = field(repr=False, default=False)

    @property
    def effective_batch_size(self) -> int:
        """Images that go through the network together: one, however many threads there are."""
        return 1

    @property
    def libraries(self) -> str:
        """Name and version of what computes."""
        return f"onnxruntime {version('onnxruntime')}"

    def embed(self, images: NDArray[np.float32]) -> Features:
        """Map ``(batch_size, side, side, 3)`` float32 of 0..255 to ``(batch_size, dimension)`` float32."""
        with ThreadPoolExecutor(max(1, min(threads(), len(images)))) as pool:
            vectors: Features = np.stack(list(pool.map(self._vector, images)))
        return vectors

    def _vector(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        given = _prepared(self._settings, image).astype(np.float16 if self._half else np.float32)
        (out,) = self._session.run([self._settings.output], {self._takes: given})
        vector: NDArray[np.float32] = _pooled(self._settings, out)[0]
        return vector


def load(spec: BackboneSpec, weights: Path | None, batch_size: int) -> OnnxBackbone:
    """Open a network; the loader of all rows of this module.

    Raises
    ------
    RefusedFileError
        If the file could do harm, or is damaged.
    """
    from featstore.backbones import catalog

    path, settings = catalog.network_file(spec.name)
    used = weights or path
    if used != path:
        examine(spec.name, used)  # it may be a stranger's, too
    session, graph = _open(used, settings)
    takes = graph.inputs[0]
    return OnnxBackbone(spec, batch_size, settings, session, takes.name, takes.kind == FLOAT16)


def probe(path: Path, settings: Mapping[str, Any]) -> tuple[tuple[list[int], bool], list[NDArray[Any]]]:
    """Compute an image twice, in a process that may die of it: shape of the output, and whether it was the same."""
    asked = settings_from(settings)
    try:
        session, graph = _open(path, asked)
        side = asked.input_size
        noise = np.random.default_rng(0).uniform(0, 255, (side, side, 3)).astype(np.float32)
        half = graph.inputs[0].kind == FLOAT16
        given = {graph.inputs[0].name: _prepared(asked, noise).astype(np.float16 if half else np.float32)}
        first, again = (session.run([asked.output], given)[0] for _ in range(2))
    except (RefusedFileError, BackboneError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        why = re.sub(r"/\S+\.cc:\d+ .*?\) (?=[A-Z])", "", why)[:300].rstrip(".")
        remedy = _NEWER if "IR version" in why or "opset" in why.lower() else _EXPORT
        raise RefusedFileError(f"{path} is refused by onnxruntime: {why}.", remedy) from error
    if not isinstance(first, np.ndarray) or first.dtype.kind != "f":
        kind = first.dtype if isinstance(first, np.ndarray) else "no array"
        raise RefusedFileError(
            f"{path} gives {kind} in {asked.output!r}, and features are float16, float32 or float64.",
            "Name another output, before the classes are told: output=TENSOR",
        )
    return (list(first.shape), first.tobytes() == again.tobytes()), []


def _require_runtime() -> Any:  # noqa: ANN401
    try:
        import onnxruntime
    except ImportError as error:
        raise BackboneError("onnxruntime is not installed.", "pip install 'featstore[onnx]'") from error
    return onnxruntime


def _open(path: Path, settings: Settings) -> tuple[Any, Graph]:
    """A session on the very bytes that were looked at."""
    runtime = _require_runtime()
    data = _bytes(path)
    graph = _graph(path, data)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if settings.output not in graph.outputs:
        data += _as_output(settings.output)
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"]), graph


def _as_output(tensor: str) -> bytes:
    """Bytes that, put behind a model, make a tensor one of its outputs: messages that come twice are merged."""
    name = _sized(0x0A, tensor.encode())
    return _sized(0x3A, _sized(0x62, name))


def _sized(tag: int, data: bytes) -> bytes:
    size, digits = len(data), bytearray([tag])
    while size > 0x7F:  # noqa: PLR2004
        digits.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*digits, size]) + data


def _prepared(settings: Settings, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Input of the network, a batch of one, from an image ``(side, side, 3)`` of RGB values in 0..255."""
    if settings.channels == "grey":
        image = image.mean(axis=2, keepdims=True)
    elif settings.channels == "BGR":
        image = image[..., ::-1]
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    ready = (image / np.float32(settings.scale) - mean) / std
    return np.ascontiguousarray(ready.transpose(2, 0, 1) if settings.layout == "NCHW" else ready)[np.newaxis]


def _pooled(settings: Settings, out: NDArray[Any]) -> NDArray[np.float32]:
    """Vector of a batch of one, summed in float64 where something is summed."""
    if settings.pooling == "cls":
        out = out[:, 0]
    elif settings.pooling == "mean":
        out = out[:, settings.skip_tokens :].mean(axis=1, dtype=np.float64)
    elif settings.pooling == "avg":
        out = out.mean(axis=(2, 3) if settings.layout == "NCHW" else (1, 2), dtype=np.float64)
    return np.asarray(out, np.float32)


# What is in a file: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, and the wire format of protocol buffers

DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Of operators that the standard defines; all others are code of somebody."""
LOOPS: Final = frozenset({"Loop", "Scan"})
RANDOM: Final = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip
FLOAT, FLOAT16 = 1, 10
KINDS: Final = (FLOAT, FLOAT16)
_TYPES: Final = {
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "text", 9: "bool", 11: "float64",
    16: "bfloat16",
}  # fmt: skip
LARGEST_FILE: Final = 2 << 30
"""Bytes of a protocol buffer at most."""
MOST_FIELDS, DEEPEST, LONGEST_TEXT = 1 << 21, 8, 1 << 10
EXTERNAL: Final = 1
VALUES_PER_BYTE: Final = 4
"""Of the narrowest types of tensors."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input of a graph: name, number of its type, sizes (None where they are open)."""

    name: str
    kind: int
    shape: tuple[int | None, ...]

    @property
    def shown(self) -> str:
        """Sizes, with a question mark for an open one."""
        return f"({', '.join('?' if size is None else str(size) for size in self.shape)})"

    @property
    def type(self) -> str:
        """Type of its numbers, unless it is what images are."""
        return "" if self.kind in KINDS else f" of {_TYPES.get(self.kind, 'another type')}"


@dataclass(frozen=True, slots=True)
class Graph:
    """What featstore wants to know of a network: inputs that are no weights, outputs, all tensors, and operators."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    tensors: frozenset[str]
    operators: Mapping[str, int]


def read_graph(path: Path) -> Graph:
    """Look through an ONNX file; nothing of it is run, and no library opens it.

    Raises
    ------
    RefusedFileError
        If it is damaged, needs other files or operators that are not the standard's, loops, draws random numbers, or
        announces more than it holds.
    """
    return _graph(path, _bytes(path))


def _bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size >= LARGEST_FILE:
        raise RefusedFileError(
            f"{path} is refused: it has {size:,} bytes.", "Export a network of less than 2 GiB."
        )
    return path.read_bytes()


def _graph(path: Path, data: bytes) -> Graph:
    walk = _Walk()
    try:
        walk.model(memoryview(data))
    except _RefusedError as error:
        raise RefusedFileError(f"{path} is refused: {error}.", error.remedy) from error
    except (IndexError, UnicodeDecodeError, OverflowError, AttributeError, TypeError) as error:
        raise RefusedFileError(f"{path} is refused: it is no whole ONNX file.", _FETCH) from error
    inputs = tuple(one for one in walk.inputs if one.name not in walk.weights)
    return Graph(inputs, tuple(dict.fromkeys(walk.outputs)), frozenset(walk.tensors), walk.operators)


_FETCH: Final = "Fetch or export it again: downloads that failed and Git-LFS pointers look like this."
_ONE_FILE: Final = (
    "Save it as one file: python -c \"import onnx; onnx.save(onnx.load('model.onnx'), 'whole.onnx')\", or"
    " torch.onnx.export(..., external_data=False)."
)


class _RefusedError(Exception):
    def __init__(self, why: str, remedy: str = _EXPORT) -> None:
        super().__init__(why)
        self.remedy = remedy


MODEL: Final = {7: "graph", 20: "training_info", 25: "functions"}
GRAPH: Final = {1: "node", 5: "initializer", 11: "input", 12: "output", 15: "sparse_initializer"}
NODE: Final = {2: "output", 4: "op_type", 5: "attribute", 7: "domain"}
ATTRIBUTE: Final = {
    5: "tensor",
    6: "graph",
    10: "tensor",
    11: "graph",
    22: "sparse_tensor",
    23: "sparse_tensor",
}
TENSOR: Final = {1: "dims", 8: "name", 13: "external_data", 14: "data_location"}
SPARSE_TENSOR: Final = {1: "tensor", 2: "tensor", 3: "dims"}
VALUE_INFO: Final = {1: "name", 2: "type"}
TYPE: Final = {1: "tensor_type"}
TENSOR_TYPE: Final = {1: "elem_type", 2: "shape"}
SHAPE: Final = {1: "dim"}
DIMENSION: Final = {1: "dim_value"}
"""Fields of the messages that are looked at; the other fields are skipped."""


class _Walk:
    """One way through a file, message by message."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[str] = []
        self.tensors: set[str] = set()
        self.weights: set[str] = set()
        self.operators: Counter[str] = Counter()
        self._fields = 0

    def model(self, data: memoryview) -> None:
        for name, value in self._each(data, MODEL):
            if name != "graph":
                raise _RefusedError("it brings functions or a training of its own")
            self._graph(_message(value), 0)
        if not self.operators:
            raise _RefusedError("it is no whole ONNX file", _FETCH)

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > DEEPEST:
            raise _RefusedError(f"its graphs are nested deeper than {DEEPEST}")
        for name, value in self._each(data, GRAPH):
            match name:
                case "node":
                    self._node(_message(value), depth)
                case "initializer":
                    self.weights.add(self._tensor(_message(value)))
                case "sparse_initializer":
                    self._sparse(_message(value))
                case "input" if depth == 0:
                    self.inputs.append(self._input(_message(value)))
                case "output" if depth == 0:
                    self.outputs += [_text(one) for _, one in self._each(_message(value), {1: "name"})]
        self.tensors.update(self.outputs)

    def _node(self, data: memoryview, depth: int) -> None:
        kind = domain = ""
        for name, value in self._each(data, NODE):
            match name:
                case "output" if depth == 0:
                    self.tensors.add(_text(value))
                case "op_type":
                    kind = _text(value)
                case "attribute":
                    self._attribute(_message(value), depth)
                case "domain":
                    domain = _text(value)
        self.operators[kind] += 1
        if domain not in DOMAINS:
            raise _RefusedError(f"its operator {kind[:40]!r} is of {domain[:40]!r}, not of the standard")
        if kind in LOOPS | RANDOM:
            raise _RefusedError(f"it {'has a loop' if kind in LOOPS else 'draws random numbers'} ({kind})")

    def _attribute(self, data: memoryview, depth: int) -> None:
        for name, value in self._each(data, ATTRIBUTE):
            match name:
                case "tensor":
                    self._tensor(_message(value))
                case "graph":
                    self._graph(_message(value), depth + 1)
                case "sparse_tensor":
                    self._sparse(_message(value))

    def _sparse(self, data: memoryview) -> None:
        sizes: list[int] = []
        for name, value in self._each(data, SPARSE_TENSOR):
            if name == "tensor":
                self._tensor(_message(value))
            else:
                sizes += _numbers(value)
        if math.prod(sizes) > LARGEST_FILE:
            raise _RefusedError("a tensor of it announces more than it holds")

    def _tensor(self, data: memoryview) -> str:
        """Name of a tensor that holds what it announces."""
        sizes: list[int] = []
        called = ""
        for name, value in self._each(data, TENSOR):
            if name == "dims":
                sizes += _numbers(value)
            elif name == "name":
                called = _text(value)
            elif name == "external_data" or value == EXTERNAL:
                raise _RefusedError("its weights lie in another file", _ONE_FILE)
        if min(sizes, default=0) < 0 or math.prod(sizes) > VALUES_PER_BYTE * len(data):
            raise _RefusedError(f"its tensor {called[:40]!r} announces more than it holds", _FETCH)
        return called

    def _input(self, data: memoryview) -> Tensor:
        called, kind = "", 0
        shape: tuple[int | None, ...] = ()
        for name, value in self._each(data, VALUE_INFO):
            if name == "name":
                called = _text(value)
                continue
            for _, tensor in self._each(_message(value), TYPE):
                for part, content in self._each(_message(tensor), TENSOR_TYPE):
                    if part == "shape":
                        shape = self._shape(_message(content))
                    else:
                        kind = _number(content)
        return Tensor(called, kind, shape)

    def _shape(self, data: memoryview) -> tuple[int | None, ...]:
        sizes = []
        for _, dimension in self._each(data, SHAPE):
            said = [_number(value) for _, value in self._each(_message(dimension), DIMENSION)]
            sizes.append(said[-1] if said and said[-1] > 0 else None)
        return tuple(sizes)

    def _each(self, data: memoryview, known: Mapping[int, str]) -> Iterator[tuple[str, int | memoryview]]:
        """Name and value of each known field of a message: a number, or bytes that are not copied."""
        at = 0
        while at < len(data):
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise _RefusedError(f"it has more than {MOST_FIELDS:,} parts")
            tag, at = _varint(data, at)
            if tag >> 32:
                raise _RefusedError("it is no whole ONNX file", _FETCH)
            value, at = _value(data, at, tag & 7)
            if (name := known.get(tag >> 3)) is not None:
                yield name, value


_WIDTHS: Final[Mapping[int, int | None]] = {1: 8, 2: None, 5: 4}
"""Bytes of a value by its wire type; None where they stand before it."""


def _value(data: memoryview, at: int, wire: int) -> tuple[int | memoryview, int]:
    """Value of a field, and where the next one begins."""
    if wire == 0:
        return _varint(data, at)
    if wire not in _WIDTHS:
        raise _RefusedError("it is no whole ONNX file", _FETCH)
    size = _WIDTHS[wire]
    if size is None:
        size, at = _varint(data, at)
    if at + size > len(data):
        raise _RefusedError("it ends too early", _FETCH)
    return data[at : at + size], at + size


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _RefusedError("it is no whole ONNX file", _FETCH)
    return value


def _text(value: int | memoryview) -> str:
    data = _message(value)
    if len(data) > LONGEST_TEXT:
        raise _RefusedError(f"it has a name of {len(data):,} bytes")
    return str(data, "utf-8")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value & (1 << 64) - 1, at
        shift += 7
        if shift > 63:  # noqa: PLR2004
            raise _RefusedError("it is no whole ONNX file", _FETCH)


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise _RefusedError("it is no whole ONNX file", _FETCH)
    return value - (1 << 64) if value >> 63 else value


def _numbers(value: int | memoryview) -> list[int]:
    """Values of a repeated number, packed or one by one."""
    if isinstance(value, int):
        return [_number(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_number(number))
    return found
