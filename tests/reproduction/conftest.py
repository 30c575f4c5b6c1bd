"""One reproduction with networks that need no TensorFlow: two with files, one random, one absent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - dataclass field
from typing import Any

import pytest
from fakes import GridBackbone, spec

from featstore.backbones import catalog
from featstore.backbones.weights import choice_for, resolve_weights
from featstore.errors import WeightsError
from featstore.phantom import make_phantoms
from featstore.reproduction.paper import paper

ASKED = ("ResNet50", "Xception", "VGG19", "MobileNetV2")
ABSENT = "VGG19"


class Grids:
    """Networks of the catalogue in name and weights; what they embed is a 2 x 2 grid."""

    loaded = 0

    def __init__(self, weights, preprocess, _precision="float32", _engine="tensorflow"):
        self.weights, self.preprocess = weights, preprocess

    def spec(self, name, *, fetch):  # noqa: ARG002
        digest = resolve_weights(catalog.row(name), choice_for(name, self.weights)).digest
        if digest is None:
            raise WeightsError(f"{name}: no hub can be reached.", "Give a file.")
        made = spec(name, weights=digest)
        return type(made)(name, digest, made.input_size, self.preprocess, made.dimension)

    def load(self, wanted):
        Grids.loaded += 1
        return GridBackbone(wanted)

    def keep(self, wanted):
        pass


@dataclass(frozen=True)
class World:
    data: Path
    arguments: dict[str, Any]
    result: Any

    def again(self, **changed):
        return paper(self.data, **{**self.arguments, **changed})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    data = make_phantoms(folder / "phantoms", patients=16, slices=3, size=48)
    weights = {"ResNet50": "random:3"}
    for name in ("Xception", "MobileNetV2"):
        weights[name] = str(folder / f"{name}.weights.h5")
        (folder / f"{name}.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + name.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(folder / "keras"))
        patch.setattr("featstore.api.extract.Networks", Grids)
        patch.setattr("featstore.reproduction.protocol.Networks", Grids)
        arguments = {
            "backbones": ASKED, "weights": weights, "out": folder / "run", "cache": folder / "cache",
            "epochs": 3, "views": 1,
        }  # fmt: skip
        yield World(data, arguments, paper(data, **arguments))
