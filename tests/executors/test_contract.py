"""Every executor that exists does every item once, returns errors as they are, and outlives its workers."""

import os
import pickle
import signal
import threading
import time

import pickles
import pytest
from pickles import is_running

from featstore import errors, registry
from featstore.errors import BadImageError, FeatstoreError, UsageError, WorkerLostError
from featstore.testing import check_executor

PACKAGE = "featstore.executors"


def all_errors(kind=FeatstoreError):
    return [kind, *(found for child in kind.__subclasses__() for found in all_errors(child))]


def example(kind):
    if kind is errors.InterruptionError:
        return kind()
    return (
        kind("truncated", "8 bytes are missing") if kind is BadImageError else kind("A cause.", "A remedy.")
    )


def test_the_executors_are_found_by_file_name():
    assert registry.names(PACKAGE) == ["dask", "processes", "serial"]


def test_keeps_what_the_shipped_contract_says(executor):
    check_executor(executor)


def test_remote_work_is_done_in_other_processes(remote):
    pids = {pid for *_, pid in remote.run(pickles.threads, range(6))}
    assert os.getpid() not in pids


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_survives_the_trip_between_processes(kind):
    error = example(kind)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert (copy.cause, copy.remedy, str(copy)) == (error.cause, error.remedy, str(error))


def test_a_foreign_error_arrives_too(executor):
    with pytest.raises(ZeroDivisionError, match="by nothing"):
        list(executor.run(pickles.raise_it, [ZeroDivisionError("by nothing")]))


def test_what_a_dead_worker_does_not_answer_is_said_at_the_end_and_all_else_is_done(remote):
    done = []
    with pytest.raises(WorkerLostError, match="1 work items"):
        done.extend(remote.run(pickles.die_of, range(6)))
    assert sorted(done) == [1, 2, 3, 4, 5]


def test_a_dead_worker_is_told_of_where_another_answers_in_its_place(remote, tmp_path):
    """dask does an item again by itself; whoever counts what was done has to know."""
    done = []
    with pytest.raises(WorkerLostError, match=r"[01] work items"):
        done.extend(remote.run(pickles.die_once, [tmp_path / "mark"]))
    assert set(done) <= {"done again"}


def test_threads_of_all_processes_are_the_cores(monkeypatch):
    from featstore import processes
    from featstore.executors.processes import Processes

    monkeypatch.setattr(processes, "available_cores", lambda: 5)
    executor = Processes(workers=2)
    seen = {pid: (int(ours), int(tf)) for ours, tf, pid in executor.run(pickles.threads, range(8))}
    assert set(seen.values()) <= {(3, 3), (2, 2)}
    assert len(seen) == 2
    assert sum(ours for ours, _ in seen.values()) == 5


def test_each_process_sees_one_gpu_of_the_visible_list(monkeypatch):
    from featstore.executors.processes import Processes

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert set(Processes().run(pickles.devices, range(8))) == {"3", "5"}


def test_abandoned_results_end_the_children(tmp_path):
    """What Ctrl-C does to the parent: the generator is closed, and no child is left computing."""
    from featstore.executors.processes import Processes

    results = Processes(workers=2).run(pickles.sleep_and_tell, [str(tmp_path)] * 2)

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    def interrupt_when_both_work():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Thread(target=interrupt_when_both_work, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            next(results)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("serial", {"workers": 2}),
        ("serial", {"scheduler": "tcp://127.0.0.1:1"}),
        ("processes", {"scheduler": "tcp://127.0.0.1:1"}),
        ("processes", {"workers": 0}),
        ("dask", {}),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(name, settings):
    with pytest.raises(UsageError):
        registry.load(PACKAGE, name)(**settings)


def test_an_unknown_executor_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="dask, processes, serial"):
        registry.load(PACKAGE, "ray")
