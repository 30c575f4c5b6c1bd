"""The seven networks of the paper, at full size, through the installed command, on real CT slices."""

import pkgutil
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import featstore

from featstore.backbones import catalog
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import IDENTITY

CT = Path(__file__).resolve().parents[2] / "shared" / "data" / "covid_ct"
SEVEN = ["InceptionV3", "DenseNet201", "ResNet50", "Xception", "VGG19", "NASNetLarge", "InceptionResNetV2"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CT.exists(), reason="the shared CT slices are not beside this checkout"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six slices of each class, identity and one paper view."""
    folder = tmp_path_factory.mktemp("seven")
    for label in ("CT_COVID", "CT_NonCOVID"):
        (folder / "data" / label).mkdir(parents=True)
        for path in sorted((CT / label).iterdir())[:6]:
            shutil.copy(path, folder / "data" / label)
    result = featstore(
        "extract", folder / "data", "--backbones", ",".join(SEVEN), "--weights", "random:3",
        "--recipe", "paper", "--seeds", "1", "--cache", folder / "cache", timeout=1800,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "Computed 168 of 168 vectors" in result.out
    return folder


@pytest.mark.parametrize("name", SEVEN)
def test_dimension_preprocessing_and_pooling_are_those_of_keras(world, name):
    """Independent path: Keras' loader, its own network with the same seeded weights, its pooling and predict."""
    import keras

    records = scan(world / "data").records
    store = Store(world / "cache")
    keys = [k for k in store.feature_keys() if k.backbone.name == name]
    assert {k.view.is_identity for k in keys} == {True, False}
    (key,) = [k for k in keys if k.view == IDENTITY]
    row = catalog.row(name)
    side = row.input_size
    kept = random.getstate()
    random.seed(3)  # Keras takes the seed of every initialiser from here
    network = pkgutil.resolve_name(row.builder)(
        weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3)
    )
    random.setstate(kept)
    pixels = np.stack(
        [
            keras.utils.img_to_array(
                keras.utils.load_img(r.path, target_size=(side, side), interpolation="bilinear")
            )
            for r in records
        ]
    )
    expected = network.predict(pkgutil.resolve_name(row.preprocess)(pixels), verbose=0)
    ours = store.read(key, [r.id for r in records])
    assert ours.shape == (12, key.backbone.dimension) == expected.shape
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()
