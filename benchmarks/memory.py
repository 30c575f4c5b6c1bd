"""Peak memory of an extraction at 1,000 and 10,000 images, against model.predict at the same batch size.

Usage: python benchmarks/memory.py [NETWORK] [small] [large]       (default: MobileNet025 1000 10000)

Each measurement is a process of its own; the number is its peak resident set.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from featstore.extraction.scheduler import peak_resident_bytes

BATCH = 16


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "MobileNet025"
    small, large = (int(a) for a in (sys.argv[2:4] or ("1000", "10000")))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_images(folder / "data", large, small)
        measured = {
            "keras predict": in_a_process("keras_way", name, folder / "small"),
            f"featstore, {small:,} images": in_a_process("featstore_way", name, folder / "small"),
            f"featstore, {large:,} images": in_a_process("featstore_way", name, folder / "data"),
        }
    print(f"{name}, batch {BATCH}")
    for what, peak in measured.items():
        print(f"{what:30} {peak:6.0f} MB   ratio to predict {peak / measured['keras predict']:.3f}")
    first, last = list(measured.values())[1:]
    print(f"growth from {small:,} to {large:,} images: {100 * (last / first - 1):+.1f} %")


def write_images(folder: Path, large: int, small: int) -> None:
    """Half a megapixel of noise would drown in decoding: small pictures, but as many as asked for."""
    rng = np.random.default_rng(0)
    for i in range(large):
        image = Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8))
        for root in (folder, folder.with_name("small"))[: 2 if i < small else 1]:
            path = root / ("a", "b")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def in_a_process(way: str, name: str, data: Path) -> float:
    command = [sys.executable, __file__, "child", way, name, str(data)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)  # noqa: S603
    return float(done.stdout.split()[-1])


def keras_way(name: str, data: Path) -> None:
    from featstore.backbones import catalog
    from featstore.backbones.keras_backbone import load_backbone  # noqa: F401  # the same imports as the other side

    row = catalog.row(name)
    side = row.input_size
    network = pkgutil.resolve_name(row.builder)(
        weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3)
    )
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    flow = ImageDataGenerator().flow_from_directory(
        data, target_size=(side, side), batch_size=BATCH, class_mode=None, shuffle=False
    )
    network.predict(flow, verbose=0)


def featstore_way(name: str, data: Path) -> None:
    from featstore import extract

    extract(data, backbones=[name], weights={"*": "random:1"}, cache=data.with_name(f"{data.name}-cache"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        {"keras_way": keras_way, "featstore_way": featstore_way}[sys.argv[2]](sys.argv[3], Path(sys.argv[4]))
        print(peak_resident_bytes() / 1e6)
    else:
        main()
