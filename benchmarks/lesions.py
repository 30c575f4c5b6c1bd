"""How much of the evidence for disease lies in the lesions: maps of `featstore explain` against the area alone.

Usage: python benchmarks/lesions.py [--patients 192] [--size 256]

Generated patients, whose lesions are known: where a slice differs from the same one of the same patient without
opacities. The maps are those of concat_logreg, of its held-out patients alone. A map that knew nothing would have as
much of its positive evidence in the lesions as they have of the area: a ratio of 1.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

import featstore
from featstore.api.explain import add_maps
from featstore.phantom import lesion_masks

SLICES = 2
"""Of a patient."""


def shares(maps: list[np.ndarray], masks: list[np.ndarray]) -> tuple[float, float]:
    """Share of the positive evidence that lies in lesions, and theirs of the area, over all slices together."""
    parts = []
    for one, mask in zip(maps, masks, strict=True):
        weight = add_maps([np.maximum(one, 0), np.zeros(mask.shape)])
        fine = np.kron(mask, np.ones((len(weight) // len(mask),) * 2))
        parts.append(((weight * fine).mean(), weight.mean(), fine.mean()))
    inside, everything, area = np.mean(parts, axis=0)
    return float(inside / everything), float(area)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=192)
    parser.add_argument("--size", type=int, default=256)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = featstore.make_phantoms(work / "ct", patients=asked.patients, slices=SLICES, size=asked.size)
        kept = {"cache": work / "cache", "recipe": "identity"}
        featstore.extract(data, **kept)
        featstore.fuse(data, out=work / "run", positive="covid", **kept)
        with (work / "run" / "predictions.csv").open() as lines:
            held_out = [row["path"] for row in csv.DictReader(lines) if row["label"] == "covid"]
        result = featstore.explain(work / "run", [str(work / "ct" / path) for path in held_out])
        masks = lesion_masks(patients=asked.patients, slices=SLICES, size=asked.size)
        shown = [
            (one, masks[Path(one.prediction.path).relative_to(work / "ct").as_posix()])
            for one in result.explanations
        ]
        print(f"{len(shown)} held-out slices with lesions\nevidence            in lesions   area  ratio")
        named = {name: [one.maps[name] for one, _ in shown] for name in shown[0][0].maps}
        for name, maps in (named | {"sum": [one.total for one, _ in shown]}).items():
            inside, area = shares(maps, [mask for _, mask in shown])
            print(f"{name:<18}  {inside:>10.3f}  {area:.3f}  {inside / area:.2f}")


if __name__ == "__main__":
    main()
