"""A network of your own, in a file of your own, beside one of featstore.

featstore asks a network for one thing: a batch of images in, a batch of vectors out. What computes them is
yours: PyTorch, ONNX, or, as here, NumPy: how strong fine and coarse texture are. It has no weights; its version
is in the key of its vectors. Beside it EfficientNet-Lite 0 with the ImageNet weights that come with featstore,
on generated slices of 24 patients; nothing is fetched.

    python examples/own_network.py
    featstore --plugin examples/own_network.py extract DATA --backbones Texture,EfficientNetLite0
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import featstore
from featstore.backbones.catalog import Row
from featstore.registry import add_plugin
from featstore.types import BackboneSpec


@dataclass(frozen=True)
class Texture:
    """Power spectrum of the grey values in rings around frequency zero, coarse to fine, in decibels."""

    spec: BackboneSpec
    batch_size: int

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time."""
        return self.batch_size

    def embed(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map ``(batch, side, side, 3)`` RGB values in 0..255 to ``(batch, dimension)``."""
        side, rings = self.spec.input_size, self.spec.dimension
        power = np.abs(np.fft.fft2(images.mean(axis=3))) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
        ring = np.minimum((frequency * 2 * rings).astype(int), rings - 1)
        means = [power[:, ring == number].mean(axis=1) for number in range(rings)]
        return (10 * np.log10(1 + np.stack(means, axis=1))).astype(np.float32)


def load(spec: BackboneSpec, weights: Path | None, batch_size: int) -> Texture:  # noqa: ARG001
    """Load the network; there is no file of weights to read."""
    return Texture(spec, batch_size)


BACKBONES = (Row("Texture", loader=f"{__name__}:load", version="1", input_size=128, dimension=32),)

if __name__ == "__main__":
    add_plugin(__file__)
    data = featstore.make_phantoms("runs/phantoms", patients=24)
    for part in featstore.extract(data, backbones=["Texture", "EfficientNetLite0"]).keys:
        print(f"{part.backbone} with the weights {part.weights[:19]}: {part.stored_now} vectors")
    for scored in featstore.compare(data, strategies=["concat_logreg"]).candidates:
        print(f"{scored.candidate.label:20} AUC {scored.estimates['auc'].mean:.3f}")
