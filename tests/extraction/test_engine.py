"""The engine gives every image the same vector, however the work is cut, interrupted or repeated."""

import dataclasses
import os
import re

import numpy as np
import pytest
from fakes import DECODING, RECIPE, GridBackbone, key, records, spec, write_images
from PIL import Image

from featstore.errors import BadImageError, NonFiniteFeaturesError
from featstore.extraction import pipeline as engine
from featstore.extraction.pipeline import view_pixels
from featstore.extraction.plan import image_blocks, plan
from featstore.images.augment import resize
from featstore.images.reading import decode, read_pixels
from featstore.serialization import digest_bytes
from featstore.store import shard
from featstore.store.store import Store
from featstore.types import IDENTITY, View

SPECS = [spec("Alpha"), spec("Beta"), spec("Gamma", side=24)]
VIEWS = [IDENTITY, View(RECIPE, 1), View(RECIPE, 2)]
KEYS = [key(s, v) for v in VIEWS for s in SPECS]


def extract(store, images, keys=KEYS, ids=None):
    """Run what is missing; return the backbones, which have counted what they saw."""
    backbones = {s: GridBackbone(s) for s in SPECS}
    stored = {k: store.stored_ids(k) for k in keys}
    todo = plan(keys, ids or list(images), stored, store.bad_images(DECODING))
    stats = engine.run_pass(image_blocks(todo), images, DECODING, backbones, store, engine.NullProgress())
    return stats, {s.name: b.images_seen for s, b in backbones.items()}


@pytest.fixture
def images(tmp_path):
    return records(tmp_path / "data", 11)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def everything(store, images):
    return np.hstack([store.read(k, sorted(images)) for k in KEYS])


def test_features_are_those_of_each_image_on_its_own(store, images):
    """No engine: decode, resize, view, embed, one image at a time."""
    extract(store, images)
    for k in KEYS:
        backbone = GridBackbone(k.backbone)
        for i, record in images.items():
            pixels, _ = decode(record.path.read_bytes())
            seen = view_pixels(resize(pixels, k.backbone.input_size), k.view, i)
            alone = backbone.embed(np.broadcast_to(seen, (4, *seen.shape[:2], 3)))[0]
            np.testing.assert_array_equal(store.read(k, [i])[0], alone)


def test_the_shards_say_how_many_images_went_through_a_network_together(store, images):
    extract(store, images)
    sizes = {shard.decode(path.read_bytes()).computation.batch_size for path in store.root.rglob("*.h5")}
    assert sizes == {GridBackbone.batch_size}


def test_once_memory_ran_out_the_shards_say_the_smaller_number(store, images):
    class Halved(GridBackbone):
        effective_batch_size = 2

    todo = plan(KEYS, list(images), {})
    engine.run_pass(
        image_blocks(todo), images, DECODING, {s: Halved(s) for s in SPECS}, store, engine.NullProgress()
    )
    assert {shard.decode(path.read_bytes()).computation.batch_size for path in store.root.rglob("*.h5")} == {
        2
    }


def test_a_second_run_computes_nothing(store, images):
    extract(store, images)
    stats, seen = extract(store, images)
    assert (stats.rows, set(seen.values())) == (0, {0})


def test_order_and_portions_do_not_change_a_byte(store, images, tmp_path):
    extract(store, images)
    ids = list(images)
    other = Store(tmp_path / "other")
    extract(other, images, KEYS[4:], ids[7:])
    extract(other, images, KEYS[:2], ids[:5][::-1])
    extract(other, images, KEYS, ids[::-1])
    assert everything(other, images).tobytes() == everything(store, images).tobytes()


def test_a_new_seed_costs_only_that_seed(store, images):
    extract(store, images, KEYS[:6])
    stats, seen = extract(store, images, KEYS)
    assert stats.rows == 3 * len(images)
    assert seen == {name: len(images) for name in ("Alpha", "Beta", "Gamma")}


def test_a_new_backbone_costs_only_that_backbone(store, images):
    extract(store, images, [k for k in KEYS if k.backbone.name != "Gamma"])
    _, seen = extract(store, images)
    assert seen == {"Alpha": 0, "Beta": 0, "Gamma": 3 * len(images)}


def test_new_images_cost_only_themselves(store, images):
    extract(store, images, ids=list(images)[:8])
    _, seen = extract(store, images)
    assert seen == dict.fromkeys(("Alpha", "Beta", "Gamma"), 9)


def test_a_bad_image_keeps_its_id_and_the_run_goes_on(store, images):
    victim = list(images.values())[4]
    data = victim.path.read_bytes()[:-30]
    victim.path.write_bytes(data)
    from featstore.serialization import digest_bytes

    broken = dataclasses.replace(victim, id=digest_bytes(data))
    images = {broken.id if i == victim.id else i: broken if i == victim.id else r for i, r in images.items()}
    stats, _ = extract(store, images)
    assert [(bad.id, bad.reason) for bad in stats.bad] == [(broken.id, "truncated")]
    assert stats.rows == 10 * len(KEYS)
    again, seen = extract(store, images)
    assert (again.rows, again.bad, set(seen.values())) == (0, [], {0})
    assert set(store.bad_images(DECODING)) == {broken.id}


