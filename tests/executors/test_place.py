"""Cores are divided without remainder, GPUs go round, and CUDA_VISIBLE_DEVICES is obeyed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.processes import default_workers, places, visible_devices


@given(st.integers(1, 64), st.integers(1, 64))
def test_the_threads_of_all_workers_are_the_cores(workers, cores):
    threads = [place.threads for place in places(workers, cores, ())]
    assert len(threads) == workers
    assert min(threads) >= 1
    assert sum(threads) == max(cores, workers)
    assert max(threads) - min(threads) <= 1


@given(st.integers(1, 16), st.lists(st.integers(0, 99).map(str), min_size=1, max_size=8, unique=True))
def test_gpus_are_shared_evenly(workers, devices):
    used = [place.device for place in places(workers, 8, devices)]
    assert set(used) <= set(devices)
    counts = [used.count(device) for device in devices]
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 16), st.lists(st.integers(0, 99).map(str), min_size=1, max_size=8, unique=True))
def test_workers_on_one_card_take_its_memory_together(workers, devices):
    taken = dict.fromkeys(devices, 0.0)
    for place in places(workers, 8, devices):
        taken[place.device] += float(place.environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"])
    assert all(share == 0 or share == pytest.approx(0.9, abs=0.01) for share in taken.values())


def test_a_share_of_memory_that_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert {p.environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] for p in places(4, 8, ["0"])} == {"0.5"}


def test_without_a_gpu_the_variable_is_left_alone():
    (place,) = places(1, 2, ())
    assert "CUDA_VISIBLE_DEVICES" not in place.environment()


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0,1", ("0", "1")),
        (" 2 , 7 ", ("2", "7")),
        ("GPU-8932f937,MIG-41", ("GPU-8932f937", "MIG-41")),
        ("", ()),
        ("-1", ()),
        ("1,-1,2", ("1",)),
    ],
)
def test_the_visible_list_is_read_as_cuda_reads_it(listed, expected, tmp_path):
    (tmp_path / "nvidia0").touch()
    assert visible_devices({"CUDA_VISIBLE_DEVICES": listed}, tmp_path) == expected


def test_without_a_list_all_gpus_of_the_machine_are_visible(tmp_path):
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_devices({}, tmp_path) == ("2", "10")


def test_one_process_per_gpu_else_per_core_within_reason():
    assert default_workers(64, ("0", "1", "2")) == 3
    assert default_workers(2, ()) == 2
    assert default_workers(64, ()) == 8
