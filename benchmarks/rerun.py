"""Extracting again with nothing to do, against hashing the image files and nothing else."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from featstore.api.extract import extract
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.phantom import make_phantoms
from featstore.serialization import digest_file
from featstore.store.store import Store
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES, VIEWS, ROUNDS = 1000, 5, 5
RECIPE = "flip(h)"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="featstore-rerun-") as folder:
        data = make_phantoms(Path(folder) / "data", patients=IMAGES // 4, slices=4, size=256)
        cache = Path(folder) / "cache"
        files = sorted((Path(folder) / "data").rglob("*.png"))
        dry = extract(data, backbones=["ResNet50"], weights={"*": "random:1"}, cache=cache, dry_run=True)
        fill(data, cache, dry.keys[0].weights)
        hashing, again = [], []
        for _ in range(ROUNDS):
            hashing.append(timed(lambda: [digest_file(path) for path in files]))
            again.append(timed(lambda: rerun(data, cache)))
    print(f"{len(files)} PNG files of 256 x 256, ResNet50, {VIEWS} views, {ROUNDS} turns")
    print(f"hashing the files       {median(hashing):8.3f} s")
    print(f"extract, nothing to do  {median(again):8.3f} s, TensorFlow loaded: {'tensorflow' in sys.modules}")
    print(f"ratio                   {median(again) / median(hashing):8.1f}")


def fill(data: Path, cache: Path, weights: str) -> None:
    """Zeros in place of features: a run with nothing to do never looks at them."""
    store, ids = Store(cache), [record.id for record in scan(data).records]
    backbone = BackboneSpec("ResNet50", weights, 224, "official", 2048)
    for view in [IDENTITY, *(View(RECIPE, seed) for seed in range(1, VIEWS))]:
        for start in range(0, len(ids), 256):
            block = ids[start : start + 256]
            key = FeatureKey(backbone, view, Decoding(decoder_version()))
            store.write(key, block, np.zeros((len(block), backbone.dimension), np.float32))
    store.flush()


def rerun(data: Path, cache: Path) -> None:
    result = extract(
        data,
        backbones=["ResNet50"],
        weights={"*": "random:1"},
        recipe=RECIPE,
        seeds=range(1, VIEWS),
        cache=cache,
    )
    assert result.missing == 0


def timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


if __name__ == "__main__":
    main()
