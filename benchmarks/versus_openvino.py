"""OpenVINO against ours, in float32 and bfloat16: CPU ms per image, medians, in turns (docs/decisions/006).

Ours is `KerasBackbone.embed` with preprocessing and checks; OpenVINO gets images already preprocessed. A ratio
above 1 says that OpenVINO is faster. Needs `pip install openvino`.

Usage: python benchmarks/versus_openvino.py [NAME ...]
"""

from __future__ import annotations

import os
import pkgutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
from forward import BATCH, ROUNDS, STUDY, WEIGHTS, take_turns

from featstore.backbones import catalog
from featstore.backbones.keras_backbone import build, load_backbone
from featstore.backbones.weights import resolve_weights

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def main() -> None:
    try:
        import openvino
    except ImportError:
        sys.exit("skipped: OpenVINO is not installed (pip install openvino)")
    print(f"OpenVINO {openvino.__version__}, batch {BATCH}, median of {ROUNDS}")
    print(
        f"{'':<20}{'OV f32':>9}{'ours':>9}{'OV bf16':>9}{'ours':>9}{'f32':>7}{'bf16':>7}{'load':>7}{'diff':>10}"
    )
    sums = np.zeros(4)
    for name in sys.argv[1:] or STUDY:
        times, difference = measure(name, openvino)
        sums += times
        print(f"{line(name, times)}{difference:>10.1e}", flush=True)
    print(line("sum", sums))


def measure(name: str, openvino: Any) -> tuple[list[float], float]:
    """CPU ms of (OpenVINO, ours) in float32, then in bfloat16; and the difference of the first two's features."""
    import keras

    row = catalog.row(name)
    side = row.input_size
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, side, side, 3)).astype(np.float32)
    door = np.asarray(pkgutil.resolve_name(row.preprocess)(images.copy()), np.float32)
    engines = engines_of(build(row, resolve_weights(row, WEIGHTS), "official"), openvino, door)
    contenders = []
    for precision, engine in zip(PRECISIONS, engines, strict=True):
        ours = load_backbone(name, WEIGHTS, batch_size=BATCH, precision=precision)
        contenders += [engine, lambda ours=ours: ours.embed(images)]
    times = take_turns(contenders)
    expected, found = contenders[1](), contenders[0]()
    keras.backend.clear_session()
    return times, float(np.abs(found - expected).max() / np.abs(expected).max())


def engines_of(network: Any, openvino: Any, images: np.ndarray) -> list[Callable[[], np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, verbose=False, input_signature=[signature(images.shape)])
        model = openvino.convert_model(folder)
    engines = []
    for hint in PRECISIONS.values():
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        engines.append(lambda compiled=compiled: compiled(images)[0])
    return engines


def signature(shape: tuple[int, ...]) -> Any:
    import keras

    return keras.InputSpec(shape=shape, dtype="float32")


def line(name: str, times: Any) -> str:
    shown = "".join(f"{t:>9.1f}" for t in times)
    return (
        f"{name:<20}{shown}{times[1] / times[0]:>7.2f}{times[3] / times[2]:>7.2f}{os.getloadavg()[0]:>7.1f}"
    )


if __name__ == "__main__":
    main()
