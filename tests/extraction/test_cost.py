"""An estimate is vectors times recorded seconds; where nothing was recorded it says so, and scales."""

import json
import os
import time

import pytest
from fakes import GridBackbone, spec
from hypothesis import given
from hypothesis import strategies as st

from featstore.backbones import catalog
from featstore.extraction.networks import TimedBackbone, record_timings
from featstore.store.notes import BackboneTiming, record_timing, recorded_timings
from featstore.time_estimates import CATALOGUE, IMPORT_SECONDS, MEASURED, SCALED, estimate_time
from featstore.time_estimates import machine_name as this_machine

RESNET, MOBILE = spec("ResNet50"), spec("MobileNetV2")


@given(st.integers(1, 10**7), st.floats(1e-4, 10), st.floats(0, 60), st.integers(1, 64))
def test_what_was_recorded_is_believed(vectors, core_seconds, load, cores):
    found = estimate_time({RESNET: vectors}, {RESNET: BackboneTiming(core_seconds, load)}, cores)
    assert found.seconds == pytest.approx(vectors * core_seconds / cores + load + IMPORT_SECONDS)
    assert found.basis == MEASURED


def test_networks_add_up_and_those_with_nothing_to_do_cost_nothing():
    rates = {RESNET: BackboneTiming(0.1, 2.0), MOBILE: BackboneTiming(0.02, 1.0)}
    both = estimate_time({RESNET: 100, MOBILE: 1000}, rates, 2)
    assert both.seconds == pytest.approx(5 + 10 + 3 + IMPORT_SECONDS)
    assert estimate_time({RESNET: 100, MOBILE: 0}, rates, 2).seconds == pytest.approx(7 + IMPORT_SECONDS)
    assert estimate_time({RESNET: 0, MOBILE: 0}, rates, 2).seconds == 0


def test_a_network_that_was_never_seen_is_as_slow_here_as_its_neighbours():
    alone = estimate_time({MOBILE: 1}, {}, 1)
    resnet = estimate_time({RESNET: 1}, {}, 1).per_vector[RESNET]
    slow = estimate_time(
        {MOBILE: 1}, {RESNET: BackboneTiming(3 * resnet, 0.0), spec("Unlisted"): BackboneTiming(9.0, 9.0)}, 1
    )
    assert alone.basis == CATALOGUE
    assert slow.basis == SCALED
    assert slow.per_vector[MOBILE] == pytest.approx(3 * alone.per_vector[MOBILE])


def test_a_gflop_of_a_depthwise_network_costs_more_than_one_of_a_plain_network():
    per_gflop = {
        name: estimate_time({spec(name): 1}, {}, 1).per_vector[spec(name)] / catalog.row(name).gflops
        for name in ("MobileNetV3Small", "EfficientNetB0", "ResNet50", "VGG19")
    }
    assert list(per_gflop) == sorted(per_gflop, key=per_gflop.get, reverse=True)


@pytest.mark.parametrize("name", catalog.names())
def test_every_row_of_the_catalogue_has_an_estimate(name):
    assert 0 < estimate_time({spec(name): 1}, {}, 1).per_vector[spec(name)] < 30


class Source:
    def load(self, wanted):
        return GridBackbone(wanted, delay=0.01)


def test_a_pass_is_metered_without_its_first_batch_and_shares_what_pixels_cost(tmp_path):
    import numpy as np

    backbone = TimedBackbone(Source(), spec())
    pixels = np.ones((4, 16, 16, 3), np.float32)
    started = time.perf_counter()
    for _ in range(5):
        backbone.embed(pixels)
    assert len(backbone.batch_seconds) == 5
    assert 0.05 <= sum(backbone.batch_seconds) <= time.perf_counter() - started
    backbone.batch_seconds = [9.0, 1.0, 1.0, 1.0]
    record_timings(tmp_path, [backbone], seconds=24.0, threads=3)
    found = recorded_timings(tmp_path, this_machine())[spec()]
    assert found.core_seconds == pytest.approx(1.0 / 4 * (24 / 12) * 3)
    assert found.load_seconds == pytest.approx(8.0, abs=0.1)


def test_a_pass_of_few_batches_says_nothing(tmp_path):
    backbone = TimedBackbone(Source(), spec())
    backbone.batch_seconds = [9.0, 1.0]
    record_timings(tmp_path, [backbone], seconds=12.0, threads=1)
    assert recorded_timings(tmp_path, this_machine()) == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _note: "",
        lambda _note: "{}",
        lambda _note: "[]",
        lambda note: json.dumps(note | {"core_seconds": -1.0}),
        lambda note: json.dumps(note | {"core_seconds": "x"}),
        lambda note: json.dumps(note | {"backbone": "x"}),
    ],
)
def test_a_note_that_makes_no_sense_is_no_note(tmp_path, spoil):
    record_timing(tmp_path, "4-cores-0123abcd", spec(), BackboneTiming(1.0, 2.0))
    (page,) = tmp_path.rglob("*.json")
    page.write_text(spoil(json.loads(page.read_text())))
    assert recorded_timings(tmp_path, "4-cores-0123abcd") == {}


def test_rates_are_kept_per_machine_and_per_network(tmp_path):
    record_timing(tmp_path, "4-cores-0123abcd", spec(), BackboneTiming(1.0, 2.0))
    record_timing(tmp_path, "4-cores-0123abcd", spec(weights="random:1"), BackboneTiming(3.0, 4.0))
    record_timing(tmp_path, "4-cores-0123abcd", spec(), BackboneTiming(5.0, 6.0))
    assert recorded_timings(tmp_path, "there") == {}
    assert recorded_timings(tmp_path, "4-cores-0123abcd") == {
        spec(): BackboneTiming(5.0, 6.0),
        spec(weights="random:1"): BackboneTiming(3.0, 4.0),
    }


def test_a_run_leaves_the_rates_that_the_next_dry_run_uses(tmp_path):
    from fakes import key, records

    from featstore.extraction.plan import expected_time, plan
    from featstore.extraction.scheduler import ExtractWorker, as_one_unit
    from featstore.images.reading import decoder_version
    from featstore.types import Decoding

    images = records(tmp_path / "data", 24)
    todo = plan([key()], list(images), {})
    ExtractWorker(Source(), Decoding(decoder_version()), tmp_path / "cache")(as_one_unit(todo, images))
    found = expected_time(todo, tmp_path / "cache")
    assert found.basis == MEASURED
    (kept,) = recorded_timings(tmp_path / "cache", this_machine()).values()
    assert kept.core_seconds >= 0.0025  # each vector of this network takes at least that
    cores = os.cpu_count() or 1
    assert found.seconds == pytest.approx(24 * kept.core_seconds / cores + kept.load_seconds + IMPORT_SECONDS)
