"""Memory of the networks: what each adds to the peak of a process that has TensorFlow loaded.

Measured by ``python benchmarks/footprint.py`` in November 2026 with TensorFlow 2.21: batches of 16, float32.
"""

from __future__ import annotations

from featstore.backbones import catalog

_MEGABYTES = {
    "InceptionV3": 545,
    "DenseNet121": 365,
    "DenseNet169": 454,
    "DenseNet201": 581,
    "ResNet50": 424,
    "Xception": 847,
    "VGG19": 784,
    "NASNetLarge": 1836,
    "InceptionResNetV2": 903,
    "VGG16": 733,
    "ResNet101": 651,
    "ResNet152": 762,
    "ResNet50V2": 434,
    "ResNet101V2": 644,
    "ResNet152V2": 810,
    "MobileNet": 232,
    "MobileNetV2": 333,
    "MobileNetV3Small": 131,
    "MobileNetV3Large": 272,
    "NASNetMobile": 361,
    "EfficientNetV2B0": 224,
    "EfficientNetV2B1": 246,
    "EfficientNetV2B2": 294,
    "EfficientNetV2B3": 401,
    "EfficientNetV2S": 724,
    "ConvNeXtTiny": 1976,
    "MobileNet025": 97,
    "EfficientNetLite0": 278,
    "EfficientNetLite1": 308,
    "EfficientNetLite2": 310,
    "EfficientNetB0": 391,
    "EfficientNetB1": 450,
    "EfficientNetB2": 484,
    "EfficientNetB3": 841,
    "ConvNeXtSmall": 2045,
    "EfficientNetB4": 1416,
    "ConvNeXtBase": 3290,
    "EfficientNetV2M": 1195,
    "EfficientNetB5": 1759,
    "ConvNeXtLarge": 4377,
    "EfficientNetB6": 3192,
    "EfficientNetV2L": 2015,
    "EfficientNetB7": 4740,
    "ConvNeXtXLarge": 6967,
}
_UNKNOWN = (250.0, 35.0)
"""For a network of another package, which was not measured: a constant, and so much per GFLOP of an image."""


def footprint(name: str) -> float:
    """Peak megabytes (10^6 bytes) of a network alone, beyond the process itself."""
    constant, per_gflop = _UNKNOWN
    return _MEGABYTES.get(name) or constant + per_gflop * catalog.row(name).gflops
