"""Slips of the hand and odd file systems: one line of cause, one of remedy, the right code, and at once."""

import os

import numpy as np
import pytest
from fakes import key, spec, write_images
from featstore_cli import main

import featstore
from featstore import processes
from featstore.errors import FeatstoreError, ManifestError, StoreError, UsageError
from featstore.executors.dask import Dask
from featstore.store import verify
from featstore.store.store import Store

LONG = "n" * 256


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5", "99999", "٣", "4 4"])
def test_threads_that_are_no_number_are_refused_before_any_work(text, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATSTORE_THREADS", text)
    with pytest.raises(UsageError, match="FEATSTORE_THREADS=") as caught:
        featstore.extract(tmp_path / "nowhere")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("text", "threads"), [("3", 3), (" 2 ", 2), ("", os.cpu_count())])
def test_threads_are_as_many_as_asked_for(text, threads, monkeypatch):
    monkeypatch.setenv("FEATSTORE_THREADS", text)
    assert processes.threads() == threads


@pytest.mark.parametrize("name", [LONG, f"folder/{LONG}/cache", "a\0b", "x/" * 3000])
@pytest.mark.parametrize(
    "call",
    [
        lambda name, _: featstore.inventory(name),
        lambda name, _: featstore.usage(name),
        lambda name, _: featstore.verify(name),
        lambda name, data: featstore.extract(data, cache=name, weights={"*": "random:1"}),
    ],
    ids=["inventory", "usage", "verify", "extract"],
)
def test_a_name_that_no_cache_can_have_is_refused_as_the_store_s(name, call, tmp_path):
    with pytest.raises(StoreError, match="cannot be a cache") as caught:
        call(name, write_images(tmp_path / "data", 8))
    assert caught.value.exit_code == 4
    assert len(caught.value.cause) < 300


@pytest.mark.parametrize("name", [LONG, "a\0b"])
def test_a_name_that_no_data_set_can_have_is_refused_as_usage(name, tmp_path):
    with pytest.raises(ManifestError, match="cannot be a data set"):
        featstore.check(name)


def test_what_the_system_refuses_is_no_defect(monkeypatch, capsys):
    def app(*_, **__):
        open(LONG)  # noqa: PTH123, SIM115

    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(main.processes, "install_handlers", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    cause, remedy = capsys.readouterr().err.splitlines()
    assert ended.value.code == 4
    assert cause.startswith("featstore: The system refuses nnn")
    assert "File name too long" in cause
    assert "defect" not in remedy


@pytest.mark.parametrize("seconds", [15_032_385_535, -5_000_000_000, 2**33])
def test_a_clock_beyond_the_centuries_costs_no_row_and_no_listing(seconds, tmp_path):
    store, ids = Store(tmp_path / "cache"), [f"{number:064x}" for number in range(3)]
    features = np.zeros((3, spec().dimension), np.float32)
    path = store.write(key(), ids, features)
    os.utime(path, (seconds, seconds))
    if path.stat().st_mtime != seconds:
        pytest.skip("this file system has no such time")
    again = Store(tmp_path / "cache")
    assert set(again.stored_ids(key())) == set(ids)
    again.flush()
    assert set(Store(tmp_path / "cache").stored_ids(key())) == set(ids)
    (entry,) = featstore.inventory(tmp_path / "cache")
    assert entry.images == 3
    assert featstore.usage(tmp_path / "cache", by="age")


@pytest.mark.parametrize("seconds", [1e18, -1e18, 4e11])
def test_a_time_beyond_the_calendar_is_shown_as_that(seconds):
    assert len(verify._moment(seconds)) == len("9999-12-31T23:59:59+00:00")


MISSPELT = [
    "",
    "nowhere",
    "tcp://",
    "tcp://host",
    "tcp://host:port",
    "tcp://host:99999",
    "tcp:/host:1",
    "tcp//h:1",
]
MISSPELT += [
    "tcp://:8786",
    "tcp://a b:1",
    "http://host:1/path",
    "tcp://host:1:2",
    "tcp://[::1:1",
    "\x1b[2J:1",
]


@pytest.mark.parametrize("address", MISSPELT)
def test_an_address_that_is_none_is_refused_without_waiting_for_an_answer(address):
    with pytest.raises(UsageError, match="is no address of a dask scheduler"):
        Dask(scheduler=address)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "host.lab:1", "tls://[fe80::1%eth0]:65535", "inproc://h/1/2"]
)
def test_an_address_as_dask_prints_it_is_taken(address):
    Dask(scheduler=address)


@pytest.mark.slow
@pytest.mark.parametrize(
    "address", ["ucx://127.0.0.1:8786", "tls://127.0.0.1:8786", "carrier+pigeon://127.0.0.1:1"]
)
def test_a_protocol_that_is_not_there_is_refused_at_once(address):
    with pytest.raises(FeatstoreError, match="No dask scheduler answers"):
        list(Dask(scheduler=address).run(str, [1]))
