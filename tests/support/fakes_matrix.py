"""Feature matrices with a known truth, without images or networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featstore.matrix import FeatureMatrix
from featstore.types import IDENTITY, Decoding, ImageRecord, View


def make_matrix(
    signal=(1.0, 1.0), patients=40, images=3, classes=("a", "b"), seed=0, views=2, width=6, splits=None
) -> FeatureMatrix:
    """One block per entry of `signal`: how far its first column lies apart between the classes.

    Every patient adds an offset of its own to all columns, so a split that tears patients apart would leak.
    """
    from fakes import spec

    rng = np.random.default_rng(seed)
    groups = np.repeat([f"p{i:03d}" for i in range(patients)], images)
    y = np.repeat(np.arange(patients) % len(classes), images)
    n = patients * images
    columns = width * len(signal)
    base = rng.normal(size=(n, columns)) + np.repeat(rng.normal(size=(patients, columns)), images, axis=0)
    for at, strength in enumerate(signal):
        base[:, at * width] += strength * y
    features = np.stack([base, *(base + 0.1 * rng.normal(size=base.shape) for _ in range(views - 1))])
    records = tuple(
        ImageRecord(f"{i:064x}", Path(f"{i}.png"), classes[y[i]], str(groups[i]), splits and splits[i])
        for i in range(n)
    )
    return FeatureMatrix(
        records,
        tuple(classes),
        y,
        groups,
        (IDENTITY, *(View("flip(h)", s) for s in range(1, views))),
        tuple(spec(f"Net{chr(65 + at)}", dimension=width) for at in range(len(signal))),
        Decoding("pillow 0"),
        features.astype(np.float32),
        has_groups=True,
        excluded=0,
    )
