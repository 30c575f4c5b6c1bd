"""A network of timm, computed by PyTorch, beside one of featstore.

A row says what the network is called and how long its vector is; a function loads it. timm fetches the weights
(ImageNet, from its own hub) the first time, so that this script alone needs a network connection once.

    pip install timm
    python examples/timm_network.py
    featstore --plugin examples/timm_network.py extract DATA --backbones ResNet18,EfficientNetLite0
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featstore
from featstore.backbones.catalog import Row
from featstore.registry import add_plugin
from featstore.types import BackboneSpec

MODELS = {"ResNet18": "resnet18.a1_in1k"}


@dataclass(frozen=True)
class Timm:
    """A network of timm up to its pooling; image by image, so that no row sees another."""

    spec: BackboneSpec
    batch_size: int
    network: Any

    @property
    def effective_batch_size(self) -> int:
        """Images computed at a time."""
        return 1

    def embed(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map ``(batch, side, side, 3)`` RGB values in 0..255 to ``(batch, dimension)``."""
        import torch

        mean, std = (np.float32(self.network.pretrained_cfg[key]) for key in ("mean", "std"))
        ready = torch.from_numpy(((images / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            return np.concatenate([self.network(image[None]).numpy() for image in ready])


def load(spec: BackboneSpec, weights: Path | None, batch_size: int) -> Timm:  # noqa: ARG001
    """Load the network without its head."""
    import timm

    return Timm(spec, batch_size, timm.create_model(MODELS[spec.name], pretrained=True, num_classes=0).eval())


BACKBONES = (Row("ResNet18", loader=f"{__name__}:load", version="a1_in1k", input_size=224, dimension=512),)

if __name__ == "__main__":
    add_plugin(__file__)
    data = featstore.make_phantoms("runs/phantoms", patients=24)
    for part in featstore.extract(data, backbones=["ResNet18", "EfficientNetLite0"]).keys:
        print(f"{part.backbone} with the weights {part.weights[:19]}: {part.stored_now} vectors")
    for scored in featstore.compare(data, strategies=["concat_logreg"]).candidates:
        print(f"{scored.candidate.label:20} AUC {scored.estimates['auc'].mean:.3f}")
