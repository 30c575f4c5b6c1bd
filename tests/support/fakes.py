"""Stand-ins that several tests share: a backbone without TensorFlow, and small data sets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from featstore.serialization import digest_bytes
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, ImageRecord, View

if TYPE_CHECKING:
    from pathlib import Path

DECODING = Decoding("pillow 0.0.0")
RECIPE = "rotate(40)|shift(0.5)|flip(hv)|fill(nearest)"


def spec(name: str = "Alpha", side: int = 16, dimension: int = 12, weights: str = "random:0") -> BackboneSpec:
    return BackboneSpec(name, weights, side, "official", dimension)


def key(backbone: BackboneSpec | None = None, view: View = IDENTITY) -> FeatureKey:
    return FeatureKey(backbone or spec(), view, DECODING)


class GridBackbone:
    """Average colour of the cells of a 2 x 2 grid, scaled by a number that its name gives."""

    batch_size = effective_batch_size = 4

    def __init__(self, identity: BackboneSpec, delay: float = 0.0) -> None:
        assert identity.dimension == 12
        self.spec = identity
        self.delay = delay
        self.images_seen = 0

    def embed(self, images):
        assert images.shape == (self.batch_size, self.spec.input_size, self.spec.input_size, 3)
        time.sleep(self.delay)
        # The last batch is padded with its last image.
        self.images_seen += 1 + sum((one != two).any() for one, two in zip(images[1:], images, strict=False))
        half = self.spec.input_size // 2
        cells = images.reshape(len(images), 2, half, 2, half, 3)
        scale = 1 + sum(self.spec.name.encode()) % 7
        rows = [cell.mean(axis=(1, 3), dtype=np.float64).ravel() / scale for cell in cells]
        return np.array(rows, np.float32)


def write_images(folder: Path, count: int, seed: int = 0, classes: tuple[str, ...] = ("ill", "well")) -> Path:
    """`count` noisy 24 x 20 pictures; the first class is a little brighter. Two images a patient."""
    rng = np.random.default_rng(seed)
    lines = ["path,label,group"]
    for i in range(count):
        label = classes[(i // 2) % len(classes)]
        path = folder / label / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 200, (24, 20, 3)) + 25 * (label == classes[0])
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        lines.append(f"{label}/{i:03d}.png,{label},p{i // 2}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def records(folder: Path, count: int, seed: int = 0) -> dict[str, ImageRecord]:
    """Records of `write_images`, by id."""
    manifest = write_images(folder, count, seed)
    rows = []
    for line in manifest.read_text().splitlines()[1:]:
        name, label, group = line.split(",")
        rows.append(ImageRecord(digest_bytes((folder / name).read_bytes()), folder / name, label, group))
    return {row.id: row for row in rows}
