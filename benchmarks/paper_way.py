"""featstore against the paper's way: Keras' ImageDataGenerator + model.predict, network by network.

Usage: python benchmarks/paper_way.py [--precision bfloat16] [--networks A,B,C] [--images 96]

Both start from the same PNG files and end with the same vectors in memory or on disk (identity view, official
preprocessing, seeded random weights, networks already built). The ratio is per round, both taking turns.
"""

from __future__ import annotations

import argparse
import itertools
import pkgutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from timing import report, take_turns

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import load_backbone
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.phantom import make_phantoms
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey

if TYPE_CHECKING:
    import numpy as np

BATCH = 16
DECODING = Decoding(decoder_version())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default="ResNet50,DenseNet201,InceptionV3")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = options.networks.split(",")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = make_phantoms(folder / "data", patients=options.images // 4, slices=4)
        records = {r.id: r for r in scan(data).records}
        backbones = [
            load_backbone(n, "random:1", batch_size=BATCH, **_precision(options.precision)) for n in names
        ]
        networks = [_keras(name) for name in names]
        fresh = itertools.count()
        contenders = {
            "Keras: flow_from_directory + predict": lambda: [
                keras_way(name, network, data.parent) for name, network in zip(names, networks, strict=True)
            ],
            f"featstore {options.precision}, one pass": lambda: featstore_way(
                backbones, records, Store(folder / f"cache{next(fresh)}")
            ),
        }
        print(f"{' + '.join(names)}, {len(records)} images")
        work = len(records) * len(names)
        report(take_turns(contenders, options.rounds), next(iter(contenders)), work, "vectors")


def _precision(precision: str) -> dict[str, str]:
    return {} if precision == "float32" else {"precision": precision}


def _keras(name: str):
    row = catalog.row(name)
    side = row.input_size
    build = pkgutil.resolve_name(row.builder)
    return build(weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3))


def keras_way(name: str, network, folder: Path) -> np.ndarray:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    row = catalog.row(name)
    generator = ImageDataGenerator(preprocessing_function=pkgutil.resolve_name(row.preprocess))
    flow = generator.flow_from_directory(
        folder, target_size=(row.input_size, row.input_size), batch_size=BATCH, class_mode=None, shuffle=False,
        interpolation="bilinear",
    )  # fmt: skip
    return network.predict(flow, verbose=0)


def featstore_way(backbones, records, store: Store) -> None:
    keys = [FeatureKey(b.spec, IDENTITY, DECODING) for b in backbones]
    todo = plan(keys, list(records), {})
    engine.run_pass(
        image_blocks(todo), records, DECODING, {b.spec: b for b in backbones}, store, engine.NullProgress()
    )


if __name__ == "__main__":
    main()
