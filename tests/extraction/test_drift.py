"""Drift: stored vectors computed again, and what it means if they are not the same."""

from pathlib import Path

import numpy as np
import pytest
from fakes import GridBackbone, spec, write_images

from featstore.api import cache as module
from featstore.api.cache import drift
from featstore.errors import MissingFeaturesError, StoreError, UsageError
from featstore.images.reading import decoder_version
from featstore.images.scan import scan
from featstore.store.store import Store
from featstore.types import IDENTITY, Decoding, FeatureKey, View

VIEW = View("rotate(0,40)|fill(nearest)", 1)


class Grids:
    """Networks of grid backbones, without TensorFlow."""

    def __init__(self, *_choices):
        pass

    def spec(self, name, *, fetch):  # noqa: ARG002
        return spec(name)

    def load(self, wanted):
        return GridBackbone(wanted)

    def keep(self, _wanted):
        pass


@pytest.fixture(autouse=True)
def _no_tensorflow(monkeypatch):
    monkeypatch.setattr(module, "Networks", Grids)


@pytest.fixture
def data(tmp_path):
    """Ten images in two views through two grids, as this machine computes them."""
    data = write_images(tmp_path / "data", 10)
    manifest = scan(data)
    ids = [record.id for record in manifest.records]
    for name in ("Alpha", "Beta"):
        keys = [FeatureKey(spec(name), view, Decoding(decoder_version())) for view in (IDENTITY, VIEW)]
        memory = module._compute(manifest, dict.fromkeys(keys, ids), Grids(), keys[0].decoding)
        for key in keys:
            Store(tmp_path / "cache").write(key, ids, np.stack([memory.rows[key][i] for i in ids]))
    return data


def moved(data, tmp_path, change):
    """Replace what is stored of Beta by `change` of it."""
    store = Store(tmp_path / "cache")
    for key in [k for k in store.feature_keys() if k.backbone.name == "Beta"]:
        ids = sorted(store.stored_ids(key))
        values = store.read(key, ids)
        for path in list(store.ids_by_shard(key)):
            path.unlink()
        store.write(key, ids, change(values).astype(np.float32))


def test_the_same_machine_computes_the_same_bytes_in_all_views(data):
    before = {p: p.read_bytes() for p in data.parents[1].glob("cache/features/**/*") if p.is_file()}
    found = drift(data, rows=20, cache="cache")
    assert [(d.backbone, d.rows, d.equal, d.difference, d.drifted) for d in found.backbones] == [
        ("Alpha", 20, 20, 0.0, False),
        ("Beta", 20, 20, 0.0, False),
    ]
    assert not found.drifted
    after = {p: p.read_bytes() for p in data.parents[1].glob("cache/features/**/*") if p.is_file()}
    assert after == before, "nothing is stored"


def test_last_bits_are_noticed_and_forgiven(data, tmp_path):
    moved(data, tmp_path, lambda v: np.nextafter(v, np.float32(1e9)))
    alpha, beta = drift(data, rows=8, cache="cache").backbones
    assert (alpha.equal, beta.equal, beta.drifted) == (8, 0, False)
    assert 0 < beta.relative < 1e-5


def test_a_shift_beyond_the_tolerance_is_drift_of_that_backbone_alone(data, tmp_path):
    moved(data, tmp_path, lambda v: v + 0.5)
    found = drift(data, rows=12, cache="cache")
    assert [d.drifted for d in found.backbones] == [False, True]
    assert found.backbones[1].difference == pytest.approx(0.5, rel=1e-4)
    assert found.drifted
    assert not drift(data, rows=12, cache="cache", tolerance=10.0).drifted


def test_the_difference_is_measured_against_the_spread_between_images(data, tmp_path):
    store = Store(tmp_path / "cache")
    values = np.concatenate([store.read(k, sorted(store.stored_ids(k))) for k in store.feature_keys()[2:]])
    spread = np.sqrt(np.var(values.astype(np.float64) + 0.5, axis=0).mean())
    moved(data, tmp_path, lambda v: v + 0.5)
    beta = drift(data, rows=20, cache="cache").backbones[1]
    assert beta.relative == pytest.approx(beta.difference / spread)


def test_the_draw_is_random_and_repeatable(data, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "_compute", lambda *a: drawn.append(a[1]) or module.MemorySink())
    for seed in (0, 0, 1):
        drift(data, rows=5, cache="cache", backbones=["Alpha"], seed=seed)
    assert drawn[0] == drawn[1] != drawn[2]
    assert sum(map(len, drawn[0].values())) == 5


def test_an_image_that_has_gone_is_told_and_the_rest_is_compared(data):
    victim = next((data.parent / "ill").iterdir())
    victim.write_bytes(victim.read_bytes()[:60])
    found = drift(data, rows=20, cache="cache", backbones=["Alpha"])
    assert found.backbones[0].rows == found.backbones[0].equal == 18


def test_too_few_rows_and_an_empty_store_are_refused(data):
    with pytest.raises(UsageError, match="2 rows"):
        drift(data, rows=2, cache="cache")
    Path("empty", "features").mkdir(parents=True)
    with pytest.raises(MissingFeaturesError, match="could be computed again"):
        drift(data, cache="empty")
    with pytest.raises(StoreError, match="There is no cache at elsewhere"):
        drift(data, cache="elsewhere")
