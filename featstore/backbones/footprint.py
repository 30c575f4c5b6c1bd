"""Memory of the networks: what each adds to the peak of a process that has TensorFlow loaded.

Measured by ``python benchmarks/footprint.py`` on 2026-11-21 with TensorFlow 2.21: batches of 16, float32.
"""

from __future__ import annotations

from featstore.backbones import catalog

_MEGABYTES = {
    "InceptionV3": 532,
    "DenseNet121": 356,
    "DenseNet169": 443,
    "DenseNet201": 567,
    "ResNet50": 414,
    "Xception": 827,
    "VGG19": 766,
    "NASNetLarge": 1793,
    "InceptionResNetV2": 882,
    "VGG16": 716,
    "ResNet101": 636,
    "ResNet152": 744,
    "ResNet50V2": 424,
    "ResNet101V2": 629,
    "ResNet152V2": 791,
    "MobileNet": 227,
    "MobileNetV2": 325,
    "MobileNetV3Small": 128,
    "MobileNetV3Large": 266,
    "NASNetMobile": 353,
    "EfficientNetV2B0": 219,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 287,
    "EfficientNetV2B3": 392,
    "EfficientNetV2S": 707,
}
_UNKNOWN = (250.0, 35.0)
"""For a network that was not measured: a constant, and so much per GFLOP of an image."""


def footprint(name: str) -> float:
    """Peak megabytes (10^6 bytes) of a network alone, beyond the process itself."""
    constant, per_gflop = _UNKNOWN
    return _MEGABYTES.get(name) or constant + per_gflop * catalog.row(name).gflops
