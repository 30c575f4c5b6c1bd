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
from dataclasses import replace
from pathlib import Path

import numpy as np

import featstore
from featstore import phantom
from featstore.api.explain import add_maps

SLICES, VISIBLE = 2, 8
"""Slices of a patient, and grey levels from which on a difference is a lesion."""


def lesions(patients: int, size: int) -> dict[str, np.ndarray]:
    """Which pixels of each slice of the ill are lesion, by file name; data set 0 of `featstore.make_phantoms`."""
    found = {}
    for number, (label, site, severity) in enumerate(phantom._assignments(patients, 0)):
        if label != "covid":
            continue
        patient = phantom.draw_patient(label, severity, np.random.default_rng([0, number]))
        healthy = replace(patient, findings=replace(patient.findings, opacities=()))
        for index, z in enumerate(phantom._levels(SLICES, np.random.default_rng([0, number, 0]))):
            ill, well = (
                phantom.render(
                    who, z, size, phantom.SCANNERS[site], np.random.default_rng([0, number, 1 + index])
                ).astype(float)
                for who in (patient, healthy)
            )
            found[f"p{number:03d}-s{index}.png"] = np.abs(ill - well) > VISIBLE
    return found


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
        masks = lesions(asked.patients, asked.size)
        shown = [(one, masks[Path(one.prediction.path).name]) for one in result.explanations]
        print(f"{len(shown)} held-out slices with lesions\nevidence            in lesions   area  ratio")
        named = {name: [one.maps[name] for one, _ in shown] for name in shown[0][0].maps}
        for name, maps in (named | {"sum": [one.total for one, _ in shown]}).items():
            inside, area = shares(maps, [mask for _, mask in shown])
            print(f"{name:<18}  {inside:>10.3f}  {area:.3f}  {inside / area:.2f}")


if __name__ == "__main__":
    main()
