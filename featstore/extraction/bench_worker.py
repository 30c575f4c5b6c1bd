"""One measuring process of `featstore.api.bench`: warms up, waits for the start, and counts images."""

from __future__ import annotations

import json
import os
import sys
import time

from featstore.processes import end_with_parent


def main() -> None:
    """Read the order from the arguments; print ``ready``, and after a line on stdin the images per second."""
    order, seconds = json.loads(sys.argv[1]), float(sys.argv[2])
    end_with_parent(*order["parentage"])
    for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(order["threads"])
    import numpy as np

    from featstore.backbones import catalog
    from featstore.backbones.loading import load_backbone
    from featstore.backbones.weights import IMAGENET

    weights = IMAGENET if catalog.row(order["name"]).loader else "random:1"
    backbone = load_backbone(
        order["name"], weights, batch_size=order["batch_size"], precision=order["precision"]
    )
    side = backbone.spec.input_size
    pixels = np.random.default_rng(0).uniform(0, 255, (order["batch_size"], side, side, 3)).astype(np.float32)
    backbone.embed(pixels)
    print("ready", flush=True)  # noqa: T201  # the protocol of this process
    sys.stdin.readline()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        backbone.embed(pixels)
        count += len(pixels)
    print(count / (time.perf_counter() - started), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