def test_a_file_that_changes_or_vanishes_during_the_run_is_reported_and_tried_again(store, images):
    first, second, *_ = images.values()
    kept = first.path.read_bytes(), second.path.read_bytes()
    first.path.write_bytes(kept[1])
    second.path.unlink()
    stats, _ = extract(store, images)
    assert sorted(bad.reason for bad in stats.bad) == ["changed", "missing"]
    assert store.bad_images(DECODING) == {}
    first.path.write_bytes(kept[0])
    second.path.write_bytes(kept[1])
    stats, _ = extract(store, images)
    assert (stats.rows, stats.bad) == (2 * len(KEYS), [])


def test_all_images_bad_leaves_an_empty_store_and_no_crash(store, images):
    for record in images.values():
        record.path.unlink()
    stats, _ = extract(store, images)
    assert (stats.rows, len(stats.bad)) == (0, len(images))


def test_a_file_without_permission_says_so(images, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    record = next(iter(images.values()))
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(BadImageError, match="permission"):
        read_pixels(record, DECODING)


def test_an_exception_in_a_backbone_stops_the_run_and_keeps_what_was_committed(store, images):
    class Failing(GridBackbone):
        def embed(self, batch):
            if self.images_seen >= 20:
                raise FloatingPointError("burnt")
            return super().embed(batch)

    backbones = {s: Failing(s) for s in SPECS}
    todo = plan(KEYS, list(images), {})
    with pytest.raises(FloatingPointError, match="burnt"):
        engine.run_pass(image_blocks(todo), images, DECODING, backbones, store, engine.NullProgress())
    kept = sum(len(store.stored_ids(k)) for k in KEYS)
    assert 0 < kept < len(KEYS) * len(images)
    extract(store, images)
    assert all(store.stored_ids(k) == set(images) for k in KEYS)


class Standardising(GridBackbone):
    """Divides each picture by its own spread, as some networks do: nothing of a picture of one colour is a number."""

    def embed(self, images):
        rows = super().embed(images)
        flat = images.reshape(len(images), -1).std(axis=1) == 0
        rows[flat] = np.nan
        if flat.any():
            raise NonFiniteFeaturesError.of_rows(self.spec.name, np.flatnonzero(flat), len(images), "Look.")
        return rows


def run_standardising(store, images, keys):
    networks = {k.backbone: Standardising(k.backbone) for k in keys}
    engine.run_pass(
        image_blocks(plan(keys, list(images), {}, {})),
        images,
        DECODING,
        networks,
        store,
        engine.NullProgress(),
    )


def test_a_network_that_cannot_stand_one_colour_never_meets_it_in_the_rest_of_the_last_batch(store, images):
    assert len(images) % GridBackbone.batch_size
    run_standardising(store, images, KEYS[:1])
    assert np.isfinite(store.read(KEYS[0], sorted(images))).all()


def test_images_without_numbers_are_counted_among_the_images_alone(store, tmp_path):
    images = records(tmp_path / "data", 5)
    last = list(images.values())[-1]
    Image.fromarray(np.full((24, 20, 3), 90, np.uint8)).save(last.path)
    black = dataclasses.replace(last, id=digest_bytes(last.path.read_bytes()))
    images = {r.id: r for r in (*list(images.values())[:-1], black)}
    with pytest.raises(NonFiniteFeaturesError, match=r"^Alpha gave NaN or infinity for 1 of 1 images\."):
        run_standardising(store, images, KEYS[:1])


def test_seeds_differ_and_identity_does_not_move(images):
    i, record = next(iter(images.items()))
    pixels = resize(decode(record.path.read_bytes())[0], 16)
    np.testing.assert_array_equal(view_pixels(pixels, IDENTITY, i), pixels.astype(np.float32))
    one, two = (view_pixels(pixels, View(RECIPE, seed), i) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_a_grey_image_reaches_the_door_as_three_equal_channels(store, tmp_path):
    from PIL import Image

    folder = tmp_path / "grey"
    write_images(folder, 2)
    colour = records(folder, 2)
    grey_folder = tmp_path / "really_grey"
    for record in colour.values():
        target = grey_folder / record.label / record.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(record.path).convert("L").save(target)
    from featstore.images.scan import scan

    images = {r.id: r for r in scan(grey_folder).records}
    extract(store, images)
    rows = store.read(KEYS[3], list(images)).reshape(-1, 4, 3)
    np.testing.assert_array_equal(rows, np.repeat(rows[:, :, :1], 3, axis=2))


class Bar:
    """A progress bar that remembers."""

    def __init__(self):
        self.vectors, self.said = 0, []

    def say(self, phase):
        pass

    def update(self, n=1, backbone=None):  # noqa: ARG002
        self.vectors += n

    def set_postfix_str(self, s="", **_):
        self.said.append(s)


def test_a_bar_counts_vectors_and_says_how_fast_pixels_and_networks_are(store, images):
    bar = Bar()
    todo = plan(KEYS, list(images), {}, {})
    stats = engine.run_pass(
        image_blocks(todo), images, DECODING, {s: GridBackbone(s) for s in SPECS}, store, bar
    )
    assert bar.vectors == stats.rows == len(KEYS) * len(images)
    told = re.fullmatch(r"pixels (\d+)/s, forward (\d+)/s", bar.said[-1])
    assert [float(rate) for rate in told.groups()] == [
        pytest.approx(stats.rates[phase], abs=0.6) for phase in ("pixels", "forward")
    ]
