"""What every test can count on: no user settings, no shared cache, patient hypothesis.

Properties explore new examples at every run on a desk, and repeat the same ones in CI.
"""

import os
import sys
from collections import Counter, defaultdict

import pytest
from hypothesis import settings

from featstore.backbones.kernels import ask_for_onednn

ask_for_onednn()  # as the commands do, before a test imports TensorFlow, which reads its settings once

settings.register_profile("explore", deadline=None)
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.load_profile("repeat" if os.environ.get("CI") else "explore")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, so that no default writes into the checkout or the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEATSTORE_CACHE", raising=False)


@pytest.fixture(autouse=True)
def _no_network_outlives_a_slow_test(request):
    """Networks sit in reference cycles of whose gigabytes Python's collector knows nothing, so that they pile up.

    Fast tests use small networks, and collecting after each of them would take longer than the tests.
    """
    yield
    if "keras" in sys.modules and request.node.get_closest_marker("slow"):
        sys.modules["keras"].backend.clear_session()


TOLD = ("crash", "concurrency", "hostile")
"""Markers whose tests say at the end what they tried, and how many."""


class Tally:
    """What tests tried, by marker; told by their reports, which also cross from a worker of pytest-xdist."""

    def __init__(self):
        self.counts = defaultdict(Counter)

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown":
            for marker, (what, times) in (entry for entry in report.user_properties if entry[0] in TOLD):
                self.counts[marker][what] += times

    def pytest_terminal_summary(self, terminalreporter):
        for marker, counts in sorted(self.counts.items()):
            told = ", ".join(f"{times:,} {what}" for what, times in counts.items())
            terminalreporter.write_line(f"{marker}: {told}")


def pytest_configure(config):
    config.pluginmanager.register(Tally())


@pytest.fixture
def tried(request):
    """Count what a test tried: ``tried("kills")``, ``tried("files", 12)``, ``tried("shards bad", 0)``."""
    (marker,) = {mark.name for mark in request.node.iter_markers()}.intersection(TOLD)

    def count(what, times=1):
        request.node.user_properties.append((marker, (what, times)))

    return count
