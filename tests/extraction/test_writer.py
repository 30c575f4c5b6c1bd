"""The background writer keeps order, bounds memory, and never swallows an error."""

import signal
import threading
import time

import numpy as np
import pytest
from fakes import DECODING, key

from featstore.errors import StoreError
from featstore.extraction.pipeline import DEPTH, BackgroundWriter
from featstore.store.notes import BadImage

ROWS = np.zeros((1, 12), np.float32)


class Recorder:
    def __init__(self, fail_at=None, gate=None):
        self.written, self.bad, self.fail_at, self.gate = [], [], fail_at, gate

    def write(self, address, ids, features, batch_size):
        if self.gate:
            self.gate.wait(10)
        if len(self.written) == self.fail_at:
            raise StoreError("the disk is full", "free some")
        self.written.append((address, ids, len(features), batch_size))

    def record_bad_image(self, decoding, bad):
        self.bad.append((decoding, bad))


def test_everything_is_written_in_order_before_the_context_ends():
    sink = Recorder()
    with BackgroundWriter(sink) as writer:
        for i in range(30):
            writer.write(key(), [f"{i}"], ROWS, 16)
    assert [ids for _, ids, _, _ in sink.written] == [(f"{i}",) for i in range(30)]


def test_the_caller_may_change_its_list_of_ids_at_once():
    sink, ids = Recorder(gate=threading.Event()), ["a"]
    with BackgroundWriter(sink) as writer:
        writer.write(key(), ids, ROWS, 16)
        ids.clear()
        sink.gate.set()
    assert sink.written[0][1] == ("a",)


def write_many(sink, count):
    """How many shards were accepted before an error came."""
    accepted = 0
    try:
        with BackgroundWriter(sink) as writer:
            for _ in range(count):
                writer.write(key(), ["a"], ROWS, 16)
                accepted += 1
    except StoreError as error:
        return accepted, error.cause
    return accepted, None


def test_an_error_of_the_disk_reaches_the_caller_even_for_the_last_shard():
    assert write_many(Recorder(fail_at=0), 1) == (1, "the disk is full")


def test_an_error_stops_a_long_run_early():
    accepted, cause = write_many(Recorder(fail_at=2), 1000)
    assert cause == "the disk is full"
    assert accepted <= 2 + DEPTH + 1


def test_a_slow_disk_makes_the_networks_wait_instead_of_filling_memory():
    sink = Recorder(gate=threading.Event())
    accepted = []

    def produce():
        with BackgroundWriter(sink) as writer:
            for i in range(DEPTH * 3):
                writer.write(key(), ["a"], ROWS, 16)
                accepted.append(i)

    producer = threading.Thread(target=produce)
    producer.start()
    time.sleep(0.2)
    waiting = len(accepted)
    sink.gate.set()
    producer.join(10)
    assert waiting <= DEPTH
    assert len(sink.written) == DEPTH * 3


def test_on_ctrl_c_what_is_under_way_is_finished_and_the_rest_is_never_begun():
    sink = Recorder(gate=threading.Event())

    def interrupted():
        with BackgroundWriter(sink) as writer:
            for _ in range(4):
                writer.write(key(), ["a"], ROWS, 16)
            time.sleep(0.05)
            threading.Timer(0.1, sink.gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(sink.written) == 1


def test_ctrl_c_while_the_last_shards_are_awaited_finishes_what_is_under_way():
    """The signal comes when the block has ended well; with a bare join the thread would be forgotten."""
    sink = Recorder(gate=threading.Event())

    def interrupted():
        with BackgroundWriter(sink) as writer:
            for _ in range(4):
                writer.write(key(), ["a"], ROWS, 16)
            threading.Timer(0.1, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
            threading.Timer(0.2, sink.gate.set).start()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(sink.written) == 1, "under way when the signal came"


def test_bad_images_pass_through():
    sink, bad = Recorder(), BadImage("ab" * 32, "truncated", "")
    with BackgroundWriter(sink) as writer:
        writer.record_bad_image(DECODING, bad)
    assert sink.bad == [(DECODING, bad)]
