"""One pass over the images for three networks and two seeds, against three passes with one network each.

Usage: python benchmarks/one_pass.py [A,B,C]     (default: networks small enough for the input pipeline to matter)
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

from paper_way import DECODING
from timing import report, take_turns

from featstore.backbones.keras_backbone import load_backbone
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.recipe import parse_recipe
from featstore.images.scan import scan
from featstore.phantom import make_phantoms
from featstore.store.store import Store
from featstore.types import IDENTITY, FeatureKey, View

VIEWS = [IDENTITY, View(str(parse_recipe("paper")), 1)]


def main() -> None:
    names = (sys.argv[1] if len(sys.argv) > 1 else "MobileNet025,MobileNetV3Small,EfficientNetLite0").split(
        ","
    )
    with tempfile.TemporaryDirectory() as text:
        folder, fresh = Path(text), itertools.count()
        records = {r.id: r for r in scan(make_phantoms(folder / "data", patients=24)).records}
        backbones = [load_backbone(name, "random:1") for name in names]

        def extract(together: list[list]) -> None:
            store = Store(folder / f"cache{next(fresh)}")
            for some in together:
                keys = [FeatureKey(b.spec, view, DECODING) for view in VIEWS for b in some]
                engine.run_pass(
                    image_blocks(plan(keys, list(records), {})),
                    records,
                    DECODING,
                    {b.spec: b for b in some},
                    store,
                    engine.NullProgress(),
                )

        contenders = {
            "three passes": lambda: extract([[b] for b in backbones]),
            "one pass": lambda: extract([backbones]),
        }
        print(f"{' + '.join(names)}, {len(records)} images, {len(VIEWS)} views")
        report(take_turns(contenders), "three passes", len(records) * len(VIEWS) * len(names), "vectors")


if __name__ == "__main__":
    main()
