"""How many processes work is asked, measured, or a default, in this order."""

import pytest

from featstore.api import bench as bench_module
from featstore.api.bench import bench
from featstore.errors import UsageError
from featstore.extraction import plan as module
from featstore.extraction.plan import AS_ASKED, BENCHED, BY_DEFAULT, choose_workers, fastest_workers
from featstore.results.extraction import Rate
from featstore.store.notes import record_worker_speeds, recorded_worker_speeds
from featstore.time_estimates import machine_name

SPEEDS = {("VGG16", 1): 5.0, ("VGG16", 2): 9.0, ("ResNet50", 1): 8.0, ("ResNet50", 2): 7.0}


@pytest.fixture(autouse=True)
def _two_cores_and_no_gpu(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr(module, "visible_devices", lambda _environment: ())
    monkeypatch.setattr(bench_module.os, "cpu_count", lambda: 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with what `bench` found, for float32 alone."""

    def measure(name, precision, batch, layout, _seconds):
        faster = 100 if batch == 64 else 1
        speed = faster * SPEEDS[name, layout.processes]
        return Rate(
            backbone=name,
            precision=precision,
            batch_size=batch,
            processes=layout.processes,
            threads=layout.threads,
            images_per_second=speed,
        )

    monkeypatch.setattr(bench_module, "_measure", measure)
    bench(["VGG16", "ResNet50"], batch_sizes=[16, 64], record=True, cache=tmp_path / "cache")
    return tmp_path / "cache"


def asked(cache, executor="processes", workers=None, backbones=("VGG16",), precision="float32"):
    found = choose_workers(executor, workers, None, cache, backbones, precision)
    return found.executor.workers, found.reason


def test_the_fastest_measured_number_is_taken_where_none_is_given(cache):
    assert asked(cache) == (2, BENCHED)
    assert asked(cache, backbones=["ResNet50"]) == (1, BENCHED)


def test_of_several_backbones_the_time_of_an_image_through_all_of_them_counts(cache):
    """1/5 + 1/8 s against 1/9 + 1/7 s."""
    assert asked(cache, backbones=["VGG16", "ResNet50"]) == (2, BENCHED)


def test_what_was_measured_is_that_of_the_batch_size_that_extraction_uses(cache):
    assert recorded_worker_speeds(cache, machine_name(), "VGG16", "float32") == {1: 5.0, 2: 9.0}


def test_a_number_that_is_given_is_taken_and_a_wrong_one_refused(cache):
    assert asked(cache, workers=3) == (3, AS_ASKED)
    with pytest.raises(UsageError, match="--workers is 0"):
        asked(cache, workers=0)


def test_one_process_stays_one_process(cache):
    assert asked(cache, "serial") == (1, BY_DEFAULT)


@pytest.mark.parametrize(
    "unmeasured", [{"backbones": ["VGG16", "Xception"]}, {"precision": "bfloat16"}], ids=str
)
def test_what_was_not_measured_gets_the_default(cache, unmeasured):
    assert asked(cache, **unmeasured)[1] == BY_DEFAULT


def test_the_machine_where_it_was_measured_and_the_cores_that_there_are_count(cache, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 1)
    assert fastest_workers(cache, ["VGG16"], "float32") == 1
    monkeypatch.setattr(module, "machine_name", lambda: "another")
    assert fastest_workers(cache, ["VGG16"], "float32") is None


def test_gpus_get_one_process_each_whatever_was_measured(cache, monkeypatch):
    monkeypatch.setattr(module, "visible_devices", lambda _environment: ("0", "1"))
    assert asked(cache)[1] == BY_DEFAULT


@pytest.mark.parametrize(
    "note", ["", "[]", '{"x": 1}', '{"0": 1.0}', '{"1": -1}', '{"1": null}', '{"1": 1e999}']
)
def test_a_note_that_makes_no_sense_is_no_note(tmp_path, note):
    record_worker_speeds(tmp_path, "4-cores-0123abcd", "Net", "float32", {1: 2.0})
    (page,) = tmp_path.rglob("*.json")
    page.write_text(note)
    assert recorded_worker_speeds(tmp_path, "4-cores-0123abcd", "Net", "float32") == {}


def test_other_batch_sizes_alone_cannot_be_recorded(tmp_path):
    with pytest.raises(UsageError, match="16 images at a time") as caught:
        bench(["VGG16"], batch_sizes=[8], record=True, cache=tmp_path)
    assert "--batch-sizes" in caught.value.remedy
