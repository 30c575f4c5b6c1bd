"""The input pipeline alone, images per second: against Pillow decoding alone, and against Keras' ImageDataGenerator.

Usage: python benchmarks/pixels.py [DATA] [images]        (default: generated phantoms, 192 images of 256 px)
"""

from __future__ import annotations

import io
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from timing import report, take_turns

from featstore.extraction.pipeline import batches
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.recipe import parse_recipe
from featstore.images.scan import scan
from featstore.phantom import make_phantoms
from featstore.types import IDENTITY, BackboneSpec, Decoding, FeatureKey, View

SIDE = 299
PAPER = str(parse_recipe("paper"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(sys.argv[1]) if len(sys.argv) > 1 else make_phantoms(Path(folder))
        count = int(sys.argv[2]) if len(sys.argv) > 2 else 192
        records = {r.id: r for r in scan(data).records[:count]}
        print(f"{len(records)} images of {data} to {SIDE} px, one thread")
        contenders = {
            "Pillow: decode to RGB": lambda: [pillow(r.path) for r in records.values()],
            "featstore: identity view": lambda: featstore_pixels(records, IDENTITY),
            "featstore: paper view": lambda: featstore_pixels(records, View(PAPER, 1)),
            "Keras ImageDataGenerator: paper view": lambda: keras_pixels([r.path for r in records.values()]),
        }
        report(take_turns(contenders, 3), "Pillow: decode to RGB", len(records), "images")


def pillow(path: Path) -> np.ndarray:
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def featstore_pixels(records: dict, view: View) -> int:
    decoding = Decoding(decoder_version())
    key = FeatureKey(BackboneSpec("None", "", SIDE, "official", 1), view, decoding)
    todo = plan([key], list(records), {})
    return sum(len(batch.ids) for batch in batches(image_blocks(todo), records, decoding, 16, threads=1))


def keras_pixels(paths: list[Path]) -> None:
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        shear_range=20, rotation_range=40, width_shift_range=0.5, height_shift_range=0.5, zoom_range=0.2,
        horizontal_flip=True, vertical_flip=True, fill_mode="nearest",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for path in paths:
            image = keras.utils.load_img(path, target_size=(SIDE, SIDE), interpolation="bilinear")
            generator.random_transform(keras.utils.img_to_array(image))


if __name__ == "__main__":
    main()
