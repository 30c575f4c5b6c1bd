"""What every test can count on: no user settings, no shared cache, patient hypothesis.

Properties explore new examples at every run on a desk, and repeat the same ones in CI.
"""

import os
import signal
import sys
from collections import Counter, defaultdict

# Two workers have two cores: one thread each, set before NumPy is loaded.
for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(_threads, "1")
# Hundreds of processes import the same modules: compiled once, and not by each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell starts its background jobs deaf to Ctrl-C, and they pass it on to the processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import commandserver  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from featstore.backbones.kernels import ask_for_onednn  # noqa: E402

ask_for_onednn()  # as the commands do, before a test imports TensorFlow, which reads its settings once

settings.register_profile("explore", deadline=None)
settings.register_profile("repeat", deadline=None, derandomize=True)
settings.load_profile("repeat" if os.environ.get("CI") else "explore")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, so that no default writes into the checkout or the user's home."""
    commandserver.remember()
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


TOGETHER = ("tests/backbones/", "tests/cli/")
"""Folders whose tests share what is dear: TensorFlow and networks, servers of commands and an extracted data set."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile` a process runs all tests of a file, and all of such a folder."""
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return next(
                (folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid)
            )

    return Sharing(config, log) if config.getvalue("dist") == "loadfile" else None


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
