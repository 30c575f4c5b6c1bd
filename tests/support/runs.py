"""Runs to report on: small pictures, networks without TensorFlow, and the ordinary public functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field

from fakes import RECIPE, GridBackbone, spec, write_images

from featstore import runs as run
from featstore import serialization as document
from featstore.api.compare import compare
from featstore.api.fuse import fuse
from featstore.extraction import pipeline as engine
from featstore.extraction.plan import image_blocks, plan
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.serialization import digest_bytes
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey, View

PATIENT = "Mustermann"
NASTY = ("<script>alert(1)</script>", "</svg><b>$\\frac{")
"""Names of classes that a page must show and not obey."""


@dataclass(frozen=True)
class World:
    data: Path
    cache: Path
    fuse: Path
    compare: Path
    head: Path


def make_world(folder):
    """A vote, a network's head and a comparison of 96 noisy pictures of 48 patients."""
    data, cache = write_images(folder / "data", 96), folder / "cache"
    data.write_text("\n".join(["path,label,group,site", *_renamed(data.read_text().splitlines()[1:])]) + "\n")
    extract_with_fakes(data, cache)
    source = {"cache": cache, "seeds": [1]}
    fuse(data, strategy="vote_backbones", out=folder / "vote", **source)
    fuse(
        data, strategy="concat_head", options={"epochs": 5}, out=folder / "head", calibrate="platt", **source
    )
    compare(
        data,
        strategies=["vote_backbones", "concat_logreg"],
        folds=3,
        view_curve="concat_logreg",
        economics=True,
        out=folder / "compare",
        **source,
    )
    return World(data, cache, folder / "vote", folder / "compare", folder / "head")


def _renamed(lines):
    """Patients with names and hospitals; every seventh has the other label, so that some answers must be wrong."""
    for at, line in enumerate(lines):
        path, label, group = line.split(",")
        other = {"ill": "well", "well": "ill"}[label]
        site = "north" if at % 4 < 2 else "south"
        yield ",".join([path, label if at // 2 % 7 else other, group.replace("p", PATIENT), site])


def extract_with_fakes(data, cache):
    manifest = scan(data)
    decoding = Decoding(decoder_version())
    specs = [spec("Xception"), spec("ResNet50")]
    keys = [FeatureKey(s, view, decoding) for view in (IDENTITY, View(RECIPE, 1)) for s in specs]
    todo = plan(keys, [record.id for record in manifest.records], {})
    images = {record.id: record for record in manifest.records}
    store = Store(cache)
    engine.run_pass(
        image_blocks(todo),
        images,
        decoding,
        {s: GridBackbone(s) for s in specs},
        store,
        engine.NullProgress(),
    )
    store.flush()


def forge(out, name, change):
    """What a forger does who knows the format: change a document and make every digest right again."""
    if name == run.RUN:
        pass
    elif name.endswith(".json"):
        page = document.parse_json((out / name).read_bytes())
        change(page)
        (out / name).write_text(json.dumps(page))
    else:
        (out / name).write_text(change((out / name).read_text()))
    about = document.unseal(document.read(out / run.RUN, document.LARGE))
    if name == run.RUN:
        change(about)
    for known in about["files"]:
        about["files"][known] = digest_bytes((out / known).read_bytes())
    (out / run.RUN).write_text(json.dumps(document.seal(about)))
